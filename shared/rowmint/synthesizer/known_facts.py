"""What a known cell of a row is to its column's codec: a choice, or positions of a number."""

from dataclasses import dataclass

from rowmint.codecs import CategoryCodec, NumericCodec, Preimage
from rowmint.codecs.category import WEIGHT_ONE
from rowmint.schema import Cell
from rowmint.schema.arrays import native_number
from rowmint.synthesizer.heads import ColumnHead


@dataclass(frozen=True)
class KnownChoice:
    """A known category, or a cell that is known to be missing.

    Attributes:
        choice: Its choice; None where the column can never be so.
        share: Its share of that choice, above 0 to 1: of the rare categories, which have one choice together.
    """

    choice: int | None
    share: float

    moved = False


KnownFact = KnownChoice | Preimage
"""What a known cell is to its column's codec."""


def known_fact(head: ColumnHead, cell: Cell) -> KnownFact:
    """Return what a valid cell of a column is to its codec."""
    codec = head.codec
    if cell is None:
        return KnownChoice(codec.choices - 1 if codec.nullable else None, 1.0)
    if isinstance(codec, NumericCodec):
        return codec.preimage(native_number(cell, head.column))
    return _known_category(codec, head.column.domain.categories.index(cell))


def _known_category(codec: CategoryCodec, code: int) -> KnownChoice:
    if code < codec.frequent:
        return KnownChoice(code, 1.0)
    weight = int(codec.rare_weights[code - codec.frequent])
    return KnownChoice(codec.frequent if weight else None, weight / WEIGHT_ONE)
