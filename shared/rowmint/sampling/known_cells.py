"""Known cells of a row to be completed: validated, and brought to the values that the model knows."""

import math
from collections.abc import Mapping, Sequence

from rowmint.errors import ColumnNotFoundError, InvalidConditionError, RowmintError, ValueNotFoundError
from rowmint.schema import (
    INT64_MAX,
    INT64_MIN,
    Cell,
    ColumnKind,
    ColumnSpec,
    DataType,
    TableSchema,
    cell_text,
    near_names,
    shown_cell,
)
from rowmint.schema.arrays import is_coded, native_number, nearest_double
from rowmint.schema.category_index import CategoryIndex

_REMEMBERED = 1 << 16  # cells of all columns together
_PLAIN = {str, int}
_MOST_TEXT = 64  # characters, as text, of a cell that is remembered


class KnownCells:
    """Validates the known cells of rows of one schema. Thread-safe.

    Args:
        schema: The model's schema.
    """

    def __init__(self, schema: TableSchema) -> None:
        most = _REMEMBERED // max(len(schema.columns), 1)
        self._columns = {column.name: _KnownColumn(column, most) for column in schema.columns}

    def checked(self, first: int, rows: Sequence[Mapping[str, Cell]]) -> list[dict[str, Cell]]:
        """Return the known cells as the model knows them, in the schema's order: weights are multiplied in that order.

        Args:
            first: Index of the first row, for errors.
            rows: Cells of each row by column; None for one that is known to be missing.

        Raises:
            ColumnNotFoundError: A column does not exist.
            ValueNotFoundError: A category never occurred in training.
            InvalidConditionError: A cell is not a value of its column.
        """
        found: list[dict[str, Cell]] = [{} for _ in rows]
        count = 0
        try:
            for name, column in self._columns.items():
                own = [row[name] for row in rows if name in row]
                if own:
                    count += len(own)
                    of = found if len(own) == len(rows) else [found[at] for at, row in enumerate(rows) if name in row]
                    for row, cell in zip(of, column.all_checked(own), strict=True):
                        row[name] = cell
        except (ValueError, ValueNotFoundError):
            count = -1
        if count != sum(map(len, rows)):  # a cell is wrong, or a column: the first row that has one is named
            for index, known in enumerate(rows, first):
                self._check_row(index, known)
        return found

    def _check_row(self, index: int, known: Mapping[str, Cell]) -> None:
        for name in known:
            if name not in self._columns:
                error = ColumnNotFoundError(name, near_names(name, list(self._columns)))
                raise _of_row(error, index)
        for name, column in self._columns.items():
            if name in known:
                _check_cell(index, name, column, known[name])


def _check_cell(row: int, name: str, column: "_KnownColumn", cell: Cell) -> None:
    try:
        column.checked(cell)
    except ValueError as error:
        raise InvalidConditionError(
            f"row {row}, column {name!r}: {error}",
            metadata={"row": str(row), "column": name},
        ) from error
    except ValueNotFoundError as error:
        raise _of_row(error, row) from error


class _KnownColumn:
    """Checks known cells of one column.

    Args:
        column: The column.
        most_remembered: Cells that are remembered.
    """

    def __init__(self, column: ColumnSpec, most_remembered: int) -> None:
        # What texts and integers are to the model that were found right lately; no ids, nothing long.
        self._remembered: dict[Cell, Cell] = {}
        self._column = column
        self._takes_integers = column.kind is ColumnKind.NUMERICAL and column.data_type is DataType.INT64
        self._most_remembered = most_remembered
        self._categories = CategoryIndex(column)
        # Numbers of other types that are equal, such as 1.0 and 1.00, are right together, yet sent back as they came.
        self._right: set[tuple[type, Cell]] = set()

    def all_checked(self, cells: Sequence[Cell]) -> Sequence[Cell]:
        """Return cells as the model knows them; errors are those of `checked`."""
        kinds = set(map(type, cells))
        if self._takes_integers and kinds == {int}:
            integers: list[int] = cells  # type: ignore[assignment] # so it is
            if min(integers) >= INT64_MIN and max(integers) <= INT64_MAX:
                return cells
        # Of these types, cells that are equal are the same cell.
        found = list(map(self._remembered.get, cells)) if kinds <= _PLAIN else [None] * len(cells)
        if None in found:
            return [self._one(cell) if own is None else own for cell, own in zip(cells, found, strict=True)]
        return found

    def _one(self, cell: Cell) -> Cell:
        found = self._remembered.get(cell) if type(cell) in _PLAIN else None
        return self.checked(cell) if found is None else found

    def checked(self, cell: Cell) -> Cell:
        """Return a cell as the model knows it.

        Raises:
            ValueError: It is not a value of the column.
            ValueNotFoundError: The category never occurred.
        """
        column, kind = self._column, type(cell)
        if column.kind is ColumnKind.ID and not (cell is None and column.nullable):
            expected = int if column.data_type is DataType.INT64 else str
            if not isinstance(cell, expected) or isinstance(cell, bool):
                raise ValueError(f"{shown_cell(cell)} is not an id; ids of this column are of type {column.data_type}")
            return cell
        if cell is None:
            if not column.nullable:
                raise ValueError("a missing cell never occurred in training; leave the column out to have it made")
            return None
        if is_coded(column):
            found = column.domain.categories[self._categories.code(cell)]
            if kind is str or kind is int:
                self._remember(cell, found)
            return found
        if (kind, cell) not in self._right:
            self._check_number(cell)
            self._remember(cell, cell)
        return cell

    def _remember(self, cell: Cell, found: Cell) -> None:
        if len(cell_text(cell)) > _MOST_TEXT:
            return
        if len(self._remembered) + len(self._right) >= self._most_remembered:
            self._remembered, self._right = {}, set()
        kind = type(cell)
        if kind is str or kind is int:
            self._remembered[cell] = found
        else:
            self._right.add((kind, cell))

    def _check_number(self, cell: Cell) -> None:
        column = self._column
        if type(cell) is int and column.data_type is DataType.INT64 and INT64_MIN <= cell <= INT64_MAX:
            return  # as below, without a fraction
        number = native_number(cell, column)
        if column.data_type is DataType.DOUBLE:
            if not math.isfinite(nearest_double(number)):
                raise ValueError("the number is beyond the range of binary64")
        elif number.denominator != 1 or not INT64_MIN <= number <= INT64_MAX:
            raise ValueError(f"{cell_text(cell)} is not one of its values: too fine or too large")


def _of_row(error: ColumnNotFoundError | ValueNotFoundError, row: int) -> RowmintError:
    """Say which row an error is about, in its message and its metadata."""
    error.message = f"row {row}: {error.message}"
    error.metadata["row"] = str(row)
    return error
