"""Drawing a column's bin given its state, the parent's bin and the conditions: x ~ P(x | z, x_p) * A(z, x).

There are two ways. One row for each state and bin of the parent is the fastest to draw from. Where these rows have too
many weights together, a component is drawn first, by sum_x of what it contributes, and then a bin of that component's
row, which has pairs where the other way has bins.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rowmint.rng import TileKey
from rowmint.synthesizer.circuit.emission import Emission
from rowmint.synthesizer.circuit.messages import Belief, Parts
from rowmint.synthesizer.circuit.search import SearchRows


class BinDraw(Protocol):
    """Draws the bins of a column given the conditions. Immutable, thread-safe."""

    def draw(self, key: TileKey, states: NDArray[np.int64], parent_bins: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return which of the possible bins each row has, shape (n,).

        Args:
            key: Keys the words.
            states: State of each row: the column's own, or its parent's where no other column hangs on it.
            parent_bins: Bin of the parent of each row.
        """
        ...

    @property
    def size_bytes(self) -> int:
        """Most bytes in use, when all that may be kept is."""
        ...


@dataclass(frozen=True)
class DirectWeights:
    """Weights of the possible bins; a row is a state * the parent's bins + its bin.

    Attributes:
        emission: Of the possible bins.
        believed: A, float64, shape (states or 1, possible).
    """

    emission: Emission
    believed: NDArray[np.float64]

    def __call__(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """See `RowWeights`."""
        states, bins = np.divmod(rows, self.emission.parent_bins)
        found = self.emission.probabilities(states, bins)
        found *= self.believed if len(self.believed) == 1 else self.believed[states]
        return found


class DirectBins:
    """Draws from one row for each state and bin of the parent; see `BinDraw`.

    Args:
        index: Of the column in the schema; part of its words' purpose.
        emission: Of the possible bins.
        belief: What the conditions say here.
        most_cells: Weights kept.
    """

    def __init__(self, index: int, emission: Emission, belief: Belief, most_cells: int) -> None:
        self.weights = DirectWeights(emission, belief.weights)
        self._index = index
        rows = emission.states * emission.parent_bins
        self._rows = SearchRows(np.full(rows, len(belief.bins)), self.weights, most_cells)

    def draw(self, key: TileKey, states: NDArray[np.int64], parent_bins: NDArray[np.int64]) -> NDArray[np.int64]:
        """See `BinDraw`."""
        rows = states * self.weights.emission.parent_bins
        rows += parent_bins
        return self._rows.draw(rows, key.words32(f"bin:{self._index}", len(rows)))

    @property
    def size_bytes(self) -> int:
        """Most bytes in use, when all that may be kept is."""
        return self.weights.emission.size_bytes + self.weights.believed.nbytes + self._rows.size_bytes


@dataclass(frozen=True)
class ComponentWeights:
    """Weights of a column's components, and of the bins of each.

    Bins are drawn from rows: of the own emission by state, and then of each component by the parent's bin and, unless
    the conditions say the same for all states, by state.

    Attributes:
        belief: What the conditions say here.
        parts: What its S is made of.
        emission: Of the possible bins.
        own: Weight of component 0 by state, float64, shape (states,).
    """

    belief: Belief
    parts: Parts
    emission: Emission
    own: NDArray[np.float64]

    @property
    def columns(self) -> int:
        """States that the conditions say something else for: all, or 1 for none."""
        return len(self.belief.weights)

    def component_weights(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the weights of the components; a row is a state * the parent's bins + its bin."""
        states, bins = np.divmod(rows, self.emission.parent_bins)
        found = self.emission.rows.mixture[states]
        found[:, 0] = self.own[states]
        found[:, 1:] *= self.parts.components[:, bins, states if self.columns > 1 else 0].T
        return found

    def bin_rows(
        self, components: NDArray[np.int64], states: NDArray[np.int64], parent_bins: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the row that each bin is drawn from."""
        drawn = (components - 1) * self.emission.parent_bins + parent_bins
        if self.columns > 1:
            drawn *= self.columns
            drawn += states
        drawn += len(self.own)
        return np.where(components == 0, states, drawn)

    def bin_lengths(self) -> NDArray[np.int64]:
        """Return the outcomes of each row: the possible bins, or the possible pairs and then the backoff."""
        pairs = self.emission.starts[1:] - self.emission.starts[:-1] + 1
        drawn = np.tile(np.repeat(pairs, self.columns), len(self.emission.rest))
        return np.concatenate([np.full(len(self.own), len(self.belief.bins)), drawn])

    def bin_weights(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the weights of the outcomes of rows."""
        emission, states = self.emission, len(self.own)
        own, listed = np.flatnonzero(rows < states), np.flatnonzero(rows >= states)
        drawn, columns = np.divmod(rows[listed] - states, self.columns)
        components, parent_bins = np.divmod(drawn, emission.parent_bins)
        of, pairs = emission.pairs(parent_bins)
        lengths = emission.starts[parent_bins + 1] - emission.starts[parent_bins]
        possible = len(self.belief.bins)
        found = np.zeros((len(rows), max(possible if len(own) else 1, int(lengths.max(initial=0)) + 1)))
        if len(own):
            found[own, :possible] = emission.rows.own[rows[own]] * self._believed(rows[own])
        within = np.arange(len(of)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        weights = emission.pair_weights[components[of], pairs]
        found[listed[of], within] = weights * self.belief.weights[columns[of], emission.pair_bins[pairs]]
        backoff = self.parts.backoff[emission.group[parent_bins], columns]
        found[listed, lengths] = emission.rest[components, parent_bins] * backoff
        return found

    def backoff_weights(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the weights of the possible bins; a row is a group * `columns` + a state, or 0 where there is one."""
        groups, columns = np.divmod(rows, self.columns)
        return self.emission.backoff[groups] * self.belief.weights[columns]

    def _believed(self, states: NDArray[np.int64]) -> NDArray[np.float64]:
        return self.belief.weights[states] if self.columns > 1 else self.belief.weights

    @property
    def size_bytes(self) -> int:
        """Bytes of the arrays."""
        belief = self.belief.bins.nbytes + self.belief.weights.nbytes + self.belief.by_state.nbytes
        parts = self.parts.own.nbytes + self.parts.components.nbytes + self.parts.backoff.nbytes
        return belief + parts + self.emission.size_bytes + self.own.nbytes


class ComponentBins:
    """Draws a component, and then from its row; see `BinDraw`.

    Args:
        index: Of the column in the schema; part of its words' purposes.
        weights: The weights.
        most_cells: Weights kept in each of the tables.
    """

    def __init__(self, index: int, weights: ComponentWeights, most_cells: int) -> None:
        emission, possible = weights.emission, len(weights.belief.bins)
        self.weights = weights
        self._index = index
        components = np.full(emission.states * emission.parent_bins, len(emission.rest) + 1)
        self._component_rows = SearchRows(components, weights.component_weights, most_cells)
        self._bin_rows = SearchRows(weights.bin_lengths(), weights.bin_weights, most_cells)
        groups = np.full(len(emission.backoff) * weights.columns, possible)
        self._backoff_rows = SearchRows(groups, weights.backoff_weights, most_cells)
        # What the outcomes of a row stand for: a possible bin, or -1 for the backoff.
        ends = emission.starts[1:] + np.arange(emission.parent_bins)
        listed = np.full(len(emission.pair_bins) + emission.parent_bins, -1)
        listed[np.delete(np.arange(len(listed)), ends)] = emission.pair_bins
        self._outcomes = np.concatenate([np.arange(possible), listed])
        self._first = possible + emission.starts[:-1] + np.arange(emission.parent_bins)

    def draw(self, key: TileKey, states: NDArray[np.int64], parent_bins: NDArray[np.int64]) -> NDArray[np.int64]:
        """See `BinDraw`."""
        index, size = self._index, len(states)
        rows = states * len(self._first)
        rows += parent_bins
        components = self._component_rows.draw(rows, key.words32(f"component:{index}", size))
        drawn = self.weights.bin_rows(components, states, parent_bins)
        found = self._bin_rows.draw(drawn, key.words32(f"bin:{index}", size))
        found += np.where(components == 0, 0, self._first.take(parent_bins, mode="clip"))
        found = self._outcomes.take(found, mode="clip")
        rest = np.flatnonzero(found < 0)
        if len(rest):
            groups = self.weights.emission.group[parent_bins[rest]] * self.weights.columns
            if self.weights.columns > 1:
                groups += states[rest]
            found[rest] = self._backoff_rows.draw(groups, key.words32(f"backoff:{index}", size)[rest])
        return found

    @property
    def size_bytes(self) -> int:
        """Most bytes in use, when all that may be kept is."""
        tables = self._component_rows.size_bytes + self._bin_rows.size_bytes + self._backoff_rows.size_bytes
        return self.weights.size_bytes + self._outcomes.nbytes + self._first.nbytes + tables
