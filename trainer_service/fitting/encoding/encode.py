"""The second pass over the table: compact codes in files that are mapped into memory, never a one-hot matrix.

One row of `slots` and of `alpha` holds all of a table row, so a random draw of rows touches few pages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rowmint.codecs import CategoryCodec, NumericCodec
from rowmint.errors import TrainingFailedError
from trainer_service.config import TrainingConfig
from trainer_service.fitting.encoding.columns import FittedColumn, fit_columns
from trainer_service.fitting.encoding.summary import summarise
from trainer_service.fitting.encoding.table import Table
from trainer_service.fitting.keys import random
from trainer_service.fitting.monitoring.progress import Cancelled

HELD_OUT_ROWS = 4096
"""Most rows kept out of training that probes compare with."""


@dataclass(frozen=True)
class Codes:
    """Rows as codes.

    Attributes:
        slots: Slot of each modelled column, unsigned, shape (n, c).
        alpha: Scalar of each column that has one, float32, shape (n, s); 0 outside modes.
    """

    slots: NDArray[np.integer]
    alpha: NDArray[np.float32]


@dataclass(frozen=True)
class EncodedTable:
    """The training rows as codes.

    Attributes:
        fitted: All columns of the model in schema order, ids included.
        rows: Training rows, n.
        slots: Slot of each modelled column, unsigned, shape (n, c).
        alpha: Scalar of each column that has one, float32, shape (n, s); 0 outside modes.
        counts: Rows of each slot of each modelled column: c arrays of int64, shape (slots,).
        held_out: Some of the rows that do not train; none where there are none.
    """

    fitted: tuple[FittedColumn, ...]
    rows: int
    slots: NDArray[np.unsignedinteger]
    alpha: NDArray[np.float32]
    counts: tuple[NDArray[np.int64], ...]
    held_out: Codes

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

    def positions(self) -> tuple[list[slice], list[int]]:
        """Return where, in a row of outputs in schema order, each column's slots and each scalar stand."""
        blocks, scalars, start = [], [], 0
        for codec in self.codecs:
            if codec.scalar:
                scalars.append(start)
            blocks.append(slice(start + codec.scalar, start + codec.scalar + codec.slots))
            start = blocks[-1].stop
        return blocks, scalars

    def codes(self, rows: NDArray[np.integer]) -> Codes:
        """Return the codes of some training rows."""
        return Codes(np.array(self.slots[rows]), np.array(self.alpha[rows]))


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


class _Encoders:
    """The encoders of the modelled columns, side by side."""

    def __init__(self, fitted: Sequence[FittedColumn], seed: int) -> None:
        self._encoders = [
            (index, column.spec.name, column.encoder) for index, column in enumerate(fitted) if column.encoder
        ]
        self._seed = seed
        self.slots = [encoder.codec.slots for _, _, encoder in self._encoders]
        self.scalars = sum(encoder.codec.scalar for _, _, encoder in self._encoders)
        widest = max(self.slots)
        self.kind = np.dtype(np.uint8 if widest <= 1 << 8 else np.uint16 if widest <= 1 << 16 else np.uint32)

    def encode(self, batch: pa.RecordBatch, purpose: str, number: int) -> Codes:
        """Return the codes of a batch; draws are keyed by purpose, column and number."""
        slots = np.empty((batch.num_rows, len(self._encoders)), self.kind)
        alpha = np.empty((batch.num_rows, self.scalars), np.float32)
        scalar = 0
        for position, (index, name, encoder) in enumerate(self._encoders):
            draws = random(self._seed, f"{purpose}:{name}", number)
            slots[:, position], values = encoder.encode(batch.column(index), draws)
            if encoder.codec.scalar:
                alpha[:, scalar] = values
                scalar += 1
        return Codes(slots, alpha)


def _encode(
    table: Table, fitted: Sequence[FittedColumn], rows: int, *, seed: int, scratch: Path, cancelled: Cancelled
) -> EncodedTable:
    encoders = _Encoders(fitted, seed)
    columns, scalars = len(encoders.slots), encoders.scalars
    slots = np.memmap(scratch / "slots", encoders.kind, "w+", shape=(rows, columns))
    # An empty file cannot be mapped.
    alpha = (
        np.memmap(scratch / "alpha", np.float32, "w+", shape=(rows, scalars)) if scalars else np.zeros((rows, 0), "f4")
    )
    counts = [np.zeros(size, np.int64) for size in encoders.slots]
    start = 0
    for number, batch in enumerate(table.batches(cancelled)):
        codes = encoders.encode(batch, "modes", number)
        span = slice(start, start + batch.num_rows)
        slots[span], alpha[span] = codes.slots, codes.alpha
        for position, size in enumerate(encoders.slots):
            counts[position] += np.bincount(codes.slots[:, position], minlength=size)
        start = span.stop
    kept = table.held_out(HELD_OUT_ROWS, cancelled).combine_chunks()
    held_out = Codes(np.zeros((0, columns), encoders.kind), np.zeros((0, scalars), np.float32))
    if kept.num_rows:
        (batch,) = kept.to_batches()
        held_out = encoders.encode(batch, "held out", 0)
    return EncodedTable(tuple(fitted), rows, slots, alpha, tuple(counts), held_out)


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
