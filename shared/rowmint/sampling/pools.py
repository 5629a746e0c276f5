"""Pools: which rows of a stream share a candidate, and how many candidates some rows rest on.

A period is `rounds` rounds of `rows` rows. The rows of its first round have candidates of their own; each later round
uses the same candidates, in the same order.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Pools:
    """How the rows of a stream share candidates.

    Attributes:
        rows: Rows of a round, each with a candidate of its own.
        rounds: Rounds of a period: the most rows that share a candidate, 1 where each row has its own.
    """

    rows: int
    rounds: int

    @property
    def period(self) -> int:
        """Rows of a period."""
        return self.rows * self.rounds

    def source(self, row: int) -> int:
        """Return the first row that uses the candidate of `row`."""
        place = row % self.period
        return row - place + place % self.rows

    def distinct(self, start: int, stop: int) -> int:
        """Return the number of distinct candidates that the rows from `start` to before `stop` rest on."""
        first, whole, last = self._cut(start, stop)
        return min(first, self.rows) + whole * self.rows + min(last, self.rows)

    def most_shared(self, start: int, stop: int) -> int:
        """Return the greatest number of the rows from `start` to before `stop` that share a candidate."""
        first, whole, last = self._cut(start, stop)
        return max(-(-first // self.rows), self.rounds if whole else 0, -(-last // self.rows))

    def _cut(self, start: int, stop: int) -> tuple[int, int, int]:
        """Return how many rows lie in the period that `start` is in, in how many whole ones, and in the last."""
        until = (start // self.period + 1) * self.period
        if stop <= until:
            return max(stop - start, 0), 0, 0
        return until - start, stop // self.period - until // self.period, stop % self.period


class CandidateTally:
    """Counts the candidates that rows rest on, those left out excluded. For one caller at a time.

    Args:
        pools: How rows share candidates.

    Attributes:
        most_shared: The greatest number of the rows counted that share a candidate.
    """

    def __init__(self, pools: Pools) -> None:
        self.most_shared = 0
        self._pools = pools
        self._period = 0
        # Of the period that is being counted: how many rows use each candidate; and the candidates before it.
        self._uses: NDArray[np.uint8] = np.zeros(pools.rows, np.uint8)
        self._before = 0

    @property
    def distinct(self) -> int:
        """Distinct candidates of the rows counted."""
        return self._before + int(np.count_nonzero(self._uses))

    def add(self, start: int, stop: int) -> None:
        """Count the rows from `start` to before `stop`, which come after all that were counted."""
        pools = self._pools
        if pools.rounds == 1:
            self._before += stop - start
            self.most_shared = max(self.most_shared, min(stop - start, 1))
            return
        while start < stop:
            period, place = divmod(start, pools.period)
            if period != self._period:
                self._before = self.distinct
                self._uses[:] = 0
                self._period = period
            upto = min(stop, (period + 1) * pools.period)
            whole, rest = divmod(upto - start, pools.rows)
            self._uses += np.uint8(whole)
            first = place % pools.rows
            self._uses[first : first + rest] += np.uint8(1)
            self._uses[: max(first + rest - pools.rows, 0)] += np.uint8(1)
            self.most_shared = max(self.most_shared, int(self._uses.max()))
            start = upto
