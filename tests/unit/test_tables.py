"""The look-up tables: every entry is right and far from a rounding tie, so that every processor makes the same ones."""

import hashlib
import math
from decimal import Decimal, localcontext
from statistics import NormalDist

import numpy as np
import pytest

from rowmint.synthesizer import tables

MARGIN = Decimal("1e-6")  # units; a float64 library is off by less than 1e-8 of a unit here

DIGESTS = {
    "exponentials": "fb7aabc4cd7730024ffc2fbb0d94f839283bf352d032609ee5698fcc20453062",
    "tangents": "742361dae711026e83709d47d3005836e3df488e5699ca8a7af0482bb53a6be6",
    "byte_codes": "fb4f8d7edc0453cc298bad5b3384746504cf8889f6c9254a152fc72bf9ab60a1",
    "normals": "ee46eda6f743ea9b2949c72134d6385025bcc7573bb0fba98b3bf40224779880",
}


@pytest.mark.parametrize("name", DIGESTS)
def test_digests(name):
    table = getattr(tables, name)()
    little = np.ascontiguousarray(table).astype(table.dtype.newbyteorder("<"), copy=False)
    assert hashlib.sha256(little.tobytes()).hexdigest() == DIGESTS[name]


@pytest.mark.parametrize("name", DIGESTS)
def test_a_table_is_shared_and_cannot_be_written(name):
    table = getattr(tables, name)()
    assert table is getattr(tables, name)()
    with pytest.raises(ValueError, match="read-only"):
        table[0] = 1


def _assert_nearest(exact, entry, tie_allowed=MARGIN):
    assert abs(exact - entry) < Decimal("0.5") - tie_allowed, (exact, entry)


def test_exponentials_are_nearest_and_clear_of_ties():
    table = tables.exponentials()
    assert (table.shape, table.dtype) == ((4096,), np.int32)
    assert table[0] == tables.EXP_ONE
    assert table[-1] == 0
    assert (np.diff(table.astype(np.int64)) <= 0).all()
    assert 4098 * tables.EXP_ONE < 2**31
    with localcontext() as context:
        context.prec = 30
        for index, entry in enumerate(table.tolist()):
            _assert_nearest(tables.EXP_ONE * (Decimal(-index) / tables.LOGIT_UNIT).exp(), entry)


def test_tangents_are_nearest_and_clear_of_ties():
    table = tables.tangents()
    assert (table.shape, table.dtype) == ((65536,), np.int32)
    assert np.array_equal(table[1:], -table[1:][::-1])
    with localcontext() as context:
        context.prec = 25
        for index in range(32769):
            twice = (Decimal(2 * (index - 32768)) / tables.ALPHA_UNIT).exp()
            _assert_nearest(tables.ALPHA_ONE * (twice - 1) / (twice + 1), int(table[index]))


def test_tanh_looks_up():
    argument = np.array([[-32768, -32768, -32767], [0, 4096, 32767]], np.int16)
    found = tables.tanh(argument)
    limit = int(tables.tangents()[-1])
    assert found.tolist() == [
        tables.tangents()[[0, 0, 1]].tolist(),
        [0, round(math.tanh(1) * tables.ALPHA_ONE), limit],
    ]
    assert limit < tables.ALPHA_ONE


def _upper(z):
    """The upper tail of the normal distribution; erfc's relative error is below 1e-15 for z >= 0."""
    return 0.5 * math.erfc(z / math.sqrt(2))


def test_normals_are_nearest_and_clear_of_ties():
    table = tables.normals()
    assert (table.shape, table.dtype) == ((65536,), np.int32)
    assert np.array_equal(table, -table[::-1])
    assert (np.diff(table) >= 0).all()
    for word in range(32768, 65536):
        tail = (65536 - word - 0.5) / 65536
        entry = int(table[word])
        # Moving a quantile by the margin moves its tail by more than 1e-10 of itself, 1e5 times the error of erfc.
        assert _upper((entry + 0.5 - 1e-6) / tables.NORMAL_ONE) < tail * (1 - 1e-13)
        assert _upper((entry - 0.5 + 1e-6) / tables.NORMAL_ONE) > tail * (1 + 1e-13)


def test_byte_codes_are_the_means_of_the_normals_equal_parts():
    table = tables.byte_codes()
    assert (table.shape, table.dtype) == ((256,), np.uint8)
    assert (np.diff(table.astype(np.int64)) >= 0).all()
    assert np.array_equal(table, 127 - table[::-1])
    # Each code is the nearest to the mean of its part, by numerical integration of the quantile, and no mean lies near
    # the middle between two codes, where another library's last digit could move it.
    normal = NormalDist()
    for byte, code in enumerate(table.tolist()):
        points = [normal.inv_cdf((byte + (step + 0.5) / 4096) / 256) for step in range(4096)]
        place = tables.CODE_ZERO + 15.85 * sum(points) / 4096
        assert abs(place - code) < 0.5 + 1e-2, byte
        assert abs(place - code) < 0.5 - 1e-4 or byte in (0, 255), (byte, place)
    z = (table.astype(np.float64) - tables.CODE_ZERO) / tables.CODES_PER_SIGMA
    assert z.mean() == 0
    assert abs(z.std() - 1) < 1e-3


def test_a_word_holds_two_codes_the_low_bytes_first():
    words = np.array([0x0000, 0x00FF, 0xFF00, 0x8040], np.uint16)
    low, high = int(tables.byte_codes()[0]), int(tables.byte_codes()[255])
    other = [int(tables.byte_codes()[0x40]), int(tables.byte_codes()[0x80])]
    assert tables.input_codes(words).tolist() == [low, low, high, low, low, high, *other]


def test_exponentials_of_any_distance():
    distance = np.array([[0, 1, 4095], [4096, 40_000, 65_535]], np.uint16)
    found = np.empty((2, 3), np.int32)
    tables.falling_exponentials(distance, found)
    table = tables.exponentials()
    assert found.tolist() == [[table[0], table[1], table[4095]], [0, 0, 0]]
