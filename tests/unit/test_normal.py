"""The standard normal distribution by tables: every entry is the nearest float64, and what lies between is close."""

import hashlib
import math
from decimal import Decimal, localcontext

import numpy as np
import pytest

from rowmint.synthesizer.exact import normal

DIGESTS = {
    "densities": "0e574d37656efb3c910635abe78765956deaa728f6e9a9dc46259bf43fdf9ee6",
    "upper_tails": "547b0c5add794f36fd44bdab92beabd18b460ade4c22ba2ad3e56a7a125dd83c",
}
REACHED = np.linspace(0.0, normal.REACH, 20_011)
TAILS = np.array([math.erfc(z / math.sqrt(2)) / 2 for z in REACHED])


def integral(lower, width):
    """Return the probability from `lower` to `lower + width`, by Gauss and Legendre: no difference cancels."""
    nodes, weights = np.polynomial.legendre.leggauss(20)
    z = lower[:, None] + (nodes[None] + 1) * width / 2
    return np.exp(-z * z / 2) @ weights * width / 2 / math.sqrt(2 * math.pi)


@pytest.mark.parametrize("name", DIGESTS)
def test_digests(name):
    table = getattr(normal, name)()
    assert table is getattr(normal, name)()
    assert not table.flags.writeable
    assert hashlib.sha256(table.astype("<f8").tobytes()).hexdigest() == DIGESTS[name]


def test_entries_agree_with_the_library():
    z = np.arange(len(normal.densities())) / 512
    assert z[-1] == 9
    np.testing.assert_allclose(normal.densities(), np.exp(-z * z / 2) / math.sqrt(2 * math.pi), rtol=1e-14)
    np.testing.assert_allclose(normal.upper_tails(), [math.erfc(v / math.sqrt(2)) / 2 for v in z], rtol=1e-13)


@pytest.mark.parametrize("index", [1536, 2000, 3072, 4608])
def test_entries_are_the_nearest_float64(index):
    with localcontext() as context:
        context.prec = 40
        z = Decimal(index) / 512
        density = (-z * z / 2).exp() / (2 * normal._PI).sqrt()
        fraction = z
        for term in range(400, 0, -1):  # Laplace's continued fraction of Mills' ratio
            fraction = z + term / fraction
        assert normal.densities()[index] == float(density)
        assert normal.upper_tails()[index] == float(density / fraction)


def test_densities_between_entries():
    expected = np.exp(-REACHED * REACHED / 2) / math.sqrt(2 * math.pi)
    np.testing.assert_allclose(normal.density(REACHED), expected, rtol=1e-10)
    assert np.array_equal(normal.density(-REACHED), normal.density(REACHED))
    assert normal.density(np.array([9.0, -1e300, math.inf])).tolist() == [0, 0, 0]


def test_open_intervals():
    infinite = np.full_like(REACHED, math.inf)
    np.testing.assert_allclose(normal.mass(REACHED, infinite), TAILS, rtol=1e-10)
    np.testing.assert_allclose(normal.mass(-infinite, -REACHED), TAILS, rtol=1e-10)
    np.testing.assert_allclose(normal.mass(-infinite, REACHED), 1 - TAILS, rtol=1e-10)
    assert normal.mass(-infinite[:1], infinite[:1]).tolist() == [1]


@pytest.mark.parametrize("width", [2**-8, 0.01, 0.3, 1.0, 5.0])
def test_wide_intervals(width):
    lower = REACHED
    assert not normal.is_narrow(width / 2)
    np.testing.assert_allclose(normal.mass(lower, lower + width), integral(lower, width), rtol=1e-8)
    np.testing.assert_allclose(normal.mass(-lower - width, -lower), integral(lower, width), rtol=1e-8)
    np.testing.assert_allclose(normal.mass(lower - 3, lower - 3 + width), integral(lower - 3, width), rtol=1e-8)


@pytest.mark.parametrize("width", [2**-8.1, 1e-4, 1e-9, 1e-300])
def test_narrow_intervals(width):
    assert normal.is_narrow(width / 2)
    for centre in (REACHED, -REACHED):
        np.testing.assert_allclose(
            normal.narrow_mass(centre, width / 2), integral(centre - width / 2, width), rtol=1e-9
        )
