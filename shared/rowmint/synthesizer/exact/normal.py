"""The standard normal distribution, by tables and elementary operations alone.

A library's erf or exp differs in the last bit between processors. Here the entries are computed in decimal arithmetic
and rounded to the nearest float64; between them a cubic polynomial with the right values and derivatives at both ends
stands in, of relative error below 1e-10 up to `REACH`. Only +, -, * and comparisons of float64 follow, each correctly
rounded: the results are the same everywhere.
"""

import functools
from decimal import Decimal, localcontext

import numpy as np
from numpy.typing import NDArray

REACH = 6.0
"""Standard deviations beyond which nothing is held to lie; the other end of an interval may."""

_STEPS = 512  # entries a standard deviation
_END = 9  # what lies beyond is less than 1e-9 of what lies beyond REACH
_DIGITS = 50
_TERMS = 18  # of the series between two entries: relative to the density, the rest is below 1e-40
_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494")
_NARROW = 2.0**-8


@functools.cache
def densities() -> NDArray[np.float64]:
    """Return the density at i / 512 for i in 0..4608, shape (4609,)."""
    return _frozen(np.array([float(density) for density, _ in _entries()]))


@functools.cache
def upper_tails() -> NDArray[np.float64]:
    """Return the probability beyond i / 512 for i in 0..4608, shape (4609,)."""
    return _frozen(np.array([float(tail) for _, tail in _entries()]))


@functools.cache
def _entries() -> tuple[tuple[Decimal, Decimal], ...]:
    """Return density and upper tail at each entry."""
    with localcontext() as context:
        context.prec = _DIGITS
        step = 1 / Decimal(_STEPS)
        density, tail = 1 / (2 * _PI).sqrt(), Decimal("0.5")
        # exp(-(i + 1)**2 h**2 / 2) is exp(-i**2 h**2 / 2) times a ratio that shrinks by exp(-h**2) each time.
        ratio, shrinking = (-step * step / 2).exp(), (-step * step).exp()
        made = []
        for index in range(_END * _STEPS + 1):
            made.append((density, tail))
            tail -= density * _integral(index * step, step)
            density *= ratio
            ratio *= shrinking
        return tuple(made)


def _integral(z: Decimal, step: Decimal) -> Decimal:
    """Return the integral of density(z + t) / density(z) for t in 0..step, by its Taylor series: f' = -(z + t) f."""
    before, term, power, total = Decimal(0), Decimal(1), step, step
    for order in range(1, _TERMS):
        before, term = term, -(z * term + before) / order
        power *= step
        total += term * power / (order + 1)
    return total


def _frozen(table: NDArray[np.float64]) -> NDArray[np.float64]:
    table.setflags(write=False)  # every thread shares it
    return table


def density(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the density at `z`, any shape; 0 beyond 9 on either side."""
    return _between(_density_polynomials(), np.abs(z))


def mass(lower: NDArray[np.float64], upper: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probability between `lower` and `upper`, not below it; same shape, infinite where open.

    It is the difference of two tails, and so exact in the mean of the digits that these share: see `narrow_mass`.
    """
    # By symmetry the interval may be taken to the side of the upper tail.
    near, far = np.maximum(lower, -upper), np.maximum(upper, -lower)
    beyond = _between(_tail_polynomials(), np.abs(near))
    return np.where(near < 0, 1.0 - beyond, beyond) - _between(_tail_polynomials(), far)


def is_narrow(half: float) -> bool:
    """Say whether an interval of half-width `half` is for `narrow_mass`: the tails at its ends differ too little."""
    return 2 * half < _NARROW


def narrow_mass(centre: NDArray[np.float64], half: float) -> NDArray[np.float64]:
    """Return the probability within `half` of `centre`, any shape, by Simpson's rule over the density."""
    outer = density(centre - half) + density(centre + half)
    return (outer + 4.0 * density(centre)) * (half / 3.0)


@functools.cache
def _density_polynomials() -> NDArray[np.float64]:
    return _polynomials(densities(), -np.arange(_END * _STEPS + 1) / _STEPS * densities())


@functools.cache
def _tail_polynomials() -> NDArray[np.float64]:
    return _polynomials(upper_tails(), -densities())


def _polynomials(values: NDArray[np.float64], slopes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the cubic Hermite polynomial from each entry to the next, in steps; 0 from the last, shape (4, entries).

    Args:
        values: Of a function, shape (entries,).
        slopes: Of the function, shape (entries,).
    """
    made = np.zeros((4, len(values)))
    rise = values[1:] - values[:-1]
    left, right = slopes[:-1] / _STEPS, slopes[1:] / _STEPS
    made[0, :-1], made[1, :-1] = values[:-1], left
    made[2, :-1], made[3, :-1] = 3.0 * rise - 2.0 * left - right, left + right - 2.0 * rise
    return _frozen(made)


def _between(polynomials: NDArray[np.float64], z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the value at `z`, not negative, any shape."""
    steps = np.minimum(z, float(_END)) * float(_STEPS)
    entry = steps.astype(np.intp)
    steps -= entry
    value: NDArray[np.float64] = polynomials[3].take(entry)
    for order in (2, 1, 0):
        value *= steps
        value += polynomials[order].take(entry)
    return value
