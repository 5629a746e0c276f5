"""Alias tables: a draw by weight for one word, whatever the number of outcomes (Walker 1977; Vose, IEEE TSE 1991).

A row of k outcomes is k cells of equal width; a cell keeps its own outcome up to a threshold and holds one alias
beyond. A word w of 32 bits chooses the cell (w * k) >> 32, and the 32 bits below decide by the threshold. Weights and
thresholds are whole numbers over 2**32, so that a table stands for exactly its weights; that words have 32 bits moves
a cell's share by less than 2**-32.

A cell is one number of 64 bits, as speed is the point: the threshold less one, then 16 bits each of own and alias. The
low bits of w * k, moved up by 32, are below it where they are below the threshold; where they equal the threshold less
one, own and alias decide, and where these are 0 both, they are the same.

The cells of many rows are made at once by prefix sums. Cells below average, in order, are filled up from those above,
in order: how much is missing before a cell, and how much was given away up to another, say which fills which.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FULL = 1 << 32
"""The sum of a row of weights, and the width of a cell."""
_WORD = np.uint64(32)
_OUTCOME = np.uint64(16)
_OUTCOMES = np.uint64(0xFFFF)


@dataclass(frozen=True)
class AliasTable:
    """Rows of weighted outcomes. Immutable, thread-safe.

    Attributes:
        cells: The cells of all rows, one after another, uint64.
        lengths: Cells of every row, or where rows differ of each, int64, shape (rows,).
        starts: First cell of each row, int64, shape (rows,); None where all rows have one length.
    """

    cells: NDArray[np.uint64]
    lengths: int | NDArray[np.int64]
    starts: NDArray[np.int64] | None

    def draw(self, rows: NDArray[np.int64] | None, words: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Return an outcome for each word, shape (n,).

        Args:
            rows: The row of each, shape (n,); None for the first row.
            words: 32-bit words, shape (n,).
        """
        place = words.astype(np.int64)
        if isinstance(self.lengths, int):
            place *= self.lengths
            index = place >> 32
            if rows is not None:
                index += rows * self.lengths
        else:
            if rows is None or self.starts is None:
                raise ValueError("rows of different lengths are drawn from by row")
            place *= self.lengths.take(rows, mode="clip")
            index = place >> 32
            index += self.starts.take(rows, mode="clip")
        cells = self.cells.take(index, mode="clip")
        kept = (place.view(np.uint64) << _WORD) < cells
        found = np.where(kept, cells >> _OUTCOME, cells)
        found &= _OUTCOMES
        return found.view(np.int64)

    @property
    def size_bytes(self) -> int:
        """Bytes of the arrays."""
        lengths = 0 if isinstance(self.lengths, int) else self.lengths.nbytes
        return self.cells.nbytes + lengths + (0 if self.starts is None else self.starts.nbytes)


def equal_rows(weights: NDArray[np.int64]) -> AliasTable:
    """Return the table of rows of one length, whose outcomes are 0, 1, 2, ...

    Args:
        weights: Each row of sum `FULL`, shape (rows, length).
    """
    rows, length = weights.shape
    outcomes = np.tile(np.arange(length), rows)
    return AliasTable(_cells(weights.ravel(), outcomes, np.full(rows, length)), length, None)


def ragged_rows(
    lengths: NDArray[np.int64], blocks: Iterable[tuple[NDArray[np.int64], NDArray[np.integer]]]
) -> AliasTable:
    """Return the table of rows of any lengths.

    Args:
        lengths: Length of each row, at least 1, shape (rows,).
        blocks: For some rows at a time, in order, the weights, each row of sum `FULL`, and what each stands for, 0 to
            2**16 - 1, shape (these rows' cells,) each. They take ten times the memory of their cells, so that blocks
            are made one by one.
    """
    starts = np.cumsum(lengths) - lengths
    cells = np.empty(int(lengths.sum()), np.uint64)
    first = 0
    for weights, outcomes in blocks:
        rows = slice(*np.searchsorted(starts, [first, first + len(weights)]))
        cells[first : first + len(weights)] = _cells(weights, outcomes, lengths[rows])
        first += len(weights)
    return AliasTable(cells, lengths, starts)


def whole_shares(shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return rows of shares as whole numbers of sum `FULL`, each within 1 of its own; 0 stays 0.

    Args:
        shares: Non-negative, each row of sum 1 but for rounding, shape (rows, length).
    """
    scaled = shares * float(FULL)
    whole = np.floor(scaled)
    missing = float(FULL) - whole.sum(axis=1, keepdims=True)  # whole numbers: exact in any order
    order = np.argsort(whole - scaled, axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(shares.shape[1])[None], axis=1)
    found: NDArray[np.int64] = (whole + (rank < missing)).astype(np.int64)
    return found


def _cells(weights: NDArray[np.int64], outcomes: NDArray[np.integer], lengths: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return the cells of rows that lie one after another."""
    masses = weights * np.repeat(lengths, lengths)  # at most 2**48
    light, heavy = np.flatnonzero(masses < FULL), np.flatnonzero(masses > FULL)
    after = np.cumsum(FULL - masses[light])  # missing up to each light cell, its own included
    before = after - (FULL - masses[light])
    given = np.cumsum(masses[heavy] - FULL)  # up to each heavy cell: equal to what is missing where a row ends
    alias = np.arange(len(weights))
    threshold = np.full(len(weights), FULL)
    # A light cell is filled from the first heavy one that has something left.
    alias[light] = heavy[np.searchsorted(given, before, side="right")]
    threshold[light] = masses[light]
    # A heavy cell that gave the last light one more than it had is filled from the next heavy one.
    last = np.searchsorted(after, given, side="right")
    overdrawn = np.flatnonzero(last < len(light))
    overdrawn = overdrawn[before[last[overdrawn]] < given[overdrawn]]
    alias[heavy[overdrawn]] = heavy[overdrawn + 1]
    threshold[heavy[overdrawn]] = FULL + given[overdrawn] - after[last[overdrawn]]
    own = np.arange(len(weights))
    own[threshold == 0] = alias[threshold == 0]
    threshold = np.maximum(threshold, 1).astype(np.uint64) - np.uint64(1)
    found: NDArray[np.uint64] = threshold << _WORD
    found |= outcomes[own].astype(np.uint64) << _OUTCOME
    found |= outcomes[alias].astype(np.uint64)
    return found
