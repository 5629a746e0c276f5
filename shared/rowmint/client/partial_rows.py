"""Rows of known cells as messages, in bytes: what people write for a cell is read once, however many rows have it."""

from collections.abc import Mapping

from rowmint.client.values import typed_value
from rowmint.errors import ColumnNotFoundError, InvalidConditionError, InvalidFieldError
from rowmint.rpc.wire import field
from rowmint.schema import near_names
from rowmint.v1 import sampling_pb2, schema_pb2, value_pb2

_KNOWN_TAG = sampling_pb2.PartialRow(known={"": value_pb2.Value()}).SerializeToString()[:1]
_KEY_TAG, _VALUE_TAG = b"\x0a", b"\x12"  # of an entry of any map
_REMEMBERED = 1 << 16  # cells of all columns together
_MOST_TEXT = 64  # characters of a text that is remembered


class PartialRows:
    """Makes the messages of rows of one table. For one thread.

    Args:
        schema: The table's columns.
    """

    def __init__(self, schema: schema_pb2.TableSchema) -> None:
        most = _REMEMBERED // max(len(schema.columns), 1)
        self._columns = {column.name: _Column(column, most) for column in schema.columns}

    def row(self, known: Mapping[str, object], index: int) -> bytes:
        """Return the `rowmint.v1.PartialRow` of a row, in bytes.

        Args:
            known: Known cells by column; None for a cell that is known to be missing; absent columns are completed.
            index: The row's index, for errors.

        Raises:
            ColumnNotFoundError: A column does not exist.
            InvalidFieldError: A cell is not one of its column's.
        """
        columns, entries = self._columns, []
        for name, cell in known.items():
            column = columns.get(name)
            if column is None:
                raise ColumnNotFoundError(name, near_names(name, list(columns)))
            # Of these types, cells that are equal are the same cell.
            kind = type(cell)
            entry = column.remembered.get(cell) if kind is str or kind is int else None
            if entry is None:
                try:
                    entry = column.entry(cell)
                except InvalidConditionError as error:
                    raise InvalidFieldError(f"rows[{index}].{name}", error.message) from error
            entries.append(entry)
        # Messages one after another are the message that has the fields of all.
        return b"".join(entries)


class _Column:
    """One column, and what was made of its cells lately.

    Attributes:
        remembered: Texts and integers, each as a row that knows nothing else, in bytes.
    """

    def __init__(self, column: schema_pb2.ColumnSpec, most_remembered: int) -> None:
        self.remembered: dict[object, bytes] = {}
        self._column = column
        self._key = field(_KEY_TAG, column.name.encode())
        self._most_remembered = most_remembered

    def entry(self, cell: object) -> bytes:
        """Return a row that knows this cell alone, in bytes; `InvalidConditionError` where it is not the column's."""
        value = typed_value(cell, self._column).SerializeToString()
        made = field(_KNOWN_TAG, self._key + field(_VALUE_TAG, value))
        kind = type(cell)
        if kind is int or (kind is str and isinstance(cell, str) and len(cell) <= _MOST_TEXT):
            if len(self.remembered) >= self._most_remembered:
                self.remembered.clear()
            self.remembered[cell] = made
        return made
