"""Writers of whole columns in their written form: what `rowmint.schema.forms.cells.written` gives, many at a time.

Numbers are split in integer arithmetic, moments into calendar fields, each of which has few values: a text is made of
looked-up pieces. What such arithmetic cannot hold exactly is written one by one.
"""

import itertools
import math
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rowmint.schema import ColumnSpec, DataType
from rowmint.schema.arrays import fraction_digits
from rowmint.schema.forms import (
    BooleanForm,
    DatetimeForm,
    ExponentStyle,
    Grouping,
    NumberForm,
)
from rowmint.schema.forms.moments import (
    DAY,
    SECOND,
    CalendarFields,
    PatternPart,
    fields_of,
    parse_pattern,
    parts_text,
)
from rowmint.schema.forms.numbers import fixed_text, grouped, number_text, signed_text

Writer = Callable[[NDArray[np.generic]], list[str]]
"""From native values, shape (n,), to their texts."""

_MAX_TABLE_DIGITS = 3
_MAX_UNIT_DIGITS = 18
_THOUSAND = np.uint64(1000)
_LAST_THREE = [f"{number:03d}" for number in range(1000)]
_EXACT = 2**53
_EXPONENT_BELOW = 1e-4  # smaller numbers print with an exponent


def form_texts(column: ColumnSpec) -> Writer | None:
    """Return what writes a column's native values, ids aside, in its form; None where it has no text of its own."""
    match column.written_form.form:
        case NumberForm() as form if column.data_type is DataType.DOUBLE:
            return _Doubles(form, column.domain.decimals)
        case NumberForm() as form:
            digits = fraction_digits(column) if column.data_type is DataType.DECIMAL else 0
            return _Units(form, digits, form.minimum_fraction_digits or 0)
        case DatetimeForm(pattern=pattern) as form if pattern:
            return _Moments(form, DAY if column.data_type is DataType.DATE else 1)
        case BooleanForm(true_text, false_text):
            return lambda values: [true_text if value else false_text for value in values.tolist()]
        case _:
            return None


class _Units:
    """Writes integers that count units of the last of some fraction digits.

    Args:
        form: The form.
        digits: Fraction digits of a unit.
        fewest: Fraction digits written at least.
    """

    def __init__(self, form: NumberForm, digits: int, fewest: int) -> None:
        self._form = form
        self._digits = digits
        self._fewest = fewest
        self._around = [_around(form, sign) for sign in (0, 1, -1)]
        self._fractions: list[str] = []
        if digits <= _MAX_TABLE_DIGITS:
            self._fractions = [self._fraction(rest) for rest in range(10**digits)]

    def __call__(self, values: NDArray[np.generic]) -> list[str]:
        """Return the texts of some units, int64."""
        units = values.astype(np.int64)
        if self._form.exponent is ExponentStyle.ALWAYS or self._digits > _MAX_UNIT_DIGITS:
            return [self._alone(unit) for unit in units.tolist()]
        # The magnitude of the least int64 is no int64.
        magnitudes = np.where(units < 0, ~units, units).view(np.uint64) + (units < 0)
        wholes, rests = np.divmod(magnitudes, np.uint64(10**self._digits))
        if self._fractions:
            fractions = [self._fractions[rest] for rest in rests.tolist()]
        else:
            fractions = [self._fraction(rest) for rest in rests.tolist()]
        texts = self._wholes(wholes)
        if self._form.leading_point and self._form.minimum_integer_digits <= 1:
            bare = (wholes == 0).tolist()
            texts = [
                fraction if zero and fraction else whole + fraction
                for whole, fraction, zero in zip(texts, fractions, bare, strict=True)
            ]
            fractions = [""] * len(texts)
        signs = np.sign(units)
        if len({self._around[sign] for sign in set(signs.tolist())}) == 1:
            before, after = self._around[signs[0]]
            return [f"{before}{whole}{fraction}{after}" for whole, fraction in zip(texts, fractions, strict=True)]
        befores, afters = zip(*self._around, strict=True)
        return [
            f"{befores[sign]}{whole}{fraction}{afters[sign]}"
            for whole, fraction, sign in zip(texts, fractions, signs.tolist(), strict=True)
        ]

    def _wholes(self, wholes: NDArray[np.uint64]) -> list[str]:
        form = self._form
        if form.minimum_integer_digits > 1 or form.grouping in (Grouping.INDIAN, Grouping.MYRIAD):
            return [grouped(str(whole).zfill(form.minimum_integer_digits), form) for whole in wholes.tolist()]
        if form.grouping is Grouping.NONE or not wholes.size or wholes.max() < _THOUSAND:
            return list(map(str, wholes.tolist()))
        heads, lasts = np.divmod(wholes, _THOUSAND)
        return [
            f"{text}{form.group_separator}{_LAST_THREE[last]}" if head else str(last)
            for text, head, last in zip(self._wholes(heads), heads.tolist(), lasts.tolist(), strict=True)
        ]

    def _fraction(self, rest: int) -> str:
        digits = f"{rest:0{self._digits}d}" if self._digits else ""
        text = digits.rstrip("0").ljust(self._fewest, "0")
        return f"{self._form.decimal_separator}{text}" if text else ""

    def _alone(self, unit: int) -> str:
        return number_text(Decimal(unit).scaleb(-self._digits), self._form)


def _around(form: NumberForm, sign: int) -> tuple[str, str]:
    """Return what stands before and after the digits of a number of this sign; a list of 0, 1, -1 is indexed by it."""
    before, after = signed_text("0", sign, form).split("0")
    return before, after


class _Doubles:
    """Writes float64 numbers.

    Args:
        form: The form.
        decimals: Fraction digits that they are rounded to; None where they are not.
    """

    def __init__(self, form: NumberForm, decimals: int | None) -> None:
        self._form = form
        self._fewest = 1 if form.minimum_fraction_digits is None else form.minimum_fraction_digits
        self._decimals = decimals
        self._units = _Units(form, decimals or 0, self._fewest)
        self._around = [_around(form, sign) for sign in (0, 1, -1)]
        ungrouped = form.grouping is Grouping.NONE and form.minimum_integer_digits <= 1
        self._as_printed = ungrouped and form.decimal_separator == "." and not form.leading_point and self._fewest == 1

    def __call__(self, values: NDArray[np.generic]) -> list[str]:
        """Return the texts of some numbers, float64."""
        numbers = values.astype(np.float64)
        if self._decimals is None or self._form.exponent is ExponentStyle.ALWAYS:
            return self._unrounded(numbers)
        one = float(10**self._decimals)
        with np.errstate(over="ignore"):
            units = np.rint(numbers * one)
            exact = (np.abs(units) < _EXACT) & (units / one == numbers)
        if self._form.exponent is ExponentStyle.SHORTEST and self._decimals > 4:
            exact &= (np.abs(numbers) >= _EXPONENT_BELOW) | (numbers == 0)
        texts = self._units(np.where(exact, units, 0.0))
        others = np.flatnonzero(~exact)
        for position, text in zip(others.tolist(), self._unrounded(numbers[others]), strict=True):
            texts[position] = text
        return texts

    def _unrounded(self, numbers: NDArray[np.float64]) -> list[str]:
        always = self._form.exponent is ExponentStyle.ALWAYS
        texts = []
        for number in numbers.tolist():
            printed = repr(abs(number))
            if always or "e" in printed:
                texts.append(number_text(number, self._form))
                continue
            before, after = self._around[(number > 0) - (number < 0)]
            texts.append(f"{before}{printed if self._as_printed else self._body(printed)}{after}")
        return texts

    def _body(self, printed: str) -> str:
        whole, _, fraction = printed.partition(".")
        return fixed_text(whole, ("" if fraction == "0" else fraction).ljust(self._fewest, "0"), self._form)


_FIRST_FIELDS = CalendarFields(1970, 1, 1, 0, 0, 0, 0, 3, 1, 0)
_FIELD_OF_DIRECTIVE = {
    **dict.fromkeys("Yy", "year"),
    **dict.fromkeys("mbB", "month"),
    **dict.fromkeys("de", "day"),
    **dict.fromkeys("HIp", "hour"),
    "M": "minute",
    "S": "second",
    "f": "micro",
    **dict.fromkeys("aA", "weekday"),
    "j": "year_day",
    "s": "epoch",
}
_VALUES_OF_FIELD = {"month": 13, "day": 32, "hour": 24, "minute": 60, "second": 60, "weekday": 7, "year_day": 367}
_MAX_TABLE = 1_500
_MAX_YEARS = 400


class _Moments:
    """Writes days and moments.

    Args:
        form: The form; its pattern is not empty.
        unit: Microseconds of a native value: 1, or those of a day.
    """

    def __init__(self, form: DatetimeForm, unit: int) -> None:
        self._form = form
        self._unit = unit
        self._parts = parse_pattern(form.pattern)

    def __call__(self, values: NDArray[np.generic]) -> list[str]:
        """Return the texts of some days or moments, int64."""
        moments = values.astype(np.int64) * np.int64(self._unit)
        return self._texts(self._parts, _FieldArrays(moments, self._form.utc_offset_seconds))

    def _texts(self, parts: tuple[PatternPart, ...], fields: "_FieldArrays") -> list[str]:
        columns = [self._run_texts(run, fields) for run in _runs(parts)]
        return columns[0] if len(columns) == 1 else list(map("".join, zip(*columns, strict=True)))

    def _run_texts(self, run: tuple[PatternPart, ...], fields: "_FieldArrays") -> list[str]:
        """Return the texts of parts that `_runs` put together."""
        first = run[0]
        if first.optional:
            written = fields.not_zero(first.optional).tolist()
            inner = self._texts(first.optional, fields)
            return [text if there else "" for text, there in zip(inner, written, strict=True)]
        if first.directive == "f":
            return _fraction_texts(fields.of("micro"), first.digits)
        names = _field_names(run)
        if not names:
            return [parts_text(run, _FIRST_FIELDS, self._form)] * len(fields)
        if names[0] in ("year", "epoch"):
            values = fields.of(names[0])
            if len(values) and (least := int(values.min())) > (most := int(values.max())) - _MAX_YEARS:
                texts = [self._text(run, names[0], value) for value in range(least, most + 1)]
                return [texts[value] for value in (values - least).tolist()]
            distinct, index = np.unique(values, return_inverse=True)
            texts = [self._text(run, names[0], value) for value in distinct.tolist()]
            return [texts[position] for position in index.tolist()]
        keys = np.zeros(len(fields), np.int64)
        for name in names:
            keys = keys * _VALUES_OF_FIELD[name] + fields.of(name)
        table = _table(run, self._form)
        return [table[key] for key in keys.tolist()]

    def _text(self, run: tuple[PatternPart, ...], name: str, value: int) -> str:
        return parts_text(run, _FIRST_FIELDS._replace(**{name: value}), self._form)


def _field_names(run: tuple[PatternPart, ...]) -> list[str]:
    """Return the names of the fields of some parts, each once, in order."""
    found = [_FIELD_OF_DIRECTIVE[part.directive] for part in run if part.directive in _FIELD_OF_DIRECTIVE]
    return list(dict.fromkeys(found))


def _runs(parts: tuple[PatternPart, ...]) -> list[tuple[PatternPart, ...]]:
    """Put neighbours together whose texts are looked up in one table; a year goes with literals alone."""
    runs: list[list[PatternPart]] = []
    for part in parts:
        alone = bool(part.optional) or part.directive == "f"
        if runs and not alone and not (runs[-1][0].optional or runs[-1][0].directive == "f"):
            names = _field_names((*runs[-1], part))
            sizes = [_VALUES_OF_FIELD.get(name, _MAX_TABLE) for name in names]
            if math.prod(sizes) <= _MAX_TABLE:
                runs[-1].append(part)
                continue
        runs.append([part])
    return [tuple(run) for run in runs]


@lru_cache(maxsize=64)
def _table(run: tuple[PatternPart, ...], form: DatetimeForm) -> list[str]:
    """Return the texts of some parts for all values of their fields, the last field changing first."""
    names = _field_names(run)
    values = itertools.product(*(range(_VALUES_OF_FIELD[name]) for name in names))
    # No month is 0; its text is not looked up.
    return [parts_text(run, _FIRST_FIELDS._replace(**dict(zip(names, one, strict=True))), form) for one in values]


def _fraction_texts(micros: NDArray[np.int64], digits: int) -> list[str]:
    if digits == 0:
        return [f"{micro:06d}".rstrip("0") or "0" for micro in micros.tolist()]
    kept = min(digits, 6)
    zeros = "0" * (digits - kept)
    return [f"{micro:0{kept}d}{zeros}" for micro in (micros // 10 ** (6 - kept)).tolist()]


class _FieldArrays:
    """Calendar fields of moments, each computed when it is needed."""

    def __init__(self, moments: NDArray[np.int64], offset: int) -> None:
        self._moments = moments
        self._days, self._rests = np.divmod(moments + np.int64(offset * SECOND), np.int64(DAY))

    def __len__(self) -> int:
        return len(self._moments)

    def of(self, field: str) -> NDArray[np.int64]:
        """Return a field, named as in `CalendarFields`, shape (n,)."""
        days = self._days.astype("datetime64[D]")
        match field:
            case "year":
                return days.astype("datetime64[Y]").astype(np.int64) + 1970
            case "month":
                return days.astype("datetime64[M]").astype(np.int64) % 12 + 1
            case "day":
                return self._days - days.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) + 1
            case "year_day":
                return self._days - days.astype("datetime64[Y]").astype("datetime64[D]").astype(np.int64) + 1
            case "weekday":
                return (self._days + 3) % 7
            case "epoch":
                return self._moments // SECOND
            case "micro":
                return self._rests % SECOND
            case _:
                seconds = self._rests // SECOND
                return {"hour": seconds // 3600, "minute": seconds // 60 % 60, "second": seconds % 60}[field]

    def not_zero(self, parts: tuple[PatternPart, ...]) -> NDArray[np.bool_]:
        """Return where an hour, minute, second or fraction among `parts` is not 0, shape (n,)."""
        found = np.zeros(len(self), np.bool_)
        for part in fields_of(parts):
            if part.directive in "HIMSf":
                found |= self.of(_FIELD_OF_DIRECTIVE[part.directive]) != 0
        return found
