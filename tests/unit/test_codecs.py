"""Category and numeric codecs: what is encoded comes back, draws follow weights, and nothing leaves its bounds."""

import math
import sys
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowmint.codecs import CategoryCodec, NumericCodec, load_codec
from rowmint.codecs.category import WEIGHT_ONE, draw_weighted, integer_weights
from rowmint.codecs.numeric import ALPHA_ONE
from rowmint.errors import DataLossError
from rowmint.schema import ColumnKind, ColumnSpec, DataType, Domain
from rowmint.schema.arrays import ColumnArray, native_cell, native_number

NO_RARE = np.zeros(0, np.uint64)
NONE = np.zeros(0)


def _category(size, frequent, nullable):
    rare_weights = integer_weights(np.arange(1.0, size - frequent + 1)) if size > frequent else NO_RARE
    return CategoryCodec(size, frequent, nullable, rare_weights)


def _category_column(size, nullable):
    domain = Domain(categories=tuple(map(str, range(size))), nullable=nullable)
    return ColumnSpec("c", ColumnKind.CATEGORICAL, DataType.STRING, domain)


def _numeric(**changes):
    settings_ = {
        "on_grid": True, "origin": 0, "step": 1, "decimals": 0, "integral": True, "nullable": False,
        "lower": -1e18, "upper": 1e18, "centers": NONE, "widths": NONE, "points": NONE,
    }  # fmt: skip
    return NumericCodec(**{**settings_, **changes})


# --- integer weights -------------------------------------------------------------------------------------------------

COUNTS = st.lists(
    st.one_of(st.just(0.0), st.floats(1e-300, 1e300), st.integers(1, 10**9).map(float)), min_size=1, max_size=200
).filter(lambda counts: 0 < sum(counts) < math.inf)


@given(COUNTS)
def test_integer_weights_sum_to_one_and_keep_every_positive_count(counts):
    weights = integer_weights(np.array(counts)).tolist()
    assert sum(weights) == WEIGHT_ONE
    assert [weight > 0 for weight in weights] == [count > 0 for count in counts]
    total = math.fsum(counts)
    for count, weight in zip(counts, weights, strict=True):
        assert abs(weight - count / total * WEIGHT_ONE) <= len(counts) + 2


@pytest.mark.parametrize(
    "counts",
    [
        np.ones(1_000_000),
        np.concatenate([np.ones(1), np.full(1_000_000, 1e-300)]),
        np.concatenate([np.full(70_000, 1e300), np.full(70_000, 1e-300)]),
        np.concatenate([np.full(300_000, 1e-300), np.zeros(3), np.ones(1)]),
        np.array([sys.float_info.min, 1e308, 7e307]),
    ],
)
def test_many_or_uneven_counts_leave_no_residue_on_one(counts):
    weights = integer_weights(counts)
    assert int(weights.sum(dtype=np.uint64)) == WEIGHT_ONE
    assert np.array_equal(weights > 0, counts > 0)
    shares = counts / counts.sum() * WEIGHT_ONE
    assert np.abs(weights - shares).max() <= len(counts) + 2
    if np.ptp(counts) == 0:
        assert np.ptp(weights.astype(np.int64)) <= 1


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6).filter(any))
def test_a_weighted_draw_is_the_inverse_of_the_distribution_function(weights):
    cumulative = np.cumsum(np.array(weights, np.uint64), dtype=np.uint64)
    words = np.array([0, 1, 2**31, 2**32 - 1, *range(0, 2**32, 123_456_789)], np.uint64)
    expected = []
    for word in words.tolist():
        threshold = word * sum(weights) >> 32
        expected.append(next(index for index in range(len(weights)) if sum(weights[: index + 1]) > threshold))
    assert draw_weighted(cumulative, words).tolist() == expected


def test_the_first_and_last_word_of_each_weight():
    weights = integer_weights(np.array([1.0, 0.0, 3.0, 1e-9]))
    cumulative = np.cumsum(weights, dtype=np.uint64)
    for index in (0, 2, 3):
        last = int(cumulative[index]) - 1
        first = last + 1 - int(weights[index])
        assert draw_weighted(cumulative, np.array([first, last], np.uint64)).tolist() == [index, index]


# --- categories ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nullable", [False, True])
def test_every_small_category_codec_round_trips(nullable):
    words = np.array([0, 2**31, 2**32 - 1], np.uint64)
    for size in range(7):
        for frequent in range(size + 1):
            codec = _category(size, frequent, nullable)
            if codec.choices < 1:
                continue
            assert codec.choices == frequent + (size > frequent) + nullable
            codes = np.array([*range(size), *([-1] if nullable else [])], np.int32)
            choices, _ = codec.encode(ColumnArray(codes))
            assert set(choices.tolist()) == set(range(codec.choices))
            for word in words:
                back = codec.decode(choices.astype(np.intp), np.full(len(choices), word)).values
                assert back.dtype == np.int32
                for code, found in zip(codes.tolist(), back.tolist(), strict=True):
                    assert found == code if code < frequent else frequent <= found < size
            for code in codes.tolist():
                requested = (code,) if code >= 0 else ()
                allowed = codec.compatible_choices(requested, code < 0)
                assert np.flatnonzero(allowed).tolist() == [choices[codes.tolist().index(code)]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_the_type_of_choices_changes_no_code(dtype):
    codec = _category(7, 3, nullable=True)
    choices, words = np.arange(codec.choices), np.array([9, 2**20, 5, 2**31, 7], np.uint64)
    expected = codec.decode(choices, words).values.tolist()
    assert (expected[:3], expected[4]) == ([0, 1, 2], -1)
    assert 3 <= expected[3] < 7
    narrow = choices.astype(dtype)
    assert codec.decode(narrow, words).values.tolist() == expected
    assert narrow.tolist() == choices.tolist()


def test_rare_category_draws_follow_their_weights():
    # 2**16 words, one from the middle of each equal part of their range: the draw is enumerated, not sampled.
    words = (np.arange(2**16, dtype=np.uint64) << np.uint64(16)) + np.uint64(2**15)
    counts = np.array([1000.0, 200.0, 30.0, 4.0, 1.0])
    codec = CategoryCodec(7, 2, True, integer_weights(counts))
    codes = codec.decode(np.full(len(words), 2, np.intp), words).values
    found = np.bincount(codes.astype(np.intp), minlength=7)
    expected = counts / counts.sum() * len(words)
    assert found[:2].tolist() == [0, 0]
    chi_square = float(((found[2:] - expected) ** 2 / expected).sum())
    assert chi_square < 0.05  # 4 degrees of freedom: a sample of as many would have about 4
    assert np.abs(found[2:] - expected).max() <= 1


def test_other_choices_are_untouched_by_rare_category_draws():
    codec = _category(5, 2, True)
    choices = np.array([0, 1, 2, 3], np.intp)
    for word in (0, 2**32 - 1):
        codes = codec.decode(choices, np.full(4, word, np.uint64)).values.tolist()
        assert codes[:2] == [0, 1]
        assert codes[3] == -1
        assert codes[2] in (2, 3, 4)


@pytest.mark.parametrize(("size", "frequent", "nullable"), [(4, 4, False), (4, 2, True), (0, 0, True), (3, 0, False)])
def test_a_category_codec_comes_back_from_its_manifest(size, frequent, nullable):
    codec = _category(size, frequent, nullable)
    body, arrays = codec.to_manifest()
    back = load_codec(_category_column(size, nullable), body, arrays)
    assert (back.size, back.frequent, back.nullable) == (size, frequent, nullable)
    assert np.array_equal(back.rare_weights, codec.rare_weights)


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 5},
        {"head": 3},
        {"head": -1},
        {"size": "x"},
        {"size": None},
        {"codec": "numeric"},
        {"codec": "unknown"},
        {"nullable": True},
        {"tail": np.array([1, 2], np.uint64)},
        {"tail": np.zeros((2, 1), np.uint64)},
        {"tail": None},
    ],
)
def test_a_category_codec_that_cannot_be_is_refused(changes):
    body, arrays = _category(4, 2, False).to_manifest()
    for name, value in changes.items():
        if name in arrays:
            arrays = {} if value is None else {name: value}
        else:
            body = {**body, name: value}
    with pytest.raises(DataLossError, match="'c'"):
        load_codec(_category_column(4, False), body, arrays)


# --- numbers ---------------------------------------------------------------------------------------------------------

EXACT = st.integers(-(2**53), 2**53)


@settings(max_examples=200)
@given(st.lists(EXACT, min_size=1, max_size=20), st.integers(-(2**53), 2**53), st.integers(1, 1000))
def test_integers_come_back_from_the_step_grid(steps, origin, step):
    steps = [value // (2 * step) for value in steps]
    values = np.array([origin + step * value for value in steps], np.int64)
    codec = _numeric(origin=origin, step=step)
    x = codec.positions(values)
    assert x.tolist() == steps
    back = codec.natives(x)
    assert back.dtype == np.int64
    assert back.tolist() == values.tolist()


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20), st.integers(-(2**63), 2**63 - 1))
def test_integers_of_any_width_come_back_as_near_as_a_double_tells(values, origin):
    codec = _numeric(origin=origin)
    x = codec.positions(np.array(values))
    for value, position, back in zip(values, x.tolist(), codec.natives(x).tolist(), strict=True):
        assert abs(position - (value - origin)) <= 2**11
        assert abs(back - value) <= 2**12


@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**63), 2**63 - 1),
    st.one_of(st.integers(1, 10**6), st.integers(1, 2**63 - 1)),
)
def test_natives_saturate_at_the_ends_of_int64(position, origin, step):
    position = float(np.rint(position))
    (back,) = _numeric(origin=origin, step=step).natives(np.array([position])).tolist()
    exact = origin + step * int(position)
    if abs(position) <= 2**53 and -(2**63) <= exact < 2**63:
        assert back == exact
    else:
        assert -(2**63) <= back < 2**63
        # Never beyond what was requested, and on its side of the origin.
        assert min(exact, origin) <= back <= max(exact, origin)


@settings(max_examples=200)
@given(st.integers(0, 15), st.lists(st.integers(-(10**15), 10**15), min_size=1, max_size=20))
def test_doubles_of_learned_decimals_are_the_nearest_ones(decimals, units):
    cells = [float(Decimal(unit).scaleb(-decimals)) for unit in units]
    codec = _numeric(integral=False, decimals=decimals)
    x = codec.positions(np.array(cells))
    assert x.tolist() == units
    assert codec.natives(x).tolist() == cells


LONG_AGO, LATER = datetime(1850, 1, 1), datetime(2250, 1, 1)  # noqa: DTZ001 - local times
DECIMAL = ColumnSpec("a", ColumnKind.NUMERICAL, DataType.DECIMAL, Domain(decimals=3))
DAY = ColumnSpec("a", ColumnKind.DATETIME, DataType.DATE)
LOCAL = ColumnSpec("a", ColumnKind.DATETIME, DataType.TIMESTAMP)
TYPED = [
    (DECIMAL, EXACT.map(lambda units: Decimal(units).scaleb(-3))),
    (DAY, st.dates()),
    (LOCAL, st.datetimes(LONG_AGO, LATER)),
    (replace(LOCAL, time_zone="Europe/Berlin"), st.datetimes(LONG_AGO, LATER, timezones=st.just(UTC))),
]


@settings(max_examples=200)
@given(st.data())
def test_decimals_and_moments_come_back_as_points(data):
    column, strategy = data.draw(st.sampled_from(TYPED))
    cells = data.draw(st.lists(strategy, min_size=1, max_size=10))
    natives = np.array([int(native_number(cell, column)) for cell in cells], np.int64)
    origin = int(natives.min())
    codec = _numeric(origin=origin)
    codec = replace(codec, points=codec.positions(natives))
    decoded = codec.decode(np.arange(len(cells)), None).values
    if int(natives.max()) - origin <= 2**53:
        assert [native_cell(value, column) for value in decoded.tolist()] == cells


def test_modes_points_and_missing_decode_by_hand():
    codec = _numeric(
        origin=10, step=5, nullable=True, lower=-4.0, upper=30.0,
        centers=np.array([0.0, 20.0]), widths=np.array([4.0, 16.0]), points=np.array([7.0]),
    )  # fmt: skip
    assert (codec.choices, codec.scalar) == (4, True)
    choices = np.array([0, 0, 0, 1, 1, 2, 3, 0])
    alpha = np.array([0, ALPHA_ONE, -ALPHA_ONE, ALPHA_ONE, ALPHA_ONE // 2, 5, 5, ALPHA_ONE // 8 - 1])
    column = codec.decode(choices, alpha)
    #           0 ->  4 -> -4 -> 36 clipped -> 28 ->  7 -> missing -> .4999 rounds to 0
    assert column.values.tolist() == [10, 30, -10, 160, 150, 45, 0, 10]
    assert column.valid is not None
    assert column.valid.tolist() == [True] * 6 + [False, True]
    assert column.values.dtype == np.int64


def test_a_codec_of_points_alone_has_no_scalar():
    codec = _numeric(points=np.array([3.0]), integral=False, decimals=1, lower=3.0, upper=3.0)
    assert (codec.choices, codec.scalar) == (1, False)
    column = codec.decode(np.zeros(2, np.intp), None)
    assert column.values.tolist() == [0.3, 0.3]
    assert column.valid is None
    missing = _numeric(nullable=True).decode(np.zeros(2, np.intp), None)
    assert missing.missing().tolist() == [True, True]
    assert missing.values.tolist() == [0, 0]


@st.composite
def codecs(draw):
    modes = draw(st.integers(0, 3))
    floats = st.floats(-1e6, 1e6)
    lower, upper = sorted((draw(floats), draw(floats)))
    on_grid = draw(st.booleans())
    if on_grid:
        lower, upper = math.floor(lower), math.ceil(upper)
    inside = st.integers(lower, upper).map(float) if on_grid else st.floats(lower, upper)
    return _numeric(
        on_grid=on_grid,
        integral=on_grid and draw(st.booleans()),
        origin=draw(st.integers(-1000, 1000)) if on_grid else 0,
        step=draw(st.integers(1, 60)) if on_grid else 1,
        nullable=draw(st.booleans()) or not modes,
        lower=float(lower),
        upper=float(upper),
        centers=np.array(draw(st.lists(floats, min_size=modes, max_size=modes))),
        widths=np.array(draw(st.lists(st.floats(1e-3, 1e6), min_size=modes, max_size=modes))),
        points=np.array(draw(st.lists(inside, max_size=3))),
    )


@settings(deadline=None, max_examples=150)
@given(codecs(), st.data())
def test_decoded_values_keep_to_bounds_and_to_reachable_choices(codec, data):
    count = 16
    choices = np.array(data.draw(st.lists(st.integers(0, codec.choices - 1), min_size=count, max_size=count)))
    unit = st.one_of(st.integers(-ALPHA_ONE, ALPHA_ONE), st.sampled_from([-ALPHA_ONE, 0, ALPHA_ONE]))
    alpha = np.array(data.draw(st.lists(unit, min_size=count, max_size=count)))
    column = codec.decode(choices, alpha if codec.scalar else None)
    low, high = codec.natives(np.array([codec.lower, codec.upper])).tolist()
    present = ~column.missing()
    assert np.array_equal(~present, choices == codec.choices - 1 if codec.nullable else np.zeros(count, np.bool_))
    assert all(low <= value <= high for value in column.values[present].tolist())
    # A choice found unreachable never decodes to what was requested.
    first, last = sorted(data.draw(st.lists(st.floats(-2e6, 2e6), min_size=2, max_size=2)))
    null = data.draw(st.booleans())
    reachable = codec.reachable_choices([(first, last)], null)
    requested = np.where(present, (column.values >= first) & (column.values <= last), null)
    assert not (requested & ~reachable[choices]).any()


@settings(max_examples=100)
@given(codecs(), st.data())
def test_cells_are_decoded_one_by_one_whatever_the_type_of_choices(codec, data):
    count = 8
    choices = data.draw(st.lists(st.integers(0, codec.choices - 1), min_size=count, max_size=count))
    alpha = data.draw(st.lists(st.integers(-ALPHA_ONE, ALPHA_ONE), min_size=count, max_size=count))
    modes, points = len(codec.centers), codec.points.tolist()

    def position(choice, scalar):
        if choice >= modes:
            return (*points, 0.0)[choice - modes]
        x = float(codec.centers[choice]) + scalar / ALPHA_ONE * float(codec.widths[choice])
        return min(max(float(round(x)) if codec.on_grid else x, codec.lower), codec.upper)

    x = np.array([position(choice, scalar) for choice, scalar in zip(choices, alpha, strict=True)])
    present = [not (codec.nullable and choice == codec.choices - 1) for choice in choices]
    expected = [value if valid else 0 for value, valid in zip(codec.natives(x).tolist(), present, strict=True)]
    for dtype in (np.uint8, np.uint16, np.int32, np.intp):
        column = codec.decode(np.array(choices, dtype), np.array(alpha) if codec.scalar else None)
        assert column.values.tolist() == expected
        assert (~column.missing()).tolist() == present


def test_reachability_is_not_lost_to_rounding_at_the_edge():
    codec = _numeric(
        integral=False, on_grid=False, lower=-1.0, upper=1.0, centers=np.array([0.1]), widths=np.array([0.2]),
        points=np.array([0.7]), nullable=True,
    )  # fmt: skip
    top = float(codec.decode(np.zeros(1, np.intp), np.array([ALPHA_ONE])).values[0])
    assert codec.reachable_choices([(top, 1.0)], False).tolist() == [True, True, False]
    assert codec.reachable_choices([(math.nextafter(top, 2), 0.6)], True).tolist() == [False, False, True]
    assert codec.reachable_choices([(-math.inf, math.inf)], False).tolist() == [True, True, False]


NUMBER = ColumnSpec("n", ColumnKind.NUMERICAL, DataType.INT64, Domain(nullable=True))
DOUBLE = replace(NUMBER, data_type=DataType.DOUBLE)


@pytest.mark.parametrize(
    ("column", "changes"),
    [
        (NUMBER, {"origin": 2**63 - 1, "step": 2**62, "nullable": True}),
        (NUMBER, {"centers": np.array([1.0]), "widths": np.array([2.0]), "points": np.array([5.0, 6.0])}),
        (DOUBLE, {"integral": False, "on_grid": False, "points": np.array([0.1])}),
        (DOUBLE, {"integral": False, "decimals": 15, "nullable": True}),
    ],
)
def test_a_numeric_codec_comes_back_from_its_manifest(column, changes):
    codec = _numeric(**changes)
    body, arrays = codec.to_manifest()
    back = load_codec(column, body, arrays)
    for name, value in vars(codec).items():
        assert np.array_equal(vars(back)[name], value)


@pytest.mark.parametrize(
    ("column", "changes"),
    [
        (NUMBER, {}),  # no choice
        (NUMBER, {"step": 0, "nullable": True}),
        (NUMBER, {"step": 2**63, "nullable": True}),
        (NUMBER, {"origin": 2**63, "nullable": True}),
        (NUMBER, {"decimals": 16, "nullable": True}),
        (NUMBER, {"on_grid": False, "nullable": True}),
        (NUMBER, {"lower": 2.0, "upper": 1.0, "nullable": True}),
        (NUMBER, {"upper": math.inf, "nullable": True}),
        (NUMBER, {"points": np.array([math.nan])}),
        (NUMBER, {"points": np.zeros((1, 1))}),
        (NUMBER, {"centers": np.zeros(1), "widths": np.zeros(2)}),
        (replace(NUMBER, domain=Domain(nullable=False)), {"nullable": True}),
    ],
)
def test_a_numeric_codec_that_cannot_be_is_refused(column, changes):
    body, arrays = _numeric(**changes).to_manifest()
    with pytest.raises(DataLossError, match="'n'"):
        load_codec(column, body, arrays)


@pytest.mark.parametrize("name", ["bounds", "centers", "widths", "points"])
def test_a_numeric_codec_without_an_array_is_refused(name):
    body, arrays = _numeric(nullable=True).to_manifest()
    with pytest.raises(DataLossError, match=name):
        load_codec(NUMBER, body, {key: array for key, array in arrays.items() if key != name})


def test_a_day_is_no_special_case():
    codec = _numeric(origin=int(native_number(date(2013, 1, 1), DAY)), points=np.array([0.0, 364.0]))
    decoded = codec.decode(np.array([0, 1]), None).values.tolist()
    assert [native_cell(value, DAY) for value in decoded] == [date(2013, 1, 1), date(2013, 12, 31)]
