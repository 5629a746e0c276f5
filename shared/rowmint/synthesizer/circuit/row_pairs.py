"""Sums over the pairs of bins that a column and its parent have, for all of the parent's bins at once."""

import numpy as np
from numpy.typing import NDArray

from rowmint.lazy import lazy
from rowmint.synthesizer.circuit.tree import Edge

Float64 = NDArray[np.float64]
MOST_CELLS = 1 << 20
"""Cells of a table of pairs that is kept of each column."""


class PairSums:
    """Sums up products of A with the mixed weights of the listed pairs. Immutable, thread-safe.

    Pairs are gone through in layers: first the first pair of every bin of the parent, then the second of those that
    have two, and so on. A layer is elementwise, so that sums are the same bytes everywhere, and nothing is cut off.

    Args:
        edge: The column's edge.
        mixture: Probability of each component by state, after that of the column's own emission, shape (states,
            components + 1).
        pair_weights: By pair, shape (pairs, components).
    """

    def __init__(self, edge: Edge, mixture: Float64, pair_weights: Float64) -> None:
        starts = edge.starts.astype(np.int64)
        lengths = starts[1:] - starts[:-1]
        self._order = np.argsort(-lengths, kind="stable")
        self._places = np.argsort(self._order, kind="stable")
        longest = int(lengths.max(initial=0))
        counts = [int((lengths > layer).sum()) for layer in range(longest)]
        self._ends = np.cumsum([0, *counts]).tolist()
        own = [starts[self._order[:count]] + layer for layer, count in enumerate(counts)]
        self._pairs = np.concatenate([np.zeros(0, np.int64), *own])
        self._bins = edge.pair_bins[self._pairs].astype(np.int64)
        self._mixture = mixture
        self._pair_weights = pair_weights

    def added(self, start: Float64, weights: Float64) -> Float64:
        """Return the sums for each bin of the parent, added to others, shape (n, parent's bins, states).

        Args:
            start: The others, of the same shape.
            weights: A, shape (n, bins, states), or (n, bins, 1) where it is the same for all states.
        """
        found = start[:, self._order]
        count, _, states = found.shape
        width = weights.shape[2]
        scratch = np.empty(count * found.shape[1] * (states + (width if width < states else 0)))
        for first, last in zip(self._ends, self._ends[1:], strict=False):
            cells = count * (last - first)
            taken = scratch[: cells * width].reshape(count, last - first, width)
            np.take(weights, self._bins[first:last], axis=1, out=taken, mode="clip")
            part = taken
            if width < states:
                part = scratch[cells * width : cells * (width + states)].reshape(count, last - first, states)
            found[:, : last - first] += np.multiply(taken, self._mixed(first, last), out=part)
        return found[:, self._places]

    def _mixed(self, first: int, last: int) -> Float64:
        """Return the mixed weights of some pairs in the order of layers, shape (those pairs, states)."""
        if self._kept is not None:
            return self._kept[first:last]
        return self._computed(first, last)

    @lazy
    def _kept(self) -> Float64 | None:
        if len(self._pairs) * len(self._mixture) > MOST_CELLS:
            return None
        return self._computed(0, len(self._pairs))

    def _computed(self, first: int, last: int) -> Float64:
        own = self._pair_weights[self._pairs[first:last]]
        found = np.zeros((last - first, len(self._mixture)))
        for component in range(own.shape[1]):  # one after another: the same bytes everywhere
            found += own[:, component, None] * self._mixture[:, component + 1]
        return found
