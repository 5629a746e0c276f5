"""The bytes of an upload, which can be read again from an offset where a stream broke."""

import hashlib
import io
import os
import threading
from collections import deque
from pathlib import Path
from typing import IO

from rowmint.errors import InvalidFieldError, UnavailableError

_PIECE_BYTES = 1024 * 1024

Uploadable = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]
"""A path, bytes, or a binary file object."""

REPLAY_BYTES = 32 * 1024 * 1024
"""Bytes kept of a source that cannot seek: more than may be uncommitted in the service and under way in the network."""


class UploadSource:
    """Bytes read by offset, and hashed as they are read first. Safe to use from several threads.

    Of a source that cannot seek the last `replay_bytes` are kept, so that a broken upload can be resumed all the same.

    Args:
        given: A path, bytes, or a binary file object at its start.
        replay_bytes: Bytes kept where the source cannot seek.

    Raises:
        OSError: The file cannot be opened.
        InvalidFieldError: It is something else.
    """

    def __init__(self, given: Uploadable, replay_bytes: int = REPLAY_BYTES) -> None:
        self._owned = isinstance(given, (str, os.PathLike))
        self._file: IO[bytes]
        if isinstance(given, (str, os.PathLike)):
            self._file = Path(given).open("rb")  # noqa: SIM115  # closed by close()
            self.name = os.fspath(given)
        elif isinstance(given, (bytes, bytearray, memoryview)):
            self._file = io.BytesIO(given)
            self.name = ""
        elif hasattr(given, "read"):
            if not isinstance(given.read(0), bytes):
                raise InvalidFieldError("source", "is a text file; open it in binary mode ('rb')")
            self._file = given
            name = getattr(given, "name", "")
            self.name = name if isinstance(name, str) else ""
        else:
            raise InvalidFieldError("source", f"is a {type(given).__name__}; give a path, bytes or a binary file")
        self._lock = threading.Lock()
        self._hash = hashlib.sha256()
        self._hashed = 0
        self._position = 0
        self._seekable = bool(getattr(self._file, "seekable", bool)())
        self._replay_bytes = replay_bytes
        self._window: deque[bytes] = deque()
        self._window_start = 0
        self.size: int | None = None
        """Bytes in all, or None where that is unknown before the end."""
        if self._seekable:
            self.size = self._file.seek(0, io.SEEK_END)
            self._file.seek(0)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`; none only at the end.

        The bytes between those read so far and `offset` are read, too: the digest covers all bytes.

        Raises:
            InvalidFieldError: The source ends before `offset`.
            UnavailableError: The source cannot seek, and the bytes at the offset are no longer kept.
            OSError: It cannot be read.
        """
        with self._lock:
            if offset < self._position and not self._seekable:
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
            self._file.seek(offset)
            self._position = offset

    def _next(self, size: int) -> bytes:
        """Read up to `size` further bytes, fewer only at the end; hash those not read before."""
        parts: list[bytes] = []
        missing = size
        while missing and (piece := self._file.read(missing)):
            parts.append(piece)
            missing -= len(piece)
        data = b"".join(parts)
        start, self._position = self._position, self._position + len(data)
        if self._hashed < self._position:
            self._hash.update(data[self._hashed - start :])
            self._hashed = self._position
        if not self._seekable:
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

    def close(self) -> None:
        """Close the file where it was opened here."""
        if self._owned:
            self._file.close()
