"""Parquet files with flat columns."""

import io
from collections.abc import Collection, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from rowmint.errors import DataProblem, InvalidDataError
from trainer_service.datasets.column_types import Inference
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.problems import Problems
from trainer_service.datasets.readers.arrow_types import EXPANDED_BYTES, Expansion, check_types, normalised
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

    def __init__(self, source: io.RawIOBase, limits: IngestLimits) -> None:
        self._source = source
        self._limits = limits
        self._steps: list[tuple[int, int]] = []  # rows and batch size of each validated row group
        self._unpacked = 0
        self._footer = ParquetFooter(source, limits)
        check_types(self._open().schema_arrow, limits)

    def _open(self) -> pq.ParquetFile:
        self._source.seek(0)
        try:
            # Small buffers and no read-ahead: a row group may be far larger than memory.
            return pq.ParquetFile(self._source, buffer_size=1 << 20, pre_buffer=False)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InvalidDataError(
                [DataProblem("the bytes are not a complete Parquet file; check the declared format, or write it again")]
            ) from error

    def batches(self, problems: Problems) -> Iterator[pa.RecordBatch]:
        """See `TableReader.batches`."""
        file, row, expansion = self._open(), 1, Expansion(self._limits)
        for number in range(self._footer.row_groups):
            if number == len(self._steps):
                self._steps.append(self._checked(number, row))
            rows, step = self._steps[number]
            try:
                batches = file.iter_batches(batch_size=step, row_groups=[number], use_threads=False)
            except (pa.ArrowException, OSError, ValueError) as error:
                raise _corrupt_error(row, problems) from error
            end = row + rows
            while (batch := _next(batches, row, problems)) is not None:
                for piece in normalised(batch, row, problems, self._limits):
                    expansion.add(piece, row)
                    yield piece
                row += len(batch)
            if row != end:
                raise _corrupt_error(row, problems)

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


def _next(batches: Iterator[pa.RecordBatch], row: int, problems: Problems) -> pa.RecordBatch | None:
    try:
        return next(batches, None)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _corrupt_error(row, problems) from error


def _corrupt_error(row: int, problems: Problems) -> InvalidDataError:
    message = "the Parquet file is corrupt from about this row on; write it again"
    return InvalidDataError([*problems.found, DataProblem(message, row=row)])
