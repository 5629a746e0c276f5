"""Options of encoding and export: plain values, of which no default depends on a family."""

from dataclasses import dataclass
from enum import StrEnum

from rowmint.schema import ColumnKind

PREFIX = "training_job.config"
"""Where these options stand in a request; errors name it."""

MAX_CATEGORIES = 200
"""Values a categorical column's model chooses between, where no override says otherwise."""
MAX_MODES = 10
"""Modes of an ordered column's normalisation, where no override says otherwise."""


class HighCardinality(StrEnum):
    """What happens to a categorical column of more values than the model chooses between."""

    TAIL = "tail"
    OTHER = "other"
    REFUSE = "refuse"


@dataclass(frozen=True)
class Pieces:
    """How an ordered column is cut into pieces of equal mass, in each of which it is uniform.

    Attributes:
        most: Most pieces.
        values: Distinct values up to which each is a point of its own.
        rows: Rows of a piece, at least.
        rows_per_value: Rows that each value must have, on average, where all are to be points.
    """

    most: int
    values: int
    rows: int = 1
    rows_per_value: int = 0


@dataclass(frozen=True)
class ColumnOverride:
    """How one column is fitted; None where nothing was set.

    Attributes:
        column: Name of the column.
        kind: What the column means; None as in the dataset.
        high_cardinality: What happens to more values than `max_categories`; None for `HighCardinality.TAIL`.
        max_categories: Values the model chooses between, 1 to 4,096; None for `EncodingOptions.max_categories`.
        min_category_count: Values of fewer rows are folded into "other", 1 or more; None for 2 under
            `HighCardinality.OTHER`, so that no value of a single row is published, else for 1.
        max_modes: Modes of an ordered column, 1 to 100; None for `EncodingOptions.max_modes`.
    """

    column: str
    kind: ColumnKind | None = None
    high_cardinality: HighCardinality | None = None
    max_categories: int | None = None
    min_category_count: int | None = None
    max_modes: int | None = None

    @property
    def least_count(self) -> int:
        """Rows that a value must occur in so as not to be folded into "other"."""
        if self.min_category_count is not None:
            return self.min_category_count
        return 2 if self.high_cardinality is HighCardinality.OTHER else 1


@dataclass(frozen=True)
class EncodingOptions:
    """How a table becomes codes.

    Attributes:
        seed: Seed of the sample of rows and of the draws between overlapping modes, 0 to 2**64 - 1.
        pieces: How ordered columns are cut into pieces; None for a Gaussian mixture. The family decides.
        max_categories: Values of a categorical column that are choices of their own, 1 to 4,096.
        max_modes: Modes of an ordered column, 1 to 100.
        held_out_rows: Most rows kept out of training that are encoded, for probes.
        overrides: At most one a column.
    """

    seed: int
    pieces: Pieces | None = None
    max_categories: int = MAX_CATEGORIES
    max_modes: int = MAX_MODES
    held_out_rows: int = 4096
    overrides: tuple[ColumnOverride, ...] = ()

    def override(self, column: str) -> ColumnOverride:
        """Return the override of `column`; one that sets nothing where there is none."""
        found = (override for override in self.overrides if override.column == column)
        return next(found, ColumnOverride(column))


@dataclass(frozen=True)
class ExportOptions:
    """How a float network becomes exact integers.

    Attributes:
        calibration_rows: Rows that scales and marginals are measured on, 1 or more.
        temperatures: Temperatures of the categorical draws that are tried, each above 0, at least one.
        temperature_rows: Rows that each temperature is tried on, 1 to `calibration_rows`.
    """

    calibration_rows: int = 32_768
    temperatures: tuple[float, ...] = (1.0, 0.8, 0.6, 0.4, 0.3)
    temperature_rows: int = 8192
