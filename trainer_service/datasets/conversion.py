"""Conversion of columns to their target types."""

from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rowmint.schema import DataType
from trainer_service.datasets.column_types import FALSE, INFINITY, NOT_A_NUMBER, TRUE, Target
from trainer_service.datasets.datetimes import ISO_LOCAL, whole_days
from trainer_service.datasets.limits import IngestLimits

Mask = npt.NDArray[np.bool_]

_LENIENT_WHOLE = r"^-?[0-9]{1,19}$"
_LENIENT_NUMBER = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
_PLAIN_NUMBER = r"^[+-]?(?:[0-9]{1,38}(?:\.[0-9]*)?|\.[0-9]+)$"


class ImpossibleError(Exception):
    """Columns of the source type cannot be converted to the target type, whatever their values."""


def convert(array: pa.Array, target: Target, limits: IngestLimits) -> tuple[pa.Array, Mask]:
    """Convert a column to its target type, and return the rows that could not be converted.

    Args:
        array: Text, or values of one of the types of `normalised`.
        target: The target type.
        limits: Limits of the length of a text.

    Returns:
        An array of ``target.arrow_type``, missing where the input is missing or could not be converted; and the mask of
        the latter rows, shape (n,).

    Raises:
        ImpossibleError: The types are incompatible.
    """
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), target.arrow_type), np.zeros(len(array), dtype=np.bool_)
    is_text = pa.types.is_string(array.type)
    converted = _from_text(array, target) if is_text else _from_typed(array, target)
    bad = mask(pc.and_(array.is_valid(), pc.is_null(converted)))
    if target.data_type is DataType.DOUBLE:
        # NaN is a missing cell; infinity is invalid.
        not_a_number = mask(pc.is_nan(converted).fill_null(False))
        infinite = mask(pc.is_inf(converted).fill_null(False))
        if is_text:
            bad &= ~mask(pc.is_in(_trimmed(array, target), value_set=pa.array(NOT_A_NUMBER)))
        drop = not_a_number | infinite
        if drop.any():
            converted = pc.if_else(pa.array(drop), pa.scalar(None, pa.float64()), converted)
        bad |= infinite
    elif target.data_type is DataType.STRING and len(converted):
        long = mask(pc.greater(pc.binary_length(converted), limits.text_bytes).fill_null(False))
        if long.any():
            converted = pc.if_else(pa.array(long), pa.scalar(None, pa.string()), converted)
        bad |= long
    return converted, bad


def mask(array: pa.Array) -> Mask:
    """Return a boolean array without missing values as a NumPy array."""
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=np.bool_)


def reason(target: Target, limits: IngestLimits) -> str:
    """Return why a value could not be converted to the target type."""
    match target.data_type:
        case DataType.BOOL:
            return "is neither true nor false"
        case DataType.INT64:
            return "is not a 64-bit integer"
        case DataType.DOUBLE:
            return "is not a finite number"
        case DataType.DECIMAL:
            return f"is not a decimal number of at most 38 digits, {target.decimals} of them after the point"
        case DataType.STRING:
            return limits.text_reason
        case DataType.DATE | DataType.TIMESTAMP:
            form = target.form.format if target.form is not None else ""
            what = "a day" if target.data_type is DataType.DATE else "an instant"
            return f"is not {what} of the form {form or 'YYYY-MM-DD[THH:MM:SS]'}"


def _trimmed(array: pa.Array, target: Target) -> pa.Array:
    return pc.utf8_trim_whitespace(array) if target.trim else array


def _where(condition: pa.Array, array: pa.Array) -> pa.Array:
    return pc.if_else(condition, array, pa.scalar(None, array.type))


def _from_text(array: pa.Array, target: Target) -> pa.Array:
    if target.data_type is DataType.STRING:
        return array
    texts = _trimmed(array, target)
    match target.data_type:
        case DataType.BOOL:
            yes = pc.is_in(texts, value_set=pa.array([*TRUE, "1"]))
            no = pc.is_in(texts, value_set=pa.array([*FALSE, "0"]))
            return _where(pc.or_(yes, no), yes)
        case DataType.INT64:
            return _cast_text(texts, pa.int64(), _LENIENT_WHOLE)
        case DataType.DOUBLE:
            words = pc.is_in(texts, value_set=pa.array([*NOT_A_NUMBER, *INFINITY]))
            return _cast_text(texts, pa.float64(), _LENIENT_NUMBER, also=words)
        case DataType.DECIMAL:
            # Arrow accepts exponents, whose digits after the point have not been counted.
            plain = _where(pc.match_substring_regex(texts, _PLAIN_NUMBER), texts)
            return _cast_text(plain, target.arrow_type, _PLAIN_NUMBER)
        case _:
            form = ISO_LOCAL if target.form is None else target.form
            micros, ok = form.parse(texts)
            return _instants(micros, ok, target)


def _cast_text(texts: pa.Array, arrow_type: pa.DataType, pattern: str, also: pa.Array | None = None) -> pa.Array:
    try:
        return texts.cast(arrow_type)
    except pa.ArrowInvalid:
        pass
    bare = pc.replace_substring_regex(texts, r"^\+", "")
    fits = pc.match_substring_regex(bare, pattern)
    bare = _where(fits if also is None else pc.or_(fits, also), bare)
    try:
        return bare.cast(arrow_type)
    except pa.ArrowInvalid:
        # Some values are out of range; testing one by one finds which.
        return pa.array([_cast_one(text, arrow_type) for text in bare.to_pylist()], arrow_type)


def _cast_one(text: str | None, arrow_type: pa.DataType) -> Any:
    if text is None:
        return None
    try:
        return pa.scalar(text, pa.string()).cast(arrow_type).as_py()
    except pa.ArrowInvalid:
        return None


def _instants(micros: npt.NDArray[np.int64], ok: Mask, target: Target) -> pa.Array:
    if target.data_type is DataType.DATE:
        days, midnight = whole_days(micros)
        return pa.array(days, pa.int32(), mask=~(ok & midnight)).cast(pa.date32())
    return pa.array(micros, pa.int64(), mask=~ok).cast(target.arrow_type)


def _from_typed(array: pa.Array, target: Target) -> pa.Array:
    source, arrow_type = array.type, target.arrow_type
    if source == arrow_type:
        return array
    if target.data_type is DataType.STRING:
        return to_text(array)
    number = pa.types.is_int64(source) or pa.types.is_float64(source) or pa.types.is_decimal128(source)
    match target.data_type:
        case DataType.INT64 | DataType.DOUBLE | DataType.DECIMAL if number:
            return _number(array, arrow_type)
        case DataType.BOOL if pa.types.is_int64(source):
            return _where(pc.is_in(array, value_set=pa.array([0, 1], pa.int64())), pc.equal(array, 1))
        case DataType.TIMESTAMP if pa.types.is_date32(source) or pa.types.is_timestamp(source):
            return array.cast(pa.timestamp("us", arrow_type.tz) if arrow_type.tz else pa.timestamp("us"))
        case DataType.DATE if pa.types.is_timestamp(source):
            micros = array.cast(pa.int64())
            return _instants(micros.fill_null(0).to_numpy(), mask(micros.is_valid()), target)
        case _:
            raise ImpossibleError(f"{source} values cannot be read as {target.data_type}")


def _number(array: pa.Array, arrow_type: pa.DataType) -> pa.Array:
    try:
        return array.cast(arrow_type)
    except pa.ArrowInvalid:
        return pa.array([_number_one(value, arrow_type) for value in array.to_pylist()], arrow_type)


def _number_one(value: Any, arrow_type: pa.DataType) -> Any:
    if value is None:
        return None
    try:
        if pa.types.is_decimal128(arrow_type):
            return pa.scalar(Decimal(repr(value) if isinstance(value, float) else value), arrow_type).as_py()
        return pa.scalar(value).cast(arrow_type).as_py()
    except (pa.ArrowInvalid, InvalidOperation):
        return None


def to_text(array: pa.Array) -> pa.Array:
    """Return values as text: numbers in their shortest exact form, booleans ``true``/``false``, instants ISO 8601."""
    if pa.types.is_float64(array.type):
        # Arrow formats 1.0 as "1"; the text must not depend on the batch boundaries.
        return pa.array([None if value is None else repr(value) for value in array.to_pylist()], pa.string())
    return array.cast(pa.string())
