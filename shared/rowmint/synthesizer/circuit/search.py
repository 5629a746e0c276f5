"""Draws from rows of weights that are computed when they are first needed: there may be far more rows than are used."""

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

RowWeights = Callable[[NDArray[np.int64]], NDArray[np.float64]]
"""The weights of some rows, elementwise: a row's bytes depend on the row alone.

Shape (n, the greatest of their lengths); 0 beyond a row's own length.
"""

_ABOVE = np.uint32(0xFFFFFFFF)
_TAKEN = 1 << 16  # weights computed at once


class SearchRows:
    """Rows of weighted outcomes 0, 1, 2, ..., drawn by binary search. Thread-safe; what is drawn is a pure function.

    A row is kept as running sums over its total, in whole numbers over 2**32, so that a word w draws the first outcome
    whose sum is above w. An outcome of weight 0 is never drawn.

    Args:
        lengths: Outcomes of each row, at least 1, int64, shape (rows,).
        weights: Their weights. A row that is drawn from has a positive one.
        most_kept: Outcomes kept. Where there would be more, those kept are forgotten, and computed again when they are
            needed; what one draw needs is kept in any case.
    """

    def __init__(self, lengths: NDArray[np.int64], weights: RowWeights, most_kept: int) -> None:
        self._lengths = lengths.astype(np.int32)
        self._weights = weights
        self._most_kept = most_kept
        self._steps = [1 << bit for bit in reversed(range((int(lengths.max()) - 1).bit_length()))]
        self._starts = np.full(len(lengths), -1, np.int32)
        self._sums = np.empty(0, np.uint32)
        self._used = 0
        self._lock = threading.Lock()

    def draw(self, rows: NDArray[np.int64], words: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Return an outcome for each word, shape (n,).

        Args:
            rows: The row of each, shape (n,).
            words: 32-bit words, shape (n,).
        """
        if not self._steps or not len(rows):
            return np.zeros(len(rows), np.int64)
        with self._lock:
            starts = self._starts.take(rows, mode="clip")
            if starts.min() < 0:
                self._fill(rows, starts)
                starts = self._starts.take(rows, mode="clip")
            sums = self._sums  # what is in use of it is never written again
        last = self._lengths.take(rows, mode="clip")
        last += starts
        last -= 1
        words = np.minimum(words, _ABOVE - np.uint32(1))
        found = starts.astype(np.int64)
        place = np.empty_like(found)
        for step in self._steps:
            np.add(found, step - 1, out=place)
            np.minimum(place, last, out=place)
            found += (sums.take(place, mode="clip") <= words) * np.int64(step)
        found -= starts
        return found

    @property
    def size_bytes(self) -> int:
        """Most bytes in use, when all that may be kept is."""
        kept = min(int(self._lengths.sum(dtype=np.int64)), self._most_kept)
        return self._lengths.nbytes + self._starts.nbytes + kept * self._sums.itemsize

    def _fill(self, rows: NDArray[np.int64], starts: NDArray[np.int32]) -> None:
        needed = np.unique(rows[starts < 0])
        if self._used and self._used + int(self._lengths[needed].sum(dtype=np.int64)) > self._most_kept:
            needed = np.unique(rows)
            self._starts.fill(-1)
            self._sums, self._used = np.empty(0, np.uint32), 0
        needed = needed[np.argsort(self._lengths[needed], kind="stable")]  # rows of about a length together
        lengths = self._lengths[needed]
        ends = self._used + np.cumsum(lengths, dtype=np.int64)
        used = int(ends[-1])
        if used > len(self._sums):
            sums = np.empty(max(used, min(2 * len(self._sums), self._most_kept)), np.uint32)
            sums[: self._used] = self._sums[: self._used]
            self._sums = sums
        start = 0
        while start < len(needed):
            least = int(lengths[start])
            stop = min(start + max(_TAKEN // least, 1), int(np.searchsorted(lengths, 2 * least, side="right")))
            part = lengths[start:stop]
            found = _running(self._weights(needed[start:stop]))
            kept = np.arange(found.shape[1]) < part[:, None]
            self._sums[self._used : self._used + int(part.sum())] = found[kept]
            self._used += int(part.sum())
            start = stop
        self._starts[needed] = ends - lengths


def _running(weights: NDArray[np.float64]) -> NDArray[np.uint32]:
    """Return each row's running sums over its total, which is above every word."""
    sums = np.cumsum(weights, axis=1)
    total = sums[:, -1:].copy()
    whole = sums >= total
    sums /= total
    sums *= float(1 << 32)
    found: NDArray[np.uint32] = np.where(whole, _ABOVE, np.minimum(sums, float(_ABOVE) - 1).astype(np.uint32))
    return found
