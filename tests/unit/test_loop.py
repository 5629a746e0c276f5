"""The loop over epochs: losses, probes, patience, the best weights, and fits that diverge."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rowmint.artifact import Artifact
from rowmint.errors import CancelledError, TrainingFailedError
from tests.tables_to_fit import FAMILIES, ITERATIVE, NETWORKS, TVAE, fit_table, full_table, load, sample
from trainer_service.config import TrainingConfig
from trainer_service.fitting import ExportOptions, FitContext, engine
from trainer_service.fitting.encoding.encoded_table import EncodedRows
from trainer_service.fitting.families.ctgan import fitter as ctgan_module
from trainer_service.fitting.families.independent.config import IndependentConfig
from trainer_service.fitting.families.tvae import fitter as tvae_module
from trainer_service.fitting.loop import run
from trainer_service.fitting.monitoring.monitor import TrainingMonitor, make_monitor
from trainer_service.fitting.monitoring.probe import Score
from trainer_service.fitting.monitoring.progress import Between, FitEvent, Phase, uninterrupted

TABLE = full_table().only("city", "state", "paid", "age", "price", "noise")


class Steps:
    """A fitter whose steps are counted, whose losses are given, and whose weights are the number of steps taken."""

    steps_per_epoch, rows_per_step, parameters = 10, 2, 1

    def __init__(self, loss: Callable[[int], float] = lambda number: 1.0 + number, epochs: int = 5) -> None:
        self.epochs = epochs
        self.taken = 0
        self.restored: list[list[int]] = []
        self.requested: list[int] = []
        self._loss = loss

    def step(self, number: int) -> dict[str, float]:
        assert number == self.taken
        self.taken += 1
        return {"loss": self._loss(number), "other": 0.0}

    def sample(self, rows: int) -> EncodedRows:
        self.requested.append(rows)
        return EncodedRows(np.full((rows, 1), self.taken), np.zeros((rows, 0), np.float32))

    def weights(self) -> list[NDArray[np.float32]]:
        return [np.array([self.taken], np.float32)]

    def restore(self, weights: Sequence[NDArray[np.float32]]) -> None:
        self.restored.append([int(array[0]) for array in weights])

    def state(self) -> dict[str, NDArray[np.float32]]:
        raise NotImplementedError

    def load_state(self, state: Mapping[str, NDArray[np.float32]]) -> None:
        raise NotImplementedError

    def export(self, options: ExportOptions, between: Between = uninterrupted) -> Any:
        raise NotImplementedError


def good(quality: float) -> Score:
    return Score(quality, quality, 1.0)


ALIKE = Score(0.9, 0.9, 0.001)


class Scores:
    """A probe whose scores are given by the epoch after which it is taken."""

    rows = 40

    def __init__(self, scores: dict[int, Score]) -> None:
        self.scores = scores

    def score(self, made: EncodedRows) -> Score:
        return self.scores[made.choices[0, 0] // Steps.steps_per_epoch]


def monitor(scores: Sequence[float | Score], every: int = 1, **fields: Any) -> TrainingMonitor:
    """Return a monitor whose probe scores the epochs in order."""
    found = [score if isinstance(score, Score) else good(score) for score in scores]
    probe: Any = Scores(dict(enumerate(found, 1)))
    return TrainingMonitor(probe, every, **fields)


def follow(fitter: Steps, monitored: TrainingMonitor | None = None) -> tuple[Any, list[FitEvent]]:
    events: list[FitEvent] = []
    clock = iter(range(1000)).__next__
    history = run(fitter, FitContext(Path(), 1, on_event=events.append, clock=clock), monitored)
    return history, events


def test_a_cancel_stops_within_a_step() -> None:
    steps = Steps()
    with pytest.raises(CancelledError, match="epoch 2 of 5"):
        run(steps, FitContext(Path(), 1, cancelled=lambda: steps.taken == 13))
    assert steps.taken == 13


def test_losses_are_the_means_of_an_epoch() -> None:
    history, events = follow(Steps())
    assert history.losses == {"loss": [5.5, 15.5, 25.5, 35.5, 45.5], "other": [0.0] * 5}
    assert [event.losses["loss"] for event in events] == history.losses["loss"]
    assert [event.eta_seconds for event in events] == [4, 3, 2, 1, 0]
    assert {event.rows_per_second for event in events} == {20.0}
    assert (history.epochs, history.published_epoch, history.ended, history.probes) == (5, 5, "complete", [])
    assert all(event.probe == {} for event in events)


@pytest.mark.parametrize(
    ("every", "epochs", "due"), [(1, 3, [1, 2, 3]), (3, 7, [3, 6, 7]), (3, 6, [3, 6]), (50, 4, [4])]
)
def test_probes_are_taken_when_they_are_due_and_after_the_last_epoch(every: int, epochs: int, due: list[int]) -> None:
    steps = Steps(epochs=epochs)
    history, events = follow(steps, monitor([number / 10 for number in range(1, epochs + 1)], every))
    expected = {epoch: good(epoch / 10).to_json() for epoch in due}
    assert history.probes == [{"epoch": epoch, **score} for epoch, score in expected.items()]
    assert [event.probe for event in events] == [expected.get(event.epoch, {}) for event in events]
    assert [event.epoch for event in events] == list(range(1, epochs + 1))
    # As many rows are made as are compared with; nothing is kept where nothing is to be restored.
    assert steps.requested == [Scores.rows] * len(due)
    assert steps.restored == []
    assert (history.published_epoch, history.ended) == (epochs, "complete")


def test_patience_stops_a_fit_that_gets_no_better() -> None:
    steps = Steps(epochs=9)
    history, events = follow(steps, monitor([0.5, 0.7, 0.6, 0.7, 0.9], patience=2, keep_best=True))
    # The same score again is not a better one.
    assert (history.epochs, history.published_epoch, history.ended) == (4, 2, "no better")
    assert steps.restored == [[20]]
    assert "stopped after epoch 4: 2 probes brought nothing better" in events[-1].message
    assert (events[-1].phase, events[-1].epoch, events[-1].epochs) == (Phase.FITTING, 4, 9)


def test_a_better_probe_gives_patience_back() -> None:
    history, _ = follow(Steps(epochs=6), monitor([0.5, 0.4, 0.6, 0.5, 0.7, 0.6], patience=2, keep_best=True))
    assert (history.epochs, history.published_epoch, history.ended) == (6, 5, "complete")


def test_patience_counts_probes_not_epochs() -> None:
    monitored = monitor([0.5, 0.9, 0.5, 0.5, 0.5, 0.5, 0.5], every=2, patience=2, keep_best=True)
    history, _ = follow(Steps(epochs=7), monitored)
    assert (history.epochs, history.published_epoch, history.ended) == (6, 2, "no better")


def test_the_best_weights_are_restored() -> None:
    steps = Steps()
    history, _ = follow(steps, monitor([0.5, 0.9, 0.9, 0.6, 0.7], keep_best=True))
    assert steps.restored == [[20]]
    assert (history.epochs, history.published_epoch, history.ended) == (5, 2, "complete")


def spoilt(epoch: int, value: float = math.nan) -> Callable[[int], float]:
    return lambda number: value if number == 10 * (epoch - 1) + 3 else 1.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_a_number_fails_the_fit(value: float) -> None:
    steps = Steps(spoilt(1, value))
    with pytest.raises(TrainingFailedError, match=r"the loss loss is -?(nan|inf) in epoch 1 of 5.*[Ll]ower the learn"):
        follow(steps)
    assert steps.taken == 4


def test_a_loss_that_is_not_a_number_fails_the_fit_though_there_were_probes() -> None:
    with pytest.raises(TrainingFailedError, match=r"nan in epoch 4 of 5.*with keep_best"):
        follow(Steps(spoilt(4)), monitor([0.5] * 5))


def test_with_keep_best_a_loss_that_is_not_a_number_ends_with_the_best_weights() -> None:
    steps = Steps(spoilt(4))
    history, events = follow(steps, monitor([0.5, 0.9, 0.6], keep_best=True))
    assert steps.restored == [[20]]
    assert (history.epochs, history.published_epoch, history.ended) == (3, 2, "diverged")
    assert history.losses["loss"] == [1.0] * 3
    assert [probe["epoch"] for probe in history.probes] == [1, 2, 3]
    assert "the loss loss is nan in epoch 4 of 5; going back to epoch 2" in events[-1].message


def test_keep_best_has_no_weights_to_return_to_before_its_first_probe() -> None:
    steps = Steps(spoilt(2))
    with pytest.raises(TrainingFailedError, match="nan in epoch 2 of 5"):
        follow(steps, monitor([0.5] * 5, every=3, keep_best=True))
    assert steps.restored == []


def test_two_collapsed_probes_fail_the_fit() -> None:
    steps = Steps()
    with pytest.raises(TrainingFailedError, match=r"nearly all rows are alike in epoch 3 of 5\. Lower the learning"):
        follow(steps, monitor([0.5, ALIKE, ALIKE]))
    assert steps.taken == 30


def test_one_collapsed_probe_does_not_end_a_fit() -> None:
    history, _ = follow(Steps(), monitor([ALIKE, 0.5, ALIKE, 0.6, ALIKE]))
    assert (history.epochs, history.ended) == (5, "complete")
    assert [probe["distinct"] for probe in history.probes] == [0.001, 1.0, 0.001, 1.0, 0.001]


def test_with_keep_best_two_collapsed_probes_end_with_the_best_weights() -> None:
    steps = Steps()
    history, events = follow(steps, monitor([0.5, 0.4, ALIKE, ALIKE], keep_best=True))
    assert steps.restored == [[10]]
    assert (history.epochs, history.published_epoch, history.ended) == (4, 1, "diverged")
    assert "nearly all rows are alike in epoch 4 of 5; going back to epoch 1" in events[-1].message


def test_a_collapsed_network_is_never_the_best() -> None:
    # Shapes alone may score well where one row stands for most.
    steps = Steps()
    with pytest.raises(TrainingFailedError, match="nearly all rows are alike"):
        follow(steps, monitor([ALIKE, ALIKE], keep_best=True))
    assert steps.restored == []
    history, _ = follow(steps := Steps(), monitor([0.5, ALIKE, 0.6, ALIKE, 0.4], keep_best=True))
    assert (steps.restored, history.published_epoch) == ([[30]], 3)


def test_a_network_that_has_just_begun_may_collapse_without_loss_of_patience() -> None:
    history, _ = follow(Steps(), monitor([ALIKE, 0.5, 0.6, 0.7, 0.8], patience=1, keep_best=True))
    assert (history.epochs, history.published_epoch, history.ended) == (5, 5, "complete")


def test_a_score_that_is_not_a_number_counts_as_collapsed() -> None:
    nothing = Score(math.nan, math.nan, 1.0)
    with pytest.raises(TrainingFailedError, match="nearly all rows are alike in epoch 2"):
        follow(Steps(), monitor([nothing, nothing], keep_best=True))


# From end to end: what the manifest says, and whose weights they are.


def config(family: Any, **fields: Any) -> TrainingConfig:
    return TrainingConfig(**{"family": family, "seed": 11, "threads": 1, **fields})


def longer(family: str, epochs: int, **fields: Any) -> Any:
    return dataclasses.replace(FAMILIES[family], epochs=epochs, **fields)  # type: ignore[type-var]


def training(artifact: Artifact) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(artifact.manifest)["training"]
    return found


@pytest.mark.parametrize("family", ITERATIVE)
def test_the_manifest_holds_the_probes_that_the_events_reported(family: str, tmp_path: Path) -> None:
    events: list[FitEvent] = []
    made = training(
        fit_table(TABLE, config(longer(family, 5), probe_epochs=2, holdout_fraction=0.2), tmp_path, events.append)
    )
    reported = [{"epoch": event.epoch, **event.probe} for event in events if event.probe]
    assert made["probes"] == reported
    assert [probe["epoch"] for probe in reported] == [2, 4, 5]
    for probe in reported:
        assert set(probe) == {"epoch", "quality", "shapes", "pairs", "distinct"}
        assert all(0 <= probe[name] <= 1 for name in ("quality", "shapes", "pairs", "distinct"))
        assert probe["quality"] == pytest.approx((probe["shapes"] + probe["pairs"]) / 2, abs=2e-5)
    assert (made["epochs"], made["published_epoch"], made["ended"]) == (5, 5, "complete")


@pytest.mark.parametrize("family", NETWORKS)
def test_the_best_epochs_weights_are_published(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    five = config(longer(family, 5), probe_epochs=1)
    last = fit_table(TABLE, five, tmp_path)
    # What is best is given: on so small a table it is chance.
    given = map(good, [0.5, 0.6, 0.9, 0.7, 0.8])

    def scripted(*arguments: Any, **options: Any) -> TrainingMonitor:
        return dataclasses.replace(
            make_monitor(*arguments, **options), probe=SimpleNamespace(rows=40, score=lambda _: next(given))
        )

    monkeypatch.setattr(engine, "make_monitor", scripted)
    best = fit_table(TABLE, dataclasses.replace(five, keep_best=True), tmp_path)
    made = training(best)
    assert (made["epochs"], made["published_epoch"], made["ended"]) == (5, 3, "complete")
    # A step is keyed by its number alone: a fit that ends there has the same weights.
    monkeypatch.undo()
    assert best.weights == fit_table(TABLE, config(longer(family, 3)), tmp_path).weights != last.weights


@pytest.mark.parametrize("family", NETWORKS)
def test_a_fit_that_learns_nothing_stops(family: str, tmp_path: Path) -> None:
    # Steps smaller than float32 resolves: every probe scores the same.
    rates = {"generator_lr": 1e-30} if family == "ctgan" else {"learning_rate": 1e-30}
    made = training(fit_table(TABLE, config(longer(family, 50, **rates), probe_epochs=2, patience=3), tmp_path))
    assert (made["epochs"], made["published_epoch"], made["ended"]) == (8, 2, "no better")
    assert len({probe["quality"] for probe in made["probes"]}) == 1
    assert [len(losses) for losses in made["loss_history"].values()] == [8] * len(made["loss_history"])


def diverging(monkeypatch: pytest.MonkeyPatch, family: str, at: int) -> None:
    """Let the losses be no numbers from step `at` on, and the weights too."""
    kind = ctgan_module.CtganFitter if family == "ctgan" else tvae_module.TvaeFitter
    step = kind.step

    def spoil(self: Any, number: int) -> dict[str, float]:
        if number >= at:
            self._weights.weights.fill_(math.nan)
        return step(self, number)

    monkeypatch.setattr(kind, "step", spoil)


@pytest.mark.parametrize("family", NETWORKS)
def test_a_fit_whose_weights_are_not_numbers_fails(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverging(monkeypatch, family, 12)
    with pytest.raises(TrainingFailedError, match=r"the fit diverged: the \w+ loss is nan in epoch 3 of 5"):
        fit_table(TABLE, config(longer(family, 5), probe_epochs=1), tmp_path)


@pytest.mark.parametrize("family", NETWORKS)
def test_with_keep_best_it_is_published_as_it_was(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = fit_table(TABLE, config(longer(family, 2), probe_epochs=0), tmp_path)
    diverging(monkeypatch, family, 12)
    events: list[FitEvent] = []
    wanted = config(longer(family, 5), probe_epochs=2, keep_best=True)
    artifact = fit_table(TABLE, wanted, tmp_path, events.append)
    made = training(artifact)
    assert (made["epochs"], made["published_epoch"], made["ended"]) == (2, 2, "diverged")
    assert artifact.weights == expected.weights
    assert [event.message for event in events if "going back to epoch 2" in event.message] != []
    assert {len(cells) for cells in sample(load(artifact), 50).values()} == {50}


def test_a_generator_of_one_row_fails_the_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = tvae_module.TvaeFitter.sample

    def alike(self: Any, rows: int) -> EncodedRows:
        made = draw(self, rows)
        return EncodedRows(np.repeat(made.choices[:1], rows, axis=0), np.repeat(made.alpha[:1], rows, axis=0))

    monkeypatch.setattr(tvae_module.TvaeFitter, "sample", alike)
    with pytest.raises(TrainingFailedError, match="nearly all rows are alike in epoch 4 of 5"):
        fit_table(TABLE, config(longer("tvae", 5), probe_epochs=2), tmp_path)
    # One probe is not enough to say so.
    made = training(fit_table(TABLE, config(TVAE), tmp_path))
    assert made["ended"] == "complete"
    assert made["probes"][0]["distinct"] < 0.02


@pytest.mark.parametrize("probe_epochs", [0, 10])
def test_what_is_not_iterated_is_not_probed(probe_epochs: int, tmp_path: Path) -> None:
    made = training(fit_table(TABLE, config(IndependentConfig(), probe_epochs=probe_epochs), tmp_path))
    assert (made["epochs"], made["published_epoch"], made["ended"], made["probes"]) == (0, 0, "complete", [])
