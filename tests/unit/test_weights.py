"""Weights: one canonical form, disjoint entries, factors that give the shares, and their part in a plan's key."""

import math
from dataclasses import replace
from datetime import date
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowmint.conditions import (
    MAX_VALUES,
    MAX_WEIGHTS,
    AnyOf,
    ColumnCondition,
    Interval,
    IsNull,
    Predicate,
    Range,
    WeightedTest,
    Weights,
    canonical,
    canonical_weights,
)
from rowmint.errors import ColumnNotFoundError, InvalidConditionError, InvalidFieldError, ValueNotFoundError
from rowmint.sampling.plan import plan_key
from rowmint.schema import INT64_MAX, INT64_MIN, ColumnKind, ColumnSpec, DataType, Domain, TableSchema

TEXT = ColumnSpec("text", ColumnKind.CATEGORICAL, DataType.STRING, Domain(categories=("x", "", "Zürich", "y", "z")))
NUMBER = ColumnSpec("number", ColumnKind.NUMERICAL, DataType.INT64, Domain(minimum=-6, maximum=6, nullable=True))
DOUBLE = ColumnSpec("double", ColumnKind.NUMERICAL, DataType.DOUBLE, Domain(minimum=-1.0, maximum=1.0))
DAY = ColumnSpec(
    "day", ColumnKind.DATETIME, DataType.DATE, Domain(minimum=date(2013, 1, 1), maximum=date(2013, 12, 31))
)
KEY = ColumnSpec("key", ColumnKind.ID, DataType.INT64)
SCHEMA = TableSchema((TEXT, NUMBER, DOUBLE, DAY, KEY), "key")


def _weights(column, *entries):
    return Weights(column, tuple(WeightedTest(test, share) for test, share in entries))


def _canonical(weights, where=()):
    return canonical_weights(weights, canonical(where, SCHEMA), SCHEMA)


def _below(bound):
    return Range(None, bound, maximum_exclusive=True)


def test_ways_to_write_the_same_weights_have_one_form():
    one = _canonical(_weights("number", (_below(0), 1), (Range(0), 3), (IsNull(), 4)))
    other = _canonical(_weights("number", (AnyOf((None,)), 0.5), (Range(None, -1), 0.125), (Range(-0.5), 0.375)))
    assert one == other
    _, weights = one
    assert {entry.condition: entry.share for entry in weights.entries} == {
        ColumnCondition("number", False, intervals=(Interval(INT64_MIN, -1),)): 0.125,
        ColumnCondition("number", False, intervals=(Interval(0, INT64_MAX),)): 0.375,
        ColumnCondition("number", True, intervals=()): 0.5,
    }
    assert weights.to_json() == {
        "column": "number",
        "entries": [
            {"null": False, "intervals": [[str(INT64_MIN), "-1"]], "share": "0.125"},
            {"null": False, "intervals": [["0", str(INT64_MAX)]], "share": "0.375"},
            {"null": True, "intervals": [], "share": "0.5"},
        ],
    }


@settings(deadline=None)
@given(st.lists(st.floats(1.0, 1e11), min_size=1, max_size=5), st.floats(1e-100, 1e100))
def test_shares_are_the_nearest_doubles_of_their_part_of_the_sum(parts, factor):
    shares = [part * factor for part in parts]
    values = TEXT.domain.categories[: len(shares)]
    _, weights = _canonical(_weights("text", *((AnyOf((v,)), s) for v, s in zip(values, shares, strict=True))))
    total = sum(map(Fraction, shares))
    found = {entry.condition.codes[0]: entry.share for entry in weights.entries}
    assert found == {code: float(Fraction(share) / total) for code, share in enumerate(shares)}


def test_the_condition_on_the_column_becomes_part_of_the_entries():
    where = [Predicate("number", Range(-2, 4)), Predicate("text", AnyOf(("x",)))]
    conditions, weights = _canonical(_weights("number", (_below(0), 1), (Range(0), 1)), where)
    assert [condition.column for condition in conditions] == ["text"]
    assert [entry.condition.intervals for entry in weights.entries] == [(Interval(-2, -1),), (Interval(0, 4),)]
    # Said by the weights alone it is the same plan.
    narrow = _weights("number", (Range(-2, -1), 1), (Range(0, 4), 1))
    assert _canonical(narrow, where[1:]) == (conditions, weights)


def test_weights_are_part_of_the_key_of_a_plan():
    model = bytes(32)
    conditions, weights = _canonical(_weights("text", (AnyOf(("x",)), 1), (AnyOf(("y",)), 1)))
    _, other = _canonical(_weights("text", (AnyOf(("x",)), 1), (AnyOf(("y",)), 2)))
    keys = [plan_key(model, conditions), *(plan_key(model, conditions, weights=one) for one in (weights, other))]
    assert len(set(keys)) == 3
    assert plan_key(model, conditions, {}, None) == keys[0]


@settings(deadline=None)
@given(st.data(), st.integers(1, 5))
def test_factors_give_the_entries_exactly_their_shares(data, count):
    shares = data.draw(st.lists(st.floats(0.01, 100), min_size=count, max_size=count))
    probabilities = data.draw(st.lists(st.floats(1e-12, 0.19), min_size=count, max_size=count))
    values = TEXT.domain.categories[:count]
    _, weights = _canonical(_weights("text", *((AnyOf((v,)), s) for v, s in zip(values, shares, strict=True))))
    factors = weights.factors(probabilities)
    assert factors.max() == 1
    masses = factors * probabilities
    expected = [entry.share for entry in weights.entries]
    assert (masses / masses.sum()).tolist() == pytest.approx(expected, rel=1e-13)


def test_an_entry_that_no_row_can_have_is_named():
    _, weights = _canonical(_weights("text", (AnyOf(("y", "z")), 1), (AnyOf(("x",)), 1)))
    names = [entry.label for entry in weights.entries]
    probabilities = [0.0 if name == "'y' or 'z'" else 0.5 for name in names]
    with pytest.raises(InvalidConditionError, match="has 'y' or 'z' in column 'text'; it cannot have a share") as error:
        weights.factors(probabilities)
    assert error.value.metadata == {"column": "text"}
    with pytest.raises(InvalidConditionError):
        weights.factors([math.nan, 1.0])


@pytest.mark.parametrize(
    ("weights", "label"),
    [
        (_weights("text", (AnyOf(("x", "", "Zürich", "y", "z")), 1)), "'x' or '' or 'Zürich' or 2 more"),
        (_weights("number", (AnyOf((1, 3, None)), 1)), "1 or 3 or missing cells"),
        (_weights("number", (IsNull(False), 1)), "any value"),
        (_weights("day", (_below("2013-02-01"), 1)), "values up to 2013-01-31"),
        (_weights("day", (Range("2013-02-01", "2013-03-01"), 1)), "values from 2013-02-01 to 2013-03-01"),
        (_weights("double", (Range(0.5), 1)), "values from 0.5 on"),
        (_weights("day", (Range(date.min, date.max, True, False), 1)), "values from 0001-01-02 to 9999-12-31"),
    ],
)
def test_entries_are_named_by_what_they_hold(weights, label):
    assert [entry.label for entry in _canonical(weights)[1].entries] == [label]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([(Range(-6, 0), 1), (Range(0, 6), 1)], "overlap: values from -6 to 0, and values from 0 to 6;"),
        ([(AnyOf((1, 2)), 1), (AnyOf((3,)), 1), (AnyOf((2,)), 1)], "two weights of column 'number' overlap"),
        ([(AnyOf((1, None)), 1), (IsNull(), 1)], "overlap: 1 or missing cells, and missing cells;"),
        ([(IsNull(False), 1), (AnyOf((5,)), 1)], "overlap: any value, and 5;"),
        ([(Range(7), 1), (Range(0, 6), 1)], "lies between -6 and 6 in training"),
        ([(Range(2, 1), 1)], "which is empty"),
    ],
)
def test_entries_that_overlap_or_cannot_be_are_refused(entries, message):
    with pytest.raises(InvalidConditionError, match=message) as error:
        _canonical(_weights("number", *entries))
    assert error.value.metadata == {"column": "number"}


def test_categories_may_have_one_weight():
    with pytest.raises(InvalidConditionError, match="overlap: 'x' or 'y', and 'y'"):
        _canonical(_weights("text", (AnyOf(("x", "y")), 1), (AnyOf(("y",)), 1)))
    with pytest.raises(ValueNotFoundError, match="Zurich"):
        _canonical(_weights("text", (AnyOf(("Zurich",)), 1)))
    with pytest.raises(InvalidConditionError, match="has no order"):
        _canonical(_weights("text", (Range("a"), 1)))
    schema = TableSchema((replace(TEXT, domain=replace(TEXT.domain, nullable=False)),))
    with pytest.raises(InvalidConditionError, match="never missing in training"):
        canonical_weights(_weights("text", (IsNull(), 1)), (), schema)


def test_an_entry_that_the_condition_excludes_is_refused():
    with pytest.raises(InvalidConditionError, match="the condition on column 'number' excludes values up to -1, which"):
        _canonical(_weights("number", (_below(0), 1), (Range(0), 1)), [Predicate("number", Range(0, 4))])


@pytest.mark.parametrize("column", ["key", "nothing"])
def test_columns_that_have_no_weights(column):
    with pytest.raises((InvalidConditionError, ColumnNotFoundError), match=column):
        _canonical(_weights(column, (AnyOf((1,)), 1)))


@pytest.mark.parametrize("share", [0.0, -1.0, math.inf, -math.inf, math.nan, 5e-324, 9e-12])
def test_shares_are_positive_and_finite(share):
    with pytest.raises(InvalidFieldError) as error:
        _canonical(_weights("text", (AnyOf(("x",)), 10.0), (AnyOf(("y",)), share)))
    assert [one.field for one in error.value.violations] == ["where.weights[0].entries[1].share"]


def test_entries_and_values_are_bounded():
    many = TableSchema((replace(TEXT, domain=Domain(categories=tuple(map(str, range(MAX_WEIGHTS + 1))))),))
    entries = [(AnyOf((str(number),)), 1.0) for number in range(MAX_WEIGHTS + 1)]
    assert len(canonical_weights(_weights("text", *entries[1:]), (), many)[1].entries) == MAX_WEIGHTS
    for wrong in ([], entries):
        with pytest.raises(InvalidFieldError, match=rf"has {len(wrong)} entries; 1 to {MAX_WEIGHTS}"):
            canonical_weights(_weights("text", *wrong), (), many)
    values = tuple(map(float, np.linspace(-1, 1, MAX_VALUES // 2)))
    with pytest.raises(InvalidFieldError, match=rf"has {MAX_VALUES + 1} values; at most {MAX_VALUES}"):
        _canonical(_weights("double", (AnyOf(values), 1), (AnyOf((*values, 0.5)), 1)))
