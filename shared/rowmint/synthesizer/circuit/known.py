"""Known cells of one column, many at once: the choices that each may be drawn by, and its share of their laws.

A known category is its choice, or its weight among the rare ones' choice. A known number on the grid is what some of
the equally likely alphas of a component decode to, or a point: a share is a probability. A number off the grid has the
density of the components that it lies in, one over their width; but a point there, or a bound that alphas are lowered
or raised to, has a probability, which outweighs any density. A number that never occurs stands for the nearest that
does.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs import CategoryCodec, NumericCodec
from rowmint.codecs.category import WEIGHT_ONE
from rowmint.codecs.numeric import ALPHA_ONE
from rowmint.codecs.shares import ALPHAS, first_alphas
from rowmint.schema import INT64_MAX, INT64_MIN, Cell, DataType
from rowmint.schema.arrays import native_number
from rowmint.synthesizer.heads import ColumnHead

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]
REMEMBERED_CELLS = 1 << 16
"""Cells that all columns of a model remember together."""
_CELL_BYTES = 256  # of a remembered cell, about
_CATEGORY_BYTES = 72  # of the number that a category is looked up by


@dataclass(frozen=True)
class Alternatives:
    """Which choices some rows' known cells may be drawn by.

    Attributes:
        rows: The row of each alternative, ascending, shape (alternatives,).
        choices: Its choice; a row has each choice once.
        shares: Share of the choice's own law that is the cell, above 0: a probability, or a density.
    """

    rows: Int64
    choices: Int64
    shares: Float64

    def take(self, index: NDArray[np.intp]) -> "Alternatives":
        """Return some of the alternatives; `index` ascends."""
        return Alternatives(self.rows[index], self.choices[index], self.shares[index])

    def of_rows(self, rows: Int64) -> "Alternatives":
        """Return those of some rows, shape (n,), which are numbered from 0 in the result."""
        index, place = runs(np.searchsorted(self.rows, rows), np.searchsorted(self.rows, rows, side="right"))
        return Alternatives(place, self.choices[index], self.shares[index])


def runs(starts: NDArray[np.integer], stops: NDArray[np.integer]) -> tuple[Int64, Int64]:
    """Return the numbers from each start to its stop, one run after another, and which run each is of."""
    lengths = np.maximum(stops - starts, 0).astype(np.int64)
    run = np.repeat(np.arange(len(lengths)), lengths)
    return np.arange(len(run)) + (starts - (np.cumsum(lengths) - lengths))[run], run


def joined(parts: Sequence[Alternatives]) -> Alternatives:
    """Return the alternatives of all parts; at least one part."""
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows, kind="stable")
    choices = np.concatenate([part.choices for part in parts])[order]
    return Alternatives(rows[order], choices, np.concatenate([part.shares for part in parts])[order])


def remembered_cells(columns: int) -> int:
    """Return how many cells each column of a model remembers."""
    return REMEMBERED_CELLS // max(columns, 1)


def known_bytes(heads: Sequence[ColumnHead]) -> int:
    """Return about what the known cells of a model's columns are looked up and remembered in, at most.

    A column remembers no more categories than it has, and a missing cell.
    """
    most, total = remembered_cells(len(heads)), 0
    for head in heads:
        if isinstance(head.codec, CategoryCodec):
            size = len(head.column.domain.categories)
            total += size * _CATEGORY_BYTES + min(most, size + 1) * _CELL_BYTES
        else:
            total += most * _CELL_BYTES
    return total


@dataclass(frozen=True)
class _Remembered:
    """What cells were found to be.

    Attributes:
        places: Number of each cell, by the cell.
        starts: First alternative of each number, and the number of alternatives, int64, shape (numbers + 1,).
        found: Their alternatives.
        moved: Which numbers stand for the nearest number that occurs, bool, shape (numbers,).
    """

    places: dict[Any, int]
    starts: Int64
    found: Alternatives
    moved: NDArray[np.bool_]


def _nothing() -> Alternatives:
    return Alternatives(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


class KnownColumn:
    """What known cells of a column are to its codec. Thread-safe; what was found lately is remembered.

    Args:
        head: The column.
        most_remembered: Cells that are remembered.
    """

    def __init__(self, head: ColumnHead, most_remembered: int = REMEMBERED_CELLS) -> None:
        self._head = head
        self._most_remembered = most_remembered
        self._lock = threading.Lock()
        self._remembered = _Remembered({}, np.zeros(1, np.int64), _nothing(), np.zeros(0, np.bool_))
        # A float stands for another decimal number than the Decimal that equals it.
        self._by_type = head.column.data_type is DataType.DECIMAL
        self._numbers = _KnownNumbers(head) if isinstance(head.codec, NumericCodec) else None
        self._codes = {cell: code for code, cell in enumerate(head.column.domain.categories)}

    def alternatives(self, cells: Sequence[Cell]) -> tuple[Alternatives, NDArray[np.bool_]]:
        """Return the alternatives of valid cells, and which cells stand for the nearest one that occurs.

        Args:
            cells: The cells, n of them.

        Returns:
            The alternatives, rows being places in `cells`: none of a cell that never occurs. And bool, shape (n,): the
            alternatives of these cells are those of the nearest number that occurs.
        """
        keys = [(type(cell), cell) for cell in cells] if self._by_type else cells
        with self._lock:
            places = self._remembered.places
            try:
                place = np.fromiter(map(places.__getitem__, keys), np.int64, len(keys))
            except KeyError:
                new = {key: cell for key, cell in zip(keys, cells, strict=True) if key not in places}
                if len(places) + len(new) > self._most_remembered:
                    self._remembered = _Remembered({}, np.zeros(1, np.int64), _nothing(), np.zeros(0, np.bool_))
                    new = dict(zip(keys, cells, strict=True))
                self._remember(new)
                place = np.fromiter(map(self._remembered.places.__getitem__, keys), np.int64, len(keys))
            known = self._remembered
        index, row = runs(known.starts[place], known.starts[place + 1])
        return Alternatives(row, known.found.choices[index], known.found.shares[index]), known.moved[place]

    def _remember(self, new: Mapping[Any, Cell]) -> None:
        """Add cells to those remembered."""
        before = self._remembered
        found, moved = self._distinct(list(new.values()))
        first = len(before.places)
        rows = np.concatenate([before.found.rows, found.rows + first])
        choices = np.concatenate([before.found.choices, found.choices])
        shares = np.concatenate([before.found.shares, found.shares])
        starts = np.searchsorted(rows, np.arange(first + len(new) + 1))
        # The dictionary is read under the lock alone.
        before.places.update(zip(new, range(first, first + len(new)), strict=True))
        together = np.concatenate([before.moved, moved])
        self._remembered = _Remembered(before.places, starts, Alternatives(rows, choices, shares), together)

    def _distinct(self, cells: Sequence[Cell]) -> tuple[Alternatives, NDArray[np.bool_]]:
        codec = self._head.codec
        known = np.array([row for row, cell in enumerate(cells) if cell is not None], np.int64)
        missing = np.array([row for row, cell in enumerate(cells) if cell is None and codec.nullable], np.int64)
        absent = Alternatives(missing, np.full(len(missing), codec.choices - 1), np.ones(len(missing)))
        values = [cell for cell in cells if cell is not None]
        moved = np.zeros(len(cells), np.bool_)
        if isinstance(codec, CategoryCodec):
            found = self._categories(codec, values)
        elif self._numbers is not None:
            found, moved[known] = self._numbers.alternatives(values)
        return joined([Alternatives(known[found.rows], found.choices, found.shares), absent]), moved

    def _categories(self, codec: CategoryCodec, cells: Sequence[Cell]) -> Alternatives:
        codes = np.array([self._codes[cell] for cell in cells], np.int64)
        shares = np.ones(len(codes))
        rare = np.flatnonzero(codes >= codec.frequent)
        shares[rare] = codec.rare_weights[codes[rare] - codec.frequent] / WEIGHT_ONE
        kept = np.flatnonzero(shares)
        return Alternatives(kept, np.minimum(codes, codec.frequent)[kept], shares[kept])


class _KnownNumbers:
    """What known numbers of a column are to its codec.

    Args:
        head: The column.
    """

    def __init__(self, head: ColumnHead) -> None:
        if not isinstance(head.codec, NumericCodec):
            raise TypeError("the column has no order")
        codec = self._codec = head.codec
        self._column = head.column
        half = 0.5 * codec.on_grid
        lows, highs = codec.centers - codec.widths - half, codec.centers + codec.widths + half
        self._by_low = np.argsort(lows, kind="stable")
        self._lows = lows[self._by_low]
        self._highs = np.maximum.accumulate(highs[self._by_low])  # of all components up to there
        self._by_point = np.argsort(codec.points, kind="stable")
        self._points = codec.points[self._by_point]
        components = np.arange(len(codec.centers))
        ends = [codec.decode(components, np.full(len(components), at)).values for at in (-ALPHA_ONE, ALPHA_ONE - 1)]
        self._edges = np.unique(np.concatenate([codec.positions(end) for end in ends] + [codec.points]))

    def alternatives(self, cells: Sequence[Cell]) -> tuple[Alternatives, NDArray[np.bool_]]:
        """Return the alternatives of numbers, and which never occur: theirs are those of the nearest that does."""
        x, possible = self._positions(cells)
        found = self._at(x)
        never = np.bincount(found.rows, minlength=len(x)) == 0
        rows = np.flatnonzero(never)
        near = self._at(self._nearest(x[rows]))
        return joined([found, Alternatives(rows[near.rows], near.choices, near.shares)]), never | ~possible

    def _positions(self, cells: Sequence[Cell]) -> tuple[Float64, NDArray[np.bool_]]:
        """Return where the numbers stand, on the grid where there is one, and which are numbers that it has."""
        codec = self._codec
        if not codec.integral:
            values = np.array([float(cell) for cell in cells], np.float64)  # type: ignore[arg-type] # numbers, validated
            exact = np.ones(len(values), np.bool_)
        elif self._column.data_type is DataType.INT64 and set(map(type, cells)) <= {int}:
            values = np.array(cells, np.int64)
            exact = np.ones(len(values), np.bool_)
        else:
            numbers = [native_number(cell, self._column) for cell in cells]
            whole = [min(max(round(number), INT64_MIN), INT64_MAX) for number in numbers]
            values = np.array(whole, np.int64)
            exact = np.array([number == own for number, own in zip(numbers, whole, strict=True)], np.bool_)
        x = codec.positions(values)
        if codec.on_grid:
            x = np.rint(x)
            exact &= codec.natives(x) == values
        inside = np.clip(x, codec.lower, codec.upper)
        return inside, exact & (inside == x)

    def _nearest(self, x: Float64) -> Float64:
        """Return the nearest ends of components, or points."""
        after = np.minimum(np.searchsorted(self._edges, x), len(self._edges) - 1)
        before = np.maximum(after - 1, 0)
        nearer = np.abs(self._edges[before] - x) <= np.abs(self._edges[after] - x)
        found: Float64 = np.where(nearer, self._edges[before], self._edges[after])
        return found

    def _at(self, x: Float64) -> Alternatives:
        """Return the alternatives of the numbers at some positions."""
        codec = self._codec
        index, row = runs(np.searchsorted(self._points, x), np.searchsorted(self._points, x, side="right"))
        points = Alternatives(row, len(codec.centers) + self._by_point[index], np.ones(len(row)))
        index, row = runs(np.searchsorted(self._highs, x), np.searchsorted(self._lows, x, side="right"))
        components = self._by_low[index]
        widths = codec.widths[components]
        within = np.abs(x[row] - codec.centers[components]) <= widths
        bounds = codec.natives(x)[row]
        counts = first_alphas(codec, components, bounds, beyond=True)
        counts -= first_alphas(codec, components, bounds, beyond=False)
        shares = counts / ALPHAS
        if codec.on_grid:
            # So many numbers that alphas pass over most of them: each as probable as the others.
            coarse = within & (widths > ALPHA_ONE)
            shares[coarse] = 0.5 / widths[coarse]
            some = np.flatnonzero(shares)
            return joined([points, Alternatives(row[some], components[some], shares[some])])
        # One alpha gives a number within a component by chance; at a bound it is a probability.
        at_bound = (x == codec.lower) | (x == codec.upper)
        some = np.flatnonzero((counts > 0) & at_bound[row])
        probable = np.zeros(len(x), np.bool_)
        probable[points.rows] = True
        probable[row[some]] = True
        rest = np.flatnonzero(within & ~probable[row])
        return joined(
            [
                points,
                Alternatives(row[some], components[some], shares[some]),
                Alternatives(row[rest], components[rest], 0.5 / widths[rest]),
            ]
        )
