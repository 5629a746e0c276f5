"""Drawing the columns that conditions say something about, given the conditions; see `messages` for the formulas."""

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rowmint.rng import TileKey
from rowmint.synthesizer.circuit.conditioned_bins import BinDraw, ComponentBins, ComponentWeights, DirectBins
from rowmint.synthesizer.circuit.draws import Place
from rowmint.synthesizer.circuit.emission import emission_of
from rowmint.synthesizer.circuit.messages import Belief, Parts
from rowmint.synthesizer.circuit.search import SearchRows
from rowmint.synthesizer.circuit.sliced import Sliced
from rowmint.synthesizer.circuit.tree import ONE, Bins, Circuit, Edge, TreeColumn


@dataclass(frozen=True)
class RootWeights:
    """Weights that the root is drawn from.

    Attributes:
        states: Weight of each state, shape (1, states).
        bins: Weight of each possible bin, shape (states, possible).
    """

    states: NDArray[np.float64]
    bins: NDArray[np.float64]

    def state_weights(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the weights of the states, a row each; there is one row."""
        return self.states[rows]

    def bin_weights(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the weights of the bins by state."""
        return self.bins[rows]

    @property
    def size_bytes(self) -> int:
        """Bytes of the arrays."""
        return self.states.nbytes + self.bins.nbytes


class ConditionedRoot:
    """Draws the root given the conditions; see `ColumnDraw`.

    Args:
        circuit: The model.
        column: The root.
        index: Of the column in the schema; part of its words' purposes.
        belief: What the conditions say here.
    """

    def __init__(self, circuit: Circuit, column: TreeColumn, index: int, belief: Belief) -> None:
        self.weights = RootWeights(
            (circuit.root / float(ONE) * belief.by_state[:, 0])[None],
            column.emission[:, belief.bins] / float(ONE) * belief.weights,
        )
        self._index = index
        self._bins = belief.bins
        states = circuit.states
        self._state_rows = SearchRows(np.array([states]), self.weights.state_weights, states)
        possible = len(belief.bins)
        self._bin_rows = SearchRows(np.full(states, possible), self.weights.bin_weights, states * possible)

    def place(self, key: TileKey, size: int, parent: Place | None) -> Place:
        """See `ColumnDraw`."""
        states = self._state_rows.draw(np.zeros(size, np.int64), key.words32(f"state:{self._index}", size))
        found = self._bin_rows.draw(states, key.words32(f"bin:{self._index}", size))
        return Place(states, self._bins.take(found, mode="clip"))

    @property
    def size_bytes(self) -> int:
        """Most bytes in use, when all that may be kept is."""
        return self.weights.size_bytes + self._state_rows.size_bytes + self._bin_rows.size_bytes


@dataclass(frozen=True)
class StateWeights:
    """Weights of a column's states; a row is the parent's state * its bins + its bin.

    Attributes:
        transition: float64, shape (states, states).
        by_state: S, float64, shape (states, parent's bins).
    """

    transition: NDArray[np.float64]
    by_state: NDArray[np.float64]

    def __call__(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """See `RowWeights`."""
        states, bins = np.divmod(rows, self.by_state.shape[1])
        return self.transition[states] * self.by_state.T[bins]


class ConditionedColumn:
    """Draws another column given the conditions; see `ColumnDraw`.

    Args:
        column: The column.
        edge: Its edge.
        index: Of the column in the schema; part of its words' purposes.
        belief: What the conditions say here.
        parts: What its S is made of.
        cuts: Slices that values are cut into.
        most_cells: Weights kept in each of its tables.
    """

    def __init__(
        self, column: TreeColumn, edge: Edge, index: int, belief: Belief, parts: Parts, *, cuts: int, most_cells: int
    ) -> None:
        self.states = StateWeights(edge.transition / float(ONE), belief.by_state)
        self.bins: BinDraw
        self._index = index
        self._possible = belief.bins
        emission = emission_of(column, edge, belief.bins)
        rows = emission.states * emission.parent_bins
        if rows * len(belief.bins) <= most_cells:
            self.bins = DirectBins(index, emission, belief, most_cells)
        else:
            own = edge.mixture[:, :1] / float(ONE) * parts.own
            if not column.children:
                own = Sliced.of(own, cuts).products(edge.transition.astype(np.float64))
            self.bins = ComponentBins(index, ComponentWeights(belief, parts, emission, own[:, 0]), most_cells)
        self._state_rows = None
        if column.children:
            self._state_rows = SearchRows(np.full(rows, emission.states), self.states, most_cells)

    def place(self, key: TileKey, size: int, parent: Place | None) -> Place:
        """See `ColumnDraw`."""
        if parent is None or parent.states is None:
            raise ValueError("a column is drawn after its parent")
        states = parent.states
        if self._state_rows is not None:
            rows = states * self.states.by_state.shape[1]
            rows += parent.bins
            states = self._state_rows.draw(rows, key.words32(f"state:{self._index}", size))
        bins = np.zeros(size, np.int64)
        if len(self._possible) > 1:
            bins = self.bins.draw(key, states, parent.bins)
        return Place(states if self._state_rows is not None else None, self._possible.take(bins, mode="clip"))

    @property
    def size_bytes(self) -> int:
        """Most bytes in use, when all that may be kept is."""
        states = 0 if self._state_rows is None else self._state_rows.size_bytes
        return self.states.transition.nbytes + self.states.by_state.nbytes + self.bins.size_bytes + states


class ConditionedChoices:
    """Draws a column's choices within its bins by how much of each satisfies the conditions; see `ChoiceDraw`.

    Args:
        bins: The column's bins.
        shares: Share of each choice that satisfies the conditions, 0 to 1, shape (choices,).
        index: Of the column in the schema; part of the words' purpose.
    """

    def __init__(self, bins: Bins, shares: NDArray[np.float64], index: int) -> None:
        weights = bins.weights * shares
        kept = np.flatnonzero(weights)
        self._order = kept[np.argsort(bins.of_choice[kept], kind="stable")]
        of = bins.of_choice[self._order].astype(np.int64)
        self._index = index
        self._first = np.searchsorted(of, np.arange(bins.count + 1))
        self._single = len(of) == 0 or int(np.bincount(of).max()) == 1
        # Running sums within each bin, over their total, plus the bin: one ascending array.
        self._sums = weights[self._order]
        for first, last in itertools.pairwise(self._first):
            if last > first:
                running = np.cumsum(self._sums[first:last])
                self._sums[first:last] = of[first] + running / running[-1]

    def choices(self, key: TileKey, bins: NDArray[np.int64]) -> NDArray[np.int64]:
        """See `ChoiceDraw`."""
        if self._single:
            return self._order.take(self._first.take(bins, mode="clip"), mode="clip")
        words = key.words32(f"choice:{self._index}", len(bins))
        target = bins + (words + 0.5) / float(1 << 32)
        return self._order.take(np.searchsorted(self._sums, target, side="right"), mode="clip")

    @property
    def size_bytes(self) -> int:
        """Bytes of the arrays."""
        return self._order.nbytes + self._first.nbytes + self._sums.nbytes
