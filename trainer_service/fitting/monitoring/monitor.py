"""Monitoring a fit: probes of the rows it makes, patience, the best weights so far, and divergence."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer_service.fitting.encoding.encoded_table import EncodedRows, EncodedTable
from trainer_service.fitting.fitter import IterativeFitter
from trainer_service.fitting.keys import random
from trainer_service.fitting.monitoring.probe import PROBE_ROWS, Probe, Score

_COLLAPSED_PROBES = 2  # so many in a row; a network that has just begun may make all rows alike once


class DivergedError(Exception):
    """The fit has diverged; the text says how."""


@dataclass
class TrainingMonitor:
    """Monitors a fit by the rows it makes.

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

    def observe(self, fitter: IterativeFitter, epoch: int) -> Score | None:
        """Score the rows made after `epoch`; None where no probe is due.

        Raises:
            DivergedError: Nearly all rows are alike.
        """
        last = epoch == fitter.epochs
        if self.probe is None or not (last or epoch % self.every == 0):
            return None
        score = self.probe.score(fitter.sample(self.probe.rows))
        collapsed = score.collapsed or not math.isfinite(score.quality)
        self._collapsed = self._collapsed + 1 if collapsed else 0
        if self._collapsed >= _COLLAPSED_PROBES:
            raise DivergedError(f"nearly all rows are alike in epoch {epoch} of {fitter.epochs}")
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
        """Resume from what `to_json` gave."""
        best = body["best"]
        self._best = None if best is None else (best["quality"], best["epoch"], list(weights))
        self._worse, self._collapsed = body["worse"], body["collapsed"]

    @property
    def exhausted(self) -> bool:
        """Whether patience is at its end."""
        return 0 < self.patience <= self._worse

    def restore_best(self, fitter: IterativeFitter) -> int | None:
        """Go back to the best probe's weights and return its epoch; None where there are none."""
        if self._best is None or not self.keep_best:
            return None
        fitter.restore(self._best[2])
        return self._best[1]


def make_monitor(
    table: EncodedTable, *, seed: int, probe_epochs: int, patience: int, keep_best: bool
) -> TrainingMonitor:
    """Return what monitors a fit to `table`.

    Args:
        table: The training rows, and those held out; probes compare with the latter where there are any.
        seed: Seed of the fit; it chooses the training rows that are compared with.
        probe_epochs: Epochs between two probes; 0 for none.
        patience: Probes without a better one after which to stop; 0 for never.
        keep_best: Whether the best probe's weights are exported; patience implies it.
    """
    if probe_epochs == 0:
        return TrainingMonitor()
    draws = random(seed, "probe")
    held_out = len(table.held_out.choices) > 0
    real = table.held_out if held_out else _some(table, draws)
    other = _some(table, draws, len(real.choices))
    probe = Probe(table.codecs, real, other, held_out=held_out)
    return TrainingMonitor(probe, probe_epochs, patience, keep_best or patience > 0)


def _some(table: EncodedTable, draws: np.random.Generator, most: int = PROBE_ROWS) -> EncodedRows:
    return table.at(np.sort(draws.integers(0, table.rows, most)))
