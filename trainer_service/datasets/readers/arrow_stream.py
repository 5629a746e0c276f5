"""Arrow IPC streams and files with flat columns; their buffers may be compressed."""

import io
from collections.abc import Collection, Iterator

import pyarrow as pa

from rowmint.errors import DataProblem, InvalidDataError
from trainer_service.datasets.column_types import Inference
from trainer_service.datasets.formats import CsvFormat
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.problems import Problems
from trainer_service.datasets.readers.arrow_columns import ArrowColumns
from trainer_service.datasets.readers.arrow_file import FileMessages, begins_as_file
from trainer_service.datasets.readers.arrow_messages import CheckedStream
from trainer_service.datasets.readers.arrow_types import Expansion


class ArrowReader:
    """Reads an Arrow IPC stream or file batch by batch; see `TableReader`.

    Which of them it is shows from its first bytes, whatever was declared: both have the same suffix.

    Args:
        source: The bytes, seekable.
        limits: Limits of the table.

    Raises:
        InvalidDataError: They are neither, or have columns of unsupported types.
    """

    inference = Inference.NONE
    dialect: CsvFormat | None = None

    def __init__(self, source: io.RawIOBase, limits: IngestLimits) -> None:
        self._source = source
        self._limits = limits
        self._is_file = begins_as_file(source)
        self._columns = ArrowColumns(self._open().schema, limits)
        self.hints = self._columns.hints
        self.notices = self._columns.notices

    def _open(self) -> pa.RecordBatchStreamReader:
        messages = FileMessages(self._source) if self._is_file else self._source
        self._source.seek(0)
        try:
            return pa.ipc.open_stream(CheckedStream(messages))
        except (pa.ArrowException, OSError, ValueError) as error:
            what = "file" if self._is_file else "stream or file"
            raise InvalidDataError([DataProblem(f"the bytes are not an Arrow IPC {what}")]) from error

    def batches(self, problems: Problems) -> Iterator[pa.RecordBatch]:
        """See `TableReader.batches`."""
        reader, row, expansion = self._open(), 1, Expansion(self._limits)
        reading = self._columns.reading()
        while True:
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                break
            except (pa.ArrowException, OSError, ValueError) as error:
                message = "the batch that starts with this row is corrupt; write the data again"
                raise InvalidDataError([*problems.found, DataProblem(message, row=row)]) from error
            for piece in reading.pieces(batch, row, problems):
                expansion.add(piece, row)
                yield piece
            row += len(batch)
        reading.complete()

    def lines_of(self, rows: Collection[int]) -> dict[int, int]:
        """Return nothing: Arrow data has no lines."""
        return {}
