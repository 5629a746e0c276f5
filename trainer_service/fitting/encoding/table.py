"""The canonical table as batches of native columns, hold-out rows left out. Memory is that of a batch."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rowmint.errors import CancelledError, TrainingFailedError
from rowmint.schema import ColumnSpec, DataType
from rowmint.schema.arrays import ColumnArray
from trainer_service.fitting.keys import philox
from trainer_service.fitting.monitoring.progress import Cancelled

BATCH_ROWS = 65_536
_WORDS = 1 << 20  # drawn at a time


@dataclass(frozen=True)
class Holdout:
    """The rows kept out of training: those whose keyed word falls below a fraction. Only key and fraction are stored.

    Attributes:
        key: 32 bytes, from the dataset's digest.
        fraction: Share of the rows, 0 to 0.5.
    """

    key: bytes
    fraction: float

    @classmethod
    def of(cls, dataset_digest: bytes, fraction: float) -> "Holdout":
        """Return the hold-out of the dataset of this SHA-256."""
        return cls(hashlib.sha256(b"rowmint/holdout/1\0" + dataset_digest).digest(), fraction)

    @classmethod
    def none(cls) -> "Holdout":
        """Return the hold-out of no row."""
        return cls(bytes(32), 0.0)

    def words(self) -> np.random.Philox:
        """Return the source of the rows' words, in row order."""
        return philox(self.key)

    @property
    def limit(self) -> np.uint64:
        """The word below which a row is kept out."""
        return np.uint64(int(self.fraction * 2.0**64))

    def limit_of(self, most: int, rows: int) -> np.uint64:
        """Return the word below which a row is one of the `most` of least words among those kept out of `rows` rows."""
        every = self.limit
        words, least = self.words(), np.zeros(0, np.uint64)
        for start in range(0, rows, _WORDS):
            drawn = words.random_raw(min(_WORDS, rows - start))
            least = np.sort(np.concatenate([least, drawn[drawn < every]]))[: most + 1]
        return every if len(least) <= most else np.uint64(least[most])


@dataclass(frozen=True)
class Table:
    """A canonical Parquet file and which of its rows train.

    Attributes:
        path: The file.
        columns: The columns read, of kind and type known.
        holdout: The rows left out.
    """

    path: Path
    columns: tuple[ColumnSpec, ...]
    holdout: Holdout

    @property
    def row_count(self) -> int:
        """Rows of the file, hold-out included."""
        return int(pq.read_metadata(self.path).num_rows)

    def batches(self, cancelled: Cancelled) -> Iterator[pa.RecordBatch]:
        """Read the training rows in order, all columns, at most `BATCH_ROWS` at a time.

        Raises:
            CancelledError: `cancelled` said so between two batches.
        """
        for batch, trains in self._read(cancelled, self.holdout.limit):
            yield batch if trains is None else batch.filter(trains)

    def held_out(self, most: int, cancelled: Cancelled) -> pa.Table:
        """Return rows that do not train, at most `most`: of more, some from all over the table.

        Raises:
            CancelledError: `cancelled` said so between two batches.
        """
        parts: list[pa.RecordBatch] = []
        if self.holdout.fraction:
            # A table may be sorted, its first rows unlike the others: those of the least words are spread over it.
            limit = self.holdout.limit_of(most, self.row_count)
            parts = [batch.filter(pc.invert(trains)) for batch, trains in self._read(cancelled, limit)]
        names = [column.name for column in self.columns]
        return pa.Table.from_batches(parts, parts[0].schema if parts else pq.read_schema(self.path)).select(names)

    def _read(self, cancelled: Cancelled, limit: np.uint64) -> Iterator[tuple[pa.RecordBatch, pa.Array | None]]:
        """Read all rows in order, and which of them have words of `limit` or more; None for all."""
        words = self.holdout.words()
        names = [column.name for column in self.columns]
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=names):
                if cancelled():
                    raise CancelledError("the fit was cancelled while the table was read")
                trains = pa.array(words.random_raw(batch.num_rows) >= limit) if self.holdout.fraction else None
                yield batch, trains


def ordered(array: pa.Array, column: ColumnSpec) -> ColumnArray:
    """Return the cells of a column with an order, or of integer ids, in its native scale; NaN counts as missing.

    Raises:
        TrainingFailedError: A number is infinite or does not fit in 64 bits.
    """
    if array.null_count:
        valid = pc.is_valid(array).to_numpy(zero_copy_only=False)
        array = array.drop_null()
    else:
        valid = np.ones(len(array), np.bool_)
    present = _natives(array, column)
    if present.dtype == np.float64:
        odd = ~np.isfinite(present)
        if odd.any():
            if np.isinf(present).any():
                raise TrainingFailedError(
                    f"column {column.name!r} holds an infinite number; replace it or ignore the column"
                )
            valid[np.flatnonzero(valid)[odd]] = False
            present = present[~odd]
    values = np.zeros(len(valid), present.dtype)
    values[valid] = present
    return ColumnArray(values, valid)


def _natives(array: pa.Array, column: ColumnSpec) -> NDArray[np.int64] | NDArray[np.float64]:
    match column.data_type:
        case DataType.DOUBLE:
            numbers: NDArray[np.float64] = array.cast(pa.float64()).to_numpy(zero_copy_only=False)
            return numbers + 0.0  # -0.0 becomes 0.0: equal values are one value
        case DataType.DECIMAL:
            return _decimal_units(array, column)
        case DataType.DATE:
            days: NDArray[np.int64] = array.cast(pa.date32()).cast(pa.int32()).to_numpy(zero_copy_only=False)
            return days.astype(np.int64)
        case DataType.TIMESTAMP:
            zone = array.type.tz if pa.types.is_timestamp(array.type) else None
            micros = array.cast(pa.timestamp("us", zone)).cast(pa.int64())
            return np.asarray(micros.to_numpy(zero_copy_only=False), np.int64)
        case _:
            return np.asarray(array.cast(pa.int64()).to_numpy(zero_copy_only=False), np.int64)


def _decimal_units(array: pa.Array, column: ColumnSpec) -> NDArray[np.int64]:
    """Return decimals in units of their last digit, shape (n,)."""
    scaled = array.cast(pa.decimal128(38, column.domain.decimals or 0))
    # A decimal128 is a little-endian 128-bit integer; the low half is all where the high half is its sign.
    halves = np.frombuffer(scaled.buffers()[1], "<i8")[2 * scaled.offset : 2 * (scaled.offset + len(scaled))]
    low, high = halves[0::2].astype(np.int64), halves[1::2]
    if (high != low >> np.int64(63)).any():
        raise TrainingFailedError(f"column {column.name!r} holds a decimal that does not fit in 64 bits")
    return low


def coded(array: pa.Array, column: ColumnSpec) -> pa.Array:
    """Return the cells of a categorical column as an Arrow array whose equal cells are equal; NaN becomes missing."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    match column.data_type:
        case DataType.STRING:
            return array.cast(pa.string())
        case DataType.DOUBLE:
            numbers = array.cast(pa.float64())
            numbers = pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)
            return pc.add(numbers, 0.0)
        case DataType.DECIMAL:
            return array.cast(pa.decimal128(38, column.domain.decimals or 0))
        case DataType.TIMESTAMP:
            # Instants are UTC whatever zone they are written in; local times have none.
            return array.cast(pa.timestamp("us", "UTC" if column.time_zone else None))
        case _:
            return array
