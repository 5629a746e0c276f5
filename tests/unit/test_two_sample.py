"""The classifier two-sample test: its area and interval against known answers, and the columns that it compares."""

import math
from collections.abc import Mapping

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from rowmint.errors import CancelledError
from rowmint.schema.arrays import is_coded
from tests.tables_to_fit import fit_table, full_table, load, sample
from trainer_service.config import TrainingConfig
from trainer_service.fitting.families.independent.config import IndependentConfig
from trainer_service.fitting.monitoring.two_sample import (
    ComparedColumn,
    auc_and_variance,
    made_columns,
    real_columns,
    two_sample,
)

ROWS = 400

Compared = Mapping[str, ComparedColumn]


def random(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def rows(seed: int, shift: float = 0.0, *, dependent: bool = True) -> dict[str, ComparedColumn]:
    """Return rows of two numbers and a category; the second number follows the first unless it is to be independent."""
    draws = random(seed)
    first = draws.normal(shift, 1, ROWS)
    second = first + draws.normal(0, 0.3, ROWS)
    if not dependent:
        second = draws.permutation(second)
    return {
        "first": first,
        "second": second,
        "city": [("Oslo", "Rome", None)[code] for code in draws.integers(0, 3, ROWS)],
    }


def test_rows_of_one_distribution_cannot_be_distinguished() -> None:
    scores = [two_sample(rows(seed), rows(100 + seed), seed=seed) for seed in range(4)]
    assert all(abs(score.auc - 0.5) < 4 * score.standard_error for score in scores)
    assert all(0.02 < score.standard_error < 0.04 for score in scores)
    assert {score.rows for score in scores} == {ROWS}


def test_the_standard_error_is_that_of_areas_of_other_rows() -> None:
    scores = [two_sample(numbers(seed, 0.6), numbers(100 + seed, 0.2), seed=seed) for seed in range(30)]
    spread = float(np.std([score.auc for score in scores], ddof=1))
    assert 0.75 < float(np.mean([score.standard_error for score in scores])) / spread < 1.5


def numbers(seed: int, shared: float) -> dict[str, ComparedColumn]:
    draws = random(seed)
    common = draws.normal(0, shared, 150)
    return {f"x{place}": common + draws.normal(0, 1 - shared, 150) for place in range(3)}


def test_rows_that_are_shifted_are_distinguished() -> None:
    score = two_sample(rows(1), rows(2, shift=3.0), seed=1)
    assert score.auc > 0.95
    assert score.auc + score.standard_error <= 1.0


def test_columns_that_no_longer_depend_on_each_other_are_noticed() -> None:
    # Every single column is as it was.
    assert two_sample(rows(1), rows(2, dependent=False), seed=1).auc > 0.8


def test_categories_are_compared_however_many_there_are() -> None:
    real = {"word": [f"w{index % 300}" for index in range(ROWS)], "same": [True] * ROWS}
    assert two_sample(real, dict(real), seed=1).auc < 0.55
    other = {**real, "word": [f"w{index % 3}" for index in range(ROWS)]}
    assert two_sample(real, other, seed=1).auc > 0.9
    missing = {**real, "same": [None] * ROWS}
    assert two_sample(real, missing, seed=1).auc == 1.0


def test_missing_and_huge_numbers_are_compared() -> None:
    nothing: NDArray[np.float64] = np.full(ROWS, np.nan)
    huge = 2.0**60 + 256 * np.arange(ROWS)
    assert two_sample({"void": nothing, "huge": huge}, {"void": nothing, "huge": huge}, seed=1).auc < 0.5
    some = np.where(np.arange(ROWS) % 2, np.nan, 1.0)
    assert two_sample({"x": some}, {"x": nothing}, seed=1).auc == pytest.approx(0.75)
    # The missing ones are alike, the others distinguished.
    assert two_sample({"x": some}, {"x": some + 1e-9}, seed=1).auc == pytest.approx(0.875, abs=0.001)


def test_a_score_is_a_function_of_rows_and_seed() -> None:
    real, made = rows(1), rows(2)
    assert two_sample(real, made, seed=7) == two_sample(real, made, seed=7)
    assert two_sample(real, made, seed=7) != two_sample(real, made, seed=8)


def test_a_comparison_can_be_cancelled_between_rounds() -> None:
    looks = iter([False, True])
    with pytest.raises(CancelledError):
        two_sample(rows(1), rows(2), seed=1, cancelled=lambda: next(looks))
    wide: dict[str, ComparedColumn] = {f"x{place}": random(place).normal(0, 1, 20) for place in range(400)}
    count = 0

    def twice() -> bool:
        nonlocal count
        count += 1
        return count > 3

    with pytest.raises(CancelledError):
        two_sample(wide, wide, seed=1, cancelled=twice)


def test_rounds_in_slices_are_those_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    sliced = two_sample(rows(1), rows(2, 0.2), seed=1)
    monkeypatch.setattr("trainer_service.fitting.monitoring.two_sample._FEATURES", 3 * 37)
    in_other_slices = two_sample(rows(1), rows(2, 0.2), seed=1)
    monkeypatch.setattr("trainer_service.fitting.monitoring.two_sample._FEATURES", 10_000)
    assert two_sample(rows(1), rows(2, 0.2), seed=1) == sliced == in_other_slices


def test_the_area_is_the_share_of_pairs_in_order() -> None:
    draws = random(3)
    for _ in range(20):
        positive, negative = draws.integers(0, 6, 9).astype(float), draws.integers(0, 5, 7).astype(float)
        pairs = [1.0 if one > other else 0.5 if one == other else 0.0 for one in positive for other in negative]
        assert auc_and_variance(positive, negative)[0] == pytest.approx(np.mean(pairs))
    assert auc_and_variance(np.array([3.0, 4.0]), np.array([1.0, 2.0])) == (1.0, 0.0)


def test_the_interval_of_the_area_covers_the_truth() -> None:
    draws, truth = random(4), 0.5 * (1 + math.erf(0.5))  # of two normal distributions that lie one deviation apart
    covered = 0
    for _ in range(600):
        area, variance = auc_and_variance(draws.normal(1, 1, 60), draws.normal(0, 1, 60))
        covered += abs(area - truth) < 1.96 * math.sqrt(variance)
    assert covered / 600 == pytest.approx(0.95, abs=0.03)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Compared, Compared]:
    """The rows of a table with columns of every kind, and rows of a model of it."""
    folder = tmp_path_factory.mktemp("compared")
    table = full_table(300)
    model = load(fit_table(table, TrainingConfig(IndependentConfig(), seed=1), folder))
    made = made_columns(model, 9000, 3)
    columns = [model.schema.column(name) for name in made]
    assert [column.name for column in columns] == [name for name in model.schema.names if name != "key"]
    expected = sample(model, 9000, 3)
    for column in columns:
        cells = made[column.name]
        assert isinstance(cells, np.ndarray) != is_coded(column)
        if is_coded(column):
            assert cells == expected[column.name]
    return real_columns(pq.read_table(folder / "table.parquet"), columns), made


def test_real_and_made_cells_are_on_one_scale(
    compared: tuple[Compared, Compared],
) -> None:
    real, made = compared
    assert set(real) == set(made)
    for name, cells in real.items():
        others = made[name]
        if isinstance(cells, np.ndarray) and isinstance(others, np.ndarray):
            assert np.isnan(others).mean() == pytest.approx(np.isnan(cells).mean(), abs=0.03)
            if not np.isnan(cells).all():
                spread = float(np.nanstd(cells)) or 1.0
                assert np.nanmean(others) == pytest.approx(np.nanmean(cells), abs=0.1 * spread), name
        else:
            assert set(others) == set(cells), name
