"""A circuit's parameters: a tree of columns with hidden states, whose weights are whole numbers.

A modelled column has choices, which are its codec's, and bins: each choice belongs to one bin, and within a bin a
choice is drawn by fixed weights. Column i has a hidden state z_i; p is its parent in the tree.

    P(z_root) = root[z]            P(x_root | z) = emission[z, x]
    P(z_i | z_p) = transition[z_p, z_i]
    P(x_i | z_i, x_p) = mixture[z_i, 0] * emission[z_i, x] + sum_{r=1..R} mixture[z_i, r] * B_r[x_p, x]
    B_r[x_p, x] = pair_weights[r, pair (x_p, x)] + rest[r, x_p] * backoff[group[x_p], x]

z are states, x bins, r components, and every weight is over `ONE`. A pair that is not listed has weight 0. A derived
column takes no part in the tree: its choice is a function of another column's. A joint column is one of the tree that
is no column of the table: its choices stand for combinations of other columns' choices, which are derived from it. Its
position is beyond those of the modelled columns.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ONE = 1 << 24
"""The sum of a row of weights."""


@dataclass(frozen=True)
class Bins:
    """The bins of a column.

    Attributes:
        of_choice: Bin of each choice, uint16, shape (choices,); each bin has a choice.
        weights: Weight of each choice within its bin, uint32, shape (choices,).
        count: Number of bins.
    """

    of_choice: NDArray[np.uint16]
    weights: NDArray[np.uint32]
    count: int


@dataclass(frozen=True)
class Edge:
    """What ties a column to its parent in the tree.

    Attributes:
        parent: Position of the parent.
        transition: uint32, shape (states, states): a row for each state of the parent.
        mixture: uint32, shape (states, components + 1).
        starts: First pair of each bin of the parent, and the number of pairs, uint32, shape (parent's bins + 1,).
        pair_bins: Bin of each pair, ascending within a bin of the parent, uint16, shape (pairs,).
        pair_weights: uint32, shape (components, pairs).
        rest: Weight of the backoff, uint32, shape (components, parent's bins).
        group: Row of `backoff` for each bin of the parent, uint16, shape (parent's bins,).
        backoff: uint32, shape (groups, bins).
    """

    parent: int
    transition: NDArray[np.uint32]
    mixture: NDArray[np.uint32]
    starts: NDArray[np.uint32]
    pair_bins: NDArray[np.uint16]
    pair_weights: NDArray[np.uint32]
    rest: NDArray[np.uint32]
    group: NDArray[np.uint16]
    backoff: NDArray[np.uint32]

    def arrays(self) -> Iterator[NDArray[np.generic]]:
        """Yield the arrays."""
        yield from (self.transition, self.mixture, self.starts, self.pair_bins, self.pair_weights)
        yield from (self.rest, self.group, self.backoff)


@dataclass(frozen=True)
class TreeColumn:
    """A column of the tree.

    Attributes:
        position: Which of the modelled columns it is, from 0; of a joint column their number and more.
        bins: Its bins.
        emission: uint32, shape (states, bins).
        edge: What ties it to its parent; None for the root.
        children: Positions of its children, in the order of the tree.
    """

    position: int
    bins: Bins
    emission: NDArray[np.uint32]
    edge: Edge | None
    children: tuple[int, ...]


@dataclass(frozen=True)
class DerivedColumn:
    """A column whose choice is a function of another one's.

    Attributes:
        of: Position of that column, which is one of the tree.
        choices: Its choice for each choice of that column, uint16, shape (that column's choices,).
    """

    of: int
    choices: NDArray[np.uint16]


@dataclass(frozen=True)
class Circuit:
    """All parameters. Immutable, thread-safe.

    Attributes:
        states: Hidden states of a column, K.
        components: Components of a mixture beside the column's own emission, R.
        root: Weights of the root's states, uint32, shape (states,).
        columns: The tree's columns by position, root first, parents before their children.
        derived: The derived columns by position.
    """

    states: int
    components: int
    root: NDArray[np.uint32]
    columns: Mapping[int, TreeColumn]
    derived: Mapping[int, DerivedColumn]

    def determining(self, position: int) -> int:
        """Return the column of the tree that decides a column's choice: itself, but for a derived one."""
        found = self.derived.get(position)
        return position if found is None else found.of

    def path(self, position: int) -> Iterator[int]:
        """Yield a column of the tree and its ancestors, up to the root."""
        yield position
        while (edge := self.columns[position].edge) is not None:
            position = edge.parent
            yield position

    @property
    def size_bytes(self) -> int:
        """Bytes of the arrays."""
        total = self.root.nbytes + sum(derived.choices.nbytes for derived in self.derived.values())
        for column in self.columns.values():
            total += column.bins.of_choice.nbytes + column.bins.weights.nbytes + column.emission.nbytes
            if column.edge is not None:
                total += sum(array.nbytes for array in column.edge.arrays())
        return total
