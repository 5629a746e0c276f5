"""The logarithm of scores, against one of forty digits."""

import math
from decimal import Context, Decimal

import numpy as np
import pytest

from rowmint.synthesizer.circuit.logarithm import log

DIGITS = Context(prec=60)


def expected(fractions, exponents):
    """Return the floats nearest to the logarithms."""
    two = DIGITS.ln(Decimal(2))
    pairs = zip(fractions.tolist(), exponents.tolist(), strict=True)
    return [float(DIGITS.fma(Decimal(power), two, DIGITS.ln(Decimal(own)))) for own, power in pairs]


CASES = {
    "any": lambda rng: (rng.uniform(0.5, 1, 1_000), rng.integers(-1_100, 1_100, 1_000)),
    "likely rows": lambda rng: (rng.uniform(0.5, 1, 500), np.zeros(500, np.int64)),
    "near one": lambda rng: (1 - np.exp2(-rng.uniform(1, 53, 300)), rng.integers(-1, 2, 300)),
    "just above one": lambda rng: (0.5 + np.exp2(-rng.uniform(2, 53, 300)), np.ones(300, np.int64)),
    "near where fractions are doubled": lambda rng: (
        math.sqrt(0.5) + np.arange(-50, 50) * 2.0**-53,
        rng.integers(-2, 3, 100),
    ),
    "far": lambda rng: (rng.uniform(0.5, 1, 200), rng.integers(-(1 << 40), 1 << 40, 200)),
    "powers of two": lambda rng: (np.full(201, 0.5), np.arange(-100, 101)),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_the_float_nearest_to_the_logarithm(case):
    fractions, exponents = CASES[case](np.random.default_rng(1))
    assert log(fractions, exponents).tolist() == expected(fractions, exponents)


def test_a_number_is_what_it_is_among_others():
    fractions, exponents = CASES["any"](np.random.default_rng(2))
    together = log(fractions, exponents)
    assert [log(fractions[at : at + 1], exponents[at : at + 1])[0] for at in range(100)] == together[:100].tolist()
    assert log(fractions[:0], exponents[:0]).shape == (0,)
