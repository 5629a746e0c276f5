"""Where the bytes of an upload come from: files as they are, decompressed or converted, and tables in memory."""

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from rowmint.client.arrow_bytes import ArrowBytes, ArrowTable, can_repeat
from rowmint.client.compressed import START_BYTES, Decompressed, Readable, compression_of, plain_name
from rowmint.client.spreadsheet import is_spreadsheet, json_lines
from rowmint.errors import InvalidFieldError

_PIECE_BYTES = 1024 * 1024

Uploadable = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | ArrowTable
"""A path, bytes, a binary file object, or a table in memory, such as a data frame."""


class Bytes(Protocol):
    """Bytes that are read from their start.

    Attributes:
        size: Their number, None where that is unknown before the end.
        rewindable: Whether `move_to` can go back.
    """

    size: int | None
    rewindable: bool

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; none only at the end."""
        ...

    def move_to(self, offset: int) -> None:
        """Go to an offset at or before the furthest one read to."""
        ...

    def close(self) -> None:
        """Close what was opened here."""
        ...


class FileBytes:
    """A file as it is.

    Args:
        file: The file, at its start.
        owned: Whether it is closed here.
        start: Bytes that were read of a file that cannot seek.
    """

    def __init__(self, file: IO[bytes], *, owned: bool, start: bytes = b"") -> None:
        self._file = file
        self._owned = owned
        self._start = start
        self.rewindable = _can_seek(file)
        self.size: int | None = None
        if self.rewindable:
            self.size = file.seek(0, io.SEEK_END)
            file.seek(0)

    def read(self, size: int, /) -> bytes:
        """See `Bytes`."""
        if self._start:
            found, self._start = self._start[:size], self._start[size:]
            return found
        return self._file.read(size)

    def move_to(self, offset: int) -> None:
        """See `Bytes`."""
        self._file.seek(offset)

    def close(self) -> None:
        """See `Bytes`."""
        if self._owned:
            self._file.close()


class MadeBytes:
    """Bytes that are made while they are read, and, to go back, made again from the start.

    Args:
        make: Begins to make them.
        rewindable: Whether it can be called again.
        close: Closes what they are made of.
    """

    def __init__(self, make: Callable[[], Readable], *, rewindable: bool, close: Callable[[], None]) -> None:
        self._make = make
        self._close = close
        self._current = make()
        self._at = 0
        self.rewindable = rewindable
        self.size: int | None = None

    def read(self, size: int, /) -> bytes:
        """See `Bytes`."""
        found = self._current.read(size)
        self._at += len(found)
        return found

    def move_to(self, offset: int) -> None:
        """See `Bytes`; a piece at a time is in memory."""
        if offset < self._at:
            self._current.close()
            self._current, self._at = self._make(), 0
        while self._at < offset and self.read(min(_PIECE_BYTES, offset - self._at)):
            pass

    def close(self) -> None:
        """See `Bytes`."""
        self._current.close()
        self._close()


@dataclass(frozen=True)
class OpenedSource:
    """A source that has been opened.

    Attributes:
        content: Its bytes, as they are uploaded.
        name: Name of the file without the suffix of its compression; empty where there is none.
        format: Format of the bytes, where the source decides it and not its name; else empty.
    """

    content: Bytes
    name: str
    format: str = ""


def opened(given: Uploadable, sheet: str | None = None) -> OpenedSource:
    """Open what is to be uploaded.

    Args:
        given: A path, bytes, a binary file object at its start, or a table.
        sheet: Name of the sheet, of an Excel workbook that has several.

    Raises:
        OSError: The file cannot be opened.
        InvalidFieldError: It is something else, or cannot be decompressed or converted.
    """
    if isinstance(given, (str, os.PathLike)):
        name = os.fspath(given)
        spreadsheet = is_spreadsheet(name)
        file: IO[bytes] = Path(given).open("rb")  # noqa: SIM115  # closed with its bytes
        try:
            return _of_file(file, name, sheet, spreadsheet=spreadsheet, owned=True)
        except BaseException:
            file.close()
            raise
    if isinstance(given, (bytes, bytearray, memoryview)):
        return _of_file(io.BytesIO(given), "", sheet, owned=True)
    if isinstance(given, ArrowTable):
        made = MadeBytes(lambda: ArrowBytes(given), rewindable=can_repeat(given), close=_nothing)
        return OpenedSource(made, "", "arrow")
    if hasattr(given, "read"):
        if not isinstance(given.read(0), bytes):
            raise InvalidFieldError("source", "is a text file; open it in binary mode ('rb')")
        name = getattr(given, "name", "")
        name = name if isinstance(name, str) else ""
        return _of_file(given, name, sheet, spreadsheet=is_spreadsheet(name), owned=False)
    kind = type(given).__name__
    raise InvalidFieldError("source", f"is a {kind}; give a path, bytes, a binary file or a table")


def _of_file(file: IO[bytes], name: str, sheet: str | None, *, spreadsheet: bool = False, owned: bool) -> OpenedSource:
    if spreadsheet:
        lines = json_lines(file, sheet)
        if owned:
            file.close()
        return OpenedSource(FileBytes(lines, owned=True), name, "jsonl")
    start = b""
    while len(start) < START_BYTES and (piece := file.read(START_BYTES - len(start))):
        start += piece
    can_seek = _can_seek(file)
    if can_seek:
        file.seek(0)
    compression = compression_of(name, start)
    if not compression:
        return OpenedSource(FileBytes(file, owned=owned, start=b"" if can_seek else start), name)

    def make() -> Readable:
        if not can_seek:
            return Decompressed(FileBytes(file, owned=False, start=start), compression)
        file.seek(0)
        return Decompressed(file, compression)

    made = MadeBytes(make, rewindable=can_seek, close=file.close if owned else _nothing)
    return OpenedSource(made, plain_name(name))


def _can_seek(file: IO[bytes]) -> bool:
    return bool(getattr(file, "seekable", bool)())


def _nothing() -> None:
    """Close nothing."""
