"""From predicates to the canonical condition on each column, validated against a schema."""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from rowmint.conditions.column_condition import (
    ColumnCondition,
    Interval,
    all_but,
    everything,
    intersection,
    join_intervals,
)
from rowmint.conditions.predicate import MAX_PREDICATES, MAX_VALUES, AnyOf, IsNull, NoneOf, Predicate, Range, Test
from rowmint.errors import InvalidConditionError, InvalidFieldError
from rowmint.schema import (
    INT64_MAX,
    INT64_MIN,
    Cell,
    ColumnKind,
    ColumnSpec,
    DataType,
    TableSchema,
    cell_text,
    shown_cell,
)
from rowmint.schema.arrays import is_coded, native_number, nearest_double
from rowmint.schema.category_index import CategoryIndex
from rowmint.schema.forms.cells import read
from rowmint.steps import Steps, finish

_EXACT = 2**53


def canonical(where: Iterable[Predicate], schema: TableSchema) -> tuple[ColumnCondition, ...]:
    """Return the canonical form of `where`, at once; see `canonical_steps`."""
    return finish(canonical_steps(where, schema))


def canonical_steps(where: Iterable[Predicate], schema: TableSchema) -> Steps[tuple[ColumnCondition, ...]]:
    """Work out the canonical form of `where`, one condition a column, by column name; a step is a predicate.

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
        column = conditioned(predicate.column, schema)
        condition = translated(predicate.test, column, f"where.predicates[{index}]")
        before = by_column.get(column.name)
        by_column[column.name] = condition if before is None else intersection(before, condition)
        if before is not None and by_column[column.name].empty:
            raise InvalidConditionError(
                f"the conditions on column {column.name!r} exclude each other", metadata={"column": column.name}
            )
        yield
    found = []
    for name in sorted(by_column):
        column = schema.column(name)
        condition = possible(by_column[name], column)
        if not _always(condition, column):
            found.append(condition)
    return tuple(found)


def conditioned(name: str, schema: TableSchema) -> ColumnSpec:
    """Return a column that there may be conditions on.

    Raises:
        ColumnNotFoundError: It does not exist.
        InvalidConditionError: It holds ids.
    """
    column = schema.column(name)
    if column.kind is ColumnKind.ID or column.name == schema.primary_key:
        raise InvalidConditionError(
            f"column {column.name!r} identifies rows and is generated; it cannot be a condition",
            metadata={"column": column.name},
        )
    return column


def translated(test: Test, column: ColumnSpec, field: str) -> ColumnCondition:
    """Return a test of a column as a condition, which may be empty.

    Args:
        test: The test.
        column: The column.
        field: Path of the test, for errors.

    Raises:
        ValueNotFoundError: A categorical value was never seen.
        InvalidConditionError: The column cannot be tested that way.
        InvalidFieldError: There are too many values, or none, or a range has no bound.
    """
    test = _typed(test, column)
    whole = everything(column)
    if isinstance(test, IsNull):
        if not test.null:
            return ColumnCondition(column.name, False, whole.codes, whole.intervals)
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
        spans = join_intervals([Interval(point, point) for point in points])
        return ColumnCondition(column.name, null, intervals=spans)
    if isinstance(test, NoneOf):
        if not 1 <= len(test.values) <= MAX_VALUES:
            raise InvalidFieldError(f"{field}.none_of", f"has {len(test.values)} values; 1 to {MAX_VALUES}")
        present = [value for value in test.values if value is not None]
        if is_coded(column):
            excluded = set(_codes(present, column))
            return ColumnCondition(
                column.name, False, codes=tuple(code for code in whole.codes or () if code not in excluded)
            )
        points = sorted({point for value in present if (point := _point(value, column)) is not None})
        return ColumnCondition(column.name, False, intervals=all_but(points, column))
    if is_coded(column):
        raise InvalidConditionError(
            f"column {column.name!r} is {column.kind} and has no order; give values instead of a range",
            metadata={"column": column.name},
        )
    if test.minimum is None and test.maximum is None:
        raise InvalidFieldError(f"{field}.range", "has neither minimum nor maximum")
    interval = _interval(test, column)
    return ColumnCondition(column.name, False, intervals=(interval,) if interval.lower <= interval.upper else ())


def _typed(test: Test, column: ColumnSpec) -> Test:
    """Return a test whose texts are read as cells of the column: in its own form, else canonical."""
    match test:
        case AnyOf(values) | NoneOf(values):
            return replace(test, values=tuple(_read(value, column) for value in values))
        case Range():
            return replace(test, minimum=_read(test.minimum, column), maximum=_read(test.maximum, column))
        case _:
            return test


def _read(value: Cell, column: ColumnSpec) -> Cell:
    if not isinstance(value, str):
        return value
    try:
        return read(value, column)
    except ValueError as error:
        if is_coded(column):
            return value  # `CategoryIndex` knows texts that are near it
        raise InvalidConditionError(
            f"column {column.name!r} is {column.data_type}: {error}", metadata={"column": column.name}
        ) from error


def _codes(values: Sequence[Cell], column: ColumnSpec) -> tuple[int, ...]:
    """Return the codes of present values, ascending, each once."""
    index = CategoryIndex(column)
    return tuple(sorted({index.code(value) for value in values}))


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
        # Infinities are not cells. Adding 0.0 makes -0.0, whose text differs, 0.0.
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


def _always(condition: ColumnCondition, column: ColumnSpec) -> bool:
    whole = everything(column)
    null = condition.null or not column.nullable
    return null and condition.codes == whole.codes and condition.intervals == whole.intervals


def _precision(column: ColumnSpec) -> str:
    if column.data_type is DataType.DECIMAL:
        return f"numbers of {column.domain.decimals} decimals"
    if column.data_type is DataType.DOUBLE:
        return "binary64 numbers" if (decimals := _grid_decimals(column)) is None else f"numbers of {decimals} decimals"
    return "integers of 64 bits"


def _grid_decimals(column: ColumnSpec) -> int | None:
    """Return the decimals that every number of a double column has, or None where there is no such number.

    Up to 2**53 units, numbers of that many decimals are what a model makes; beyond, it makes others.
    """
    low, high, decimals = column.domain.minimum, column.domain.maximum, column.domain.decimals
    if column.data_type is not DataType.DOUBLE or low is None or high is None or decimals is None:
        return None
    most = max(abs(native_number(low, column)), abs(native_number(high, column)))
    return decimals if most * 10**decimals < _EXACT else None


def _holds_number(span: Interval, decimals: int) -> bool:
    """Say whether a range of doubles holds a number of so many decimals."""
    scale = 10**decimals
    # The double nearest to a decimal number may lie on the other side of the bound.
    first = math.floor(Fraction(span.lower) * scale)
    for unit in range(first - 1, first + 3):
        number = nearest_double(Fraction(unit, scale))
        if number >= span.lower:
            return number <= span.upper
    return False


def possible(condition: ColumnCondition, column: ColumnSpec) -> ColumnCondition:
    """Return a condition, without missing cells where the column has none.

    Raises:
        InvalidConditionError: No row satisfies it: it is empty, lies outside the learned range, or requires a missing
            cell where none ever was.
    """
    about = {"column": column.name}
    if condition.empty:
        what = "is missing in every row" if is_coded(column) else "cannot lie in the range given, which is empty"
        raise InvalidConditionError(f"column {column.name!r} {what}", metadata=about)
    if condition.null and column.nullable:
        return condition
    if condition.null and not condition.codes and not condition.intervals:
        raise InvalidConditionError(
            f"column {column.name!r} was never missing in training; it cannot be null", metadata=about
        )
    decimals = _grid_decimals(column)
    spans = condition.intervals or ()
    if spans and decimals is not None and not any(_holds_number(span, decimals) for span in spans):
        raise InvalidConditionError(
            f"column {column.name!r} holds {_precision(column)}; the condition allows none of them", metadata=about
        )
    low, high = column.domain.minimum, column.domain.maximum
    if condition.intervals and low is not None and high is not None:
        least, greatest = native_number(low, column), native_number(high, column)
        if all(span.upper < least or span.lower > greatest for span in condition.intervals):
            raise InvalidConditionError(
                f"column {column.name!r} lies between {cell_text(low)} and {cell_text(high)} in training; the"
                " condition allows only values outside",
                metadata=about,
            )
    return condition if column.nullable else replace(condition, null=False)
