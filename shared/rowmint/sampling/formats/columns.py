"""Typed columns for clients without Arrow: plain values here, protobuf in the converters.

Values are canonical, whatever form the column has: the stream's header carries the form.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from rowmint.codecs import IdentityCodec
from rowmint.sampling.formats.natives import (
    blanked,
    category_natives,
    is_dictionary,
    presence,
    take_categories,
    validity_bits,
)
from rowmint.sampling.formats.text import decimal_texts
from rowmint.schema import ColumnSpec, DataType, TableSchema
from rowmint.schema.arrays import ColumnArray, fraction_digits, is_coded


class ValueKind(StrEnum):
    """Which list of `rowmint.v1.ColumnValues` holds the values."""

    INT64S = "int64s"
    DOUBLES = "doubles"
    BOOLS = "bools"
    STRINGS = "strings"
    INDICES = "indices"


_ABOUT_BYTES = {ValueKind.INT64S: 6, ValueKind.DOUBLES: 8, ValueKind.BOOLS: 1, ValueKind.INDICES: 2}


@dataclass(frozen=True)
class TypedColumn:
    """The cells of one column.

    Attributes:
        kind: What the values are.
        values: One a row; 0, False or "" where missing.
        validity: Bit i, least significant first, is 1 where row i is present; empty where all are.
    """

    kind: ValueKind
    values: list[Any]
    validity: bytes


@dataclass(frozen=True)
class TypedBatch:
    """The rows of one batch.

    Attributes:
        first_row: Index of the first row.
        rows: Rows in each column.
        columns: In the order requested.
    """

    first_row: int
    rows: int
    columns: tuple[TypedColumn, ...]

    def __len__(self) -> int:
        """Return about how many bytes it takes on the wire; what messages are cut by."""
        return sum(
            sum(map(len, column.values)) + 2 * self.rows
            if column.kind is ValueKind.STRINGS
            else _ABOUT_BYTES[column.kind] * self.rows
            for column in self.columns
        )


class ColumnsEncoder:
    """Writes typed columns; see `Encoder`. The category lists are in the stream's header."""

    def __init__(self, schema: TableSchema, identities: Mapping[str, IdentityCodec]) -> None:
        self._columns = [_Column(column, identities.get(column.name)) for column in schema.columns]

    def header(self) -> bytes:
        """Return nothing."""
        return b""

    def batch(self, columns: Mapping[str, ColumnArray], first_row: int, rows: int) -> TypedBatch:
        """Return the rows' columns."""
        return TypedBatch(first_row, rows, tuple(column.typed(columns[column.name]) for column in self._columns))

    def end(self) -> bytes:
        """Return nothing."""
        return b""


class _Column:
    def __init__(self, column: ColumnSpec, identity: IdentityCodec | None) -> None:
        self.name = column.name
        self._identity = identity
        self._digits = fraction_digits(column) if column.data_type is DataType.DECIMAL else 0
        self._kind = _kind(column, identity)
        coded = identity is None and is_coded(column) and not is_dictionary(column)
        self._table = category_natives(column) if coded else None

    def typed(self, array: ColumnArray) -> TypedColumn:
        """Return the cells."""
        present = presence(array)
        validity = b"" if present is None else validity_bits(present)
        values = array.values if self._table is None else take_categories(self._table, array.values)
        if self._kind is ValueKind.STRINGS:
            if self._identity is not None:
                texts = self._identity.texts(values.astype(np.int64))
            else:
                texts = decimal_texts(values, self._digits)
            return TypedColumn(self._kind, blanked(texts, present, ""), validity)
        if present is not None:
            values = np.where(present, values, values.dtype.type(0))
        return TypedColumn(self._kind, values.tolist(), validity)


def _kind(column: ColumnSpec, identity: IdentityCodec | None) -> ValueKind:
    if is_dictionary(column):
        return ValueKind.INDICES
    if identity is not None:
        return ValueKind.INT64S if identity.integral else ValueKind.STRINGS
    match column.data_type:
        case DataType.DOUBLE:
            return ValueKind.DOUBLES
        case DataType.BOOL:
            return ValueKind.BOOLS
        case DataType.DECIMAL:
            return ValueKind.STRINGS
        case _:
            return ValueKind.INT64S
