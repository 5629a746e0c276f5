"""What benchmarks say of synthetic rows beside training rows and rows that the fit never saw."""

import numpy as np
import pandas as pd
import pytest

from tests.benchmarks import judging


def table(rows: int, seed: int) -> pd.DataFrame:
    draws = np.random.default_rng(seed)
    return pd.DataFrame({"age": draws.normal(40, 10, rows), "city": draws.choice(["Oslo", "Lima", "Quito"], rows)})


def test_copies_of_training_rows_are_nearer_to_them() -> None:
    train, holdout = table(300, 1), table(300, 2)
    found = judging.closeness(train, holdout, train)
    assert (found["nearer"], found["distance"]) == (1.0, 0.0)
    assert found["holdout_distance"] > 0


def test_copies_of_rows_never_seen_are_nearer_to_those() -> None:
    train, holdout = table(300, 1), table(300, 2)
    found = judging.closeness(train, holdout, holdout)
    assert found["nearer"] == 0.0
    assert found["distance"] == found["holdout_distance"]


def test_a_row_as_near_to_both_counts_half() -> None:
    rows = table(50, 1)
    assert judging.closeness(rows, rows, table(50, 2))["nearer"] == 0.5


def test_the_distance_is_the_mean_of_columns() -> None:
    train = pd.DataFrame({"age": [0.0, 0.0, 3.0, 3.0], "city": ["Oslo"] * 4})
    unit = train["age"].std()
    near = pd.DataFrame({"age": [0.5] * 4, "city": ["Lima"] * 4})
    far = pd.DataFrame({"age": [30.0] * 4, "city": ["Oslo"] * 4})
    assert judging.closeness(train, train, near)["distance"] == pytest.approx((0.5 / unit + 1) / 2)
    assert judging.closeness(train, train, far)["distance"] == pytest.approx(0.5)


def test_rows_that_say_the_same_count_as_one_group() -> None:
    train, holdout = (pd.DataFrame({"age": [start, start + 1.0]}) for start in (0.0, 10.0))
    scattered = judging.closeness(train, holdout, pd.DataFrame({"age": [0.0, 10.0]}))
    assert (scattered["nearer"], scattered["nearer_error"]) == (0.5, pytest.approx(0.5 / np.sqrt(2)))
    alike = judging.closeness(train, holdout, pd.DataFrame({"age": [0.0, 0.0]}))
    assert (alike["nearer"], alike["nearer_error"]) == (1.0, 0.0)


def test_a_classifier_tells_shifted_rows_and_not_others() -> None:
    rows = table(1_000, 1)
    alike = judging.c2st(rows, table(1_000, 2))
    assert abs(alike["c2st"] - 0.5) < 5 * alike["c2st_error"]
    assert judging.c2st(rows, table(1_000, 2).assign(city="Oslo"))["c2st"] > 0.7
