"""Exact scores of rows under a circuit: the probability of their known cells, all others summed over."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from rowmint.schema import Cell
from rowmint.steps import Steps, checked
from rowmint.synthesizer.circuit.logarithm import log
from rowmint.synthesizer.circuit.row_messages import RowBeliefs
from rowmint.synthesizer.circuit.rows import CircuitRows, RowPart
from rowmint.synthesizer.interface import RowScores, check_stopped


class CircuitScorer:
    """See `Scorer`.

    Args:
        rows: Reads the rows.
        stopped: Says whether the caller waits no longer; called before each step.
    """

    def __init__(self, rows: CircuitRows, stopped: Callable[[], bool]) -> None:
        self._rows = rows
        self._stopped = stopped

    def score(self, rows: Sequence[Mapping[str, Cell]]) -> Steps[RowScores]:
        """See `Scorer`."""
        return (yield from checked(self._in_pieces(rows), partial(check_stopped, self._stopped)))

    def _in_pieces(self, rows: Sequence[Mapping[str, Cell]]) -> Steps[RowScores]:
        scores = RowScores(np.zeros(len(rows)), np.zeros(len(rows), np.bool_))
        for piece in self._rows.pieces(rows):
            found = yield from self._scored(rows[piece])
            scores.log_probability[piece], scores.impossible[piece] = found.log_probability, found.impossible
        return scores

    def _scored(self, rows: Sequence[Mapping[str, Cell]]) -> Steps[RowScores]:
        known = self._rows.read(rows)
        yield
        evidence = self._rows.evidence(known, known.known)
        impossible = self._rows.never(evidence, known.count) | known.moved
        logs = np.zeros(known.count)
        for part in self._rows.parts(evidence, np.flatnonzero(~impossible), kept=False):
            for own, beliefs in (yield from self._rows.believed(part, kept=False)):
                logs[own.rows], impossible[own.rows] = log_probabilities(own, beliefs)
        return RowScores(logs, impossible)


def log_probabilities(part: RowPart, beliefs: RowBeliefs) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return log P(known cells) of each row, 0 where it is impossible, and whether it is; shapes (n,)."""
    values, exponents = np.frexp(beliefs.probability)
    exponents = exponents.astype(np.int64) + beliefs.exponent
    for share in part.shares:
        values, more = np.frexp(values * share)
        exponents += more
    never = values == 0
    logs = log(np.where(never, 0.5, values), exponents)
    return np.where(never, 0.0, logs), beliefs.probability == 0
