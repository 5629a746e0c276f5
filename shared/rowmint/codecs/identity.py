"""Ids and keys: never learned, generated, unique within a seed with no coordination.

The id of row i is the element of rank F(i) of a finite language, where F is a permutation of [0, M) keyed by (model,
column, seed): a balanced Feistel network on the next even number of bits, walked until it lands below M (Black and
Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002). A bijection cannot repeat, so no replica needs to ask
another.
"""

import hashlib
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs import entry
from rowmint.errors import InvalidFieldError, RowRangeError
from rowmint.schema import INT64_MAX, INT64_MIN, ColumnKind, ColumnSpec, DataType

_ROUNDS = 6
_MAX_SIZE = 1 << 62
_MAX_WIDTH = 256
_MAX_PATTERN = 1024
_MAX_CLASS = 4096
_TOKEN = re.compile(r"\[([^\]\\]+)\]|\\(.)|([^\[\]{}\\])")
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_COUNT = re.compile(r"\{(\d{1,2})\}")


@dataclass(frozen=True)
class Permutation:
    """A keyed permutation of [0, size).

    Attributes:
        size: 1 to 2**62.
        key: 16 bytes.
    """

    size: int
    key: bytes

    @cached_property
    def _half_bits(self) -> int:
        return max(1, ((self.size - 1).bit_length() + 1) // 2)

    @cached_property
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
            # The mixer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014); products wrap at 2**64.
            mixed = right + key
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            mixed ^= mixed >> np.uint64(31)
            left, right = right, left ^ (mixed & mask)
        return (left << bits) | right


def _alphabet(body: str, field: str) -> str:
    letters: list[str] = []
    position = 0
    while position < len(body):
        if position + 2 < len(body) and body[position + 1] == "-":
            first, last = body[position], body[position + 2]
            if first > last:
                raise InvalidFieldError(field, f"class [{body}] runs backwards from {first!r} to {last!r}")
            if ord(last) - ord(first) >= _MAX_CLASS:
                raise InvalidFieldError(
                    field, f"class [{body}] has more than {_MAX_CLASS} characters from {first!r} on"
                )
            letters += [chr(code) for code in range(ord(first), ord(last) + 1)]
            position += 3
        else:
            letters.append(body[position])
            position += 1
    return "".join(dict.fromkeys(letters))


def parse_pattern(pattern: str, field: str = "id_pattern") -> tuple[str, ...]:
    r"""Return the alphabet of each position of a pattern: literals, `[a-z0-9]` classes, `{n}` counts, `\` escapes.

    Raises:
        InvalidFieldError: The pattern is malformed, or its language too small or too large; the error names `field`.
    """
    if len(pattern) > _MAX_PATTERN:
        raise InvalidFieldError(field, f"has {len(pattern)} characters; at most {_MAX_PATTERN}")
    positions: list[str] = []
    size = 1
    at = 0
    while at < len(pattern):
        token = _TOKEN.match(pattern, at)
        if token is None:
            raise InvalidFieldError(field, f"{pattern!r} cannot be read at {pattern[at:]!r}")
        alphabet = _alphabet(token[1], field) if token[1] else token[2] or token[3]
        if _NO_TEXT.search(alphabet):
            raise InvalidFieldError(field, f"{pattern!r} holds a character that texts cannot, U+0000 or a surrogate")
        at = token.end()
        count = _COUNT.match(pattern, at)
        if count is not None:
            at = count.end()
        repeat = int(count[1]) if count is not None else 1
        if repeat < 1:
            raise InvalidFieldError(field, f"{pattern!r} repeats something 0 times")
        positions += [alphabet] * repeat
        size *= len(alphabet) ** repeat
        # Checked as it is read: a pattern of many wide classes would take minutes to read to its end.
        if size > _MAX_SIZE:
            raise InvalidFieldError(field, f"{pattern!r} describes more than 2**62 texts; shorten it")
        if len(positions) > _MAX_WIDTH:
            break
    if len(positions) > _MAX_WIDTH or size < 2:
        raise InvalidFieldError(field, f"{pattern!r} must describe at least two texts of 1 to {_MAX_WIDTH} characters")
    return tuple(positions)


def language_size(pattern: str) -> int:
    """Return how many texts a pattern describes, 2 to 2**62; `InvalidFieldError` where it is malformed."""
    return math.prod(len(alphabet) for alphabet in parse_pattern(pattern))


@dataclass(frozen=True)
class IdentityCodec:
    """Row indices to ids.

    Attributes:
        integral: Whether ids are int64; else they are text.
        base: Smallest integer id; 0 for text.
        size: Number of ids, M.
        pattern: Pattern of a text id; empty for an integer.
    """

    integral: bool
    base: int
    size: int
    pattern: str

    scalar = False
    choices = 0

    def values(self, start: int, count: int, key: bytes) -> NDArray[np.int64]:
        """Return the ids of rows `start` to `start + count - 1`: integers, or ranks of texts; shape (count,).

        Args:
            start: First row index.
            count: Rows.
            key: 16 bytes, from `identity_key`.

        Raises:
            RowRangeError: A row index is not below `size`.
        """
        if start + count > self.size:
            raise RowRangeError(
                f"row {start + count - 1} has no id: the id's language has {self.size} elements; request fewer rows or"
                " declare a wider id_pattern",
                metadata={"size": str(self.size)},
            )
        ranks = Permutation(self.size, key)(np.arange(start, start + count, dtype=np.int64))
        return ranks + np.int64(self.base) if self.integral else ranks

    def texts(self, ranks: NDArray[np.int64]) -> list[str]:
        """Return the text of each rank, in order."""
        alphabets = self._alphabets
        width = len(alphabets)
        letters = np.empty((len(ranks), width), "U1")
        rest = ranks.copy()
        for position in range(width - 1, -1, -1):
            alphabet = alphabets[position]
            rest, digit = np.divmod(rest, len(alphabet))
            letters[:, position] = alphabet[digit]
        joined: list[str] = letters.view(f"U{width}").ravel().tolist()
        return joined

    @cached_property
    def _alphabets(self) -> list[NDArray[np.str_]]:
        return [np.array(list(alphabet), "U1") for alphabet in parse_pattern(self.pattern)]

    def to_manifest(self) -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
        """Return the JSON entry and the arrays that `load` reads."""
        body = {"codec": "identity", "base": str(self.base), "size": str(self.size), "pattern": self.pattern}
        return body, {}

    @classmethod
    def load(cls, column: ColumnSpec, body: Mapping[str, Any], _: Mapping[str, NDArray[np.generic]]) -> Self:
        """Return the codec that `to_manifest` wrote."""
        if column.kind is not ColumnKind.ID:
            raise ValueError(f"a {column.kind} column has no ids")
        base, size = entry.long_whole(body, "base"), entry.long_whole(body, "size")
        codec = cls(column.data_type is DataType.INT64, base, size, entry.text(body, "pattern"))
        if not 1 <= codec.size <= _MAX_SIZE or (not codec.integral and not codec.pattern):
            raise ValueError("its size or pattern is out of range")
        if codec.integral and not INT64_MIN <= codec.base <= INT64_MAX - codec.size + 1:
            raise ValueError("its ids leave the range of int64")
        if not codec.integral and codec.size > language_size(codec.pattern):
            raise ValueError("its pattern describes fewer texts than it has ids")
        return codec


def identity_key(model_digest: bytes, table: str, column: str, seed: int) -> bytes:
    """Return the 16 bytes that key the ids of a column; the plan has no part in it."""
    body = b"rowmint/ids/1\0" + model_digest + struct.pack(">Q", seed) + f"{table}\0{column}".encode()
    return hashlib.sha256(body).digest()[:16]
