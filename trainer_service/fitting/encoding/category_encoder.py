"""Categorical columns: from the counts of values to a codec, and the encoder that writes its codes."""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rowmint.codecs import CategoryCodec
from rowmint.codecs.category import integer_weights
from rowmint.errors import InvalidFieldError
from rowmint.schema import Cell, ColumnSpec, DataType, Domain, cell_text
from rowmint.schema.arrays import ColumnArray
from trainer_service.datasets.column_types import canonical_type
from trainer_service.fitting.encoding.fitted_column import FittedColumn
from trainer_service.fitting.encoding.summary import CategorySummary
from trainer_service.fitting.encoding.table import coded
from trainer_service.fitting.options import PREFIX, EncodingOptions, HighCardinality

OTHER = "other"
"""The explicit category of folded values; a real value of this text is one with it."""
MAX_RARE = 100_000
"""Rare values that are kept, drawn by their own frequencies."""


@dataclass(frozen=True)
class CategoryEncoder:
    """Writes the choices of a categorical column.

    Attributes:
        column: The column.
        codec: Its codec.
        known: Every value found, as Arrow values.
        codes: int32 code of each, shape (len(known),).
    """

    column: ColumnSpec
    codec: CategoryCodec
    known: pa.Array
    codes: NDArray[np.int32]

    def encode(self, array: pa.Array, _: np.random.Generator) -> tuple[NDArray[np.int64], None]:
        """Return the choice of each cell, shape (n,)."""
        found = pc.index_in(coded(array, self.column), value_set=self.known, skip_nulls=True)
        index = pc.fill_null(found, -1).to_numpy(zero_copy_only=False)
        codes = np.where(index < 0, -1, self.codes[index]) if len(self.codes) else np.full(len(index), -1)
        choices, _none = self.codec.encode(ColumnArray(codes.astype(np.int32)))
        return choices.astype(np.int64), None


def fit_category(column: ColumnSpec, summary: CategorySummary, options: EncodingOptions) -> FittedColumn:
    """Fit a categorical column: values by falling frequency, rare ones folded or drawn by their own frequencies.

    Args:
        column: The column.
        summary: What was found of it.
        options: How columns are encoded.

    Raises:
        InvalidFieldError: It has more values than it may.
    """
    override = options.override(column.name)
    limit = options.max_categories if override.max_categories is None else override.max_categories
    least = override.least_count
    policy = HighCardinality.TAIL if override.high_cardinality is None else override.high_cardinality
    counts: dict[Cell, int] = {}
    place: dict[Cell, Cell] = {}
    for value, count in summary.counts.items():
        place[value] = value if count >= least else OTHER
        counts[place[value]] = counts.get(place[value], 0) + count
    order = sorted(counts, key=lambda value: (-counts[value], cell_text(value)))
    if len(order) > limit and policy is HighCardinality.REFUSE:
        raise InvalidFieldError(
            f"{PREFIX}.column_overrides",
            f"column {column.name!r} has {len(order):,} values, the limit is {limit:,}; raise max_categories, choose"
            " another policy, or make the column an ID or IGNORED",
        )
    if len(order) > limit and policy is HighCardinality.OTHER:
        kept = order[:limit]
        rest = sum(counts[value] for value in order[limit:])
        counts = {value: counts[value] for value in kept}
        counts[OTHER] = counts.get(OTHER, 0) + rest
        place = {value: chosen if chosen in counts else OTHER for value, chosen in place.items()}
        order = sorted(counts, key=lambda value: (-counts[value], cell_text(value)))
        limit += 1
    frequent = min(len(order), limit)
    if len(order) - frequent > MAX_RARE:
        raise InvalidFieldError(
            f"{PREFIX}.column_overrides",
            f"column {column.name!r} has {len(order):,} values; at most {MAX_RARE:,} are kept: declare it ID or"
            " IGNORED, or fold the rare ones with HIGH_CARDINALITY_OTHER",
        )
    rare = np.array([counts[value] for value in order[frequent:]], np.float64)
    weights = integer_weights(rare) if len(rare) else np.zeros(0, np.uint64)
    codec = CategoryCodec(len(order), frequent, bool(summary.missing) or column.nullable or not order, weights)
    codes = {value: code for code, value in enumerate(order)}
    known = list(place)
    kept = canonical_type(column.data_type or DataType.STRING, column.domain.decimals, utc=bool(column.time_zone))
    encoder = CategoryEncoder(
        column,
        codec,
        pa.array(known, coded(pa.array([], kept), column).type),
        np.array([codes[place[value]] for value in known], np.int32),
    )
    domain = Domain(categories=tuple(order), decimals=column.domain.decimals, nullable=codec.nullable)
    return FittedColumn(replace(column, domain=domain), codec, encoder)
