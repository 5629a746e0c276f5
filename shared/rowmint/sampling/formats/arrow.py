"""The Apache Arrow IPC stream: a schema message, dictionaries, record batches, an end marker.

A column has the Arrow type that it came in where that is known: narrow integers and floats, units of time. Arrays are
built from buffers: missing cells zeroed, offsets from 0, no slices, a validity buffer only where a
cell is missing. So the same rows give the same bytes, and the batches of one stream are those of the calls that resume
it. `pyarrow.array`, `scalar` and `to_pylist` are avoided, as they import pandas where it is installed.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from rowmint.codecs import IdentityCodec
from rowmint.sampling.formats.natives import (
    blanked,
    category_natives,
    category_texts,
    is_dictionary,
    presence,
    take_categories,
    validity_bits,
)
from rowmint.schema import ColumnKind, ColumnSpec, DataType, TableSchema
from rowmint.schema.arrays import ColumnArray, fraction_digits, is_coded
from rowmint.schema.forms import DatetimeForm, StorageType
from rowmint.schema.forms.id_pattern import parse_id_pattern
from rowmint.schema.forms.storage import storage_bounds

END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""A continuation marker and a metadata length of 0 (Arrow columnar format, "IPC streaming format")."""

_DECIMAL_DIGITS = 38
_DAY_MILLIS = np.int64(86_400_000)
# What microseconds are multiplied by and divided by.
_SCALES = {
    StorageType.TIMESTAMP_S: (1, 1_000_000),
    StorageType.TIMESTAMP_MS: (1, 1_000),
    StorageType.TIMESTAMP_NS: (1_000, 1),
    StorageType.TIME32_S: (1, 1_000_000),
    StorageType.TIME32_MS: (1, 1_000),
    StorageType.TIME64_NS: (1_000, 1),
}
_TYPES = {
    StorageType.INT8: pa.int8(),
    StorageType.INT16: pa.int16(),
    StorageType.INT32: pa.int32(),
    StorageType.UINT8: pa.uint8(),
    StorageType.UINT16: pa.uint16(),
    StorageType.UINT32: pa.uint32(),
    StorageType.UINT64: pa.uint64(),
    StorageType.FLOAT16: pa.float16(),
    StorageType.FLOAT32: pa.float32(),
    StorageType.DATE64: pa.date64(),
    StorageType.TIME32_S: pa.time32("s"),
    StorageType.TIME32_MS: pa.time32("ms"),
    StorageType.TIME64_US: pa.time64("us"),
    StorageType.TIME64_NS: pa.time64("ns"),
    StorageType.DURATION_S: pa.duration("s"),
    StorageType.DURATION_MS: pa.duration("ms"),
    StorageType.DURATION_US: pa.duration("us"),
    StorageType.DURATION_NS: pa.duration("ns"),
}
_WIDTHS = {
    StorageType.INT8: np.int8,
    StorageType.INT16: np.int16,
    StorageType.INT32: np.int32,
    StorageType.UINT8: np.uint8,
    StorageType.UINT16: np.uint16,
    StorageType.UINT32: np.uint32,
    StorageType.UINT64: np.uint64,
    StorageType.FLOAT16: np.float16,
    StorageType.FLOAT32: np.float32,
    StorageType.TIME32_S: np.int32,
    StorageType.TIME32_MS: np.int32,
}


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
        storage = _storage(column, identity)
        dictionary = is_dictionary(column) and storage is not StorageType.UINT64
        self._dictionary = _texts_array(category_texts(column), _text_type(storage)) if dictionary else None
        self._table: NDArray[np.generic] | None = None
        if identity is None and is_coded(column) and not dictionary:
            digits = is_dictionary(column)
            self._table = np.array(category_texts(column), np.uint64) if digits else category_natives(column)
        self._type = _arrow_type(column, storage)
        self.field = pa.field(column.name, self._type, nullable=column.nullable)
        self._stored = _stored(storage)
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
            return self._digits if pa.types.is_uint64(self._type) else self._texts
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
        data = pa.py_buffer(np.ascontiguousarray(self._stored(values)).data)
        return pa.Array.from_buffers(self._type, len(values), [bitmap, data], null_count=nulls)

    def _days(self, values: NDArray[np.generic], bitmap: pa.Buffer | None, nulls: int) -> pa.Array:
        if pa.types.is_date64(self._type):
            return self._plain(values.astype(np.int64) * _DAY_MILLIS, bitmap, nulls)
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
        texts = self._made(values)
        if bitmap is None:
            return _texts_array(texts, self._type)
        return _texts_array(blanked(texts, _present(bitmap, len(texts)), ""), self._type, bitmap, nulls)

    def _digits(self, values: NDArray[np.generic], bitmap: pa.Buffer | None, nulls: int) -> pa.Array:
        numbers = np.array(self._made(values), np.uint64)
        if bitmap is not None:
            numbers *= _present(bitmap, len(numbers))
        return self._plain(numbers, bitmap, nulls)

    def _made(self, values: NDArray[np.generic]) -> list[str]:
        if self._identity is None:
            raise TypeError(f"column {self.name!r} has no ids")
        return self._identity.texts(values.astype(np.int64))


def _storage(column: ColumnSpec, identity: IdentityCodec | None) -> StorageType | None:
    """Return the type a column is delivered in where it is not canonical, and all of its ids are of it."""
    storage = column.written_form.storage
    if identity is None or storage is None or storage is StorageType.LARGE_STRING:
        return storage
    if identity.integral:
        least, greatest = storage_bounds(storage)
        fits = least <= identity.base and identity.base + identity.size - 1 <= greatest
    else:
        fits = all(map(_is_uint64, parse_id_pattern(identity.pattern).layouts))
    return storage if fits else None


def _is_uint64(layout: tuple[str, ...]) -> bool:
    """Say whether the ids of a layout are integers of 64 bits without sign, in digits without leading zeros."""
    digits = all(letter in "0123456789" for alphabet in layout for letter in alphabet)
    return digits and ("0" not in layout[0] or len(layout) == 1) and int("".join(map(max, layout))) < 1 << 64


def _arrow_type(column: ColumnSpec, storage: StorageType | None) -> pa.DataType:
    zone = column.time_zone
    if zone and isinstance(column.written_form.form, DatetimeForm):
        zone = column.written_form.form.arrow_zone or zone
    if column.data_type is DataType.TIMESTAMP:
        unit = "us" if storage is None else storage.removeprefix("timestamp_")
        return pa.timestamp(unit, tz=zone or None)
    if storage in _TYPES:
        return _TYPES[storage]
    match column.data_type:
        case DataType.BOOL:
            return pa.bool_()
        case DataType.DOUBLE:
            return pa.float64()
        case DataType.DECIMAL:
            return pa.decimal128(_DECIMAL_DIGITS, fraction_digits(column))
        case DataType.STRING:
            text = _text_type(storage)
            return text if column.kind is ColumnKind.ID else pa.dictionary(pa.int32(), text)
        case DataType.DATE:
            return pa.date32()
        case _:
            return pa.int64()


def _text_type(storage: StorageType | None) -> pa.DataType:
    return pa.large_utf8() if storage is StorageType.LARGE_STRING else pa.utf8()


def _stored(storage: StorageType | None) -> Callable[[NDArray[np.generic]], NDArray[np.generic]]:
    """Return what brings native values to the unit and width of a type."""
    times, parts = _SCALES.get(storage, (1, 1)) if storage is not None else (1, 1)
    width = _WIDTHS.get(storage) if storage is not None else None

    def stored(values: NDArray[Any]) -> NDArray[np.generic]:
        scaled = values if times == parts else values * np.int64(times) // np.int64(parts)
        return scaled if width is None else scaled.astype(width)

    return stored


def _present(bitmap: pa.Buffer, rows: int) -> NDArray[np.bool_]:
    """Return the bits of a bitmap, shape (rows,)."""
    return np.unpackbits(np.frombuffer(bitmap, np.uint8), count=rows, bitorder="little").astype(np.bool_)


def _texts_array(texts: list[str], text_type: pa.DataType, bitmap: pa.Buffer | None = None, nulls: int = 0) -> pa.Array:
    encoded = [text.encode() for text in texts]
    offsets = np.zeros(len(encoded) + 1, np.int64 if pa.types.is_large_string(text_type) else np.int32)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    buffers = [bitmap, pa.py_buffer(offsets.data), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(text_type, len(encoded), buffers, null_count=nulls)
