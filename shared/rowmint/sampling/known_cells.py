"""Known cells of a row to be completed: validated, and brought to the values that the model knows."""

import math
from collections.abc import Mapping

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


class KnownCells:
    """Validates the known cells of rows of one schema. Immutable, thread-safe.

    Args:
        schema: The model's schema.
    """

    def __init__(self, schema: TableSchema) -> None:
        self._columns = {column.name: _KnownColumn(column) for column in schema.columns}

    def checked(self, row: int, known: Mapping[str, Cell]) -> dict[str, Cell]:
        """Return the known cells as the model knows them, in the schema's order: weights are multiplied in that order.

        Args:
            row: Index of the row, for errors.
            known: Cells by column; None for one that is known to be missing.

        Raises:
            ColumnNotFoundError: A column does not exist.
            ValueNotFoundError: A category never occurred in training.
            InvalidConditionError: A cell is not a value of its column.
        """
        for name in known:
            if name not in self._columns:
                error = ColumnNotFoundError(name, near_names(name, list(self._columns)))
                raise _of_row(error, row)
        found = {}
        for name, column in self._columns.items():
            if name in known:
                try:
                    found[name] = column.checked(known[name])
                except ValueError as error:
                    raise InvalidConditionError(
                        f"row {row}, column {name!r}: {error}",
                        metadata={"row": str(row), "column": name},
                    ) from error
                except ValueNotFoundError as error:
                    raise _of_row(error, row) from error
        return found


class _KnownColumn:
    """Checks known cells of one column."""

    def __init__(self, column: ColumnSpec) -> None:
        self._column = column
        self._categories = CategoryIndex(column)

    def checked(self, cell: Cell) -> Cell:
        """Return the cell as the model knows it.

        Raises:
            ValueError: It is not a value of the column.
            ValueNotFoundError: The category never occurred.
        """
        column = self._column
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
            return column.domain.categories[self._categories.code(cell)]
        number = native_number(cell, column)
        if column.data_type is DataType.DOUBLE:
            if not math.isfinite(nearest_double(number)):
                raise ValueError("the number is beyond the range of binary64")
        elif number.denominator != 1 or not INT64_MIN <= number <= INT64_MAX:
            raise ValueError(f"{cell_text(cell)} is not one of its values: too fine or too large")
        return cell


def _of_row(error: ColumnNotFoundError | ValueNotFoundError, row: int) -> RowmintError:
    """Say which row an error is about, in its message and its metadata."""
    error.message = f"row {row}: {error.message}"
    error.metadata["row"] = str(row)
    return error
