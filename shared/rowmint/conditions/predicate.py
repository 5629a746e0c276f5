"""Predicates: tests of one column each, as a caller gives them."""

from dataclasses import dataclass

from rowmint.schema import Cell

MAX_PREDICATES = 64
"""Predicates of one condition."""
MAX_VALUES = 10_000
"""Values of one `AnyOf` or `NoneOf`."""


@dataclass(frozen=True)
class AnyOf:
    """The cell equals one of `values`; None among them means a missing cell."""

    values: tuple[Cell, ...]


@dataclass(frozen=True)
class NoneOf:
    """The cell is present and equals none of `values`; None among them changes nothing."""

    values: tuple[Cell, ...]


@dataclass(frozen=True)
class Range:
    """The cell is present and lies between two bounds; None means no bound."""

    minimum: Cell = None
    maximum: Cell = None
    minimum_exclusive: bool = False
    maximum_exclusive: bool = False


@dataclass(frozen=True)
class IsNull:
    """The cell is missing (`null` True) or present."""

    null: bool = True


Test = AnyOf | NoneOf | Range | IsNull


@dataclass(frozen=True)
class Predicate:
    """One test of one column."""

    column: str
    test: Test
