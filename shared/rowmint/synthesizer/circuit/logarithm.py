"""The natural logarithm by elementwise products and sums alone: the same bytes on every processor and system.

Those of NumPy and of the C library depend on what the processor has. Here a number is the sum of two floats, its high
part and its low one, which hold some 105 bits together; they are computed without error by those of Dekker (1971) and
Knuth. So a result is the float nearest to the logarithm, but where that is as near to another one by 2**-90.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

_SPLITTER = float((1 << 27) + 1)
_ROOT = 0.7071067811865476  # below it, a fraction is doubled
_TERMS = 20  # (3 - sqrt(8))**(2 * 21), what follows, is below 2**-106 of the first
_IN_PAIRS = 7  # the first terms; what follows is below 2**-44 of these, and a float is precise enough


@dataclass(frozen=True)
class _Pair:
    """Sums of two floats each, shape (n,); the low part is at most half a last digit of the high one."""

    high: Float64
    low: Float64

    def __add__(self, other: "_Pair") -> "_Pair":
        total = _sum(self.high, other.high)
        return _ordered_sum(total.high, total.low + (self.low + other.low))

    def __mul__(self, other: "_Pair") -> "_Pair":
        total = _product(self.high, other.high)
        return _ordered_sum(total.high, total.low + (self.high * other.low + self.low * other.high))


def log(fractions: Float64, exponents: NDArray[np.int64]) -> Float64:
    """Return the natural logarithms of `fractions` * 2**`exponents`, shape (n,).

    Args:
        fractions: 0.5 to 1, as of `numpy.frexp`, shape (n,).
        exponents: Whole numbers below 2**40 either way, shape (n,).
    """
    small = fractions < _ROOT
    x = np.where(small, 2 * fractions, fractions)  # sqrt(1/2) to sqrt(2)
    powers = (exponents - small).astype(np.float64)
    # log(x) = 2 artanh(y), y = (x - 1) / (x + 1): a sum over k of 2 y**(2k + 1) / (2k + 1).
    y = _quotient(_sum(x, np.full_like(x, -1.0)), _sum(x, np.ones_like(x)))
    square = y * y
    tail = np.zeros_like(x)
    for term in range(_TERMS, _IN_PAIRS, -1):
        tail = tail * square.high + 1.0 / (2 * term + 1)
    total = _Pair(tail * square.high, np.zeros_like(x))
    for term in range(_IN_PAIRS, -1, -1):
        total = _constant(Fraction(1, 2 * term + 1), x) + total
        if term:
            total = total * square
    series = _Pair(2 * y.high, 2 * y.low) * total
    found = _Pair(powers, np.zeros_like(x)) * _constant(_LOG_2, x) + series
    return found.high


_LOG_2 = Fraction(0x162E42FEFA39EF35793C7673007E5ED5E81E69, 1 << 149)
"""To 149 bits after the point."""


def _constant(value: Fraction, like: Float64) -> _Pair:
    high = float(value)
    return _Pair(np.full_like(like, high), np.full_like(like, float(value - Fraction(high))))


def _sum(one: Float64, other: Float64) -> _Pair:
    """Return the exact sum (Knuth)."""
    total = one + other
    rest = total - one
    return _Pair(total, (one - (total - rest)) + (other - rest))


def _ordered_sum(larger: Float64, smaller: Float64) -> _Pair:
    """Return the exact sum of numbers of which the first is the larger one, either sign aside."""
    total = larger + smaller
    return _Pair(total, smaller - (total - larger))


def _product(one: Float64, other: Float64) -> _Pair:
    """Return the exact product (Dekker); of numbers far from the ends of float64."""
    total = one * other
    one_high, one_low = _halves(one)
    high, low = _halves(other)
    rest = ((one_high * high - total) + one_high * low + one_low * high) + one_low * low
    return _Pair(total, rest)


def _halves(value: Float64) -> tuple[Float64, Float64]:
    """Return two numbers of 26 bits each whose sum it is."""
    scaled = value * _SPLITTER
    high = scaled - (scaled - value)
    return high, value - high


def _quotient(one: _Pair, other: _Pair) -> _Pair:
    """Return the quotient: the float nearest to it, and twice what is left."""
    first = one.high / other.high
    rest = _difference(one, other, first)
    second = rest.high / other.high
    rest = _difference(rest, other, second)
    total = _ordered_sum(first, second)
    return _ordered_sum(total.high, total.low + rest.high / other.high)


def _difference(one: _Pair, other: _Pair, factor: Float64) -> _Pair:
    """Return one - other * factor."""
    product = other * _Pair(factor, np.zeros_like(factor))
    return one + _Pair(-product.high, -product.low)
