"""Sums of products over many rows: fast and cut off, or slow and not; both the same bytes in any order of rows."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rowmint.synthesizer.circuit.sliced import Sliced, row_products
from rowmint.synthesizer.circuit.tree import ONE

Float64 = NDArray[np.float64]
_CUTS = 3
_AT_ONCE = 1 << 14  # values cut at once: they stay in a core's own cache


class Sums(Protocol):
    """Sums of products of whole weights and non-negative values. What a row's are does not depend on other rows.

    Attributes:
        error: What is cut off of a column of values, at most, of its greatest.
    """

    @property
    def error(self) -> float:
        """See the class."""
        ...

    def products(self, weights: Float64, values: Float64) -> Float64:
        """Return weights @ values / ONE, shape (n, rows, columns).

        Args:
            weights: Whole numbers, each row of sum `ONE` or less, shape (..., rows, length).
            values: A stack, shape (n, length, columns).
        """
        ...

    def of_rows(self, weights: Float64, values: Float64) -> Float64:
        """Return the products with each of n rows of values, values @ weights.T / ONE, shape (n, rows).

        Args:
            weights: Whole numbers, each row of sum `ONE` or less, shape (rows, length).
            values: Shape (n, length).
        """
        ...


class SlicedSums:
    """See `rowmint.synthesizer.circuit.sliced`. With three cuts there is hardly a row where what is lost may matter."""

    error = 2.0**-75  # a message loses some, of 2**-78 each

    def products(self, weights: Float64, values: Float64) -> Float64:
        """See `Sums`."""
        length, columns = values.shape[-2:]
        step = max(1, _AT_ONCE // (length * columns))
        found = np.empty((len(values), weights.shape[-2], columns))
        for start in range(0, len(values), step):
            span = slice(start, start + step)
            found[span] = Sliced.of(values[span], _CUTS).products(weights if weights.ndim == 2 else weights[span])
        return found

    def of_rows(self, weights: Float64, values: Float64) -> Float64:
        """See `Sums`."""
        count, length = values.shape
        step = max(1, _AT_ONCE // length)
        parts = [values[start : start + step] for start in range(0, count, step)]
        return np.concatenate([row_products(weights, part, _CUTS) for part in parts])


class WholeSums:
    """One product after another: nothing is cut off but what float64 itself rounds."""

    error = 0.0

    def products(self, weights: Float64, values: Float64) -> Float64:
        """See `Sums`."""
        found = np.zeros(np.broadcast_shapes(weights[..., :1].shape, values[..., :1, :].shape))
        for place in range(values.shape[-2]):
            found += weights[..., place, None] * values[..., place, None, :]
        return found / float(ONE)

    def of_rows(self, weights: Float64, values: Float64) -> Float64:
        """See `Sums`."""
        found = np.zeros((len(values), len(weights)))
        for place in range(values.shape[1]):
            found += values[:, place, None] * weights[:, place]
        return found / float(ONE)
