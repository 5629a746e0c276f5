"""The first pass over the table: what each column's codec is fitted to, in memory that does not grow with the rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import gcd

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rowmint.errors import TrainingFailedError
from rowmint.schema import Cell, ColumnKind, ColumnSpec, DataType
from rowmint.schema.arrays import is_coded
from trainer_service.fitting.encoding.table import Table, coded, ordered
from trainer_service.fitting.keys import key, philox
from trainer_service.fitting.monitoring.progress import Cancelled

MAX_VALUES = 1_000_000
"""Distinct values counted in a categorical column."""
DISTINCT = 65_536
"""Distinct numbers counted exactly; of more, the commonest are, up to an error of rows / `HITTERS`."""
HITTERS = 4_096
SAMPLE_ROWS = 100_000
_SAFE_RANGE = 1 << 62
_FIRST = 16
"""Largest first integer of a column that counts rows, of which the first may be kept out of training."""


@dataclass
class CategorySummary:
    """Counts of a categorical column's values."""

    column: ColumnSpec
    counts: dict[Cell, int] = field(default_factory=dict)
    missing: int = 0

    def add(self, array: pa.Array, _: NDArray[np.bool_]) -> None:
        """Count some cells.

        Raises:
            TrainingFailedError: There are more than `MAX_VALUES` distinct values.
        """
        found = pc.value_counts(coded(array, self.column))
        for value, count in zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True):
            if value is None:
                self.missing += count
            else:
                self.counts[value] = self.counts.get(value, 0) + count
        if len(self.counts) > MAX_VALUES:
            raise TrainingFailedError(
                f"column {self.column.name!r} has more than {MAX_VALUES:,} distinct values: declare it ID or IGNORED"
            )


@dataclass
class NumberSummary:
    """What is to be known of an ordered column, in its native scale.

    Attributes:
        values: Distinct values, ascending, shape (d,): all of them where `complete`, else the commonest.
        counts: Rows of each, shape (d,); at most rows / `HITTERS` too low where not `complete`.
        complete: Whether `values` are all there are.
        minimum: Smallest value; None where every cell is missing.
        maximum: Largest value.
        step: Greatest common divisor of the values' distances, in grid units; 0 where there is one value.
        on_grid: Whether all values lie on a grid of whole units.
        sample: Values of a sample of the rows.
    """

    column: ColumnSpec
    rows: int = 0
    missing: int = 0
    values: NDArray[np.generic] = field(default_factory=lambda: np.zeros(0))
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    complete: bool = True
    minimum: int | float | None = None
    maximum: int | float | None = None
    step: int = 0
    on_grid: bool = True
    sample: list[NDArray[np.generic]] = field(default_factory=list)
    _anchor: int | None = None

    def add(self, array: pa.Array, chosen: NDArray[np.bool_]) -> None:
        """Take in some cells; those `chosen`, shape (n,), are sampled."""
        cells = ordered(array, self.column)
        valid = ~cells.missing()
        self.rows += len(cells)
        self.missing += int(np.count_nonzero(~valid))
        self.sample.append(cells.values[valid & chosen])
        values, counts = np.unique(cells.values[valid], return_counts=True)
        if not len(values):
            return
        least, greatest = values[0].item(), values[-1].item()
        self.minimum = least if self.minimum is None else min(self.minimum, least)
        self.maximum = greatest if self.maximum is None else max(self.maximum, greatest)
        self._find_step(values)
        self._merge(values, counts)

    def _find_step(self, values: NDArray[np.generic]) -> None:
        decimals = self.column.domain.decimals
        if self.column.data_type is not DataType.DOUBLE:
            units = values.astype(np.int64)
        elif decimals is None or not self.on_grid:
            self.on_grid = False
            return
        else:
            scale = 10.0**decimals
            real = np.rint(values.astype(np.float64) * scale)
            if np.abs(real).max() >= 2.0**53 or (real / scale != values).any():
                self.on_grid = False
                return
            units = real.astype(np.int64)
        if self._anchor is None:
            self._anchor = int(units[0])
        if max(abs(int(units[0]) - self._anchor), abs(int(units[-1]) - self._anchor)) >= _SAFE_RANGE:
            self.step = 1
            return
        found = np.gcd.reduce(np.abs(units - np.int64(self._anchor)))
        self.step = gcd(self.step, int(found))

    def _merge(self, values: NDArray[np.generic], counts: NDArray[np.int64]) -> None:
        """Merge counts; past the cap, keep the commonest, lowered by the first left out (Misra and Gries, 1982)."""
        if len(self.values):
            every = np.concatenate([self.values, values])
            values, index = np.unique(every, return_inverse=True)
            total = np.concatenate([self.counts, counts])
            counts = np.bincount(index, total).astype(np.int64)
        if len(values) > (DISTINCT if self.complete else HITTERS):
            self.complete = False
            bound = int(np.partition(counts, -HITTERS - 1)[-HITTERS - 1])
            kept = counts > bound
            values, counts = values[kept], counts[kept] - bound
        self.values, self.counts = values, counts

    def sampled(self) -> NDArray[np.generic]:
        """Return the sampled values, in row order."""
        return np.concatenate(self.sample) if self.sample else self.values[:0]


@dataclass
class IdentitySummary:
    """What is to be known of a column of ids.

    Attributes:
        rows: Rows.
        missing: Rows without an id.
        minimum: Smallest id, of integers.
        maximum: Largest id, of integers.
    """

    column: ColumnSpec
    rows: int = 0
    missing: int = 0
    minimum: int | None = None
    maximum: int | None = None
    _rising: bool = True

    def add(self, array: pa.Array, _: NDArray[np.bool_]) -> None:
        """Take in some cells."""
        self.rows += len(array)
        self.missing += array.null_count
        if self.column.data_type is not DataType.INT64:
            return
        values = array.drop_null().to_numpy()
        if not len(values):
            return
        after = self.maximum is None or self.maximum < values[0]
        self._rising = self._rising and after and bool((values[1:] > values[:-1]).all())
        least, greatest = int(values.min()), int(values.max())
        self.minimum = least if self.minimum is None else min(self.minimum, least)
        self.maximum = greatest if self.maximum is None else max(self.maximum, greatest)

    @property
    def counts_rows(self) -> bool:
        """Whether integers rise with the rows from about 0 on, and at least every other one is there.

        Rows that were kept out of training leave gaps.
        """
        if self.minimum is None or self.maximum is None or self.missing:
            return False
        return self._rising and 0 <= self.minimum <= _FIRST and self.maximum < 2 * self.rows + _FIRST


Summary = CategorySummary | NumberSummary | IdentitySummary


def summarise(table: Table, seed: int, cancelled: Cancelled) -> tuple[Mapping[str, Summary], int]:
    """Read the training rows once.

    Args:
        table: The table.
        seed: Seed of the fit; it chooses the sampled rows.
        cancelled: Called before each batch.

    Returns:
        The summary of each column by name, and the number of training rows.

    Raises:
        CancelledError: `cancelled` said so.
        TrainingFailedError: A column cannot be learned.
    """
    summaries: dict[str, Summary] = {column.name: _empty(column) for column in table.columns}
    words = philox(key(seed, "sample"))
    share = min(1.0, SAMPLE_ROWS / max(1, table.row_count))
    rows = 0
    for batch in table.batches(cancelled):
        drawn = words.random_raw(batch.num_rows) if share < 1 else np.zeros(batch.num_rows, np.uint64)
        chosen = drawn < np.uint64(min(int(share * 2.0**64), 2**64 - 1))
        for column, array in zip(table.columns, batch.columns, strict=True):
            summaries[column.name].add(array, chosen)
        rows += batch.num_rows
    return summaries, rows


def _empty(column: ColumnSpec) -> Summary:
    if column.kind is ColumnKind.ID:
        return IdentitySummary(column)
    return CategorySummary(column) if is_coded(column) else NumberSummary(column)
