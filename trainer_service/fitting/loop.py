"""The loop over epochs: losses, probes, early stopping, divergence."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from rowmint.errors import CancelledError, TrainingFailedError
from rowmint.failpoints import reach
from trainer_service.fitting.context import FitContext
from trainer_service.fitting.fitter import IterativeFitter, SelfJudgingFitter
from trainer_service.fitting.monitoring.monitor import DivergedError, TrainingMonitor
from trainer_service.fitting.monitoring.probe import Score
from trainer_service.fitting.monitoring.progress import FitEvent, Phase


@dataclass
class History:
    """The record of a fit by steps.

    Attributes:
        losses: The mean of each loss over each epoch, by name.
        probes: Scores by name, each with its epoch.
        epochs: Epochs run to their end.
        published_epoch: The epoch whose weights are exported.
        ended: Why it ended: ``complete``, ``no better`` or ``diverged``.
        steps: Steps taken, those of the epoch under way included.
        sums: Sums of each loss over the epoch under way, by name.
        resumed_steps: How many steps had been taken each time the fit was resumed.
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

    def add_figures(self, figures: Mapping[str, float]) -> Mapping[str, float]:
        """Take in further figures of the epoch that has ended, and return them."""
        for name, value in figures.items():
            self.losses.setdefault(name, []).append(value)
        return figures

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """Return what `to_json` gave."""
        return cls(**body)


def run(
    fitter: IterativeFitter,
    context: FitContext,
    monitor: TrainingMonitor | None = None,
    *,
    history: History | None = None,
    pause: Callable[[History], None] = lambda _: None,
) -> History:
    """Take all steps of all epochs, or as many as it takes.

    Args:
        fitter: What is fitted.
        context: Gets an event at the end of each epoch; cancels before a step.
        monitor: Probes the rows made; None for no probes.
        history: What came before, where the fit is resumed; it is added to.
        pause: Called before each step, with where the fit stands: the moment for a checkpoint.

    Raises:
        CancelledError: The fit was cancelled before a step.
        TrainingFailedError: It diverged, and there are no good weights to restore.
    """
    monitor = TrainingMonitor() if monitor is None else monitor
    history = History() if history is None else history
    try:
        while history.epochs < fitter.epochs and not monitor.exhausted:
            begun, first = context.clock(), history.steps
            losses = _epoch(fitter, history, context, pause)
            if isinstance(fitter, SelfJudgingFitter):
                losses |= history.add_figures(fitter.end_epoch())
                history.published_epoch = fitter.best_epoch
            seconds = max(context.clock() - begun, 1e-9) * fitter.steps_per_epoch / (history.steps - first)
            score = monitor.observe(fitter, history.epochs)
            if score is not None:
                history.probes.append({"epoch": history.epochs, **score.to_json()})
            context.on_event(_event(fitter, history.epochs, losses, seconds, score))
            reach("fit.epoch")
    except DivergedError as error:
        best = monitor.restore_best(fitter)
        if best is None:
            raise TrainingFailedError(
                f"the fit diverged: {error}. Lower the learning rates, or raise the batch size; with keep_best a fit"
                " that diverges ends with the weights of its best probe"
            ) from error
        history.published_epoch, history.ended = best, "diverged"
        message = f"the fit diverged: {error}; going back to epoch {best}"
        context.on_event(FitEvent(Phase.FITTING, history.epochs, fitter.epochs, message=message))
        return history
    if monitor.exhausted:
        history.ended = "no better"
        message = f"stopped after epoch {history.epochs}: {monitor.patience} probes brought nothing better"
        context.on_event(FitEvent(Phase.FITTING, history.epochs, fitter.epochs, message=message))
    best = monitor.restore_best(fitter)
    if best is not None:
        history.published_epoch = best
    return history


def _epoch(
    fitter: IterativeFitter, history: History, context: FitContext, pause: Callable[[History], None]
) -> dict[str, float]:
    """Take the steps of an epoch, or what is left of it, and return the mean of each loss."""
    epoch = history.epochs + 1
    while history.steps < epoch * fitter.steps_per_epoch:
        pause(history)
        if context.cancelled():
            raise CancelledError(f"the fit was cancelled in epoch {epoch} of {fitter.epochs}")
        losses = fitter.step(history.steps)
        for name, value in losses.items():
            if not math.isfinite(value):
                raise DivergedError(f"the {name} loss is {value} in epoch {epoch} of {fitter.epochs}")
        history.add_step(losses)
        reach("fit.step")
    return history.end_epoch(fitter.steps_per_epoch)


def _event(
    fitter: IterativeFitter, epoch: int, losses: dict[str, float], seconds: float, score: Score | None
) -> FitEvent:
    progress: dict[str, Any] = {
        "losses": losses,
        "rows_per_second": fitter.steps_per_epoch * fitter.rows_per_step / seconds,
        "eta_seconds": (fitter.epochs - epoch) * seconds,
        "probe": {} if score is None else score.to_json(),
    }
    return FitEvent(Phase.FITTING, epoch, fitter.epochs, **progress)
