"""The look-up tables: every entry is right and far from a rounding tie, so that every processor makes the same ones."""

import hashlib
import math
from decimal import Decimal, localcontext

import numpy as np
import pytest

from rowmint.synthesizer import tables

MARGIN = Decimal("1e-6")  # units; a float64 library is off by less than 1e-8 of a unit here

DIGESTS = {
    "exponentials": "eb46d537f74bcf171259dfaf6f670b6ce55b57b31b586a46d165102e4fbfc678",
    "tangents": "742361dae711026e83709d47d3005836e3df488e5699ca8a7af0482bb53a6be6",
    "input_codes": "4d8f688bb25e6eee6ab4d55a375d9b26a11732d9919545ad5821933a5626ea92",
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
    assert (table.shape, table.dtype) == ((4096,), np.uint32)
    assert table[0] == tables.EXP_ONE
    assert table[-1] == 0
    assert (np.diff(table.astype(np.int64)) <= 0).all()
    assert 4098 * tables.EXP_ONE < 2**32
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


def test_tanh_looks_up_and_saturates():
    argument = np.array([[-(2**20), -32769, -32768], [0, 4096, 2**20]], np.int32)
    found = tables.tanh(argument)
    limit = int(tables.tangents()[-1])
    assert found.tolist() == [
        [int(tables.tangents()[0])] * 3,
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


def test_input_codes_are_the_normal_distribution_quantised():
    table = tables.input_codes()
    assert (table.shape, table.dtype) == ((65536,), np.uint8)
    assert (np.diff(table.astype(np.int64)) >= 0).all()
    assert np.array_equal(table, 127 - table[::-1])
    counts = np.bincount(table, minlength=128)
    assert len(counts) == 128
    assert counts.min() > 0
    ends = [-math.inf, *((code - tables.CODE_ZERO + 0.5) / tables.CODES_PER_SIGMA for code in range(127)), math.inf]
    for code in range(128):
        share = (math.erf(ends[code + 1] / math.sqrt(2)) - math.erf(ends[code] / math.sqrt(2))) / 2
        assert abs(int(counts[code]) - 65536 * share) < 1 + 1e-6
    # No boundary lies near the middle of a word, where another library's last digit could move it.
    for end in ends[1:-1]:
        place = 65536 * (0.5 + math.erf(end / math.sqrt(2)) / 2) - 0.5
        assert end == 0 or abs(place - round(place)) > 1e-6
    z = (table.astype(np.float64) - tables.CODE_ZERO) / tables.CODES_PER_SIGMA
    assert abs(z.mean()) < 1e-12
    assert abs(z.var() - 1) < 1e-3


def test_normals_and_input_codes_tell_of_the_same_quantiles():
    z = tables.normals() / tables.NORMAL_ONE
    codes = np.clip(np.floor(z * tables.CODES_PER_SIGMA + tables.CODE_ZERO + 0.5), 0, 127)
    # A rounded quantile may fall on the other side of a boundary: a few words, by one code.
    apart = np.abs(codes - tables.input_codes())
    assert apart.max() <= 1
    assert np.count_nonzero(apart) < 16
