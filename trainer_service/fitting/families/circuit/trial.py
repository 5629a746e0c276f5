"""How many hidden states a small table bears: short fits to some of its rows, judged on the others by turns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from trainer_service.fitting.encoding.encoded_table import EncodedTable
from trainer_service.fitting.families.circuit.model import CircuitModel, Smoothing
from trainer_service.fitting.families.circuit.schedule import FOLDS, Schedule, folds
from trainer_service.fitting.families.circuit.structure import Structure
from trainer_service.fitting.keys import random
from trainer_service.fitting.monitoring.likelihood import IMPOSSIBLE


@dataclass(frozen=True)
class Trial:
    """What rows said of numbers of hidden states.

    Attributes:
        states: The number chosen.
        likelihoods: Mean log-likelihood of the bins of rows that the circuit was not fitted to, nats, by number tried.
        rows: How many rows these are means of; 0 where there was nothing to try.
    """

    states: int
    likelihoods: Mapping[int, float]
    rows: int


def tried(
    table: EncodedTable,
    structure: Structure,
    rows: NDArray[np.int64],
    candidates: Sequence[int],
    schedule: Schedule,
    *,
    seed: int,
    between: Callable[[str], None],
) -> Trial:
    """Choose the number of hidden states that a table is fitted with.

    Of the numbers that are no worse than the best by more than a standard error of the difference it is the smallest.

    Args:
        table: The training rows.
        structure: The circuit's shape.
        rows: Rows that train, ascending, shape (n,).
        candidates: Numbers of states, ascending.
        schedule: The steps of the fit that follows.
        seed: Seed of the fit.
        between: Called before each fit, with what comes next, and before each step, with nothing; it may raise.
    """
    part = random(seed, "circuit folds").permutation(len(rows)) % FOLDS
    likely: dict[int, NDArray[np.float64]] = {}
    if len(candidates) > 1:
        shapes = [
            structure.fitted_to(table, rows[part != fold], lambda: between("")) for fold in range(folds(len(rows)))
        ]
        for states in candidates:
            between(f"trying {states} hidden states")
            judged = []
            for fold, shape in enumerate(shapes):
                model = shape.begin(states, Smoothing(), random(seed, "circuit trial", fold))
                _fit(
                    model,
                    shape.codes(np.asarray(table.choices[rows[part != fold]])),
                    schedule.trial,
                    lambda: between(""),
                )
                judged.append(model.log_likelihood(shape.codes(np.asarray(table.choices[rows[part == fold]]))))
            likely[states] = np.nan_to_num(np.concatenate(judged), nan=IMPOSSIBLE, neginf=IMPOSSIBLE)
    return Trial(
        smallest(likely) if likely else candidates[0],
        {states: float(logs.mean()) for states, logs in likely.items()},
        len(next(iter(likely.values()))) if likely else 0,
    )


def smallest(likely: Mapping[int, NDArray[np.float64]]) -> int:
    """Return the smallest number that is no worse than the best by more than a standard error of the difference.

    Args:
        likely: Log-likelihood of the same rows by number, shape (m,) each.
    """
    best = max(likely, key=lambda states: float(likely[states].mean()))

    def is_close(states: int) -> bool:
        worse = likely[best] - likely[states]
        return float(worse.mean()) <= float(worse.std()) / sqrt(len(worse))

    return next(states for states in sorted(likely) if is_close(states))


def _fit(
    model: CircuitModel, codes: Mapping[int, NDArray[np.int64]], schedule: Schedule, between: Callable[[], None]
) -> None:
    """Fit a circuit to rows, of which `codes` are the bins by column."""
    for number in range(schedule.steps):
        between()
        # Rows from all over the table, which may be sorted.
        place = number % schedule.steps_per_epoch
        batch = {column: bins[place :: schedule.steps_per_epoch] for column, bins in codes.items()}
        if len(batch[model.tree.root]):
            rate, follow = schedule.at(number)
            model.step(batch, rate, follow=follow)
