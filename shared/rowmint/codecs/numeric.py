"""Ordered columns: mode-specific normalisation (arXiv:1907.00503, section 4.2), with every value decoded exactly.

A native value v lies on a step grid, v = origin + step * x with integer x, where the data allow it (integers, learned
decimals, days, whole minutes); else x is v itself. A choice is a component of the distribution of x, with a centre and
a half-width, and the scalar beside it, alpha in [-1, 1], says where in the component: x = centre + alpha * width.
Values that repeat often (0 in a zero-inflated column) are components of their own, points, and so is "missing".

NOTE[DIFF]: the paper has Gaussian modes only. A point mass inside a Gaussian mode is never reproduced exactly; measured
on Adult, points and weight averaging together raise SDMetrics quality from .90 to .94.
"""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from fractions import Fraction
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs import entry
from rowmint.lazy import lazy
from rowmint.schema import INT64_MAX, INT64_MIN, ColumnKind, ColumnSpec, DataType
from rowmint.schema.arrays import ColumnArray, nearest_double
from rowmint.schema.cell import EPOCH_DATE

ALPHA_ONE = 1 << 23
"""1.0 in the fixed-point scalars that `decode` takes."""
_FIRST_DAY, _LAST_DAY = (day.toordinal() - EPOCH_DATE.toordinal() for day in (date.min, date.max))
_DAY = 86_400_000_000  # microseconds
_CALENDAR = {
    DataType.DATE: (_FIRST_DAY, _LAST_DAY),
    DataType.TIMESTAMP: (_FIRST_DAY * _DAY, (_LAST_DAY + 1) * _DAY - 1),
}
"""Native values of the first and the last day or microsecond of the years 1 to 9999."""


@dataclass(frozen=True)
class Preimage:
    """The positions that decode to one native value, before they are rounded and kept within the bounds.

    Attributes:
        x: The position that the value stands at.
        half: Positions up to so far from `x` are rounded to it; 0 off the grid.
        below: Whether everything below is raised to it: it is the lower bound.
        above: Whether everything above is lowered to it: it is the upper bound.
        moved: Whether the requested value is never decoded, and this is the nearest one that is.
    """

    x: float
    half: float
    below: bool
    above: bool
    moved: bool

    @property
    def is_position(self) -> bool:
        """Whether it is one position, of probability 0 in a component."""
        return self.half == 0 and not self.below and not self.above


@dataclass(frozen=True)
class NumericCodec:
    """Native values to (choice, alpha) and back.

    Choices: 0 to m - 1 are components; then p points; then, where the column is nullable, one for missing.

    Attributes:
        on_grid: Whether x is an integer. Native values then are origin + step * x, over 10**decimals for a double.
        origin: Native value of x = 0, in steps of the grid's unit.
        step: Native distance of neighbours, at least 1.
        decimals: Digits after the point of a double on the grid, else 0.
        integral: Whether native values are int64.
        nullable: Whether there is a choice for missing.
        lower: Smallest x ever decoded.
        upper: Largest x ever decoded.
        centers: float64, shape (m,), in units of x.
        widths: float64, shape (m,), positive, in units of x: the half-width that alpha = 1 stands for.
        points: float64, shape (p,), in units of x.
    """

    on_grid: bool
    origin: int
    step: int
    decimals: int
    integral: bool
    nullable: bool
    lower: float
    upper: float
    centers: NDArray[np.float64]
    widths: NDArray[np.float64]
    points: NDArray[np.float64]

    @property
    def choices(self) -> int:
        """Number of choices, at least 1."""
        return len(self.centers) + len(self.points) + self.nullable

    @property
    def scalar(self) -> bool:
        """Whether a scalar stands beside the choice."""
        return len(self.centers) > 0

    draws_rare = False

    def positions(self, values: NDArray[np.generic]) -> NDArray[np.float64]:
        """Return x of native values, shape (n,)."""
        if not self.on_grid:
            return values.astype(np.float64)
        if not self.integral:
            return (np.rint(values.astype(np.float64) * float(10**self.decimals)) - float(self.origin)) / self.step
        units, origin = values.astype(np.int64), np.int64(self.origin)
        real = (units.astype(np.float64) - float(self.origin)) / self.step
        distance = units - origin
        # The difference of integers is exact, but wraps where it passes 2**63: there a rounded one has to do.
        wrapped = ((units ^ origin) & (units ^ distance)) < 0
        return np.where(wrapped, real, distance / self.step)

    def natives(self, positions: NDArray[np.float64]) -> NDArray[np.generic]:
        """Return the native values of x, shape (n,): int64 or float64, integer x on the grid, at the ends of int64."""
        if not self.on_grid:
            return positions
        whole = np.clip(positions, *self._range)
        # Modulo 2**64, as step * x may pass 2**63 where origin + step * x does not.
        steps = np.where(whole < 0, -np.abs(whole).astype(np.uint64), np.abs(whole).astype(np.uint64))
        units = (np.uint64(self.origin % 2**64) + np.uint64(self.step) * steps).view(np.int64)
        return units if self.integral else units / float(10**self.decimals)

    def preimage(self, value: Fraction) -> Preimage:
        """Return what decodes to a native value, or to the nearest that can be decoded."""
        if not self.on_grid:
            x, possible = nearest_double(value), True
        else:
            units = value if self.integral else value * 10**self.decimals
            exact = (units - self.origin) / self.step
            nearest = round(exact)
            x = nearest_double(Fraction(nearest))
            # A double on the grid is the one nearest to a decimal number.
            possible = exact == nearest if self.integral else float(self.natives(np.array([x]))[0]) == value
        inside = min(max(x, self.lower), self.upper)
        half = max(0.5, math.ulp(inside) / 2) if self.on_grid else 0.0
        return Preimage(inside, half, inside <= self.lower, inside >= self.upper, not possible or inside != x)

    @lazy
    def _range(self) -> tuple[float, float]:
        """The least and greatest x whose native value, in steps of the grid's unit, is an int64."""
        least, greatest = -((self.origin - INT64_MIN) // self.step), (INT64_MAX - self.origin) // self.step
        low, high = float(least), float(greatest)
        return (
            low if int(low) >= least else math.nextafter(low, math.inf),
            high if int(high) <= greatest else math.nextafter(high, -math.inf),
        )

    def decode(self, choices: NDArray[np.integer], alpha: NDArray[np.int64] | None) -> ColumnArray:
        """Return the native value of each choice and scalar.

        Args:
            choices: Shape (n,).
            alpha: In units of 1 / ALPHA_ONE, shape (n,); None where the column has no scalar.

        Returns:
            Native values, shape (n,).
        """
        centers, steps = self._by_choice
        x = centers[choices]
        if alpha is not None:
            offset = alpha.astype(np.float64)
            offset *= steps[choices]
            x += offset
            if self.on_grid:
                np.rint(x, out=x)
            np.clip(x, self.lower, self.upper, out=x)
        values = self.natives(x)
        if not self.nullable:
            return ColumnArray(values)
        valid = choices != self.choices - 1
        return ColumnArray(np.where(valid, values, values.dtype.type(0)), valid)

    @lazy
    def _by_choice(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Centre of each choice, and what x gains with a unit of the scalar; points and missing gain nothing."""
        centers = np.zeros(self.choices)
        steps = np.zeros(self.choices)
        components = len(self.centers)
        centers[:components], steps[:components] = self.centers, self.widths / ALPHA_ONE
        centers[components : components + len(self.points)] = self.points
        return centers, steps

    def reachable_choices(self, intervals: list[tuple[float, float]], null: bool) -> NDArray[np.bool_]:
        """Return the choices that can decode to a native value in one of the closed `intervals`; shape (choices,)."""
        allowed = np.zeros(self.choices, np.bool_)
        lows: NDArray[Any] = self.natives(self._clip(self.centers - self.widths))
        highs: NDArray[Any] = self.natives(self._clip(self.centers + self.widths))
        points: NDArray[Any] = self.natives(self.points)
        components = len(self.centers)
        for low, high in intervals:
            allowed[:components] |= (highs >= low) & (lows <= high)
            allowed[components : components + len(self.points)] |= (points >= low) & (points <= high)
        if self.nullable:
            allowed[-1] = null
        return allowed

    def _clip(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.clip(np.rint(x) if self.on_grid else x, self.lower, self.upper)

    def to_manifest(self) -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
        """Return the JSON entry and the arrays that `load` reads; origin and step as text, as they may pass 2**53."""
        body = {
            "codec": "numeric",
            "lattice": self.on_grid,
            "origin": str(self.origin),
            "step": str(self.step),
            "decimals": self.decimals,
            "nullable": self.nullable,
        }
        arrays: dict[str, NDArray[np.generic]] = {
            "bounds": np.array([self.lower, self.upper], np.float64),
            "centers": self.centers,
            "widths": self.widths,
            "points": self.points,
        }
        return body, arrays

    @classmethod
    def load(cls, column: ColumnSpec, body: Mapping[str, Any], arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Return the codec that `to_manifest` wrote."""
        if column.kind not in (ColumnKind.NUMERICAL, ColumnKind.DATETIME):
            raise ValueError(f"a {column.kind} column has no order")
        bounds, centers, widths, points = (
            entry.array(arrays, name, np.float64) for name in ("bounds", "centers", "widths", "points")
        )
        if bounds.shape != (2,) or centers.shape != widths.shape:
            raise ValueError("an array has the wrong shape")
        if not all(np.isfinite(array).all() for array in (bounds, centers, widths, points)):
            raise ValueError("an array holds a number that is not finite")
        if not (widths > 0).all():
            raise ValueError("a component has no width")
        if not (np.abs(centers) / 2 + widths / 2 <= sys.float_info.max / 2).all():
            raise ValueError("a component reaches beyond binary64")
        codec = cls(
            on_grid=entry.flag(body, "lattice"),
            origin=entry.long_whole(body, "origin"),
            step=entry.long_whole(body, "step"),
            decimals=entry.whole(body, "decimals"),
            integral=column.data_type is not DataType.DOUBLE,
            nullable=entry.flag(body, "nullable"),
            lower=float(bounds[0]),
            upper=float(bounds[1]),
            centers=centers,
            widths=widths,
            points=points,
        )
        if codec.choices < 1 or codec.step < 1 or not 0 <= codec.decimals <= 15:
            raise ValueError("it has no choice, or a step or decimals out of range")
        if codec.integral and not codec.on_grid:
            raise ValueError("integers must lie on a step grid")
        if not INT64_MIN <= codec.origin <= INT64_MAX or codec.step > INT64_MAX or codec.lower > codec.upper:
            raise ValueError("its origin, step or bounds are out of range")
        return codec._within_calendar(column)

    def _within_calendar(self, column: ColumnSpec) -> Self:
        """Return the codec, its bounds and points days or instants of the years 1 to 9999 where it makes such.

        Raises:
            ValueError: They lie further outside than rounding takes them.
        """
        if column.data_type not in _CALENDAR:
            return self
        first, last = _CALENDAR[column.data_type]
        lower, upper = self.lower, self.upper
        # The whole calendar in microseconds passes 2**53: its very ends are rounded, and may be so outwards.
        if self._native(lower) < first:
            lower = math.nextafter(lower, math.inf)
        if self._native(upper) > last:
            upper = math.nextafter(upper, -math.inf)
        if not first <= self._native(lower) <= self._native(upper) <= last:
            raise ValueError("its bounds leave the years 1 to 9999")
        return replace(self, lower=lower, upper=upper, points=np.clip(self.points, lower, upper))

    def _native(self, x: float) -> int:
        return int(self.natives(np.array([x]))[0])
