"""Conditions by choice against a slow oracle: every alpha, or many and those at the ends, decoded and tested."""

import math
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowmint.codecs import CategoryCodec, NumericCodec
from rowmint.codecs.category import WEIGHT_ONE, integer_weights
from rowmint.codecs.numeric import ALPHA_ONE
from rowmint.codecs.shares import CategoryShares, choice_shares, weighted_shares
from rowmint.conditions import AnyOf, ColumnCondition, Interval, NoneOf, Predicate, Range, canonical
from rowmint.schema import INT64_MAX, INT64_MIN, ColumnKind, ColumnSpec, DataType, Domain, TableSchema
from rowmint.schema.arrays import native_cell

ALPHAS = np.arange(-ALPHA_ONE, ALPHA_ONE)
COARSE = np.unique(np.concatenate([ALPHAS[:: 2**10], [ALPHAS[-1], 0, 1]]))
NONE = np.zeros(0)
WORDS = np.concatenate([[0, 1, 255, 256, 2**32 - 1], np.arange(77, 2**32, 2**23 + 12_345)]).astype(np.uint64)


def _numeric(**changes):
    settings_ = {
        "on_grid": True, "origin": 0, "step": 1, "decimals": 0, "integral": True, "nullable": False,
        "lower": -1e18, "upper": 1e18, "centers": NONE, "widths": NONE, "points": NONE,
    }  # fmt: skip
    made = {**settings_, **changes}
    return NumericCodec(**{**made, **{name: np.array(made[name], float) for name in ("centers", "widths", "points")}})


def _condition(*spans, null=False):
    return ColumnCondition("c", null, intervals=tuple(Interval(*span) for span in spans))


def _check(codec, condition, alphas=COARSE):
    """Check runs against every one of `alphas` and what lies beside a run's ends; check every draw."""
    shares = choice_shares(codec, condition)
    runs = _runs(codec, shares)
    for choice in range(codec.choices):
        ends = [alpha for first, end in runs[choice] for alpha in (first - 1, first, end - 1, end)]
        tried = np.union1d(alphas, np.array([a for a in ends if -ALPHA_ONE <= a < ALPHA_ONE], np.int64))
        inside = np.zeros(len(tried), np.bool_)
        for first, end in runs[choice]:
            inside |= (first <= tried) & (tried < end)
        cells = codec.decode(np.full(len(tried), choice), tried if codec.scalar else None)
        assert condition.satisfied(cells).tolist() == inside.tolist()
        count = sum(end - first for first, end in runs[choice])
        assert shares.of_choice[choice] * 2 * ALPHA_ONE == count
        if count:
            drawn = shares.draw(np.full(len(WORDS), choice), WORDS)
            assert condition.satisfied(drawn).all()
            by_word = [_alpha(runs[choice], int(word) * count >> 32) for word in WORDS.tolist()]
            assert shares.alphas(np.full(len(WORDS), choice), WORDS).tolist() == by_word
    return shares


def _runs(codec, shares):
    runs = [[] for _ in range(codec.choices)]
    bounds = np.cumsum(shares.totals, dtype=np.uint64)
    for first, count, end in zip(shares.firsts, shares.counts, np.cumsum(shares.weights), strict=True):
        choice = int(np.searchsorted(bounds, end, side="left"))
        runs[choice].append((int(first), int(first) + int(count)))
    return runs


def _alpha(runs, place):
    for first, end in runs:
        if place < end - first:
            return first + place
        place -= end - first
    raise AssertionError(place)


def _enumerated(codec, choice, condition):
    cells = codec.decode(np.full(len(ALPHAS), choice), ALPHAS)
    return condition.satisfied(cells)


# --- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "condition"),
    [
        (_numeric(centers=[10.3], widths=[7.7]), _condition((5, 5), (8, 11), (40, 50))),
        (_numeric(centers=[10.3], widths=[7.7], lower=9.0, upper=12.0), _condition((9, 9), (12, 12))),
        (
            _numeric(centers=[0.0], widths=[3.0], on_grid=False, integral=False),
            _condition((-0.5, math.nextafter(0.25, 0)), (1.0, 1.0)),
        ),
        (_numeric(centers=[20.0], widths=[9.0], integral=False, decimals=1), _condition((1.5, 1.9), (2.2, 9.0))),
    ],
)
def test_every_alpha_of_a_component_is_in_its_runs_or_fails_the_condition(codec, condition):
    shares = choice_shares(codec, condition)
    expected = _enumerated(codec, 0, condition)
    assert shares.of_choice.tolist() == [int(expected.sum()) / len(ALPHAS)]
    found = np.zeros(len(ALPHAS), np.bool_)
    for first, end in _runs(codec, shares)[0]:
        found[first + ALPHA_ONE : end + ALPHA_ONE] = True
    assert np.array_equal(found, expected)


CASES = {
    "several components": (
        _numeric(centers=[0.0, 100.5, 95.0], widths=[50.0, 0.5, 80.0], points=[7.0, 60.0], nullable=True),
        _condition((-10, 7), (95, 95), (100, 101), null=True),
    ),
    "no interval": (_numeric(centers=[5.0], widths=[2.0], points=[1.0], nullable=True), _condition(null=True)),
    "no component": (_numeric(points=[1.0, 3.0], nullable=True), _condition((2, 3))),
    "between two cells of a coarse grid": (
        _numeric(centers=[3.0], widths=[3.0], step=10, origin=4),
        _condition((15, 23), (24, 24), (31, 33)),
    ),
    "beyond 2**53": (
        _numeric(centers=[2.0**60], widths=[2.0**58], upper=2.0**62, origin=3),
        _condition((2**60 + 1, 2**60 + 2**40 + 7), (2**60 + 2**57, INT64_MAX)),
    ),
    "the ends of int64": (
        _numeric(centers=[0.0], widths=[2.0**63], lower=-(2.0**63), upper=2.0**63),
        _condition((INT64_MIN, INT64_MIN), (-1, 1), (INT64_MAX - 2048, INT64_MAX)),
    ),
    "steps around a far origin": (
        _numeric(centers=[-50.0], widths=[400.0], origin=INT64_MIN + 1000, step=7, lower=-142.0, upper=500.0),
        _condition((INT64_MIN, INT64_MIN + 800), (INT64_MIN + 1001, INT64_MIN + 1007)),
    ),
    "a narrower component than a step": (_numeric(centers=[2.5], widths=[1e-9]), _condition((3, 3))),
    "a width of few doubles": (
        _numeric(centers=[1.0], widths=[1e-15], on_grid=False, integral=False),
        _condition((1.0, math.nextafter(1, 2))),
    ),
    "all doubles": (
        _numeric(centers=[0.0], widths=[1.7e308], lower=-1.7e308, upper=1.7e308, on_grid=False, integral=False),
        _condition((-1e-300, 1e-300), (1e300, 1.7e308)),
    ),
    "doubles of two decimals": (
        _numeric(centers=[130.0], widths=[90.0], integral=False, decimals=2, lower=41.0, upper=219.0),
        _condition((0.41, 0.41), (0.7, 1.1), (2.18, 5.0)),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_ends_of_runs_are_exact(case):
    _check(*CASES[case])


def test_an_unconditional_choice_is_drawn_as_by_the_families_without_conditions():
    codec = _numeric(centers=[10.3, 0.0], widths=[7.7, 3.0], points=[4.0], nullable=True)
    shares = _check(codec, _condition((INT64_MIN, INT64_MAX), null=True))
    choices = np.arange(len(WORDS)) % codec.choices
    assert shares.of_choice.tolist() == [1.0] * codec.choices
    assert shares.alphas(choices, WORDS).tolist() == ((WORDS >> np.uint64(8)).astype(np.int64) - ALPHA_ONE).tolist()


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.floats(-50, 50), st.floats(0.01, 60)), max_size=4),
    st.lists(st.integers(-60, 60), max_size=3),
    st.lists(st.integers(-80, 80), min_size=2, max_size=8, unique=True).map(sorted),
    st.sampled_from([(True, True, 0, 1), (True, True, 5, 3), (True, False, -7, 1), (False, False, 0, 1)]),
    st.booleans(),
)
def test_codecs_of_any_shape(components, points, bounds, grid, nullable):
    on_grid, integral, origin, step = grid
    codec = _numeric(
        on_grid=on_grid, integral=integral, origin=origin, step=step, decimals=1 if on_grid and not integral else 0,
        centers=[center for center, _ in components], widths=[width for _, width in components],
        points=points, nullable=nullable, lower=-60.0, upper=55.0,
    )  # fmt: skip
    if not codec.choices:
        return
    scale = 1 if integral else 0.5
    pairs = zip(bounds[::2], bounds[1::2], strict=False)
    _check(codec, _condition(*((low * scale, high * scale) for low, high in pairs), null=nullable), COARSE[::97])


UTC_TIME = ColumnSpec("c", ColumnKind.DATETIME, DataType.TIMESTAMP, Domain(nullable=True), time_zone="UTC")
TYPED = {
    "decimals": (
        ColumnSpec("c", ColumnKind.NUMERICAL, DataType.DECIMAL, Domain(decimals=2, nullable=True)),
        _numeric(centers=[1234.0], widths=[400.0], points=[1000.0], nullable=True),
        [Range(Decimal("9.99"), Decimal("12.345")), NoneOf((Decimal("10.00"),))],
    ),
    "dates": (
        ColumnSpec("c", ColumnKind.DATETIME, DataType.DATE, Domain(nullable=True)),
        _numeric(centers=[15_706.0], widths=[200.0], nullable=True),
        [Range(date(2013, 1, 1), date(2013, 6, 30)), NoneOf((date(2013, 4, 1),))],
    ),
    "timestamps": (
        UTC_TIME,
        _numeric(origin=1_356_998_400_000_000, step=60_000_000, centers=[5e5], widths=[3e5], nullable=True),
        [Range(datetime(2013, 3, 1, tzinfo=UTC), datetime(2013, 12, 24, 12, 0, 30, tzinfo=UTC), True, True)],
    ),
    "doubles off the grid": (
        ColumnSpec("c", ColumnKind.NUMERICAL, DataType.DOUBLE, Domain(nullable=True)),
        _numeric(centers=[0.1], widths=[1e-3], on_grid=False, integral=False, nullable=True),
        [Range(0.1, 0.1005, True, False)],
    ),
    "values or missing": (
        ColumnSpec("c", ColumnKind.NUMERICAL, DataType.INT64, Domain(nullable=True)),
        _numeric(centers=[5.0, 6.0], widths=[4.0, 9.0], nullable=True),
        [AnyOf((3, 4, 7, None))],
    ),
}


@pytest.mark.parametrize("case", TYPED)
def test_conditions_on_columns_of_every_ordered_type(case):
    column, codec, tests = TYPED[case]
    (condition,) = canonical([Predicate("c", test) for test in tests], TableSchema((column,)))
    shares = _check(codec, condition)
    assert 0 < shares.of_choice[0] < 1
    drawn = shares.draw(np.zeros(len(WORDS), np.int64), WORDS)
    cells = [native_cell(value, column) for value in drawn.values.tolist()]
    test = tests[0]
    if isinstance(test, Range):
        assert all(test.minimum <= cell <= test.maximum for cell in cells)
    else:
        assert set(cells) == {3, 4, 7}


def test_draws_within_a_choice_are_uniform_over_the_alphas_of_all_its_runs():
    codec = _numeric(centers=[0.0], widths=[8.0])
    shares = choice_shares(codec, _condition((-6, -6), (1, 2)))
    words = (np.arange(3000, dtype=np.uint64) * np.uint64(2**32 // 3000)).astype(np.uint64)
    values, found = np.unique(shares.draw(np.zeros(3000, np.int64), words).values, return_counts=True)
    assert values.tolist() == [-6, 1, 2]
    assert np.abs(found - 1000).max() <= 1


# --- categories ------------------------------------------------------------------------------------------------------

RARE = integer_weights(np.array([5.0, 0.0, 3.0, 2.0]))
CATEGORIES = CategoryCodec(6, 2, True, RARE)


def test_categories_of_a_choice_of_their_own_count_whole_and_rare_ones_by_weight():
    shares = choice_shares(CATEGORIES, ColumnCondition("c", False, codes=(1, 2, 5)))
    assert shares.of_choice.tolist() == [0.0, 1.0, (int(RARE[0]) + int(RARE[3])) / WEIGHT_ONE, 0.0]
    drawn = shares.draw(np.full(len(WORDS), 2), WORDS).values
    total = int(RARE[0]) + int(RARE[3])
    assert drawn.tolist() == [2 if word * total >> 32 < int(RARE[0]) else 5 for word in WORDS.tolist()]
    assert shares.draw(np.array([1]), WORDS[:1]).values.tolist() == [1]


def test_a_rare_category_that_never_occurs_has_no_share():
    shares = choice_shares(CATEGORIES, ColumnCondition("c", True, codes=(0, 3)))
    assert shares.of_choice.tolist() == [1.0, 0.0, 0.0, 1.0]
    assert shares.draw(np.array([0, 3]), WORDS[:2]).values.tolist() == [0, -1]


def test_all_rare_categories_are_drawn_as_without_a_condition():
    shares = choice_shares(CATEGORIES, ColumnCondition("c", True, codes=tuple(range(6))))
    choices = np.arange(len(WORDS)) % CATEGORIES.choices
    assert shares.of_choice.tolist() == [1.0] * 4
    assert shares.draw(choices, WORDS).values.tolist() == CATEGORIES.decode(choices, WORDS).values.tolist()


@pytest.mark.parametrize(("size", "frequent", "nullable"), [(3, 3, False), (0, 0, True), (3, 0, False)])
def test_categories_without_rare_ones_frequent_ones_or_any(size, frequent, nullable):
    codec = CategoryCodec(size, frequent, nullable, integer_weights(np.ones(3))[: size - frequent])
    shares = choice_shares(codec, ColumnCondition("c", nullable, codes=tuple(range(size))))
    assert shares.of_choice.tolist() == [1.0] * codec.choices


# --- factors ---------------------------------------------------------------------------------------------------------


def test_factors_multiply_shares_and_draws():
    codec = _numeric(centers=[0.0, 20.0], widths=[8.0, 3.0], points=[5.0], nullable=True)
    low, high, missing = _condition((-100, -1)), _condition((3, 19)), _condition(null=True)
    alone = [choice_shares(codec, condition).of_choice for condition in (low, high, missing)]
    shares = weighted_shares(codec, [low, high, missing], [0.25, 1.0, 0.5])
    assert shares.of_choice.tolist() == (0.25 * alone[0] + alone[1] + 0.5 * alone[2]).tolist()
    words = (np.arange(2**14, dtype=np.uint64) << np.uint64(18)) + np.uint64(2**17)
    drawn = shares.draw(np.zeros(2**14, np.int64), words)
    assert (low.satisfied(drawn) | high.satisfied(drawn)).all()
    assert int(low.satisfied(drawn).sum()) == pytest.approx(2**14 * 0.25 * alone[0][0] / shares.of_choice[0], abs=1)
    assert shares.draw(np.array([1, 2, 3]), words[:3]).missing().tolist() == [False, False, True]


def test_factors_of_rare_categories():
    one, two = ColumnCondition("c", False, codes=(0, 2)), ColumnCondition("c", True, codes=(4,))
    shares = weighted_shares(CATEGORIES, [one, two], [0.001, 0.003])
    rare = (0.001 * int(RARE[0]) + 0.003 * int(RARE[2])) / WEIGHT_ONE
    assert shares.of_choice.tolist() == [0.001, 0.0, pytest.approx(rare, rel=1e-15), 0.003]
    words = (np.arange(2**14, dtype=np.uint64) << np.uint64(18)) + np.uint64(2**17)
    drawn = shares.draw(np.full(2**14, 2), words).values
    assert set(drawn.tolist()) == {2, 4}
    assert int((drawn == 2).sum()) == pytest.approx(2**14 * 0.001 * int(RARE[0]) / WEIGHT_ONE / rare, abs=1)


def test_factors_far_apart_keep_their_proportions_within_a_choice():
    codec = _numeric(centers=[0.0], widths=[4_000_000.0])
    one, others = _condition((7, 7)), _condition((-5_000_000, 6), (8, 5_000_000))
    shares = weighted_shares(codec, [one, others], [1.0, 1e-7])
    count = choice_shares(codec, one).of_choice[0] * 2 * ALPHA_ONE
    expected = count / (count + 1e-7 * (2 * ALPHA_ONE - count))
    weight = int(shares.weights[shares.counts == count][0])
    assert weight / int(shares.totals[0]) == pytest.approx(expected, rel=1e-8)
    weights = np.array([1, WEIGHT_ONE // 2, WEIGHT_ONE // 2 - 1], np.uint64)
    conditions = [ColumnCondition("c", False, codes=codes) for codes in ((0,), (1, 2))]
    rare = weighted_shares(CategoryCodec(3, 0, False, weights), conditions, [1.0, 1e-9])
    assert isinstance(rare, CategoryShares)
    found = rare.drawn.rare_weights
    expected = [1 / (1 + 1e-9 * (WEIGHT_ONE - 1)), *[1e-9 / (1 + 1e-9 * (WEIGHT_ONE - 1)) * WEIGHT_ONE / 2] * 2]
    assert (found / found.sum()).tolist() == pytest.approx(expected, rel=1e-8)


def test_the_least_factor_of_a_choice_still_draws_where_it_is_the_only_one():
    codec = _numeric(centers=[0.0, 20.0], widths=[8.0, 3.0])
    shares = weighted_shares(codec, [_condition((-9, 9)), _condition((10, 30))], [1e-300, 1.0])
    assert shares.of_choice.tolist() == [1e-300, 1.0]
    assert shares.draw(np.array([0, 1]), WORDS[3:5]).values.tolist() == [-8, 23]
    rare = replace(CATEGORIES, nullable=False)
    tiny = weighted_shares(rare, [ColumnCondition("c", False, codes=(5,))], [1e-300])
    assert tiny.draw(np.array([2]), WORDS[:1]).values.tolist() == [5]
