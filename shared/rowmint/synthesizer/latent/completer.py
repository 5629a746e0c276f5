"""Completing rows of which some cells are known, from a latent model.

Given the noise, the columns of a latent model are independent, so the likelihood of the known cells under each of n
candidates is a product, w_i = prod_j p_ij(known_j), and drawing candidate i with probability w_i / sum(w) and the
unknown columns from it is importance resampling from the model's conditional distribution: what rejection would give,
at a cost that does not grow as the known cells become rare. A known category weighs by its probability; a known number
by the probability of its mode times a Gaussian kernel of stated width around the candidate's own number, as a number
alone has probability 0; a known cell is then set.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs import CategoryCodec, NumericCodec
from rowmint.codecs.numeric import ALPHA_ONE
from rowmint.rng import TileKey
from rowmint.schema import Cell
from rowmint.schema.arrays import column_cells, native_number, nearest_double
from rowmint.synthesizer.exact import tables
from rowmint.synthesizer.heads import ColumnHead
from rowmint.synthesizer.interface import CompletedCells, CompletionOptions
from rowmint.synthesizer.latent.model import LatentModel

_WIDENINGS = 8


@dataclass(frozen=True)
class _Column:
    """What the candidates say of one column.

    Attributes:
        head: The column.
        masses: Integer mass of each choice, shape (choices, n).
        shares: Probability of each choice, shape (choices, n).
        scalars: Mean of the scalar, units of 1 / ALPHA_ONE, shape (n,), or None.
    """

    head: ColumnHead
    masses: NDArray[np.int32]
    shares: NDArray[np.float64]
    scalars: NDArray[np.int64] | None


class LatentCompleter:
    """n candidates that partial rows are compared with. Immutable, thread-safe."""

    def __init__(self, model: LatentModel, key: TileKey, options: CompletionOptions) -> None:
        candidates = options.candidates
        self._model = model
        self._tolerance = options.tolerance
        self._candidates = candidates
        condition = None if model.vectors is None else model.vectors.draw(key, candidates)
        activations = model.network.hidden(model.noise(key, candidates), condition)
        group = model.every_column
        outputs = np.zeros((0, candidates), np.int16) if group.outputs is None else group.outputs(activations)
        scalars = tables.tanh(outputs[: group.layout.scalars]).astype(np.int64)
        self._columns: dict[str, _Column] = {}
        made = group.layout.column_masses(outputs, model.network.workspace)
        for head in model.heads.values():
            masses, total = made[head.column.name]
            own, choice = model.clamped(condition, head)
            masses[:, own] = 0
            masses[choice, own] = tables.EXP_ONE
            total[own] = tables.EXP_ONE
            row = group.layout.scalar_of.get(head.column.name)
            self._columns[head.column.name] = _Column(
                head, masses, masses / total, None if row is None else scalars[row]
            )

    def complete(self, known: dict[str, Cell], key: TileKey) -> CompletedCells:
        """Complete one row.

        Args:
            known: Known cells by column, validated: categories exist, numbers are of the column's type.
            key: Keys the draws of this row.
        """
        weights, tolerance = self._weights(known)
        running = np.cumsum(weights)
        total = running[-1]
        word = int(key.words("candidate", 1)[0] >> np.uint64(11))
        chosen = int(np.searchsorted(running, word / 2.0**53 * total, side="right"))
        chosen = min(chosen, len(running) - 1)
        effective = float(total * total / np.cumsum(weights * weights)[-1])
        cells: dict[str, Cell] = {}
        for name, column in self._columns.items():
            cells[name] = known[name] if name in known else self._draw(column, chosen, key)
        return CompletedCells(cells, effective, tolerance)

    def _weights(self, known: dict[str, Cell]) -> tuple[NDArray[np.float64], float]:
        """Return the candidates' weights, widening the kernel while no candidate has any, and the width used."""
        categories = np.ones(self._candidates)
        numbers: list[tuple[_Column, Cell]] = []
        for name, cell in known.items():
            column = self._columns.get(name)
            if column is None:
                continue
            codec = column.head.codec
            if isinstance(codec, CategoryCodec):
                code = -1 if cell is None else column.head.column.domain.categories.index(cell)
                choice = codec.choices - 1 if code < 0 else min(code, codec.frequent)
                _apply(categories, column.shares[choice])
            elif cell is None:
                _apply(categories, column.shares[codec.choices - 1])
            else:
                numbers.append((column, cell))
        tolerance = self._tolerance
        for _ in range(_WIDENINGS):
            weights = categories.copy()
            for column, cell in numbers:
                _apply(weights, self._number_weight(column, cell, tolerance))
            if weights.max(initial=0.0) > 0:
                return weights, tolerance
            tolerance *= 2
        # Nothing resembles the row: its categories alone decide, or nothing does.
        return (categories if categories.max(initial=0.0) > 0 else np.ones_like(categories)), tolerance

    def _number_weight(self, column: _Column, cell: Cell, tolerance: float) -> NDArray[np.float64]:
        """Return the likelihood of a known number under each candidate, shape (n,)."""
        codec = column.head.codec
        if not isinstance(codec, NumericCodec):
            raise TypeError(f"column {column.head.column.name!r} is not ordered")
        number = native_number(cell, column.head.column)
        if codec.integral:
            x = nearest_double((number - codec.origin) / codec.step)
        else:
            x = float(codec.positions(np.array([nearest_double(number)]))[0])
        weight = np.zeros(self._candidates)
        modes = len(codec.centers)
        for point in np.flatnonzero(codec.points == x):
            weight += column.shares[modes + int(point)]
        if column.scalars is None:
            return weight
        alpha = column.scalars / ALPHA_ONE
        noise = self._model.noise_scale.get(column.head.column.name, 0) / ALPHA_ONE
        for mode in range(modes):
            # alpha = 1 stands for four standard deviations of a mode: a quarter of it is the unit of the tolerance.
            variance = (0.25 * tolerance) ** 2 + noise**2
            with np.errstate(over="ignore"):  # what is infinitely far weighs nothing, as it should
                distance = (x - codec.centers[mode]) / codec.widths[mode] - alpha
                weight += column.shares[mode] * _gaussian(distance * distance / variance)
        return weight

    def _draw(self, column: _Column, chosen: int, key: TileKey) -> Cell:
        head = column.head
        running = np.cumsum(column.masses[:, chosen])
        threshold = int(head.choice_words(key, 1)[0]) * int(running[-1]) >> 32
        choices = np.searchsorted(running, [threshold], side="right")
        alpha = None
        if column.scalars is not None:
            alpha = column.scalars[chosen : chosen + 1]
            if self._model.noise_scale:
                alpha = self._model.noisy(head, alpha, key.words16(f"alpha:{head.index}", 1))
        (cell,) = column_cells(head.decode(choices, alpha, head.rare_category_words(key, 1)), head.column)
        return cell


def _apply(weights: NDArray[np.float64], factor: NDArray[np.float64]) -> None:
    """Multiply and rescale, so that a product of many small factors does not underflow."""
    weights *= factor
    top = weights.max(initial=0.0)
    if top > 0:
        weights /= top


def _gaussian(squared: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return exp(-squared / 2) by the table of exponentials, 0 beyond about five standard deviations."""
    index = np.minimum(np.rint(squared * (tables.LOGIT_UNIT / 2)), 4095).astype(np.intp)
    return tables.exponentials()[index] / tables.EXP_ONE
