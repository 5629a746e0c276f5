"""Columns as lists of texts, one a cell: what CSV and NDJSON are joined from.

The texts of categories are made once; the others in one pass a column. A column's own form is used, see
`rowmint.schema.forms`; without one, numbers are Python's: an int in plain digits, a float in its shortest form that
reads back the same, a decimal with all its digits.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs import IdentityCodec
from rowmint.sampling.formats.forms import form_texts
from rowmint.sampling.formats.natives import (
    blanked,
    category_natives,
    category_texts,
    is_dictionary,
    presence,
)
from rowmint.schema import ColumnSpec, DataType
from rowmint.schema.arrays import ColumnArray, fraction_digits, is_coded, native_cell
from rowmint.schema.forms import BooleanForm
from rowmint.schema.forms.cells import json_bare

_SECOND = 1_000_000  # microseconds


@dataclass(frozen=True)
class TextStyle:
    """What a format makes of the texts of cells.

    Attributes:
        quote: Quotes texts: strings, ids, dates, times, and words for true and false.
        quote_numbers: Quotes numbers in a form of their own.
        missing: What stands for a missing cell.
        formatted: Whether a column's datetime format is used rather than ISO 8601, where it has no form.
        json: Whether numbers and truth values are those of JSON, where their form allows.
    """

    quote: Callable[[list[str]], list[str]]
    quote_numbers: Callable[[list[str]], list[str]]
    missing: str
    formatted: bool = False
    json: bool = False


class TextColumn:
    """Writes the cells of one column as texts. Immutable, thread-safe.

    Args:
        column: The column.
        identity: Its codec where it is an id.
        style: What the format makes of texts.
    """

    def __init__(self, column: ColumnSpec, identity: IdentityCodec | None, style: TextStyle) -> None:
        self.name = column.name
        self._identity = identity
        self._missing = style.missing
        own = form_texts(column)
        self._texts = own or _number_texts(column, formatted=style.formatted)
        self._finish = _finisher(column, style, own_form=own is not None)
        self._categories: list[str] | None = None
        if identity is None and is_coded(column):
            texts = category_texts(column) if is_dictionary(column) else self._texts(category_natives(column))
            # One more entry, last, for code -1: a missing cell.
            self._categories = [*self._finish(texts), style.missing]

    def __call__(self, array: ColumnArray) -> list[str]:
        """Return the text of each cell."""
        if self._categories is not None:
            return [self._categories[code] for code in array.values.tolist()]
        values = array.values
        if self._identity is not None and not self._identity.integral:
            texts = self._identity.texts(values.astype(np.int64))
        else:
            texts = self._texts(values)
        return blanked(self._finish(texts), presence(array), self._missing)


def text_columns(
    columns: tuple[ColumnSpec, ...], identities: Mapping[str, IdentityCodec], style: TextStyle
) -> list[TextColumn]:
    """Return the writers of `columns`; see `TextColumn`."""
    return [TextColumn(column, identities.get(column.name), style) for column in columns]


def _finisher(column: ColumnSpec, style: TextStyle, *, own_form: bool) -> Callable[[list[str]], list[str]]:
    """Return what pads and quotes the texts of a column."""
    width = column.written_form.pad_width
    quote = style.quote
    if column.data_type not in (DataType.STRING, DataType.DATE, DataType.TIMESTAMP):
        if not own_form and (style.json or not width):
            return list
        if not isinstance(column.written_form.form, BooleanForm):
            quote = style.quote_numbers
    if style.json and json_bare(column):
        return list
    if width:
        return lambda texts: quote([text.rjust(width) for text in texts])
    return quote


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
