"""Columns of which two decide a third, as origin and destination decide a distance: learned as one column, the joint.

The choices of a joint column are the combinations that training rows have, and its columns are looked up from it. So
rows have such combinations only. A few pairs of choices may have several combinations: two routes of which each was
flown over two distances make the distance no less a function of the others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Self

import numpy as np
from numpy.typing import NDArray

from trainer_service.fitting.encoding.encoded_table import EncodedTable

_FIRST_ROWS = 2_000
_MOST_COLUMNS = 64  # of more, none is looked for
_LOOKED_AT = 200  # of columns that first rows do not rule out
_COUNTED = 16  # of these in all rows
_CHUNK = 1 << 18
_FEW_ROWS = 20  # of a pair count as evidence
_EXPECTED, _FIRST_EXPECTED = 20.0, 10.0  # pairs that have more than one combination by chance, at least
_EXCEPTIONS = 0.1  # of what is expected by chance, at most
_UNSEEN = 1_000  # rows to one whose combination is new, at least


@dataclass(frozen=True)
class Joint:
    """A joint column.

    Attributes:
        columns: Positions of the columns that it stands for, k of them, ascending.
        parts: Choice of each of these columns for each choice of the joint column, in lexicographic order, int64, shape
            (choices, k).
        counts: Training rows of each choice, int64, shape (choices,).
    """

    columns: tuple[int, ...]
    parts: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        columns: Sequence[int],
        choices: NDArray[np.integer],
        most: int,
        between: Callable[[], None] = lambda: None,
    ) -> Self | None:
        """Count the combinations of columns; None where there are more than `most`.

        Args:
            columns: Their positions.
            choices: Choices of rows, shape (n, c).
            most: Combinations.
            between: Called now and then; it may raise.
        """
        ordered = tuple(sorted(columns))
        parts, counts = np.zeros((0, len(ordered)), np.int64), np.zeros(0, np.int64)
        for start in range(0, len(choices), _CHUNK):
            between()
            own = np.asarray(choices[start : start + _CHUNK])[:, ordered].astype(np.int64)
            found = _distinct(np.concatenate([parts, own]))
            counts = np.bincount(found, np.concatenate([counts, np.ones(len(own), np.int64)])).astype(np.int64)
            if len(counts) > most:
                return None
            first = np.unique(found, return_index=True)[1]
            parts = np.concatenate([parts, own])[first]
        return cls(ordered, parts, counts)

    def choices(self, rows: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the choice of each row, and whether a training row had it, shapes (m,); else it is one near by.

        Args:
            rows: Choices of the table's columns, shape (m, c).
        """
        found, seen = np.zeros(len(rows), np.int64), np.ones(len(rows), np.bool_)
        prefixes = np.zeros(len(self.parts), np.int64)
        for place, column in enumerate(self.columns):
            own = rows[:, column].astype(np.int64)
            size = int(max(self.parts[:, place].max(), own.max(initial=0))) + 1
            keys, prefixes = np.unique(prefixes * size + self.parts[:, place], return_inverse=True)
            wanted = found * size + own
            after = np.searchsorted(keys, wanted).clip(0, len(keys) - 1)
            # The next one, unless that is of other columns before.
            found = np.where(keys[after] // size == found, after, np.maximum(after - 1, 0))
            seen &= keys[found] == wanted
        return found, seen

    def among(self, columns: Sequence[int]) -> "Joint":
        """Return the combinations of some of the columns."""
        ordered = tuple(sorted(columns))
        parts = self.parts[:, [self.columns.index(column) for column in ordered]]
        found = _distinct(parts)
        counts = np.bincount(found, self.counts).astype(np.int64)
        return Joint(ordered, parts[np.unique(found, return_index=True)[1]], counts)

    def part(self, column: int) -> NDArray[np.int64]:
        """Return the choice of one of the columns for each choice of the joint column."""
        return self.parts[:, self.columns.index(column)]


def joint_columns(
    table: EncodedTable,
    kept: Sequence[int],
    rows: NDArray[np.integer],
    most: int,
    between: Callable[[], None],
) -> tuple[Joint, ...]:
    """Return the joint columns of a table; a column is in one of them at most.

    Two columns decide a third where nearly every pair of their choices has one choice of the third in all training
    rows, though by chance, and by either of the two columns alone, many pairs would have several. Pairs with the fewest
    combinations go first. None has so many combinations that the circuit could not tell them apart, or so many of a
    single row that new ones are to be expected.

    Args:
        table: The training rows.
        kept: Positions of the columns that are looked at, ascending.
        rows: Some of the rows, in any order.
        most: Combinations of a joint column.
        between: Called now and then; it may raise.
    """
    found: list[Joint] = []
    taken: set[int] = set()
    counted = 0
    for columns in _candidates(np.asarray(table.choices[rows[:_FIRST_ROWS]]), kept, most, between):
        new = taken.isdisjoint(columns)
        joined = next((one for one in found if set(columns[:2]) <= set(one.columns)), None)
        if not new and (joined is None or columns[2] in taken):
            continue
        counted += 1
        if counted > _COUNTED:
            break
        group = columns if joined is None else (*joined.columns, columns[2])
        joint = Joint.of(group, table.choices, most, between)
        if joint is None or not _is_usual(joint) or not _decided(joint, columns, _EXPECTED):
            continue
        found = [*(one for one in found if one is not joined), joint]
        taken |= set(group)
    return tuple(found)


def beside(choices: NDArray[np.integer], joints: Sequence[Joint]) -> NDArray[np.integer]:
    """Return the choices of rows, shape (m, c), with those of joint columns beside them, shape (m, c + joints)."""
    if not joints:
        return choices
    return np.column_stack([choices, *(joint.choices(choices)[0] for joint in joints)])


def _candidates(
    first: NDArray[np.integer], kept: Sequence[int], most: int, between: Callable[[], None]
) -> list[tuple[int, int, int]]:
    """Return two columns and a third that they may decide, as some rows show, by the number of combinations."""
    if len(kept) > _MOST_COLUMNS:
        return []
    own = first[:, list(kept)].astype(np.int64)
    agree = np.array([((np.bincount(column) / len(own)) ** 2).sum() for column in own.T])
    possible: list[tuple[int, int, int, int]] = []
    for one, two in combinations(range(len(kept)), 2):
        between()
        pair = own[:, one] * (own[:, two].max() + 1) + own[:, two]
        order = np.argsort(pair, kind="stable")
        starts = np.flatnonzero(np.diff(pair[order], prepend=-1))
        if not _FIRST_EXPECTED <= len(starts) <= most:
            continue
        least, largest = (function.reduceat(own[order], starts, axis=0) for function in (np.minimum, np.maximum))
        several = np.count_nonzero(least != largest, axis=0)
        others = np.diff(np.append(starts, len(pair))) - 1
        expected = (1 - agree ** np.minimum(others, _FEW_ROWS)[:, None]).sum(axis=0)
        thirds = np.flatnonzero((expected >= _FIRST_EXPECTED) & (several <= _EXCEPTIONS * expected)).tolist()
        possible += [(len(starts), one, two, third) for third in thirds if third not in (one, two)]
    found = []
    for _, *places in sorted(possible)[:_LOOKED_AT]:
        between()
        joint = Joint.of(places, own, len(own))
        if joint is not None and _decided(joint, places, _FIRST_EXPECTED):
            found.append((len(joint.counts), kept[places[0]], kept[places[1]], kept[places[2]]))
    return [(one, two, third) for _, one, two, third in sorted(found)]


def _is_usual(joint: Joint) -> bool:
    """Return whether hardly any row is of a combination that is new (Good, 1953: about as many as were seen once)."""
    return int(np.count_nonzero(joint.counts == 1)) * _UNSEEN <= int(joint.counts.sum())


def _decided(joint: Joint, columns: Sequence[int], least: float) -> bool:
    """Return whether two columns decide a third: far fewer pairs have several of its choices than chance gives.

    By chance, two rows agree as often as two rows do that share one of the two columns' choices.

    Args:
        joint: Combinations of these columns, maybe of others as well.
        columns: The two, then the third.
        least: Pairs that have several by chance, at least.
    """
    one, two, third = columns
    every, pairs = joint.among(columns), joint.among((one, two))
    chance = np.zeros(len(pairs.counts))
    for column in (one, two):
        same = every.among((column, third))
        rows = np.bincount(same.part(column), same.counts)
        agreeing = np.bincount(same.part(column), same.counts * (same.counts - 1.0))
        chance = np.maximum(chance, (agreeing / np.maximum(rows * (rows - 1), 1))[pairs.part(column)])
    expected = float((1 - chance ** np.minimum(pairs.counts - 1, _FEW_ROWS)).sum())
    return expected >= least and len(every.counts) - len(pairs.counts) <= _EXCEPTIONS * expected


def _distinct(parts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number of each row among the distinct rows in lexicographic order, shape (n,)."""
    found = np.zeros(len(parts), np.int64)
    for column in parts.T:
        found = np.unique(found * (column.max(initial=0) + 1) + column, return_inverse=True)[1]
    return found
