"""Profiles of converted columns, computed batch by batch in bounded memory."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rowmint.schema import Cell, DataType, cell_text
from trainer_service.datasets.decimals import learned_decimals

MAX_DISTINCT = 10_000
_MAX_TEXT = 256


class ColumnProfile:
    """Counts and extremes of one column.

    Attributes:
        nulls: Number of missing cells.
        minimum: Smallest value, or None without values.
        maximum: Largest value, or None without values.
        decimals: Digits after the point that represent every value of a DOUBLE, 0 to 15, or None if no number does.
        repeats: Whether a value is known to occur twice; False if that is unknown.

    Args:
        data_type: The column's type.
    """

    def __init__(self, data_type: DataType) -> None:
        self._type = data_type
        self.nulls = 0
        self.minimum: Cell = None
        self.maximum: Cell = None
        self.decimals: int | None = 0
        self.repeats = False
        self._values = 0
        self._distinct: pa.Array | None = None
        self._exact = True

    @property
    def values(self) -> int:
        """Number of cells that are not missing."""
        return self._values

    @property
    def all_distinct(self) -> bool:
        """Whether no cell is missing and no value is known to repeat."""
        return self.nulls == 0 and self._values > 0 and not self.repeats

    def add(self, array: pa.Array) -> None:
        """Add a batch of the column's type."""
        self.nulls += array.null_count
        present = array.drop_null()
        if not len(present):
            return
        self._values += len(present)
        extremes = pc.min_max(present).as_py()
        self.minimum = extremes["min"] if self.minimum is None else min(self.minimum, extremes["min"])
        self.maximum = extremes["max"] if self.maximum is None else max(self.maximum, extremes["max"])
        if self._type is DataType.DOUBLE and self.decimals is not None:
            self.decimals = learned_decimals(present.to_numpy(), self.decimals)
        if self._exact or not self.repeats:
            distinct = present.unique()
            self.repeats = self.repeats or len(distinct) < len(present)
            if self._exact:
                self._count(distinct)

    def _count(self, distinct: pa.Array) -> None:
        if self._distinct is not None:
            distinct = pa.concat_arrays([self._distinct, distinct]).unique()
        self.repeats = self.repeats or len(distinct) < self._values
        self._exact = len(distinct) <= MAX_DISTINCT
        self._distinct = distinct if self._exact else distinct.slice(0, 0)

    @property
    def distinct(self) -> tuple[int, bool]:
        """Number of distinct values, and whether that is exact, not only a lower bound."""
        if not self._exact:
            return MAX_DISTINCT + 1, False
        return 0 if self._distinct is None else len(self._distinct), True

    def to_json(self) -> dict[str, Any]:
        """Return the profile as JSON values; ``distinct`` is a lower bound if ``distinct_exact`` is false."""
        distinct, exact = self.distinct
        body: dict[str, Any] = {"nulls": self.nulls, "distinct": distinct, "distinct_exact": exact}
        for name, cell in (("minimum", self.minimum), ("maximum", self.maximum)):
            # A truncated text would not be an extreme, so long texts are left out.
            if cell is not None and not (isinstance(cell, str) and len(cell) > _MAX_TEXT):
                body[name] = cell_text(cell)
        return body
