"""The circuit while it is fitted: expected counts, kept as running means over batches, and what follows from them.

    P(z_root) = root;  P(x_root | z) = emission
    P(z | z_p) = transition;  P(x | z, x_p) = mixture[z, 0] emission[z, x] + sum_r mixture[z, r] table_r[x_p, x]

with z the hidden state of a column and z_p, x_p state and bin of its parent. A step of stepwise EM (Cappe and Moulines,
2009) moves the counts towards those that a batch of rows is expected to have: s <- (1 - eta) s + eta n/m s(batch).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from trainer_service.fitting.families.circuit.backoff import PairTable
from trainer_service.fitting.families.circuit.bins import ColumnBins
from trainer_service.fitting.families.circuit.tree import Tree

Floats = NDArray[np.float32]
_TINY = np.float32(1e-30)
_ALONE = 0.3  # share of the column alone in what smooths emission; the rest is what the state has of neighbours
_LEAST_NOISE = 0.3  # of a pair in a table at the beginning; up to 1 more
_GROUP_ROWS = 0.1  # rows that smooth the groups of neighbours, each on average


@dataclass(frozen=True)
class Smoothing:
    """Rows that priors count for.

    Attributes:
        states: Of a state or transition: of each entry.
        mixture: Of a mixture: of each entry. Less, as each has a share in rows of pairs never seen.
        emission: Of a column given a state alone: of each bin, on average.
        pairs: Of a column given a bin of its parent, in one table.
    """

    states: float = 0.02
    mixture: float = 0.002
    emission: float = 0.3
    pairs: float = 2.0


@dataclass
class _Column:
    """A column of the tree: expected counts and probabilities, bins along the first axis where they have one."""

    bins: ColumnBins
    pairs: PairTable | None
    prior: Floats
    """What emission is smoothed with, summing to the pseudo-count: shape (bins,)."""
    share: Floats
    """Share of each bin in its group, shape (bins,)."""
    emission_counts: Floats
    """Shape (bins, K)."""
    emission: Floats
    state_counts: Floats
    """Transition, shape (K of the parent, K); of the root its states, shape (1, K)."""
    states: Floats
    mixture_counts: Floats
    """Shape (K, R + 1)."""
    mixture: Floats
    pair_counts: Floats
    """Shape (pairs, R)."""
    pair_totals: Floats
    """Shape (parent's bins, R)."""
    pair_prior: Floats
    """Shape (pairs, 1)."""


@dataclass(frozen=True)
class _Tables:
    """What a column's tables begin from; fields as in `_Column`."""

    mixture: Floats
    counts: Floats
    totals: Floats
    prior: Floats

    @classmethod
    def none(cls, states: int) -> Self:
        """Return those of the root, which has none."""
        empty = np.zeros((0, 0), np.float32)
        return cls(np.ones((states, 1), np.float32), empty, empty, np.zeros((0, 1), np.float32))

    @classmethod
    def of(cls, pairs: PairTable, states: int, tables: int, draws: np.random.Generator) -> Self:
        """Return tables that are alike but for noise, the first without."""
        mixture = (draws.random((states, tables + 1)) + 0.5).astype(np.float32)
        mixture[:, 0] *= tables
        prior = pairs.prior[:, None]
        spread = draws.random((len(pairs.parents), tables)).astype(np.float32) + np.float32(_LEAST_NOISE)
        spread[:, 0] = _LEAST_NOISE + 0.5
        spread *= prior
        sums = np.zeros((len(pairs.rows), tables), np.float32)
        np.add.at(sums, pairs.parents, spread)
        totals = np.repeat(pairs.rows[:, None] / np.float32(tables), tables, axis=1)
        spread /= np.maximum(sums, _TINY)[pairs.parents]
        spread *= totals[pairs.parents]
        return cls(mixture / mixture.sum(axis=1, keepdims=True), spread, totals, prior)


@dataclass(frozen=True)
class _Upward:
    """What the upward pass over a batch of m rows leaves for the downward one, by column."""

    joint: dict[int, Floats]
    """Likelihood of a column's bin and all below it, up to a factor a row; shape (m, K)."""
    messages: dict[int, Floats]
    """The same given the parent's state, shape (m, K)."""
    values: dict[int, Floats]
    """Probability of the bin, shape (m, K)."""
    own: dict[int, Floats]
    """Its part that does not depend on the parent's bin, shape (m, K)."""
    tables: dict[int, Floats]
    """Its probability by each table, shape (m, R)."""
    root: Floats
    """Likelihood up to the factor, shape (m,)."""
    logs: NDArray[np.float64]
    """Log-likelihood, shape (m,)."""


class CircuitModel:
    """A circuit and its expected counts. For one thread.

    Args:
        tree: The tree.
        bins: Bins of each of its columns.
        pairs: Pairs of each column but the root with its parent.
        seeds: Bins of K rows, from which the states begin, by column; shape (K,) each.
        rows: Training rows, n.
        components: Tables of a column, R.
        smoothing: What priors count for.
        draws: Random numbers of the beginning.
    """

    def __init__(
        self,
        tree: Tree,
        bins: Mapping[int, ColumnBins],
        pairs: Mapping[int, PairTable],
        *,
        seeds: Mapping[int, NDArray[np.integer]],
        rows: int,
        components: int,
        smoothing: Smoothing,
        draws: np.random.Generator,
    ) -> None:
        self.tree = tree
        self.rows = rows
        self.components = components
        self.smoothing = smoothing
        self.states = len(seeds[tree.root])
        self.columns = {
            column: self._begun(bins[column], pairs.get(column), seeds[column], draws) for column in tree.order
        }
        self._normalise()

    def _begun(
        self, bins: ColumnBins, pairs: PairTable | None, seeds: NDArray[np.integer], draws: np.random.Generator
    ) -> _Column:
        states, per_state = self.states, np.float32(self.rows / self.states)
        alone = (bins.counts / max(bins.counts.sum(), 1.0)).astype(np.float32)
        groups = int(bins.groups.max()) + 1
        mass = np.maximum(np.bincount(bins.groups, bins.counts, groups), 1e-12)
        # Each state leans towards one training row, half and half with all; no step keeps anything of it.
        emission = np.repeat(alone[:, None] / 2, states, axis=1)
        emission[seeds, np.arange(states)] += np.float32(0.5)
        if pairs is None:
            begun = _Tables.none(states)
            moves = draws.standard_gamma(1.0, (1, states)).astype(np.float32)
        else:
            begun = _Tables.of(pairs, states, self.components, draws)
            moves = draws.standard_gamma(1.0, (states, states)).astype(np.float32)
            moves = np.eye(states, dtype=np.float32) + moves / moves.sum(axis=1, keepdims=True)
        moves /= moves.sum(axis=1, keepdims=True)
        return _Column(
            bins,
            pairs,
            np.float32(self.smoothing.emission * groups) * alone,
            (bins.counts / mass[bins.groups]).astype(np.float32),
            emission * per_state,
            emission,
            moves * (np.float32(self.rows) if pairs is None else per_state),
            moves,
            begun.mixture * per_state,
            begun.mixture,
            begun.counts,
            begun.totals,
            begun.prior,
        )

    def step(self, codes: Mapping[int, NDArray[np.int64]], rate: float, *, follow: bool = True) -> float:
        """Take in a batch and return its mean log-likelihood before, nats a row.

        Args:
            codes: Bins of the batch's rows by column, shape (m,) each.
            rate: How far the counts move to those of the batch, eta, above 0 to 1.
            follow: Whether the probabilities follow from the counts at once; else they stay as they are.
        """
        places = {
            column: found.pairs.place[codes[self.tree.parents[column]] * found.bins.size + codes[column]]
            for column, found in self.columns.items()
            if found.pairs is not None
        }
        up = self._upward(codes, places)
        keep, gain = np.float32(1 - rate), np.float32(rate * self.rows / len(up.logs))
        down = {self.tree.root: self.columns[self.tree.root].states / up.root[:, None]}
        for column in self.tree.order:
            found, arriving = self.columns[column], down.pop(column)
            posterior = arriving * up.joint[column]
            if found.pairs is None:
                found.state_counts *= keep
                found.state_counts += gain * posterior.sum(axis=0)
                own = posterior
            else:
                by_value = posterior / up.values[column]
                own = up.own[column] * by_value
                self._add_tables(
                    found,
                    up.tables[column],
                    by_value,
                    own,
                    places=places[column],
                    parents=codes[self.tree.parents[column]],
                    keep=keep,
                    gain=gain,
                )
            found.emission_counts *= keep
            _add_rows(found.emission_counts, codes[column], own, gain)
            for child in self.tree.children[column]:
                below = self.columns[child]
                share = posterior / up.messages[child]
                moved = share.T @ up.joint[child]
                down[child] = share @ below.states
                below.state_counts *= keep
                below.state_counts += gain * below.states * moved
        if follow:
            self._normalise()
        return float(up.logs.mean())

    @staticmethod
    def _add_tables(
        found: _Column,
        tables: Floats,
        by_value: Floats,
        own: Floats,
        *,
        places: NDArray[np.int32],
        parents: NDArray[np.int64],
        keep: np.float32,
        gain: np.float32,
    ) -> None:
        mixed = found.mixture[:, 1:]
        found.mixture_counts *= keep
        found.mixture_counts[:, 0] += gain * own.sum(axis=0)
        found.mixture_counts[:, 1:] += gain * mixed * (by_value.T @ tables)
        chosen = tables * (by_value @ mixed)
        found.pair_counts *= keep
        _add_rows(found.pair_counts, places, chosen, gain)
        found.pair_totals *= keep
        _add_rows(found.pair_totals, parents, chosen, gain)

    def log_likelihood(self, codes: Mapping[int, NDArray[np.int64]]) -> NDArray[np.float64]:
        """Return the log-likelihood of rows, nats, shape (m,)."""
        return self._upward(codes, None).logs

    def _upward(
        self, codes: Mapping[int, NDArray[np.int64]], places: Mapping[int, NDArray[np.int32]] | None
    ) -> _Upward:
        joint: dict[int, Floats] = {}
        messages: dict[int, Floats] = {}
        values: dict[int, Floats] = {}
        own: dict[int, Floats] = {}
        tables: dict[int, Floats] = {}
        logs = np.zeros(len(codes[self.tree.root]))
        for column in reversed(self.tree.order):
            found = self.columns[column]
            value = found.emission[codes[column]]
            if found.pairs is not None:
                parents = codes[self.tree.parents[column]]
                given = (
                    self._seen(found, places[column], parents)
                    if places is not None
                    else self._any(found, found.pairs, codes[column], parents)
                )
                own[column] = value * found.mixture[:, 0]
                value = own[column] + given @ found.mixture[:, 1:].T
                tables[column] = given
            np.maximum(value, _TINY, out=value)
            values[column] = value
            joint[column] = _scaled(value, logs)
            for child in self.tree.children[column]:
                # Of many children, the product alone would be too small for float32.
                joint[column] = _scaled(joint[column] * messages[child], logs)
            if found.pairs is not None:
                messages[column] = np.maximum(joint[column] @ found.states.T, _TINY)
        root = joint[self.tree.root] @ self.columns[self.tree.root].states[0]
        return _Upward(joint, messages, values, own, tables, root, logs + np.log(root))

    def given(self, column: int, states: NDArray[np.integer], parents: NDArray[np.integer]) -> Floats:
        """Return the distribution of a column's bins given its state and its parent's bin, shape (m, bins)."""
        found = self.columns[column]
        given: Floats = found.emission.T[states] * found.mixture[states, :1]
        if found.pairs is not None:
            every = np.arange(found.bins.size)
            tables = self._any(found, found.pairs, np.tile(every, len(parents)), np.repeat(parents, len(every)))
            given += np.einsum("mbr,mr->mb", tables.reshape(len(parents), len(every), -1), found.mixture[states, 1:])
        return given

    @property
    def parameters(self) -> int:
        """Numbers that are learned."""
        return sum(array.size for _, _, array in self._counts())

    def _seen(self, found: _Column, places: NDArray[np.int32], parents: NDArray[np.int64]) -> Floats:
        strength = np.float32(self.smoothing.pairs)
        given: Floats = found.pair_counts[places] + strength * found.pair_prior[places]
        given /= found.pair_totals[parents] + strength
        return given

    def _any(self, found: _Column, pairs: PairTable, bins: NDArray[np.int64], parents: NDArray[np.int64]) -> Floats:
        """Return the probability of bins by each table, of pairs that no training row may have; shape (m, R)."""
        places = pairs.place[parents * found.bins.size + bins]
        strength = np.float32(self.smoothing.pairs)
        behind = pairs.rest[parents] * pairs.backoff[pairs.group[parents], bins]
        known = places >= 0
        given = np.zeros((len(bins), self.components), np.float32)
        given[known] = found.pair_counts[places[known]]
        given += (strength * (np.where(known, pairs.shares[places], np.float32(0)) + behind))[:, None]
        given /= found.pair_totals[parents] + strength
        return given

    def _normalise(self) -> None:
        """Let the probabilities follow from the counts."""
        entry = np.float32(self.smoothing.states)
        for found in self.columns.values():
            found.states = _shares(found.state_counts + entry, axis=1)
            found.mixture = _shares(found.mixture_counts + np.float32(self.smoothing.mixture), axis=1)
            found.emission = _shares(found.emission_counts + self._emission_prior(found), axis=0)

    def _emission_prior(self, found: _Column) -> Floats:
        groups = found.bins.groups
        if len(groups) == groups[-1] + 1:
            return found.prior[:, None]
        # Of neighbouring bins, what a state has of all of them says most about each.
        starts = np.flatnonzero(np.diff(groups, prepend=-1))
        total = np.add.reduceat(found.emission_counts, starts, axis=0)
        behind = np.add.reduceat(found.prior, starts)[:, None]
        near: Floats = _shares(total + np.float32(_GROUP_ROWS / self.smoothing.emission) * behind, axis=0)
        strength = found.prior.sum()
        alone: Floats = np.float32(_ALONE) * found.prior[:, None]
        prior: Floats = alone + np.float32(1 - _ALONE) * strength * near[groups] * found.share[:, None]
        return prior

    def state(self) -> dict[str, Floats]:
        """Return a copy of the counts, on which everything else depends, by name."""
        return {f"{name}.{column}": array.copy() for column, name, array in self._counts()}

    def load_state(self, state: Mapping[str, NDArray[np.generic]], *, follow: bool = True) -> None:
        """Go back to counts that `state` gave; the probabilities follow from them unless `follow` is false.

        Raises:
            KeyError: Some are missing.
            ValueError: Some have another shape.
        """
        for column, name, array in self._counts():
            np.copyto(array, _same_shape(state[f"{name}.{column}"], array))
        if follow:
            self._normalise()

    def _counts(self) -> list[tuple[int, str, Floats]]:
        return [
            (column, name, getattr(found, f"{name}_counts") if name != "totals" else found.pair_totals)
            for column, found in self.columns.items()
            for name in ("emission", "state", "mixture", "pair", "totals")
        ]


def _scaled(likely: Floats, logs: NDArray[np.float64]) -> Floats:
    """Return rows whose greatest value is 1, and add the logarithm of what it was to `logs`."""
    top = np.maximum(likely.max(axis=1, keepdims=True), _TINY)
    logs += np.log(top[:, 0])
    scaled: Floats = likely / top
    return scaled


def _shares(counts: Floats, axis: int) -> Floats:
    shares: Floats = counts / counts.sum(axis=axis, keepdims=True)
    return shares


def _same_shape(found: NDArray[np.generic], expected: Floats) -> NDArray[np.generic]:
    if found.shape != expected.shape:
        raise ValueError(f"counts have shape {found.shape}; it must be {expected.shape}")
    return found


def _add_rows(counts: Floats, places: NDArray[np.integer], rows: Floats, gain: np.float32) -> None:
    """Add `gain` times each of `rows` to the row of `counts` at its place; places may repeat."""
    order = np.argsort(places, kind="stable")
    ordered = places[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    counts[ordered[starts]] += gain * np.add.reduceat(rows[order], starts, axis=0)
