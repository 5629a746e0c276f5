"""What every format needs of a column: which cells are present, and the native values of categories.

A categorical column's cells are codes. Formats that have no dictionaries, and types that are never sent as one, need
the value itself: the table of all categories' native values, computed once, is indexed by the codes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rowmint.schema import ColumnKind, ColumnSpec, DataType
from rowmint.schema.arrays import ColumnArray, fraction_digits, native_number


def is_dictionary(column: ColumnSpec) -> bool:
    """Say whether a column is sent as indices into its category list where the format has dictionaries."""
    return column.data_type is DataType.STRING and column.kind is ColumnKind.CATEGORICAL


def category_texts(column: ColumnSpec) -> list[str]:
    """Return the categories of a dictionary column, in order."""
    return [str(category) for category in column.domain.categories]


def category_natives(column: ColumnSpec) -> NDArray[np.generic]:
    """Return the native value of each category of a column that is not text, shape (categories,)."""
    present = [category for category in column.domain.categories if category is not None]
    if column.data_type is DataType.BOOL:
        return np.array(present, np.bool_)
    if column.data_type is DataType.DOUBLE:
        return np.array([float(native_number(category, column)) for category in present], np.float64)
    # `native_number` counts the declared digits; without them a decimal's own digits make up the unit.
    lift = 10 ** fraction_digits(column) if _undeclared(column) else 1
    return np.array([int(native_number(category, column) * lift) for category in present], np.int64)


def _undeclared(column: ColumnSpec) -> bool:
    return column.data_type is DataType.DECIMAL and column.domain.decimals is None


def take_categories(table: NDArray[np.generic], codes: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return the table's entry for each code, zero for -1; shape of `codes`."""
    padded: NDArray[np.generic] = np.concatenate([table, np.zeros(1, table.dtype)])
    return padded[codes.astype(np.intp)]


def presence(array: ColumnArray) -> NDArray[np.bool_] | None:
    """Return which cells are present, shape (n,), or None where all are."""
    missing = array.missing()
    return ~missing if missing.any() else None


def validity_bits(present: NDArray[np.bool_]) -> bytes:
    """Return a bitmap, least significant bit first, as Arrow has it; bits beyond the last cell are 0."""
    return np.packbits(present, bitorder="little").tobytes()


def blanked(texts: Sequence[str], present: NDArray[np.bool_] | None, blank: str) -> list[str]:
    """Return the texts with `blank` where a cell is missing."""
    if present is None:
        return list(texts)
    return [text if there else blank for text, there in zip(texts, present.tolist(), strict=True)]
