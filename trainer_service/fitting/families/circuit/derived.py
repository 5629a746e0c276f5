"""Columns that are functions of another one, as the training rows show: they are looked up, not learned."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer_service.fitting.encoding.encoded_table import EncodedTable

_FIRST_ROWS = 2_000
_CHUNK = 1 << 18
_SEVERAL_ROWS, _NEARLY_ALL = 3, 0.9
_FEW_ROWS = 20  # of one choice count as evidence
_CHANCE = -14.0  # nats: how unlikely it must be that rows agree so by chance


@dataclass(frozen=True)
class Derived:
    """A function of a column.

    Attributes:
        of: Position of the column that it is a function of.
        choices: Its choice for each choice of that column, uint16; for one that no row has, that of its neighbour.
    """

    of: int
    choices: NDArray[np.uint16]


def derived_columns(
    table: EncodedTable, rows: NDArray[np.integer], between: Callable[[], None]
) -> Mapping[int, Derived]:
    """Return the columns that are functions of others, by position; none is a function of a derived one.

    A column counts as a function of another where every training row agrees, and where so many rows could not agree by
    chance: rows that share the other column's choice, each as likely to agree as two rows of the table are. One choice
    with many rows, such as a missing value, is no evidence about the others: only its first few rows count. And nearly
    all choices must have several rows: what a single row has is no function, but that row.

    Args:
        table: The training rows.
        rows: Some of the rows, in any order.
        between: Called now and then; it may raise.
    """
    used = [int(np.count_nonzero(counts)) for counts in table.counts]
    finest = sorted(range(len(used)), key=lambda column: (-used[column], column))
    first = np.asarray(table.choices[rows[:_FIRST_ROWS]])
    agree = []
    for column in range(len(used)):
        between()
        agree.append(_agreeing(first, column))
    found: dict[int, Derived] = {}
    kept: list[int] = []
    for column in finest:
        for other in sorted(kept, key=lambda place: (used[place], place)):
            if not agree[other][column] or used[column] < 2 or not _evident(table, other, column):
                continue
            choices = _function(table, other, column, between)
            if choices is not None:
                found[column] = Derived(other, choices)
                break
        else:
            kept.append(column)
    return found


def _agreeing(first: NDArray[np.integer], column: int) -> NDArray[np.bool_]:
    """Return which columns are the same wherever a column is the same, in some rows; shape (c,)."""
    ordered = first[np.argsort(first[:, column], kind="stable")]
    same = ordered[1:, column] == ordered[:-1, column]
    differ = (ordered[1:] != ordered[:-1]) & same[:, None]
    found: NDArray[np.bool_] = ~differ.any(axis=0)
    return found


def _evident(table: EncodedTable, other: int, column: int) -> bool:
    counts = table.counts[other][table.counts[other] > 0]
    if np.count_nonzero(counts >= _SEVERAL_ROWS) < _NEARLY_ALL * len(counts):
        return False
    share = table.counts[column] / max(table.rows, 1)
    return float(np.minimum(counts - 1, _FEW_ROWS).sum()) * math.log(float((share**2).sum())) < _CHANCE


def _function(table: EncodedTable, other: int, column: int, between: Callable[[], None]) -> NDArray[np.uint16] | None:
    """Return the choice of a column for each choice of another; None where the rows disagree."""
    size = len(table.counts[other])
    choices = np.full(size, -1, np.int64)
    for start in range(0, table.rows, _CHUNK):
        between()
        part = np.asarray(table.choices[start : start + _CHUNK])
        keys, values = part[:, other].astype(np.int64), part[:, column].astype(np.int64)
        new = choices.copy()
        new[keys] = values
        if (new[keys] != values).any() or ((choices >= 0) & (choices != new)).any():
            return None
        choices = new
    seen = np.flatnonzero(choices >= 0)
    nearest = np.searchsorted(seen, np.arange(size)).clip(0, len(seen) - 1)
    found: NDArray[np.uint16] = choices[seen[nearest]].astype(np.uint16)
    return found
