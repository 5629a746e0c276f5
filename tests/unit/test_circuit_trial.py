"""How a circuit chooses its hidden states and its epoch: by rows that a fit has not seen, where they are enough."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rowmint.errors import CancelledError
from rowmint.schema import Cell, ColumnKind, DataType, TableSchema
from tests.tables_to_fit import TableToFit, column, encode_rows
from trainer_service.config import TrainingConfig
from trainer_service.fitting.context import FitContext
from trainer_service.fitting.encoding.encoded_table import EncodedTable
from trainer_service.fitting.families.circuit.config import CircuitConfig
from trainer_service.fitting.families.circuit.fitter import CircuitFitter
from trainer_service.fitting.families.circuit.schedule import Schedule
from trainer_service.fitting.families.circuit.trial import smallest
from trainer_service.fitting.monitoring.likelihood import IMPOSSIBLE
from trainer_service.fitting.monitoring.progress import FitEvent
from trainer_service.fitting.options import ExportOptions


def classes(rows: int, columns: int, shown: float) -> TableToFit:
    """Return columns that show, with some probability each, which of three classes a row is of."""
    draws = np.random.default_rng(4)
    group = draws.integers(0, 3, rows)
    cells: dict[str, list[Cell]] = {}
    for place in range(columns):
        codes = np.where(draws.random(rows) < shown, group, draws.integers(0, 4, rows))
        cells[f"x{place}"] = [f"v{one}" for one in codes.tolist()]
    schema = TableSchema(tuple(column(name, ColumnKind.CATEGORICAL, DataType.STRING) for name in cells))
    return TableToFit(cells, schema)


def encoded(table: TableToFit, folder: Path) -> EncodedTable:
    return encode_rows(table, TrainingConfig(CircuitConfig(), seed=2), folder)


def fit(fitter: CircuitFitter) -> list[dict[str, float]]:
    """Take all steps; return what each epoch's end reports."""
    reported = []
    for number in range(fitter.epochs * fitter.steps_per_epoch):
        fitter.step(number)
        if (number + 1) % fitter.steps_per_epoch == 0:
            reported.append(fitter.end_epoch())
    return reported


def test_few_rows_take_few_states_and_all_of_them_train(tmp_path: Path) -> None:
    events: list[FitEvent] = []
    context = FitContext(tmp_path, seed=1, on_event=events.append)
    fitter = CircuitFitter(encoded(classes(220, 8, 0.5), tmp_path), CircuitConfig(), context)
    assert [event.message for event in events] == [f"trying {states} hidden states" for states in (4, 16, 32, 64)]
    network = fitter.export(ExportOptions())
    assert network.body["states"] == 4
    tried = network.choices["states"]
    assert (list(tried["tried"]), tried["rows"]) == (["4", "16", "32", "64"], 220)
    assert all(-11 < likely < -10 for likely in tried["tried"].values())
    # No row is kept out to judge epochs, and the last is published.
    assert fit(fitter)[-1] == {}
    assert (fitter.best_epoch, network.choices["epoch"]) == (fitter.epochs, {"rows": 0})
    assert sum(int(counts.sum()) for name, counts in fitter.state().items() if name.startswith("state.")) >= 8 * 219


def test_requested_states_are_not_tried(tmp_path: Path) -> None:
    fitter = CircuitFitter(encoded(classes(300, 3, 0.5), tmp_path), CircuitConfig(states=7), FitContext(tmp_path, 1))
    network = fitter.export(ExportOptions())
    assert (network.body["states"], network.choices["states"]) == (7, {"tried": {}, "rows": 0})


def test_trying_ends_when_it_is_cancelled(tmp_path: Path) -> None:
    table = encoded(classes(300, 3, 0.5), tmp_path)
    messages: list[str] = []
    looks = 0

    def cancelled() -> bool:
        nonlocal looks
        looks += bool(messages)
        return looks > 20

    context = FitContext(tmp_path, 1, on_event=lambda event: messages.append(event.message), cancelled=cancelled)
    with pytest.raises(CancelledError):
        CircuitFitter(table, CircuitConfig(), context)
    assert messages == ["trying 4 hidden states"]


ROWS = np.random.default_rng(2).normal(0, 1, 100)


@pytest.mark.parametrize(
    ("likely", "expected"),
    [
        ({4: ROWS, 16: ROWS + 0.1}, 16),
        ({4: ROWS, 16: ROWS - 0.1}, 4),
        # The rows do not agree which is better: within an error, the smaller.
        ({4: ROWS, 16: ROWS[::-1] + 0.05}, 4),
        ({4: ROWS - 1, 16: ROWS, 64: ROWS[::-1] + 0.05}, 16),
        # What fails counts as impossible.
        ({4: np.full(100, IMPOSSIBLE), 16: ROWS}, 16),
        ({4: ROWS, 16: np.full(100, IMPOSSIBLE)}, 4),
        ({4: np.full(100, IMPOSSIBLE), 16: np.full(100, IMPOSSIBLE)}, 4),
    ],
)
def test_the_smallest_number_within_an_error_of_the_best(
    likely: Mapping[int, NDArray[np.float64]], expected: int
) -> None:
    assert smallest(likely) == expected


def test_steps_become_smaller_and_the_last_epoch_takes_a_mean() -> None:
    schedule = Schedule(epochs=3, steps_per_epoch=4)
    rates = [schedule.at(number) for number in range(schedule.steps)]
    assert [rate for rate, _ in rates] == [0.9, *(1 - number / 8 for number in range(1, 8)), 1, 1 / 2, 1 / 3, 1 / 4]
    assert [follow for _, follow in rates] == [True] * 8 + [False] * 3 + [True]
    assert [Schedule(1, 2).at(number) for number in range(2)] == [(0.9, True), (0.5, True)]


def worse_from(epoch: int, judges: int) -> Callable[[CircuitFitter], NDArray[np.float32]]:
    """Return what rows kept out say where a circuit is best before some epoch."""
    return lambda fitter: np.full(judges, 0.0 if fitter._ended < epoch else -1.0, np.float32)


@pytest.mark.parametrize(("judges", "best"), [(60, 1), (49, 4)])
def test_an_epoch_is_chosen_by_rows_enough_to_tell(
    judges: int, best: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = encoded(classes(300, 3, 0.5), tmp_path)
    table = replace(table, held_out=table.at(np.arange(judges)))
    monkeypatch.setattr(CircuitFitter, "_held_out_likelihoods", worse_from(2, judges))
    fitter = CircuitFitter(table, CircuitConfig(epochs=4, states=3), FitContext(tmp_path, seed=1))
    fit(fitter)
    assert fitter.best_epoch == best


def test_an_export_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = encoded(classes(400, 3, 0.5), tmp_path)
    table = replace(table, held_out=table.at(np.arange(60)))
    monkeypatch.setattr(CircuitFitter, "_held_out_likelihoods", worse_from(2, 60))
    fitter = CircuitFitter(table, CircuitConfig(epochs=4, states=3), FitContext(tmp_path, seed=1))
    fit(fitter)
    before = {name: counts.tobytes() for name, counts in fitter.state().items()}
    first = fitter.export(ExportOptions())
    rows = fitter.sample(50).choices
    assert {name: counts.tobytes() for name, counts in fitter.state().items()} == before
    # It is the circuit of the best epoch, and so are the rows of probes and the weights that are kept.
    short = CircuitFitter(table, CircuitConfig(epochs=4, states=3), FitContext(tmp_path, seed=1))
    for number in range(short.steps_per_epoch):
        short.step(number)
    expected = short.export(ExportOptions()).arrays
    assert {name: array.tobytes() for name, array in first.arrays.items()} == {
        name: array.tobytes() for name, array in expected.items()
    }
    assert (rows == short.sample(50).choices).all()
    fitter.restore(fitter.weights())
    assert (fitter.sample(50).choices == rows).all()
