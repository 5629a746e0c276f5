"""The condition vectors that drive CTGAN's generator (arXiv:1907.00503, section 4.3)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs.category import draw_weighted, sum_to_one
from rowmint.errors import DataLossError
from rowmint.lazy import lazy
from rowmint.rng import TileKey
from rowmint.synthesizer.heads import ColumnHead


@dataclass(frozen=True)
class ConditionVectors:
    """The condition vectors of CTGAN: each sets one column to one of its choices.

    Attributes:
        column: Position in the schema of each condition's column, shape (c,).
        choice: The choice that it sets, shape (c,).
        weights: How often it is drawn, integers of sum 2**32, shape (c,).
    """

    column: NDArray[np.intp]
    choice: NDArray[np.intp]
    weights: NDArray[np.uint64]

    def validate(self, heads: Mapping[str, ColumnHead], conditions: int) -> None:
        """Check that they fit `heads` and a network made for so many `conditions`.

        Raises:
            DataLossError: They do not.
        """
        choices = {head.index: head.codec.choices for head in heads.values()}
        if not self.column.shape == self.choice.shape == self.weights.shape == (conditions,):
            raise DataLossError(
                f"the model has condition vectors of shapes {self.column.shape}, {self.choice.shape} and"
                f" {self.weights.shape}; its network is made for {conditions}"
            )
        pairs = zip(self.column.tolist(), self.choice.tolist(), strict=True)
        if not all(0 <= choice < choices.get(column, 0) for column, choice in pairs):
            raise DataLossError("a condition vector of the model sets a choice that its column does not have")
        if not sum_to_one(self.weights):
            raise DataLossError("the weights of the model's condition vectors do not sum to one")

    def draw(self, key: TileKey, size: int) -> NDArray[np.intp]:
        """Return the condition vector of each candidate, shape (size,)."""
        return draw_weighted(self._cumulative, key.words32("driver", size).astype(np.uint64))

    @lazy
    def _cumulative(self) -> NDArray[np.uint64]:
        return np.cumsum(self.weights, dtype=np.uint64)
