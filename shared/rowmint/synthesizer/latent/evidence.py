"""What candidates of a latent model say of one known cell: its probability under each of them.

A candidate of the network gives a column a distribution over its choices, p, and a scalar alpha, to which TVAE adds
Gaussian noise of standard deviation d. A known category, or a cell known to be missing, has the probability of its
choice. A known number at position x has

    l = sum of p over the points at x + sum over the modes m of p[m] * P(z_m of the positions that decode to x)

with z_m(v) = ((v - centre_m) / width_m - alpha) / sigma and sigma**2 = s**2 + d**2: the candidate's scalar is smoothed
by a Gaussian of standard deviation s, in the mode's own unit, as a mode of CTGAN alone would be a single number. On the
grid and at the bounds these positions are an interval, of positive probability. Elsewhere x is one position: then a
point outweighs any density, and without one l is the density, sum of p[m] * phi(z_m) / width_m.

Nothing lies further than `normal.REACH` standard deviations from a scalar.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs import CategoryCodec, NumericCodec, Preimage
from rowmint.synthesizer.exact import normal, tables
from rowmint.synthesizer.known_facts import KnownChoice, KnownFact

SIGMAS_OF_SCALAR = 0.25
"""A scalar of 1 stands for four standard deviations of its mode: a quarter of it is the unit of the tolerance."""

_LEAST_SIGMA = 2.0**-64  # far below a scalar's unit, and quotients by it stay finite
_FARTHEST = 2.0**250  # sums of squares of distances up to this are finite


@dataclass(frozen=True)
class ColumnEvidence:
    """What n candidates give one column. Immutable, thread-safe.

    Attributes:
        codec: The column's codec.
        distances: How far the logit of each choice is below the greatest, units of 1 / LOGIT_UNIT, at most 65,534, or
            `tables.UNREACHABLE`; shape (choices, n).
        totals: Sum of the integer masses of all choices, shape (n,).
        alpha: The scalar's mean, shape (n,); None where the column has no scalar.
        noise: Standard deviation of the noise on the scalar, in its unit.
    """

    codec: CategoryCodec | NumericCodec
    distances: NDArray[np.uint16]
    totals: NDArray[np.int32]
    alpha: NDArray[np.float64] | None
    noise: float

    def likelihood(
        self, fact: KnownFact, tolerance: float, at: NDArray[np.intp], *, beyond: bool
    ) -> NDArray[np.float64]:
        """Return the likelihood of a known cell under some candidates, up to a factor that they have in common.

        Args:
            fact: The cell.
            tolerance: Kernel width for numbers, standard deviations.
            at: The candidates, shape (k,).
            beyond: Whether a choice whose mass is rounded to 0 has the probability that its logit says.

        Returns:
            Shape (k,), not negative.
        """
        if isinstance(fact, KnownChoice):
            if fact.choice is None:
                return np.zeros(len(at))
            return self._shares(fact.choice, at, beyond=beyond) * fact.share
        found = np.zeros(len(at))
        points = self._points(fact)
        for choice in points:
            found += self._shares(choice, at, beyond=beyond)
        if self.alpha is None or (points and fact.is_position):
            return found
        alpha = self.alpha[at]
        for mode in range(len(self._numeric.centers)):
            share = self._shares(mode, at, beyond=beyond)
            some = np.flatnonzero(share)
            probability = self._of_mode(fact, mode, alpha[some], self._sigma(tolerance))
            found[some] += share[some] * probability
        return found

    def remoteness(self, fact: KnownFact, tolerance: float) -> NDArray[np.float64]:
        """Return how far each candidate is from a known cell: the least -log of a choice's part, about, in nats.

        Returns:
            Shape (n,), not negative, infinite where the column cannot have the cell.
        """
        if isinstance(fact, KnownChoice):
            return self._nats(fact.choice) if fact.choice is not None else np.full(len(self.totals), np.inf)
        least = np.full(len(self.totals), np.inf)
        for choice in self._points(fact):
            np.minimum(least, self._nats(choice), out=least)
        if self.alpha is not None:
            for mode in range(len(self._numeric.centers)):
                lower, _, upper = self._deviates(fact, mode, self.alpha, self._sigma(tolerance))
                gap = np.clip(np.maximum(lower, -upper), 0.0, _FARTHEST)
                np.minimum(least, self._nats(mode) + gap * gap / 2.0, out=least)
        return least

    @property
    def _numeric(self) -> NumericCodec:
        if not isinstance(self.codec, NumericCodec):
            raise TypeError("a number is known of a column that has no order")
        return self.codec

    def _points(self, known: Preimage) -> list[int]:
        """Return the choices of the points at a known number."""
        first = len(self._numeric.centers)
        return [first + int(point) for point in np.flatnonzero(self._numeric.points == known.x)]

    def _sigma(self, tolerance: float) -> float:
        spread = SIGMAS_OF_SCALAR * tolerance
        return max(math.sqrt(spread * spread + self.noise * self.noise), _LEAST_SIGMA)

    def _shares(self, choice: int, at: NDArray[np.intp], *, beyond: bool) -> NDArray[np.float64]:
        """Return the probability of a choice, shape (k,)."""
        distance = self.distances[choice].take(at)
        masses = np.empty(len(at), np.int32)
        tables.falling_exponentials(distance, masses)
        real = masses.astype(np.float64)
        if beyond:
            cut = np.flatnonzero(masses == 0)
            real[cut] = tables.EXP_ONE * tables.deep_exponentials().take(distance[cut])
        real /= self.totals.take(at)
        return real

    def _nats(self, choice: int) -> NDArray[np.float64]:
        """Return how far a choice's logit is below the greatest, nats, infinite where it is impossible; shape (n,)."""
        distance = self.distances[choice]
        return np.where(distance == tables.UNREACHABLE, np.inf, distance / tables.LOGIT_UNIT)

    def _of_mode(self, known: Preimage, mode: int, alpha: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
        """Return a known number's probability in a mode, or its density in units that all modes share; shape (k,)."""
        lower, centre, upper = self._deviates(known, mode, alpha, sigma)
        found = np.zeros(len(alpha))
        (near,) = np.nonzero(np.maximum(lower, -upper) <= normal.REACH)
        width = float(self._numeric.widths[mode])
        half = known.half / width / sigma
        if known.is_position:
            # The narrowest mode's density is the unit: no quotient overflows.
            unit = float(self._numeric.widths.min())
            found[near] = normal.density(centre[near]) * (unit / width)
        elif not known.below and not known.above and normal.is_narrow(half):
            found[near] = normal.narrow_mass(centre[near], half)
        else:
            found[near] = normal.mass(lower[near], upper[near])
        return found

    def _deviates(
        self, known: Preimage, mode: int, alpha: NDArray[np.float64], sigma: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return z of the lower end, the centre and the upper end of a known number's positions, each shape (k,)."""
        centre, width = float(self._numeric.centers[mode]), float(self._numeric.widths[mode])
        offset = known.x - centre
        lower = -math.inf if known.below else (offset - known.half) / width
        upper = math.inf if known.above else (offset + known.half) / width
        with np.errstate(over="ignore"):  # what is infinitely far is out of reach, as it should be
            return (lower - alpha) / sigma, (offset / width - alpha) / sigma, (upper - alpha) / sigma
