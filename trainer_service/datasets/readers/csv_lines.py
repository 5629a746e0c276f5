"""Lines of a CSV file that are not of its table: those before it, and comments."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_LINE_END = re.compile(rb"\r\n|\n|\r")
_LF, _CR = 0x0A, 0x0D

Bytes = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.int64]
NO_GAPS: Positions = np.zeros(0, dtype=np.int64)


class Piece(NamedTuple):
    """Bytes of a file from which lines may have been removed.

    Attributes:
        data: The bytes left, UTF-8.
        line: Line of the first of them, from 1, before what was removed there.
        gaps: Positions in `data` before each of which a line was removed, ascending; repeated where several were.
    """

    data: bytes
    line: int
    gaps: Positions = NO_GAPS

    def line_at(self, position: int) -> int:
        """Return the line of a byte."""
        newlines = self.data.count(b"\n", 0, position)
        return self.line + newlines + int(np.searchsorted(self.gaps, position, side="right"))


def from_line(chunks: Iterable[bytes], skipped: int) -> Iterator[Piece]:
    """Yield the chunks of a file without its first lines, `skipped` of them."""
    line, left, after_cr = 1, skipped, False
    for chunk in chunks:
        at = int(after_cr and chunk.startswith(b"\n"))
        after_cr = False
        while left and (end := _LINE_END.search(chunk, at)):
            at, left, line = end.end(), left - 1, line + 1
            after_cr = end[0] == b"\r" and at == len(chunk)
        if left or at == len(chunk):
            continue
        yield Piece(chunk[at:], line)
        line += chunk.count(b"\n", at)


def without_comments(pieces: Iterable[Piece], comment: bytes, quote: int, longest: int) -> Iterator[Piece]:
    """Yield the pieces without the lines that begin with `comment`, unless these lie within a quoted field.

    Args:
        pieces: Of a file that ends with a newline.
        comment: Text that begins a comment.
        quote: The quote character.
        longest: Bytes of a line that are kept to see its end; a longer one is no comment.
    """
    carried, inside, line, removed_before = b"", False, 0, 0
    for piece in pieces:
        line = line or piece.line
        data = carried + piece.data
        # A carriage return at the end may be followed by a newline.
        cut = data.rfind(b"\n") + 1 or data.rfind(b"\r", 0, -1) + 1
        if not cut and len(data) <= longest:
            carried = data
            continue
        cut = cut or len(data)
        whole, carried = data[:cut], data[cut:]
        kept, gaps, inside = _kept(whole, comment, quote, inside=inside)
        if not kept:
            removed_before += len(gaps)
            continue
        gaps = np.concatenate([np.zeros(removed_before, dtype=np.int64), gaps])
        yield Piece(kept, line, gaps)
        line += kept.count(b"\n") + len(gaps)
        removed_before = 0
    if carried:
        yield Piece(carried, line, np.zeros(removed_before, dtype=np.int64))


def _kept(data: bytes, comment: bytes, quote: int, *, inside: bool) -> tuple[bytes, Positions, bool]:
    """Return whole lines without comments, the gaps in them, and whether they end within quotes."""
    array = np.frombuffer(data, dtype=np.uint8)
    ends = line_ends(array)
    starts = np.concatenate([[0], ends + 1])
    stops = np.append(ends + 1, len(data))
    fits = starts + len(comment) <= len(data)
    starts, stops = starts[fits], stops[fits]
    begins = np.ones(len(starts), dtype=np.bool_)
    for index, byte in enumerate(comment):
        begins &= array[starts + index] == byte
    starts, stops = starts[begins], stops[begins]
    quotes = np.flatnonzero(array == quote)
    if len(quotes) or inside:
        outside = _outside(np.searchsorted(quotes, starts), np.searchsorted(quotes, stops), inside=inside)
        starts, stops = starts[outside], stops[outside]
        dropped = int((np.searchsorted(quotes, stops) - np.searchsorted(quotes, starts)).sum())
        inside ^= bool((len(quotes) - dropped) % 2)
    if not len(starts):
        return data, NO_GAPS, inside
    change = np.zeros(len(data) + 1, dtype=np.int8)
    change[starts] += 1
    change[stops] -= 1
    kept = array[np.cumsum(change[:-1]) == 0].tobytes()
    lengths = stops - starts
    return kept, starts - (np.cumsum(lengths) - lengths), inside


def _outside(before: Positions, after: Positions, *, inside: bool) -> npt.NDArray[np.bool_]:
    """Return which possible comments lie outside quotes; quotes of a comment do not count.

    Args:
        before: Number of quotes before each.
        after: Number of quotes before its end.
        inside: Whether the text begins within quotes.
    """
    found = np.zeros(len(before), dtype=np.bool_)
    dropped = int(inside)
    for index, (first, last) in enumerate(zip(before.tolist(), after.tolist(), strict=True)):
        if (first + dropped) % 2 == 0:
            found[index] = True
            dropped += last - first
    return found


def line_ends(data: Bytes) -> Positions:
    """Return the positions of line ends: LF, or CR without LF; a CR at the very end may be followed by LF later."""
    alone = (data[:-1] == _CR) & (data[1:] != _LF)
    ends = data == _LF
    ends[:-1] |= alone
    return np.flatnonzero(ends)
