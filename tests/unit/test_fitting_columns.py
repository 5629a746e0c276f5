"""Codecs as they are fitted: every value survives, and the policies for categories hold."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowmint.codecs import CategoryCodec, NumericCodec
from rowmint.codecs.numeric import ALPHA_ONE
from rowmint.errors import InvalidFieldError
from rowmint.schema import ColumnKind, ColumnSpec, DataType
from rowmint.schema.arrays import ColumnArray
from tests.tables_to_fit import column
from trainer_service.fitting.encoding.category_encoder import CategoryEncoder, fit_category
from trainer_service.fitting.encoding.column_fits import fit_identity
from trainer_service.fitting.encoding.modes import MAX_POINTS, compress, fit_mixture
from trainer_service.fitting.encoding.number_encoder import NumberEncoder
from trainer_service.fitting.encoding.number_modes import fit_number
from trainer_service.fitting.encoding.summary import CategorySummary, IdentitySummary, NumberSummary
from trainer_service.fitting.encoding.table import Holdout, Table, ordered
from trainer_service.fitting.keys import random
from trainer_service.fitting.options import ColumnOverride, EncodingOptions, HighCardinality


def summarised(spec: ColumnSpec, array: pa.Array) -> NumberSummary:
    summary = NumberSummary(spec)
    # Two batches: merging is part of it.
    middle = len(array) // 2
    for part in (array[:middle], array[middle:]):
        summary.add(part, np.ones(len(part), np.bool_))
    return summary


def round_trip(
    spec: ColumnSpec, array: pa.Array, override: ColumnOverride | None = None, *, binned: bool = False
) -> tuple[ColumnArray, ColumnArray, NumericCodec]:
    options = EncodingOptions(1, binned=binned, overrides=(override,) if override else ())
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


@given(whole, st.integers(1, 12), st.booleans())
def test_every_integer_survives(cells: list[int | None], max_modes: int, binned: bool) -> None:
    spec = column("x", ColumnKind.NUMERICAL, DataType.INT64)
    override = ColumnOverride("x", max_modes=max_modes)
    before, after, _ = round_trip(spec, pa.array(cells, pa.int64()), override, binned=binned)
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


@pytest.mark.parametrize(
    ("spec", "low", "high", "size", "pattern"),
    [
        (ColumnSpec("k", ColumnKind.ID, DataType.INT64), 1, 999, 9 * 10**9, ""),
        (ColumnSpec("k", ColumnKind.ID, DataType.INT64), 10**12, 10**12 + 5, 9 * 10**12, ""),
        (ColumnSpec("k", ColumnKind.ID, DataType.STRING), None, None, 10**12, "id-[0-9]{12}"),
        (ColumnSpec("k", ColumnKind.ID, DataType.STRING, id_pattern="N[0-9]{5}"), None, None, 10**5, "N[0-9]{5}"),
    ],
)
def test_ids_have_a_language(spec: ColumnSpec, low: int | None, high: int | None, size: int, pattern: str) -> None:
    codec = fit_identity(spec, IdentitySummary(spec, low, high)).codec
    assert (codec.size, codec.pattern) == (size, pattern)  # type: ignore[union-attr]


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
    assert left_out(b"a", 0.2, 50) == left_out(b"a", 0.2)[:50]
    assert kept(b"a", 0.2) == kept(b"a", 0.2) != kept(b"b", 0.2)
    assert len(kept(b"a", 0.2)) == pytest.approx(8000, abs=150)
    assert set(kept(b"a", 0.3)) < set(kept(b"a", 0.2))
