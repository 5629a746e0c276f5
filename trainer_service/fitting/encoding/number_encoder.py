"""The encoder of ordered columns: which mode explains a value, and where in it the value lies."""

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rowmint.codecs import NumericCodec
from rowmint.schema import ColumnSpec
from rowmint.schema.arrays import ColumnArray
from trainer_service.fitting.encoding.modes import log_density
from trainer_service.fitting.encoding.table import ordered

WIDTH_SIGMAS = 4.0
"""A mode's half-width in standard deviations (arXiv:1907.00503, section 4.2)."""
_CHUNK = 8192


@dataclass(frozen=True)
class NumberEncoder:
    """Writes the choices and scalars of an ordered column.

    Attributes:
        column: The column.
        codec: Its codec.
        weights: Share of each mode, shape (m,).
        gaussian: Which modes are Gaussian, of a standard deviation of width / `WIDTH_SIGMAS`; the others are uniform
            over their width. Shape (m,). Where none is, modes do not overlap and ascend.
    """

    column: ColumnSpec
    codec: NumericCodec
    weights: NDArray[np.float64]
    gaussian: NDArray[np.bool_]

    def encode(self, array: pa.Array, random: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return choice and scalar of each cell, both shape (n,); the scalar is 0 outside modes.

        A value that several modes explain gets one of them by chance, by its responsibility for the value
        (arXiv:1907.00503, section 4.2, step 3).
        """
        return self.codes(ordered(array, self.column), random)

    def codes(self, cells: ColumnArray, random: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return choice and scalar of native values, both shape (n,)."""
        codec = self.codec
        choices = np.full(len(cells), codec.choices - 1, np.int64)
        alpha = np.zeros(len(cells), np.float32)
        missing = cells.missing()
        x = codec.positions(cells.values)
        modal = ~missing
        if len(codec.points):
            at = np.minimum(np.searchsorted(codec.points, x), len(codec.points) - 1)
            pointed = modal & (codec.points[at] == x)
            choices[pointed] = len(codec.centers) + at[pointed]
            modal &= ~pointed
        if not len(codec.centers):
            return choices, alpha
        chosen = np.flatnonzero(modal)
        draws = random.random(len(cells))[chosen]
        for start in range(0, len(chosen), _CHUNK):
            rows = chosen[start : start + _CHUNK]
            mode = self._modes(x[rows], draws[start : start + _CHUNK])
            choices[rows] = mode
            alpha[rows] = np.clip((x[rows] - codec.centers[mode]) / codec.widths[mode], -1, 1)
        return choices, alpha

    def _modes(self, x: NDArray[np.float64], draws: NDArray[np.float64]) -> NDArray[np.int64]:
        codec = self.codec
        if not self.gaussian.any():
            found = np.searchsorted(codec.centers + codec.widths, x)
            return np.minimum(found, len(codec.centers) - 1).astype(np.int64)
        densities = log_density(x, self.weights, codec.centers, codec.widths / WIDTH_SIGMAS) - 0.5 * math.log(math.tau)
        flat = ~self.gaussian
        densities[:, flat] = np.log(self.weights[flat] / (2 * codec.widths[flat]))
        outside = np.abs(x[:, None] - codec.centers) / codec.widths
        # A value no mode reaches, by rounding or in a row that does not train, goes to the nearest.
        densities[outside > np.maximum(outside.min(axis=1, keepdims=True), 1)] = -np.inf
        mass = np.exp(densities - densities.max(axis=1, keepdims=True))
        running = np.cumsum(mass, axis=1)
        found = np.count_nonzero(running <= (draws * running[:, -1])[:, None], axis=1)
        return np.asarray(found, np.int64)
