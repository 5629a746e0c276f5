"""The independent family: each column by its own marginal. The baseline of every report."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs.category import WEIGHT_ONE, draw_weighted
from rowmint.columns import ColumnArray, column_cells
from rowmint.conditions import ColumnCondition
from rowmint.errors import DataLossError
from rowmint.rng import TileKey
from rowmint.schema import Cell, TableSchema
from rowmint.synthesizer.heads import ColumnHead
from rowmint.synthesizer.interface import Completer, Completion, ConditionSupport, Tile, TileQuery
from rowmint.synthesizer.tables import ALPHA_ONE


class IndependentSynthesizer:
    """Draws every column's slot by its frequency and its scalar uniformly. Immutable, thread-safe.

    Args:
        schema: Shape of the rows.
        heads: The modelled columns by name.
        weights: Integer weights of each column's slots, sum 2**32, by name.
    """

    support = ConditionSupport.ANY_SUBSET

    def __init__(
        self, schema: TableSchema, heads: dict[str, ColumnHead], weights: dict[str, NDArray[np.uint64]]
    ) -> None:
        for name, head in heads.items():
            if weights[name].shape != (head.codec.slots,):
                raise DataLossError(f"column {name!r} has {head.codec.slots} slots and {weights[name].shape} weights")
            if int(weights[name].sum(dtype=np.uint64)) != WEIGHT_ONE:
                raise DataLossError(f"the weights of column {name!r} do not sum to one")
        self.schema = schema
        self.heads = heads
        self.weights = weights

    def query(self, conditions: Sequence[ColumnCondition], columns: Sequence[str]) -> TileQuery:
        """Make ready to draw `columns` of rows that satisfy `conditions`."""
        return _IndependentQuery(self, conditions, columns)

    def driving_column(self, conditions: Sequence[ColumnCondition]) -> str:
        """Return the first tested column: every one is drawn from its own restricted marginal."""
        return conditions[0].column if conditions else ""

    def completer(self, key: TileKey, candidates: int, tolerance: float) -> Completer:
        """Return a completer; what is known tells nothing of what is not, so no candidates are needed."""
        return _IndependentCompleter(self, candidates, tolerance)


def _draw(head: ColumnHead, cumulative: NDArray[np.uint64], key: TileKey, size: int) -> ColumnArray:
    slots = draw_weighted(cumulative, head.slot_words(key, size))
    alpha = None
    if head.codec.scalar:
        words = key.words32(f"alpha:{head.index}", size)
        alpha = (words >> np.uint64(8)).astype(np.int64) - ALPHA_ONE  # 24 bits: -1 to 1
    return head.decode(slots, alpha, head.extra_words(key, size))


class _IndependentQuery:
    def __init__(
        self, model: IndependentSynthesizer, conditions: Sequence[ColumnCondition], columns: Sequence[str]
    ) -> None:
        self._conditions = tuple(conditions)
        self._columns = tuple(columns)
        self._cumulative: dict[str, NDArray[np.uint64]] = {}
        self._heads: list[ColumnHead] = []
        tests = {condition.column: condition for condition in conditions}
        for name in dict.fromkeys((*tests, *columns)):
            head = model.heads[name]
            weights = model.weights[name]
            if name in tests:
                # The marginal, restricted to slots that can pass: a column's own rejection changes no other column.
                weights = np.where(head.reachable(tests[name]), weights, np.uint64(0))
            self._heads.append(head)
            self._cumulative[name] = np.cumsum(weights, dtype=np.uint64)

    def tile(self, key: TileKey, size: int) -> Tile:
        """Draw `size` candidates and keep those that satisfy the conditions."""
        if any(cumulative[-1] == 0 for cumulative in self._cumulative.values()):
            empty = {head.column.name: _draw_nothing(head) for head in self._heads}
            return Tile(size, 0, {name: empty[name] for name in self._columns})
        columns = {head.column.name: _draw(head, self._cumulative[head.column.name], key, size) for head in self._heads}
        passed = np.ones(size, np.bool_)
        for condition in self._conditions:
            passed &= condition.satisfied(columns[condition.column])
        index = np.flatnonzero(passed)
        return Tile(size, len(index), {name: columns[name].take(index) for name in self._columns})


def _draw_nothing(head: ColumnHead) -> ColumnArray:
    return head.decode(np.zeros(0, np.intp), np.zeros(0, np.int64) if head.codec.scalar else None, None)


class _IndependentCompleter:
    def __init__(self, model: IndependentSynthesizer, candidates: int, tolerance: float) -> None:
        self._model = model
        self._cumulative = {name: np.cumsum(weights, dtype=np.uint64) for name, weights in model.weights.items()}
        self._candidates = candidates
        self._tolerance = tolerance

    def complete(self, known: dict[str, Cell], key: TileKey) -> Completion:
        """Draw every unknown column from its marginal."""
        cells = dict(known)
        for name, head in self._model.heads.items():
            if name not in known:
                (cells[name],) = column_cells(_draw(head, self._cumulative[name], key, 1), head.column)
        return Completion(cells, float(self._candidates), self._tolerance)
