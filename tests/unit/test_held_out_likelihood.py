"""The mean likelihood of rows kept out of training, against counts."""

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rowmint.artifact import Model
from rowmint.errors import CancelledError
from rowmint.synthesizer import family as synthesizer_list
from tests.families.exemplars.config import ExemplarsConfig
from tests.families.exemplars.family import EXEMPLARS
from tests.families.exemplars.synthesizer import SYNTHESIZER
from tests.tables_to_fit import fit_table, full_table, load
from trainer_service.config import TrainingConfig
from trainer_service.fitting import families
from trainer_service.fitting.families.independent.config import IndependentConfig
from trainer_service.fitting.monitoring.likelihood import IMPOSSIBLE, HeldOutLikelihood, held_out_likelihood

TABLE = full_table(120).only("key", "city", "grade", "paid", "cost", "day")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exemplars")


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[Model]:
    """A model whose rows are training rows, some of them several times and some not at all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthesizer_list, "FAMILIES", (*synthesizer_list.FAMILIES, SYNTHESIZER))
        patch.setattr(families, "FAMILIES", (*families.FAMILIES, EXEMPLARS))
        config = TrainingConfig(ExemplarsConfig(), seed=1, probe_epochs=0)
        yield load(fit_table(TABLE, config, folder))


def rows_of(folder: Path) -> pa.Table:
    return pq.read_table(folder / "table.parquet")


def log_shares(model: Model, rows: pa.Table) -> list[float]:
    """Return the logarithm of the share of the model's rows that equal each row; `IMPOSSIBLE` where none does."""
    made: Any = model.synthesizer
    names = list(made.cells)
    counts = Counter(zip(*made.cells.values(), strict=True))
    wanted = zip(*(rows[name].to_pylist() for name in names), strict=True)
    return [math.log(counts[row] / made.size) if row in counts else IMPOSSIBLE for row in wanted]


def test_the_mean_is_that_of_the_rows_frequencies(model: Model, folder: Path) -> None:
    rows = rows_of(folder)
    expected = log_shares(model, rows)
    assert IMPOSSIBLE in expected
    assert len(set(expected)) > 2
    found = held_out_likelihood(model, rows)
    assert found is not None
    assert found.mean == pytest.approx(np.mean(expected))
    assert found.impossible == expected.count(IMPOSSIBLE)


def test_a_row_with_a_value_that_never_occurred_counts_as_impossible(model: Model, folder: Path) -> None:
    rows = rows_of(folder).slice(0, 2)
    strange = rows.set_column(1, "city", pa.array(["Quito", *rows["city"].to_pylist()[1:]]))
    strange = strange.set_column(2, "grade", pa.array([*rows["grade"].to_pylist()[:1], None], pa.int64()))
    assert held_out_likelihood(model, strange) == HeldOutLikelihood(IMPOSSIBLE, 2)
    found = held_out_likelihood(model, pa.concat_tables([strange, rows]))
    assert found is not None
    assert found.mean == pytest.approx((IMPOSSIBLE + np.mean(log_shares(model, rows))) / 2)


def test_a_family_without_a_likelihood_has_none(tmp_path: Path) -> None:
    made = load(fit_table(TABLE, TrainingConfig(IndependentConfig(), seed=1), tmp_path))
    assert held_out_likelihood(made, rows_of(tmp_path)) is None


def test_scoring_can_be_cancelled(model: Model, folder: Path) -> None:
    with pytest.raises(CancelledError):
        held_out_likelihood(model, rows_of(folder), lambda: True)
