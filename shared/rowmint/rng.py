"""Random words: raw 64-bit Philox4x64-10 output (Salmon et al., SC 2011), keyed by what they are for.

A word is a pure function of (domain, model digest, plan digest, seed, block, tile, purpose, index). There is no
generator state to carry, so any replica draws any row's words. No method of `numpy.random.Generator` is used: those
streams may change between NumPy versions, raw words do not.
"""

import hashlib
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import DTypeLike, NDArray

_DOMAIN = b"rowmint/words/1\0"


@dataclass(frozen=True)
class _Key(ISeedSequence):
    """The key itself as what a generator is seeded with: given as ``key``, it would be drawn entropy first, in vain."""

    key: NDArray[np.uint64]

    def generate_state(self, n_words: int, dtype: DTypeLike = np.uint32) -> NDArray[np.uint64]:
        """Return the key: the two words of 64 bits that Philox takes."""
        return self.key


@dataclass(frozen=True)
class StreamKey:
    """What all words of one stream depend on.

    Attributes:
        model_digest: 32 bytes.
        plan_digest: 32 bytes.
        seed: 0 to 2**64 - 1.
    """

    model_digest: bytes
    plan_digest: bytes
    seed: int

    def tile(self, block: int, tile: int) -> "TileKey":
        """Return the key of tile `tile` (from 0) of block `block` (from 0)."""
        return TileKey(self, block, tile)


@dataclass(frozen=True)
class TileKey:
    """What all words of one tile depend on."""

    stream: StreamKey
    block: int
    tile: int

    def words(self, purpose: str, count: int) -> NDArray[np.uint64]:
        """Return words 0 to `count` - 1 of `purpose`, shape (count,)."""
        stream = self.stream
        digest = hashlib.sha256(
            b"".join(
                (
                    _DOMAIN,
                    stream.model_digest,
                    stream.plan_digest,
                    struct.pack(">QQQ", stream.seed, self.block, self.tile),
                    purpose.encode(),
                )
            )
        ).digest()
        key = np.frombuffer(digest[:16], "<u8").astype(np.uint64)
        seed: Any = _Key(key)  # NumPy's type declarations name one of its classes only
        return np.random.Philox(seed).random_raw(count)

    def words32(self, purpose: str, count: int) -> NDArray[np.uint32]:
        """Return `count` words of 32 bits, shape (count,)."""
        words = self.words(purpose, (count + 1) // 2)
        return words.astype("<u8", copy=False).view("<u4")[:count].astype(np.uint32, copy=False)

    def words16(self, purpose: str, count: int) -> NDArray[np.uint16]:
        """Return `count` words of 16 bits, shape (count,)."""
        words = self.words(purpose, (count + 3) // 4)
        return words.astype("<u8", copy=False).view("<u2")[:count].astype(np.uint16, copy=False)
