"""Rounding to float32 without floating point, for tests of exact arithmetic."""

import math
from fractions import Fraction


def nearest_float32(value: Fraction) -> Fraction:
    """Round a Fraction to float32, ties to even, without floating point."""
    if value == 0:
        return Fraction(0)
    exponent = math.floor(math.log2(abs(value))) - 23
    while abs(value) >= Fraction(2) ** (exponent + 24):
        exponent += 1
    while abs(value) < Fraction(2) ** (exponent + 23):
        exponent -= 1
    return round(value / Fraction(2) ** exponent) * Fraction(2) ** exponent
