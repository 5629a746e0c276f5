"""Conditions by choice: the exact share of each choice's own law that satisfies them, and drawing within that share.

A choice stands for one cell, or for many: a component for what each of the 2 * ALPHA_ONE equally likely alphas from
-ALPHA_ONE to ALPHA_ONE - 1 decodes to, the rare categories' choice for each of these by its weight. A condition may
hold for some of them only. `decode` is monotone in alpha, so an interval of cells is a run of alphas, whose ends are
searched for by decoding: what is drawn from a run satisfies the condition as surely as if it had been tested.

Conditions may be weighted, each by a factor. A word draws what it draws in a family that knows no conditions, where
the condition is satisfied by all of a choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs.category import WEIGHT_ONE, CategoryCodec
from rowmint.codecs.numeric import ALPHA_ONE, NumericCodec
from rowmint.conditions import ColumnCondition
from rowmint.schema.arrays import ColumnArray

ALPHAS = 2 * ALPHA_ONE
"""How many there are, equally likely."""
_NEAR = 2  # alphas about the place that arithmetic says: rounding moves it by less, nearly always
_WEIGHT_BITS = WEIGHT_ONE.bit_length() - 1


class ChoiceShares(Protocol):
    """Disjoint conditions on one column, each with a factor, by choice. Immutable, thread-safe.

    Attributes:
        of_choice: For each choice, the sum over the conditions of the factor times the share of the choice's own law
            that satisfies the condition, float64, shape (choices,). Exact for one condition of factor 1.
        size_bytes: Bytes of the arrays.
    """

    @property
    def of_choice(self) -> NDArray[np.float64]:
        """See the class."""
        ...

    @property
    def size_bytes(self) -> int:
        """See the class."""
        ...

    def draw(self, choices: NDArray[np.integer], words: NDArray[np.uint64]) -> ColumnArray:
        """Return a cell of each choice, drawn from its own law times the factors of the conditions satisfied.

        A cell's probability is within 2**-31 of what it should be.

        Args:
            choices: Choices whose share is above 0, shape (n,).
            words: 32-bit words, shape (n,).

        Returns:
            Native values, shape (n,); each satisfies one of the conditions.
        """
        ...


@dataclass(frozen=True)
class CategoryShares:
    """Conditions on a categorical column, by choice; see `ChoiceShares`.

    Attributes:
        of_choice: See `ChoiceShares`.
        drawn: The column's codec, but for the weights of its rare categories: they are multiplied by the factors, and
            so sum to `WEIGHT_ONE` or less.
    """

    of_choice: NDArray[np.float64]
    drawn: CategoryCodec

    @property
    def size_bytes(self) -> int:
        """Bytes of the arrays, once something was drawn."""
        return self.of_choice.nbytes + 2 * self.drawn.rare_weights.nbytes

    def draw(self, choices: NDArray[np.integer], words: NDArray[np.uint64]) -> ColumnArray:
        """See `ChoiceShares`."""
        return self.drawn.decode(choices, words)


@dataclass(frozen=True)
class NumericShares:
    """Conditions on an ordered column, by choice: runs of alphas; see `ChoiceShares`.

    The runs are in the order of the choices, each within one of them.

    Attributes:
        codec: The column's codec.
        of_choice: See `ChoiceShares`.
        totals: Sum of the weights of each choice's runs, uint64, at most `WEIGHT_ONE`, shape (choices,).
        firsts: First alpha of each run, int64, shape (runs,).
        counts: Alphas of each run, uint64, 1 to 2 * ALPHA_ONE, shape (runs,).
        weights: Weight of each run, uint64, shape (runs,).
    """

    codec: NumericCodec
    of_choice: NDArray[np.float64]
    totals: NDArray[np.uint64]
    firsts: NDArray[np.int64]
    counts: NDArray[np.uint64]
    weights: NDArray[np.uint64]
    _before_choice: NDArray[np.uint64]
    _ends: NDArray[np.uint64]

    @property
    def size_bytes(self) -> int:
        """Bytes of the arrays."""
        arrays = (self.of_choice, self.totals, self._before_choice, self.firsts, self.counts, self.weights, self._ends)
        return sum(array.nbytes for array in arrays)

    def draw(self, choices: NDArray[np.integer], words: NDArray[np.uint64]) -> ColumnArray:
        """See `ChoiceShares`."""
        return self.codec.decode(choices, self.alphas(choices, words) if self.codec.scalar else None)

    def alphas(self, choices: NDArray[np.integer], words: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return an alpha of each choice, shape (n,); see `draw`."""
        place = self._before_choice[choices] + ((words * self.totals[choices]) >> np.uint64(32))
        run = np.searchsorted(self._ends, place, side="right")
        weight = self.weights[run]
        within = (place - (self._ends[run] - weight)) * self.counts[run] // weight
        alphas: NDArray[np.int64] = self.firsts[run] + within.astype(np.int64)
        return alphas


def choice_shares(codec: CategoryCodec | NumericCodec, condition: ColumnCondition) -> ChoiceShares:
    """Return a condition on the codec's column by choice."""
    return weighted_shares(codec, [condition], [1.0])


def weighted_shares(
    codec: CategoryCodec | NumericCodec, conditions: Sequence[ColumnCondition], factors: Sequence[float]
) -> ChoiceShares:
    """Return weighted conditions on the codec's column by choice.

    Args:
        codec: The column's codec.
        conditions: Canonical conditions, no two of which a cell satisfies.
        factors: The factor of each, 0 to 1.
    """
    if isinstance(codec, CategoryCodec):
        return _category_shares(codec, conditions, factors)
    return _numeric_shares(codec, conditions, factors)


def _category_shares(
    codec: CategoryCodec, conditions: Sequence[ColumnCondition], factors: Sequence[float]
) -> CategoryShares:
    of_code = np.zeros(codec.size + 1)  # the last, code -1, for a missing cell
    for condition, factor in zip(conditions, factors, strict=True):
        of_code[list(condition.codes or ())] = factor
        if condition.null:
            of_code[-1] = factor
    of_choice = np.zeros(codec.choices)
    of_choice[: codec.frequent] = of_code[: codec.frequent]
    rare = codec.rare_weights.astype(np.float64) * of_code[codec.frequent : -1]
    together = np.zeros(len(rare), np.intp)
    if codec.draws_rare:
        # One after another: how `sum` adds depends on the processor.
        of_choice[codec.frequent] = np.bincount(together, rare)[0] / WEIGHT_ONE
    if codec.nullable:
        of_choice[-1] = of_code[-1]
    weights = _whole(rare, together, 1)
    return CategoryShares(of_choice, replace(codec, rare_weights=weights))


def _numeric_shares(
    codec: NumericCodec, conditions: Sequence[ColumnCondition], factors: Sequence[float]
) -> NumericShares:
    parts = [_runs(codec, condition) for condition in conditions]
    choice = np.concatenate([part.choice for part in parts])
    order = np.argsort(choice, kind="stable")
    choice = choice[order]
    firsts = np.concatenate([part.firsts for part in parts])[order]
    counts = np.concatenate([part.counts for part in parts])[order]
    factor = np.repeat(np.array(factors, np.float64), [len(part.choice) for part in parts])[order]
    weights = _whole(factor * counts, choice, codec.choices)
    of_choice = np.bincount(choice, factor * counts, codec.choices) / ALPHAS
    totals = np.zeros(codec.choices, np.uint64)
    np.add.at(totals, choice, weights)
    return NumericShares(
        codec,
        of_choice,
        totals,
        firsts,
        counts.astype(np.uint64),
        weights,
        np.cumsum(totals, dtype=np.uint64) - totals,
        np.cumsum(weights, dtype=np.uint64),
    )


def _whole(masses: NDArray[np.float64], choice: NDArray[np.intp], choices: int) -> NDArray[np.uint64]:
    """Return masses as whole numbers, shape (n,): those of a choice times a power of two, of sum `WEIGHT_ONE` or less.

    It is the greatest such power, so masses that are whole numbers keep their proportions exactly.

    Args:
        masses: Not negative, shape (n,).
        choice: The choice that each is of, shape (n,).
        choices: Number of choices.
    """
    share, exponent = np.frexp(np.bincount(choice, masses, choices))
    doublings = _WEIGHT_BITS - exponent + (share == 0.5)
    weights: NDArray[np.uint64] = np.ldexp(masses, doublings[choice]).astype(np.uint64)  # towards 0
    return weights


@dataclass(frozen=True)
class _Runs:
    """Runs of alphas that satisfy one condition: the choice of each, its first alpha and its length, shape (runs,)."""

    choice: NDArray[np.intp]
    firsts: NDArray[np.int64]
    counts: NDArray[np.int64]


def _runs(codec: NumericCodec, condition: ColumnCondition) -> _Runs:
    components = len(codec.centers)
    within = _component_runs(codec, condition)
    single = np.arange(components, codec.choices)
    cells = codec.decode(single, np.zeros(len(single), np.int64) if codec.scalar else None)
    whole = single[condition.satisfied(cells)]
    return _Runs(
        np.concatenate([within.choice, whole]),
        np.concatenate([within.firsts, np.full(len(whole), -ALPHA_ONE)]),
        np.concatenate([within.counts, np.full(len(whole), ALPHAS)]),
    )


def _component_runs(codec: NumericCodec, condition: ColumnCondition) -> _Runs:
    """Return the runs of the components, one for each interval that holds cells of a component."""
    components = np.arange(len(codec.centers))
    if not len(components) or not condition.intervals:
        return _Runs(np.zeros(0, np.intp), np.zeros(0, np.int64), np.zeros(0, np.int64))
    least, greatest = (
        _cells(codec, components, np.full(len(components), alpha)) for alpha in (-ALPHA_ONE, ALPHA_ONE - 1)
    )
    lowers = np.array([span.lower for span in condition.intervals], least.dtype)
    uppers = np.array([span.upper for span in condition.intervals], least.dtype)
    # The intervals are disjoint and ascending: those that meet a component follow one another.
    begins = np.searchsorted(uppers, least, side="left")
    lengths = np.maximum(np.searchsorted(lowers, greatest, side="right") - begins, 0)
    choice = np.repeat(components, lengths)
    interval = np.arange(len(choice)) - np.repeat(np.cumsum(lengths) - lengths - begins, lengths)
    lower, upper = lowers[interval], uppers[interval]
    firsts = np.full(len(choice), -ALPHA_ONE)
    cut = np.flatnonzero(least[choice] < lower)
    firsts[cut] = first_alphas(codec, choice[cut], lower[cut], beyond=False)
    ends = np.full(len(choice), ALPHA_ONE)
    cut = np.flatnonzero(greatest[choice] > upper)
    ends[cut] = first_alphas(codec, choice[cut], upper[cut], beyond=True)
    kept = np.flatnonzero(ends > firsts)  # on a coarse grid an interval may lie between two cells
    return _Runs(choice[kept], firsts[kept], (ends - firsts)[kept])


def first_alphas(
    codec: NumericCodec, choices: NDArray[np.intp], bounds: NDArray[Any], *, beyond: bool
) -> NDArray[np.int64]:
    """Return the first alpha of each component whose cell reaches a bound, or passes it where `beyond`; shape (n,).

    It is ALPHA_ONE where none does.

    Args:
        codec: The codec.
        choices: The components, shape (n,).
        bounds: Native values, shape (n,).
        beyond: Whether a cell equal to its bound does not count.
    """

    def reached(alphas: NDArray[np.int64]) -> NDArray[np.bool_]:
        cells = _cells(codec, choices, np.clip(alphas, -ALPHA_ONE, ALPHA_ONE - 1))
        found: NDArray[np.bool_] = cells > bounds if beyond else cells >= bounds
        return found

    # Where it should be, from the middle between two cells; searched for everywhere where it is not there.
    middle = codec.positions(bounds) + (0.5 if beyond else -0.5) * codec.on_grid
    with np.errstate(over="ignore", invalid="ignore"):
        near = np.nan_to_num((middle - codec.centers[choices]) / codec.widths[choices] * ALPHA_ONE)
    near = np.clip(near, -ALPHA_ONE, ALPHA_ONE).astype(np.int64)
    low, high = np.maximum(near - _NEAR, -ALPHA_ONE), np.minimum(near + _NEAR, ALPHA_ONE)
    low = np.where((low > -ALPHA_ONE) & reached(low - 1), -ALPHA_ONE, low)
    high = np.where((high < ALPHA_ONE) & ~reached(high), ALPHA_ONE, high)
    while (low < high).any():
        half = (low + high) >> 1
        over = reached(half) | (low == high)
        high = np.where(over, half, high)
        low = np.where(over, low, half + 1)
    return low


def _cells(codec: NumericCodec, choices: NDArray[np.intp], alphas: NDArray[np.int64]) -> NDArray[Any]:
    cells: NDArray[Any] = codec.decode(choices, alphas).values
    return cells
