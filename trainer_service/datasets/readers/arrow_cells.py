"""Cells of the typed columns of Parquet and Arrow, in the few types that ingest supports."""

from functools import cache
from uuid import UUID

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rowmint.errors import DataProblem, InvalidDataError
from rowmint.schema import INT64_MAX
from trainer_service.datasets.conversion import Mask, mask
from trainer_service.datasets.datetimes import FIRST_MICROS, LAST_MICROS
from trainer_service.datasets.notices import Notice, NoticeCode, Notices
from trainer_service.datasets.problems import Problems
from trainer_service.datasets.readers.arrow_types import extension

_DAY = 86_400_000_000
_DAY_MILLIS = 86_400_000
YEARS = "lies outside the years 0001 to 9999"
"""Error text of an instant or a day that no type of ingest holds."""
_PER_MICRO = {"s": 1_000_000, "ms": 1_000, "us": 1}
_MAX_PRECISION = 38


def plain(array: pa.Array, name: str, first_row: int, most: int) -> pa.Array:
    """Return a column whose views can be followed safely, and whose dictionary has none.

    Args:
        array: The column, whose offsets are valid.
        name: Its name.
        first_row: Number of its first row.
        most: Bytes that a dictionary may take.

    Raises:
        InvalidDataError: Its dictionary is too large.
    """
    if pa.types.is_string_view(array.type):
        return _cleared_views(array)
    if not pa.types.is_dictionary(array.type) or not pa.types.is_string_view(array.type.value_type):
        return array
    views = array.dictionary
    if int(view_lengths(views).sum(dtype=np.int64)) > most:
        message = f"the dictionary of the batch of this row takes more than {most} bytes; write plain texts"
        raise InvalidDataError([DataProblem(message, row=first_row, column=name)])
    return pa.DictionaryArray.from_arrays(array.indices, _cleared_views(views).cast(pa.string()))


def plain_numbers(array: pa.Array) -> pa.Array:
    """Return days as milliseconds and times of day as their numbers, which may be any; other columns as they are."""
    if pa.types.is_date64(array.type) or pa.types.is_time64(array.type):
        return array.view(pa.int64())
    return array.view(pa.int32()) if pa.types.is_time32(array.type) else array


def view_lengths(array: pa.Array) -> npt.NDArray[np.int32]:
    """Return the lengths of the texts of a string view array, bytes; those of missing cells may be anything."""
    if not len(array):
        return np.zeros(0, np.int32)
    return np.frombuffer(array.buffers()[1], dtype=np.int32)[::4][array.offset : array.offset + len(array)]


def _cleared_views(array: pa.Array) -> pa.Array:
    """Return a string view array in which the views of missing cells are zero.

    Validation ignores the views of missing cells, but a cast follows them: crafted bytes could read any memory.
    """
    if not array.null_count:
        return array
    validity, views_buffer, *data = array.buffers()
    views = np.frombuffer(views_buffer, dtype=np.uint8, count=16 * (array.offset + len(array))).reshape(-1, 16).copy()
    views[array.offset :][mask(array.is_null())] = 0
    buffers = [validity, pa.py_buffer(views), *data]
    return pa.Array.from_buffers(array.type, len(array), buffers, array.null_count, array.offset)


def digits_dropped(column: str, rows: int) -> Notice:
    """Return the notice that digits past microseconds were dropped in rows of a column."""
    return Notice(NoticeCode.DIGITS_DROPPED, column, "digits past microseconds are dropped", "", rows)


class CellReader:
    """Reads the cells of one slice.

    Args:
        first_row: Number of its first row, from 1.
        problems: Receives the rows with values that cannot be represented.
        notices: Receives what happened to cells.
    """

    def __init__(self, first_row: int, problems: Problems, notices: Notices) -> None:
        self._first_row = first_row
        self._problems = problems
        self._notices = notices

    def read(self, array: pa.Array, name: str) -> pa.Array:
        """Return the cells of one column of the slice, in a type that ingest supports."""
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if (known := extension(array.type)) and known == "arrow.uuid":
            texts = [None if cell is None else str(UUID(bytes=cell)) for cell in array.storage.to_pylist()]
            return pa.array(texts, pa.string())
        if known:
            array = array.storage
        kind = array.type
        if known == "arrow.bool8":
            return pc.not_equal(array, 0)
        if pa.types.is_string_view(kind) or pa.types.is_large_string(kind):
            return array.cast(pa.string())
        if pa.types.is_integer(kind):
            return self._integers(array, name)
        if pa.types.is_floating(kind):
            return self._doubles(array, name)
        if pa.types.is_decimal(kind):
            return self._decimals(array, name)
        if pa.types.is_date(kind):
            return self._days(array, name)
        if pa.types.is_timestamp(kind):
            return self._instants(array, name)
        if pa.types.is_time(kind):
            return self._times(array, name)
        return array.cast(pa.int64()) if pa.types.is_duration(kind) else array

    def _integers(self, array: pa.Array, name: str) -> pa.Array:
        if pa.types.is_uint64(array.type):
            large = pc.sum(pc.greater(array, pa.scalar(INT64_MAX, array.type))).as_py() or 0
            if large:
                message = "integers beyond 64 bits with a sign are kept as their digits"
                self._notices.add(Notice(NoticeCode.BEYOND_INT64, name, message, "", large))
                return array.cast(pa.string())
        return array.cast(pa.int64())

    def _doubles(self, array: pa.Array, name: str) -> pa.Array:
        missing = int(np.count_nonzero(mask(pc.is_nan(array).fill_null(False))))
        if missing:
            message = "NaN are missing cells"
            self._notices.add(Notice(NoticeCode.STORAGE, name, message, "", missing))
        if pa.types.is_float32(array.type):
            # The shortest text of a float32 has its value and at most nine digits, not the sixteen of a double.
            return array.cast(pa.string()).cast(pa.float64())
        if pa.types.is_float16(array.type):
            bits = np.zeros(0, dtype=np.uint16)
            if len(array):
                bits = np.frombuffer(array.buffers()[1], dtype=np.uint16)[array.offset : array.offset + len(array)]
            return pa.array(_halves()[bits], pa.float64(), mask=~mask(array.is_valid()), from_pandas=False)
        return array

    def _decimals(self, array: pa.Array, name: str) -> pa.Array:
        target = pa.decimal128(_MAX_PRECISION, array.type.scale)
        if array.type.precision > _MAX_PRECISION:
            digits = [0 if cell is None else len(cell.as_tuple().digits) for cell in array.to_pylist()]
            large = np.array(digits, dtype=np.int64) > _MAX_PRECISION
            self._problems.add_rows(f"has more than {_MAX_PRECISION} digits", large, self._first_row, name)
            array = _without(array, large)
        return array.cast(target)

    def _days(self, array: pa.Array, name: str) -> pa.Array:
        if pa.types.is_date64(array.type):
            millis = array.cast(pa.int64()).fill_null(0).to_numpy()
            days, rest = np.divmod(millis, _DAY_MILLIS)
            message = "is a day with a time of day, which a date64 must not have; write a timestamp"
            self._problems.add_rows(message, rest != 0, self._first_row, name)
            numbers = pa.array(days, pa.int64(), mask=(rest != 0) | ~mask(array.is_valid()))
        else:
            numbers = array.cast(pa.int32()).cast(pa.int64())
        outside = _outside(numbers, FIRST_MICROS // _DAY, LAST_MICROS // _DAY)
        self._problems.add_rows(YEARS, outside, self._first_row, name)
        return _without(numbers, outside).cast(pa.int32()).cast(pa.date32())

    def _instants(self, array: pa.Array, name: str) -> pa.Array:
        target = pa.timestamp("us", None if array.type.tz is None else "UTC")
        numbers = array.cast(pa.int64())
        if array.type.unit == "ns":
            # The whole range of nanoseconds is within years 0001 to 9999.
            return self._micros(numbers, name).cast(target)
        per_micro = _PER_MICRO[array.type.unit]
        outside = _outside(numbers, -(-FIRST_MICROS // per_micro), LAST_MICROS // per_micro)
        self._problems.add_rows(YEARS, outside, self._first_row, name)
        return pc.multiply(_without(numbers, outside), per_micro).cast(target)

    def _times(self, array: pa.Array, name: str) -> pa.Array:
        narrow = pa.types.is_time32(array.type)
        numbers = array.cast(pa.int32()).cast(pa.int64()) if narrow else array.cast(pa.int64())
        per_micro = _PER_MICRO.get(array.type.unit, 1)
        most = _DAY * 1000 if array.type.unit == "ns" else _DAY // per_micro
        outside = _outside(numbers, 0, most - 1)
        self._problems.add_rows("is not a time of day", outside, self._first_row, name)
        numbers = _without(numbers, outside)
        return self._micros(numbers, name) if array.type.unit == "ns" else pc.multiply(numbers, per_micro)

    def _micros(self, nanos: pa.Array, name: str) -> pa.Array:
        """Return microseconds; digits past them are truncated towards the past."""
        micros, rest = np.divmod(nanos.fill_null(0).to_numpy(), 1000)
        if dropped := int(np.count_nonzero(rest)):
            self._notices.add(digits_dropped(name, dropped))
        return pa.array(micros, pa.int64(), mask=~mask(nanos.is_valid()))


@cache
def _halves() -> npt.NDArray[np.float64]:
    """Return the double of the shortest text of every float16, by its bits, shape (65536,)."""
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    return np.array([float(str(half)) for half in every])


def _outside(numbers: pa.Array, low: int, high: int) -> Mask:
    return mask(pc.or_(pc.less(numbers, low), pc.greater(numbers, high)).fill_null(False))


def _without(array: pa.Array, dropped: Mask) -> pa.Array:
    return pc.if_else(pa.array(dropped), pa.scalar(None, array.type), array) if dropped.any() else array
