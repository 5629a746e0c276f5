"""The positions that decode to a known number, against the decoder itself."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rowmint.codecs import NumericCodec, Preimage
from rowmint.codecs.numeric import ALPHA_ONE


def codec_of(**more):
    """Return a codec of one component around 0, alpha = 1 standing for 1,000 positions."""
    made = {
        "on_grid": True, "origin": 0, "step": 1, "decimals": 0, "integral": True, "nullable": False,
        "lower": -500.0, "upper": 500.0, "points": np.zeros(0), **more,
    }  # fmt: skip
    return NumericCodec(centers=np.zeros(1), widths=np.array([1000.0]), **made)


CASES = [
    ({}, 3, Preimage(3.0, 0.5, below=False, above=False, moved=False)),
    ({}, -500, Preimage(-500.0, 0.5, below=True, above=False, moved=False)),
    ({}, 500, Preimage(500.0, 0.5, below=False, above=True, moved=False)),
    ({}, 501, Preimage(500.0, 0.5, below=False, above=True, moved=True)),
    ({"origin": 7, "step": 10}, 27, Preimage(2.0, 0.5, below=False, above=False, moved=False)),
    ({"origin": 7, "step": 10}, 29, Preimage(2.0, 0.5, below=False, above=False, moved=True)),
    ({"integral": False, "decimals": 1}, 12.3, Preimage(123.0, 0.5, below=False, above=False, moved=False)),
    ({"integral": False, "decimals": 1}, 12.34, Preimage(123.0, 0.5, below=False, above=False, moved=True)),
    ({"integral": False, "decimals": 1}, 1e308, Preimage(500.0, 0.5, below=False, above=True, moved=True)),
    ({"on_grid": False, "integral": False}, 0.1, Preimage(0.1, 0.0, below=False, above=False, moved=False)),
    ({"on_grid": False, "integral": False}, -600, Preimage(-500.0, 0.0, below=True, above=False, moved=True)),
    ({"lower": 4.0, "upper": 4.0}, 4, Preimage(4.0, 0.5, below=True, above=True, moved=False)),
    # Beyond 2**53 a position is the double nearest to a value, and a value what is rounded to it.
    ({"upper": 2.0**60}, 2**54 + 1, Preimage(2.0**54, 2.0, below=False, above=False, moved=False)),
]


@pytest.mark.parametrize(("settings", "value", "expected"), CASES)
def test_cases(settings, value, expected):
    assert codec_of(**settings).preimage(Fraction(value)) == expected


@given(
    st.integers(-1200, 1200),
    st.booleans(),
    st.sampled_from([1, 7, 60]),
    st.sampled_from([0, -13, 10**6]),
    st.integers(-ALPHA_ONE, ALPHA_ONE),
)
def test_what_decodes_to_a_value_lies_in_its_preimage_and_nothing_else_does(units, integral, step, origin, alpha):
    codec = codec_of(integral=integral, step=step, origin=origin, decimals=0 if integral else 2)
    value = Fraction(origin + units * step) if integral else Fraction((origin + units * step) / 100)
    found = codec.preimage(value)
    made = codec.decode(np.zeros(1, np.int64), np.array([alpha])).values[0]
    position = alpha / ALPHA_ONE * 1000
    lower = -math.inf if found.below else found.x - found.half
    upper = math.inf if found.above else found.x + found.half
    assume(position not in (lower, upper))  # ties are rounded to even
    assert found.moved == (abs(units) > 500)
    assert (lower < position < upper) == (codec.natives(np.array([found.x]))[0] == made)
    if not found.moved:
        assert codec.natives(np.array([found.x]))[0] == value
