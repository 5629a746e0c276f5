"""Bounds of streams; they hold for every service, client and job."""

MAX_ROWS = 10**15
"""Rows of the longest logical stream; also the greatest row index at which one may start."""
MAX_PARTS = 1024
"""Parts that a stream may be cut into."""
MIN_MESSAGE_BYTES = 16 * 1024
MAX_MESSAGE_BYTES = 1024 * 1024
"""Range of the size of messages that may be aimed at."""
MAX_REUSE = 64
"""Most rows that a caller may allow to share a candidate."""
