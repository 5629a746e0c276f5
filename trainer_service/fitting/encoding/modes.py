"""Gaussian mixtures of one variable, for mode-specific normalisation (arXiv:1907.00503, section 4.2).

NOTE[DIFF]: the paper fits a variational Gaussian mixture to every row. Here expectation-maximisation runs on at most
2,000 weighted values, distinct ones or the means of equal-mass bins, from quantiles as a start: milliseconds instead of
seconds a column, and the same on every run.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_POINTS = 2000
LEAST_WEIGHT = 0.005
_STEPS = 100
_OUTLYING = 5.0
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Mixture:
    """A mixture of m Gaussians; every array has shape (m,), by ascending mean.

    Attributes:
        weights: Sum 1.
        means: In units of the data.
        sigmas: Standard deviations, positive.
    """

    weights: NDArray[np.float64]
    means: NDArray[np.float64]
    sigmas: NDArray[np.float64]


def compress(values: NDArray[np.float64], counts: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return at most `MAX_POINTS` weighted values that stand for many.

    Args:
        values: Ascending, shape (n,).
        counts: Positive, shape (n,).

    Returns:
        Means of equal-mass bins and the bins' weights, both shape (m,).
    """
    if len(values) <= MAX_POINTS:
        return values, counts.astype(np.float64)
    running = np.cumsum(counts)
    bins = np.minimum(((running - counts / 2) * (MAX_POINTS / running[-1])).astype(np.intp), MAX_POINTS - 1)
    mass = np.bincount(bins, counts, MAX_POINTS)
    total = np.bincount(bins, counts * values, MAX_POINTS)
    used = mass > 0
    return total[used] / mass[used], np.asarray(mass[used], np.float64)


def fit_mixture(values: NDArray[np.float64], counts: NDArray[Any], max_modes: int, least_sigma: float) -> Mixture:
    """Fit a mixture by expectation-maximisation.

    Args:
        values: Distinct, ascending, at least one; shape (n,).
        counts: How often each occurs, positive; shape (n,).
        max_modes: Most modes, 1 or more; modes of weight below `LEAST_WEIGHT` are dropped.
        least_sigma: Smallest standard deviation a mode may have.
    """
    values, counts = compress(*_without_outliers(values, counts.astype(np.float64)))
    share = counts / counts.sum()
    centre = float(share @ values)
    spread = float(np.sqrt(share @ (values - centre) ** 2))
    if spread == 0:
        return Mixture(np.ones(1), values[:1].copy(), np.array([least_sigma]))
    x = (values - centre) / spread
    floor = max(least_sigma / spread, 1e-4)
    modes = min(max_modes, len(x))
    middles = np.interp((np.arange(modes) + 0.5) / modes, np.cumsum(share) - share / 2, x)
    mixture = (np.full(modes, 1 / modes), middles, np.full(modes, max(floor, 1 / modes)))
    mixture = _maximise(x, share, mixture, floor)
    heavy = mixture[0] >= LEAST_WEIGHT
    if not heavy.all():
        weights = mixture[0][heavy]
        mixture = _maximise(x, share, (weights / weights.sum(), mixture[1][heavy], mixture[2][heavy]), floor)
    order = np.argsort(mixture[1], kind="stable")
    weights, means, sigmas = (part[order] for part in mixture)
    return Mixture(weights, means * spread + centre, sigmas * spread)


def _without_outliers(
    values: NDArray[np.float64], counts: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Leave out the few values that lie very far from all others: one of them would set the scale of every mode."""
    running = np.cumsum(counts)
    low, high = values[np.searchsorted(running, running[-1] * np.array([LEAST_WEIGHT / 2, 1 - LEAST_WEIGHT / 2]))]
    reach = _OUTLYING * (high - low)
    near = (values >= low - reach) & (values <= high + reach)
    return (values[near], counts[near]) if reach > 0 else (values, counts)


_Triple = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def _maximise(x: NDArray[np.float64], share: NDArray[np.float64], mixture: _Triple, floor: float) -> _Triple:
    weights, means, sigmas = mixture
    before = -np.inf
    for _ in range(_STEPS):
        densities = log_density(x, weights, means, sigmas)
        top = densities.max(axis=1, keepdims=True)
        responsibility = np.exp(densities - top)
        total = responsibility.sum(axis=1, keepdims=True)
        responsibility *= share[:, None] / total
        now = float(share @ (top + np.log(total))[:, 0])
        mass = np.maximum(responsibility.sum(axis=0), 1e-12)
        means = (x @ responsibility) / mass
        # The second moment about the new mean, as a difference of sums, may round below 0.
        variance = np.maximum((x * x) @ responsibility / mass - means * means, floor * floor)
        weights, sigmas = mass / mass.sum(), np.sqrt(variance)
        if now - before < _TOLERANCE:
            break
        before = now
    return weights, means, sigmas


def log_density(
    x: NDArray[np.float64], weights: NDArray[np.float64], means: NDArray[np.float64], sigmas: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the logarithm of each mode's weighted density at each value, up to a constant; shape (n, m)."""
    distance = (x[:, None] - means) / sigmas
    result: NDArray[np.float64] = np.log(weights / sigmas) - 0.5 * distance * distance
    return result
