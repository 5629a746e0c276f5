"""A circuit's parameters as tables that many rows are looked up in, each at bins of its own."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rowmint.lazy import lazy
from rowmint.synthesizer.circuit.emission import Emission, StateRows, emission_of, merged_rows
from rowmint.synthesizer.circuit.known import Float64, Int64, runs
from rowmint.synthesizer.circuit.row_pairs import MOST_CELLS, PairSums
from rowmint.synthesizer.circuit.row_sums import Sums
from rowmint.synthesizer.circuit.tree import ONE, Circuit, Edge, TreeColumn


@dataclass(frozen=True)
class LowRank:
    """What a known bin says of the parent, of n rows: A(z, x) = own[z] + sum_r columns[r, x] * mixed[r, z].

    Attributes:
        own: By the parent's state, shape (n, states).
        mixed: Shape (n, components, states), or (1, components, states) where it is the same for all rows.
        columns: By the parent's bin, shape (n, components, bins).
    """

    own: Float64
    mixed: Float64
    columns: Float64

    def everywhere(self) -> Float64:
        """Return A, shape (n, bins, states)."""
        found = np.repeat(self.own[:, None], self.columns.shape[2], axis=1)
        part = np.empty_like(found)
        for component in range(self.columns.shape[1]):
            found += np.multiply(self.columns[:, component, :, None], self.mixed[:, component, None], out=part)
        return found

    def at(self, states: Int64) -> Float64:
        """Return A at a state of each row, shape (n, bins)."""
        rows = np.arange(len(states))
        found = np.repeat(self.own[rows, states][:, None], self.columns.shape[2], axis=1)
        mixed = self.mixed[rows if len(self.mixed) > 1 else 0, :, states]
        for component in range(self.columns.shape[1]):
            found += self.columns[:, component] * mixed[:, component, None]
        return found

    def take(self, index: NDArray[np.intp]) -> "LowRank":
        """Return some of the rows."""
        return LowRank(self.own[index], self.mixed[index] if len(self.mixed) > 1 else self.mixed, self.columns[index])

    @property
    def by_bin(self) -> Float64:
        """The columns, shape (n, bins, components)."""
        return np.moveaxis(self.columns, 1, 2)

    def summed(self, drawn: Float64) -> Float64:
        """Return sum_x p(z, x) * A(z, x) for each row, shape (n, states), where p is a law of x by z.

        Args:
            drawn: sum_x p(z, x) * columns[r, x], shape (n, states, components).
        """
        found = self.own.copy()
        for component in range(self.columns.shape[1]):
            found += drawn[:, :, component] * self.mixed[:, component]
        return found


class EdgeTables:
    """A column that has a parent, looked up by the bins of both. Immutable, thread-safe.

    Args:
        column: The column.
        edge: Its edge.

    Attributes:
        emission: P(bin | state, parent's bin); the state is the parent's where the column has no children.
        is_leaf: Whether it has none.
        transition: float64, shape (states, states): whole numbers.
    """

    def __init__(self, column: TreeColumn, edge: Edge) -> None:
        self.emission: Emission = emission_of(column, edge, np.arange(column.bins.count))
        self.is_leaf = not column.children
        self.transition = edge.transition.astype(np.float64)
        self._column = column
        self._edge = edge
        self._bins = column.bins.count
        parents = np.repeat(np.arange(len(edge.group)), edge.starts[1:] - edge.starts[:-1])
        self._places = parents * self._bins + edge.pair_bins
        self._parents = parents
        self._by_bin = np.argsort(edge.pair_bins, kind="stable")
        self._bin_starts = np.searchsorted(edge.pair_bins[self._by_bin], np.arange(self._bins + 1))

    @lazy
    def merged(self) -> StateRows:
        """Probabilities by the parent's state: what a column says of which nothing below is known."""
        return self.emission.rows if self.is_leaf else merged_rows(self._column.emission, self._edge)

    @lazy
    def _own_by_bin(self) -> Float64:
        return np.ascontiguousarray(self.emission.rows.own.T)

    @lazy
    def _merged_by_bin(self) -> Float64:
        return self._own_by_bin if self.is_leaf else np.ascontiguousarray(self.merged.own.T)

    @lazy
    def _pair_rows(self) -> Float64:
        return np.ascontiguousarray(self.emission.pair_weights.T)

    def at(self, parent_bins: Int64, bins: Int64, *, merged: bool) -> Float64:
        """Return P(bin | state, parent's bin) for each row, shape (n, states).

        Args:
            parent_bins: The parent's bin of each row.
            bins: The column's.
            merged: Whether the state is the parent's.
        """
        wanted = parent_bins * self._bins + bins
        pair = np.minimum(np.searchsorted(self._places, wanted), max(len(self._places) - 1, 0))
        listed = self._places[pair] == wanted if len(self._places) else np.zeros(len(wanted), np.bool_)
        table = self._merged_pairs if merged else self._pairs
        if table is not None and listed.all():
            found: Float64 = table[pair]
            return found
        if table is None:
            return self._by_formula(parent_bins, bins, pair, listed, merged=merged)
        found = np.empty((len(bins), table.shape[1]))
        found[listed] = table[pair[listed]]
        rest = ~listed
        found[rest] = self._by_formula(parent_bins[rest], bins[rest], pair[rest], listed[rest], merged=merged)
        return found

    def _by_formula(
        self, parent_bins: Int64, bins: Int64, pair: Int64, listed: NDArray[np.bool_], *, merged: bool
    ) -> Float64:
        """Return P(bin | state, parent's bin); `pair` is the number of the pair of bins, where it is `listed`."""
        emission = self.emission
        backoff = emission.backoff[emission.group[parent_bins], bins]
        components = emission.rest.T[parent_bins] * backoff[:, None]
        components[listed] += self._pair_rows[pair[listed]]
        mixture = (self.merged if merged else emission.rows).mixture
        found = (self._merged_by_bin if merged else self._own_by_bin)[bins]
        part = np.empty_like(found)
        for component in range(components.shape[1]):  # one after another: the same bytes everywhere
            found += np.multiply(components[:, component, None], mixture[:, component + 1], out=part)
        return found

    @lazy
    def _merged_pairs(self) -> Float64 | None:
        """What `at` is for every listed pair of bins, where these are not too many."""
        return self._all_pairs(merged=True)

    @lazy
    def _pairs(self) -> Float64 | None:
        return self._merged_pairs if self.is_leaf else self._all_pairs(merged=False)

    def _all_pairs(self, *, merged: bool) -> Float64 | None:
        count = len(self._places)
        if not count or count * len(self.transition) > MOST_CELLS:
            return None
        every = np.arange(count)
        bins = self._edge.pair_bins.astype(np.int64)
        return self._by_formula(self._parents, bins, every, np.ones(count, np.bool_), merged=merged)

    def _component_columns(self, bins: Int64) -> Float64:
        """Return B_r of every bin of the parent and a bin of each row, shape (n, components, parent's bins)."""
        emission = self.emission
        backoff = emission.backoff[emission.group].T[bins]
        found = emission.rest * backoff[:, None, :]
        index, row = runs(self._bin_starts[bins], self._bin_starts[bins + 1])
        pair = self._by_bin[index]
        found[row, :, self._parents[pair]] += self._pair_rows[pair]
        return found

    def known_bin(self, weights: Float64 | None, bins: Int64, sums: Sums) -> Float64 | LowRank:
        """Return what each row's bin says of the parent: sum_z transition[z_p, z] * P(bin | z, x_p) * A(z).

        Where the parent has few bins these are all computed, shape (n, parent's bins, states).

        Args:
            weights: A at the row's bin by state, shape (n, states); None where nothing below is known.
            bins: The bin of each row.
            sums: Sums up products.
        """
        parent_bins = self.emission.parent_bins
        if parent_bins <= len(self._edge.rest):
            every = np.tile(np.arange(parent_bins), len(bins))
            found = self.at(every, np.repeat(bins, parent_bins), merged=weights is None)
            if weights is not None:
                found *= np.repeat(weights, parent_bins, axis=0)
                found = sums.of_rows(self.transition, found)
            return found.reshape(len(bins), parent_bins, -1)
        columns = self._component_columns(bins)
        if weights is None:
            return LowRank(self._merged_by_bin[bins], self.merged.mixture.T[None, 1:], columns)
        own = self._own_by_bin[bins] * weights
        mixed = self.emission.rows.mixture.T[1:] * weights[:, None, :]
        parts = np.concatenate([own[:, None], mixed], axis=1)
        flat = parts.reshape(-1, parts.shape[-1])
        found = sums.of_rows(self.transition, flat).reshape(parts.shape)
        return LowRank(found[:, 0], found[:, 1:], columns)

    def summed_at(self, weights: Float64 | LowRank, parent_bins: Int64, sums: Sums) -> Float64:
        """Return sum_x P(x | state, parent's bin) * A(state, x) for each row, shape (n, states).

        Args:
            weights: A, shape (n, bins, states), or (n, bins, 1) where it is the same for all states.
            parent_bins: The parent's bin of each row.
            sums: Sums up products.
        """
        edge, emission, count = self._edge, self.emission, len(parent_bins)
        components, mixture = len(edge.rest), emission.rows.mixture
        rows = np.zeros((count, components + 1, self._bins))
        index, row = runs(emission.starts[parent_bins], emission.starts[parent_bins + 1])
        rows[row, :components, edge.pair_bins[index]] = edge.pair_weights.T[index]
        rows[:, components] = edge.backoff[edge.group[parent_bins]]
        drawn = sums.products(rows, weights.by_bin if isinstance(weights, LowRank) else weights)
        rest = emission.rest.T[parent_bins]
        drawn = drawn[:, :components] + rest[:, :, None] * drawn[:, components:]
        if isinstance(weights, LowRank):
            mixed = sums.products(edge.mixture[:, 1:].astype(np.float64), drawn)
            own = sums.products(self._emission, weights.by_bin)
            return weights.summed(mixed + mixture[:, :1] * own)
        found = _diagonal(self._own_by_bin, weights)
        for component in range(components):
            found += mixture[:, component + 1] * drawn[:, component]
        return found

    def summed_everywhere(self, weights: Float64, sums: Sums) -> Float64:
        """Return the sums for each bin x_p of the parent, shape (n, parent's bins, states); see `summed_at`."""
        edge = self._edge
        backoff = sums.products(edge.backoff.astype(np.float64), weights)[:, edge.group]
        start = self._mixed_rest * backoff
        start += _diagonal(self._own_by_bin, weights)[:, None]
        return self._pair_sums.added(start, weights)

    @lazy
    def _pair_sums(self) -> PairSums:
        return PairSums(self._edge, self.emission.rows.mixture, self._pair_rows)

    @lazy
    def _mixed_rest(self) -> Float64:
        """Share of the backoff by the parent's bin and the state, shape (parent's bins, states)."""
        rest, mixture = self.emission.rest, self.emission.rows.mixture
        found = np.zeros((rest.shape[1], len(mixture)))
        for component, own in enumerate(rest, 1):  # one after another: the same bytes everywhere
            found += own[:, None] * mixture[:, component]
        return found

    @lazy
    def _emission(self) -> Float64:
        return self._column.emission.astype(np.float64)


def _diagonal(by_bin: Float64, weights: Float64) -> Float64:
    """Return sum_x by_bin[x, z] * A(z, x) for each row, shape (n, states)."""
    found = by_bin * weights
    length = len(by_bin)
    while length > 1:  # by halves, elementwise: the same bytes everywhere
        half = (length + 1) // 2
        found[:, : length - half] += found[:, half:length]
        length = half
    return found[:, 0]


class RootTables:
    """The root, looked up by bin. Immutable, thread-safe.

    Args:
        circuit: The model.
        column: The root.

    Attributes:
        states: Weights of its states, whole numbers, float64, shape (1, states).
        by_state: P(bin | state), float64, shape (states, bins).
        by_bin: The same, shape (bins, states).
    """

    def __init__(self, circuit: Circuit, column: TreeColumn) -> None:
        self.states = circuit.root.astype(np.float64)[None]
        self._emission = column.emission.astype(np.float64)
        self.by_state = column.emission / float(ONE)
        self.by_bin = np.ascontiguousarray(self.by_state.T)

    def summed(self, weights: Float64 | LowRank, sums: Sums) -> Float64:
        """Return sum_x emission[z, x] * A(z, x) for each row, shape (n, states); see `EdgeTables.summed_at`."""
        if isinstance(weights, LowRank):
            return weights.summed(sums.products(self._emission, weights.by_bin))
        return _diagonal(self.by_bin, weights)

    def probability(self, by_state: Float64, sums: Sums) -> Float64:
        """Return sum_z root[z] * S(z) for each row, shape (n,)."""
        found: Float64 = sums.of_rows(self.states, by_state)[:, 0]
        return found


class RowTables:
    """Tables of all columns. Immutable, thread-safe.

    Args:
        circuit: The model.

    Attributes:
        circuit: The model.
        root: The root's.
        edges: Those of every other column of the tree, by position.
    """

    def __init__(self, circuit: Circuit) -> None:
        self.circuit = circuit
        first, *others = circuit.columns.values()
        self.root = RootTables(circuit, first)
        self.edges = {column.position: EdgeTables(column, column.edge) for column in others if column.edge is not None}


def row_tables_bytes(circuit: Circuit) -> int:
    """Return the bytes of the tables of a circuit, of those that are made when they are first needed too."""
    total = 0
    for column in circuit.columns.values():
        own = circuit.states * column.bins.count
        if column.edge is None:
            total += 3 * own
            continue
        leaf, pairs, bins = not column.children, len(column.edge.pair_bins), len(column.edge.group)
        total += own * (3 if leaf else 5) + circuit.states**2
        total += pairs * (2 * circuit.components + 6) + bins * (circuit.components + 4) + column.edge.backoff.size
        total += bins * circuit.states
        if pairs * circuit.states <= MOST_CELLS:
            total += pairs * circuit.states * (2 if leaf else 3)
    return 8 * total
