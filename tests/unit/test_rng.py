"""Random words are a pure function of their key, and of every part of it."""

import hashlib
import struct

import numpy as np
import pytest

from rowmint.rng import StreamKey

STREAM = StreamKey(bytes(range(32)), bytes(range(32, 64)), 7)
TILE = STREAM.tile(3, 4)

_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_MASK = 2**64 - 1


def _philox(counter, key):
    """Philox4x64-10 (Salmon et al., SC 2011, figure 2), by the paper."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        first, second = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (second >> 64) ^ c1 ^ k0, second & _MASK, (first >> 64) ^ c3 ^ k1, first & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return [c0, c1, c2, c3]


def test_words_are_philox_keyed_by_a_digest():
    body = b"rowmint/words/1\0" + bytes(range(64)) + struct.pack(">QQQ", 7, 3, 4) + b"slot:1"
    key = struct.unpack("<QQ", hashlib.sha256(body).digest()[:16])
    expected = [word for counter in (1, 2, 3) for word in _philox((counter, 0, 0, 0), key)]
    assert TILE.words("slot:1", 12).tolist() == expected


def test_narrow_words_are_the_wide_ones_cut_from_the_low_end():
    wide = TILE.words("a", 8).tolist()
    assert TILE.words32("a", 16).tolist() == [word >> shift & 0xFFFFFFFF for word in wide for shift in (0, 32)]
    assert TILE.words16("a", 32).tolist() == [word >> shift & 0xFFFF for word in wide for shift in (0, 16, 32, 48)]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 1001])
def test_fewer_words_are_a_prefix_of_more(count):
    for method, dtype in (("words", np.uint64), ("words32", np.uint32), ("words16", np.uint16)):
        draw = getattr(TILE, method)
        found = draw("a", count)
        assert (found.shape, found.dtype) == ((count,), dtype)
        assert found.tolist() == draw("a", 1003).tolist()[:count]


def test_every_part_of_the_key_changes_the_words():
    other = bytes(32)
    keys = [
        (TILE, "a"),
        (TILE, "b"),
        (StreamKey(other, STREAM.plan_digest, 7).tile(3, 4), "a"),
        (StreamKey(STREAM.model_digest, other, 7).tile(3, 4), "a"),
        (StreamKey(STREAM.model_digest, STREAM.plan_digest, 8).tile(3, 4), "a"),
        (StreamKey(STREAM.model_digest, STREAM.plan_digest, 2**64 - 1).tile(3, 4), "a"),
        (STREAM.tile(4, 4), "a"),
        (STREAM.tile(3, 5), "a"),
        (STREAM.tile(4, 3), "a"),
        (STREAM.tile(10**15, 0), "a"),
    ]
    words = {word for key, purpose in keys for word in key.words(purpose, 100).tolist()}
    assert len(words) == 100 * len(keys)
    assert TILE.words("a", 100).tolist() == StreamKey(*vars(STREAM).values()).tile(3, 4).words("a", 100).tolist()
