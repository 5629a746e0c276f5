"""A source that can be read only once, as a pipe is."""

import io


class OneWay(io.RawIOBase):
    """Bytes without seek."""

    def __init__(self, data):
        self._inner = io.BytesIO(data)

    def readable(self):
        return True

    def seekable(self):
        return False

    def readinto(self, buffer):
        return self._inner.readinto(buffer)
