"""The bytes of an upload, which can be read again from an offset where a stream broke."""

import hashlib
import threading
from collections import deque

from rowmint.client.byte_sources import Uploadable, opened
from rowmint.errors import InvalidFieldError, UnavailableError

_PIECE_BYTES = 1024 * 1024

REPLAY_BYTES = 32 * 1024 * 1024
"""Bytes kept of a source that cannot seek: more than may be uncommitted in the service and under way in the network."""


class UploadSource:
    """Bytes read by offset, and hashed as they are read first. Safe to use from several threads.

    Compressed files are decompressed, Excel workbooks become JSON lines, and tables Arrow streams. Of a source that
    cannot be read again the last `replay_bytes` are kept, so that a broken upload can be resumed all the same.

    Args:
        given: A path, bytes, a binary file object at its start, or a table.
        replay_bytes: Bytes kept where the source cannot be read again.
        sheet: Name of the sheet, of an Excel workbook that has several.

    Attributes:
        name: Name of the file without the suffix of its compression; empty where there is none.
        format: Format of the bytes, where the source decides it and not its name; else empty.
        size: Bytes in all, or None where that is unknown before the end.
        rewindable: Whether the source can be read again from any offset.

    Raises:
        OSError: The file cannot be opened.
        InvalidFieldError: It is something else, or cannot be decompressed or converted.
    """

    def __init__(self, given: Uploadable, replay_bytes: int = REPLAY_BYTES, sheet: str | None = None) -> None:
        source = opened(given, sheet)
        self.name = source.name
        self.format = source.format
        self._bytes = source.content
        self.size = self._bytes.size
        self.rewindable = self._bytes.rewindable
        self._lock = threading.Lock()
        self._hash = hashlib.sha256()
        self._hashed = 0
        self._position = 0
        self._replay_bytes = replay_bytes
        self._window: deque[bytes] = deque()
        self._window_start = 0

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`; none only at the end.

        The bytes between those read so far and `offset` are read, too: the digest covers all bytes.

        Raises:
            InvalidFieldError: The source ends before `offset`.
            UnavailableError: The source cannot be read again, and the bytes at the offset are no longer kept.
            OSError: It cannot be read.
        """
        with self._lock:
            if offset < self._position and not self._bytes.rewindable:
                return self._replayed(offset, size)
            if offset > self._hashed:
                self._move_to(self._hashed)
            while self._hashed < offset:
                if not self._next(min(_PIECE_BYTES, offset - self._hashed)):
                    raise InvalidFieldError(
                        "source",
                        f"ends at byte {self._hashed}, before byte {offset} that the service has; is it another file?",
                    )
            self._move_to(offset)
            return self._next(size)

    def _move_to(self, offset: int) -> None:
        if offset != self._position:
            self._bytes.move_to(offset)
            self._position = offset

    def _next(self, size: int) -> bytes:
        """Read up to `size` further bytes, fewer only at the end; hash those not read before."""
        parts: list[bytes] = []
        missing = size
        while missing and (piece := self._bytes.read(missing)):
            parts.append(piece)
            missing -= len(piece)
        data = b"".join(parts)
        start, self._position = self._position, self._position + len(data)
        if self._hashed < self._position:
            self._hash.update(data[self._hashed - start :])
            self._hashed = self._position
        if not self._bytes.rewindable:
            self._keep(data)
        return data

    def _keep(self, data: bytes) -> None:
        """Keep the bytes read last, and drop the oldest beyond the limit."""
        self._window.append(data)
        while self._window and self._position - self._window_start - len(self._window[0]) >= self._replay_bytes:
            self._window_start += len(self._window.popleft())

    def _replayed(self, offset: int, size: int) -> bytes:
        """Return bytes that were read before."""
        if not self._window_start <= offset < self._position:
            raise UnavailableError(
                f"the upload broke and must be resumed from byte {offset}; this source cannot seek, and only its last"
                f" {self._position - self._window_start} bytes, up to byte {self._position}, are kept; upload a file"
            )
        start = self._window_start
        for piece in self._window:
            if offset < start + len(piece):
                return piece[offset - start : offset - start + size]
            start += len(piece)
        raise AssertionError("unreachable")

    def digest(self) -> bytes:
        """Return the SHA-256 of the bytes read so far, 32 bytes."""
        with self._lock:
            return self._hash.digest()

    def whole_digest(self) -> bytes:
        """Read a rewindable source to its end, a piece at a time, and return the SHA-256 of its bytes, 32 bytes.

        Raises:
            OSError: It cannot be read.
            InvalidFieldError: It cannot be decompressed.
        """
        size = 0
        while piece := self.read_at(size, _PIECE_BYTES):
            size += len(piece)
        self.size = size
        return self.digest()

    def close(self) -> None:
        """Close what was opened here."""
        self._bytes.close()
