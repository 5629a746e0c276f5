"""Columns as lists of texts, one a cell: what CSV and NDJSON are joined from.

The texts of categories are made once; the others in one pass a column. Numbers are Python's: an int in plain digits, a
float in its shortest form that reads back the same, a decimal with all its digits.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs import IdentityCodec
from rowmint.sampling.formats.natives import (
    blanked,
    category_natives,
    category_texts,
    is_dictionary,
    presence,
)
from rowmint.schema import ColumnSpec, DataType
from rowmint.schema.arrays import ColumnArray, fraction_digits, is_coded, native_cell

_SECOND = 1_000_000  # microseconds


class TextColumn:
    """Writes the cells of one column as texts. Immutable, thread-safe.

    Args:
        column: The column.
        identity: Its codec where it is an id.
        quote: Applied to text: strings, ids, and dates and times.
        missing: What stands for a missing cell.
        formatted: Whether the column's own datetime format is used rather than ISO 8601.
    """

    def __init__(
        self,
        column: ColumnSpec,
        identity: IdentityCodec | None,
        quote: Callable[[str], str],
        missing: str,
        *,
        formatted: bool,
    ) -> None:
        self.name = column.name
        self._identity = identity
        self._quote = quote
        self._missing = missing
        self._texts = _number_texts(column, formatted=formatted)
        self._quoted = column.data_type in (DataType.STRING, DataType.DATE, DataType.TIMESTAMP)
        # One more entry, last, for code -1: a missing cell.
        self._categories = [*map(quote, category_texts(column)), missing] if is_dictionary(column) else None
        if self._categories is None and identity is None and is_coded(column):
            self._categories = [*self._finished(self._texts(category_natives(column))), missing]

    def __call__(self, array: ColumnArray) -> list[str]:
        """Return the text of each cell."""
        if self._categories is not None:
            return [self._categories[code] for code in array.values.tolist()]
        values = array.values
        if self._identity is not None and not self._identity.integral:
            return self._finished(self._identity.texts(values.astype(np.int64)))
        return blanked(self._finished(self._texts(values)), presence(array), self._missing)

    def _finished(self, texts: list[str]) -> list[str]:
        return [self._quote(text) for text in texts] if self._quoted else texts


def text_columns(
    columns: tuple[ColumnSpec, ...],
    identities: Mapping[str, IdentityCodec],
    quote: Callable[[str], str],
    missing: str,
    *,
    formatted: bool,
) -> list[TextColumn]:
    """Return the writers of `columns`; see `TextColumn`."""
    return [TextColumn(column, identities.get(column.name), quote, missing, formatted=formatted) for column in columns]


def _number_texts(column: ColumnSpec, *, formatted: bool) -> Callable[[NDArray[np.generic]], list[str]]:
    """Return what writes native values that are not codes."""
    match column.data_type:
        case DataType.BOOL:
            return lambda values: ["true" if value else "false" for value in values.tolist()]
        case DataType.DOUBLE:
            return lambda values: list(map(repr, values.tolist()))
        case DataType.DECIMAL:
            digits = fraction_digits(column)
            return lambda values: decimal_texts(values, digits)
        case DataType.DATE | DataType.TIMESTAMP if formatted and column.datetime_format:
            return lambda values: _strftime(values, column)
        case DataType.DATE:
            return date_texts
        case DataType.TIMESTAMP:
            suffix = "Z" if column.time_zone else ""
            return lambda values: timestamp_texts(values, suffix)
        case _:
            return lambda values: list(map(str, values.tolist()))


def decimal_texts(units: NDArray[np.generic], digits: int) -> list[str]:
    """Return decimals, given in units of the last of `digits` digits after the point."""
    if digits == 0:
        return list(map(str, units.tolist()))
    one = 10**digits
    return [
        f"{'-' if unit < 0 else ''}{abs(unit) // one}.{abs(unit) % one:0{digits}d}" for unit in map(int, units.tolist())
    ]


def date_texts(days: NDArray[np.generic]) -> list[str]:
    """Return days since 1970-01-01 as ``YYYY-MM-DD``."""
    texts: list[str] = np.datetime_as_string(days.astype("datetime64[D]")).tolist()
    return texts


def timestamp_texts(moments: NDArray[np.generic], suffix: str) -> list[str]:
    """Return microseconds since 1970-01-01 as ``YYYY-MM-DDThh:mm:ss[.ffffff]`` and `suffix`."""
    seconds, micros = np.divmod(moments.astype(np.int64), _SECOND)
    whole = np.datetime_as_string(seconds.astype("datetime64[s]")).tolist()
    return [
        f"{text}.{micro:06d}{suffix}" if micro else text + suffix
        for text, micro in zip(whole, micros.tolist(), strict=True)
    ]


def _strftime(values: NDArray[np.generic], column: ColumnSpec) -> list[str]:
    distinct, index = np.unique(values, return_inverse=True)
    texts: list[str] = []
    for value in distinct.tolist():
        cell = native_cell(value, column)
        if not isinstance(cell, date):
            raise TypeError(f"column {column.name!r} does not hold dates")
        if isinstance(cell, datetime) and cell.tzinfo is not None:
            cell = cell.astimezone(UTC)
        texts.append(cell.strftime(column.datetime_format))
    return [texts[position] for position in index.tolist()]
