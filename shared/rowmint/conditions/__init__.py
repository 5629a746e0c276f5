"""Conditions on rows: canonical form, validation against a schema, evaluation on columns.

A condition is the AND of predicates. `canonical` intersects all predicates on a column into one `ColumnCondition` in
the column's native scale, so that two ways to say the same thing give the same JSON (`ColumnCondition.to_json`) and so
the same plan. A value is first brought to the column's type: a decimal asked of a double column means its nearest
float64, and a float asked of a decimal column the decimal number that it prints as.
"""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowmint.errors import InvalidConditionError, InvalidFieldError, ValueNotFoundError
from rowmint.schema import (
    INT64_MAX,
    INT64_MIN,
    Cell,
    ColumnKind,
    ColumnSpec,
    DataType,
    TableSchema,
    cell_text,
    near_names,
    shown_cell,
)
from rowmint.schema.arrays import ColumnArray, is_coded, native_number, nearest_double

MAX_PREDICATES = 64
MAX_VALUES = 10_000


@dataclass(frozen=True)
class AnyOf:
    """The cell equals one of `values`; None among them means a missing cell."""

    values: tuple[Cell, ...]


@dataclass(frozen=True)
class Range:
    """The cell is present and lies between two bounds; None means no bound."""

    minimum: Cell = None
    maximum: Cell = None
    minimum_exclusive: bool = False
    maximum_exclusive: bool = False


@dataclass(frozen=True)
class IsNull:
    """The cell is missing (`null` True) or present."""

    null: bool = True


Test = AnyOf | Range | IsNull


@dataclass(frozen=True)
class Predicate:
    """One test of one column."""

    column: str
    test: Test


@dataclass(frozen=True)
class Interval:
    """A closed range in a column's native scale.

    Attributes:
        lower: Least value; an open bound of a double column is its next float64.
        upper: Greatest value.
    """

    lower: int | float
    upper: int | float


@dataclass(frozen=True)
class ColumnCondition:
    """All that is asked of one column, canonical.

    Attributes:
        column: The column.
        null: Whether a missing cell satisfies it.
        codes: For a categorical column, the category indices that satisfy it, ascending; None for ordered columns.
        intervals: For an ordered column, the disjoint ranges that satisfy it, ascending, neighbours joined; None for
            categorical columns.
    """

    column: str
    null: bool
    codes: tuple[int, ...] | None = None
    intervals: tuple[Interval, ...] | None = None

    def satisfied(self, array: ColumnArray) -> NDArray[np.bool_]:
        """Return which cells satisfy it, shape (n,)."""
        if self.codes is not None:
            # One more entry, last, for code -1: a missing cell.
            table = np.zeros(max((*self.codes, int(array.values.max(initial=-1)))) + 2, np.bool_)
            table[list(self.codes)] = True
            table[-1] = self.null
            found: NDArray[np.bool_] = table[array.values]
            return found
        result = np.zeros(len(array), np.bool_)
        if self.intervals:
            values: NDArray[Any] = array.values
            lowers = np.array([span.lower for span in self.intervals], values.dtype)
            uppers = np.array([span.upper for span in self.intervals], values.dtype)
            # The ranges are disjoint and ascending: only the last that begins at or below a value can hold it.
            last = np.searchsorted(lowers, values, side="right") - 1
            result = (last >= 0) & (values <= uppers[last])
        if array.valid is not None:
            result = np.where(array.valid, result, self.null)
        return result

    def to_json(self) -> dict[str, Any]:
        """Return the canonical JSON values: numbers are text, so that no reader rounds them."""
        body: dict[str, Any] = {"column": self.column, "null": self.null}
        if self.codes is not None:
            body["codes"] = [str(code) for code in self.codes]
        if self.intervals is not None:
            body["intervals"] = [[repr(span.lower), repr(span.upper)] for span in self.intervals]
        return body


def canonical(where: Iterable[Predicate], schema: TableSchema) -> tuple[ColumnCondition, ...]:
    """Return the canonical form of `where`, one condition a column, by column name.

    A condition that every value of the column's type satisfies is left out.

    Args:
        where: The predicates.
        schema: Schema of a model: kinds, types, categories and bounds are known.

    Raises:
        ColumnNotFoundError: A column does not exist.
        ValueNotFoundError: A categorical value was never seen.
        InvalidConditionError: Predicates exclude each other or can never hold, or a column cannot be tested that way.
        InvalidFieldError: Too many predicates or values.
    """
    predicates = list(where)
    if len(predicates) > MAX_PREDICATES:
        raise InvalidFieldError("where.predicates", f"has {len(predicates)} entries; at most {MAX_PREDICATES}")
    by_column: dict[str, ColumnCondition] = {}
    for index, predicate in enumerate(predicates):
        column = schema.column(predicate.column)
        if column.kind is ColumnKind.ID or column.name == schema.primary_key:
            raise InvalidConditionError(
                f"column {column.name!r} identifies rows and is made afresh; it cannot be a condition",
                metadata={"column": column.name},
            )
        condition = _translate(predicate, column, f"where.predicates[{index}]")
        before = by_column.get(column.name)
        by_column[column.name] = condition if before is None else _intersect(before, condition)
        if before is not None and _empty(by_column[column.name]):
            raise InvalidConditionError(
                f"the conditions on column {column.name!r} exclude each other", metadata={"column": column.name}
            )
    found = []
    for name in sorted(by_column):
        column = schema.column(name)
        _check_possible(by_column[name], column)
        if not column.nullable:
            by_column[name] = replace(by_column[name], null=False)
        if not _always(by_column[name], column):
            found.append(by_column[name])
    return tuple(found)


def _translate(predicate: Predicate, column: ColumnSpec, field: str) -> ColumnCondition:
    test = predicate.test
    everything = _everything(column)
    if isinstance(test, IsNull):
        if not test.null:
            return ColumnCondition(column.name, False, everything.codes, everything.intervals)
        nothing: Mapping[str, Any] = {"codes": ()} if is_coded(column) else {"intervals": ()}
        return ColumnCondition(column.name, True, **nothing)
    if isinstance(test, AnyOf):
        if not 1 <= len(test.values) <= MAX_VALUES:
            raise InvalidFieldError(f"{field}.any_of", f"has {len(test.values)} values; 1 to {MAX_VALUES}")
        null = any(value is None for value in test.values)
        present = [value for value in test.values if value is not None]
        if is_coded(column):
            return ColumnCondition(column.name, null, codes=_codes(present, column))
        points = sorted({point for value in present if (point := _point(value, column)) is not None})
        if not points and not null:
            raise InvalidConditionError(
                f"column {column.name!r} holds {_precision(column)}; {shown_cell(present[0])} can never occur",
                metadata={"column": column.name},
            )
        spans = _joined([Interval(point, point) for point in points])
        return ColumnCondition(column.name, null, intervals=spans)
    if is_coded(column):
        raise InvalidConditionError(
            f"column {column.name!r} is {column.kind} and has no order; ask for values instead of a range",
            metadata={"column": column.name},
        )
    if test.minimum is None and test.maximum is None:
        raise InvalidFieldError(f"{field}.range", "has neither minimum nor maximum")
    interval = _interval(test, column)
    return ColumnCondition(column.name, False, intervals=(interval,) if interval.lower <= interval.upper else ())


def _everything(column: ColumnSpec) -> ColumnCondition:
    if is_coded(column):
        return ColumnCondition(column.name, True, codes=tuple(range(len(column.domain.categories))))
    double = column.data_type is DataType.DOUBLE
    whole = Interval(-sys.float_info.max, sys.float_info.max) if double else Interval(INT64_MIN, INT64_MAX)
    return ColumnCondition(column.name, True, intervals=(whole,))


def _codes(values: Sequence[Cell], column: ColumnSpec) -> tuple[int, ...]:
    """Return the codes of present values, ascending, each once."""
    categories = column.domain.categories
    known = {(isinstance(category, bool), category): code for code, category in enumerate(categories)}
    texts: dict[str, int] = {}
    codes: set[int] = set()
    for value in values:
        code = known.get((isinstance(value, bool), value))
        if code is None:
            if not texts:
                texts = {cell_text(category): code for code, category in enumerate(categories)}
            text = cell_text(value)
            if text not in texts:  # 1 for "1": the caller cannot always know a category's type
                raise ValueNotFoundError(column.name, text, near_names(text, list(texts)) or list(texts)[:3])
            code = texts[text]
        codes.add(code)
    return tuple(sorted(codes))


def _native(value: Cell, column: ColumnSpec) -> Any:
    try:
        return native_number(value, column)
    except ValueError as error:
        raise InvalidConditionError(
            f"column {column.name!r} is {column.data_type}: {error}", metadata={"column": column.name}
        ) from error


def _point(value: Cell, column: ColumnSpec) -> int | float | None:
    number = _native(value, column)
    if column.data_type is DataType.DOUBLE:
        double = nearest_double(number)
        return double if math.isfinite(double) else None
    return int(number) if number.denominator == 1 and INT64_MIN <= number <= INT64_MAX else None


def _interval(test: Range, column: ColumnSpec) -> Interval:
    lower, upper = test.minimum, test.maximum
    if column.data_type is DataType.DOUBLE:
        low = -math.inf if lower is None else nearest_double(_native(lower, column))
        high = math.inf if upper is None else nearest_double(_native(upper, column))
        if test.minimum_exclusive and math.isfinite(low):
            low = math.nextafter(low, math.inf)
        if test.maximum_exclusive and math.isfinite(high):
            high = math.nextafter(high, -math.inf)
        # Infinities are no cells. Adding 0.0 makes -0.0, whose text differs, 0.0.
        greatest_double = sys.float_info.max
        return Interval(
            low if low > greatest_double else max(low, -greatest_double) + 0.0,
            high if high < -greatest_double else min(high, greatest_double) + 0.0,
        )
    least, greatest = INT64_MIN, INT64_MAX
    if lower is not None:
        number = _native(lower, column)
        least = math.ceil(number) + (1 if test.minimum_exclusive and number.denominator == 1 else 0)
    if upper is not None:
        number = _native(upper, column)
        greatest = math.floor(number) - (1 if test.maximum_exclusive and number.denominator == 1 else 0)
    return Interval(max(least, INT64_MIN), min(greatest, INT64_MAX))


def _joined(spans: Sequence[Interval]) -> tuple[Interval, ...]:
    """Join neighbours among disjoint ascending ranges: 1, 2, 3 one by one and 1 to 3 are the same."""
    joined: list[Interval] = []
    for span in spans:
        if joined and span.lower == _next(joined[-1].upper):
            joined[-1] = Interval(joined[-1].lower, span.upper)
        else:
            joined.append(span)
    return tuple(joined)


def _next(value: float) -> float:
    return value + 1 if isinstance(value, int) else math.nextafter(value, math.inf)


def _intersect(one: ColumnCondition, two: ColumnCondition) -> ColumnCondition:
    null = one.null and two.null
    if one.codes is not None and two.codes is not None:
        return ColumnCondition(one.column, null, codes=tuple(sorted(set(one.codes) & set(two.codes))))
    spans: list[Interval] = []
    first, second = list(one.intervals or ()), list(two.intervals or ())
    at = beside = 0
    while at < len(first) and beside < len(second):
        a, b = first[at], second[beside]
        if max(a.lower, b.lower) <= min(a.upper, b.upper):
            spans.append(Interval(max(a.lower, b.lower), min(a.upper, b.upper)))
        if a.upper < b.upper:
            at += 1
        else:
            beside += 1
    return ColumnCondition(one.column, null, intervals=_joined(spans))


def _empty(condition: ColumnCondition) -> bool:
    return not condition.null and not condition.codes and not condition.intervals


def _always(condition: ColumnCondition, column: ColumnSpec) -> bool:
    everything = _everything(column)
    null = condition.null or not column.nullable
    return null and condition.codes == everything.codes and condition.intervals == everything.intervals


def _precision(column: ColumnSpec) -> str:
    if column.data_type is DataType.DECIMAL:
        return f"numbers of {column.domain.decimals} decimals"
    if column.data_type is DataType.DOUBLE:
        return "binary64 numbers"
    return "whole numbers of 64 bits"


def _check_possible(condition: ColumnCondition, column: ColumnSpec) -> None:
    """Refuse what no row can satisfy: outside the learned range, or missing where nothing ever was."""
    about = {"column": column.name}
    if _empty(condition):
        what = "is missing in every row" if is_coded(column) else "cannot lie in the range asked for, which is empty"
        raise InvalidConditionError(f"column {column.name!r} {what}", metadata=about)
    if condition.null and column.nullable:
        return
    if condition.null and not condition.codes and not condition.intervals:
        raise InvalidConditionError(
            f"column {column.name!r} was never missing in training; it cannot be null", metadata=about
        )
    low, high = column.domain.minimum, column.domain.maximum
    if condition.intervals and low is not None and high is not None:
        least, greatest = native_number(low, column), native_number(high, column)
        if all(span.upper < least or span.lower > greatest for span in condition.intervals):
            raise InvalidConditionError(
                f"column {column.name!r} lies between {cell_text(low)} and {cell_text(high)} in training; the"
                " condition asks for values outside",
                metadata=about,
            )
