"""Codecs as they are fitted: every value survives, and the policies for categories hold."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowmint.codecs import CategoryCodec, IdentityCodec, NumericCodec
from rowmint.codecs.identity import MISSING_ONE
from rowmint.codecs.numeric import ALPHA_ONE
from rowmint.errors import InvalidFieldError
from rowmint.schema import ColumnKind, ColumnSpec, DataType, Domain
from rowmint.schema.arrays import ColumnArray
from rowmint.schema.forms.id_pattern import MAX_IDS
from tests.tables_to_fit import column
from trainer_service.fitting.encoding.category_encoder import CategoryEncoder, fit_category
from trainer_service.fitting.encoding.column_fits import fit_identity
from trainer_service.fitting.encoding.modes import MAX_POINTS, compress, fit_mixture
from trainer_service.fitting.encoding.number_encoder import NumberEncoder
from trainer_service.fitting.encoding.number_modes import fit_number
from trainer_service.fitting.encoding.summary import CategorySummary, IdentitySummary, NumberSummary
from trainer_service.fitting.encoding.table import Holdout, Table, ordered
from trainer_service.fitting.keys import random
from trainer_service.fitting.options import ColumnOverride, EncodingOptions, HighCardinality, Pieces


def summarised(spec: ColumnSpec, array: pa.Array) -> NumberSummary:
    summary = NumberSummary(spec)
    # Two batches: merging is part of it.
    middle = len(array) // 2
    for part in (array[:middle], array[middle:]):
        summary.add(part, np.ones(len(part), np.bool_))
    return summary


def round_trip(
    spec: ColumnSpec, array: pa.Array, override: ColumnOverride | None = None, *, pieces: Pieces | None = None
) -> tuple[ColumnArray, ColumnArray, NumericCodec]:
    options = EncodingOptions(1, pieces=pieces, overrides=(override,) if override else ())
    fitted = fit_number(spec, summarised(spec, array), options)
    assert isinstance(fitted.encoder, NumberEncoder)
    choices, alpha = fitted.encoder.encode(array, random(1, "test"))
    assert np.abs(alpha).max(initial=0) <= 1
    fixed = np.rint(alpha.astype(np.float64) * ALPHA_ONE).astype(np.int64)
    codec = fitted.encoder.codec
    return ordered(array, spec), codec.decode(choices.astype(np.intp), fixed if codec.scalar else None), codec


def assert_same(before: ColumnArray, after: ColumnArray) -> None:
    assert before.missing().tolist() == after.missing().tolist()
    present = ~before.missing()
    assert before.values[present].tolist() == after.values[present].tolist()


whole = st.lists(st.none() | st.integers(-(10**6), 10**6), min_size=1, max_size=60)


@given(whole, st.integers(1, 12), st.sampled_from([None, Pieces(256, 256), Pieces(8, 4, rows=3, rows_per_value=2)]))
def test_every_integer_survives(cells: list[int | None], max_modes: int, pieces: Pieces | None) -> None:
    spec = column("x", ColumnKind.NUMERICAL, DataType.INT64)
    override = ColumnOverride("x", max_modes=max_modes)
    before, after, _ = round_trip(spec, pa.array(cells, pa.int64()), override, pieces=pieces)
    assert_same(before, after)


@given(st.lists(st.none() | st.integers(-(10**6), 10**6).map(lambda cents: cents / 100), min_size=1, max_size=60))
def test_every_double_of_learned_decimals_survives(cells: list[float | None]) -> None:
    spec = column("x", ColumnKind.NUMERICAL, DataType.DOUBLE, decimals=2)
    before, after, codec = round_trip(spec, pa.array(cells, pa.float64()))
    assert codec.on_grid or not any(cell is not None for cell in cells)
    assert_same(before, after)


@given(st.lists(st.none() | st.decimals(-10_000, 10_000, places=2), min_size=1, max_size=60))
def test_every_decimal_survives(cells: list[Any]) -> None:
    spec = column("x", ColumnKind.NUMERICAL, DataType.DECIMAL, decimals=2)
    before, after, _ = round_trip(spec, pa.array(cells, pa.decimal128(18, 2)))
    assert_same(before, after)


@given(st.lists(st.none() | st.dates(), min_size=1, max_size=60))
def test_every_day_survives(cells: list[Any]) -> None:
    spec = column("x", ColumnKind.DATETIME, DataType.DATE)
    before, after, _ = round_trip(spec, pa.array(cells, pa.date32()))
    assert_same(before, after)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=60), st.integers(1, 86_400 * 10**6))
def test_every_instant_on_a_step_grid_survives(steps: list[int], step: int) -> None:
    spec = column("x", ColumnKind.DATETIME, DataType.TIMESTAMP)
    array = pa.array([1_357_041_600_000_000 + step * count for count in steps], pa.int64()).cast(pa.timestamp("us"))
    before, after, _ = round_trip(spec, array)
    assert_same(before, after)


@given(st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=60))
def test_every_double_survives_to_the_scalars_precision(cells: list[float]) -> None:
    spec = column("x", ColumnKind.NUMERICAL, DataType.DOUBLE)
    before, after, codec = round_trip(spec, pa.array(cells, pa.float64()))
    bound = max(codec.widths.max(initial=0) * 2e-7, 1e-300)
    assert np.abs(before.values.astype(float) - after.values.astype(float)).max() <= bound


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=30))
def test_the_whole_range_of_int64_can_be_learned(cells: list[int]) -> None:
    spec = column("x", ColumnKind.NUMERICAL, DataType.INT64)
    before, after, codec = round_trip(spec, pa.array(cells, pa.int64()))
    bound = codec.step * max(codec.widths.max(initial=0) * 2e-7, 0.5) + 2.0**12
    assert np.abs(before.values.astype(float) - after.values.astype(float)).max() <= bound


def test_many_distinct_values_are_never_clipped() -> None:
    draws = np.random.Generator(np.random.Philox(3))
    values = np.concatenate([draws.normal(0, 1, 150_000), [-1e6, 1e9], np.zeros(5000)])
    spec = column("x", ColumnKind.NUMERICAL, DataType.DOUBLE)
    before, after, codec = round_trip(spec, pa.array(values))
    assert 0.0 in codec.points
    error = np.abs(before.values.astype(float) - after.values.astype(float))
    assert error[:150_000].max() < 1e-3
    assert (after.values[150_000], after.values[150_001]) == (pytest.approx(-1e6, 1e-3), pytest.approx(1e9, 1e-3))
    assert (after.values[150_002:] == 0).all()


def test_values_of_one_percent_are_points_and_steps_are_found() -> None:
    spec = column("x", ColumnKind.NUMERICAL, DataType.INT64)
    values = [0] * 500 + [40, 60] * 20 + list(range(100, 1000, 10))
    fitted = fit_number(spec, summarised(spec, pa.array(values)), EncodingOptions(1))
    assert isinstance(fitted.codec, NumericCodec)
    assert (fitted.codec.step, fitted.codec.origin, fitted.codec.upper) == (10, 0, 99.0)
    assert fitted.codec.points.tolist() == [0.0, 4.0, 6.0]
    assert (fitted.spec.domain.minimum, fitted.spec.domain.maximum, fitted.spec.nullable) == (0, 990, False)


@pytest.mark.parametrize("cells", [[5, 5, 5], [None, 5, 5], [None, None]])
def test_constant_and_empty_columns_have_no_scalar(cells: list[int | None]) -> None:
    spec = column("x", ColumnKind.NUMERICAL, DataType.INT64)
    before, after, codec = round_trip(spec, pa.array(cells, pa.int64()))
    assert (codec.scalar, codec.nullable) == (False, None in cells)
    assert_same(before, after)


def test_declared_nullable_column_has_a_choice_for_missing() -> None:
    spec = column("x", ColumnKind.NUMERICAL, DataType.INT64, nullable=True)
    assert fit_number(spec, summarised(spec, pa.array([1, 2])), EncodingOptions(1)).spec.nullable


def test_a_double_off_its_decimals_leaves_the_step_grid() -> None:
    spec = column("x", ColumnKind.NUMERICAL, DataType.DOUBLE, decimals=1)
    assert not summarised(spec, pa.array([0.5, 1.25])).on_grid
    assert summarised(spec, pa.array([0.5, 1.2])).on_grid


def test_mixture_finds_separate_modes() -> None:
    draws = np.random.Generator(np.random.Philox(1))
    values = np.unique(np.concatenate([draws.normal(-50, 1, 4000), draws.normal(20, 3, 6000)]))
    mixture = fit_mixture(values, np.ones(len(values)), 10, 1e-6)
    low = mixture.means < -30
    assert mixture.weights[low].sum() == pytest.approx(0.4, abs=0.02)
    assert (mixture.sigmas[low] < 2).all()
    again = fit_mixture(values, np.ones(len(values)), 10, 1e-6)
    assert mixture.means.tolist() == again.means.tolist()
    points, weights = compress(values, np.ones(len(values)))
    assert len(points) <= MAX_POINTS
    assert weights.sum() == len(values)


def categories(counts: dict[Any, int], override: ColumnOverride, nullable: bool = False) -> tuple[Any, CategoryCodec]:
    spec = column("x", ColumnKind.CATEGORICAL, DataType.STRING)
    array = pa.array([value for value, count in counts.items() for _ in range(count)] + [None] * nullable)
    summary = CategorySummary(spec)
    summary.add(array, np.ones(len(array), np.bool_))
    fitted = fit_category(spec, summary, EncodingOptions(1, overrides=(override,)))
    assert isinstance(fitted.encoder, CategoryEncoder)
    choices, _ = fitted.encoder.encode(array, random(1, "test"))
    assert choices.min() >= 0
    assert Counter(choices.tolist()).total() == len(array)
    return fitted.spec, fitted.encoder.codec


COUNTS = {"b": 50, "a": 50, "c": 20, "d": 3, "e": 2, "f": 1}


@pytest.mark.parametrize(
    ("override", "names", "choices"),
    [
        ({}, ("a", "b", "c", "d", "e", "f"), 6),
        ({"max_categories": 3}, ("a", "b", "c", "d", "e", "f"), 4),
        ({"max_categories": 3, "high_cardinality": HighCardinality.OTHER}, ("a", "b", "c", "other"), 4),
        ({"high_cardinality": HighCardinality.OTHER}, ("a", "b", "c", "d", "e", "other"), 6),
        ({"high_cardinality": HighCardinality.OTHER, "min_category_count": 1}, ("a", "b", "c", "d", "e", "f"), 6),
        ({"high_cardinality": HighCardinality.OTHER, "min_category_count": 3}, ("a", "b", "c", "d", "other"), 5),
        ({"min_category_count": 3}, ("a", "b", "c", "d", "other"), 5),
        ({"min_category_count": 3, "max_categories": 2}, ("a", "b", "c", "d", "other"), 3),
        ({"min_category_count": 1000}, ("other",), 1),
    ],
)
def test_rare_categories_follow_the_policy(override: dict[str, Any], names: tuple[str, ...], choices: int) -> None:
    spec, codec = categories(COUNTS, ColumnOverride("x", **override))
    assert set(spec.domain.categories) == set(names)
    assert spec.domain.categories[:2] == (names[:2] if len(names) > 1 else names)
    assert (codec.size, codec.choices) == (len(names), choices)


def test_rare_values_keep_their_frequencies() -> None:
    spec, codec = categories(COUNTS, ColumnOverride("x", max_categories=3), nullable=True)
    assert spec.domain.categories[3:] == ("d", "e", "f")
    assert (codec.rare_weights / 2.0**32).round(3).tolist() == [0.5, 0.333, 0.167]
    assert codec.nullable


def test_too_many_values_are_refused_where_requested() -> None:
    with pytest.raises(InvalidFieldError, match="6 values"):
        categories(COUNTS, ColumnOverride("x", max_categories=5, high_cardinality=HighCardinality.REFUSE))


def test_a_real_other_is_one_with_the_folded() -> None:
    spec, _ = categories({"other": 9, "a": 20, "b": 1}, ColumnOverride("x", min_category_count=2))
    assert spec.domain.categories == ("a", "other")


KEY = ColumnSpec("k", ColumnKind.ID, DataType.INT64)
TEXT_KEY = ColumnSpec("k", ColumnKind.ID, DataType.STRING)


def ids(spec: ColumnSpec, *batches: Sequence[object]) -> tuple[ColumnSpec, IdentityCodec]:
    """Fit a column of ids to the cells of some batches."""
    summary = IdentitySummary(spec)
    kind = pa.int64() if spec.data_type is DataType.INT64 else pa.string()
    for batch in batches:
        summary.add(pa.array(batch, kind), np.zeros(len(batch), np.bool_))
    fitted = fit_identity(spec, summary)
    assert isinstance(fitted.codec, IdentityCodec)
    return fitted.spec, fitted.codec


@pytest.mark.parametrize(
    ("cells", "digits"),
    [([10**12 + 5, 10**12], 13), ([4711, 1024, 9000], 4), ([-7, 3], 1), ([10**17 + place for place in (2, 1)], 18)],
)
def test_integer_ids_have_the_width_found(cells: list[int], digits: int) -> None:
    base = 10 ** (digits - 1)
    assert ids(KEY, cells)[1] == IdentityCodec(True, base, MAX_IDS - base, "", first=9 * base)


@pytest.mark.parametrize(
    ("batches", "first"),
    [
        (([0, 1, 2], [3, 4]), 0),
        (([1, 2, 3], [4]), 1),
        (([2, 3, 5], [6, 9]), 1),  # rows kept out of training are missing
    ],
)
def test_row_numbers_continue(batches: tuple[list[int], ...], first: int) -> None:
    assert ids(KEY, *batches)[1] == IdentityCodec(True, first, MAX_IDS, "", sequential=True)


@pytest.mark.parametrize("batches", [([1, 2], [2, 3]), ([1, 3], [2]), ([40, 41], [42]), ([1, 2, 3, 90],)])
def test_other_integers_do_not_count_rows(batches: tuple[list[int], ...]) -> None:
    assert not ids(KEY, *batches)[1].sequential


def test_text_ids_have_the_pattern_of_their_column() -> None:
    learned = replace(TEXT_KEY, id_pattern="N[0-9]{5}")
    assert ids(learned, ["N12345"]) == (
        replace(learned, domain=Domain(nullable=False)),
        IdentityCodec(False, 0, sum(10**digits for digits in range(5, 18)), "N[0-9]{5,17}", first=10**5),
    )
    assert ids(replace(TEXT_KEY, id_pattern="[a-z]{9}"), ["a"])[1] == IdentityCodec(False, 0, 26**9, "[a-z]{9}")
    assert ids(TEXT_KEY, ["?"])[0].id_pattern == "id-[0-9]{12}"


def test_integer_ids_are_of_the_pattern_declared() -> None:
    declared = replace(KEY, id_pattern="[1-9][0-9]{9}")
    assert ids(declared, [5])[1] == IdentityCodec(True, 10**9, 9 * 10**9, "")
    for pattern in ("N[0-9]{5}", "[0-9]{5}", "[1-9][0-9]{18}"):
        with pytest.raises(InvalidFieldError, match="does not describe the integers"):
            ids(replace(KEY, id_pattern=pattern), [5])


def test_long_streams_continue_with_wider_ids() -> None:
    key = bytes(16)
    numbers = ids(KEY, [47, 11])[1]
    assert sorted(numbers.values(0, 90, key).tolist()) == list(range(10, 100))
    assert numbers.values(88, 5, key).tolist()[2:] == [100, 101, 102]
    texts = ids(replace(TEXT_KEY, id_pattern="N[0-9]{1}"), ["N1"])[1]
    made = texts.texts(texts.values(0, 111, key))
    assert sorted(made[:10]) == [f"N{digit}" for digit in range(10)]
    assert made[10:] == [*(f"N{number:02d}" for number in range(100)), "N000"]


def test_ids_are_missing_as_often_as_they_were() -> None:
    column, codec = ids(replace(TEXT_KEY, id_pattern="N[0-9]{5}"), ["N12345", None], [None, None])
    assert (column.nullable, codec.missing) == (True, 3 * MISSING_ONE // 4)


def test_holdout_depends_on_digest_and_row_only(tmp_path: Path) -> None:
    spec = column("x", ColumnKind.NUMERICAL, DataType.INT64)
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"x": pa.array(range(10_000))}), path, row_group_size=777)

    def kept(digest: bytes, fraction: float) -> list[int]:
        table = Table(path, (spec,), Holdout.of(digest, fraction))
        return [value for batch in table.batches(lambda: False) for value in batch.column(0).to_pylist()]

    def left_out(digest: bytes, fraction: float, most: int = 10_000) -> list[int]:
        found: list[int] = (
            Table(path, (spec,), Holdout.of(digest, fraction)).held_out(most, lambda: False)["x"].to_pylist()
        )
        return found

    assert kept(b"a", 0.0) == list(range(10_000))
    assert left_out(b"a", 0.0) == []
    assert left_out(b"a", 0.2) == sorted(set(range(10_000)) - set(kept(b"a", 0.2)))
    some = left_out(b"a", 0.2, 50)
    assert (len(some), some) == (50, sorted(set(some) & set(left_out(b"a", 0.2))))
    # From all over a table that may be sorted.
    assert (min(some) < 1000, max(some) > 9000) == (True, True)
    assert kept(b"a", 0.2) == kept(b"a", 0.2) != kept(b"b", 0.2)
    assert len(kept(b"a", 0.2)) == pytest.approx(8000, abs=150)
    assert set(kept(b"a", 0.3)) < set(kept(b"a", 0.2))


def test_pieces_meet_but_for_wide_gaps() -> None:
    """A value that no training row has is possible between those that rows have; minute 77 of an hour is not."""
    draws = np.random.default_rng(6)
    hours, minutes = draws.integers(0, 3, 400), draws.integers(0, 60, 400)
    times = column("t", ColumnKind.NUMERICAL, DataType.INT64)
    fitted = fit_number(times, summarised(times, pa.array(hours * 100 + minutes)), EncodingOptions(1, pieces=PIECES))
    codec = fitted.codec
    assert isinstance(codec, NumericCodec)
    made = codec.decode(*_every(codec)).values
    assert {int(value) % 100 // 10 for value in made} == set(range(6))
    assert set(made.tolist()) >= set((hours * 100 + minutes).tolist())
    real = column("x", ColumnKind.NUMERICAL, DataType.DOUBLE)
    cells = draws.normal(size=400)
    codec = fit_number(real, summarised(real, pa.array(cells)), EncodingOptions(1, pieces=PIECES)).codec
    assert isinstance(codec, NumericCodec)
    order = np.argsort(codec.centers)
    lows, highs = (codec.centers - codec.widths)[order], (codec.centers + codec.widths)[order]
    middle = slice(4, -5)  # far out, values are few and gaps may be wide
    assert lows[1:][middle] == pytest.approx(highs[:-1][middle])


def _every(codec: NumericCodec) -> tuple[np.ndarray, np.ndarray]:
    """Return every piece at many places, as choices and scalars."""
    places = np.linspace(-ALPHA_ONE, ALPHA_ONE - 1, 201).astype(np.int64)
    choices = np.arange(codec.choices)
    return np.repeat(choices, len(places)), np.tile(places, len(choices))


PIECES = Pieces(most=1024, values=0, rows=10)
