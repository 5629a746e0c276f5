"""The bytes of a CSV file as UTF-8, with validation of encoding and quotes (RFC 4180).

Arrow's CSV parser tolerates a stray or missing quote by joining fields and rows; here it is an error with its line.
"""

import codecs
import io
from collections.abc import Collection, Iterator

import numpy as np
import numpy.typing as npt

from rowmint.errors import DataProblem, InvalidDataError
from trainer_service.datasets.formats import CsvFormat
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.readers.csv_lines import NO_GAPS, Piece, from_line, line_ends, without_comments

BLOCK_BYTES = 4 << 20
"""Size of the blocks that are parsed at once; larger if a row is longer."""
_CHUNK = 1 << 20
_LF, _CR = 0x0A, 0x0D


class CsvBytes(io.RawIOBase):
    """The bytes of a CSV file's table: UTF-8 without byte order mark, skipped lines and comments, ending in a newline.

    Args:
        source: The uploaded bytes, seekable.
        dialect: Their CSV dialect; its delimiter and encoding are set.
        limits: Limits of a row.
        checked: Whether to validate encoding, quotes and lengths, as on the first reading.
    """

    def __init__(self, source: io.RawIOBase, dialect: CsvFormat, limits: IngestLimits, *, checked: bool) -> None:
        super().__init__()
        table = pieces(source, dialect, limits, checked=checked)
        if checked:
            table = _quotes_checked(table, ord(dialect.delimiter or ","), ord(dialect.quote))
        self._chunks = _whole_rows(table, ord(dialect.quote), limits)
        self._left = b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill as much of `buffer` as one chunk allows.

        Raises:
            InvalidDataError: The bytes are not in the declared encoding, a quote is misplaced, or a row is too long.
        """
        if not self._left:
            self._left = next(self._chunks, b"")
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def read(self, size: int | None = -1) -> bytes:
        """Return the next block, or at most `size` bytes of it, unless `size` is negative or None.

        Arrow treats the result of one call as a block, and a row may end in the next block, but not in the one after.
        """
        block = self._left or next(self._chunks, b"")
        end = len(block) if size is None or size < 0 else size
        self._left = block[end:]
        return block[:end]


def pieces(source: io.RawIOBase, dialect: CsvFormat, limits: IngestLimits, *, checked: bool) -> Iterator[Piece]:
    """Yield the table's bytes, UTF-8, in pieces of about 1 MiB; the last ends with a newline.

    Raises:
        InvalidDataError: The bytes are not in the encoding; only where `checked`, if that is UTF-8.
    """
    found = from_line(_utf8_chunks(source, dialect.encoding or "utf-8", checked=checked), dialect.skip_rows)
    if dialect.comment:
        return without_comments(found, dialect.comment.encode(), ord(dialect.quote), limits.row_bytes)
    return found


def _utf8_chunks(source: io.RawIOBase, encoding: str, *, checked: bool) -> Iterator[bytes]:
    source.seek(0)
    utf8 = encoding == "utf-8"
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    line, first, pending = 1, True, b""
    while True:
        raw = source.read(_CHUNK) or b""
        if utf8 and not checked:
            text = raw
        else:
            try:
                decoded = decoder.decode(raw, final=not raw)
            except UnicodeError as error:
                if utf8 and isinstance(error, UnicodeDecodeError):
                    line += raw[: error.start].count(b"\n")
                message = f"the bytes here are not {encoding}; declare the file's encoding or convert it"
                if utf8:
                    message += " (files of Excel and of Windows are often cp1252: --encoding cp1252)"
                raise InvalidDataError([DataProblem(message, line=line)]) from error
            text = raw if utf8 else decoded.encode()
        if first and text:
            text, first = text.removeprefix(codecs.BOM_UTF8), False
        if text:
            line += text.count(b"\n") if checked else 0
            if pending:
                yield pending
            pending = text
        if not raw:
            break
    if pending:
        # The last chunk is delayed, so that a newline can be appended to it.
        yield pending if pending.endswith(b"\n") else pending + b"\n"


def _quotes_checked(table: Iterator[Piece], delimiter: int, quote: int) -> Iterator[Piece]:
    """Yield the pieces, after checking that quotes open and close whole fields."""
    inside, before, closing, opened = False, _LF, False, 1
    neighbours = np.zeros(256, dtype=np.bool_)
    neighbours[[delimiter, quote, _LF, _CR]] = True
    for piece in table:
        if inside or closing or piece.data.find(quote) >= 0:
            data = np.frombuffer(piece.data, dtype=np.uint8)
            if closing and not neighbours[data[0]]:
                raise _stray(piece.line_at(0), "text follows a closing quote")
            at = np.flatnonzero(data == quote)
            opens = (np.arange(len(at)) % 2 == 0) ^ inside
            previous = np.where(at > 0, data[at - 1], before)
            following = data[np.minimum(at + 1, len(data) - 1)]
            bad_open = opens & ~neighbours[previous]
            bad_close = ~opens & ~neighbours[following] & (at + 1 < len(data))
            bad = np.flatnonzero(bad_open | bad_close)
            if len(bad):
                what = "a quote occurs within an unquoted field" if bad_open[bad[0]] else "text follows a closing quote"
                raise _stray(piece.line_at(int(at[bad[0]])), what)
            if len(at):
                inside = bool(inside) ^ bool(len(at) % 2)
                closing = not opens[-1] and int(at[-1]) == len(data) - 1
                if inside:
                    opened = piece.line_at(int(at[-1]))
            else:
                closing = False
        before = piece.data[-1]
        yield piece
    if inside:
        raise _stray(opened, "a quote that opens here is never closed")


def _whole_rows(table: Iterator[Piece], quote: int, limits: IngestLimits) -> Iterator[bytes]:
    """Yield the same bytes in blocks of about 4 MiB, each containing the end of a row.

    Raises:
        InvalidDataError: A row is too long; the error has its first line.
    """
    inside, length = False, 0  # at the start of a piece: whether in quotes, and bytes of the current row
    row_line = 0  # first line of the current row
    pending: list[bytes] = []
    ended = False
    for piece in table:
        chunk = piece.data
        row_line = row_line or piece.line_at(0)
        ends = _row_ends(chunk, quote, inside=inside)
        before = np.concatenate([[-1 - length], ends])
        lengths = np.append(ends, len(chunk)) - before - 1
        long = np.flatnonzero(lengths > limits.row_bytes)
        if len(long):
            row_line = piece.line_at(int(before[long[0]]) + 1) if long[0] else row_line
            message = f"the row that starts here {limits.row_reason}; check for a missing quote"
            raise InvalidDataError([DataProblem(message, line=row_line)])
        length = int(lengths[-1])
        inside ^= bool(chunk.count(quote) % 2)
        if len(ends):
            row_line = piece.line_at(int(ends[-1]) + 1)
            ended = True
        pending.append(chunk)
        if ended and sum(map(len, pending)) >= BLOCK_BYTES:
            yield b"".join(pending)
            pending, ended = [], False
    if pending:
        yield b"".join(pending)


def _row_ends(chunk: bytes, quote: int, *, inside: bool) -> npt.NDArray[np.int64]:
    """Return the positions of row ends: newlines outside quotes. `inside`: whether the chunk starts within quotes."""
    data = np.frombuffer(chunk, dtype=np.uint8)
    ends = np.flatnonzero((data == _LF) | (data == _CR))
    if inside or quote in chunk:
        quoted = np.bitwise_xor.accumulate((data == quote).view(np.uint8)) ^ np.uint8(inside)
        ends = ends[quoted[ends] == 0]
    return ends


def _stray(line: int, what: str) -> InvalidDataError:
    message = f"{what}; quote every field that contains quotes, and double each quote in it"
    return InvalidDataError([DataProblem(message, line=line)])


def lines_of_records(
    source: io.RawIOBase, dialect: CsvFormat, limits: IngestLimits, records: Collection[int], *, skip_empty: bool
) -> dict[int, int]:
    """Return the first line, from 1, of each of these records, from 1; a header is record 1.

    Quotes must be valid. Reads up to the last of the records.
    """
    requested = np.array(sorted(records), dtype=np.int64)
    found: dict[int, int] = {}
    record, line, carried, gaps = 0, 0, b"", NO_GAPS
    for piece in pieces(source, dialect, limits, checked=False):
        line = line or piece.line
        gaps = np.concatenate([gaps, piece.gaps + len(carried)])
        data = np.frombuffer(carried + piece.data, dtype=np.uint8)
        quoted = np.cumsum(data == ord(dialect.quote)) % 2 == 1
        ends = line_ends(data)
        outer = ends[~quoted[ends]]
        if not len(outer):
            carried = data.tobytes()
            continue
        starts = np.concatenate([[0], outer[:-1] + 1])
        length = outer - starts
        full = ~((length == 0) | ((length == 1) & (data[starts] == _CR))) | (not skip_empty)
        numbers = record + np.cumsum(full)
        lines = line + np.searchsorted(ends, starts) + np.searchsorted(gaps, starts, side="right")
        for index in np.flatnonzero(full & np.isin(numbers, requested)):
            found[int(numbers[index])] = int(lines[index])
        record = int(numbers[-1])
        # A record that continues in the next piece is processed again there, from its start.
        start = int(outer[-1]) + 1
        line += int(np.searchsorted(ends, start) + np.searchsorted(gaps, start))
        carried, gaps = data[start:].tobytes(), gaps[gaps >= start] - start
        if len(found) == len(requested):
            break
    return found
