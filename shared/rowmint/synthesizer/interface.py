"""What every family of synthesizer offers: candidates in tiles, forward only, exact arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from rowmint.columns import ColumnArray
from rowmint.conditions import ColumnCondition
from rowmint.rng import TileKey
from rowmint.schema import Cell, TableSchema


class ConditionSupport(StrEnum):
    """Which conditions a family meets by itself; all others are met by testing candidates."""

    NONE = "none"
    ONE_CATEGORY = "one category"
    ANY_SUBSET = "any subset"


@dataclass(frozen=True)
class Tile:
    """The accepted candidates of one tile, in candidate order.

    Attributes:
        candidates: Candidates drawn.
        accepted: Candidates that satisfied every condition, n.
        columns: The asked columns of the accepted candidates, n cells each.
    """

    candidates: int
    accepted: int
    columns: dict[str, ColumnArray]


@dataclass(frozen=True)
class Completion:
    """One completed row.

    Attributes:
        cells: Every modelled column's cell by name.
        effective_sample_size: Kish's effective number of candidates, (sum w)**2 / sum w**2, of the draw.
        tolerance: Kernel width used for known numbers, in standard deviations.
    """

    cells: dict[str, Cell]
    effective_sample_size: float
    tolerance: float


class TileQuery(Protocol):
    """Conditions and columns made ready for drawing. Immutable, thread-safe."""

    def tile(self, key: TileKey, size: int) -> Tile:
        """Draw `size` candidates and keep those that satisfy the conditions: a pure function of the arguments."""
        ...


class Completer(Protocol):
    """Candidates that partial rows are compared with. Immutable, thread-safe."""

    def complete(self, known: dict[str, Cell], key: TileKey) -> Completion:
        """Complete one row whose cells `known` are given and validated; other draws are keyed by `key`."""
        ...


class Synthesizer(Protocol):
    """A fitted generative model. Immutable, thread-safe.

    Attributes:
        schema: Shape of the rows, ids included; ids are not the synthesizer's to make.
        support: Conditions the family meets by itself.
    """

    schema: TableSchema
    support: ConditionSupport

    def query(self, conditions: Sequence[ColumnCondition], columns: Sequence[str]) -> TileQuery:
        """Make ready to draw `columns` (modelled ones) of rows that satisfy `conditions` (canonical)."""
        ...

    def driving_column(self, conditions: Sequence[ColumnCondition]) -> str:
        """Return the column whose category is asked of the network under `conditions`, or an empty string."""
        ...

    def completer(self, key: TileKey, candidates: int, tolerance: float) -> Completer:
        """Draw the candidates, keyed by `key`, that partial rows are completed from.

        Args:
            key: Keys the candidates.
            candidates: Candidates drawn, n.
            tolerance: Kernel width for known numbers, in standard deviations of the column's normalised values.
        """
        ...
