"""The loop over epochs: losses, probes, early stop, and what becomes of a fit that diverges."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rowmint.errors import CancelledError, TrainingFailedError
from rowmint.failpoints import reach
from trainer_service.config import TrainingConfig
from trainer_service.fitting.encoding.encode import Codes, EncodedTable
from trainer_service.fitting.fitter import Fitter
from trainer_service.fitting.keys import random
from trainer_service.fitting.monitoring.probe import PROBE_ROWS, Probe, Score
from trainer_service.fitting.monitoring.progress import Cancelled, FitEvent, Phase, Report

_COLLAPSED_PROBES = 2  # so many in a row; a network that has just begun may make all rows alike once


@dataclass
class History:
    """What came of a loop.

    Attributes:
        losses: The mean of each loss over each epoch, by name.
        probes: Scores by name, each with its epoch.
        epochs: Epochs run to their end.
        published_epoch: The epoch whose weights are exported.
        ended: Why it ended: ``complete``, ``no better`` or ``diverged``.
        steps: Steps taken, those of the epoch under way included.
        sums: Sums of each loss over the epoch under way, by name.
        resumed_steps: How many steps were taken each time the fit was gone on with.
        reproducible: Whether no step was taken under another fingerprint than the last.
    """

    losses: dict[str, list[float]] = field(default_factory=dict)
    probes: list[dict[str, float]] = field(default_factory=list)
    epochs: int = 0
    published_epoch: int = 0
    ended: str = "complete"
    steps: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    resumed_steps: list[int] = field(default_factory=list)
    reproducible: bool = True

    def add_step(self, losses: Mapping[str, float]) -> None:
        """Take in a step."""
        self.steps += 1
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def end_epoch(self, steps: int) -> dict[str, float]:
        """Take in an epoch of `steps` steps and return the mean of each loss."""
        losses = {name: total / steps for name, total in self.sums.items()}
        self.sums = {}
        self.epochs += 1
        self.published_epoch = self.epochs
        for name, value in losses.items():
            self.losses.setdefault(name, []).append(value)
        return losses

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """Return what `to_json` gave."""
        return cls(**body)


class _DivergedError(Exception):
    """The fit makes nothing of use any more; the text says why."""


@dataclass
class Watch:
    """Watches a fit by the rows it makes.

    Attributes:
        probe: Scores rows; None for no probes.
        every: Epochs between two probes.
        patience: Probes without a better one after which to stop; 0 for never.
        keep_best: Whether the best probe's weights are exported.
    """

    probe: Probe | None = None
    every: int = 0
    patience: int = 0
    keep_best: bool = False
    _best: tuple[float, int, Sequence[NDArray[np.float32]]] | None = None
    _worse: int = 0
    _collapsed: int = 0

    def look(self, fitter: Fitter, epoch: int) -> Score | None:
        """Score the rows made after `epoch`; None where no probe is due.

        Raises:
            _DivergedError: Nearly all rows are alike.
        """
        last = epoch == fitter.epochs
        if self.probe is None or not (last or epoch % self.every == 0):
            return None
        score = self.probe.score(fitter.sample(self.probe.rows))
        collapsed = score.collapsed or not math.isfinite(score.quality)
        self._collapsed = self._collapsed + 1 if collapsed else 0
        if self._collapsed >= _COLLAPSED_PROBES:
            raise _DivergedError(f"nearly all rows are alike in epoch {epoch} of {fitter.epochs}")
        # A collapsed network is never the best one, and patience begins with the first that is not.
        if not collapsed and (self._best is None or score.quality > self._best[0]):
            self._best = score.quality, epoch, fitter.weights() if self.keep_best else []
            self._worse = 0
        elif self._best is not None:
            self._worse += 1
        return score

    def to_json(self) -> tuple[dict[str, Any], Sequence[NDArray[np.float32]]]:
        """Return what was seen so far, as JSON values, and the best weights."""
        best = None if self._best is None else {"quality": self._best[0], "epoch": self._best[1]}
        weights: Sequence[NDArray[np.float32]] = () if self._best is None else self._best[2]
        return {"best": best, "worse": self._worse, "collapsed": self._collapsed}, weights

    def load_json(self, body: Mapping[str, Any], weights: Sequence[NDArray[np.float32]]) -> None:
        """Go on from what `to_json` gave."""
        best = body["best"]
        self._best = None if best is None else (best["quality"], best["epoch"], list(weights))
        self._worse, self._collapsed = body["worse"], body["collapsed"]

    @property
    def exhausted(self) -> bool:
        """Whether patience is at its end."""
        return 0 < self.patience <= self._worse

    def restore_best(self, fitter: Fitter) -> int | None:
        """Go back to the best probe's weights and return its epoch; None where there are none."""
        if self._best is None or not self.keep_best:
            return None
        fitter.restore(self._best[2])
        return self._best[1]


def make_watch(table: EncodedTable, config: TrainingConfig) -> Watch:
    """Return what watches a fit to `table`."""
    if config.probe_epochs == 0:
        return Watch()
    draws = random(config.seed, "probe")
    held_out = len(table.held_out.slots) > 0
    real = table.held_out if held_out else _some(table, draws)
    other = _some(table, draws, len(real.slots))
    probe = Probe(table.codecs, real, other, held_out=held_out)
    return Watch(probe, config.probe_epochs, config.patience, config.keep_best or config.patience > 0)


def _some(table: EncodedTable, draws: np.random.Generator, most: int = PROBE_ROWS) -> Codes:
    return table.codes(np.sort(draws.integers(0, table.rows, most)))


def run(
    fitter: Fitter,
    report: Report,
    cancelled: Cancelled,
    clock: Callable[[], float],
    watch: Watch | None = None,
    *,
    history: History | None = None,
    pause: Callable[[History], None] = lambda _: None,
) -> History:
    """Take all steps of all epochs, or as many as it takes.

    Args:
        fitter: What is fitted.
        report: Called at the end of each epoch.
        cancelled: Asked before each step.
        clock: Seconds.
        watch: Looks at the rows made; None for no probes.
        history: What came before, where the fit is gone on with; it is added to.
        pause: Called before each step, with where the fit stands: the moment for a checkpoint.

    Raises:
        CancelledError: `cancelled` said so before a step.
        TrainingFailedError: It diverged, and there are no good weights to go back to.
    """
    watch = Watch() if watch is None else watch
    history = History() if history is None else history
    try:
        while history.epochs < fitter.epochs and not watch.exhausted:
            begun, first = clock(), history.steps
            losses = _epoch(fitter, history, cancelled, pause)
            seconds = max(clock() - begun, 1e-9) * fitter.steps_per_epoch / (history.steps - first)
            score = watch.look(fitter, history.epochs)
            if score is not None:
                history.probes.append({"epoch": history.epochs, **score.to_json()})
            report(_event(fitter, history.epochs, losses, seconds, score))
            reach("fit.epoch")
    except _DivergedError as error:
        best = watch.restore_best(fitter)
        if best is None:
            raise TrainingFailedError(
                f"the fit diverged: {error}. Lower the learning rates, or raise the batch size; with keep_best a fit"
                " that diverges ends with the weights of its best probe"
            ) from error
        history.published_epoch, history.ended = best, "diverged"
        message = f"the fit diverged: {error}; going back to epoch {best}"
        report(FitEvent(Phase.FITTING, history.epochs, fitter.epochs, message=message))
        return history
    if watch.exhausted:
        history.ended = "no better"
        message = f"stopped after epoch {history.epochs}: {watch.patience} probes brought nothing better"
        report(FitEvent(Phase.FITTING, history.epochs, fitter.epochs, message=message))
    best = watch.restore_best(fitter)
    if best is not None:
        history.published_epoch = best
    return history


def _epoch(
    fitter: Fitter, history: History, cancelled: Cancelled, pause: Callable[[History], None]
) -> dict[str, float]:
    """Take the steps of an epoch, or what is left of it, and return the mean of each loss."""
    epoch = history.epochs + 1
    while history.steps < epoch * fitter.steps_per_epoch:
        pause(history)
        if cancelled():
            raise CancelledError(f"the fit was cancelled in epoch {epoch} of {fitter.epochs}")
        losses = fitter.step(history.steps)
        for name, value in losses.items():
            if not math.isfinite(value):
                raise _DivergedError(f"the {name} loss is {value} in epoch {epoch} of {fitter.epochs}")
        history.add_step(losses)
        reach("fit.step")
    return history.end_epoch(fitter.steps_per_epoch)


def _event(fitter: Fitter, epoch: int, losses: dict[str, float], seconds: float, score: Score | None) -> FitEvent:
    progress: dict[str, Any] = {
        "losses": losses,
        "rows_per_second": fitter.steps_per_epoch * fitter.rows_per_step / seconds,
        "eta_seconds": (fitter.epochs - epoch) * seconds,
        "probe": {} if score is None else score.to_json(),
    }
    return FitEvent(Phase.FITTING, epoch, fitter.epochs, **progress)
