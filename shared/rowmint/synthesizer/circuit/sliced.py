"""Sums of products that are the same bytes in any order of summation, and so with any BLAS and any number of threads.

Values are cut into whole numbers of 26 bits, relative to the greatest of their column. A row of whole weights sums to
at most 2**24, so each sum of products is a whole number of at most 2**50: float64 holds it exactly, however it is added
up. What is below 2**(-26 * cuts) of the greatest value is cut off: below 2**-78 where there are three cuts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rowmint.synthesizer.circuit.tree import ONE

BITS = 26
_SLICE = float(1 << BITS)
_LEAST = -900  # powers of two beyond would pass those of float64


@dataclass(frozen=True)
class Sliced:
    """Non-negative values, cut; a matrix, or a stack of matrices, of some length and columns.

    Attributes:
        slices: The uppermost slices of all columns, then the next, float64, shape (..., length, cuts * columns).
        exponents: What each column is scaled by, a power of two, shape (..., columns).
    """

    slices: NDArray[np.float64]
    exponents: NDArray[np.int64]

    @classmethod
    def of(cls, values: NDArray[np.float64], cuts: int) -> "Sliced":
        """Cut values, shape (..., length, columns), into `cuts` slices."""
        exponents = _exponents(values.max(axis=-2, initial=0.0))
        scaled = values * np.ldexp(1.0, BITS - exponents)[..., None, :]
        parts = [np.floor(scaled)]
        for _ in range(cuts - 1):
            scaled -= parts[-1]
            scaled *= _SLICE
            parts.append(np.floor(scaled))
        return cls(np.concatenate(parts, axis=-1), exponents - BITS)

    def products(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return weights @ values / ONE, shape (..., rows, columns).

        Args:
            weights: Whole numbers, each row of sum `ONE` or less, shape (..., rows, length).
        """
        return self._joined(weights @ self.slices)

    def products_of(
        self, weights: NDArray[np.float64], places: NDArray[np.int64], runs: Sequence[tuple[int, int]]
    ) -> NDArray[np.float64]:
        """Return the products of runs of weights with some of the values each, shape (rows, runs, columns).

        Args:
            weights: Whole numbers, each run of a row of sum `ONE` or less, shape (rows, weights).
            places: Which value each is of, of a matrix, shape (weights,).
            runs: First weight of each run, and the one after its last.
        """
        found = np.zeros((len(weights), len(runs), self.slices.shape[-1]))
        for run, (first, last) in enumerate(runs):
            if last > first:
                found[:, run] = weights[:, first:last] @ self.slices[places[first:last]]
        return self._joined(found)

    def sums(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sums over each column of weights * values / ONE, shape (..., columns).

        Args:
            weights: Whole numbers, each column of sum `ONE` or less, shape (length, columns).
        """
        columns = self.exponents.shape[-1]
        parts = np.split(self.slices, self.slices.shape[-1] // columns, axis=-1)
        joined = np.concatenate([(weights * part).sum(axis=-2) for part in parts], axis=-1)
        return self._joined(joined[..., None, :])[..., 0, :]

    def _joined(self, found: NDArray[np.float64]) -> NDArray[np.float64]:
        columns = self.exponents.shape[-1]
        parts = [found[..., first : first + columns] for first in range(0, found.shape[-1], columns)]
        return _added(parts) * np.ldexp(1.0 / ONE, self.exponents)[..., None, :]


def row_products(weights: NDArray[np.float64], values: NDArray[np.float64], cuts: int) -> NDArray[np.float64]:
    """Return the products of `Sliced` with each of n rows of values, values @ weights.T / ONE, shape (n, rows).

    Args:
        weights: Whole numbers, each row of sum `ONE` or less, shape (rows, length).
        values: Non-negative, shape (n, length).
        cuts: As for `Sliced.of`.
    """
    exponents = _exponents(values.max(axis=1, initial=0.0))
    scaled = values * np.ldexp(1.0, BITS - exponents)[:, None]
    slices = np.empty((cuts, *values.shape))
    for cut, part in enumerate(slices):
        if cut:
            scaled -= slices[cut - 1]
            scaled *= _SLICE
        np.floor(scaled, out=part)
    found = slices.reshape(-1, values.shape[1]) @ weights.T
    joined = _added(list(found.reshape(cuts, len(values), -1)))
    joined *= np.ldexp(1.0 / ONE, exponents - BITS)[:, None]
    return joined


def _exponents(greatest: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.maximum(np.frexp(greatest)[1].astype(np.int64), _LEAST)


def _added(parts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the sum of what the slices come to, in the place of the last: it is added first, as it is the least."""
    found = parts[-1]
    for part in reversed(parts[:-1]):
        found *= 1.0 / _SLICE
        found += part
    return found
