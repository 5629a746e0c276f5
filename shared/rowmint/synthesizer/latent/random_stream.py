"""The random draws of rows, keyed by tile, purpose and column."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rowmint.rng import TileKey
from rowmint.synthesizer.heads import ColumnHead


@dataclass(frozen=True)
class RandomStream:
    """The random draws of some rows, by purpose and column.

    Attributes:
        key: Keys them.
        size: Rows that draws are made for.
        index: Which of them are wanted, ascending; None for all.
    """

    key: TileKey
    size: int
    index: NDArray[np.intp] | None

    def at(self, rows: NDArray[np.intp]) -> "RandomStream":
        """Return the draws of some of these rows."""
        return RandomStream(self.key, self.size, rows if self.index is None else self.index[rows])

    def choices(self, head: ColumnHead) -> NDArray[np.uint32]:
        """Return the words that draw a column's choices, shape (n,)."""
        words = head.choice_words(self.key, self.size)
        return words if self.index is None else words[self.index]

    def rare_categories(self, head: ColumnHead) -> NDArray[np.uint64] | None:
        """Return the words that draw its rare categories, shape (n,), or None where none are needed."""
        words = head.rare_category_words(self.key, self.size)
        return words if words is None or self.index is None else words[self.index]

    def noise(self, head: ColumnHead) -> NDArray[np.uint16]:
        """Return the words of the Gaussian noise on its scalar, shape (n,)."""
        words = self.key.words16(f"alpha:{head.index}", self.size)
        return words if self.index is None else words[self.index]
