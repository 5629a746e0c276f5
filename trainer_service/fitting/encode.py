"""The second pass over the table: compact codes in files that are mapped into memory, never a one-hot matrix.

One row of `slots` and of `alpha` holds all of a table row, so a random draw of rows touches few pages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs import CategoryCodec, NumericCodec
from rowmint.errors import TrainingFailedError
from trainer_service.config import TrainingConfig
from trainer_service.fitting.columns import FittedColumn, fit_columns
from trainer_service.fitting.keys import random
from trainer_service.fitting.progress import Cancelled
from trainer_service.fitting.summary import summarise
from trainer_service.fitting.table import Table


@dataclass(frozen=True)
class EncodedTable:
    """The training rows as codes.

    Attributes:
        fitted: All columns of the model in schema order, ids included.
        rows: Training rows, n.
        slots: Slot of each modelled column, unsigned, shape (n, c).
        alpha: Scalar of each column that has one, float32, shape (n, s); 0 outside modes.
        counts: Rows of each slot of each modelled column: c arrays of int64, shape (slots,).
    """

    fitted: tuple[FittedColumn, ...]
    rows: int
    slots: NDArray[np.unsignedinteger]
    alpha: NDArray[np.float32]
    counts: tuple[NDArray[np.int64], ...]

    @property
    def modelled(self) -> tuple[FittedColumn, ...]:
        """The columns that have codes, in schema order; c of them."""
        return tuple(column for column in self.fitted if column.encoder is not None)

    @property
    def codecs(self) -> tuple[CategoryCodec | NumericCodec, ...]:
        """The codecs of the modelled columns."""
        return tuple(column.encoder.codec for column in self.fitted if column.encoder is not None)

    @property
    def width(self) -> int:
        """Width of a row in the networks: a scalar where there is one, and one for each slot."""
        return sum(codec.scalar + codec.slots for codec in self.codecs)


def encode_table(table: Table, config: TrainingConfig, scratch: Path, cancelled: Cancelled) -> EncodedTable:
    """Fit every column's codec and encode the training rows.

    Args:
        table: The table.
        config: The training configuration.
        scratch: Folder of the files of codes; exists.
        cancelled: Asked before each batch.

    Raises:
        CancelledError: `cancelled` said so.
        InvalidFieldError: A column is to be refused.
        TrainingFailedError: A column cannot be learned, or fewer than two rows are left to train on.
    """
    summaries, rows = summarise(table, config.seed, cancelled)
    if rows < 2:
        raise TrainingFailedError(f"{rows} rows are left to train on; at least 2 are needed: lower holdout_fraction")
    fitted = fit_columns(table.columns, summaries, config)
    return _encode(table, fitted, rows, seed=config.seed, scratch=scratch, cancelled=cancelled)


def _encode(
    table: Table, fitted: Sequence[FittedColumn], rows: int, *, seed: int, scratch: Path, cancelled: Cancelled
) -> EncodedTable:
    encoders = [(index, column.encoder) for index, column in enumerate(fitted) if column.encoder is not None]
    widest = max(encoder.codec.slots for _, encoder in encoders)
    kind = np.dtype(np.uint8 if widest <= 1 << 8 else np.uint16 if widest <= 1 << 16 else np.uint32)
    scalars = sum(encoder.codec.scalar for _, encoder in encoders)
    slots = np.memmap(scratch / "slots", kind, "w+", shape=(rows, len(encoders)))
    # An empty file cannot be mapped.
    alpha = (
        np.memmap(scratch / "alpha", np.float32, "w+", shape=(rows, scalars)) if scalars else np.zeros((rows, 0), "f4")
    )
    counts = [np.zeros(encoder.codec.slots, np.int64) for _, encoder in encoders]
    start = 0
    for number, batch in enumerate(table.batches(cancelled)):
        stop = start + batch.num_rows
        scalar = 0
        for position, (index, encoder) in enumerate(encoders):
            draws = random(seed, f"modes:{fitted[index].spec.name}", number)
            found, values = encoder.encode(batch.column(index), draws)
            slots[start:stop, position] = found
            counts[position] += np.bincount(found, minlength=encoder.codec.slots)
            if encoder.codec.scalar:
                alpha[start:stop, scalar] = values
                scalar += 1
        start = stop
    return EncodedTable(tuple(fitted), rows, slots, alpha, tuple(counts))


@dataclass(frozen=True)
class RowLists:
    """The rows of each slot of some columns, for training-by-sampling.

    Attributes:
        rows: Row numbers, grouped by column and slot, in a file; shape (columns * n,).
        offsets: Where each (column, slot) begins in `rows`, by column: shape (slots + 1,) each.
    """

    rows: NDArray[np.integer]
    offsets: Mapping[int, NDArray[np.int64]]


def row_lists(table: EncodedTable, columns: Sequence[int], scratch: Path) -> RowLists:
    """List the rows of each slot.

    Args:
        table: The encoded table.
        columns: Positions among the modelled columns, at least one.
        scratch: Folder of the file; exists.
    """
    kind = np.int32 if table.rows < 1 << 31 else np.int64
    lists = np.memmap(scratch / "rows", kind, "w+", shape=(len(columns) * table.rows,))
    offsets = {}
    for number, column in enumerate(columns):
        base = number * table.rows
        lists[base : base + table.rows] = np.argsort(table.slots[:, column], kind="stable")
        offsets[column] = base + np.concatenate([[0], np.cumsum(table.counts[column])])
    return RowLists(lists, offsets)
