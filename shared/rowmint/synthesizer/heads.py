"""The modelled columns of a model: where each stands among the outputs, and how its cells are made."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs import CategoryCodec, IdentityCodec, NumericCodec
from rowmint.codecs.shares import ChoiceShares, choice_shares
from rowmint.conditions import ColumnCondition
from rowmint.rng import TileKey
from rowmint.schema import ColumnSpec
from rowmint.schema.arrays import ColumnArray


@dataclass(frozen=True)
class ColumnHead:
    """Where a modelled column stands in the output layer, and how it is decoded.

    Attributes:
        index: Position of the column in the schema; part of its random words' purpose.
        column: The column.
        codec: Its codec.
        start: First output of the column: the scalar's, where it has one, then one a choice.
    """

    index: int
    column: ColumnSpec
    codec: CategoryCodec | NumericCodec
    start: int

    @property
    def stop(self) -> int:
        """The output after the column's last."""
        return self.start + self.codec.scalar + self.codec.choices

    def rare_category_words(self, key: TileKey, count: int) -> NDArray[np.uint64] | None:
        """Return the words that draw rare categories, shape (count,), or None where none are needed."""
        return key.words32(f"tail:{self.index}", count).astype(np.uint64) if self.codec.draws_rare else None

    def choice_words(self, key: TileKey, count: int) -> NDArray[np.uint32]:
        """Return the words that draw the choices, shape (count,)."""
        return key.words32(f"slot:{self.index}", count)

    def decode(
        self, choices: NDArray[np.integer], alpha: NDArray[np.int64] | None, words: NDArray[np.uint64] | None
    ) -> ColumnArray:
        """Return the cells of `choices`, shape (n,); see the codecs for `alpha` and `words`."""
        if isinstance(self.codec, NumericCodec):
            return self.codec.decode(choices, alpha)
        return self.codec.decode(choices, np.zeros(len(choices), np.uint64) if words is None else words)

    def reachable(self, condition: ColumnCondition) -> NDArray[np.bool_]:
        """Return which choices can decode to a cell that satisfies `condition`, shape (choices,)."""
        if isinstance(self.codec, NumericCodec):
            spans = [(float(span.lower), float(span.upper)) for span in condition.intervals or ()]
            return self.codec.reachable_choices(spans, condition.null)
        return self.codec.compatible_choices(condition.codes or (), condition.null)

    def shares(self, condition: ColumnCondition) -> ChoiceShares:
        """Return the share of each choice that satisfies `condition`, and what draws within it."""
        return choice_shares(self.codec, condition)


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
        start = head.stop
    return heads
