"""From a column's outputs to its cells: the categorical draw and the scalar."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs import CategoryCodec, IdentityCodec, NumericCodec
from rowmint.columns import ColumnArray
from rowmint.conditions import ColumnCondition
from rowmint.rng import TileKey
from rowmint.schema import ColumnSpec
from rowmint.synthesizer import tables


@dataclass(frozen=True)
class ColumnHead:
    """Where a modelled column stands in the output layer, and how it is decoded.

    Attributes:
        index: Position of the column in the schema; part of its random words' purpose.
        column: The column.
        codec: Its codec.
        start: First output of the column: the scalar's, where it has one, then one a slot.
    """

    index: int
    column: ColumnSpec
    codec: CategoryCodec | NumericCodec
    start: int

    @property
    def span(self) -> slice:
        """Outputs of the column."""
        return slice(self.start, self.start + self.codec.scalar + self.codec.slots)

    def extra_words(self, key: TileKey, count: int) -> NDArray[np.uint64] | None:
        """Return the words that decode rare categories, shape (count,), or None where none are needed."""
        return key.words32(f"tail:{self.index}", count) if self.codec.uses_words else None

    def slot_words(self, key: TileKey, count: int) -> NDArray[np.uint64]:
        """Return the words that draw the slots, shape (count,)."""
        return key.words32(f"slot:{self.index}", count)

    def decode(
        self, slots: NDArray[np.intp], alpha: NDArray[np.int64] | None, words: NDArray[np.uint64] | None
    ) -> ColumnArray:
        """Return the cells of `slots`, shape (n,); see the codecs for `alpha` and `words`."""
        if isinstance(self.codec, NumericCodec):
            return self.codec.decode(slots, alpha)
        return self.codec.decode(slots, np.zeros(len(slots), np.uint64) if words is None else words)

    def reachable(self, condition: ColumnCondition) -> NDArray[np.bool_]:
        """Return which slots can decode to a cell that satisfies `condition`, shape (slots,)."""
        if isinstance(self.codec, NumericCodec):
            spans = [(float(span.lower), float(span.upper)) for span in condition.intervals or ()]
            return self.codec.reachable_slots(spans, condition.null)
        return self.codec.compatible_slots(condition.codes or (), condition.null)


def column_heads(
    columns: Sequence[ColumnSpec], codecs: Sequence[CategoryCodec | NumericCodec | IdentityCodec]
) -> dict[str, ColumnHead]:
    """Lay the modelled columns side by side in schema order; ids have no place in the network."""
    heads: dict[str, ColumnHead] = {}
    start = 0
    for index, (column, codec) in enumerate(zip(columns, codecs, strict=True)):
        if isinstance(codec, IdentityCodec):
            continue
        head = ColumnHead(index, column, codec, start)
        heads[column.name] = head
        start = head.span.stop
    return heads


def slot_masses(logits: NDArray[np.int32]) -> NDArray[np.uint32]:
    """Return integer masses proportional to exp(logit), at most `tables.EXP_ONE` each.

    Args:
        logits: Units of 1 / LOGIT_UNIT, shape (slots, n).

    Returns:
        Shape (slots, n); the largest of a column is EXP_ONE.
    """
    distance = logits.max(axis=0) - logits
    np.minimum(distance, 4095, out=distance)
    masses: NDArray[np.uint32] = tables.exponentials()[distance]
    return masses


def draw_slots(logits: NDArray[np.int32], words: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Draw one slot a column from softmax(logits), by the inverse of its distribution function, in integers.

    Args:
        logits: Units of 1 / LOGIT_UNIT, shape (slots, n).
        words: 32-bit words, shape (n,).

    Returns:
        Shape (n,), 0 to slots - 1.
    """
    cumulative = np.cumsum(slot_masses(logits), axis=0, dtype=np.uint32)
    threshold = ((words * cumulative[-1]) >> np.uint64(32)).astype(np.uint32)
    slots: NDArray[np.intp] = np.count_nonzero(cumulative <= threshold, axis=0)
    return slots
