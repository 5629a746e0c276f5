"""What the likelihood of a known cell is by its definition: plain Python, one candidate at a time, positions exact."""

import math
from dataclasses import dataclass
from fractions import Fraction

from rowmint.codecs import NumericCodec
from rowmint.synthesizer.exact import tables

_REACH = 6.0


@dataclass(frozen=True)
class Says:
    """What one candidate says of a column.

    Attributes:
        distances: How far the logit of each choice is below the greatest; `tables.UNREACHABLE` for never.
        alpha: The scalar.
    """

    distances: tuple[int, ...]
    alpha: float

    def share(self, choice: int, *, beyond: bool) -> float:
        """Return the probability of a choice."""
        masses = [_mass(distance) for distance in self.distances]
        mass = masses[choice]
        if beyond and mass == 0 and self.distances[choice] != tables.UNREACHABLE:
            mass = tables.EXP_ONE * math.exp(-self.distances[choice] / tables.LOGIT_UNIT)
        return mass / sum(masses)


def _mass(distance: int) -> float:
    return 0 if distance == tables.UNREACHABLE else round(tables.EXP_ONE * math.exp(-distance / tables.LOGIT_UNIT))


def number_likelihood(
    codec: NumericCodec, says: Says, value: Fraction, tolerance: float, noise: float, *, beyond: bool = False
) -> float:
    """Return the likelihood of a native value that the codec can decode; densities in units of the narrowest mode."""
    x = (value * 10**codec.decimals - codec.origin) / codec.step if codec.on_grid else value
    modes = len(codec.centers)
    points = [modes + index for index, point in enumerate(codec.points.tolist()) if Fraction(point) == x]
    at_points = sum(says.share(point, beyond=beyond) for point in points)
    half = Fraction(1, 2) if codec.on_grid else Fraction(0)
    below, above = x <= Fraction(codec.lower), x >= Fraction(codec.upper)
    if points and not half and not below and not above:
        return at_points
    sigma = math.sqrt((tolerance / 4) ** 2 + noise**2)
    total = at_points
    for mode, (center, width) in enumerate(zip(codec.centers.tolist(), codec.widths.tolist(), strict=True)):
        spread = Fraction(width) * Fraction(sigma)
        middle = Fraction(center) + Fraction(width) * Fraction(says.alpha)
        low = -math.inf if below else float((x - half - middle) / spread)
        high = math.inf if above else float((x + half - middle) / spread)
        if max(low, -high) > _REACH:
            continue
        share = says.share(mode, beyond=beyond)
        if low == high:
            total += share * _density(low) * min(codec.widths.tolist()) / width
        else:
            total += share * _between(low, high)
    return total


def _density(z: float) -> float:
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _between(low: float, high: float) -> float:
    if low + high < 0:
        low, high = -high, -low
    if high - low < 1e-5:
        return _density((low + high) / 2) * (high - low)
    return (math.erfc(low / math.sqrt(2)) - math.erfc(high / math.sqrt(2))) / 2
