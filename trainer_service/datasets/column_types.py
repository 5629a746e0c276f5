"""Type inference: the type of a column is the narrowest that represents all of its values.

The type of text is found by elimination: all types are possible at first, each batch eliminates those that do not fit
one of its values, and the rest decides; so every row counts equally. The rules:

- ``true``/``false`` (also ``True``, ``TRUE``) are booleans; 0 and 1 are integers.
- Integers fit int64. A column with leading zeros ("00123") is text, and so is one with an integer beyond int64, which
  would lose digits as a double.
- Numbers with a fraction or an exponent are doubles; integers among them may be up to 2**53, beyond that the column is
  text. ``NaN`` among numbers is a missing cell.
- Days and instants are recognised in ISO 8601 and as %Y/%m/%d, %m/%d/%Y and %d/%m/%Y; the last two only if some value
  excludes the other. Days among local instants are midnights; a column in which only some values have offsets is text.
- Spaces around such values are ignored. Everything else is text, unchanged. A column without values is text.
"""

from dataclasses import dataclass
from enum import Enum

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rowmint.errors import InvalidFieldError
from rowmint.schema import KINDS_OF_TYPE, ColumnKind, ColumnSpec, DataType
from trainer_service.datasets.datetimes import (
    DAY_FIRST,
    ISO_DATE,
    ISO_LOCAL,
    ISO_OFFSET,
    MONTH_FIRST,
    RECOGNISED,
    DatetimeForm,
)

WHOLE = r"^-?(?:0|[1-9][0-9]*)$"
NUMBER = r"^[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
TRUE = ("true", "True", "TRUE")
FALSE = ("false", "False", "FALSE")
NOT_A_NUMBER = ("NaN", "nan", "NAN")
INFINITY = tuple(f"{sign}{word}" for sign in ("", "+", "-") for word in ("inf", "Inf", "INF", "Infinity", "infinity"))

EXACT_DOUBLE = 2**53
MAX_DECIMALS = 15
MAX_SCALE = 38


class Inference(Enum):
    """Types that are inferred from text."""

    ALL = "all"
    """All types: the format is untyped (CSV)."""
    DATETIMES = "datetimes"
    """Days and instants, for which the format has no type (JSON)."""
    NONE = "none"
    """None: the format is typed (Parquet, Arrow)."""


@dataclass(frozen=True)
class Target:
    """Target type of the conversion of a column.

    Attributes:
        data_type: The data type.
        form: Format of days and instants given as text.
        utc: Whether a TIMESTAMP contains instants in UTC instead of local times.
        decimals: Of a DOUBLE: digits after the point in the text, None if their number is not bounded; of a DECIMAL:
            its scale.
        trim: Whether spaces around the text are removed.
        typed: Whether the input is numbers instead of text; the decimals of a DOUBLE are then found from the values.
    """

    data_type: DataType
    form: DatetimeForm | None = None
    utc: bool = False
    decimals: int | None = None
    trim: bool = False
    typed: bool = False

    @property
    def arrow_type(self) -> pa.DataType:
        """The Arrow type of the converted column."""
        return canonical_type(self.data_type, self.decimals, utc=self.utc)


def canonical_type(data_type: DataType, decimals: int | None, *, utc: bool) -> pa.DataType:
    """Return the Arrow type of a column of the canonical table.

    Args:
        data_type: Its data type.
        decimals: Digits after the point of a DECIMAL; None for 0.
        utc: Whether a TIMESTAMP is an instant, not a local time.
    """
    match data_type:
        case DataType.BOOL:
            return pa.bool_()
        case DataType.INT64:
            return pa.int64()
        case DataType.DOUBLE:
            return pa.float64()
        case DataType.DECIMAL:
            return pa.decimal128(MAX_SCALE, 0 if decimals is None else decimals)
        case DataType.STRING:
            return pa.string()
        case DataType.DATE:
            return pa.date32()
        case DataType.TIMESTAMP:
            return pa.timestamp("us", "UTC" if utc else None)


class TypeInference:
    """Infers the type of a column from its batches.

    Args:
        name: Name of the column.
        inference: Types that are inferred from text.
        declared: The declared column, or None.

    Raises:
        InvalidFieldError: The declared datetime format is invalid.
    """

    def __init__(self, name: str, inference: Inference, declared: ColumnSpec | None) -> None:
        self.name = name
        self._declared = declared
        self._seen: set[DataType] = set()
        self._seen_utc = False
        self._text_seen = False
        self._trim = False
        self._numbers_seen = False
        self._largest_whole = 0.0
        self._decimals: int | None = 0
        self._scale = 0
        scalars = inference is Inference.ALL
        self._bool, self._int, self._double = scalars, scalars, scalars
        forms: tuple[DatetimeForm, ...] = () if inference is Inference.NONE else RECOGNISED
        if declared is not None:
            temporal = declared.data_type in (DataType.DATE, DataType.TIMESTAMP)
            if temporal or declared.kind is ColumnKind.DATETIME:
                forms = RECOGNISED
            if declared.datetime_format:
                forms = (DatetimeForm.of_format(declared.datetime_format, name),)
        self._forms = forms
        self._first_forms = forms

    def add(self, array: pa.Array) -> None:
        """Add a batch: text, or values of one of the types of `normalised`."""
        if array.null_count == len(array):
            return
        if not pa.types.is_string(array.type):
            self._add_typed(array)
            return
        self._text_seen = True
        if not (self._bool or self._int or self._double or self._forms or self._needs_scale()):
            return
        values = array.unique().drop_null()
        if self._trim:
            values = pc.utf8_trim_whitespace(values)
        if self._needs_scale():
            self._learn_scale(values)
        before = (self._bool, self._int, self._double, self._forms)
        self._eliminate(values)
        if not (self._bool or self._int or self._double or self._forms) and not self._trim:
            trimmed = pc.utf8_trim_whitespace(values)
            if not trimmed.equals(values):
                self._trim = True
                self._bool, self._int, self._double, self._forms = before
                self._eliminate(trimmed)

    def _add_typed(self, array: pa.Array) -> None:
        kind = _type_of(array.type)
        self._seen.add(kind)
        if kind is DataType.TIMESTAMP:
            self._seen_utc = array.type.tz is not None
        elif kind is DataType.DECIMAL:
            self._scale = max(self._scale, array.type.scale)
        elif kind is DataType.INT64:
            extremes = pc.min_max(array).as_py()
            largest = max(abs(extremes["min"]), abs(extremes["max"]))
            self._largest_whole = max(self._largest_whole, float(largest))

    def _needs_scale(self) -> bool:
        return self._declared is not None and self._declared.data_type is DataType.DECIMAL

    def _learn_scale(self, values: pa.Array) -> None:
        point = pc.find_substring(values, ".")
        digits = pc.if_else(pc.equal(point, -1), 0, pc.subtract(pc.subtract(pc.utf8_length(values), point), 1))
        self._scale = max(self._scale, int(pc.max(digits).as_py()))

    def _eliminate(self, values: pa.Array) -> None:
        self._bool = self._bool and _all(pc.is_in(values, value_set=pa.array([*TRUE, *FALSE])))
        # Integers are doubles, too, so doubles are tested only after a value that is not an integer.
        if self._int and not self._all_whole(values):
            self._int = False
        if self._double and not self._int:
            self._double = self._all_numbers(values)
        self._forms = tuple(form for form in self._forms if form.parse(values)[1].all())

    def _all_whole(self, values: pa.Array) -> bool:
        try:
            numbers = values.cast(pa.int64())
        except pa.ArrowInvalid:
            return False
        # The round trip detects leading zeros.
        if not numbers.cast(pa.string()).equals(values):
            return False
        extremes = pc.min_max(numbers).as_py()
        self._largest_whole = max(self._largest_whole, abs(float(extremes["min"])), abs(float(extremes["max"])))
        self._numbers_seen = True
        return True

    def _all_numbers(self, values: pa.Array) -> bool:
        is_number = pc.match_substring_regex(values, NUMBER)
        others = values.filter(pc.invert(is_number))
        if len(others) and not _all(pc.is_in(others, value_set=pa.array([*NOT_A_NUMBER, *INFINITY]))):
            return False
        numbers = values.filter(is_number)
        if not len(numbers):
            return True
        self._numbers_seen = True
        long = numbers.filter(pc.greater(pc.utf8_length(numbers), 15))
        long = long.filter(pc.match_substring_regex(long, r"^[+-]?[0-9]+$"))
        if len(long):
            largest = np.abs(long.cast(pa.float64()).to_numpy()).max()
            self._largest_whole = max(self._largest_whole, float(largest))
        if self._decimals is not None:
            if pc.any(pc.match_substring_regex(numbers, "[eE]")).as_py():
                self._decimals = None
            else:
                point = pc.find_substring(numbers, ".")
                length = pc.subtract(pc.subtract(pc.utf8_length(numbers), point), 1)
                digits = int(pc.max(pc.if_else(pc.equal(point, -1), 0, length)).as_py())
                self._decimals = None if digits > MAX_DECIMALS else max(digits, self._decimals)
        return True

    def target(self, *, is_key: bool = False) -> Target:
        """Return the target type of the column; declarations take precedence.

        Args:
            is_key: Whether it is the declared primary key, which is an integer or text.

        Raises:
            InvalidFieldError: The declaration does not fit the values; the message names the column.
        """
        natural = self._natural()
        declared = self._declared
        if declared is not None and declared.data_type is not None:
            chosen = self._as(declared.data_type, natural)
        elif declared is not None and declared.kind is not None:
            chosen = self._of_kind(declared.kind, natural)
        else:
            chosen = natural
        if declared is not None and declared.kind is not None:
            self._require_kind(declared.kind, chosen)
        if is_key and ColumnKind.ID not in KINDS_OF_TYPE[chosen.data_type]:
            if declared is not None and declared.data_type is not None:
                self._require_kind(ColumnKind.ID, chosen)
            chosen = Target(DataType.STRING)
        return chosen

    def _require_kind(self, kind: ColumnKind, chosen: Target) -> None:
        if kind not in KINDS_OF_TYPE[chosen.data_type]:
            raise InvalidFieldError(
                "dataset.column_overrides",
                f"column {self.name!r} has {chosen.data_type} values, which cannot be {kind}",
            )

    def _of_kind(self, kind: ColumnKind, natural: Target) -> Target:
        """Return the type for a declared kind; values that do not fit are reported by the conversion."""
        if kind in KINDS_OF_TYPE[natural.data_type] and (self._text_seen or self._seen):
            return natural
        requested = {
            ColumnKind.NUMERICAL: DataType.DOUBLE,
            ColumnKind.DATETIME: DataType.TIMESTAMP,
            ColumnKind.BOOLEAN: DataType.BOOL,
            ColumnKind.ID: DataType.STRING,
        }.get(kind, natural.data_type)
        return self._as(requested, natural)

    def _as(self, requested: DataType, natural: Target) -> Target:
        if requested is DataType.DECIMAL:
            declared = self._declared.domain.decimals if self._declared is not None else None
            return Target(requested, decimals=min(self._scale, MAX_SCALE) if declared is None else declared, trim=True)
        if requested is natural.data_type:
            return natural
        if requested in (DataType.DATE, DataType.TIMESTAMP):
            form = natural.form
            if form is None:
                # No form fits all values: the conversion to the requested one reports the rows that do not fit.
                form = next(iter(self._first_forms), ISO_LOCAL)
                if form is ISO_DATE and requested is DataType.TIMESTAMP:
                    form = ISO_LOCAL
            utc = form.has_offset if self._text_seen else natural.utc
            return Target(requested, form, utc=utc and requested is DataType.TIMESTAMP, trim=True)
        decimals = self._decimals if requested is DataType.DOUBLE and self._numbers_seen and self._double else None
        trim = requested is not DataType.STRING
        return Target(requested, decimals=decimals, trim=trim, typed=not self._text_seen)

    def _natural(self) -> Target:
        if self._seen:
            return self._natural_typed()
        if not self._text_seen:
            return Target(DataType.STRING)
        if self._bool:
            return Target(DataType.BOOL, trim=self._trim)
        if self._int and self._numbers_seen:
            return Target(DataType.INT64, trim=self._trim)
        if self._double and self._numbers_seen and self._largest_whole <= EXACT_DOUBLE:
            return Target(DataType.DOUBLE, decimals=self._decimals, trim=self._trim)
        forms = self._forms
        if MONTH_FIRST in forms and DAY_FIRST in forms:
            forms = ()
        if forms:
            form = forms[0]
            data_type = DataType.TIMESTAMP if form.has_time else DataType.DATE
            return Target(data_type, form, utc=form.has_offset, trim=self._trim)
        return Target(DataType.STRING)

    def _natural_typed(self) -> Target:
        if not self._text_seen:
            if len(self._seen) == 1:
                (only,) = self._seen
                if only is DataType.DECIMAL:
                    return Target(only, decimals=self._scale)
                return Target(only, utc=self._seen_utc, typed=True)
            numbers = {DataType.INT64, DataType.DOUBLE}
            if self._seen == numbers and self._largest_whole <= EXACT_DOUBLE:
                return Target(DataType.DOUBLE, typed=True)
        return Target(DataType.STRING)


def _type_of(arrow_type: pa.DataType) -> DataType:
    if pa.types.is_boolean(arrow_type):
        return DataType.BOOL
    if pa.types.is_int64(arrow_type):
        return DataType.INT64
    if pa.types.is_float64(arrow_type):
        return DataType.DOUBLE
    if pa.types.is_decimal128(arrow_type):
        return DataType.DECIMAL
    if pa.types.is_date32(arrow_type):
        return DataType.DATE
    return DataType.TIMESTAMP


def _all(mask: pa.Array) -> bool:
    return bool(pc.all(mask).as_py())


__all__ = ["ISO_OFFSET", "Inference", "Target", "TypeInference"]
