"""The tree: which column hangs on which, so that what pairs of columns tell of each other is greatest in all.

The tree of the greatest sum is that of Chow and Liu (1968). A pair counts what it would be worth as an edge: how much
more likely each of the two columns is given the other, by the counts of pairs and what stands behind them, each row
left out by turns. Mutual information would prefer columns of many bins, whose pairs are mostly seen once. Half of what
a few coarse groups of both tell of each other is taken off: states carry that from column to column without an edge.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer_service.fitting.families.circuit.backoff import gain
from trainer_service.fitting.families.circuit.bins import ColumnBins, equal_groups

_PAIRS = 1_000  # of columns that are weighed; of more columns, those that share most information
_PARTNERS = 4  # of each column, so many are weighed at least
_COARSE = 8  # groups of a column, about as fine as states carry
_CARRIED = 0.5  # of what coarse groups tell of each other
_NEVER = 1e6  # nats: more than any pair is worth


@dataclass(frozen=True)
class Tree:
    """A tree of columns.

    Attributes:
        order: The columns, root first, parents before their children.
        parents: Parent of each column of `order`, by column.
        children: Children of each column, in the order of `order`.
    """

    order: tuple[int, ...]
    parents: dict[int, int]
    children: dict[int, tuple[int, ...]]

    @property
    def root(self) -> int:
        """The column without a parent."""
        return self.order[0]


def maximum_tree(
    codes: Sequence[NDArray[np.integer]],
    columns: Sequence[int],
    bins: Sequence[ColumnBins],
    between: Callable[[], None],
    own: Sequence[float] = (),
) -> Tree:
    """Return the tree of columns that tell most of each other; the root tells most about all others.

    Args:
        codes: Bins of some rows by column, shape (n,) each.
        columns: What the columns are called in the tree.
        bins: The bins of each.
        own: What each tells of columns that are not in the tree, nats a row; nothing where it is empty.
        between: Called now and then; it may raise.
    """
    return spanning_tree(_worth(codes, bins, between), columns, own)


def spanning_tree(worth: NDArray[np.float64], columns: Sequence[int], own: Sequence[float] = ()) -> Tree:
    """Return the tree of the greatest sum; the root is the column of the greatest sum of what is above 0.

    Args:
        worth: Of each pair, symmetric, shape (columns, columns).
        columns: What the columns are called in the tree.
        own: What is added to the sum of each column; nothing where it is empty.
    """
    sums: NDArray[np.float64] = np.maximum(worth, 0).sum(axis=1)
    place = int((sums + np.array(own) if own else sums).argmax())
    order, parents = [columns[place]], {}
    best, who = worth[place].copy(), np.full(len(columns), place)
    inside = np.zeros(len(columns), np.bool_)
    inside[place] = True
    while not inside.all():
        best[inside] = -np.inf
        place = int(best.argmax())
        parents[columns[place]] = columns[int(who[place])]
        order.append(columns[place])
        inside[place] = True
        better = worth[place] > best
        who[better], best[better] = place, worth[place][better]
    children = {column: tuple(child for child in order if parents.get(child) == column) for column in order}
    return Tree(tuple(order), parents, children)


def _worth(
    codes: Sequence[NDArray[np.integer]], bins: Sequence[ColumnBins], between: Callable[[], None]
) -> NDArray[np.float64]:
    """Return what each pair of columns is worth, nats a row, shape (c, c).

    Of many columns, it is computed for those that share most information; all others are worth less than any of them.
    """
    columns = len(codes)
    by_column = [one.astype(np.int64) for one in codes]

    def joint(one: int, two: int) -> NDArray[np.int64]:
        shape = bins[one].size, bins[two].size
        return np.bincount(by_column[one] * shape[1] + by_column[two], minlength=shape[0] * shape[1]).reshape(shape)

    coarse = [equal_groups(one.counts, _COARSE) for one in bins]
    worth = np.zeros((columns, columns))
    chosen = np.ones((columns, columns), np.bool_)
    if columns * (columns - 1) > 2 * _PAIRS:
        for one in range(columns):
            between()
            for two in range(one):
                worth[one, two] = worth[two, one] = _information(joint(one, two)) - _NEVER
        np.fill_diagonal(worth, -np.inf)
        near = np.argsort(-worth, axis=1, kind="stable")[:, : max(2 * _PAIRS // columns, _PARTNERS)]
        chosen[:] = False
        np.put_along_axis(chosen, near, True, axis=1)
        chosen |= chosen.T
    for one, two in np.argwhere(np.tril(chosen, -1)).tolist():
        between()
        found = joint(one, two)
        either = gain(found, bins[one], bins[two]) + gain(found.T, bins[two], bins[one])
        carried = _CARRIED * _information(_grouped(found, coarse[one], coarse[two]))
        worth[one, two] = worth[two, one] = either / 2 - carried
    np.fill_diagonal(worth, 0)
    return worth


def _grouped(joint: NDArray[np.int64], first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a table of counts by the groups, ascending, of its rows and columns."""
    rows, columns = (np.flatnonzero(np.diff(group, prepend=-1)) for group in (first, second))
    return np.add.reduceat(np.add.reduceat(joint, rows, axis=0), columns, axis=1)


def _information(joint: NDArray[np.int64]) -> float:
    """Return the mutual information of a table of counts, nats, less what chance brings (Miller 1955).

    That is about (c - a - b + 1) / 2n with a, b and c values and pairs that occur.
    """
    rows = joint.sum()
    left, right = joint.sum(axis=1), joint.sum(axis=0)
    first, second = np.nonzero(joint)
    mass = joint[first, second]
    shared = float((mass * np.log(mass * rows / (left[first] * right[second]))).sum())
    chance = len(mass) - np.count_nonzero(left) - np.count_nonzero(right) + 1
    return (shared - chance / 2) / float(rows)
