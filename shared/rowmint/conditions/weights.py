"""Weights: the shares that values of one column have among the rows.

Each entry is a test of the column and a share, relative to the others'. Among the rows that satisfy the conditions, the
entries then have exactly these shares, values within an entry and all other columns keep the proportions that they have
in the model, and what no entry holds never occurs: P'(row) = P(row | conditions) * w(entry of the row).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import rfc8785
from numpy.typing import NDArray

from rowmint.conditions.canonical import conditioned, possible, translated
from rowmint.conditions.column_condition import ColumnCondition, Interval, everything, intersection
from rowmint.conditions.predicate import MAX_VALUES, AnyOf, IsNull, Range
from rowmint.errors import InvalidConditionError, InvalidFieldError
from rowmint.schema import ColumnSpec, TableSchema, cell_text, shown_cell
from rowmint.schema.arrays import is_coded, native_cell
from rowmint.steps import Steps, finish

MAX_WEIGHTS = 1_000
"""Entries of the weights of a column."""
LEAST_SHARE = 1e-12
"""Of an entry; no stream is long enough to show a smaller one."""
_FIELD = "where.weights[0]"
_SHOWN = 3


@dataclass(frozen=True)
class WeightedTest:
    """Some values of a column and their share.

    Attributes:
        test: What holds for them.
        share: Their share among the rows, relative to that of the other entries; positive.
    """

    test: AnyOf | Range | IsNull
    share: float


@dataclass(frozen=True)
class Weights:
    """The weights of one column, as a caller gives them.

    Attributes:
        column: The column.
        entries: Tests that exclude one another.
    """

    column: str
    entries: tuple[WeightedTest, ...]


@dataclass(frozen=True)
class WeightedCondition:
    """An entry of canonical weights.

    Attributes:
        condition: The cells it holds.
        share: Their share among the rows, above 0 to 1.
        label: What it holds, for errors.
    """

    condition: ColumnCondition
    share: float
    label: str


@dataclass(frozen=True)
class ColumnWeights:
    """The weights of one column, canonical: the condition on the column, if any, is part of every entry.

    Attributes:
        column: The column.
        entries: Disjoint entries in a fixed order; their shares sum to 1.
    """

    column: str
    entries: tuple[WeightedCondition, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the canonical JSON values: shares are text, so that no reader rounds them."""
        entries = [{**_cells(entry.condition), "share": repr(entry.share)} for entry in self.entries]
        return {"column": self.column, "entries": entries}

    def factors(self, probabilities: Sequence[float]) -> NDArray[np.float64]:
        """Return w of each entry, up to a common factor: the greatest is 1; shape (entries,).

        Args:
            probabilities: Probability that a row of the model satisfies the conditions and the entry, of each.

        Raises:
            InvalidConditionError: One is 0: no row could give the entry its share.
        """
        for entry, probability in zip(self.entries, probabilities, strict=True):
            if not probability > 0:
                raise InvalidConditionError(
                    f"no row of the model that satisfies the other conditions has {entry.label} in column"
                    f" {self.column!r}; it cannot have a share of the rows",
                    metadata={"column": self.column},
                )
        inverse = np.array(probabilities, np.float64) / np.array([entry.share for entry in self.entries])
        factors: NDArray[np.float64] = inverse.min() / inverse
        return factors


def canonical_weights(
    weights: Weights, conditions: Sequence[ColumnCondition], schema: TableSchema
) -> tuple[tuple[ColumnCondition, ...], ColumnWeights]:
    """Return the canonical form of `weights` among `conditions`, at once; see `weights_steps`."""
    return finish(weights_steps(weights, conditions, schema))


def weights_steps(
    weights: Weights, conditions: Sequence[ColumnCondition], schema: TableSchema
) -> Steps[tuple[tuple[ColumnCondition, ...], ColumnWeights]]:
    """Work out the canonical form of `weights`; a step is an entry.

    Args:
        weights: The weights.
        conditions: Canonical conditions.
        schema: Schema of a model.

    Returns:
        The conditions on the other columns, and the weights.

    Raises:
        ColumnNotFoundError: The column does not exist.
        ValueNotFoundError: A categorical value was never seen.
        InvalidConditionError: Two entries hold the same cell, an entry can never hold one, or the column cannot be
            tested that way.
        InvalidFieldError: There are too many entries or values, or none, or a share is not a positive number.
    """
    column = conditioned(weights.column, schema)
    if not 1 <= len(weights.entries) <= MAX_WEIGHTS:
        raise InvalidFieldError(f"{_FIELD}.entries", f"has {len(weights.entries)} entries; 1 to {MAX_WEIGHTS}")
    values = sum(len(entry.test.values) for entry in weights.entries if isinstance(entry.test, AnyOf))
    if values > MAX_VALUES:
        raise InvalidFieldError(f"{_FIELD}.entries", f"has {values} values; at most {MAX_VALUES}")
    shares = _shares(weights)
    found = []
    for index, entry in enumerate(weights.entries):
        condition = possible(translated(entry.test, column, f"{_FIELD}.entries[{index}]"), column)
        found.append(WeightedCondition(condition, shares[index], _label(condition, column)))
        yield
    _check_disjoint(found, column)
    test = next((one for one in conditions if one.column == column.name), None)
    if test is not None:
        found = [_within(entry, test, column) for entry in found]
        yield
    found.sort(key=lambda entry: rfc8785.dumps(entry.condition.to_json()))
    return tuple(one for one in conditions if one.column != column.name), ColumnWeights(column.name, tuple(found))


def _shares(weights: Weights) -> list[float]:
    """Return the shares, of sum 1: the float64 nearest to each."""
    for index, entry in enumerate(weights.entries):
        if not 0 < entry.share < math.inf:
            raise InvalidFieldError(f"{_FIELD}.entries[{index}].share", f"is {entry.share}; must be a positive number")
    total = sum(Fraction(entry.share) for entry in weights.entries)
    shares = [float(Fraction(entry.share) / total) for entry in weights.entries]
    for index, share in enumerate(shares):
        if share < LEAST_SHARE:
            raise InvalidFieldError(
                f"{_FIELD}.entries[{index}].share",
                f"is {weights.entries[index].share}, nothing beside the others; must be {LEAST_SHARE:g} of their sum",
            )
    return shares


def _within(entry: WeightedCondition, test: ColumnCondition, column: ColumnSpec) -> WeightedCondition:
    condition = intersection(entry.condition, test)
    if condition.empty:
        raise InvalidConditionError(
            f"the condition on column {column.name!r} excludes {entry.label}, which has a share of the rows",
            metadata={"column": column.name},
        )
    return WeightedCondition(condition, entry.share, _label(condition, column))


def _check_disjoint(entries: Sequence[WeightedCondition], column: ColumnSpec) -> None:
    """Check that no two entries hold the same cell."""
    missing = [(0, 0, entry) for entry in entries if entry.condition.null]
    codes = [(code, code, entry) for entry in entries for code in entry.condition.codes or ()]
    spans = [(span.lower, span.upper, entry) for entry in entries for span in entry.condition.intervals or ()]
    for held in (missing, sorted(codes, key=_lower), sorted(spans, key=_lower)):
        for (_, upper, one), (lower, _, other) in itertools.pairwise(held):
            if lower <= upper:
                raise InvalidConditionError(
                    f"two weights of column {column.name!r} overlap: {one.label}, and {other.label}; a value may have"
                    " one",
                    metadata={"column": column.name},
                )


def _lower(held: tuple[float, float, WeightedCondition]) -> float:
    return held[0]


def _cells(condition: ColumnCondition) -> dict[str, Any]:
    body = condition.to_json()
    del body["column"]
    return body


def _label(condition: ColumnCondition, column: ColumnSpec) -> str:
    """Return what a condition holds as a text: some of its values, ranges, and whether missing cells are among them."""
    if is_coded(column):
        texts = [shown_cell(column.domain.categories[code]) for code in (condition.codes or ())[:_SHOWN]]
    else:
        texts = [_range_text(span, column) for span in (condition.intervals or ())[:_SHOWN]]
    count = len(condition.codes or condition.intervals or ())
    if count > _SHOWN:
        texts.append(f"{count - _SHOWN} more")
    if condition.null:
        texts.append("missing cells")
    return " or ".join(texts)


def _range_text(span: Interval, column: ColumnSpec) -> str:
    (whole,) = everything(column).intervals or ()
    if span.lower == span.upper:
        return _native_text(span.lower, column)
    if span.lower == whole.lower:
        return "any value" if span.upper == whole.upper else f"values up to {_native_text(span.upper, column)}"
    if span.upper == whole.upper:
        return f"values from {_native_text(span.lower, column)} on"
    return f"values from {_native_text(span.lower, column)} to {_native_text(span.upper, column)}"


def _native_text(value: float, column: ColumnSpec) -> str:
    try:
        return cell_text(native_cell(value, column))
    except (OverflowError, ValueError):
        return "beyond the calendar"
