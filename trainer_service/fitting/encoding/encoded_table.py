"""The second pass over the table: compact codes in files that are mapped into memory, never a one-hot matrix.

One row of `choices` and of `alpha` holds all of a table row, so a random draw of rows touches few pages.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rowmint.codecs import CategoryCodec, NumericCodec
from rowmint.errors import TrainingFailedError
from trainer_service.fitting.encoding.column_fits import fit_columns
from trainer_service.fitting.encoding.fitted_column import FittedColumn
from trainer_service.fitting.encoding.mapped_array import mapped_array
from trainer_service.fitting.encoding.summary import summarise
from trainer_service.fitting.encoding.table import Table
from trainer_service.fitting.keys import random
from trainer_service.fitting.monitoring.progress import Cancelled
from trainer_service.fitting.options import EncodingOptions


@dataclass(frozen=True)
class EncodedRows:
    """Rows as codes.

    Attributes:
        choices: Choice of each modelled column, unsigned, shape (n, c).
        alpha: Scalar of each column that has one, float32, shape (n, s); 0 outside modes.
    """

    choices: NDArray[np.integer]
    alpha: NDArray[np.float32]


@dataclass(frozen=True)
class EncodedTable:
    """The training rows as codes.

    Attributes:
        fitted: All columns of the model in schema order, ids included.
        rows: Training rows, n.
        choices: Choice of each modelled column, unsigned, shape (n, c).
        alpha: Scalar of each column that has one, float32, shape (n, s); 0 outside modes.
        counts: Rows of each choice of each modelled column: c arrays of int64, shape (choices,).
        held_out: Some of the rows that do not train; none where there are none.
    """

    fitted: tuple[FittedColumn, ...]
    rows: int
    choices: NDArray[np.unsignedinteger]
    alpha: NDArray[np.float32]
    counts: tuple[NDArray[np.int64], ...]
    held_out: EncodedRows

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
        """Width of a row in the networks: a scalar where there is one, and one for each choice."""
        return sum(codec.scalar + codec.choices for codec in self.codecs)

    def positions(self) -> tuple[list[slice], list[int]]:
        """Return where, in a row of outputs in schema order, each column's choices and each scalar stand."""
        blocks, scalars, start = [], [], 0
        for codec in self.codecs:
            if codec.scalar:
                scalars.append(start)
            blocks.append(slice(start + codec.scalar, start + codec.scalar + codec.choices))
            start = blocks[-1].stop
        return blocks, scalars

    def at(self, rows: NDArray[np.integer]) -> EncodedRows:
        """Return some of the training rows."""
        return EncodedRows(np.array(self.choices[rows]), np.array(self.alpha[rows]))


def encode_table(table: Table, options: EncodingOptions, scratch: Path, cancelled: Cancelled) -> EncodedTable:
    """Fit every column's codec and encode the training rows.

    Args:
        table: The table.
        options: How columns are encoded.
        scratch: Folder of the files of codes; exists.
        cancelled: Called before each batch.

    Raises:
        CancelledError: `cancelled` said so.
        InvalidFieldError: A column is to be refused.
        TrainingFailedError: A column cannot be learned, or fewer than two rows are left to train on.
    """
    summaries, rows = summarise(table, options.seed, cancelled)
    if rows < 2:
        raise TrainingFailedError(f"{rows} rows are left to train on; at least 2 are needed: lower holdout_fraction")
    fitted = fit_columns(table.columns, summaries, options)
    return _encode(
        table,
        fitted,
        rows,
        seed=options.seed,
        held_out_rows=options.held_out_rows,
        scratch=scratch,
        cancelled=cancelled,
    )


class _Encoders:
    """The encoders of the modelled columns, side by side."""

    def __init__(self, fitted: Sequence[FittedColumn], seed: int) -> None:
        self._encoders = [
            (index, column.spec.name, column.encoder) for index, column in enumerate(fitted) if column.encoder
        ]
        self._seed = seed
        self.sizes = [encoder.codec.choices for _, _, encoder in self._encoders]
        self.scalars = sum(encoder.codec.scalar for _, _, encoder in self._encoders)
        widest = max(self.sizes)
        self.kind = np.dtype(np.uint8 if widest <= 1 << 8 else np.uint16 if widest <= 1 << 16 else np.uint32)

    def encode(self, batch: pa.RecordBatch, purpose: str, number: int) -> EncodedRows:
        """Return the codes of a batch; draws are keyed by purpose, column and number."""
        choices = np.empty((batch.num_rows, len(self._encoders)), self.kind)
        alpha = np.empty((batch.num_rows, self.scalars), np.float32)
        scalar = 0
        for position, (index, name, encoder) in enumerate(self._encoders):
            draws = random(self._seed, f"{purpose}:{name}", number)
            choices[:, position], values = encoder.encode(batch.column(index), draws)
            if encoder.codec.scalar:
                alpha[:, scalar] = values
                scalar += 1
        return EncodedRows(choices, alpha)


def _encode(
    table: Table,
    fitted: Sequence[FittedColumn],
    rows: int,
    *,
    seed: int,
    held_out_rows: int,
    scratch: Path,
    cancelled: Cancelled,
) -> EncodedTable:
    encoders = _Encoders(fitted, seed)
    columns, scalars = len(encoders.sizes), encoders.scalars
    choices = mapped_array(scratch / "choices", encoders.kind, (rows, columns))
    alpha = mapped_array(scratch / "alpha", np.float32, (rows, scalars))
    counts = [np.zeros(size, np.int64) for size in encoders.sizes]
    start = 0
    for number, batch in enumerate(table.batches(cancelled)):
        codes = encoders.encode(batch, "modes", number)
        span = slice(start, start + batch.num_rows)
        choices[span], alpha[span] = codes.choices, codes.alpha
        for position, size in enumerate(encoders.sizes):
            counts[position] += np.bincount(codes.choices[:, position], minlength=size)
        start = span.stop
    kept = table.held_out(held_out_rows, cancelled).combine_chunks()
    held_out = EncodedRows(np.zeros((0, columns), encoders.kind), np.zeros((0, scalars), np.float32))
    if kept.num_rows:
        (batch,) = kept.to_batches()
        held_out = encoders.encode(batch, "held out", 0)
    return EncodedTable(tuple(fitted), rows, choices, alpha, tuple(counts), held_out)
