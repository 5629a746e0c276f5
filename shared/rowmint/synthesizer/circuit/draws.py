"""Drawing a column of a tile given its parent, by alias tables, in whole numbers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rowmint.rng import TileKey
from rowmint.synthesizer.circuit.alias import FULL, AliasTable, equal_rows, ragged_rows, whole_shares
from rowmint.synthesizer.circuit.emission import merged_rows
from rowmint.synthesizer.circuit.tree import ONE, Bins, Circuit, Edge, TreeColumn

_SCALE = FULL // ONE


@dataclass(frozen=True)
class Place:
    """Where the rows of a tile stand at one column.

    Attributes:
        states: The column's hidden state, int64, shape (n,); None where no other column depends on it.
        bins: Its bin, int64, shape (n,).
    """

    states: NDArray[np.int64] | None
    bins: NDArray[np.int64]


class ColumnDraw(Protocol):
    """Draws a column's states and bins. Immutable, thread-safe."""

    def place(self, key: TileKey, size: int, parent: Place | None) -> Place:
        """Draw `size` rows given where they stand at the parent; None for the root.

        Row j depends on the arguments' row j alone.
        """
        ...


class ChoiceDraw(Protocol):
    """Draws a column's choices within its bins. Immutable, thread-safe."""

    def choices(self, key: TileKey, bins: NDArray[np.int64]) -> NDArray[np.int64]:
        """Draw a choice of each bin, shape (n,)."""
        ...


@dataclass(frozen=True)
class RootTables:
    """Draws the root.

    Attributes:
        index: Of the column in the schema; part of its words' purposes.
        state: One row.
        bin: A row for each state.
    """

    index: int
    state: AliasTable
    bin: AliasTable

    def place(self, key: TileKey, size: int, parent: Place | None) -> Place:
        """See `ColumnDraw`."""
        states = self.state.draw(None, key.words32(f"state:{self.index}", size))
        return Place(states, self.bin.draw(states, key.words32(f"bin:{self.index}", size)))

    @property
    def size_bytes(self) -> int:
        """Bytes of the tables."""
        return self.state.size_bytes + self.bin.size_bytes


@dataclass(frozen=True)
class ColumnTables:
    """Draws any other column: its state, then a component, then a bin from that component's row.

    Attributes:
        index: Of the column in the schema; part of its words' purposes.
        state: A row for each state of the parent; None where no column depends on the state: what follows is by the
            parent's state then.
        component: A row for each state.
        first_rows: Row of `bin` for bin 0 of the parent, of each component but 0, whose rows come first, one a state;
            int64, shape (components + 1,).
        bin: Rows of the own emission by state, then of each component by the parent's bin, those with one more
            outcome, `rest`, that stands for the backoff.
        rest: Number of bins.
        group: Row of `backoff` for each bin of the parent, int64, shape (parent's bins,).
        backoff: Rows of bins.
    """

    index: int
    state: AliasTable | None
    component: AliasTable
    first_rows: NDArray[np.int64]
    bin: AliasTable
    rest: int
    group: NDArray[np.int64]
    backoff: AliasTable

    def place(self, key: TileKey, size: int, parent: Place | None) -> Place:
        """See `ColumnDraw`."""
        if parent is None or parent.states is None:
            raise ValueError("a column is drawn after its parent")
        states = parent.states
        if self.state is not None:
            states = self.state.draw(states, key.words32(f"state:{self.index}", size))
        component = self.component.draw(states, key.words32(f"component:{self.index}", size))
        rows = np.where(component == 0, states, parent.bins)
        rows += self.first_rows.take(component, mode="clip")
        bins = self.bin.draw(rows, key.words32(f"bin:{self.index}", size))
        rest = np.flatnonzero(bins == self.rest)
        if len(rest):
            words = key.words32(f"backoff:{self.index}", size)[rest]
            bins[rest] = self.backoff.draw(self.group[parent.bins[rest]], words)
        return Place(states if self.state is not None else None, bins)

    @property
    def size_bytes(self) -> int:
        """Bytes of the tables."""
        tables = (self.state, self.component, self.bin, self.backoff)
        arrays = self.first_rows.nbytes + self.group.nbytes
        return arrays + sum(table.size_bytes for table in tables if table is not None)


@dataclass(frozen=True)
class SingleChoices:
    """The choices of a column of one choice a bin.

    Attributes:
        of_bin: int64, shape (bins,).
    """

    of_bin: NDArray[np.int64]

    def choices(self, key: TileKey, bins: NDArray[np.int64]) -> NDArray[np.int64]:
        """See `ChoiceDraw`."""
        return self.of_bin.take(bins, mode="clip")

    @property
    def size_bytes(self) -> int:
        """Bytes of the array."""
        return self.of_bin.nbytes


@dataclass(frozen=True)
class WeightedChoices:
    """Draws the choices of a column by weight.

    Attributes:
        index: Of the column in the schema; part of the words' purpose.
        table: A row for each bin.
    """

    index: int
    table: AliasTable

    def choices(self, key: TileKey, bins: NDArray[np.int64]) -> NDArray[np.int64]:
        """See `ChoiceDraw`."""
        return self.table.draw(bins, key.words32(f"choice:{self.index}", len(bins)))

    @property
    def size_bytes(self) -> int:
        """Bytes of the table."""
        return self.table.size_bytes


def column_tables(circuit: Circuit, column: TreeColumn, index: int) -> RootTables | ColumnTables:
    """Return what draws a column of the tree; `index` is its place in the schema."""
    emission = _scaled(column.emission)
    if column.edge is None:
        return RootTables(index, equal_rows(_scaled(circuit.root[None])), equal_rows(emission))
    edge = column.edge
    if column.children:
        return _tables(index, edge, _scaled(edge.transition), _scaled(edge.mixture), emission)
    merged = merged_rows(column.emission, edge)
    # A state without an own emission draws from its row never.
    own = np.where(merged.mixture[:, :1] > 0, merged.own / np.maximum(merged.mixture[:, :1], 1e-300), 0.0)
    own[:, 0] += merged.mixture[:, 0] == 0
    return _tables(index, edge, None, whole_shares(merged.mixture), whole_shares(own))


def choice_draw(bins: Bins, index: int) -> SingleChoices | WeightedChoices:
    """Return what draws a column's choices; `index` is its place in the schema."""
    order = np.argsort(bins.of_choice, kind="stable")
    if len(order) == bins.count:
        return SingleChoices(order.astype(np.int64))
    lengths = np.bincount(bins.of_choice, minlength=bins.count)
    return WeightedChoices(index, ragged_rows(lengths, [(_scaled(bins.weights[order]), order)]))


def _tables(
    index: int,
    edge: Edge,
    state: NDArray[np.int64] | None,
    component: NDArray[np.int64],
    own: NDArray[np.int64],
) -> ColumnTables:
    states, bins = own.shape
    components, parent_bins = edge.rest.shape
    starts = edge.starts.astype(np.int64)
    # A row's pairs, and its rest at the end.
    rest = starts[1:] + np.arange(parent_bins)
    pairs = np.delete(np.arange(len(edge.pair_bins) + parent_bins), rest)
    outcomes = np.empty(len(edge.pair_bins) + parent_bins, np.int64)
    outcomes[pairs], outcomes[rest] = edge.pair_bins, bins

    def blocks() -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        yield own.ravel(), np.tile(np.arange(bins), states)
        for pair_weights, backed_off in zip(edge.pair_weights, edge.rest, strict=True):
            weights = np.empty(len(outcomes), np.int64)
            weights[pairs], weights[rest] = _scaled(pair_weights), _scaled(backed_off)
            yield weights, outcomes

    lengths = np.concatenate([np.full(states, bins), np.tile(starts[1:] - starts[:-1] + 1, components)])
    return ColumnTables(
        index,
        None if state is None else equal_rows(state),
        equal_rows(component),
        np.concatenate([[0], states + parent_bins * np.arange(components)]),
        ragged_rows(lengths, blocks()),
        bins,
        edge.group.astype(np.int64),
        equal_rows(_scaled(edge.backoff)),
    )


def _scaled(weights: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Return weights over `ONE` as weights over `FULL`."""
    return weights.astype(np.int64) * _SCALE
