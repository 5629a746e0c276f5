"""The uploaded bytes as one read-only file over their segments."""

import bisect
import hashlib
import io
import threading
from collections.abc import Callable, Sequence

from rowmint.errors import CancelledError, DataLossError, DigestMismatchError
from rowmint.objects import ObjectStore
from rowmint.registry import SegmentRecord


def read_segment(store: ObjectStore, segment: SegmentRecord) -> bytes:
    """Return a segment's bytes, verified.

    Raises:
        DataLossError: The object is missing, or its bytes do not match the registry.
    """
    data = store.get(segment.object_key)
    if len(data) != segment.size or hashlib.sha256(data).digest() != segment.sha256:
        raise DataLossError(
            f"the stored segment {segment.index} at byte {segment.offset} is corrupt; upload the dataset again",
            metadata={"key": segment.object_key},
        )
    return data


def verify_upload(
    store: ObjectStore, segments: Sequence[SegmentRecord], sha256: bytes, stopped: Callable[[], bool]
) -> None:
    """Read an upload back and compare it with the digest that its client gave; one segment at a time is in memory.

    Args:
        store: Object store of the segments.
        segments: The segments in order.
        sha256: SHA-256 of the whole upload, as the client gave it.
        stopped: Returns whether to stop; called before each segment.

    Raises:
        CancelledError: `stopped` returned true.
        DataLossError: A segment is missing or corrupt.
        DigestMismatchError: The bytes are not those of the client's file.
    """
    digest = hashlib.sha256()
    for segment in segments:
        if stopped():
            raise CancelledError("the verification of the upload was stopped")
        digest.update(read_segment(store, segment))
    if digest.digest() != sha256:
        raise DigestMismatchError(
            f"the stored bytes have SHA-256 {digest.hexdigest()}, but finish_write says {sha256.hex()}; compare it with"
            " the file's, delete the dataset and upload the file again",
            metadata={"sha256": digest.hexdigest()},
        )


class SegmentReader(io.RawIOBase):
    """A seekable, read-only binary file: the segments of an upload, end to end.

    One segment at a time is in memory; each is verified with its SHA-256 when it is read. Calls may come from several
    threads, but not concurrently.

    Args:
        store: Object store of the segments.
        segments: The segments in order, the first at offset 0, without gaps.

    Raises:
        DataLossError: The segments are not contiguous; on reading: a segment is missing or corrupt.
    """

    def __init__(self, store: ObjectStore, segments: Sequence[SegmentRecord]) -> None:
        super().__init__()
        self._store = store
        self._segments = tuple(segments)
        self._starts = [segment.offset for segment in self._segments]
        self._position = 0
        self._loaded = -1
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
        """Fill `buffer` up to its end or the segment's; return the number of bytes, 0 at the end of the file."""
        with self._lock:
            if self._position >= self.size:
                return 0
            index = bisect.bisect_right(self._starts, self._position) - 1
            if index != self._loaded:
                # The old segment is dropped first: two would double the memory.
                self._data, self._loaded = b"", -1
                self._data, self._loaded = read_segment(self._store, self._segments[index]), index
            start = self._position - self._starts[index]
            count = min(len(buffer), len(self._data) - start)
            buffer[:count] = self._data[start : start + count]
            self._position += count
            return count

    def read(self, size: int | None = -1) -> bytes:
        """Return the next `size` bytes, fewer only at the end of the file; all the rest if negative or None."""
        left = max(self.size - self._position, 0)
        wanted = left if size is None or size < 0 else min(size, left)
        parts = bytearray(wanted)
        view = memoryview(parts)
        done = 0
        while done < wanted:
            done += self.readinto(view[done:])
        return bytes(parts)
