"""Parquet files with flat columns."""

import io
from collections.abc import Collection, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from rowmint.errors import DataProblem, InvalidDataError
from trainer_service.datasets.column_types import Inference
from trainer_service.datasets.formats import CsvFormat
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.problems import Problems
from trainer_service.datasets.readers.arrow_columns import EXPANDED_BYTES, ArrowColumns
from trainer_service.datasets.readers.arrow_types import Expansion
from trainer_service.datasets.readers.parquet_instants import OTHER_UNITS, UNIT, checked_instants
from trainer_service.datasets.readers.parquet_pages import ParquetFooter

_ROWS = 16_384
_CELL_BYTES = 16  # of the widest type other than text
_MIN_CELL_BYTES = 4


class ParquetReader:
    """Reads a Parquet file row group by row group; see `TableReader`.

    Args:
        source: The bytes, seekable.
        limits: Limits of the table.

    Raises:
        InvalidDataError: They are not a Parquet file, or have columns of unsupported types.
    """

    inference = Inference.NONE
    dialect: CsvFormat | None = None

    def __init__(self, source: io.RawIOBase, limits: IngestLimits) -> None:
        self._source = source
        self._limits = limits
        self._steps: list[tuple[int, int]] = []  # rows and batch size of each validated row group
        self._unpacked = 0
        self._footer = ParquetFooter(source, limits)
        file = self._open()
        self._columns = ArrowColumns(file.schema_arrow, limits)
        # The types have been checked: every column is flat, so that it is one leaf.
        leaves = [file.schema.column(index) for index in range(len(file.schema_arrow))]
        self._instants96 = [leaf.path for leaf in leaves if leaf.physical_type == "INT96"]
        self.hints = self._columns.hints
        self.notices = self._columns.notices

    def _open(self, unit: str = UNIT) -> pq.ParquetFile:
        """Open the file; `unit` is that of instants stored as INT96, which has none of its own."""
        self._source.seek(0)
        try:
            # Small buffers and no read-ahead: a row group may be far larger than memory.
            return pq.ParquetFile(self._source, buffer_size=1 << 20, pre_buffer=False, coerce_int96_timestamp_unit=unit)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InvalidDataError(
                [DataProblem("the bytes are not a complete Parquet file; check the declared format, or write it again")]
            ) from error

    def batches(self, problems: Problems) -> Iterator[pa.RecordBatch]:
        """See `TableReader.batches`."""
        file, row, expansion = self._open(), 1, Expansion(self._limits)
        reading = self._columns.reading()
        others = {unit: self._open(unit) for unit in OTHER_UNITS} if self._instants96 else {}
        for number in range(self._footer.row_groups):
            if number == len(self._steps):
                self._steps.append(self._checked(number, row))
            rows, step = self._steps[number]
            batches = _batches(file, (number, step), row, problems)
            again = {
                unit: _batches(other, (number, step), row, problems, self._instants96) for unit, other in others.items()
            }
            end = row + rows
            for batch in batches:
                found = {unit: self._same_rows(other, batch, row, problems) for unit, other in again.items()}
                exact = checked_instants(batch, found, row, problems, reading) if found else batch
                for piece in reading.pieces(exact, row, problems):
                    expansion.add(piece, row)
                    yield piece
                row += len(batch)
            if row != end:
                raise _corrupt_error(row, problems)
        reading.complete()

    def _same_rows(
        self, batches: Iterator[pa.RecordBatch], batch: pa.RecordBatch, row: int, problems: Problems
    ) -> pa.RecordBatch:
        """Return the INT96 columns of the same rows, in another unit."""
        other = next(batches, None)
        if other is None or len(other) != len(batch):
            raise _corrupt_error(row, problems)
        return other.select(self._instants96)

    def _checked(self, number: int, row: int) -> tuple[int, int]:
        """Validate the pages of a row group; return its number of rows, and how many are read at once."""
        pages = self._footer.pages(number, row)
        # A run can encode any number of cells, but each takes memory once expanded.
        self._unpacked += max(pages.unpacked, _MIN_CELL_BYTES * pages.rows * pages.columns)
        if self._unpacked > self._limits.decompressed_bytes:
            raise InvalidDataError([DataProblem(f"the table {self._limits.decompressed_reason}", row=row)])
        row_bytes = pages.longest_texts + _CELL_BYTES * max(pages.columns, 1)
        return pages.rows, max(1, min(_ROWS, EXPANDED_BYTES // row_bytes))

    def lines_of(self, rows: Collection[int]) -> dict[int, int]:
        """Return nothing: a Parquet file has no lines."""
        return {}


def _batches(
    file: pq.ParquetFile, group_and_step: tuple[int, int], row: int, problems: Problems, paths: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a row group; `row` is its first one."""
    group, step = group_and_step
    try:
        for batch in file.iter_batches(batch_size=step, row_groups=[group], columns=paths, use_threads=False):
            yield batch
            row += len(batch)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _corrupt_error(row, problems) from error


def _corrupt_error(row: int, problems: Problems) -> InvalidDataError:
    message = "the Parquet file is corrupt from about this row on; write it again"
    return InvalidDataError([*problems.found, DataProblem(message, row=row)])
