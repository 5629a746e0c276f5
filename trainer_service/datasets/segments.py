"""The uploaded bytes as one read-only file over the segments that hold them."""

import bisect
import hashlib
import io
import threading
from collections.abc import Sequence

from rowmint.errors import DataLossError
from rowmint.objects import ObjectStore
from rowmint.registry import SegmentRecord


def read_segment(store: ObjectStore, segment: SegmentRecord) -> bytes:
    """Return a segment's bytes, checked.

    Raises:
        DataLossError: The object is missing, or its bytes are not what the registry says.
    """
    data = store.get(segment.object_key)
    if len(data) != segment.size or hashlib.sha256(data).digest() != segment.sha256:
        raise DataLossError(
            f"segment {segment.index} at byte {segment.offset} is damaged in the store; upload the dataset anew",
            metadata={"key": segment.object_key},
        )
    return data


class SegmentReader(io.RawIOBase):
    """A seekable, read-only binary file: the segments of an upload, end to end.

    One segment is held in memory at a time, each checked against its SHA-256 as it is read. Calls may come from several
    threads, one after another.

    Args:
        store: Where the segments are.
        segments: The segments in order, the first at offset 0, without gaps.

    Raises:
        DataLossError: The segments do not follow each other; and, on reading, where one is missing or damaged.
    """

    def __init__(self, store: ObjectStore, segments: Sequence[SegmentRecord]) -> None:
        super().__init__()
        self._store = store
        self._segments = tuple(segments)
        self._starts = [segment.offset for segment in self._segments]
        self._position = 0
        self._held = -1
        self._data = b""
        self._lock = threading.Lock()
        self.size = 0
        for segment in self._segments:
            if segment.offset != self.size:
                raise DataLossError(f"segment {segment.index} begins at byte {segment.offset}, not at {self.size}")
            self.size += segment.size

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a byte and return its offset from the start."""
        with self._lock:
            base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
            if base + offset < 0:
                raise ValueError(f"cannot seek to byte {base + offset}")
            self._position = base + offset
            return self._position

    def tell(self) -> int:
        """Return the offset of the next byte."""
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill `buffer` up to its end or the segment's, and return how many bytes that were; 0 at the end."""
        with self._lock:
            if self._position >= self.size:
                return 0
            index = bisect.bisect_right(self._starts, self._position) - 1
            if index != self._held:
                # The old segment goes first: two at once would double what reading costs.
                self._data, self._held = b"", -1
                self._data, self._held = read_segment(self._store, self._segments[index]), index
            start = self._position - self._starts[index]
            count = min(len(buffer), len(self._data) - start)
            buffer[:count] = self._data[start : start + count]
            self._position += count
            return count

    def read(self, size: int | None = -1) -> bytes:
        """Return the next `size` bytes, fewer only at the end; all that is left where it is negative or None."""
        left = max(self.size - self._position, 0)
        wanted = left if size is None or size < 0 else min(size, left)
        parts = bytearray(wanted)
        view = memoryview(parts)
        done = 0
        while done < wanted:
            done += self.readinto(view[done:])
        return bytes(parts)
