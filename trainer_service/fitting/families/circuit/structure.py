"""What a circuit is made of before a step is taken: derived and joint columns, bins, tree, pairs.

Joint columns are called by the positions after those of the modelled columns.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs import CategoryCodec, NumericCodec
from trainer_service.fitting.encoding.encoded_table import EncodedTable
from trainer_service.fitting.families.circuit.backoff import PairTable, pair_table
from trainer_service.fitting.families.circuit.bins import MAX_BINS, ColumnBins, column_bins, likeness
from trainer_service.fitting.families.circuit.config import CircuitConfig
from trainer_service.fitting.families.circuit.derived import Derived, derived_columns
from trainer_service.fitting.families.circuit.joint import Joint, beside, joint_columns
from trainer_service.fitting.families.circuit.model import CircuitModel, Smoothing
from trainer_service.fitting.families.circuit.tree import Tree, maximum_tree
from trainer_service.fitting.families.circuit.whole import ONE
from trainer_service.fitting.keys import random

_CELLS = 4_000_000  # compared for the tree: rows times columns
_MOST_COMPARED = 100_000
_FEWEST_COMPARED = 10_000
_GROUPS = 32
_MANY_COLUMNS = 512  # from here on a column has one table; twice as many tables for half as many columns
_CHUNK = 1 << 18
_EXCHANGED = 0.25  # of the cells of a row that a state begins from


@dataclass(frozen=True)
class Structure:
    """The shape of a circuit on a table.

    Attributes:
        bins: Bins of each column of the tree, by position.
        joints: The joint columns.
        derived: The columns that are functions of others, which are of the tree.
        tree: The tree of the others.
        pairs: Pairs of each column with its parent, but of the root.
        seeds: Bins that states begin from, by column, shape (most states,) each.
        rows: Training rows.
        components: Tables of a column, R.
        columns: Number of modelled columns.
    """

    bins: Mapping[int, ColumnBins]
    joints: tuple[Joint, ...]
    derived: Mapping[int, Derived]
    tree: Tree
    pairs: Mapping[int, PairTable]
    seeds: Mapping[int, NDArray[np.integer]]
    rows: int
    components: int
    columns: int

    def codes(self, choices: NDArray[np.integer]) -> dict[int, NDArray[np.int64]]:
        """Return the bins of rows by column, shape (m,) each, of their choices, shape (m, columns)."""
        every = beside(choices, self.joints)
        return {column: self.bins[column].of[every[:, column]].astype(np.int64) for column in self.tree.order}

    def fitted_to(self, table: EncodedTable, rows: NDArray[np.int64], between: Callable[[], None]) -> Self:
        """Return the same bins and tree with the pairs of some rows of the table only, ascending, shape (n,)."""
        pairs = _pairs(table, rows, self, between)
        return replace(self, pairs=pairs, rows=len(rows))

    def begin(self, states: int, smoothing: Smoothing, draws: np.random.Generator) -> CircuitModel:
        """Return a circuit of some hidden states before its first step."""
        seeds = {column: bins[:states] for column, bins in self.seeds.items()}
        return CircuitModel(
            self.tree,
            self.bins,
            self.pairs,
            seeds=seeds,
            rows=self.rows,
            components=self.components,
            smoothing=smoothing,
            draws=draws,
        )

    def within_bins(self, choices: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return the log-probability of rows' choices given their bins, nats, shape (m,).

        A combination of a joint column's that no training row has counts as one near by, and as of the least weight
        given that.
        """
        every, total = beside(choices, self.joints), np.zeros(len(choices))
        for column, found in self.bins.items():
            total += _logs(found)[every[:, column]]
        for joint in self.joints:
            total[~joint.choices(choices)[1]] -= np.log(ONE)
        return total

    def mean_within_bins(self, counts: tuple[NDArray[np.int64], ...]) -> float:
        """Return the mean of `within_bins` over the training rows, of which each choice has some."""
        every = (*counts, *(joint.counts for joint in self.joints))
        total = sum(float(every[column] @ _logs(found)) for column, found in self.bins.items())
        return total / max(int(counts[0].sum()), 1)


def _logs(bins: ColumnBins) -> NDArray[np.float64]:
    """Return the log-probability of each choice given its bin; of one that no training row has, of the least weight."""
    logs: NDArray[np.float64] = np.log(np.maximum(bins.weights, 1) / ONE)
    return logs


def find_structure(
    table: EncodedTable,
    rows: NDArray[np.int64],
    config: CircuitConfig,
    *,
    seed: int,
    least: int,
    between: Callable[[], None],
) -> Structure:
    """Find the shape of a circuit.

    Args:
        table: The encoded table.
        rows: Which of its rows train, ascending, shape (n,).
        config: Hyper-parameters.
        seed: Seed of the fit.
        least: Rows that a bin rests on, at least, where no override says otherwise.
        between: Called now and then; it may raise.
    """
    columns = len(table.codecs)
    draws = random(seed, "circuit structure")
    most = min(max(_CELLS // columns, _FEWEST_COMPARED), _MOST_COMPARED)
    some = rows if len(rows) <= most else np.sort(draws.choice(rows, most, replace=False))
    shuffled = draws.permutation(some)
    derived = derived_columns(table, shuffled, between)
    most_bins = config.most_bins(len(rows))
    kept = [column for column in range(columns) if column not in derived]
    joints = joint_columns(table, kept, shuffled, min(2 * most_bins, MAX_BINS), between)
    derived = _with_joint(derived, joints, columns)
    kept = [column for column in range(columns + len(joints)) if column not in derived]
    choices = np.ascontiguousarray(beside(np.asarray(table.choices[some]), joints).T)
    bins = _bins(table, joints, choices, kept, most_bins, least=least, between=between)
    codes = [bins[column].of[choices[column]] for column in kept]
    own = [_own_entropy(table, joints[column - columns]) if column >= columns else 0.0 for column in kept]
    tree = maximum_tree(codes, kept, [bins[column] for column in kept], between, own)
    seeds = _seeds(table, joints, rows, max(config.candidate_states(len(rows), columns)), draws)
    structure = Structure(
        bins,
        joints,
        derived,
        tree,
        {},
        {column: bins[column].of[seeds[:, column]] for column in kept},
        len(rows),
        max(min(config.components, _MANY_COLUMNS // columns), 1),
        columns,
    )
    return structure.fitted_to(table, rows, between)


def _with_joint(derived: Mapping[int, Derived], joints: Sequence[Joint], columns: int) -> dict[int, Derived]:
    """Return the derived columns and those that joint columns stand for; what was a function of these is of the joint.

    Args:
        derived: Functions of single columns.
        joints: The joint columns.
        columns: Number of modelled columns.
    """
    found = dict(derived)
    for position, joint in enumerate(joints, columns):
        of = {column: joint.part(column) for column in joint.columns}
        found |= {column: Derived(position, part.astype(np.uint16)) for column, part in of.items()}
        for column, one in derived.items():
            if one.of in of:
                found[column] = Derived(position, one.choices[of[one.of]])
    return found


def _seeds(
    table: EncodedTable,
    joints: Sequence[Joint],
    rows: NDArray[np.int64],
    count: int,
    draws: np.random.Generator,
) -> NDArray[np.integer]:
    """Return choices that states begin from, shape (count, columns): of a row each, but for some cells of another.

    A state that learns little then still shows no row.
    """
    first, second = (beside(np.asarray(table.choices[draws.choice(rows, count)]), joints) for _ in range(2))
    exchanged = draws.random(first.shape) < _EXCHANGED
    exchanged[np.arange(count), draws.integers(0, first.shape[1], count)] = True
    return np.where(exchanged, second, first)


def _bins(
    table: EncodedTable,
    joints: Sequence[Joint],
    choices: NDArray[np.integer],
    kept: Sequence[int],
    most: int,
    *,
    least: int,
    between: Callable[[], None],
) -> dict[int, ColumnBins]:
    """Return the bins of each column kept; of categorical ones after the others, which order them, joint ones first."""
    leading = [max(joint.columns, key=lambda at: _fineness(table, at)) for joint in joints]
    codecs = (*table.codecs, *(table.codecs[column] for column in leading))
    every = (*table.counts, *(joint.counts for joint in joints))
    least_rows = [one.least_rows or least for one in table.modelled]
    least_rows += [max(least_rows[column] for column in joint.columns) for joint in joints]
    found: dict[int, ColumnBins] = {}
    columns = len(table.codecs)
    for column in sorted(kept, key=lambda at: (isinstance(codecs[at], CategoryCodec), at < columns, at)):
        codec, counts, rows = codecs[column], every[column], least_rows[column]
        rare = isinstance(codec, CategoryCodec) and np.count_nonzero((counts > 0) & (counts < rows)) > 0
        many = isinstance(codec, CategoryCodec) and np.count_nonzero(counts) > min(2 * most, MAX_BINS)
        order = likeness(choices, column, len(counts), found, between) if rare or many else None
        joined = joints[column - columns].part(leading[column - columns]) if column >= columns else None
        found[column] = column_bins(codec, counts, order, of_choice=joined, most=most, least=rows, most_groups=_GROUPS)
    return dict(sorted(found.items()))


def _own_entropy(table: EncodedTable, joint: Joint) -> float:
    """Return what a joint column tells of its own columns, which is all that there is to know of them, nats a row."""
    shares = [table.counts[column][table.counts[column] > 0] / table.rows for column in joint.columns]
    return -sum(float(own @ np.log(own)) for own in shares)


def _fineness(table: EncodedTable, column: int) -> tuple[bool, int]:
    """Return what is greatest of the column whose order a joint column has: of ordered ones, that of most values."""
    return isinstance(table.codecs[column], NumericCodec), int(np.count_nonzero(table.counts[column]))


def _pairs(
    table: EncodedTable,
    rows: NDArray[np.int64],
    structure: Structure,
    between: Callable[[], None],
) -> dict[int, PairTable]:
    tree, bins = structure.tree, structure.bins
    counted = {
        column: np.zeros(bins[parent].size * bins[column].size, np.int64) for column, parent in tree.parents.items()
    }
    for start in range(0, len(rows), _CHUNK):
        codes = structure.codes(np.asarray(table.choices[rows[start : start + _CHUNK]]))
        for column, parent in tree.parents.items():
            between()
            flat = codes[parent] * bins[column].size + codes[column]
            counted[column] += np.bincount(flat, minlength=len(counted[column]))
    return {
        column: pair_table(counted[column].reshape(bins[parent].size, bins[column].size), bins[parent], bins[column])
        for column, parent in tree.parents.items()
    }
