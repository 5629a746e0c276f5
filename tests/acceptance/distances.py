"""How far two tables are apart: every one-column marginal and every pair table."""

from itertools import combinations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

QUANTILES = 10


class Bins:
    """Numbers the cells of tables of one schema: categories by value, numbers by quantile bins, missing cells apart.

    A number on the edge of two bins has a bin of its own, so that a value that repeats, as the 0 of a bonus that most
    do not get, is compared as the category it is.

    Args:
        reference: Its quantiles are the edges.
        columns: Columns compared.
    """

    def __init__(self, reference: pa.Table, columns: list[str]) -> None:
        self.sizes: dict[str, int] = {}
        self._edges: dict[str, NDArray[np.float64]] = {}
        self._categories: dict[str, pa.Array] = {}
        for name in columns:
            if pa.types.is_dictionary(reference[name].type):
                # A model's dictionaries are its full category lists, the same in every stream.
                self._categories[name] = reference[name].combine_chunks().dictionary
                self.sizes[name] = len(self._categories[name]) + 1
                continue
            numbers = _numbers(reference[name])
            inner = np.linspace(0, 1, QUANTILES + 1)[1:-1]
            edges = np.unique(np.quantile(numbers[~np.isnan(numbers)], inner))
            self._edges[name] = edges
            self.sizes[name] = 2 * len(edges) + 2

    def codes(self, table: pa.Table) -> dict[str, NDArray[np.intp]]:
        """Return the bin of each cell by column, each shape (rows,)."""
        return {name: self._codes(name, table[name]) for name in self.sizes}

    def _codes(self, name: str, column: pa.ChunkedArray) -> NDArray[np.intp]:
        missing = self.sizes[name] - 1
        if name in self._categories:
            found = pc.index_in(column.cast(pa.string()), value_set=self._categories[name])
            return np.asarray(pc.fill_null(found, missing)).astype(np.intp)
        numbers = _numbers(column)
        edges = self._edges[name]
        codes = np.searchsorted(edges, numbers, "left") + np.searchsorted(edges, numbers, "right")
        return np.where(np.isnan(numbers), missing, codes)


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    return np.asarray(pc.fill_null(column.cast(pa.float64()), np.nan))


def table_distances(bins: Bins, left: pa.Table, right: pa.Table) -> dict[tuple[str, ...], float]:
    """Return the total variation distance, 0 to 1, of each column and of each pair of columns."""
    ours, theirs = bins.codes(left), bins.codes(right)
    found = {(name,): _distance(ours[name], theirs[name], size) for name, size in bins.sizes.items()}
    for one, other in combinations(bins.sizes, 2):
        width = bins.sizes[other]
        found[one, other] = _distance(
            ours[one] * width + ours[other], theirs[one] * width + theirs[other], bins.sizes[one] * width
        )
    return found


def _distance(left: NDArray[np.intp], right: NDArray[np.intp], size: int) -> float:
    shares = [np.bincount(codes, minlength=size) / len(codes) for codes in (left, right)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def duplicates(table: pa.Table) -> int:
    """Return how many rows repeat an earlier one."""
    plain = pa.table({name: _plain(table[name]) for name in table.column_names})
    return len(plain) - len(plain.group_by(plain.column_names).aggregate([]))


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column


def ranking_quality(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve: how often a positive is scored above a negative, ties by half.

    By the sum of ranks (Mann and Whitney 1947).
    """
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    ours = int(positive.sum())
    return float((ranks[positive].sum() - ours * (ours + 1) / 2) / (ours * (len(scores) - ours)))
