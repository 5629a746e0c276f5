"""What a pair of bins is taken for before many rows have shown it: pairs of groups, then the column alone.

How much each counts is chosen for every pair of columns by leaving out one row at a time, which needs no more than the
counts.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer_service.fitting.families.circuit.bins import ColumnBins

_STRENGTHS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)
_HALF = 0.5  # row: what is left of a bin whose only row is left out


@dataclass(frozen=True)
class PairTable:
    """The pairs of bins of a column and its parent that training rows have, and what stands behind them.

    Attributes:
        place: Index of each pair among those found, int32; -1 for those not found; shape (parent's bins * bins,).
        parents: Bin of the parent of each pair, ascending; shape (pairs,).
        bins: Bin of the column of each pair, ascending within a parent's bin; shape (pairs,).
        shares: Share of each pair in its parent's bin, the backoff's share left out; float32, shape (pairs,).
        rest: The backoff's share of each of the parent's bins, float32, shape (parent's bins,).
        group: Row of `backoff` of each of the parent's bins, shape (parent's bins,).
        backoff: Distribution of the column's bins for each group of the parent's, float32, shape (groups, bins).
        rows: Training rows of each of the parent's bins, float32, shape (parent's bins,).
    """

    place: NDArray[np.int32]
    parents: NDArray[np.int64]
    bins: NDArray[np.int64]
    shares: NDArray[np.float32]
    rest: NDArray[np.float32]
    group: NDArray[np.int64]
    backoff: NDArray[np.float32]
    rows: NDArray[np.float32]

    @property
    def prior(self) -> NDArray[np.float32]:
        """Share of each pair with the backoff's, shape (pairs,)."""
        behind = self.rest[self.parents] * self.backoff[self.group[self.parents], self.bins]
        return self.shares + behind


def pair_table(joint: NDArray[np.int64], parent: ColumnBins, column: ColumnBins) -> PairTable:
    """Return the table of the pairs of a column with its parent.

    Args:
        joint: Training rows of each pair, shape (parent's bins, bins).
        parent: The parent's bins.
        column: The column's bins.
    """
    parents, bins = np.nonzero(joint)
    counts = joint[parents, bins].astype(np.float64)
    rows = joint.sum(axis=1).astype(np.float64)
    backoff, left_out = _backoff(joint, parent, column)
    strength, _ = _strength(counts, rows[parents], left_out[parent.groups[parents], bins])
    place = np.full(joint.size, -1, np.int32)
    place[parents * joint.shape[1] + bins] = np.arange(len(parents), dtype=np.int32)
    return PairTable(
        place,
        parents,
        bins,
        (counts / (rows[parents] + strength)).astype(np.float32),
        (strength / (rows + strength)).astype(np.float32),
        parent.groups,
        backoff.astype(np.float32),
        rows.astype(np.float32),
    )


def gain(joint: NDArray[np.int64], parent: ColumnBins, column: ColumnBins) -> float:
    """Return how much more likely a column's bins are given another's than alone, mean nats a row, each row left out.

    Args:
        joint: Rows of each pair, shape (parent's bins, bins).
        parent: The other column's bins.
        column: The column's bins.
    """
    parents, bins = np.nonzero(joint)
    counts = joint[parents, bins].astype(np.float64)
    own = joint.sum(axis=0).astype(np.float64)
    _, left_out = _backoff(joint, parent, column)
    _, likely = _strength(counts, joint.sum(axis=1)[parents].astype(np.float64), left_out[parent.groups[parents], bins])
    some = own[own > 0]
    alone = float((some * np.log((some - 1 + _HALF) / (some.sum() - 1 + _HALF * len(own)))).sum())
    return (likely - alone) / max(float(some.sum()), 1.0)


def _backoff(
    joint: NDArray[np.int64], parent: ColumnBins, column: ColumnBins
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the distribution of a column's bins for each group of its parent's, and the same with a row left out.

    Both have shape (groups, bins).
    """
    groups, own = int(parent.groups.max()) + 1, int(column.groups.max()) + 1
    by_parent = np.zeros((groups, joint.shape[1]))
    np.add.at(by_parent, parent.groups, joint)
    coarse = np.zeros((own, groups))
    np.add.at(coarse, column.groups, by_parent.T)
    coarse = coarse.T
    total = coarse.sum(axis=1, keepdims=True)
    mass = np.bincount(column.groups, column.counts, own)
    alone = mass / max(mass.sum(), 1.0)
    less_alone = np.maximum(mass - 1, _HALF) / max(mass.sum() - 1, 1.0)
    found = np.nonzero(coarse)
    strength, _ = _strength(coarse[found], total[found[0], 0], less_alone[found[1]])
    within = column.counts / np.maximum(mass, 1e-300)[column.groups]
    less_within = np.maximum(column.counts - 1, _HALF) / np.maximum(mass - 1, 1.0)[column.groups]
    smooth = (coarse + strength * alone) / (total + strength)
    without = (np.maximum(coarse - 1, 0) + strength * less_alone) / (np.maximum(total - 1, 0) + strength)
    return smooth[:, column.groups] * within, without[:, column.groups] * np.minimum(less_within, 1.0)


def _strength(
    counts: NDArray[np.float64], rows: NDArray[np.float64], behind: NDArray[np.float64]
) -> tuple[float, float]:
    """Return the rows that a prior counts for, those that make each row most likely given all others, and that, nats.

    Args:
        counts: Rows of each pair, at least 1; shape (pairs,).
        rows: Rows of its context.
        behind: Its probability by the prior, above 0.
    """
    found: dict[int, float] = {}

    def likely(place: int) -> float:
        if place not in found:
            strength = _STRENGTHS[place]
            found[place] = float((counts * np.log((counts - 1 + strength * behind) / (rows - 1 + strength))).sum())
        return found[place]

    # It rises to its greatest and falls from there.
    low, high = 0, len(_STRENGTHS) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if likely(middle + 1) > likely(middle) else (low, middle)
    return _STRENGTHS[low], likely(low)
