"""Ids and keys: never learned, generated, unique within a seed with no coordination.

The id of row i is the element of rank F(i) of a finite language, where F is a permutation of [0, M) keyed by (model,
column, seed): a balanced Feistel network on the next even number of bits, walked until it lands below M (Black and
Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002). A bijection cannot repeat, so no replica needs to ask
another. Row numbers are not permuted: their ids follow one another; nor are ids past those of the width found, which
only long streams need. Where cells may be missing, a keyed hash of the row decides which are.
"""

import hashlib
import itertools
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs import entry
from rowmint.errors import RowRangeError
from rowmint.lazy import lazy
from rowmint.schema import INT64_MAX, INT64_MIN, ColumnKind, ColumnSpec, DataType
from rowmint.schema.arrays import ColumnArray
from rowmint.schema.forms.id_pattern import GOLDEN, MAX_IDS, parse_id_pattern

_ROUNDS = 6
_SEQUENTIAL = "sequential"
MISSING_ONE = 1 << 32
"""The share of missing cells that is all of them."""


def mixed_words(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return 64-bit words well mixed, as `rowmint.schema.forms.id_pattern.mixed`; products wrap at 2**64."""
    mixed = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


@dataclass(frozen=True)
class Permutation:
    """A keyed permutation of [0, size).

    Attributes:
        size: 1 to 2**62.
        key: 16 bytes.
    """

    size: int
    key: bytes

    @lazy
    def _half_bits(self) -> int:
        return max(1, ((self.size - 1).bit_length() + 1) // 2)

    @lazy
    def _round_keys(self) -> NDArray[np.uint64]:
        material = hashlib.sha256(self.key + b"feistel").digest() + hashlib.sha256(self.key + b"rounds").digest()
        return np.frombuffer(material, "<u8")[:_ROUNDS].astype(np.uint64)

    def __call__(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the image of each of `index`, shape (n,), values 0 to size - 1."""
        value = self._once(index.astype(np.uint64))
        # At most three of four values lie above `size`, so each walk ends after a few steps.
        outside = np.flatnonzero(value >= np.uint64(self.size))
        while len(outside):
            walked = self._once(value[outside])
            value[outside] = walked
            outside = outside[walked >= np.uint64(self.size)]
        return value.astype(np.int64)

    def _once(self, value: NDArray[np.uint64]) -> NDArray[np.uint64]:
        bits = np.uint64(self._half_bits)
        mask = np.uint64((1 << self._half_bits) - 1)
        left, right = value >> bits, value & mask
        for key in self._round_keys:
            left, right = right, left ^ (mixed_words(right + key) & mask)
        return (left << bits) | right


@dataclass(frozen=True)
class IdentityCodec:
    """Row indices to ids.

    Attributes:
        integral: Whether ids are int64; else they are text.
        base: Smallest integer id; for texts in order the rank of the first, else 0.
        size: Number of ids, M.
        pattern: Pattern of a text id; empty for an integer.
        sequential: Whether the ids of rows 0, 1, 2, ... follow one another, rather than being permuted.
        missing: Share of cells that are missing, in 1 / `MISSING_ONE`.
        first: How many ids are permuted among one another, by the first rows: those of the width found. The rows after
            them take the ids after them, in order. 0 for all.
    """

    integral: bool
    base: int
    size: int
    pattern: str
    sequential: bool = False
    missing: int = 0
    first: int = 0

    scalar = False
    choices = 0

    @property
    def plain(self) -> bool:
        """Whether the ids are those of one length, permuted, none of them missing, no position free."""
        if self.sequential or self.missing or self.first:
            return False
        if self.integral:
            return True
        language = parse_id_pattern(self.pattern)
        return len(language.layouts) == 1 and not language.free

    def wider_pattern(self, rows: int) -> str:
        """Return a pattern that describes at least `rows` ids, like this one's but wider."""
        if self.integral:
            return f"[1-9][0-9]{{{len(str(rows))}}}"
        return f"{self.pattern}[0-9]{{{len(str(rows // self.size))}}}"

    def cells(self, start: int, count: int, key: bytes) -> ColumnArray:
        """Return the ids of rows `start` to `start + count - 1`: integers, or ranks of texts; shape (count,).

        Args:
            start: First row index.
            count: Rows.
            key: 16 bytes, from `identity_key`.

        Raises:
            RowRangeError: A row index is not below `size`.
        """
        values = self.values(start, count, key)
        if not self.missing:
            return ColumnArray(values)
        material = hashlib.sha256(key + b"missing").digest()
        offset = np.frombuffer(material, "<u8")[0]
        rows = np.arange(start, start + count, dtype=np.uint64) * np.uint64(GOLDEN)
        valid = (mixed_words(rows + offset) >> np.uint64(32)) >= np.uint64(self.missing)
        return ColumnArray(np.where(valid, values, np.int64(0)), valid)

    def values(self, start: int, count: int, key: bytes) -> NDArray[np.int64]:
        """Return what `cells` does, for missing cells the ids they would have."""
        if start + count > self.size:
            raise RowRangeError(
                f"row {start + count - 1} has no id: the id's language has {self.size} elements; request fewer rows or"
                " declare a wider id_pattern",
                metadata={"size": str(self.size)},
            )
        rows = np.arange(start, start + count, dtype=np.int64)
        permuted = 0 if self.sequential else max(0, min(count, (self.first or self.size) - start))
        ranks = rows
        if permuted:
            ranks = np.concatenate([Permutation(self.first or self.size, key)(rows[:permuted]), rows[permuted:]])
        return ranks + np.int64(self.base) if self.integral or self.sequential else ranks

    def texts(self, ranks: NDArray[np.int64]) -> list[str]:
        """Return the text of each rank, in order."""
        layouts = self._layouts
        if len(layouts) == 1:
            return layouts[0].texts(ranks)
        found = np.empty(len(ranks), object)
        lengths = np.searchsorted(self._starts, ranks, side="right") - 1
        for length in np.unique(lengths):
            chosen = np.flatnonzero(lengths == length)
            found[chosen] = layouts[length].texts(ranks[chosen] - self._starts[length])
        texts: list[str] = found.tolist()
        return texts

    @lazy
    def _starts(self) -> NDArray[np.int64]:
        return np.cumsum([0, *parse_id_pattern(self.pattern).sizes[:-1]], dtype=np.int64)

    @lazy
    def _layouts(self) -> list["_Layout"]:
        language = parse_id_pattern(self.pattern)
        starts = itertools.accumulate((0, *language.sizes[:-1]))
        return [
            _Layout([np.array(list(alphabet), "U1") for alphabet in layout], language.free, start)
            for layout, start in zip(language.layouts, starts, strict=True)
        ]

    def to_manifest(self) -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
        """Return the JSON entry and the arrays that `load` reads."""
        body: dict[str, Any] = {
            "codec": "identity",
            "base": str(self.base),
            "size": str(self.size),
            "pattern": self.pattern,
        }
        if self.sequential:
            body["order"] = _SEQUENTIAL
        if self.missing:
            body["missing"] = self.missing
        if self.first:
            body["first"] = str(self.first)
        return body, {}

    @classmethod
    def load(cls, column: ColumnSpec, body: Mapping[str, Any], _: Mapping[str, NDArray[np.generic]]) -> Self:
        """Return the codec that `to_manifest` wrote."""
        if column.kind is not ColumnKind.ID:
            raise ValueError(f"a {column.kind} column has no ids")
        base, size = entry.long_whole(body, "base"), entry.long_whole(body, "size")
        missing = entry.whole(body, "missing") if "missing" in body else 0
        if body.get("order", _SEQUENTIAL) != _SEQUENTIAL:
            raise ValueError(f"its order is {body['order']!r}")
        first = entry.long_whole(body, "first") if "first" in body else 0
        integral = column.data_type is DataType.INT64
        codec = cls(integral, base, size, entry.text(body, "pattern"), "order" in body, missing, first)
        if not 1 <= codec.size <= MAX_IDS or (not codec.integral and not codec.pattern):
            raise ValueError("its size or pattern is out of range")
        if not 0 <= missing <= MISSING_ONE or (missing and not column.nullable):
            raise ValueError("its share of missing cells is out of range, or the column has none")
        if codec.integral and not INT64_MIN <= codec.base <= INT64_MAX - codec.size + 1:
            raise ValueError("its ids leave the range of int64")
        if not 0 <= first <= size or (first and codec.sequential):
            raise ValueError("the number of its permuted ids is out of range")
        least = codec.base if codec.sequential else 0
        if not codec.integral and not 0 <= least <= parse_id_pattern(codec.pattern).size - codec.size:
            raise ValueError("its pattern describes fewer texts than it has ids")
        return codec


class _Layout:
    """Writes the ids of one length.

    Args:
        alphabets: The characters of each position.
        free: Positions, from the first on, that follow from the rank.
        start: Rank, in the whole language, of the first id of this length.
    """

    def __init__(self, alphabets: list[NDArray[np.str_]], free: int, start: int) -> None:
        self._alphabets = alphabets
        self._free = min(free, len(alphabets))
        self._start = np.uint64(start)

    def texts(self, ranks: NDArray[np.int64]) -> list[str]:
        """Return the text of each rank among this length's."""
        width = len(self._alphabets)
        letters = np.empty((len(ranks), width), "U1")
        rest = ranks.copy()
        for position in range(width - 1, self._free - 1, -1):
            alphabet = self._alphabets[position]
            rest, digit = np.divmod(rest, len(alphabet))
            letters[:, position] = alphabet[digit]
        half = np.uint64(32)
        words = ranks.astype(np.uint64) + self._start
        for position in range(self._free):
            alphabet = self._alphabets[position]
            mixed = mixed_words(words + np.uint64((position + 1) * GOLDEN & (1 << 64) - 1)) >> half
            letters[:, position] = alphabet[(mixed * np.uint64(len(alphabet))) >> half]
        joined: list[str] = letters.view(f"U{width}").ravel().tolist()
        return joined


def identity_key(model_digest: bytes, table: str, column: str, seed: int) -> bytes:
    """Return the 16 bytes that key the ids of a column; the plan has no part in it."""
    body = b"rowmint/ids/1\0" + model_digest + struct.pack(">Q", seed) + f"{table}\0{column}".encode()
    return hashlib.sha256(body).digest()[:16]
