"""Drawing the bins of a circuit's columns, row by row, given what each row knows; see `row_messages` for the formulas.

From the root downward, where something is to be drawn at a column or below it:

    z ~ transition[z_p, z] * S(z, x_p)        x ~ P(x | z, x_p) * A(z, x)

where S and A are 1 if nothing is known at the column and below it. So what is drawn is distributed as the model's own
rows that have the known cells by chance.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rowmint.synthesizer.circuit.draw_by_weight import drawn
from rowmint.synthesizer.circuit.known import Float64, Int64
from rowmint.synthesizer.circuit.row_messages import RowBelief, RowBeliefs, Rows
from rowmint.synthesizer.circuit.row_tables import EdgeTables, LowRank, RowTables

RowWords = Callable[[str], NDArray[np.uint64]]
"""Returns a word of 64 bits for each row, by what they are for."""


@dataclass(frozen=True)
class _Place:
    """Where rows stand at a column; of rows that were not needed there, anything.

    Attributes:
        states: Its state, shape (n,); the parent's where the column has no children.
        bins: Its bin, shape (n,).
    """

    states: Int64
    bins: Int64

    def of(self, rows: Rows) -> "_Place":
        """Return some of the rows."""
        return _Place(self.states[rows], self.bins[rows])


class Posterior:
    """Draws bins. Immutable, thread-safe.

    Args:
        tables: The model.
        indices: What the words of each column of the tree are keyed by, by position; part of their purposes.
    """

    def __init__(self, tables: RowTables, indices: Mapping[int, int]) -> None:
        self._tables = tables
        self.indices = indices

    def draw(self, beliefs: RowBeliefs, wanted: Mapping[int, NDArray[np.bool_]], words: RowWords) -> dict[int, Int64]:
        """Return bins of columns of the tree, shape (n,), by position; of rows that were not wanted, anything.

        Args:
            beliefs: What n rows know; each is possible.
            wanted: Which rows' bins are wanted, bool, shape (n,), by position.
            words: Keys the draws.
        """
        circuit, count = self._tables.circuit, len(beliefs.probability)
        needed: dict[int, NDArray[np.bool_]] = {}
        for position, rows in wanted.items():
            for on_path in circuit.path(position):
                needed[on_path] = needed[on_path] | rows if on_path in needed else rows
        places: dict[int, _Place] = {}
        for position, column in circuit.columns.items():
            if position not in needed or not needed[position].any():
                continue
            place = places[position] = _Place(np.zeros(count, np.int64), np.zeros(count, np.int64))
            parent = None if column.edge is None else places[column.edge.parent]
            for belief in _every_row(beliefs.at.get(position, ()), needed[position]):
                own = _Words(words, belief.rows, self.indices[position])
                if parent is None:
                    found = self._root(belief, own)
                else:
                    found = _column(self._tables.edges[position], belief, own, parent.of(belief.rows))
                place.states[belief.rows], place.bins[belief.rows] = found.states, found.bins
        return {position: places[position].bins for position in wanted if position in places}

    def _root(self, belief: RowBelief, words: "_Words") -> _Place:
        root = self._tables.root
        weights = np.repeat(root.states, len(belief.rows), axis=0)
        if belief.by_state is not None:
            weights = weights * belief.by_state
        states = drawn(weights, words.of("state"))
        if belief.bins is not None:
            return _Place(states, belief.bins)
        return _Place(states, drawn(_believed(root.by_state[states], belief, states), words.of("bin")))


@dataclass(frozen=True)
class _Words:
    """The words of some rows at a column, by what they are for."""

    every: RowWords
    rows: Rows
    index: int

    def of(self, purpose: str) -> NDArray[np.uint64]:
        """Return a word of each row."""
        return self.every(f"{purpose}:{self.index}")[self.rows]


def _every_row(beliefs: Sequence[RowBelief], needed: NDArray[np.bool_]) -> Iterator[RowBelief]:
    """Yield what the needed rows know at a column; those that know nothing as one that does not."""
    rest = needed.copy()
    for belief in beliefs:
        rest[belief.rows] = False
        kept = np.flatnonzero(needed[belief.rows])
        if len(kept):
            yield belief if len(kept) == len(belief.rows) else belief.take(kept)
    rows = np.flatnonzero(rest)
    if len(rows):
        yield RowBelief(rows, None, None)


def _column(tables: EdgeTables, belief: RowBelief, words: _Words, parent: _Place) -> _Place:
    states = parent.states
    if not tables.is_leaf:
        weights = tables.transition[states]
        if belief.bins is not None or belief.weights is not None:
            weights = weights * _by_state(tables, belief, parent.bins)
        states = drawn(weights, words.of("state"))
    if belief.bins is not None:
        return _Place(states, belief.bins)
    weights = _believed(tables.emission.probabilities(states, parent.bins), belief, states)
    return _Place(states, drawn(weights, words.of("bin")))


def _by_state(tables: EdgeTables, belief: RowBelief, parent_bins: Int64) -> Float64:
    """Return S at the parent's bin, shape (n, states)."""
    found = belief.by_state
    if found is None:
        if belief.bins is None:
            raise ValueError("a column with a belief has a bin or sums by state")
        found, below = tables.at(parent_bins, belief.bins, merged=False), belief.known_below()
        return found if below is None else found * below
    return found if found.ndim == 2 else found[np.arange(len(found)), parent_bins]


def _believed(weights: Float64, belief: RowBelief, states: Int64) -> Float64:
    """Return the weights of a column's bins times A at each row's state, shape (n, bins)."""
    if belief.weights is None:
        return weights
    held = belief.weights
    if isinstance(held, LowRank):
        return weights * held.at(states)
    return weights * (held[:, :, 0] if held.shape[2] == 1 else held[np.arange(len(held)), :, states])
