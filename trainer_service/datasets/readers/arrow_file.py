"""Arrow IPC files, which are Feather version 2 as well, as the stream of their messages."""

import bisect
import io
import struct

from rowmint.errors import DataProblem, InvalidDataError
from trainer_service.datasets.readers.flatbuffer import Table

MAGIC = b"ARROW1"
_FEATHER_1 = b"FEA1"
_START = 8  # the magic, padded
_MAX_FOOTER = 16 << 20
# Numbers of table fields in File.fbs of the Arrow format; a block has an offset, and lengths of metadata and body.
_FOOTER_DICTIONARIES, _FOOTER_BATCHES = 2, 3
_BLOCK = "<qi4xq"


def begins_as_file(source: io.RawIOBase) -> bool:
    """Return whether bytes begin as an Arrow IPC file does.

    Raises:
        InvalidDataError: They begin as Feather version 1.
    """
    source.seek(0)
    start = source.read(len(MAGIC)) or b""
    if start.startswith(_FEATHER_1):
        raise InvalidDataError([DataProblem("the file is Feather version 1; write it as version 2, or as Parquet")])
    return start == MAGIC


class FileMessages(io.RawIOBase):
    """The messages of an Arrow IPC file, from its schema on, as one stream.

    The footer lists where dictionaries and batches are. All dictionaries come first, as a batch may use one that the
    file has after it.

    Args:
        source: The file, seekable.

    Raises:
        InvalidDataError: It is not complete, or its footer lists messages outside it, or some twice.
    """

    def __init__(self, source: io.RawIOBase) -> None:
        super().__init__()
        self._source = source
        size = source.seek(0, io.SEEK_END)
        source.seek(max(size - 10, 0))
        tail = source.read(10) or b""
        length = int.from_bytes(tail[:4], "little", signed=True)
        if len(tail) < 10 or tail[4:] != MAGIC:
            raise _file_error("is not complete; write it again")
        end = size - 10 - length
        if not 0 < length <= _MAX_FOOTER or end < _START:
            raise _file_error(f"has a footer of {length} bytes")
        source.seek(end)
        footer = source.read(length) or b""
        try:
            table = Table.root(footer)
            blocks = [*table.structs(_FOOTER_DICTIONARIES, _BLOCK), *table.structs(_FOOTER_BATCHES, _BLOCK)]
        except (struct.error, IndexError) as error:
            raise _file_error("has an inconsistent footer") from error
        self._ranges = [(_START, self._schema_end(end)), *_ranges(blocks, end)]
        self._starts = [0]
        for first, last in self._ranges:
            self._starts.append(self._starts[-1] + last - first)
        self._position = 0

    def _schema_end(self, end: int) -> int:
        """Return where the message of the schema ends."""
        self._source.seek(_START)
        prefix = self._source.read(8) or b""
        at, length = (8, prefix[4:]) if prefix[:4] == b"\xff\xff\xff\xff" else (4, prefix[:4])
        schema_end = _START + at + int.from_bytes(length, "little", signed=True)
        if len(prefix) < 8 or not _START < schema_end <= end:
            raise _file_error("has no schema")
        return schema_end

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill as much of `buffer` as one message allows."""
        piece = self._piece(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def read(self, size: int | None = -1) -> bytes:
        """Return the next `size` bytes, fewer only at the end."""
        left = self._starts[-1] - self._position
        left = left if size is None or size < 0 else min(size, left)
        parts = []
        while left and (piece := self._piece(left)):
            parts.append(piece)
            left -= len(piece)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _piece(self, size: int) -> bytes:
        if self._position >= self._starts[-1]:
            return b""
        index = bisect.bisect_right(self._starts, self._position) - 1
        first, last = self._ranges[index]
        at = first + self._position - self._starts[index]
        self._source.seek(at)
        piece = self._source.read(min(size, last - at)) or b""
        self._position += len(piece)
        return piece


def _ranges(blocks: list[tuple[int, ...]], end: int) -> list[tuple[int, int]]:
    """Return where each block begins and ends.

    Raises:
        InvalidDataError: One lies outside the file, or two overlap: a few bytes could stand for any number of batches.
    """
    found = []
    for offset, metadata, body in blocks:
        if not (_START < offset < end and 0 < metadata <= end - offset and 0 <= body <= end - offset - metadata):
            raise _file_error("has a footer that lists a batch outside it")
        found.append((offset, offset + metadata + body))
    last = _START
    for first, stop in sorted(found):
        if first < last:
            raise _file_error("has a footer that lists a batch twice")
        last = stop
    return found


def _file_error(what: str) -> InvalidDataError:
    return InvalidDataError([DataProblem(f"the Arrow file {what}")])
