"""Conversion of columns to their target types."""

from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rowmint.schema import DataType
from rowmint.schema.forms import BooleanForm, DatetimeForm, NumberForm, ZoneStyle
from rowmint.schema.forms.moment_layouts import MomentLayout, moment_layouts, pattern_layout
from rowmint.schema.forms.number_layouts import MAX_SHAPE, NumberLayout, Separators, number_layouts
from trainer_service.datasets.datetimes import Moments, whole_days
from trainer_service.datasets.inference.booleans import words_of
from trainer_service.datasets.inference.numbers import INFINITY, NOT_A_NUMBER, plain
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.shapes import ShapeGroup, groups
from trainer_service.datasets.table_options import InfinitePolicy
from trainer_service.datasets.target import Target

Mask = npt.NDArray[np.bool_]


class ImpossibleError(Exception):
    """Columns of the source type cannot be converted to the target type, whatever their values."""


@dataclass(frozen=True)
class InfinityRule:
    """What becomes of infinite numbers in a column.

    Attributes:
        policy: What is done with them.
        minimum: What minus infinity is clipped to; None if it is refused.
        maximum: What infinity is clipped to; None if it is refused.
    """

    policy: InfinitePolicy = InfinitePolicy.REFUSE
    minimum: float | None = None
    maximum: float | None = None


class Converted(NamedTuple):
    """A converted column.

    Attributes:
        array: Values of the target's type, missing where the input is missing or could not be converted.
        bad: Mask of the rows that could not be converted, shape (n,).
        infinite: Number of infinite values that were clipped or became missing.
        refused: Mask of the rows with infinite values that are refused, shape (n,), apart from `bad`; None if there are
            none.
    """

    array: pa.Array
    bad: Mask
    infinite: int = 0
    refused: Mask | None = None


def convert(array: pa.Array, target: Target, limits: IngestLimits, infinity: InfinityRule) -> Converted:
    """Convert a column to its target type.

    Args:
        array: Text, or values of one of the types of `normalised`.
        target: The target type.
        limits: Limits of the length of a text.
        infinity: What becomes of infinite numbers.

    Raises:
        ImpossibleError: The types are incompatible.
    """
    if pa.types.is_null(array.type):
        return Converted(pa.nulls(len(array), target.arrow_type), np.zeros(len(array), dtype=np.bool_))
    is_text = pa.types.is_string(array.type)
    if is_text and target.data_type is not DataType.STRING:
        array = pc.utf8_trim_whitespace(array)
        array = _where(pc.greater(pc.binary_length(array), 0), array)
    converted = _from_text(array, target) if is_text else _from_typed(array, target)
    bad = mask(pc.and_(array.is_valid(), pc.is_null(converted)))
    if target.data_type is DataType.DOUBLE:
        return _finite(converted, bad, infinity)
    if target.data_type is DataType.STRING and len(converted):
        long = mask(pc.greater(pc.binary_length(converted), limits.text_bytes).fill_null(False))
        if long.any():
            converted = pc.if_else(pa.array(long), pa.scalar(None, pa.string()), converted)
        bad |= long
    return Converted(converted, bad)


def _finite(array: pa.Array, bad: Mask, infinity: InfinityRule) -> Converted:
    """Return doubles without NaN, which is a missing cell, and without infinity."""
    values = array.fill_null(0.0).to_numpy()
    if np.isfinite(values).all():
        return Converted(array, bad)
    infinite = np.isinf(values)
    refused = np.zeros(len(values), np.bool_)
    drop, count = ~np.isfinite(values), 0
    match infinity.policy:
        case InfinitePolicy.MISSING:
            count = int(infinite.sum())
        case InfinitePolicy.CLIP:
            for bound, sign in ((infinity.minimum, -np.inf), (infinity.maximum, np.inf)):
                clipped = values == sign
                if bound is None:
                    refused |= clipped
                else:
                    values = np.where(clipped, bound, values)
                    drop, count = drop & ~clipped, count + int(clipped.sum())
        case InfinitePolicy.REFUSE:
            refused = infinite
    missing = drop | ~mask(array.is_valid())
    return Converted(pa.array(values, pa.float64(), mask=missing), bad, count, refused)


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
            form = target.form.form
            pattern = target.datetime_format or (form.pattern if isinstance(form, DatetimeForm) else "")
            what = "a day" if target.data_type is DataType.DATE else "an instant"
            if pattern or target.template != "Y-m-d":
                return f"is not {what} of the form {pattern}"
            return (
                f"is not {what} of the form YYYY-MM-DD[THH:MM:SS]; declare another form, such as %d/%m/%Y, or write"
                " numbers of days, which spreadsheets have, as dates"
            )


def _where(condition: pa.Array, array: pa.Array) -> pa.Array:
    return pc.if_else(condition, array, pa.scalar(None, array.type))


def _from_text(texts: pa.Array, target: Target) -> pa.Array:
    if target.data_type is DataType.STRING:
        return texts
    form = target.form.form
    if target.data_type is DataType.BOOL:
        yes_words, no_words = words_of(form if isinstance(form, BooleanForm) else None)
        yes, no = (pc.is_in(texts, value_set=pa.array(words)) for words in (yes_words, no_words))
        return _where(pc.or_(yes, no), yes)
    if isinstance(form, DatetimeForm) or target.data_type in (DataType.DATE, DataType.TIMESTAMP):
        micros, ok = read_moments(texts, target)
        return _instants(micros, ok, target)
    if target.data_type is DataType.INT64 and form is None:
        try:
            return texts.cast(pa.int64())
        except pa.ArrowInvalid:
            pass  # Some value is out of range, or spelled otherwise.
    elif target.data_type is DataType.DOUBLE and (form is None or _is_plain(form)):
        try:
            return texts.cast(pa.float64())
        except pa.ArrowInvalid:
            pass
    return read_numbers(texts, target)


def _is_plain(form: NumberForm | DatetimeForm | BooleanForm) -> bool:
    """Return whether numbers of a form can be read without it."""
    return isinstance(form, NumberForm) and form.decimal_separator == "." and not form.prefix and not form.suffix


def read_numbers(texts: pa.Array, target: Target) -> pa.Array:
    """Return the numbers that texts are in the form of a target, missing where they are none.

    Args:
        texts: Strings without spaces around, shape (n,); may be missing.
        target: A target of numbers.
    """
    separators = Separators(target.decimal, target.group)
    places = np.flatnonzero(mask(texts.is_valid()))
    present = texts.drop_null()
    parts: list[pa.Array] = []
    order: list[npt.NDArray[np.intp]] = []
    for group in groups(present, MAX_SHAPE):
        layouts = [
            layout
            for layout in number_layouts(group.shape)
            if separators in layout.separators and _has_affixes(layout, target)
        ]
        if layouts:
            parts.append(_cast(group, layouts[0], target))
            order.append(places[group.places])
        elif target.data_type is DataType.DOUBLE and group.shape in (*NOT_A_NUMBER, *INFINITY):
            parts.append(pa.array([float(group.shape)] * len(group), pa.float64()))
            order.append(places[group.places])
    index = np.full(len(texts), -1, np.int64)
    if order:
        index[np.concatenate(order)] = np.arange(sum(map(len, order)))
    found = pa.concat_arrays(parts) if parts else pa.nulls(0, target.arrow_type)
    return found.take(pa.array(index, mask=index < 0))


def _has_affixes(layout: NumberLayout, target: Target) -> bool:
    """Return whether what surrounds a number is what its column has there, or nothing."""
    form = target.form.form if isinstance(target.form.form, NumberForm) else NumberForm()
    return layout.prefix.strip() in ("", form.prefix.strip()) and layout.suffix.strip() in ("", form.suffix.strip())


def _cast(group: ShapeGroup, layout: NumberLayout, target: Target) -> pa.Array:
    arrow_type = target.arrow_type
    if target.data_type is DataType.DOUBLE:
        return group.spelled(plain(layout, group.shape)).cast(pa.float64())
    scale = target.decimals or 0
    kept, dropped = layout.fraction[:scale], layout.fraction[scale:]
    digits = group.spelled(plain(replace(layout, fraction=kept), group.shape))
    if layout.exponent:
        return pa.nulls(len(group), arrow_type)  # Its digits after the point have not been counted.
    found = _cast_texts(digits, arrow_type)
    return _where(pa.array(group.zeros(dropped)), found) if dropped else found


def _cast_texts(texts: pa.Array, arrow_type: pa.DataType) -> pa.Array:
    try:
        return texts.cast(arrow_type)
    except pa.ArrowInvalid:
        # Some values are out of range; testing one by one finds which.
        return pa.array([_cast_one(text, arrow_type) for text in texts.to_pylist()], arrow_type)


def _cast_one(text: str, arrow_type: pa.DataType) -> Any:
    try:
        return pa.scalar(text, pa.string()).cast(arrow_type).as_py()
    except pa.ArrowInvalid:
        return None


def read_moments(texts: pa.Array, target: Target) -> tuple[npt.NDArray[np.int64], Mask]:
    """Return the moments that texts are, as `Moments.micros` has them, and which are any, both shape (n,).

    Args:
        texts: Strings without spaces around, shape (n,); may be missing.
        target: A target of days, moments or times of day.
    """
    places = np.flatnonzero(mask(texts.is_valid()))
    micros, ok = np.zeros(len(texts), np.int64), np.zeros(len(texts), np.bool_)
    for group in groups(texts.drop_null(), MAX_SHAPE):
        layout = _moment_layout(group.shape, target)
        if layout is not None:
            rows = places[group.places]
            micros[rows], ok[rows] = Moments(group, layout).micros(day_first=target.day_first)
    return micros, ok


def _moment_layout(shape: str, target: Target) -> MomentLayout | None:
    if target.pattern:
        return pattern_layout(target.pattern, shape)
    for layout in moment_layouts(shape):
        if layout.date == target.template and (layout.zone is not ZoneStyle.NONE) == target.utc:
            return layout
    return None


def _instants(micros: npt.NDArray[np.int64], ok: Mask, target: Target) -> pa.Array:
    if target.data_type is DataType.INT64:
        return pa.array(micros, pa.int64(), mask=~ok)
    if target.data_type is DataType.DATE:
        days, midnight = whole_days(micros)
        return pa.array(days, pa.int32(), mask=~(ok & midnight)).cast(pa.date32())
    return pa.array(micros, pa.int64(), mask=~ok).cast(target.arrow_type)


def _from_typed(array: pa.Array, target: Target) -> pa.Array:
    source, arrow_type = array.type, target.arrow_type
    if target.pattern and pa.types.is_int64(source):
        return _from_text(array.cast(pa.string()), target)
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
