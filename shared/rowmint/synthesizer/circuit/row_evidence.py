"""What the known cells of many rows say about the columns of the tree: the bins that each row may have, and how likely.

A derived column's known cell is evidence on the column that it is a function of.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rowmint.lazy import lazy
from rowmint.synthesizer.circuit.draw_by_weight import drawn
from rowmint.synthesizer.circuit.known import Alternatives, Float64, Int64, joined, runs
from rowmint.synthesizer.circuit.tree import ONE, Bins, Circuit

UNKNOWN, ONE_BIN, SEVERAL_BINS, NEVER = range(4)
"""What is known of a row's bin: nothing; which one it is; which ones it may be; that it cannot be any."""


@dataclass(frozen=True)
class ColumnEvidence:
    """What is known of one column of the tree, of n rows.

    Attributes:
        bins: The column's bins.
        known: Whether anything is known, bool, shape (n,).
        choices: The choices that each row may have; the shares are times the choice's weight within its bin.
    """

    bins: Bins
    known: NDArray[np.bool_]
    choices: Alternatives

    @lazy
    def _shares(self) -> tuple[Int64, Int64, Float64]:
        """Rows, bins and shares of the bins that each row may have."""
        own = self.bins.of_choice[self.choices.choices].astype(np.int64)
        if (self.choices.rows[1:] > self.choices.rows[:-1]).all():  # one alternative a row, as nearly always
            return self.choices.rows, own, self.choices.shares
        place = self.choices.rows * self.bins.count + own
        kept, at = np.unique(place, return_inverse=True)
        rows: Int64 = kept // self.bins.count
        bins: Int64 = kept % self.bins.count
        shares: Float64 = np.bincount(at, self.choices.shares, len(kept)).astype(np.float64)
        return rows, bins, shares

    @lazy
    def kind(self) -> NDArray[np.uint8]:
        """What is known of each row's bin, one of `UNKNOWN`, `ONE_BIN`, `SEVERAL_BINS`, `NEVER`; shape (n,)."""
        found = np.bincount(self._shares[0], minlength=len(self.known))
        return np.where(self.known, np.where(found == 0, NEVER, np.minimum(found, 2)), UNKNOWN).astype(np.uint8)

    def one_bin(self, rows: Int64) -> tuple[Int64, Float64]:
        """Return the bin, and its share, of rows of `ONE_BIN`, shapes (k,)."""
        at = np.searchsorted(self._shares[0], rows)
        return self._shares[1][at], self._shares[2][at]

    def several_bins(self, rows: Int64) -> Float64:
        """Return the shares of the bins of some rows, shape (k, bins)."""
        if not len(rows):
            return np.zeros((0, self.bins.count))
        index, row = runs(np.searchsorted(self._shares[0], rows), np.searchsorted(self._shares[0], rows, side="right"))
        found = np.zeros((len(rows), self.bins.count))
        found[row, self._shares[1][index]] = self._shares[2][index]
        return found

    def drawn(self, rows: Int64, bins: Int64, words: NDArray[np.uint64]) -> Int64:
        """Return a choice of some rows, by weight, among those that each may have in its bin; shape (k,).

        Args:
            rows: The rows, shape (k,).
            bins: Their bins.
            words: 64-bit words.
        """
        found = self.choices.of_rows(rows)
        found = found.take(np.flatnonzero(self.bins.of_choice[found.choices] == bins[found.rows]))
        place = np.arange(len(found.rows)) - np.searchsorted(found.rows, found.rows)
        weights, choices = np.zeros((2, len(rows), int(place.max(initial=0)) + 1))
        weights[found.rows, place], choices[found.rows, place] = found.shares, found.choices
        chosen: Int64 = choices[np.arange(len(rows)), drawn(weights, words)].astype(np.int64)
        return chosen


def column_evidence(
    circuit: Circuit, known: Mapping[int, NDArray[np.bool_]], cells: Mapping[int, Alternatives], count: int
) -> dict[int, ColumnEvidence]:
    """Return the evidence at the tree's columns, by position.

    Args:
        circuit: The model.
        known: Which rows' cells of a modelled column count, bool, shape (count,), by position.
        cells: The choices that these cells may be drawn by, by position; others are left out.
        count: Number of rows, n.
    """
    derived: dict[int, list[int]] = {}
    for position, one in circuit.derived.items():
        if position in known:
            derived.setdefault(one.of, []).append(position)
    found = {}
    for position in circuit.columns:
        if position in known or position in derived:
            found[position] = _at(circuit, (position, *derived.get(position, ())), known, cells, count)
    return found


def _at(
    circuit: Circuit,
    positions: Sequence[int],
    known: Mapping[int, NDArray[np.bool_]],
    cells: Mapping[int, Alternatives],
    count: int,
) -> ColumnEvidence:
    """Return the evidence at the first of some positions; the others are of columns derived from it."""
    position = positions[0]
    bins = circuit.columns[position].bins
    any_known = np.zeros(count, np.bool_)
    alternatives = Alternatives(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    for each in positions:
        of = known.get(each)
        if of is None:
            continue
        own = _of(cells[each], of)
        if each == position:
            alternatives = own
        else:
            choices = circuit.derived[each].choices
            both = _agreeing(alternatives, own, choices)
            new = own.take(np.flatnonzero(~any_known[own.rows]))
            # Of rows that knew something already, what agrees; of others, all choices that the cell is a function of.
            untouched = alternatives.take(np.flatnonzero(~of[alternatives.rows]))
            alternatives = joined([untouched, both, _inverted(new, choices)])
        any_known |= of
    weights = bins.weights[alternatives.choices] / float(ONE) * alternatives.shares
    kept = np.flatnonzero(weights)
    left = alternatives.take(kept)
    return ColumnEvidence(bins, any_known, Alternatives(left.rows, left.choices, weights[kept]))


def _of(alternatives: Alternatives, rows: NDArray[np.bool_]) -> Alternatives:
    return alternatives.take(np.flatnonzero(rows[alternatives.rows]))


def _agreeing(alternatives: Alternatives, own: Alternatives, choices: NDArray[np.uint16]) -> Alternatives:
    """Return the alternatives whose derived choice is one that a row's derived cell may be drawn by."""
    count = max(int(choices.max()), int(own.choices.max(initial=0))) + 1
    place = own.rows * count + own.choices
    order = np.argsort(place, kind="stable")
    wanted = alternatives.rows * count + choices[alternatives.choices]
    at = np.minimum(np.searchsorted(place[order], wanted), max(len(order) - 1, 0))
    if not len(order):
        return alternatives.take(np.zeros(0, np.intp))
    kept = np.flatnonzero(place[order][at] == wanted)
    shares = alternatives.shares[kept] * own.shares[order][at[kept]]
    return Alternatives(alternatives.rows[kept], alternatives.choices[kept], shares)


def _inverted(own: Alternatives, choices: NDArray[np.uint16]) -> Alternatives:
    """Return, for alternatives of a derived column, those of the column it is derived from."""
    order = np.argsort(choices, kind="stable")
    ordered = choices[order]
    starts, stops = (np.searchsorted(ordered, own.choices, side=side) for side in ("left", "right"))
    index, of = runs(starts, stops)
    return Alternatives(own.rows[of], order[index], own.shares[of])
