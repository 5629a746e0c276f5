"""CSV files: every column as text, whose type is inferred later."""

import csv
import io
from collections.abc import Collection, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from rowmint.errors import DataProblem, InvalidDataError
from trainer_service.datasets.column_types import Inference
from trainer_service.datasets.formats import CsvFormat, QuotedEmpty
from trainer_service.datasets.hints import FormatHints
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.notices import Notice, NoticeCode, Notices
from trainer_service.datasets.problems import MAX_PROBLEMS, Problems
from trainer_service.datasets.readers.arrow_types import check_names
from trainer_service.datasets.readers.csv_bytes import BLOCK_BYTES, CsvBytes, lines_of_records
from trainer_service.datasets.readers.csv_dialect import seen

_HEADER = 1 << 20
_UNNAMED = "\0"
"""Name of a last column that is left out; no column can have it."""


class CsvReader:
    """Reads a CSV file block by block; see `TableReader`.

    A quoted field is never missing, but for an empty one where all fields of the file are quoted, unless declared
    otherwise. Empty lines are skipped, except in a file with one column, where they are missing cells (or empty texts,
    depending on ``null_values``).

    Args:
        source: The bytes, seekable.
        declared: Their declared CSV dialect; what it leaves open is seen from the beginning of the file.
        limits: Limits of columns and rows.

    Raises:
        InvalidDataError: There is no header, or it has an empty or repeated name, or the beginning of the file shows
            that it has another dialect.
    """

    inference = Inference.ALL

    def __init__(self, source: io.RawIOBase, declared: CsvFormat, limits: IngestLimits) -> None:
        self._source = source
        self._limits = limits
        self._checked = False
        self.notices = Notices()
        self._seen = seen(source, declared, limits, self.notices)
        self.dialect = self._seen.dialect
        self.hints = FormatHints(
            delimiter=self.dialect.delimiter or ",",
            decimal=self.dialect.decimal,
            group_separator=self.dialect.group_separator,
        )
        self._empty = 0
        self._seen_empty = declared.quoted_empty is QuotedEmpty.SEEN
        self._names: list[str] = []
        self._names = self._column_names()
        if self._seen.unnamed:
            message = "the last field of every line is empty and has no name; it is left out"
            self.notices.add(Notice(NoticeCode.EMPTY_COLUMN, "", message))

    def _column_names(self) -> list[str]:
        """Return the names of the columns, with `_UNNAMED` for one that is left out."""
        extra = [_UNNAMED] if self._seen.unnamed else []
        if self.dialect.has_header:
            names = self._read_header()
            if self._seen.width:
                names = names[: self._seen.width - len(extra)]
            check_names(names, self._limits, line=self._header_line())
            return names + extra
        width = self._seen.width - len(extra)
        if not width:
            raise InvalidDataError([DataProblem("the file is empty; it has neither a header nor rows")])
        names = list(self.dialect.column_names) or [f"column{number}" for number in range(1, width + 1)]
        if len(names) != width:
            message = f"has {width} fields, but {len(names)} column names were declared"
            raise InvalidDataError([DataProblem(message, line=self._header_line())])
        check_names(names, self._limits)
        return names + extra

    def _header_line(self) -> int:
        return self._lines({1}).get(1, 1)

    def _read_header(self) -> list[str]:
        text = io.TextIOWrapper(
            io.BufferedReader(CsvBytes(self._source, self.dialect, self._limits, checked=True)),
            encoding="utf-8",
            newline="",
        )
        beginning, ended = "", False
        while not ended:
            # The amount doubles, so that a long header line is parsed only a few times.
            amount = max(_HEADER, len(beginning))
            more = text.read(amount)
            beginning += more
            if not beginning.strip():
                raise InvalidDataError([DataProblem("the file is empty; its first line must name the columns")])
            ended = len(more) < amount
            names = self._parse_header(beginning, complete=ended)
            if names is not None:
                break
        if not names:
            message = "the first line is empty; it must name the columns: --skip-rows skips lines before it"
            raise InvalidDataError([DataProblem(message, line=1)])
        return names

    def _parse_header(self, beginning: str, *, complete: bool) -> list[str] | None:
        """Return the fields of the first line; None if `beginning` is not the `complete` file and ends within it."""
        lines = io.StringIO(beginning, newline="")
        reader = csv.reader(lines, delimiter=self.hints.delimiter, quotechar=self.dialect.quote, strict=True)
        try:
            names = next(reader)
        except (csv.Error, StopIteration) as error:
            if lines.tell() == len(beginning) and not complete:
                return None
            message = "the header line cannot be parsed; check its quotes"
            raise InvalidDataError([DataProblem(message, line=1)]) from error
        return None if lines.tell() == len(beginning) and not complete else names

    def batches(self, problems: Problems) -> Iterator[pa.RecordBatch]:
        """See `TableReader.batches`."""
        width = len(self._names)
        ragged: list[tuple[int, int]] = []

        def on_invalid_row(row: arrow_csv.InvalidRow) -> str:
            # With "error", Arrow stops within the block.
            if len(ragged) < MAX_PROBLEMS:
                ragged.append((row.number, row.actual_columns))
            return "skip" if len(ragged) < MAX_PROBLEMS else "error"

        checked = not self._checked
        stream = CsvBytes(self._source, self.dialect, self._limits, checked=checked)
        try:
            reader = arrow_csv.open_csv(
                stream,
                read_options=arrow_csv.ReadOptions(
                    use_threads=False,
                    # The stream returns blocks of its own size, which are larger only if a row is.
                    block_size=2 * BLOCK_BYTES + self._limits.row_bytes,
                    column_names=self._names,
                    skip_rows_after_names=int(self.dialect.has_header),
                ),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=self.hints.delimiter,
                    quote_char=self.dialect.quote,
                    newlines_in_values=True,
                    # In a file with one column, an empty line is a row.
                    ignore_empty_lines=width > 1,
                    invalid_row_handler=on_invalid_row,
                ),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(self._names, pa.string()),
                    null_values=list(self.dialect.null_values),
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            )
            row = 1
            for batch in reader:
                if len(ragged) + len(problems) >= MAX_PROBLEMS:
                    break
                if len(batch):
                    yield self._cells(batch, row, problems)
                    row += len(batch)
        except InvalidDataError as error:
            self._report(ragged, problems)
            problems.extend(error.problems)
            problems.raise_any()
        except pa.ArrowInvalid as error:
            self._report(ragged, problems)
            problems.add("the file cannot be read as CSV; check delimiter and quotes")
            raise InvalidDataError(problems.found) from error
        else:
            if not self._checked:
                self._note_cells()
            self._checked = True
            self._report(ragged, problems)

    def _cells(self, batch: pa.RecordBatch, first_row: int, problems: Problems) -> pa.RecordBatch:
        """Return a batch without an unnamed column, and with empty texts missing where they are."""
        if self._seen.unnamed:
            last = batch.column(batch.num_columns - 1)
            full = np.asarray(pc.greater(pc.binary_length(last), 0).fill_null(False))
            problems.add_rows("has text in the last field, which has no name and is empty before", full, first_row, "")
            batch = batch.select(range(batch.num_columns - 1))
        if self.dialect.quoted_empty is not QuotedEmpty.MISSING:
            return batch
        columns = [self._without_empty(column) for column in batch.columns]
        return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)

    def _without_empty(self, column: pa.Array) -> pa.Array:
        empty = pc.equal(pc.binary_length(column), 0)
        count = pc.sum(empty).as_py() or 0
        if not count:
            return column
        if not self._checked:
            self._empty += count
        return pc.if_else(empty.fill_null(False), pa.scalar(None, pa.string()), column)

    def _note_cells(self) -> None:
        """Add the notices on cells, at the end of the first pass."""
        if self._empty and self._seen_empty:
            why = "every field is quoted" if len(self._names) > 1 else "there is one column"
            message = f"{why}, so that quoted fields without characters are missing cells"
            self.notices.add(Notice(NoticeCode.QUOTED_EMPTY, "", message, "--quoted-empty text", self._empty))
        if self.dialect.encoding == "latin-1" and (count := _controls(self._source)):
            message = (
                f"{count} bytes are control characters in latin-1, but quotes, dashes or the euro sign in cp1252, in"
                " which most such files are written"
            )
            self.notices.add(Notice(NoticeCode.DIALECT, "", message, "--encoding cp1252"))

    def _report(self, ragged: list[tuple[int, int]], problems: Problems) -> None:
        if not ragged:
            return
        lines = self._lines({number for number, _ in ragged})
        has_header, width = self.dialect.has_header, len(self._names)
        expected = f"the header has {width}" if has_header else f"the first has {width}"
        if self._seen.unnamed:
            expected = f"the first rows have {width}, of which the last is empty"
        if self._seen.guessed and self.hints.delimiter != ",":
            expected += f" (the delimiter {self.hints.delimiter!r} was seen; another one: --delimiter)"
        for number, fields in ragged:
            hint = _hint(fields, width)
            problems.add(f"has {fields} fields, {expected}{hint}", line=lines.get(number, 0), row=number - has_header)

    def _lines(self, records: Collection[int]) -> dict[int, int]:
        return lines_of_records(self._source, self.dialect, self._limits, records, skip_empty=len(self._names) != 1)

    def lines_of(self, rows: Collection[int]) -> dict[int, int]:
        """See `TableReader.lines_of`; the file is read once more."""
        header = int(self.dialect.has_header)
        lines = self._lines({row + header for row in rows})
        return {record - header: line for record, line in lines.items()}


def _hint(fields: int, width: int) -> str:
    """Return what may be the matter with a row of another number of fields than the header."""
    if fields == 1:
        return "; if it is a comment: --comment"
    if fields == width + 1:
        return "; quote fields that contain the delimiter, or name the last column in the header"
    return ""


def _controls(source: io.RawIOBase) -> int:
    """Return the number of bytes from 0x80 to 0x9F."""
    source.seek(0)
    count = 0
    while data := source.read(_HEADER) or b"":
        array = np.frombuffer(data, dtype=np.uint8)
        count += int(np.count_nonzero((array >= 0x80) & (array <= 0x9F)))
    return count
