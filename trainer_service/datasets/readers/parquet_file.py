"""Parquet files with flat columns."""

import io
from collections.abc import Collection, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from rowmint.errors import DataProblem, InvalidDataError
from trainer_service.datasets.column_types import Inference
from trainer_service.datasets.problems import Problems
from trainer_service.datasets.readers.arrow_types import check_types, normalised

_ROWS = 16_384


class ParquetReader:
    """Reads a Parquet file row group by row group; see `TableReader`.

    Args:
        source: The bytes, seekable.

    Raises:
        InvalidDataError: They are not a Parquet file, or have columns that a flat table cannot hold.
    """

    inference = Inference.NONE

    def __init__(self, source: io.RawIOBase) -> None:
        self._source = source
        check_types(self._open().schema_arrow)

    def _open(self) -> pq.ParquetFile:
        self._source.seek(0)
        try:
            # Small buffers and no read-ahead: a row group may be far larger than memory.
            return pq.ParquetFile(self._source, buffer_size=1 << 20, pre_buffer=False)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InvalidDataError(
                [DataProblem("the bytes are no whole Parquet file; check the declared format, or write the file anew")]
            ) from error

    def batches(self, problems: Problems) -> Iterator[pa.RecordBatch]:
        """See `TableReader.batches`."""
        row = 1
        batches = self._open().iter_batches(batch_size=_ROWS, use_threads=False)
        while True:
            try:
                batch = next(batches, None)
            except (pa.ArrowException, OSError, ValueError) as error:
                message = "the Parquet file is damaged from about this row on; write it anew"
                raise InvalidDataError([*problems.found, DataProblem(message, row=row)]) from error
            if batch is None:
                return
            yield from normalised(batch, row, problems)
            row += len(batch)

    def lines_of(self, rows: Collection[int]) -> dict[int, int]:
        """Return nothing: a Parquet file has no lines."""
        return {}
