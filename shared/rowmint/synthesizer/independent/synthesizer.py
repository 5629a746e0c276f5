"""The independent family: each column by its own marginal. The baseline of every report."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs import entry
from rowmint.codecs.category import draw_weighted, sum_to_one
from rowmint.conditions import ColumnCondition
from rowmint.errors import DataLossError
from rowmint.rng import TileKey
from rowmint.schema import Cell, TableSchema
from rowmint.schema.arrays import ColumnArray, column_cells
from rowmint.synthesizer.exact.tables import ALPHA_ONE
from rowmint.synthesizer.interface import Candidates, Completer, Completion, ConditionSupport, TileQuery
from rowmint.synthesizer.latent.heads import ColumnHead


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
            if not sum_to_one(weights[name]):
                raise DataLossError(f"the weights of column {name!r} do not sum to one")
        self.schema = schema
        self.heads = heads
        self.weights = weights

    @classmethod
    def load(
        cls, schema: TableSchema, heads: dict[str, ColumnHead], arrays: Mapping[str, NDArray[np.generic]]
    ) -> "IndependentSynthesizer":
        """Return the synthesizer whose weights are ``slots.{index of the column}``.

        Raises:
            DataLossError: One is missing or malformed.
        """
        try:
            weights = {name: entry.array(arrays, f"slots.{head.index}", np.uint64) for name, head in heads.items()}
        except KeyError as error:
            raise DataLossError(f"the model's weights lack {error.args[0]!r}") from error
        except ValueError as error:
            raise DataLossError(f"the model's weights are malformed: {error}") from error
        return cls(schema, heads, weights)

    def query(self, conditions: Sequence[ColumnCondition], columns: Sequence[str]) -> TileQuery:
        """Make ready to draw `columns` of rows that satisfy `conditions`."""
        return _IndependentQuery(self, conditions, columns)

    def conditioned_column(self, conditions: Sequence[ColumnCondition]) -> str:
        """Return the first tested column: every one is drawn from its own restricted marginal."""
        return conditions[0].column if conditions else ""

    def completer(self, key: TileKey, candidates: int, tolerance: float) -> Completer:
        """Return a completer; what is known tells nothing of what is not, so no candidates are needed."""
        return _IndependentCompleter(self, candidates, tolerance)


def _draw(head: ColumnHead, cumulative: NDArray[np.uint64], key: TileKey, size: int) -> ColumnArray:
    slots = draw_weighted(cumulative, head.slot_words(key, size).astype(np.uint64))
    alpha = None
    if head.codec.scalar:
        words = key.words32(f"alpha:{head.index}", size)
        alpha = (words >> np.uint32(8)).astype(np.int64) - ALPHA_ONE  # 24 bits: -1 to 1
    return head.decode(slots, alpha, head.extra_words(key, size))


class _IndependentQuery:
    def __init__(
        self, model: IndependentSynthesizer, conditions: Sequence[ColumnCondition], columns: Sequence[str]
    ) -> None:
        self._conditions = tuple(conditions)
        self._columns = tuple(columns)
        self._heads = model.heads
        self._cumulative = {name: np.cumsum(weights, dtype=np.uint64) for name, weights in model.weights.items()}
        for test in conditions:
            # The marginal, restricted to slots that can pass: a column's own rejection changes no other column.
            weights = np.where(model.heads[test.column].reachable(test), model.weights[test.column], np.uint64(0))
            self._cumulative[test.column] = np.cumsum(weights, dtype=np.uint64)

    def candidates(self, key: TileKey, size: int) -> Candidates:
        """Draw the tested columns of `size` candidates and keep those that satisfy the conditions."""
        cells = {test.column: self._tested(test.column, key, size) for test in self._conditions}
        passed = np.full(size, all(len(array) for array in cells.values()))
        for test in self._conditions:
            if len(cells[test.column]):
                passed &= test.satisfied(cells[test.column])
        index = np.flatnonzero(passed)
        return Candidates(len(index), {}, {name: array.take(index[: len(array)]) for name, array in cells.items()})

    def columns(self, found: Candidates, key: TileKey) -> dict[str, ColumnArray]:
        """Draw the untested columns."""
        return {
            name: found.cells[name]
            if name in found.cells
            else _draw(self._heads[name], self._cumulative[name], key, found.size)
            for name in self._columns
        }

    def _tested(self, name: str, key: TileKey, size: int) -> ColumnArray:
        cumulative = self._cumulative[name]
        return _draw(self._heads[name], cumulative, key, size if cumulative[-1] else 0)


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
