"""How much the rows a fit would make now are like rows it does not train on: a score for the events, and for stopping.

Shapes compare single columns, pairs compare all pairs of columns: one minus the total variation distance of their
frequencies, over categories and over tenths of an ordered column's real values. What two samples of real rows lie
apart by chance is taken off. It is not an SDMetrics score, but correlates with one, and takes milliseconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs import CategoryCodec, NumericCodec
from trainer_service.fitting.encoding.encoded_table import EncodedRows

PROBE_ROWS = 4096
MAX_PAIRS = 200
_MAX_CELLS = 64  # of one column; rarer ones count together
_PARTS = 10  # of an ordered column
_LEAST_DISTINCT = 0.02


@dataclass(frozen=True)
class Score:
    """How like real rows some rows are, each 0 to 1.

    Attributes:
        shapes: Mean likeness of single columns.
        pairs: Mean likeness of pairs of columns.
        distinct: Different rows, as a share of how many as many real rows have.
    """

    shapes: float
    pairs: float
    distinct: float

    @property
    def quality(self) -> float:
        """The mean of shapes and pairs."""
        return (self.shapes + self.pairs) / 2

    @property
    def collapsed(self) -> bool:
        """Whether nearly all rows are alike."""
        return self.distinct < _LEAST_DISTINCT

    def to_json(self) -> dict[str, float]:
        """Return the scores by name."""
        return {name: round(getattr(self, name), 5) for name in ("quality", "shapes", "pairs", "distinct")}


class Probe:
    """Scores rows against real ones.

    Args:
        codecs: Codecs of the modelled columns, c of them.
        real: Rows that are compared with.
        other: As many other real rows: what they lie apart from `real` is chance.
        held_out: Whether `real` takes no part in training.
    """

    def __init__(
        self, codecs: Sequence[CategoryCodec | NumericCodec], real: EncodedRows, other: EncodedRows, *, held_out: bool
    ) -> None:
        self.held_out = held_out
        self.rows = len(real.choices)
        self._codecs = codecs
        self._edges = [None if values is None else _parts(values[~np.isnan(values)]) for values in self._values(real)]
        cells = self._cells(real)
        self._lists = [_commonest(cells[:, column]) for column in range(len(codecs))]
        pairs = list(combinations(range(len(codecs)), 2))
        chosen = np.linspace(0, len(pairs) - 1, min(len(pairs), MAX_PAIRS)).astype(int)
        self._pairs = [pairs[index] for index in chosen.tolist()]
        self._real = self._frequencies(cells)
        self._distinct = _distinct(cells)
        self._chance = self._distances(self._cells(other))

    def score(self, made: EncodedRows) -> Score:
        """Return the score of rows."""
        cells = self._cells(made)
        shapes, pairs = (
            1.0 if not len(found) else float(1 - np.maximum(found - chance, 0).mean())
            for found, chance in zip(self._distances(cells), self._chance, strict=True)
        )
        return Score(shapes, pairs, min(1.0, _distinct(cells) / self._distinct))

    def _cells(self, rows: EncodedRows) -> NDArray[np.int64]:
        cells = rows.choices.astype(np.int64)
        for column, (values, edges) in enumerate(zip(self._values(rows), self._edges, strict=True)):
            if values is not None and edges is not None:
                missing = np.isnan(values)
                cells[:, column] = np.where(missing, -1, np.searchsorted(edges, values, side="right"))
        return cells

    def _values(self, rows: EncodedRows) -> list[NDArray[np.float64] | None]:
        """Return the place of each cell of an ordered column, shape (n,); None for categories."""
        found: list[NDArray[np.float64] | None] = []
        scalar = 0
        for column, codec in enumerate(self._codecs):
            if not isinstance(codec, NumericCodec):
                found.append(None)
                continue
            alpha = rows.alpha[:, scalar] if codec.scalar else np.zeros(len(rows.choices), np.float32)
            scalar += codec.scalar
            found.append(_places(codec, rows.choices[:, column], alpha))
        return found

    def _frequencies(self, cells: NDArray[np.int64]) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
        places = []
        for column, commonest in enumerate(self._lists):
            place = np.minimum(np.searchsorted(commonest, cells[:, column]), len(commonest) - 1)
            places.append(np.where(commonest[place] == cells[:, column], place, len(commonest)))
        sizes = [len(commonest) + 1 for commonest in self._lists]
        shapes = [np.bincount(place, minlength=size) / len(cells) for place, size in zip(places, sizes, strict=True)]
        pairs = [
            np.bincount(places[one] * sizes[two] + places[two], minlength=sizes[one] * sizes[two]) / len(cells)
            for one, two in self._pairs
        ]
        return shapes, pairs

    def _distances(self, cells: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        shapes, pairs = (
            np.array([np.abs(one - two).sum() / 2 for one, two in zip(found, real, strict=True)])
            for found, real in zip(self._frequencies(cells), self._real, strict=True)
        )
        return shapes, pairs


def _places(codec: NumericCodec, choices: NDArray[np.integer], alpha: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the decoded x of cells, shape (n,); NaN where missing."""
    nothing = np.zeros(len(codec.points))
    centers = np.concatenate([codec.centers, codec.points, [np.nan] * codec.nullable])
    widths = np.concatenate([codec.widths, nothing, [0.0] * codec.nullable])
    places: NDArray[np.float64] = centers[choices] + widths[choices] * alpha
    return places


def _parts(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where an ordered column is cut, ascending."""
    return np.unique(np.quantile(values, np.arange(1, _PARTS) / _PARTS)) if len(values) else values


def _commonest(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    values, counts = np.unique(cells, return_counts=True)
    return np.sort(values[np.argsort(-counts, kind="stable")[:_MAX_CELLS]])


def _distinct(cells: NDArray[np.int64]) -> int:
    return len(np.unique(np.ascontiguousarray(cells).view(f"V{cells.shape[1] * 8}")))
