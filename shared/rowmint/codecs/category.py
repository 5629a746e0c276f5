"""Categorical columns: a slot for each common value, one for all rare ones together, one for missing."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs import entry
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
    """Codes of categories (-1 missing) to slots and back.

    Slots: 0 to head - 1 are the first `head` categories; then, where there are more, one slot for all the others; then,
    where the column is nullable, one for missing.

    Attributes:
        size: Categories in all.
        head: Categories with a slot of their own.
        nullable: Whether there is a slot for missing.
        tail: uint64 weights of categories head to size - 1 among themselves, sum `WEIGHT_ONE`, shape (size - head,).
    """

    size: int
    head: int
    nullable: bool
    tail: NDArray[np.uint64]

    scalar = False

    @property
    def slots(self) -> int:
        """Number of slots, at least 1."""
        return self.head + (self.size > self.head) + self.nullable

    def encode(self, column: ColumnArray) -> tuple[NDArray[np.int32], None]:
        """Return the slot of each code, shape (n,)."""
        codes = column.values.astype(np.int32)
        slots = np.minimum(codes, self.head)
        return np.where(codes < 0, self.slots - 1, slots).astype(np.int32), None

    def decode(self, slots: NDArray[np.integer], words: NDArray[np.uint64]) -> ColumnArray:
        """Return the code of each slot.

        Args:
            slots: Shape (n,).
            words: 32-bit words that choose among the rare categories, shape (n,); unused where there are none.

        Returns:
            Codes, shape (n,).
        """
        codes = slots.astype(np.int32)
        if self.nullable:
            codes[slots == self.slots - 1] = -1
        if self.size > self.head:
            rare = np.flatnonzero(codes == self.head)
            codes[rare] = self.head + draw_weighted(self._cumulative, words[rare])
        return ColumnArray(codes)

    @cached_property
    def _cumulative(self) -> NDArray[np.uint64]:
        return np.cumsum(self.tail, dtype=np.uint64)

    @property
    def uses_words(self) -> bool:
        """Whether `decode` needs words."""
        return self.size > self.head

    def compatible_slots(self, codes: tuple[int, ...], null: bool) -> NDArray[np.bool_]:
        """Return the slots that can decode to one of `codes`, or to missing where `null`; shape (slots,)."""
        allowed = np.zeros(self.slots, np.bool_)
        allowed[[min(code, self.head) for code in codes]] = True
        if self.nullable:
            allowed[-1] = null
        return allowed

    def to_manifest(self) -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
        """Return the JSON entry and the arrays that `load` reads."""
        body = {"codec": "category", "size": self.size, "head": self.head, "nullable": self.nullable}
        return body, {"tail": self.tail}

    @classmethod
    def load(cls, column: ColumnSpec, body: Mapping[str, Any], arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Return the codec that `to_manifest` wrote."""
        if not is_coded(column):
            raise ValueError(f"a {column.kind} column has no categories")
        size, head, tail = entry.whole(body, "size"), entry.whole(body, "head"), entry.array(arrays, "tail", np.uint64)
        if not 0 <= head <= size or tail.shape != (size - head,):
            raise ValueError(f"{head} of {size} categories with {tail.shape} tail weights")
        if size != len(column.domain.categories):
            raise ValueError(f"{size} categories where the column has {len(column.domain.categories)}")
        if size > head and not sum_to_one(tail):
            raise ValueError("its tail weights do not sum to one")
        codec = cls(size, head, entry.flag(body, "nullable"), tail)
        if codec.slots < 1:
            raise ValueError("it has no slot")
        return codec
