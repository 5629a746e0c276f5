"""The look-up tables: every entry is right and far from a rounding tie, so that every processor makes the same ones."""

import functools
import hashlib
import itertools
import math
from decimal import Decimal, localcontext

import numpy as np
import pytest

from rowmint.synthesizer.exact import tables

MARGIN = Decimal("1e-6")  # units; a float64 library is off by less than 1e-8 of a unit here

DIGESTS = {
    "exponentials": "fb7aabc4cd7730024ffc2fbb0d94f839283bf352d032609ee5698fcc20453062",
    "deep_exponentials": "e5c2fa9c2fb6790a85f8285a65a74fc02b30d61ffffc7317c27425f8a1df3204",
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


def test_deep_exponentials_are_close_and_end_with_an_impossible_one():
    table = tables.deep_exponentials()
    assert (table.shape, table.dtype) == ((65536,), np.float64)
    assert table[tables.UNREACHABLE] == 0
    expected = [math.exp(-index / tables.LOGIT_UNIT) for index in range(tables.UNREACHABLE)]
    np.testing.assert_allclose(table[:-1], expected, rtol=1e-13)
    assert (np.diff(table) < 0).all()


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
    argument = np.array([[-32768, -1, 0], [1, 4096, 32767]], np.int16)
    found = tables.tanh(argument)
    assert found.dtype == np.int32
    assert found.tolist() == [
        [round(tables.ALPHA_ONE * math.tanh(value / tables.ALPHA_UNIT)) for value in row] for row in argument.tolist()
    ]
    assert tables.tanh(np.arange(-32768, 32768).astype(np.int16)).tolist() == tables.tangents().tolist()
    assert np.abs(tables.tangents()).max() < tables.ALPHA_ONE


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


_TWO_PI = 2 * Decimal("3.14159265358979323846264338327950288419716939937510582")


def _density(z):
    return (-z * z / 2).exp() / _TWO_PI.sqrt()


def _cumulative(z):
    """The normal distribution function at z >= 0: 1/2 + density * (z + z**3 / 3 + z**5 / 15 + ...), to 35 digits."""
    term = total = z
    index = 1
    while term > Decimal("1e-40"):
        index += 2
        term *= z * z / index
        total += term
    return Decimal("0.5") + _density(z) * total


@functools.cache
def _part_means():
    """The means of the normal's 256 equally probable parts, from the 129th on; the others are theirs negated."""
    with localcontext() as context:
        context.prec = 45
        z = step = Decimal(0)
        densities = [_density(z)]
        for part in range(129, 256):
            for _ in range(8):  # Newton's steps double the right digits
                step = (_cumulative(z) - Decimal(part) / 256) / _density(z)
                z -= step
            assert abs(step) < Decimal("1e-30")
            densities.append(_density(z))
        densities.append(Decimal(0))
        return [256 * (before - after) for before, after in itertools.pairwise(densities)]


def test_byte_codes_are_the_means_of_equally_probable_parts_and_clear_of_ties():
    table = tables.byte_codes()
    assert (table.shape, table.dtype) == ((256,), np.uint8)
    assert (np.diff(table.astype(np.int64)) >= 0).all()
    assert np.array_equal(table, 127 - table[::-1])
    for entry, mean in zip(table[128:].tolist(), _part_means(), strict=True):
        _assert_nearest(Decimal("63.5") + Decimal("15.85") * mean, entry)


def test_codes_drawn_by_bytes_have_the_mean_and_spread_of_a_standard_normal():
    codes = tables.byte_codes().astype(np.float64)
    assert codes.mean() == tables.CODE_ZERO == 63.5
    assert abs(codes.std() / tables.CODES_PER_SIGMA - 1) < 1e-3
    assert codes.max() <= 127


def test_normals_and_byte_codes_have_the_same_distribution():
    # A byte is the high half of a word: the mean of its 256 quantiles is nearly that of its part.
    means = (tables.normals() / tables.NORMAL_ONE).reshape(256, 256).mean(axis=1)
    assert np.abs(means[128:] - [float(mean) for mean in _part_means()]).max() < 2e-3
    apart = np.abs(np.rint(tables.CODE_ZERO + 15.85 * means) - tables.byte_codes())
    assert apart.max() <= 1
    assert np.count_nonzero(apart) < 8


def test_a_word_holds_two_codes_the_low_bytes_first():
    codes = tables.byte_codes().tolist()
    words = np.arange(65536, dtype=np.uint16)
    found = tables.input_codes(words)
    assert (found.shape, found.dtype) == ((2 * 65536,), np.uint8)
    assert found.tolist() == [code for word in range(65536) for code in (codes[word & 255], codes[word >> 8])]
    assert tables.input_codes(np.array([0x40FF, 0x0080], np.uint16)).tolist() == [
        codes[0xFF], codes[0x40], codes[0x80], codes[0x00],
    ]  # fmt: skip
    assert tables.input_codes(words[:0]).shape == (0,)


def test_exponentials_of_any_distance():
    distance = np.arange(65536, dtype=np.uint16).reshape(2, -1)[:, ::-1]
    found = np.empty(distance.shape, np.int32)
    tables.falling_exponentials(distance, found)
    expected = [*tables.exponentials().tolist(), *[0] * (65536 - 4096)]
    assert found[:, ::-1].ravel().tolist() == expected
