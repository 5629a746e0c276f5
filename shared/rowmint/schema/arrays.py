"""Columns as arrays, in the native scale that codecs decode to, conditions test and encoders write.

| kind, type | `values` |
|---|---|
| categorical, boolean | int32, index into the column's category list; -1 where missing |
| numerical int64, date (days), timestamp (microseconds), decimal (units of the last digit) | int64 |
| numerical double | float64 |
| id | int64, the rank of the id |

Days and microseconds count from 1970-01-01.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from rowmint.schema import Cell, ColumnKind, ColumnSpec, DataType, shown_cell
from rowmint.schema.cell import EPOCH, EPOCH_DATE, EPOCH_UTC

_MAX_DIGITS = 1000
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class ColumnArray:
    """Some cells of one column.

    Attributes:
        values: Shape (n,), in the native scale; 0 where missing, except codes, which are -1.
        valid: Shape (n,), bool, False where missing; None where no cell is missing or `values` are codes.
    """

    values: NDArray[np.generic]
    valid: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: NDArray[np.intp] | slice) -> "ColumnArray":
        """Return the cells at `index`; a slice gives views."""
        return ColumnArray(self.values[index], None if self.valid is None else self.valid[index])

    def missing(self) -> NDArray[np.bool_]:
        """Return which cells are missing, shape (n,)."""
        if self.valid is not None:
            missing: NDArray[np.bool_] = ~self.valid
            return missing
        if self.values.dtype == np.int32:
            coded: NDArray[np.bool_] = np.less(self.values, 0)
            return coded
        return np.zeros(len(self.values), np.bool_)


def concatenate(parts: Sequence[ColumnArray]) -> ColumnArray:
    """Join cells of one column, in order; at least one part. A single part is returned as it is, not copied."""
    if len(parts) == 1:
        return parts[0]
    values = np.concatenate([part.values for part in parts])
    if all(part.valid is None for part in parts):
        return ColumnArray(values)
    return ColumnArray(values, np.concatenate([~part.missing() for part in parts]))


def is_coded(column: ColumnSpec) -> bool:
    """Say whether the column's native values are category codes."""
    return column.kind in (ColumnKind.CATEGORICAL, ColumnKind.BOOLEAN)


def fraction_digits(column: ColumnSpec) -> int:
    """Return the digits after the point of a DECIMAL column; where none are declared, the most any category has."""
    if column.domain.decimals is not None:
        return column.domain.decimals
    exponents = [
        exponent
        for category in column.domain.categories
        if isinstance(category, Decimal) and isinstance(exponent := category.as_tuple().exponent, int)
    ]
    return max(0, -min(exponents, default=0))


def native_number(cell: Cell, column: ColumnSpec) -> Fraction:
    """Return a cell of an ordered column in its native scale, exactly; it may lie between two native values.

    A float given for a decimal column is the decimal number it prints as: 0.1 is one tenth.

    Raises:
        ValueError: The cell is not of the column's type.
    """
    scale = 10 ** (column.domain.decimals or 0)
    match column.data_type:
        case DataType.INT64 | DataType.DOUBLE | DataType.DECIMAL:
            if isinstance(cell, bool) or not isinstance(cell, int | float | Decimal):
                raise ValueError(f"{shown_cell(cell)} is not a number")
            if isinstance(cell, Decimal) and (
                len(cell.as_tuple().digits) > _MAX_DIGITS or abs(cell.adjusted()) > _MAX_DIGITS
            ):
                # Its fraction would take minutes to compute.
                raise ValueError(f"a number of more than {_MAX_DIGITS} digits is beyond every column")
            try:
                printed = isinstance(cell, float) and column.data_type is DataType.DECIMAL
                number = Fraction(repr(float(cell))) if printed else Fraction(cell)
            except (ValueError, OverflowError) as error:
                raise ValueError(f"{shown_cell(cell)} is not a finite number") from error
            return number * scale if column.data_type is DataType.DECIMAL else number
        case DataType.DATE:
            if isinstance(cell, datetime) or not isinstance(cell, date):
                raise ValueError(f"{shown_cell(cell)} is not a date")
            return Fraction((cell - EPOCH_DATE).days)
        case DataType.TIMESTAMP:
            if isinstance(cell, date) and not isinstance(cell, datetime):
                cell = datetime(cell.year, cell.month, cell.day, tzinfo=UTC if column.time_zone else None)
            if not isinstance(cell, datetime):
                raise ValueError(f"{shown_cell(cell)} is not a timestamp")
            if (cell.tzinfo is None) == bool(column.time_zone):
                needed = "an offset, as the column has a time zone" if column.time_zone else "no offset"
                raise ValueError(f"{cell.isoformat()} must have {needed}")
            return Fraction((cell - (EPOCH_UTC if cell.tzinfo else EPOCH)) // _MICROSECOND)
        case _:
            raise ValueError(f"a {column.data_type} column has no order")


def nearest_double(number: Fraction) -> float:
    """Return the float64 nearest to `number`, ties to even; an infinity beyond the largest."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def native_cell(value: float, column: ColumnSpec) -> Cell:
    """Return the cell of an ordered column whose native value is `value`."""
    match column.data_type:
        case DataType.DOUBLE:
            return float(value)
        case DataType.DECIMAL:
            return Decimal(int(value)).scaleb(-(column.domain.decimals or 0))
        case DataType.DATE:
            return EPOCH_DATE + timedelta(days=int(value))
        case DataType.TIMESTAMP:
            return (EPOCH_UTC if column.time_zone else EPOCH) + int(value) * _MICROSECOND
        case _:
            return int(value)


def column_cells(array: ColumnArray, column: ColumnSpec) -> list[Cell]:
    """Return the cells of a categorical or ordered column as Python values, in order."""
    if is_coded(column):
        categories = column.domain.categories
        return [None if code < 0 else categories[code] for code in array.values.tolist()]
    missing = array.missing().tolist()
    return [
        None if absent else native_cell(value, column)
        for value, absent in zip(array.values.tolist(), missing, strict=True)
    ]
