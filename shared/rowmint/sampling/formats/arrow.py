"""The Apache Arrow IPC stream: a schema message, dictionaries, record batches, an end marker.

Arrays are built from buffers: missing cells zeroed, offsets from 0, no slices, a validity buffer only where a
cell is missing. So the same rows give the same bytes, and the batches of one stream are those of the calls that resume
it. `pyarrow.array`, `scalar` and `to_pylist` are avoided, as they import pandas where it is installed.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from rowmint.codecs import IdentityCodec
from rowmint.sampling.formats.natives import (
    category_natives,
    category_texts,
    is_dictionary,
    presence,
    take_categories,
    validity_bits,
)
from rowmint.schema import ColumnKind, ColumnSpec, DataType, TableSchema
from rowmint.schema.arrays import ColumnArray, fraction_digits, is_coded

END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""A continuation marker and a metadata length of 0 (Arrow columnar format, "IPC streaming format")."""

_DECIMAL_DIGITS = 38


class ArrowEncoder:
    """Writes an Arrow IPC stream; see `Encoder`."""

    def __init__(self, schema: TableSchema, identities: Mapping[str, IdentityCodec]) -> None:
        self._columns = [_ArrowColumn(column, identities.get(column.name)) for column in schema.columns]
        self._schema = pa.schema([column.field for column in self._columns])

    def header(self) -> bytes:
        """Return the schema message and every dictionary."""
        empty = self._batch({column.name: column.empty() for column in self._columns}, 0)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self._schema) as writer:
            # A writer sends the dictionaries with the first batch; an empty one makes it do so, and is cut off again.
            writer.write_batch(empty)
        stream: bytes = sink.getvalue().to_pybytes()
        return stream.removesuffix(END_OF_STREAM).removesuffix(empty.serialize().to_pybytes())

    def batch(self, columns: Mapping[str, ColumnArray], first_row: int, rows: int) -> bytes:
        """Return one record batch message."""
        message: bytes = self._batch(columns, rows).serialize().to_pybytes()
        return message

    def end(self) -> bytes:
        """Return the end marker."""
        return END_OF_STREAM

    def _batch(self, columns: Mapping[str, ColumnArray], rows: int) -> pa.RecordBatch:
        arrays = [column.array(columns[column.name], rows) for column in self._columns]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)


class _ArrowColumn:
    """Builds the arrays of one column."""

    def __init__(self, column: ColumnSpec, identity: IdentityCodec | None) -> None:
        self.name = column.name
        self._identity = identity
        self._table = None if identity or is_dictionary(column) or not is_coded(column) else category_natives(column)
        self._dictionary = _utf8(category_texts(column)) if is_dictionary(column) else None
        self._type = _arrow_type(column)
        self.field = pa.field(column.name, self._type, nullable=column.nullable)
        self._build = self._builder(column)

    def empty(self) -> ColumnArray:
        """Return no cells."""
        return ColumnArray(
            np.zeros(0, np.int32 if self._table is not None or self._dictionary is not None else np.int64)
        )

    def array(self, cells: ColumnArray, rows: int) -> pa.Array:
        """Return the cells as an array of the column's type."""
        present = presence(cells)
        bitmap = None if present is None else pa.py_buffer(validity_bits(present))
        values = cells.values if self._table is None else take_categories(self._table, cells.values)
        if present is not None:
            values = np.where(present, values, values.dtype.type(0))
        nulls = 0 if present is None else rows - int(np.count_nonzero(present))
        return self._build(values, bitmap, nulls)

    def _builder(self, column: ColumnSpec) -> Callable[[NDArray[np.generic], pa.Buffer | None, int], pa.Array]:
        if self._dictionary is not None:
            return self._indices
        if self._identity is not None and not self._identity.integral:
            return self._texts
        match column.data_type:
            case DataType.BOOL:
                return self._bits
            case DataType.DECIMAL:
                return self._decimals
            case DataType.DATE:
                return self._days
            case _:
                return self._plain

    def _plain(self, values: NDArray[np.generic], bitmap: pa.Buffer | None, nulls: int) -> pa.Array:
        data = pa.py_buffer(np.ascontiguousarray(values).data)
        return pa.Array.from_buffers(self._type, len(values), [bitmap, data], null_count=nulls)

    def _days(self, values: NDArray[np.generic], bitmap: pa.Buffer | None, nulls: int) -> pa.Array:
        return self._plain(values.astype(np.int32), bitmap, nulls)

    def _decimals(self, values: NDArray[np.generic], bitmap: pa.Buffer | None, nulls: int) -> pa.Array:
        units = values.astype(np.int64)
        # Two's complement of 128 bits, least significant half first.
        return self._plain(np.stack([units, units >> np.int64(63)], axis=1).reshape(-1).view("V16"), bitmap, nulls)

    def _bits(self, values: NDArray[np.generic], bitmap: pa.Buffer | None, nulls: int) -> pa.Array:
        bits = pa.py_buffer(validity_bits(values.astype(np.bool_)))
        return pa.Array.from_buffers(self._type, len(values), [bitmap, bits], null_count=nulls)

    def _indices(self, values: NDArray[np.generic], bitmap: pa.Buffer | None, nulls: int) -> pa.Array:
        data = pa.py_buffer(np.ascontiguousarray(values, np.int32).data)
        return pa.DictionaryArray.from_buffers(self._type, len(values), [bitmap, data], self._dictionary, nulls)

    def _texts(self, values: NDArray[np.generic], bitmap: pa.Buffer | None, nulls: int) -> pa.Array:
        if self._identity is None:
            raise TypeError(f"column {self.name!r} has no ids")
        return _utf8(self._identity.texts(values.astype(np.int64)))


def _arrow_type(column: ColumnSpec) -> pa.DataType:
    match column.data_type:
        case DataType.BOOL:
            return pa.bool_()
        case DataType.DOUBLE:
            return pa.float64()
        case DataType.DECIMAL:
            return pa.decimal128(_DECIMAL_DIGITS, fraction_digits(column))
        case DataType.STRING:
            return pa.utf8() if column.kind is ColumnKind.ID else pa.dictionary(pa.int32(), pa.utf8())
        case DataType.DATE:
            return pa.date32()
        case DataType.TIMESTAMP:
            return pa.timestamp("us", tz=column.time_zone or None)
        case _:
            return pa.int64()


def _utf8(texts: list[str]) -> pa.Array:
    encoded = [text.encode() for text in texts]
    offsets = np.zeros(len(encoded) + 1, np.int32)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    buffers = [None, pa.py_buffer(offsets.data), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.utf8(), len(encoded), buffers, null_count=0)
