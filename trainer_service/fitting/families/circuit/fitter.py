"""Fitting a circuit: derived and joint columns, bins and the tree first, then stepwise EM over batches of rows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rowmint.errors import CancelledError
from trainer_service.fitting.context import FitContext
from trainer_service.fitting.encoding.encoded_table import EncodedRows, EncodedTable
from trainer_service.fitting.families.circuit.config import CircuitConfig
from trainer_service.fitting.families.circuit.export import circuit_network
from trainer_service.fitting.families.circuit.model import CircuitModel, Smoothing
from trainer_service.fitting.families.circuit.rows import sample_choices
from trainer_service.fitting.families.circuit.schedule import Schedule
from trainer_service.fitting.families.circuit.structure import find_structure
from trainer_service.fitting.families.circuit.trial import tried
from trainer_service.fitting.fitter import FittedNetwork
from trainer_service.fitting.keys import random
from trainer_service.fitting.monitoring.progress import Between, FitEvent, Phase, uninterrupted
from trainer_service.fitting.options import ExportOptions

_HELD_OUT_SHARE = 20  # one row of so many
_MOST_HELD_OUT = 10_000
_FEWEST_ROWS = 4_000  # below, none is kept out: they say little, and all are needed
_FEWEST_JUDGES = 50  # rows kept out that decide which epoch is published
_CHUNK = 4096
_ERRORS = 2.0  # standard errors: what counts as clearly better
_SETTLING, _BEST, _LIKELY, _PROGRESS = "settling ", "best ", "likely", "progress"
_LEAST_ROWS = 10
"""Rows that a bin rests on, at least, where no override says otherwise."""


class CircuitFitter:
    """A circuit on a table; see `IterativeFitter`.

    Args:
        table: The training rows. Where none are held out, a twentieth of them is, unless they are few, and takes no
            part in the steps.
        config: Hyper-parameters, valid.
        context: The fit's surroundings.
    """

    def __init__(self, table: EncodedTable, config: CircuitConfig, context: FitContext) -> None:
        self._table = table
        self._context = context
        self._rows, self._held_out = self._split()
        rows = len(self._rows)
        self.epochs = config.passes(table.rows, len(table.codecs))
        self.steps_per_epoch = config.steps_per_epoch(table.rows)
        self.rows_per_step = max(rows // self.steps_per_epoch, 1)
        self._structure = find_structure(
            table, self._rows, config, seed=context.seed, least=_LEAST_ROWS, between=self._check
        )
        self._order: tuple[int, NDArray[np.int64]] = (-1, self._rows)
        self._within = self._structure.mean_within_bins(table.counts)
        self._schedule = Schedule(self.epochs, self.steps_per_epoch)
        candidates = config.candidate_states(rows, len(table.codecs))
        self._trial = tried(
            table, self._structure, self._rows, candidates, self._schedule, seed=context.seed, between=self._between
        )
        self._model = self._begun()
        self.parameters = self._model.parameters
        self.best_epoch = 0
        self._best = np.zeros(len(self._held_out.choices), np.float32)
        self._best_counts: dict[str, NDArray[np.float32]] = {}
        self._ended = 0
        self._settling: dict[str, NDArray[np.float32]] = {}

    def _begun(self) -> CircuitModel:
        return self._structure.begin(self._trial.states, Smoothing(), random(self._context.seed, "circuit states"))

    def _between(self, message: str) -> None:
        self._check()
        if message:
            self._context.on_event(FitEvent(Phase.FITTING, message=message))

    def _check(self) -> None:
        if self._context.cancelled():
            raise CancelledError("the fit was cancelled before its first step")

    def _split(self) -> tuple[NDArray[np.int64], EncodedRows]:
        """Return which rows take part in steps, and some that do not."""
        table = self._table
        if len(table.held_out.choices) or table.rows < _FEWEST_ROWS:
            return np.arange(table.rows), table.held_out
        order = random(self._context.seed, "circuit held out").permutation(table.rows)
        kept = min(table.rows // _HELD_OUT_SHARE, _MOST_HELD_OUT)
        return np.sort(order[kept:]), table.at(np.sort(order[:kept]))

    def step(self, number: int) -> dict[str, float]:
        """See `IterativeFitter`. In the last epoch probabilities stay, and the counts become those of all its rows."""
        epoch, place = divmod(number, self.steps_per_epoch)
        if self._order[0] != epoch:
            self._order = epoch, random(self._context.seed, "circuit order", epoch).permutation(self._rows)
        first, last = (len(self._rows) * (place + end) // self.steps_per_epoch for end in (0, 1))
        rows = np.sort(self._order[1][first : max(last, first + 1)])
        codes = self._structure.codes(np.asarray(self._table.choices[rows]))
        settles = self._schedule.settles(number)
        if settles and not place:
            self._settling = self._model.state()
        rate, follow = self._schedule.at(number)
        likely = self._model.step(codes, rate, follow=follow)
        if settles and follow:
            self._settling = {}
        return {"log_likelihood": likely + self._within}

    def end_epoch(self) -> dict[str, float]:
        """See `SelfJudgingFitter`.

        The last epoch, which settles all counts, is the best unless another clearly was, by rows enough to tell.
        """
        self._ended += 1
        if not len(self._held_out.choices):
            self.best_epoch = self._ended
            return {}
        likely = self._held_out_likelihoods()
        gain = likely - self._best
        error = float(gain.std()) / math.sqrt(len(gain))
        least = -_ERRORS * error if self._ended == self.epochs else 0.0
        if len(gain) < _FEWEST_JUDGES:
            self.best_epoch = self._ended
        elif not self.best_epoch or float(gain.mean()) > least:
            self._best, self.best_epoch = likely, self._ended
            self._best_counts = self._model.state()
        return {"held_out_log_likelihood": float(likely.mean(dtype=np.float64))}

    def log_likelihood(self, choices: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return the log-likelihood of the bins of rows, nats, shape (m,), of their choices, shape (m, columns)."""
        return self._model.log_likelihood(self._structure.codes(choices))

    def _held_out_likelihoods(self) -> NDArray[np.float32]:
        """Return the log-likelihood of each row that takes no part in steps, nats, shape (m,)."""
        choices = self._held_out.choices
        parts = [np.zeros(0)]
        for start in range(0, len(choices), _CHUNK):
            part = choices[start : start + _CHUNK]
            parts.append(self.log_likelihood(part) + self._structure.within_bins(part))
        return np.concatenate(parts).astype(np.float32)

    def _published(self) -> CircuitModel:
        """Return the circuit that is exported: the one of the best epoch, beside that of the newest step."""
        if not self._best_counts or self.best_epoch == self._ended:
            return self._model
        best = self._begun()
        best.load_state(self._best_counts)
        return best

    def sample(self, rows: int) -> EncodedRows:
        """See `IterativeFitter`."""
        draws = random(self._context.seed, "circuit probe")
        return sample_choices(self._table, self._structure, self._published(), draws, rows)

    def weights(self) -> list[NDArray[np.float32]]:
        """See `IterativeFitter`."""
        return list(self._published().state().values())

    def restore(self, weights: Sequence[NDArray[np.float32]]) -> None:
        """See `IterativeFitter`."""
        self._model.load_state(dict(zip(self._model.state(), weights, strict=True)))
        self._best_counts = {}

    def state(self) -> dict[str, NDArray[np.float32]]:
        """See `IterativeFitter`."""
        return {
            **self._model.state(),
            **{f"{_SETTLING}{name}": counts.copy() for name, counts in self._settling.items()},
            **{f"{_BEST}{name}": counts.copy() for name, counts in self._best_counts.items()},
            _LIKELY: self._best.copy(),
            _PROGRESS: np.array([self.best_epoch, self._ended], np.float32),
        }

    def load_state(self, state: Mapping[str, NDArray[np.float32]]) -> None:
        """See `IterativeFitter`."""
        self._settling = _part(state, _SETTLING)
        # In the last epoch the probabilities are those of its beginning, whatever the counts are.
        if self._settling:
            self._model.load_state(self._settling)
        self._model.load_state(state, follow=not self._settling)
        self._best_counts = _part(state, _BEST)
        self._best = state[_LIKELY].copy()
        self.best_epoch, self._ended = state[_PROGRESS].astype(int).tolist()

    def export(self, _options: ExportOptions, between: Between = uninterrupted) -> FittedNetwork:
        """See `Fitter`: the circuit of the epoch that was most likely for the rows held out."""
        network = circuit_network(self._structure, self._published(), between)
        trial, judges = self._trial, len(self._held_out.choices)
        tried_states = {str(states): round(likely, 6) for states, likely in trial.likelihoods.items()}
        return replace(
            network,
            choices={
                "states": {"tried": tried_states, "rows": trial.rows},
                "epoch": {"rows": judges if judges >= _FEWEST_JUDGES else 0},
            },
        )


def _part(state: Mapping[str, NDArray[np.float32]], prefix: str) -> dict[str, NDArray[np.float32]]:
    return {name.removeprefix(prefix): counts for name, counts in state.items() if name.startswith(prefix)}
