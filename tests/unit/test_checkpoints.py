"""A fit that is left between two steps and resumed ends with the weights it would have had."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from rowmint.artifact import Artifact, read_manifest
from rowmint.errors import CancelledError
from tests.tables_to_fit import CTGAN, TVAE, fit_table, full_table
from trainer_service.config import TrainingConfig
from trainer_service.fitting.families.tvae.fitter import TvaeFitter
from trainer_service.fitting.monitoring.progress import FitEvent

TABLE = full_table().only("city", "state", "paid", "age", "price", "noise")
STEPS = 5  # an epoch: 300 rows in batches of 60
CONFIGS = {
    "ctgan": TrainingConfig(dataclasses.replace(CTGAN, epochs=4), seed=5, threads=1, probe_epochs=2, keep_best=True),
    "tvae": TrainingConfig(dataclasses.replace(TVAE, epochs=4), seed=5, threads=1, probe_epochs=2, keep_best=True),
}


class Kept:
    """Keeps checkpoints in memory, and stops the fit right after the one of a given step."""

    def __init__(self, stop_at: int | None = None, found: bytes | None = None) -> None:
        self.newest = found
        self.steps: list[int] = []
        self.stopped = False
        self._stop_at = stop_at
        self._next = 0

    def load(self) -> bytes | None:
        return self.newest

    def due(self) -> bool:
        return not self.stopped

    def save(self, step: int, data: bytes) -> None:
        self.newest = data
        self.steps.append(step)
        self.stopped = step == self._stop_at


def fitted(config: TrainingConfig, folder: Path, kept: Kept | None = None) -> tuple[Artifact, list[FitEvent]]:
    folder.mkdir(exist_ok=True)
    events: list[FitEvent] = []
    stopped = (lambda: False) if kept is None else (lambda: kept.stopped)
    return fit_table(TABLE, config, folder, events.append, stopped, checkpoints=kept), events


def left_at(config: TrainingConfig, folder: Path, step: int, found: bytes | None = None) -> bytes:
    """Return the checkpoint of a fit that was stopped after `step` steps."""
    kept = Kept(step, found)
    with pytest.raises(CancelledError):
        fitted(config, folder, kept)
    assert kept.newest is not None
    return kept.newest


def training(artifact: Artifact) -> dict[str, Any]:
    found: dict[str, Any] = read_manifest(artifact.manifest)["training"]
    return found


@pytest.fixture(scope="module", params=CONFIGS)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingConfig, Artifact]:
    config = CONFIGS[request.param]
    return config, fitted(config, tmp_path_factory.mktemp("whole"))[0]


@pytest.fixture(scope="module")
def after_seven(whole: tuple[TrainingConfig, Artifact], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The checkpoint of seven steps."""
    return left_at(whole[0], tmp_path_factory.mktemp("seven"), 7)


# Before the first step, within an epoch, between two, after a probe, before the last step.
@pytest.mark.parametrize("step", [0, 1, STEPS - 1, STEPS, 2 * STEPS, 2 * STEPS + 3, 4 * STEPS - 1])
def test_weights_are_those_of_an_uninterrupted_fit(whole, tmp_path, step):
    config, expected = whole
    found, events = fitted(config, tmp_path, Kept(found=left_at(config, tmp_path, step)))
    assert found.model_digest == expected.model_digest
    assert found.weights == expected.weights
    reported, expected_of_all = training(found), training(expected)
    for name in ("loss_history", "probes", "epochs", "published_epoch", "ended", "reproducible"):
        assert reported[name] == expected_of_all[name], name
    assert (reported["resumed_steps"], expected_of_all["resumed_steps"]) == ([step], [])
    assert reported["reproducible"] is True
    begun = next(event for event in events if event.message.startswith("resumed"))
    assert begun.message == f"resumed after {step} steps"
    assert [event.epoch for event in events if event.losses] == list(range(step // STEPS + 1, 5))


def test_a_fit_may_be_left_many_times(whole, tmp_path):
    config, expected = whole
    data = None
    for step in (2, 7, 8, 15):
        data = left_at(config, tmp_path, step, data)
    found, _ = fitted(config, tmp_path, Kept(found=data))
    assert found.model_digest == expected.model_digest
    assert training(found)["resumed_steps"] == [2, 7, 8, 15]


def test_looking_at_a_fit_changes_nothing(whole, tmp_path):
    config, expected = whole
    kept = Kept()
    found, _ = fitted(config, tmp_path, kept)
    assert found.model_digest == expected.model_digest
    assert kept.steps == list(range(4 * STEPS))


def test_a_checkpoint_of_a_step_has_always_the_same_bytes(whole, after_seven, tmp_path):
    config, _ = whole
    assert left_at(config, tmp_path, 7) == after_seven


def test_on_another_machine_it_is_resumed_and_says_so(whole, after_seven, tmp_path, monkeypatch):
    config, expected = whole
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "9.9.9")
        later = left_at(config, tmp_path, 12, after_seven)
    found, _ = fitted(config, tmp_path, Kept(found=later))
    reported = training(found)
    assert reported["reproducible"] is False
    assert reported["resumed_steps"] == [7, 12]
    assert reported["epochs"] == training(expected)["epochs"]


def damaged(data: bytes, how: str) -> bytes:
    arrays = safetensors.numpy.load(data)
    about = json.loads(arrays["about"].tobytes())
    if how == "format":
        about["format"] = 99
    elif how == "encoding":
        about["encoding"] = "0" * 64
    elif how == "missing":
        del arrays[next(name for name in sorted(arrays) if name.endswith("exp_avg"))]
    elif how == "shape":
        name = next(name for name in sorted(arrays) if name.endswith("exp_avg"))
        arrays[name] = arrays[name][:-1]
    elif how == "history":
        del about["history"]["losses"]
        about["history"]["unknown"] = 1
    else:
        return data[:100]
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    return bytes(safetensors.numpy.save(arrays))


@pytest.mark.parametrize("how", ["format", "encoding", "missing", "shape", "history", "truncated"])
def test_an_unusable_checkpoint_is_ignored_and_the_fit_starts_again(whole, after_seven, tmp_path, how):
    config, expected = whole
    found, events = fitted(config, tmp_path, Kept(found=damaged(after_seven, how)))
    assert found.model_digest == expected.model_digest
    assert training(found)["resumed_steps"] == []
    assert [
        event.message for event in events if event.message.startswith("begun again: the checkpoint cannot be used")
    ] != []


def test_a_fit_that_diverges_later_goes_back_to_the_best_weights_before_the_checkpoint(tmp_path, monkeypatch):
    config = CONFIGS["tvae"]
    data = left_at(config, tmp_path, 2 * STEPS + 1)
    step = TvaeFitter.step

    def breaking(self: Any, number: int) -> dict[str, float]:
        return {"loss": float("nan")} if number == 13 else step(self, number)

    monkeypatch.setattr(TvaeFitter, "step", breaking)
    whole, _ = fitted(config, tmp_path)
    found, _ = fitted(config, tmp_path, Kept(found=data))
    assert (training(found)["ended"], training(found)["published_epoch"]) == ("diverged", 2)
    assert found.model_digest == whole.model_digest
