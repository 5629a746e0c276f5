"""CSV files: every column as text, whose type is inferred later."""

import csv
import io
from collections.abc import Collection, Iterator

import pyarrow as pa
from pyarrow import csv as arrow_csv

from rowmint.errors import DataProblem, InvalidDataError
from trainer_service.datasets.column_types import Inference
from trainer_service.datasets.formats import CsvFormat
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.problems import MAX_PROBLEMS, Problems
from trainer_service.datasets.readers.arrow_types import check_names
from trainer_service.datasets.readers.csv_bytes import BLOCK_BYTES, CsvBytes, lines_of_records

_HEADER = 1 << 20


class CsvReader:
    """Reads a CSV file block by block; see `TableReader`.

    A quoted field is never missing: a quoted empty field is an empty text. Empty lines are skipped, except in a file
    with one column, where they are missing cells (or empty texts, depending on ``null_values``).

    Args:
        source: The bytes, seekable.
        dialect: Their CSV dialect.
        limits: Limits of columns and rows.

    Raises:
        InvalidDataError: There is no header, or it has an empty or repeated name.
    """

    inference = Inference.ALL

    def __init__(self, source: io.RawIOBase, dialect: CsvFormat, limits: IngestLimits) -> None:
        self._source = source
        self._dialect = dialect
        self._limits = limits
        self._checked = False
        self._names = self._read_header()

    def _read_header(self) -> list[str]:
        text = io.TextIOWrapper(
            io.BufferedReader(CsvBytes(self._source, self._dialect, self._limits, checked=True)),
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
            raise InvalidDataError([DataProblem("the first line is empty; it must name the columns", line=1)])
        check_names(names, self._limits, line=1)
        return names

    def _parse_header(self, beginning: str, *, complete: bool) -> list[str] | None:
        """Return the fields of the first line; None if `beginning` is not the `complete` file and ends within it."""
        lines = io.StringIO(beginning, newline="")
        reader = csv.reader(lines, delimiter=self._dialect.delimiter, quotechar=self._dialect.quote, strict=True)
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
        stream = CsvBytes(self._source, self._dialect, self._limits, checked=checked)
        try:
            reader = arrow_csv.open_csv(
                stream,
                read_options=arrow_csv.ReadOptions(
                    use_threads=False,
                    # The stream returns blocks of its own size, which are larger only if a row is.
                    block_size=2 * BLOCK_BYTES + self._limits.row_bytes,
                    column_names=self._names,
                    skip_rows_after_names=1,
                ),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=self._dialect.delimiter,
                    quote_char=self._dialect.quote,
                    newlines_in_values=True,
                    # In a file with one column, an empty line is a row.
                    ignore_empty_lines=width > 1,
                    invalid_row_handler=on_invalid_row,
                ),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(self._names, pa.string()),
                    null_values=list(self._dialect.null_values),
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            )
            for batch in reader:
                if len(ragged) + len(problems) >= MAX_PROBLEMS:
                    break
                if len(batch):
                    yield batch
        except InvalidDataError as error:
            self._report(ragged, problems)
            problems.extend(error.problems)
            problems.raise_any()
        except pa.ArrowInvalid as error:
            self._report(ragged, problems)
            problems.add("the file cannot be read as CSV; check delimiter and quotes")
            raise InvalidDataError(problems.found) from error
        else:
            self._checked = True
            self._report(ragged, problems)

    def _report(self, ragged: list[tuple[int, int]], problems: Problems) -> None:
        if not ragged:
            return
        lines = self._lines({number for number, _ in ragged})
        for number, fields in ragged:
            message = f"has {fields} fields, the header has {len(self._names)}"
            problems.add(message, line=lines.get(number, 0), row=number - 1)

    def _lines(self, records: Collection[int]) -> dict[int, int]:
        return lines_of_records(self._source, self._dialect, records, skip_empty=len(self._names) > 1)

    def lines_of(self, rows: Collection[int]) -> dict[int, int]:
        """See `TableReader.lines_of`; the file is read once more."""
        lines = self._lines({row + 1 for row in rows})
        return {record - 1: line for record, line in lines.items()}
