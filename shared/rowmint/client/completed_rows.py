"""Completed rows as they are received: a value is read once, however many rows have it."""

from collections.abc import Iterable, Sequence

from rowmint.rpc.values import value_to_cell
from rowmint.rpc.wire import after_varint, short_fields
from rowmint.schema import Cell
from rowmint.v1 import sampling_pb2, value_pb2

_VALUES_TAG = sampling_pb2.CompletedRow(values=[value_pb2.Value()]).SerializeToString()[0]
_PREFIX = 2  # bytes of the tag and the length of a short field
_MOST_REMEMBERED = 1 << 13  # values; they take some hundred bytes each
_SUPPORT = {
    sampling_pb2.COMPLETION_SUPPORT_MATCHED: "matched",
    sampling_pb2.COMPLETION_SUPPORT_WIDENED: "widened",
    sampling_pb2.COMPLETION_SUPPORT_UNSUPPORTED: "unsupported",
}


class CompletedRow(dict[str, Cell]):
    """One row: its cells by column, in the schema's order; known cells are as they were given.

    Attributes:
        row: Its index.
        effective_sample_size: Kish's effective number of candidates it was drawn from; near 1 says that few candidates
            resemble the row, 0 that none does.
        tolerance: Kernel width used, in standard deviations; wider than requested where no candidate was near.
        support: Whether candidates agree with the known cells: ``matched``; ``widened``, only at a wider tolerance or
            with known cells taken as near that are not equal; or ``unsupported``, none does, and the known cells say
            little about the others. ``unspecified`` from samplers that do not say.
    """

    __slots__ = ("effective_sample_size", "row", "support", "tolerance")

    def __init__(self, row: sampling_pb2.CompletedRow, cells: Iterable[tuple[str, Cell]]) -> None:
        super().__init__(cells)
        self.row = row.row
        self.effective_sample_size = row.effective_sample_size
        self.tolerance = row.tolerance
        self.support = _SUPPORT.get(row.support, "unspecified")


class CompletedRows:
    """Reads completed rows: a value is read once, however many rows have it. For one thread.

    Args:
        columns: The columns.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns
        self._remembered: dict[bytes, Cell] = {}

    def read(self, row: sampling_pb2.CompletedRow) -> CompletedRow:
        """Return a row.

        Raises:
            InvalidFieldError: A value is malformed.
            ValueError: There are not as many as columns.
        """
        return CompletedRow(row, zip(self._columns, self._cells(row), strict=True))

    def _cells(self, row: sampling_pb2.CompletedRow) -> list[Cell]:
        data = row.SerializeToString()
        values = short_fields(data, _VALUES_TAG, after_varint(data, 1) if row.row else 0)
        if len(values) < len(row.values):  # one is long
            return [_cell(value, index) for index, value in enumerate(row.values)]
        found = list(map(self._remembered.get, values))
        if None in found:  # new ones, or missing cells
            return [
                self._cell(value, index) if cell is None else cell
                for index, (value, cell) in enumerate(zip(values, found, strict=True))
            ]
        return found

    def _cell(self, data: bytes, index: int) -> Cell:
        """Return the cell of a short value of a row; remember it."""
        cell = _cell(value_pb2.Value.FromString(data[_PREFIX:]), index)
        if len(self._remembered) >= _MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[data] = cell
        return cell


def _cell(value: value_pb2.Value, index: int) -> Cell:
    return value_to_cell(value, f"values[{index}]", max_text=None)
