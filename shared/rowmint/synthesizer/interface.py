"""What every family of synthesizer offers: candidates in tiles, forward only, exact arithmetic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rowmint.conditions import ColumnCondition
from rowmint.rng import TileKey
from rowmint.schema import Cell, TableSchema
from rowmint.schema.arrays import ColumnArray, concatenate


class ConditionSupport(StrEnum):
    """Which conditions a family meets by itself; all others are met by testing candidates."""

    NONE = "none"
    ONE_CATEGORY = "one category"
    ANY_SUBSET = "any subset"


@dataclass(frozen=True)
class Candidates:
    """Candidates that satisfied every condition, before their untested columns are made.

    Attributes:
        size: How many, n.
        latents: What the untested columns are made from, by name; n along the first axis of each.
        cells: The tested columns, n cells each.
    """

    size: int
    latents: Mapping[str, NDArray[np.generic]]
    cells: Mapping[str, ColumnArray]

    def first(self, count: int) -> "Candidates":
        """Return the first `count` of them."""
        if count >= self.size:
            return self
        return Candidates(
            count,
            {name: array[:count] for name, array in self.latents.items()},
            {name: cells.take(slice(0, count)) for name, cells in self.cells.items()},
        )

    @property
    def size_bytes(self) -> int:
        """Bytes of the arrays."""
        cells = sum(array.values.nbytes + (0 if array.valid is None else len(array)) for array in self.cells.values())
        return cells + sum(array.nbytes for array in self.latents.values())


def join(parts: Sequence[Candidates]) -> Candidates:
    """Join candidates of one query, in order; at least one part."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    return Candidates(
        sum(part.size for part in parts),
        {name: np.concatenate([part.latents[name] for part in parts]) for name in first.latents},
        {name: concatenate([part.cells[name] for part in parts]) for name in first.cells},
    )


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

    def candidates(self, key: TileKey, size: int) -> Candidates:
        """Draw `size` candidates and keep those that satisfy the conditions: a pure function of the arguments."""
        ...

    def columns(self, found: Candidates, key: TileKey) -> dict[str, ColumnArray]:
        """Make the asked columns of candidates that this query found, in the order asked.

        Given a candidate, its tested cells included, its untested columns are random still: drawn with another key they
        are other rows, each distributed as any row that satisfies the conditions. Row j depends on row j of `found`,
        `key` and j alone.
        """
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

    def conditioned_column(self, conditions: Sequence[ColumnCondition]) -> str:
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
