"""Bins: each column's choices in groups of enough rows, which are all that the circuit sees of it.

Neighbours go together: of an ordered column those in its order, of a categorical one those whose rows are alike in
another column. A choice with enough rows is a bin of its own. Within a bin, choices are drawn by their frequencies.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs import CategoryCodec, NumericCodec
from trainer_service.fitting.families.circuit.whole import whole_by_group

_WITHIN = 0.999  # below the distance of two bins
MAX_BINS = 512
"""Most bins of a column that the sampler reads."""


@dataclass(frozen=True)
class ColumnBins:
    """The bins of a column.

    Attributes:
        of: Bin of each choice, uint16, shape (choices,).
        counts: Training rows of each bin, float64, shape (bins,).
        weights: Weight of each choice within its bin, uint32, sum `ONE` in each; shape (choices,).
        groups: Group of each bin, ascending: neighbours whose statistics support each other; shape (bins,).
    """

    of: NDArray[np.uint16]
    counts: NDArray[np.float64]
    weights: NDArray[np.uint32]
    groups: NDArray[np.int64]

    @property
    def size(self) -> int:
        """Number of bins."""
        return len(self.counts)


def column_bins(
    codec: CategoryCodec | NumericCodec,
    counts: NDArray[np.int64],
    likeness: NDArray[np.float64] | None,
    *,
    of_choice: NDArray[np.int64] | None = None,
    most: int,
    least: int,
    most_groups: int,
) -> ColumnBins:
    """Group the choices of a column.

    Args:
        codec: The column's codec; of a joint column, that of the column whose order it has.
        counts: Training rows of each choice, shape (choices,).
        likeness: Of a categorical column, where each choice stands among those that are alike, shape (choices,); None
            for the order of the codes.
        of_choice: Of a joint column, the choice of that column for each of its own; shape (choices,).
        most: Bins of a column with more than twice as many choices; fewer choices have a bin each, where rows suffice.
        least: Rows that a bin has at least, unless the column has fewer.
        most_groups: Groups of bins.
    """
    used = np.flatnonzero(counts)
    if not len(used):
        used = np.zeros(1, np.intp)
    heavy_ones, light_rows = np.count_nonzero(counts >= least), int(counts[counts < least].sum())
    each = heavy_ones <= 2 * most and heavy_ones + light_rows // least <= MAX_BINS
    target = max(least, int(counts.sum()) // most)
    alone = least if each else target
    if isinstance(codec, NumericCodec):
        places = _places(codec)[used if of_choice is None else of_choice[used]]
        present = used[np.argsort(places, kind="stable")][: np.count_nonzero(places < np.inf)]
        runs = _runs(present, counts, alone, target)
        runs += _runs(used[places == np.inf], counts, alone, target)  # missing stands beside no value
        chain = True
    else:
        heavy = used[counts[used] >= alone]
        light = used[counts[used] < alone]
        if likeness is not None:
            light = light[np.argsort(likeness[light], kind="stable")]
        runs = [*([choice] for choice in heavy.tolist()), *_runs(light, counts, alone, target)]
        chain = False
    runs = _joined(runs, counts, least)
    of = np.zeros(len(counts), np.uint16)
    for number, run in enumerate(runs):
        of[run] = number
    mass: NDArray[np.float64] = np.bincount(of, counts, len(runs)).astype(np.float64)
    weights = _within(counts, of, mass)
    groups = equal_groups(mass, most_groups) if chain else np.arange(len(runs))
    return ColumnBins(of, mass, weights, groups)


def _places(codec: NumericCodec) -> NDArray[np.float64]:
    """Return where each choice of an ordered column stands; missing comes last."""
    return np.concatenate([codec.centers, codec.points, np.full(int(codec.nullable), np.inf)])


def _runs(ordered: NDArray[np.integer], counts: NDArray[np.int64], alone: int, target: int) -> list[list[int]]:
    """Cut choices in order into runs of at least `target` rows; choices of `alone` rows stand alone, and end a run."""
    runs: list[list[int]] = []
    run: list[int] = []
    mass = 0
    for choice, count in zip(ordered.tolist(), counts[ordered].tolist(), strict=True):
        if count >= alone and run:
            runs.append(run)
            run, mass = [], 0
        run.append(choice)
        mass += count
        if count >= alone or mass >= target:
            runs.append(run)
            run, mass = [], 0
    if run:
        runs.append(run)
    return runs


def _joined(runs: Sequence[list[int]], counts: NDArray[np.int64], least: int) -> list[list[int]]:
    """Join the smallest runs to the smaller of their neighbours until each has `least` rows and `MAX_BINS` are left."""
    joined = [list(run) for run in runs]
    mass = [int(counts[run].sum()) for run in joined]
    while len(joined) > MAX_BINS or (len(joined) > 1 and min(mass) < least):
        at = mass.index(min(mass))
        beside = [place for place in (at - 1, at + 1) if 0 <= place < len(joined)]
        other = min(beside, key=lambda place: mass[place])
        low, high = min(at, other), max(at, other)
        joined[low] += joined[high]
        mass[low] += mass[high]
        del joined[high], mass[high]
    return joined


def equal_groups(mass: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """Return a group for each bin, ascending, equal in mass as far as possible."""
    if len(mass) <= most:
        return np.arange(len(mass))
    middle = (np.cumsum(mass) - mass / 2) / mass.sum()
    group = np.minimum((middle * most).astype(np.int64), most - 1)
    found: NDArray[np.int64] = np.unique(group, return_inverse=True)[1]
    return found


def likeness(
    choices: NDArray[np.integer], column: int, size: int, bins: Mapping[int, ColumnBins], between: Callable[[], None]
) -> NDArray[np.float64] | None:
    """Return where each choice of a categorical column stands, by the column that tells most about it.

    Choices whose rows lie mostly in one bin of that column stand together, ordered within by how they lean.

    Args:
        choices: Choices of some of the training rows, shape (columns, n).
        column: The column's position.
        size: Number of its choices.
        bins: Bins of the columns compared with, by position.
        between: Called before each of these; it may raise.

    Returns:
        Shape (choices,); None where no column tells anything.
    """
    # Only choices that these rows have: a table of a column of thousands is then no larger than the rows allow.
    used, codes = np.unique(choices[column], return_inverse=True)
    best, chosen = 0, None
    for other, of in bins.items():
        between()
        found = _joint(codes, len(used), of, choices[other])
        # Rows whose bin is guessed given their choice, above chance; a choice of one row is no evidence.
        guessed = int(found.max(axis=0).sum()) - int(found.sum(axis=1).max()) - len(used)
        if guessed > best:
            best, chosen = guessed, other
    if chosen is None:
        return None
    found = _joint(codes, len(used), bins[chosen], choices[chosen])
    mean = (np.arange(len(found)) @ found) / found.sum(axis=0) / len(found)
    place = np.zeros(size)
    place[used] = found.argmax(axis=0) + _WITHIN * mean
    return place


def _joint(codes: NDArray[np.integer], size: int, of: ColumnBins, choices: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the rows of each bin and code, shape (bins, size)."""
    return np.bincount(of.of[choices] * np.int64(size) + codes, minlength=of.size * size).reshape(of.size, size)


def _within(counts: NDArray[np.int64], of: NDArray[np.uint16], mass: NDArray[np.float64]) -> NDArray[np.uint32]:
    """Return the weight of each choice within its bin; in a bin without rows the first choice gets all."""
    order = np.argsort(of, kind="stable")
    starts = np.searchsorted(of[order], np.arange(len(mass)))
    values = counts[order].astype(np.float64)
    values[starts[mass == 0]] = 1.0
    weights = np.zeros(len(counts), np.uint32)
    weights[order] = whole_by_group(values, starts)
    return weights
