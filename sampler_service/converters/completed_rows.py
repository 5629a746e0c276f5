"""The messages of completed rows: values that many rows have are written once."""

from collections.abc import Iterator, Sequence

from rowmint.rpc.values import cell_to_value
from rowmint.rpc.wire import field, varint
from rowmint.sampling.completion import CompletedRow
from rowmint.sampling.messages import StreamHeader, StreamSummary
from rowmint.schema import Cell
from rowmint.synthesizer import CompletionSupport
from rowmint.v1 import sampling_pb2
from sampler_service import converters
from sampler_service.converters.sent_cells import MOST_REMEMBERED, SentRows, completed_value
from sampler_service.row_sessions import AnsweredRows, RowEvent

_MESSAGE_BYTES = 1 << 20
_MOST_TEXT = 64  # characters of a text that is remembered
_INDEX_TAG = sampling_pb2.CompletedRow(row=1).SerializeToString()[:1]
_ROW_TAG = sampling_pb2.CompletedRows(rows=[sampling_pb2.CompletedRow()]).SerializeToString()[:1]

_SUPPORT = {
    CompletionSupport.MATCHED: sampling_pb2.COMPLETION_SUPPORT_MATCHED,
    CompletionSupport.WIDENED: sampling_pb2.COMPLETION_SUPPORT_WIDENED,
    CompletionSupport.UNSUPPORTED: sampling_pb2.COMPLETION_SUPPORT_UNSUPPORTED,
}


class CompletedRows:
    """Writes the messages of one call; known cells are sent back as they came. For one thread at a time."""

    def __init__(self) -> None:
        self._remembered: dict[Cell, bytes] = {}
        self._said: tuple[float, float, CompletionSupport] | None = None
        self._written = b""  # what was said of a row last, as a message that says nothing else

    def responses(self, event: RowEvent[CompletedRow, SentRows]) -> Iterator[sampling_pb2.CompleteRowsResponse]:
        """Yield the messages of what a stream of rows consists of; rows in messages of about a MiB at most."""
        match event:
            case StreamHeader():
                yield sampling_pb2.CompleteRowsResponse(header=converters.header_to_proto(event))
            case AnsweredRows():
                rows: list[bytes] = []
                size = 0
                for place, row in enumerate(event.rows):
                    made = self._row(row, event.sent.completed(place))
                    size += len(made)
                    if rows and size > _MESSAGE_BYTES:
                        yield _of_rows(rows)
                        rows, size = [], len(made)
                    rows.append(made)
                if rows:
                    yield _of_rows(rows)
            case StreamSummary():
                yield sampling_pb2.CompleteRowsResponse(summary=converters.summary_to_proto(event))

    def _row(self, row: CompletedRow, known: dict[str, bytes]) -> bytes:
        """Return the message of a completed row, in bytes.

        Args:
            row: The row.
            known: The values of its known cells, as `SentRows.completed` returns them.
        """
        values = [known.get(name) or self._value(cell) for name, cell in row.cells.items()]
        return b"".join((_INDEX_TAG, varint(row.row), *values, self._about(row)))

    def _value(self, cell: Cell) -> bytes:
        """Return a completed row that has nothing but a cell's value, in bytes."""
        kind = type(cell)
        # Of these types, cells that are equal are the same cell.
        value = self._remembered.get(cell) if kind is str or kind is int else None
        if value is None:
            value = completed_value(cell_to_value(cell))
            if kind is int or (isinstance(cell, str) and kind is str and len(cell) <= _MOST_TEXT):
                if len(self._remembered) >= MOST_REMEMBERED:
                    self._remembered.clear()
                self._remembered[cell] = value
        return value

    def _about(self, row: CompletedRow) -> bytes:
        """Return a completed row that has nothing but what is said of the row, in bytes; mostly the same for all."""
        said = (row.effective_sample_size, row.tolerance, row.support)
        if said != self._said:
            self._said = said
            self._written = sampling_pb2.CompletedRow(
                effective_sample_size=row.effective_sample_size, tolerance=row.tolerance, support=_SUPPORT[row.support]
            ).SerializeToString()
        return self._written


def _of_rows(rows: Sequence[bytes]) -> sampling_pb2.CompleteRowsResponse:
    """Return the message of rows in bytes; messages one after another are the message that has the fields of all."""
    data = b"".join([field(_ROW_TAG, row) for row in rows])
    return sampling_pb2.CompleteRowsResponse(rows=sampling_pb2.CompletedRows.FromString(data))
