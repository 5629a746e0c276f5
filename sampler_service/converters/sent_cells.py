"""The known cells of rows that a caller sends: read once, however many rows have them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rowmint.rpc.values import value_to_cell
from rowmint.rpc.wire import short_fields
from rowmint.schema import Cell
from rowmint.v1 import sampling_pb2, value_pb2

MOST_REMEMBERED = 1 << 13
"""Cells of a call that are remembered; they take some hundred bytes each."""
_KNOWN_TAG = sampling_pb2.PartialRow(known={"": value_pb2.Value()}).SerializeToString()[0]
_VALUE_TAG = sampling_pb2.CompletedRow(values=[value_pb2.Value()]).SerializeToString()[:1]


class SentCell(NamedTuple):
    """One known cell.

    Attributes:
        name: Its column.
        cell: The cell.
        completed: A completed row that has nothing but its value, as it was sent, in bytes.
    """

    name: str
    cell: Cell
    completed: bytes


class SentRows:
    """Rows that a caller sent, read.

    Args:
        rows: The known cells of each.

    Attributes:
        known: The known cells of each by column.
    """

    def __init__(self, rows: Sequence[Sequence[SentCell]]) -> None:
        self.known: Sequence[Mapping[str, Cell]] = [{name: cell for name, cell, _ in row} for row in rows]
        self._rows = rows

    def completed(self, place: int) -> dict[str, bytes]:
        """Return the values of the row at a place as `SentCell.completed`, by column."""
        return {name: completed for name, _, completed in self._rows[place]}


class SentCells:
    """Reads the known cells of the rows of one call. For one thread at a time."""

    def __init__(self) -> None:
        self._remembered: dict[bytes, SentCell] = {}

    def read(self, rows: Sequence[sampling_pb2.PartialRow], first: int) -> SentRows:
        """Return some rows that follow one another.

        Raises:
            InvalidFieldError: A value is malformed; the error names the row by its index, from `first`, and the column.
        """
        return SentRows([self._cells(row, index) for index, row in enumerate(rows, first)])

    def _cells(self, row: sampling_pb2.PartialRow, index: int) -> Sequence[SentCell]:
        data = row.SerializeToString()
        entries = short_fields(data, _KNOWN_TAG)
        if sum(map(len, entries)) < len(data):  # a long cell, or what a newer caller knows
            return _read(row, index)
        found = list(map(self._remembered.get, entries))
        return [
            self._read_one(entry, index) if cell is None else cell for entry, cell in zip(entries, found, strict=True)
        ]

    def _read_one(self, entry: bytes, index: int) -> SentCell:
        """Return the cell of a short entry of a row; remember it."""
        # Tag and length of the entry, of its key, and of its value.
        at = 4 + entry[3]
        name = entry[4:at].decode()
        value = value_pb2.Value.FromString(entry[at + 2 :])
        cell = SentCell(name, _cell(value, name, index), _VALUE_TAG + entry[at + 1 :])
        if len(self._remembered) >= MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[entry] = cell
        return cell


def _read(row: sampling_pb2.PartialRow, index: int) -> Sequence[SentCell]:
    return [SentCell(name, _cell(value, name, index), completed_value(value)) for name, value in row.known.items()]


def _cell(value: value_pb2.Value, name: str, index: int) -> Cell:
    return value_to_cell(value, f"rows[{index}].known[{name!r}]")


def completed_value(value: value_pb2.Value) -> bytes:
    """Return a completed row that has nothing but a value, in bytes."""
    return sampling_pb2.CompletedRow(values=[value]).SerializeToString()
