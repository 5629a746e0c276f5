"""Conditions on rows: canonical form, validation against a schema, evaluation on columns.

A condition is the AND of predicates. `canonical` intersects all predicates on a column into one `ColumnCondition` in
the column's native scale, so that two ways to say the same thing give the same bytes (`canonical_json`) and so the same
plan.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowmint.columns import ColumnArray, is_coded, native_number
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
)

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
        intervals: For an ordered column, the disjoint ranges that satisfy it, ascending; None for categorical columns.
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
        values: NDArray[Any] = array.values
        for interval in self.intervals or ():
            result |= (values >= interval.lower) & (values <= interval.upper)
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

    A condition that every row satisfies is left out.

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
    for predicate in predicates:
        column = schema.column(predicate.column)
        if column.kind is ColumnKind.ID or column.name == schema.primary_key:
            raise InvalidConditionError(
                f"column {column.name!r} identifies rows and is made afresh; it cannot be a condition",
                metadata={"column": column.name},
            )
        condition = _translate(predicate, column)
        before = by_column.get(column.name)
        by_column[column.name] = condition if before is None else _intersect(before, condition)
        if before is not None and _empty(by_column[column.name]):
            raise InvalidConditionError(
                f"the conditions on column {column.name!r} exclude each other", metadata={"column": column.name}
            )
    for name, condition in by_column.items():
        _check_possible(condition, schema.column(name))
    found = sorted(by_column.values(), key=lambda condition: condition.column)
    return tuple(condition for condition in found if not _always(condition, schema.column(condition.column)))


def _translate(predicate: Predicate, column: ColumnSpec) -> ColumnCondition:
    test = predicate.test
    everything = _everything(column)
    if isinstance(test, IsNull):
        if not test.null:
            return ColumnCondition(column.name, False, everything.codes, everything.intervals)
        nothing: Mapping[str, Any] = {"codes": ()} if is_coded(column) else {"intervals": ()}
        return ColumnCondition(column.name, True, **nothing)
    if isinstance(test, AnyOf):
        if not 1 <= len(test.values) <= MAX_VALUES:
            raise InvalidFieldError("where.predicates.any_of", f"has {len(test.values)} values; 1 to {MAX_VALUES}")
        null = any(value is None for value in test.values)
        present = [value for value in test.values if value is not None]
        if is_coded(column):
            codes = tuple(sorted({_code(value, column) for value in present}))
            return ColumnCondition(column.name, null, codes=codes)
        points = sorted({point for value in present if (point := _point(value, column)) is not None})
        if not points and not null:
            raise InvalidConditionError(
                f"column {column.name!r} holds {_precision(column)}; {present[0]!r} can never occur",
                metadata={"column": column.name},
            )
        return ColumnCondition(column.name, null, intervals=tuple(Interval(point, point) for point in points))
    if is_coded(column):
        raise InvalidConditionError(
            f"column {column.name!r} is {column.kind} and has no order; ask for values instead of a range",
            metadata={"column": column.name},
        )
    if test.minimum is None and test.maximum is None:
        raise InvalidFieldError("where.predicates.range", "has neither minimum nor maximum")
    interval = _interval(test, column)
    return ColumnCondition(column.name, False, intervals=(interval,) if interval.lower <= interval.upper else ())


def _everything(column: ColumnSpec) -> ColumnCondition:
    if is_coded(column):
        return ColumnCondition(column.name, True, codes=tuple(range(len(column.domain.categories))))
    whole = Interval(-math.inf, math.inf) if column.data_type is DataType.DOUBLE else Interval(INT64_MIN, INT64_MAX)
    return ColumnCondition(column.name, True, intervals=(whole,))


def _code(value: Cell, column: ColumnSpec) -> int:
    categories = column.domain.categories
    for code, category in enumerate(categories):
        if category == value and isinstance(category, bool) == isinstance(value, bool):
            return code
    texts = [cell_text(category) for category in categories]
    text = cell_text(value)
    if text in texts:  # 1 for "1": the caller cannot always know a category's type
        return texts.index(text)
    near = near_names(text, texts)
    raise ValueNotFoundError(column.name, text, near if near or not texts else texts[:3])


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
        return float(number)
    return int(number) if number.denominator == 1 else None


def _interval(test: Range, column: ColumnSpec) -> Interval:
    lower, upper = test.minimum, test.maximum
    if column.data_type is DataType.DOUBLE:
        low = -math.inf if lower is None else float(_native(lower, column))
        high = math.inf if upper is None else float(_native(upper, column))
        if test.minimum_exclusive and lower is not None:
            low = math.nextafter(low, math.inf)
        if test.maximum_exclusive and upper is not None:
            high = math.nextafter(high, -math.inf)
        return Interval(low, high)
    least, greatest = INT64_MIN, INT64_MAX
    if lower is not None:
        number = _native(lower, column)
        least = math.ceil(number) + (1 if test.minimum_exclusive and number.denominator == 1 else 0)
    if upper is not None:
        number = _native(upper, column)
        greatest = math.floor(number) - (1 if test.maximum_exclusive and number.denominator == 1 else 0)
    return Interval(max(least, INT64_MIN), min(greatest, INT64_MAX))


def _intersect(one: ColumnCondition, two: ColumnCondition) -> ColumnCondition:
    null = one.null and two.null
    if one.codes is not None and two.codes is not None:
        return ColumnCondition(one.column, null, codes=tuple(sorted(set(one.codes) & set(two.codes))))
    spans = [
        Interval(max(a.lower, b.lower), min(a.upper, b.upper))
        for a in one.intervals or ()
        for b in two.intervals or ()
        if max(a.lower, b.lower) <= min(a.upper, b.upper)
    ]
    return ColumnCondition(one.column, null, intervals=tuple(sorted(spans, key=lambda span: span.lower)))


def _empty(condition: ColumnCondition) -> bool:
    return not condition.null and not condition.codes and not condition.intervals


def _always(condition: ColumnCondition, column: ColumnSpec) -> bool:
    everything = _everything(column)
    null = condition.null or not column.nullable
    return null and condition.codes == everything.codes and condition.intervals == everything.intervals


def _precision(column: ColumnSpec) -> str:
    if column.data_type is DataType.DECIMAL:
        return f"numbers of {column.domain.decimals} decimals"
    return "whole numbers"


def _check_possible(condition: ColumnCondition, column: ColumnSpec) -> None:
    """Refuse what no row can satisfy: outside the learned range, or missing where nothing ever was."""
    about = {"column": column.name}
    if _empty(condition):
        raise InvalidConditionError(f"the range asked of column {column.name!r} is empty", metadata=about)
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
