"""Categorical columns: a choice for each frequent value, one for all rare ones together, one for missing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs import entry
from rowmint.lazy import lazy
from rowmint.schema import ColumnSpec
from rowmint.schema.arrays import ColumnArray, is_coded

WEIGHT_ONE = 1 << 32
"""The sum of a table of integer weights."""


def integer_weights(counts: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Return `counts` scaled to integers that sum to `WEIGHT_ONE`, shape (n,); every positive count gets at least 1.

    Args:
        counts: Non-negative, at least one positive, shape (n,).
    """
    counts = np.asarray(counts, np.float64)
    positive = (counts > 0).astype(np.uint64)
    # One for each positive count, the rest by the running share, whose last is exactly 1: no residue to place, however
    # many or uneven the counts are.
    running = np.cumsum(counts)
    shared = WEIGHT_ONE - int(positive.sum())
    bounds = np.floor(running / running[-1] * shared).astype(np.uint64)
    weights: NDArray[np.uint64] = positive + np.diff(bounds, prepend=np.uint64(0))
    return weights


def sum_to_one(weights: NDArray[np.generic]) -> bool:
    """Say whether these are integer weights, uint64, of sum `WEIGHT_ONE`."""
    if weights.dtype != np.uint64 or weights.max(initial=np.uint64(0)) > WEIGHT_ONE:
        return False  # a sum of greater ones may wrap at 2**64
    return int(weights.sum(dtype=np.uint64)) == WEIGHT_ONE


def draw_weighted(cumulative: NDArray[np.uint64], words: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return an index for each 32-bit word, by weight; exact.

    Args:
        cumulative: Running sum of integer weights, its last entry the total, at most 2**32; shape (n,).
        words: 32-bit words, shape (m,).

    Returns:
        Shape (m,), 0 to n - 1.
    """
    total = cumulative[-1]
    index: NDArray[np.intp] = np.searchsorted(cumulative, (words * total) >> np.uint64(32), side="right")
    return index


@dataclass(frozen=True)
class CategoryCodec:
    """Codes of categories (-1 missing) to choices and back.

    Choices: 0 to frequent - 1 are the first `frequent` categories; then, where there are more, one for all the others;
    then, where the column is nullable, one for missing.

    Attributes:
        size: Categories in all.
        frequent: Categories with a choice of their own.
        nullable: Whether there is a choice for missing.
        rare_weights: uint64 weights of categories frequent to size - 1 among themselves, sum `WEIGHT_ONE`, shape
            (size - frequent,).
    """

    size: int
    frequent: int
    nullable: bool
    rare_weights: NDArray[np.uint64]

    scalar = False

    @property
    def choices(self) -> int:
        """Number of choices, at least 1."""
        return self.frequent + (self.size > self.frequent) + self.nullable

    def encode(self, column: ColumnArray) -> tuple[NDArray[np.int32], None]:
        """Return the choice of each code, shape (n,)."""
        codes = column.values.astype(np.int32)
        choices = np.minimum(codes, self.frequent)
        return np.where(codes < 0, self.choices - 1, choices).astype(np.int32), None

    def decode(self, choices: NDArray[np.integer], words: NDArray[np.uint64]) -> ColumnArray:
        """Return the code of each choice.

        Args:
            choices: Shape (n,).
            words: 32-bit words that choose among the rare categories, shape (n,); unused where there are none.

        Returns:
            Codes, shape (n,).
        """
        codes = choices.astype(np.int32)
        if self.nullable:
            codes[choices == self.choices - 1] = -1
        if self.size > self.frequent:
            rare = np.flatnonzero(codes == self.frequent)
            codes[rare] = self.frequent + draw_weighted(self._cumulative, words[rare])
        return ColumnArray(codes)

    @lazy
    def _cumulative(self) -> NDArray[np.uint64]:
        return np.cumsum(self.rare_weights, dtype=np.uint64)

    @property
    def draws_rare(self) -> bool:
        """Whether `decode` draws rare categories."""
        return self.size > self.frequent

    def compatible_choices(self, codes: tuple[int, ...], null: bool) -> NDArray[np.bool_]:
        """Return the choices that can decode to one of `codes`, or to missing where `null`; shape (choices,)."""
        allowed = np.zeros(self.choices, np.bool_)
        allowed[[min(code, self.frequent) for code in codes]] = True
        if self.nullable:
            allowed[-1] = null
        return allowed

    def to_manifest(self) -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
        """Return the JSON entry and the arrays that `load` reads."""
        body = {"codec": "category", "size": self.size, "head": self.frequent, "nullable": self.nullable}
        return body, {"tail": self.rare_weights}

    @classmethod
    def load(cls, column: ColumnSpec, body: Mapping[str, Any], arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Return the codec that `to_manifest` wrote."""
        if not is_coded(column):
            raise ValueError(f"a {column.kind} column has no categories")
        size, frequent = entry.whole(body, "size"), entry.whole(body, "head")
        weights = entry.array(arrays, "tail", np.uint64)
        if not 0 <= frequent <= size or weights.shape != (size - frequent,):
            raise ValueError(
                f"{frequent} of {size} categories are frequent, with rare weights of shape {weights.shape}"
            )
        if size != len(column.domain.categories):
            raise ValueError(f"{size} categories where the column has {len(column.domain.categories)}")
        if size > frequent and not sum_to_one(weights):
            raise ValueError("its rare weights do not sum to one")
        codec = cls(size, frequent, entry.flag(body, "nullable"), weights)
        if codec.choices < 1:
            raise ValueError("it has no choice")
        return codec
