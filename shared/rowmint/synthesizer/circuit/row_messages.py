"""What known cells say about the other columns, row by row: messages from the leaves of the tree to its root.

The formulas are those of `rowmint.synthesizer.circuit.messages`, for many rows at once, each with bins of its own. A
column whose bin is known, x, says about its parent's state and bin

    M(z_p, x_p) = sum_z transition[z_p, z] * P(x | z, x_p) * A(z, x) = U_0[z_p] + sum_r B_r[x_p, x] * U_r[z_p]

with U_0[z_p] = sum_z transition[z_p, z] * mixture[z, 0] * emission[z, x] * A(z, x), and U_r likewise by mixture[z, r]:
so what is known costs little. Where a column's bin is not known, and something below it is, A has all its bins.

Rows may know different columns: at each column, those that stand alike there are computed together.

Messages are scaled by powers of two, row by row. What sliced sums cut off is counted: where it may matter, a row is
computed by sums that cut off nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rowmint.steps import Steps
from rowmint.synthesizer.circuit.known import Float64, Int64
from rowmint.synthesizer.circuit.row_evidence import ONE_BIN, SEVERAL_BINS, UNKNOWN
from rowmint.synthesizer.circuit.row_sums import Sums
from rowmint.synthesizer.circuit.row_tables import EdgeTables, LowRank, RowTables

Rows = NDArray[np.intp]
"""Which of the rows computed together, ascending."""


@dataclass(frozen=True)
class BinEvidence:
    """What n rows know of a column's bin.

    Attributes:
        kind: One of `UNKNOWN`, `ONE_BIN`, `SEVERAL_BINS` each, uint8, shape (n,).
        bins: The bin, where there is one, int64, shape (n,).
        shares: Shares of the bins that are possible, where there are several, shape (those rows, bins).
    """

    kind: NDArray[np.uint8]
    bins: Int64
    shares: Float64

    def take(self, index: Rows) -> "BinEvidence":
        """Return some of the rows."""
        kind = self.kind[index]
        return BinEvidence(kind, self.bins[index], self.several(index[kind == SEVERAL_BINS]))

    def several(self, rows: Rows) -> Float64:
        """Return the shares of some rows that have several bins."""
        return self.shares[np.searchsorted(np.flatnonzero(self.kind == SEVERAL_BINS), rows)]


@dataclass(frozen=True)
class RowBelief:
    """What some rows know at a column and below it.

    Attributes:
        rows: Which rows, shape (k,).
        bins: The column's bin, shape (k,), where it is known; else None.
        weights: A. By state at that bin, shape (k, states), None where nothing below is known; or of all bins, shape
            (k, bins, states), or (k, bins, 1) where it is the same for all states; or as one known bin below says.
        by_state: S, where it was needed: at the parent's bin, or of all, shape (k, states) or (k, parent's bins,
            states). By the parent's state where the column has no children.
    """

    rows: Rows
    bins: Int64 | None
    weights: Float64 | LowRank | None
    by_state: Float64 | None = None

    def take(self, index: Rows) -> "RowBelief":
        """Return some of these rows."""
        weights: Float64 | LowRank | None = self.weights
        if weights is not None:
            weights = weights.take(index) if isinstance(weights, LowRank) else weights[index]
        by_state = None if self.by_state is None else self.by_state[index]
        return RowBelief(self.rows[index], None if self.bins is None else self.bins[index], weights, by_state)

    def known_below(self) -> Float64 | None:
        """Return A at the column's bin, which is known."""
        if isinstance(self.weights, LowRank):
            raise TypeError("the column's bin is not known")
        return self.weights


@dataclass(frozen=True)
class RowBeliefs:
    """What rows know at every column.

    Attributes:
        at: By position, each row once at most: those that know something at or below the column. Empty lists where
            this is not kept.
        probability: Probability of what is known, over 2**exponent, shape (n,).
        exponent: int64, shape (n,).
        error: What may be wrong with the probability, and with any probability given what is known, relative; (n,).
    """

    at: Mapping[int, Sequence[RowBelief]]
    probability: Float64
    exponent: Int64
    error: Float64

    def take(self, index: Rows) -> "RowBeliefs":
        """Return some of the rows."""
        place = np.full(len(self.probability), -1)
        place[index] = np.arange(len(index))
        at = {}
        for position, beliefs in self.at.items():
            kept = [belief.take(np.flatnonzero(place[belief.rows] >= 0)) for belief in beliefs]
            at[position] = [replace(belief, rows=place[belief.rows]) for belief in kept]
        return RowBeliefs(at, self.probability[index], self.exponent[index], self.error[index])


@dataclass(frozen=True)
class _Message:
    """What a child says about some rows.

    Attributes:
        rows: Which rows, shape (k,).
        says: At the parent's bin where that is known, shape (k, states); else of all its bins.
        error: Shape (k,).
    """

    rows: Rows
    says: Float64 | LowRank
    error: Float64

    def of(self, place: Int64) -> tuple[Rows, "_Message"]:
        """Return where rows have a place, 0 or above, and what is said about those."""
        at = place[self.rows]
        index = (at >= 0).nonzero()[0]
        if len(index) == len(at):
            return at, self
        says = self.says.take(index) if isinstance(self.says, LowRank) else self.says[index]
        return at[index], _Message(self.rows[index], says, self.error[index])


class _Upward:
    """Messages of some rows, from the leaves to the root."""

    def __init__(
        self, tables: RowTables, known: Mapping[int, BinEvidence], rows: int, sums: Sums, *, kept: bool
    ) -> None:
        self._tables = tables
        self._known = known
        self._rows = rows
        self._sums = sums
        self._kept = kept
        self._nothing = np.full(rows, UNKNOWN, np.uint8)
        self._received: dict[int, list[_Message]] = {position: [] for position in tables.circuit.columns}
        self.at: dict[int, list[RowBelief]] = {}
        self.exponent = np.zeros(rows, np.int64)
        self.probability = np.ones(rows)
        self.error = np.zeros(rows)

    def column(self, position: int) -> Steps[None]:
        """Compute what is known at a column, and what it says about its parent."""
        messages = self._received.pop(position)
        if position not in self._known and not messages:
            return
        self.at[position] = []
        edge = self._tables.circuit.columns[position].edge
        for belief, error in self._beliefs(position, messages):
            if edge is None:
                self._end(belief, error)
            else:
                self._say(self._tables.edges[position], position, edge.parent, belief, error)
            yield

    def _beliefs(self, position: int, messages: list[_Message]) -> Iterator[tuple[RowBelief, Float64]]:
        """Yield what is known at a column, by rows that stand alike, and its error."""
        own, kind = self._known.get(position), self._kind(position)
        incoming = np.zeros(self._rows, np.int64)
        for message in messages:
            incoming[message.rows] += 1
        fixed = kind == ONE_BIN
        if own is not None:
            rows = (fixed & (incoming == 0)).nonzero()[0]
            if len(rows):
                yield RowBelief(rows, own.bins[rows], None), np.zeros(len(rows))
            rows = (fixed & (incoming > 0)).nonzero()[0]
            if len(rows):
                weights, error = self._product(rows, None, messages)
                yield RowBelief(rows, own.bins[rows], weights), error
        unknown = kind == UNKNOWN
        alone = unknown & (incoming == 1)
        for message in messages if alone.any() else ():
            _, single = message.of(np.where(alone, 0, -1))
            if len(single.rows):
                yield RowBelief(single.rows, None, single.says), single.error
        if own is not None:
            rows = (kind == SEVERAL_BINS).nonzero()[0]
            if len(rows):
                weights, error = self._product(rows, own.several(rows)[:, :, None], messages)
                yield RowBelief(rows, None, weights), error
        rows = (unknown & (incoming > 1)).nonzero()[0]
        if len(rows):
            weights, error = self._product(rows, None, messages)
            yield RowBelief(rows, None, weights), error

    def _product(self, rows: Rows, start: Float64 | None, messages: list[_Message]) -> tuple[Float64, Float64]:
        """Return the product of what is said about rows, scaled, and its error; each row receives some of it."""
        place = np.full(self._rows, -1)
        place[rows] = np.arange(len(rows))
        error = np.zeros(len(rows))
        found = start
        if found is not None:
            found, error = self._scaled(rows, found, error)
        for message in messages:
            at, own = message.of(place)
            if not len(at):
                continue
            says = own.says.everywhere() if isinstance(own.says, LowRank) else own.says
            if found is None and len(at) == len(rows):
                found, error = says, own.error
                continue
            if found is None:
                found = np.ones((len(rows), *says.shape[1:]))
            if len(at) == len(rows):
                found, error = found * says, error + own.error
            else:
                found = np.repeat(found, says.shape[-1] // found.shape[-1], axis=-1)  # a copy: it may be a message
                found[at] *= says
                error = error.copy()
                error[at] += own.error
            found, error = self._scaled(rows, found, error)
        if found is None:
            raise ValueError("nothing is known of the rows")
        return found, error

    def _end(self, belief: RowBelief, error: Float64) -> None:
        """Take what is known at the root."""
        rows, by_state = belief.rows, _at_root(self._tables, belief, self._sums)
        if self._kept:
            self.at[next(iter(self._tables.circuit.columns))].append(replace(belief, by_state=by_state))
        probability = self._tables.root.probability(by_state, self._sums)
        self.probability[rows] = probability
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = (error + self._sums.error) / probability
        self.error[rows] = np.where(probability > 0, relative, np.inf if self._sums.error else 0.0)

    def _say(self, tables: EdgeTables, position: int, parent: int, belief: RowBelief, error: Float64) -> None:
        """Send what is known to the parent; rows whose parent's bin is known apart from the others."""
        fixed = self._kind(parent)[belief.rows] == ONE_BIN
        for index in (fixed.nonzero()[0], (~fixed).nonzero()[0]):
            if not len(index):
                continue
            own = belief if len(index) == len(fixed) else belief.take(index)
            parent_bins = self._known[parent].bins[own.rows] if fixed[index[0]] else None
            own, says = _message(tables, own, parent_bins, self._sums)
            its_error = error[index] + self._sums.error
            if not isinstance(says, LowRank):
                says, its_error = self._scaled(own.rows, says, its_error)
            if self._kept:
                self.at[position].append(own)
            self._received[parent].append(_Message(own.rows, says, its_error))

    def _kind(self, position: int) -> NDArray[np.uint8]:
        own = self._known.get(position)
        return self._nothing if own is None else own.kind

    def _scaled(self, rows: Rows, values: Float64, error: Float64) -> tuple[Float64, Float64]:
        """Return values divided by a power of two each row, so that its greatest is 0.5 to 1, and their error."""
        greatest = values.reshape(len(rows), -1).max(axis=1)
        exponent = np.frexp(greatest)[1].astype(np.int64)
        self.exponent[rows] += exponent
        factor = np.ldexp(1.0, np.minimum(-exponent, 1000))
        return values * factor.reshape(-1, *[1] * (values.ndim - 1)), error * factor


def row_beliefs(
    tables: RowTables, known: Mapping[int, BinEvidence], rows: int, sums: Sums, *, kept: bool
) -> Steps[RowBeliefs]:
    """Return what rows know at every column; a step is what some of them know at one.

    Args:
        tables: The model.
        known: What is known of the tree's columns, by position.
        rows: How many there are.
        sums: Sums up products.
        kept: Whether what is known at columns is kept, to draw from, or the probability alone.
    """
    upward = _Upward(tables, known, rows, sums, kept=kept)
    for position in reversed(tuple(tables.circuit.columns)):
        yield from upward.column(position)
    return RowBeliefs(upward.at, upward.probability, upward.exponent, upward.error)


def _at_root(tables: RowTables, belief: RowBelief, sums: Sums) -> Float64:
    """Return S of the root, shape (n, states)."""
    if belief.bins is not None:
        by_state, weights = tables.root.by_bin[belief.bins], belief.known_below()
        return by_state if weights is None else by_state * weights
    if belief.weights is None:
        raise ValueError("nothing is known of the root")
    return tables.root.summed(belief.weights, sums)


def _message(
    tables: EdgeTables, belief: RowBelief, parent_bins: Int64 | None, sums: Sums
) -> tuple[RowBelief, Float64 | LowRank]:
    """Return the belief with S, where that is computed, and the message to the parent."""
    bins, weights = belief.bins, belief.weights
    if bins is not None:
        below = belief.known_below()
        if parent_bins is None:
            return belief, tables.known_bin(below, bins, sums)
        if below is None:
            return belief, tables.at(parent_bins, bins, merged=True)
        by_state = tables.at(parent_bins, bins, merged=False) * below
        return replace(belief, by_state=by_state), sums.of_rows(tables.transition, by_state)
    if weights is None:
        raise ValueError("nothing is known of the column")
    if parent_bins is not None:
        by_state = tables.summed_at(weights, parent_bins, sums)
        message = by_state if tables.is_leaf else sums.of_rows(tables.transition, by_state)
        return replace(belief, by_state=by_state), message
    if isinstance(weights, LowRank):
        weights = weights.everywhere()
    by_state = message = tables.summed_everywhere(weights, sums)
    if not tables.is_leaf:
        message = np.moveaxis(sums.products(tables.transition, np.moveaxis(by_state, 1, 2)), 2, 1)
    return replace(belief, by_state=by_state), message
