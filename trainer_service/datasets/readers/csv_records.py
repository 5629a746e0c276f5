"""The first records of a CSV file, tokenised under a candidate dialect."""

import re
from dataclasses import dataclass

MAX_RECORDS = 101
"""Records looked at: a header and a hundred rows."""

_LINE_END = re.compile(r"\r\n|\n|\r")
_EMPTY_LINES = re.compile(r"[\r\n]*")


@dataclass(frozen=True)
class Record:
    """A record, from its first character to its line end.

    Attributes:
        line: Its first line, from 1.
        fields: Its fields, unquoted.
        quoted: Which of them are quoted.
    """

    line: int
    fields: tuple[str, ...]
    quoted: tuple[bool, ...]


@dataclass(frozen=True)
class Records:
    """The first records of a file; empty lines are left out.

    Attributes:
        found: The records, at most `MAX_RECORDS`.
        valid: Whether quotes open and close whole fields up to the last of them.
    """

    found: tuple[Record, ...]
    valid: bool

    @property
    def rows(self) -> tuple[Record, ...]:
        """All but the first."""
        return self.found[1:]

    @property
    def width(self) -> int:
        """Number of fields of the first record; 0 if there is none."""
        return len(self.found[0].fields) if self.found else 0

    def share(self, width: int) -> float:
        """Return the share of rows of this many fields; 0 if there are no rows."""
        return sum(len(row.fields) == width for row in self.rows) / max(len(self.rows), 1)


def first_records(text: str, delimiter: str, quote: str, line: int, *, complete: bool) -> Records:
    """Return the first records of a text.

    Args:
        text: The beginning of a file.
        delimiter: Field separator.
        quote: Quote character.
        line: Line of its first character.
        complete: Whether it is the whole file; else its last record is left out, as it may go on.
    """
    mark, separator = re.escape(quote), re.escape(delimiter)
    end = rf"(?=[{separator}\r\n]|\Z)"
    field = re.compile(rf"{mark}((?:[^{mark}]|{mark}{mark})*+){mark}{end}|([^{separator}{mark}\r\n]*+){end}")
    open_field = re.compile(rf"{mark}(?:[^{mark}]|{mark}{mark})*+{mark}?\Z")
    found: list[Record] = []
    at = 0
    while len(found) < MAX_RECORDS:
        empty = _EMPTY_LINES.match(text, at)
        if empty is not None:
            line += len(_LINE_END.findall(empty[0]))
            at = empty.end()
        if at == len(text):
            break
        start, fields, quoted = at, [], []
        while True:
            match = field.match(text, at)
            if match is None:
                return Records(tuple(found), valid=not complete and open_field.match(text, at) is not None)
            inner = match[1]
            fields.append(match[2] if inner is None else inner.replace(quote * 2, quote))
            quoted.append(inner is not None)
            at = match.end()
            if at == len(text) or text[at] != delimiter:
                break
            at += 1
        ended = _LINE_END.match(text, at)
        if ended is None and not complete:
            break
        at = len(text) if ended is None else ended.end()
        found.append(Record(line, tuple(fields), tuple(quoted)))
        line += len(_LINE_END.findall(text, start, at))
    return Records(tuple(found), valid=True)
