"""Training-by-sampling: condition vectors and the rows that they stand for (arXiv:1907.00503, section 4.3)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs import CategoryCodec
from trainer_service.fitting.encoding.encoded_table import EncodedTable
from trainer_service.fitting.encoding.row_lists import row_lists


@dataclass(frozen=True)
class ConditionVectors:
    """The k condition vectors: each sets one categorical column to one of the choices it has in the data.

    Attributes:
        column: Place of the column among the modelled ones, shape (k,).
        choice: The choice, shape (k,).
        counts: Rows that have it, shape (k,), positive.
        first: Where those rows begin in `rows`, shape (k,).
        rows: Row numbers, grouped by condition vector.
        frequencies: How often each is drawn where rows are to be as in the data, sum 1, shape (k,).
        training: How often each is drawn in training, sum 1, shape (k,).
    """

    column: NDArray[np.int64]
    choice: NDArray[np.int64]
    counts: NDArray[np.int64]
    first: NDArray[np.int64]
    rows: NDArray[np.integer]
    frequencies: NDArray[np.float64]
    training: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.column)

    def draw(self, random: np.random.Generator, count: int) -> NDArray[np.int64]:
        """Draw condition vectors as training does, shape (count,)."""
        return _draw(self.training, random, count)

    def draw_true(self, random: np.random.Generator, count: int) -> NDArray[np.int64]:
        """Draw condition vectors by the data's frequencies, shape (count,)."""
        return _draw(self.frequencies, random, count)

    def matching(self, drawn: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.integer]:
        """Draw, for each condition vector, one of the rows that have its choice, shape (n,)."""
        counts = self.counts[drawn]
        chosen = np.minimum((random.random(len(drawn)) * counts).astype(np.int64), counts - 1)
        found: NDArray[np.integer] = np.asarray(self.rows[self.first[drawn] + chosen])
        return found


def _draw(shares: NDArray[np.float64], random: np.random.Generator, count: int) -> NDArray[np.int64]:
    running = np.cumsum(shares)
    found = np.searchsorted(running, random.random(count) * running[-1], side="right")
    return np.asarray(np.minimum(found, len(shares) - 1), np.int64)


def make_condition_vectors(table: EncodedTable, scratch: Path, *, log_frequency: bool) -> ConditionVectors | None:
    """Return the condition vectors of a table; None where no categorical column has two choices in use.

    Args:
        table: The training rows.
        scratch: Folder of the file of row lists; exists.
        log_frequency: Whether training draws a choice by the logarithm of its frequency, so that rare ones are seen
            often enough, or by the frequency itself. Every column is drawn as often as the others.
    """
    columns = [
        index
        for index, (codec, counts) in enumerate(zip(table.codecs, table.counts, strict=True))
        if isinstance(codec, CategoryCodec) and np.count_nonzero(counts) > 1
    ]
    if not columns:
        return None
    lists = row_lists(table, columns, scratch)
    column, choice, counts, first, frequencies, training = [], [], [], [], [], []
    for index in columns:
        used = np.flatnonzero(table.counts[index])
        count = table.counts[index][used]
        column.append(np.full(len(used), index, np.int64))
        choice.append(used)
        counts.append(count)
        first.append(lists.offsets[index][used])
        share = count / count.sum()
        frequencies.append(share / len(columns))
        weight = np.log(count + 1.0) if log_frequency else share
        training.append(weight / weight.sum() / len(columns))
    return ConditionVectors(
        np.concatenate(column),
        np.concatenate(choice).astype(np.int64),
        np.concatenate(counts),
        np.concatenate(first),
        lists.rows,
        np.concatenate(frequencies),
        np.concatenate(training),
    )
