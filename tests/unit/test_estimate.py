"""What an estimate is made of: the whole table's epochs and steps, the fits that only choose, the family's memory."""

import itertools
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from rowmint.schema import ColumnKind, DataType, TableSchema
from tests.tables_to_fit import DIGEST, TableToFit, column
from trainer_service.config import TrainingConfig, effective_schema, encoding_options
from trainer_service.fitting import estimate as estimating
from trainer_service.fitting.context import FitContext
from trainer_service.fitting.encoding.encoded_table import EncodedTable, encode_table
from trainer_service.fitting.encoding.table import Holdout, Table
from trainer_service.fitting.families.circuit.config import CircuitConfig
from trainer_service.fitting.families.circuit.fitter import CircuitFitter
from trainer_service.fitting.families.hyperparameters import FamilyConfig, FitSize
from trainer_service.fitting.families.tvae.config import TvaeConfig
from trainer_service.fitting.options import ExportOptions

SAMPLED = 250


def table_of(rows: int, columns: int) -> TableToFit:
    """Return numbers that all follow one hidden number."""
    draws = np.random.default_rng(columns)
    hidden = draws.normal(size=rows)
    cells = {
        f"c{index}": np.rint(20 * hidden + 10 * draws.normal(size=rows)).astype(int).tolist()
        for index in range(columns)
    }
    schema = TableSchema(tuple(column(name, ColumnKind.NUMERICAL, DataType.INT64) for name in cells))
    return TableToFit(dict(cells), schema)


def encoded(table: TableToFit, config: TrainingConfig, folder: Path) -> EncodedTable:
    effective = effective_schema(config, table.schema).modelled()
    reading = Table(table.write(folder / "t.parquet"), effective.columns, Holdout.of(DIGEST, config.holdout_fraction))
    return encode_table(reading, encoding_options(config), folder, lambda: False)


@pytest.mark.parametrize(
    ("config", "epochs"),
    [
        (CircuitConfig(), 20),
        (CircuitConfig(epochs=3, states=4), 3),
        (CircuitConfig(epochs=2, batch_size=100, states=8, max_bins=8), 2),
    ],
)
def test_time_is_that_of_the_whole_tables_steps(
    config: CircuitConfig, epochs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, columns = 1500, 3
    table = table_of(rows, columns)
    wanted = TrainingConfig(config, seed=1)
    real = CircuitFitter(encoded(table, wanted, tmp_path), config.settled(rows, columns), FitContext(tmp_path, 1))
    monkeypatch.setattr(estimating, "SAMPLE_ROWS", SAMPLED)
    ticks = itertools.count()
    found = estimating.estimate(
        tmp_path / "t.parquet", table.schema, wanted, tmp_path, clock=lambda: float(next(ticks))
    )
    # Each time that is taken takes one tick: encoding and making a fitter by row, a few steps, an export.
    sampled = SAMPLED // 8 * 8
    fits = 1 + config.trials(rows, columns)
    assert real.epochs == epochs
    assert found.steps_per_epoch == real.steps_per_epoch
    steps = real.epochs * real.steps_per_epoch
    assert found.total_seconds == pytest.approx(2 * rows / sampled + fits * steps / 20 + 1)


def test_a_step_is_timed_with_as_many_rows_as_the_whole_table_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = table_of(4000, 3)
    used: list[tuple[int, int]] = []
    step = CircuitFitter.step

    def counted(fitter: CircuitFitter, number: int) -> dict[str, float]:
        used.append((fitter.rows_per_step, fitter.epochs))
        return step(fitter, number)

    monkeypatch.setattr(estimating, "SAMPLE_ROWS", 1000)
    monkeypatch.setattr(CircuitFitter, "step", counted)
    estimating.estimate(table.write(tmp_path / "t.parquet"), table.schema, TrainingConfig(CircuitConfig(), 1), tmp_path)
    rows = CircuitConfig().batch_rows(4000)
    assert rows > CircuitConfig().batch_rows(1000)
    (one,) = set(used)  # and no fit is made only to choose
    assert one[0] == pytest.approx(rows, rel=0.2)
    assert one[1] == CircuitConfig().passes(4000, 3)


@pytest.mark.parametrize("config", [CircuitConfig(), CircuitConfig(epochs=4, states=8), TvaeConfig()])
@pytest.mark.parametrize(("rows", "columns"), [(150, 3), (5_000, 15), (20_000, 500), (5_000_000, 15)])
def test_what_is_settled_stays_whatever_table_it_is_fitted_to(config: FamilyConfig, rows: int, columns: int) -> None:
    settled = config.settled(rows, columns)
    settled.validate("config")
    assert settled.settled(20_000, 10) == settled
    assert settled.settled(rows, columns) == settled
    assert settled.trials(1_000, 10) == 0
    assert settled.steps_per_epoch(rows) == config.steps_per_epoch(rows)


def test_fits_that_choose_the_number_of_states_count() -> None:
    config = CircuitConfig()
    assert 0.5 < config.trials(5_000, 15) < 2
    assert config.trials(300, 15) > 3
    assert config.trials(5_000_000, 15) == 0
    assert CircuitConfig(states=16).trials(5_000, 15) == 0


@pytest.mark.parametrize(
    ("rows", "columns", "config"),
    [
        (3_000, 4, CircuitConfig(epochs=2, batch_size=2_000, states=64)),
        (1_500, 24, CircuitConfig(epochs=2, batch_size=600, states=32, max_bins=64)),
    ],
    ids=["large batches", "many parameters"],
)
def test_the_memory_of_a_circuit_is_within_a_factor_of_two(
    rows: int, columns: int, config: CircuitConfig, tmp_path: Path
) -> None:
    table = encoded(table_of(rows, columns), TrainingConfig(config, seed=1), tmp_path)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        fitter = CircuitFitter(table, config, FitContext(tmp_path, 1))
        for number in range(fitter.epochs * fitter.steps_per_epoch):
            fitter.step(number)
            if (number + 1) % fitter.steps_per_epoch == 0:
                fitter.end_epoch()
        fitter.export(ExportOptions())
        taken = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    size = FitSize(fitter.parameters, fitter.rows_per_step, table.width, columns)
    assert taken / 2 <= config.fitting_bytes(size) <= 2 * taken
