"""The condition on one column in canonical form, its evaluation on cells, and its canonical JSON."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowmint.schema import INT64_MAX, INT64_MIN, ColumnSpec, DataType
from rowmint.schema.arrays import ColumnArray, is_coded


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
    """The condition on one column, canonical.

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

    @property
    def empty(self) -> bool:
        """Whether no cell satisfies it."""
        return not self.null and not self.codes and not self.intervals

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


def everything(column: ColumnSpec) -> ColumnCondition:
    """Return the condition that every cell of the column's type satisfies, missing ones included."""
    if is_coded(column):
        return ColumnCondition(column.name, True, codes=tuple(range(len(column.domain.categories))))
    double = column.data_type is DataType.DOUBLE
    whole = Interval(-sys.float_info.max, sys.float_info.max) if double else Interval(INT64_MIN, INT64_MAX)
    return ColumnCondition(column.name, True, intervals=(whole,))


def join_intervals(spans: Sequence[Interval]) -> tuple[Interval, ...]:
    """Join neighbours among disjoint ascending ranges: 1, 2, 3 one by one and 1 to 3 are the same."""
    joined: list[Interval] = []
    for span in spans:
        if joined and span.lower == _next(joined[-1].upper):
            joined[-1] = Interval(joined[-1].lower, span.upper)
        else:
            joined.append(span)
    return tuple(joined)


def all_but(points: Sequence[float], column: ColumnSpec) -> tuple[Interval, ...]:
    """Return the ranges of an ordered column that hold every value but `points`, ascending and distinct."""
    spans: list[Interval] = []
    for whole in everything(column).intervals or ():
        low = whole.lower
        for point in points:
            before = _previous(point)
            if low <= before:
                spans.append(Interval(low, before))
            low = _next(point)
        if low <= whole.upper:
            spans.append(Interval(low, whole.upper))
    return tuple(spans)


def _previous(value: float) -> float:
    return value - 1 if isinstance(value, int) else math.nextafter(value, -math.inf)


def _next(value: float) -> float:
    return value + 1 if isinstance(value, int) else math.nextafter(value, math.inf)


def intersection(one: ColumnCondition, two: ColumnCondition) -> ColumnCondition:
    """Return the condition that a cell satisfies where it satisfies both, which are on one column; it may be empty."""
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
    return ColumnCondition(one.column, null, intervals=join_intervals(spans))
