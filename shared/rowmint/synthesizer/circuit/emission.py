"""What a column's bin is drawn from, given a hidden state and the parent's bin.

The state is the column's own, or, for a column that no other hangs on, its parent's: its own is summed over then, and
never drawn. Given the parent's state u, component r has weight sum_z transition[u, z] * mixture[z, r], and the own
emission sum_z transition[u, z] * mixture[z, 0] * emission[z, x]. Products of two weights and their sums over a row are
whole numbers up to 2**48: exact in float64, in any order. Sums of products of three are made of slices, each of which
is exact as well; see `rowmint.synthesizer.circuit.sliced`. Everything else is elementwise.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rowmint.synthesizer.circuit.sliced import Sliced
from rowmint.synthesizer.circuit.tree import ONE, Edge, TreeColumn

_ONE = float(ONE)


@dataclass(frozen=True)
class StateRows:
    """Probabilities of a column's components and of its own emission, by state.

    Attributes:
        mixture: Probability of each component, float64, shape (states, components + 1).
        own: Probability of component 0 and each bin, float64, shape (states, bins).
    """

    mixture: NDArray[np.float64]
    own: NDArray[np.float64]


def state_rows(emission: NDArray[np.uint32], edge: Edge) -> StateRows:
    """Return the probabilities by the column's own state."""
    mixture = edge.mixture / _ONE
    return StateRows(mixture, mixture[:, :1] * (emission / _ONE))


def merged_rows(emission: NDArray[np.uint32], edge: Edge) -> StateRows:
    """Return the probabilities by the parent's state, the column's own summed over; each rounded once."""
    transition = edge.transition.astype(np.float64)
    mixture = transition @ edge.mixture.astype(np.float64)
    # Multiples of 2**-48, 1 at most: two slices of 26 bits hold all of them.
    own = Sliced.of(state_rows(emission, edge).own, cuts=2)
    return StateRows(mixture / _ONE**2, own.products(transition))


@dataclass(frozen=True)
class Emission:
    """P(bin | state, parent's bin) for some of a column's bins. Immutable.

    Attributes:
        rows: By state; `own` for these bins alone.
        starts: First pair of each bin of the parent, and the number of pairs, int64, shape (parent's bins + 1,).
        pair_bins: Which of these bins each pair has, int64, shape (pairs,).
        pair_weights: float64, shape (components, pairs).
        rest: float64, shape (components, parent's bins).
        group: Row of `backoff` for each bin of the parent, int64, shape (parent's bins,).
        backoff: float64, shape (groups, these bins).
    """

    rows: StateRows
    starts: NDArray[np.int64]
    pair_bins: NDArray[np.int64]
    pair_weights: NDArray[np.float64]
    rest: NDArray[np.float64]
    group: NDArray[np.int64]
    backoff: NDArray[np.float64]

    @property
    def states(self) -> int:
        """States that it is by."""
        return len(self.rows.mixture)

    @property
    def parent_bins(self) -> int:
        """Bins of the parent."""
        return len(self.group)

    def probabilities(self, states: NDArray[np.int64], parent_bins: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the bins' probabilities for each state and bin of the parent, float64, shape (n, these bins)."""
        mixture = self.rows.mixture[states]
        row, pair = self.pairs(parent_bins)
        rest, pairs = np.zeros(len(states)), np.zeros(len(row))
        for component in range(len(self.rest)):  # one after another: the same bytes everywhere
            rest += mixture[:, component + 1] * self.rest[component, parent_bins]
            pairs += mixture[row, component + 1] * self.pair_weights[component, pair]
        found = self.rows.own[states] + rest[:, None] * self.backoff[self.group[parent_bins]]
        found[row, self.pair_bins[pair]] += pairs
        return found

    def pairs(self, parent_bins: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the pairs of each bin of the parent in turn: which of the given bins it is, and the pair; (pairs,)."""
        first = self.starts[parent_bins]
        lengths = self.starts[parent_bins + 1] - first
        row = np.repeat(np.arange(len(parent_bins)), lengths)
        return row, np.arange(len(row)) + np.repeat(first - (np.cumsum(lengths) - lengths), lengths)

    @property
    def size_bytes(self) -> int:
        """Bytes of the arrays."""
        arrays = (self.rows.mixture, self.rows.own, self.starts, self.pair_bins, self.pair_weights, self.rest)
        return sum(array.nbytes for array in (*arrays, self.group, self.backoff))


def emission_of(column: TreeColumn, edge: Edge, bins: NDArray[np.int64]) -> Emission:
    """Return the emission of some bins of a column: by its own state or, where it has no children, its parent's.

    Args:
        column: The column.
        edge: Its edge.
        bins: Which bins, ascending.
    """
    rows = (state_rows if column.children else merged_rows)(column.emission, edge)
    place = np.full(column.bins.count, -1)
    place[bins] = np.arange(len(bins))
    kept = np.flatnonzero(place[edge.pair_bins] >= 0)
    return Emission(
        StateRows(rows.mixture, rows.own[:, bins]),
        np.searchsorted(kept, edge.starts).astype(np.int64),
        place[edge.pair_bins[kept]],
        edge.pair_weights[:, kept] / _ONE,
        edge.rest / _ONE,
        edge.group.astype(np.int64),
        edge.backoff[:, bins] / _ONE,
    )
