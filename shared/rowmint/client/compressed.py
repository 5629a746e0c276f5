"""Compressed files, which are uploaded decompressed, a piece at a time."""

import functools
import re
from pathlib import PurePath
from typing import IO, Protocol

from rowmint.errors import InvalidFieldError

SUFFIXES = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".zstd": "zstd"}
"""What each suffix says of a file."""
_STARTS = {
    "gzip": re.compile(rb"\x1f\x8b\x08"),
    "bz2": re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd"),
}
START_BYTES = 16
"""Bytes that show how a file is compressed."""
_ARCHIVES = {".zip", ".xz", ".7z", ".rar", ".tar", ".tgz", ".lz4", ".br", ".z"}
_ZIP = b"PK\x03\x04"


class Readable(Protocol):
    """What is read of an open file."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; none only at the end."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


def plain_name(name: str) -> str:
    """Return a file's name without the suffix of its compression."""
    path = PurePath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in SUFFIXES else name


def compression_of(name: str, start: bytes) -> str:
    """Return how a file is compressed: one of the values of `SUFFIXES`, or "" if it is not.

    Args:
        name: Its name; empty where there is none.
        start: Its first bytes.

    Raises:
        InvalidFieldError: It is an archive, or not what its name says.
    """
    suffix = PurePath(name).suffix.lower()
    if suffix in _ARCHIVES or start.startswith(_ZIP):
        what = f"{PurePath(name).name!r} is" if name else "is"
        raise InvalidFieldError("source", f"{what} an archive or compressed in a way that is not read; unpack it")
    found = next((kind for kind, begins in _STARTS.items() if begins.match(start)), "")
    declared = SUFFIXES.get(suffix, found)
    if start and declared != found:
        raise InvalidFieldError("source", f"is not compressed with {declared}, as its name {name!r} says")
    return found


class Decompressed:
    """The decompressed bytes of an open file, in bounded memory.

    Args:
        file: The file, at its start; it is not closed.
        compression: Its compression.
    """

    def __init__(self, file: "IO[bytes] | Readable", compression: str) -> None:
        import pyarrow as pa  # noqa: PLC0415  # heavy, and not needed for most commands

        self._compression = compression
        self._stream = pa.input_stream(pa.PythonFile(_NotClosed(file), mode="r"), compression=compression)

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; none only at the end.

        Raises:
            InvalidFieldError: The file is damaged or not complete.
        """
        try:
            return bytes(self._stream.read(size))
        except OSError as error:
            raise InvalidFieldError(
                "source", f"cannot be decompressed with {self._compression} ({error}); is the file complete?"
            ) from error

    def close(self) -> None:
        """Close the stream, not the file."""
        self._stream.close()


class _NotClosed:
    """A file that is read, and left open."""

    closed = False

    def __init__(self, file: "IO[bytes] | Readable") -> None:
        self.read = functools.partial(_read, file)

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        pass


def _read(file: "IO[bytes] | Readable", size: int = -1) -> bytes:
    return file.read(size)
