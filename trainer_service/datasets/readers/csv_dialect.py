"""What the beginning of a CSV file says of its dialect.

A pure function of the first mebibyte, so that both passes of ingest, and one resumed elsewhere, see the same. All rows
are then held against what was seen: a row that does not fit is an error.
"""

import io
import re
from dataclasses import dataclass, replace

from rowmint.errors import DataProblem, InvalidDataError
from trainer_service.datasets.formats import CsvFormat, QuotedEmpty
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.notices import Notice, NoticeCode, Notices
from trainer_service.datasets.readers.csv_bytes import pieces
from trainer_service.datasets.readers.csv_header import check_header
from trainer_service.datasets.readers.csv_records import Records, first_records
from trainer_service.datasets.readers.signatures import is_utf16, refuse_other_format

CANDIDATES = (",", ";", "\t", "|")
"""Delimiters that are looked for, the usual first."""
BEGINNING = 1 << 20
"""Bytes looked at, as UTF-8."""
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r|\Z)")
_SEPARATOR = re.compile(r"sep=([ -/:-@\[-`{-~\t])(?:\r\n|\n|\r)")
_NUMBER = re.compile(r"[+-]?[0-9]+(?:[.,][0-9]+)?")
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "pipes", " ": "spaces"}


@dataclass(frozen=True)
class Seen:
    """What was seen.

    Attributes:
        dialect: The dialect, nothing in it left open.
        width: Number of fields of a row; 0: that of the header.
        unnamed: Whether the last field of every row has no name and must be empty.
        guessed: Whether the delimiter was seen, not declared.
    """

    dialect: CsvFormat
    width: int
    unnamed: bool
    guessed: bool


def seen(source: io.RawIOBase, declared: CsvFormat, limits: IngestLimits, notices: Notices) -> Seen:
    """Return what is seen at the beginning of a file.

    Args:
        source: The bytes, seekable.
        declared: The declared dialect.
        limits: Limits of a row.
        notices: Receives what was decided.

    Raises:
        InvalidDataError: The file is of another format, begins with lines that are not of a table, has another
            delimiter than declared, or has a row where its header should be.
    """
    refuse_other_format(source, "CSV")
    dialect = replace(declared, encoding=declared.encoding or _encoding(source, notices))
    text, line, complete = _beginning(source, dialect, limits)
    start = _start(text, line, dialect, complete=complete)
    if start.skipped:
        _note_skipped(start.skipped, dialect.skip_rows, notices)
    _require_table(start, dialect, complete=complete)
    delimiter, records = start.delimiter, start.records
    if declared.delimiter is None and delimiter != ",":
        message = f"fields are separated by {_NAMES.get(delimiter, repr(delimiter))}, as seen from the first lines"
        notices.add(Notice(NoticeCode.DIALECT, "", message, "--delimiter"))
    if columns := _words(records):
        message = f"the table has one column, in which every line has {columns} words: are they its fields?"
        notices.add(Notice(NoticeCode.DIALECT, "", message, "--delimiter space"))
    dialect = replace(dialect, delimiter=delimiter, skip_rows=dialect.skip_rows + start.skipped)
    check_header(records, dialect, notices)
    width, unnamed = _width(records, has_header=dialect.has_header)
    dialect = replace(dialect, quoted_empty=_quoted_empty(records, dialect))
    return Seen(dialect, width, unnamed, declared.delimiter is None)


def _encoding(source: io.RawIOBase, notices: Notices) -> str:
    if is_utf16(source):
        notices.add(Notice(NoticeCode.DIALECT, "", "the encoding is UTF-16, by its byte order mark", "--encoding"))
        return "utf-16"
    return "utf-8"


def _beginning(source: io.RawIOBase, dialect: CsvFormat, limits: IngestLimits) -> tuple[str, int, bool]:
    """Return the beginning of the table as text, its line, and whether that is all."""
    parts: list[bytes] = []
    size, line = 0, 1
    for piece in pieces(source, dialect, limits, checked=True):
        if not parts:
            line = piece.line_at(0)
        parts.append(piece.data)
        size += len(piece.data)
        if size >= BEGINNING:
            break
    data = b"".join(parts)
    # A character that is cut at the end is left out, with the record that it belongs to.
    return data[:BEGINNING].decode("utf-8", "ignore"), line, size < BEGINNING


@dataclass(frozen=True)
class _Start:
    """Where the table starts.

    Attributes:
        text: The text from its header on.
        delimiter: Its delimiter.
        records: Its first records under that.
        skipped: Number of lines skipped before it.
    """

    text: str
    delimiter: str
    records: Records
    skipped: int


def _start(text: str, line: int, dialect: CsvFormat, *, complete: bool) -> _Start:
    # Excel writes, and reads, the delimiter before the header.
    separator = _SEPARATOR.match(text)
    if separator and dialect.delimiter in (None, separator[1]) and separator[1] != dialect.quote:
        text = text[separator.end() :]
        records = first_records(text, separator[1], dialect.quote, line + 1, complete=complete)
        return _Start(text, separator[1], records, 1)
    comments = [] if dialect.comment else _comment_lines(text)
    below = text[sum(map(len, comments)) :]
    delimiter, records = _best(below, line + len(comments), dialect, complete=complete)
    # The last of these lines may be the header: "#id,name" over rows with numbers.
    marked = [index for index, comment in enumerate(comments) if comment.startswith("#")]
    if marked and dialect.has_header:
        kept = marked[-1]
        above = "".join(comments[kept:]) + below
        again = first_records(above, delimiter, dialect.quote, line + kept, complete=complete)
        if _is_header(again):
            return _Start(above, delimiter, again, kept)
    return _Start(below, delimiter, records, len(comments))


def _comment_lines(text: str) -> list[str]:
    """Return the lines before the first that is neither empty nor begins with #; none if none begins so."""
    found: list[str] = []
    for match in _LINE.finditer(text):
        if not match[0] or (match[0].strip() and not match[0].startswith("#")):
            break
        found.append(match[0])
    return found if any(line.startswith("#") for line in found) else []


def _is_header(records: Records) -> bool:
    """Return whether the first record, which begins with #, names the columns of the next."""
    if not records.rows or len(records.rows[0].fields) != records.width:
        return False
    first, second = records.found[0].fields, records.rows[0].fields
    numbers = [bool(_NUMBER.fullmatch(field.strip())) for field in second]
    single = records.width == 1 and " " in first[0].strip()
    return any(numbers) and not single and not any(_NUMBER.fullmatch(field.strip()) for field in first)


def _best(text: str, line: int, dialect: CsvFormat, *, complete: bool) -> tuple[str, Records]:
    """Return the delimiter by which most records have as many fields as the first, at least two; and the records."""
    candidates = CANDIDATES if dialect.delimiter is None else (dialect.delimiter,)
    found = {
        candidate: first_records(text, candidate, dialect.quote, line, complete=complete)
        for candidate in candidates
        if candidate != dialect.quote
    }

    def quality(candidate: str) -> tuple[bool, bool, float, int]:
        records = found[candidate]
        width = records.width
        if width < 2:
            # A header longer than what is looked at has no record.
            return records.valid, False, 0.0, 0 if width else text.count(candidate)
        # A delimiter at the end of rows alone adds a field to them.
        return records.valid, True, max(records.share(width), records.share(width + 1)), width

    best = max(found, key=quality)
    return best, found[best]


def _note_skipped(skipped: int, before: int, notices: Notices) -> None:
    which = f"line {before + 1}" if skipped == 1 else f"lines {before + 1} to {before + skipped}"
    message = f"{which} before the header begin with # or sep=, or are empty, and are skipped"
    notices.add(Notice(NoticeCode.DIALECT, "", message, "--comment", skipped))


def _require_table(start: _Start, dialect: CsvFormat, *, complete: bool) -> None:
    """Check that no other delimiter fits better than the declared one, and that no lines stand before the table.

    Raises:
        InvalidDataError: One does, or there are such lines.
    """
    records = start.records
    if not records.rows:
        return
    if records.width > 1:
        _refuse_lines_before(records, start.delimiter)
        return
    first = records.found[0].line
    for candidate in CANDIDATES:
        if candidate == dialect.quote:
            continue
        other = first_records(start.text, candidate, dialect.quote, first, complete=complete)
        if not other.valid or not other.rows:
            continue
        if other.width > 1 and other.share(other.width) == 1 and records.share(1) == 1:
            message = (
                f"the line has one field with the delimiter {start.delimiter!r}, but {other.width} with {candidate!r},"
                f" as have all that follow: --delimiter {candidate!r}"
            )
            raise InvalidDataError([DataProblem(message, line=first)])
        _refuse_lines_before(other, candidate)


def _refuse_lines_before(records: Records, delimiter: str) -> None:
    """Check that the first records have as many fields as those that follow, or at least that most have.

    Raises:
        InvalidDataError: Most have more: they are the table, and what is before them is not.
    """
    widths = [len(record.fields) for record in records.found]
    start = len(widths) - 1
    while start and widths[start - 1] == widths[-1]:
        start -= 1
    fields, rest = widths[-1], len(widths) - start
    # Rows with one field more than their header have an unquoted delimiter in them, or names.
    is_row = rest <= start or (start == 1 and fields == widths[0] + 1)
    if not start or fields <= widths[0] or rest < 2 or (widths[0] > 1 and is_row):
        return
    first, line = records.found[0].line, records.found[start].line
    before = f"line {first} has" if line == first + 1 else f"lines {first} to {line - 1} have"
    message = (
        f"{before} fewer fields than those from line {line} on, which have {fields}: if the table begins there, skip"
        f" what is before it with --skip-rows {line - 1}; if not, quote fields with {delimiter!r} in them"
    )
    raise InvalidDataError([DataProblem(message, line=first)])


def _words(records: Records) -> int:
    """Return the number of words of every line of one column, if one of them is a number below a name; else 0."""
    if records.width != 1 or records.share(1) < 1 or not records.rows:
        return 0
    lines = [record.fields[0].split() for record in records.found]
    if len(set(map(len, lines))) > 1 or len(lines[0]) < 2:
        return 0
    numbers = [all(_NUMBER.fullmatch(word) for word in words) for words in zip(*lines[1:], strict=True)]
    named = [number and not _NUMBER.fullmatch(name) for number, name in zip(numbers, lines[0], strict=True)]
    return len(named) if any(named) else 0


def _width(records: Records, *, has_header: bool) -> tuple[int, bool]:
    """Return the number of fields of a row, 0 if that of the header, and whether the last has no name and is empty."""
    if not has_header:
        ended = records.width > 1 and all(
            len(record.fields) == records.width and not record.fields[-1] for record in records.found
        )
        return records.width, ended and len(records.found) > 1
    rows, width = records.rows, records.width
    if not rows:
        return 0, False
    if all(len(row.fields) == width + 1 and not row.fields[-1] for row in rows):
        return width + 1, True
    if width > 1 and not records.found[0].fields[-1]:
        if all(len(row.fields) == width - 1 for row in rows):
            return width - 1, False
        if all(len(row.fields) == width and not row.fields[-1] for row in rows):
            return width, True
    return 0, False


def _quoted_empty(records: Records, dialect: CsvFormat) -> QuotedEmpty:
    if dialect.quoted_empty is not QuotedEmpty.SEEN:
        return dialect.quoted_empty
    every = bool(records.rows) and all(all(record.quoted) for record in records.found)
    # In one column an unquoted missing cell is an empty line, which readers skip: writers quote it.
    return QuotedEmpty.MISSING if every or records.width == 1 else QuotedEmpty.TEXT
