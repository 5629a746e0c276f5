"""The independent family: each column by its own marginal. The baseline of every report."""

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs import NumericCodec, entry
from rowmint.codecs.category import draw_weighted, sum_to_one
from rowmint.codecs.numeric import ALPHA_ONE
from rowmint.conditions import ColumnCondition, ColumnWeights
from rowmint.errors import DataLossError
from rowmint.rng import TileKey
from rowmint.schema import Cell, TableSchema
from rowmint.schema.arrays import ColumnArray, column_cells
from rowmint.steps import Steps
from rowmint.synthesizer.heads import ColumnHead
from rowmint.synthesizer.interface import (
    TILE_SIZE,
    Candidates,
    Capabilities,
    CompletedCells,
    Completer,
    CompletionOptions,
    CompletionSupport,
    JsonObject,
    Proposal,
    RowKeys,
    Units,
    refuse_weights,
)
from rowmint.synthesizer.known_facts import KnownChoice, known_fact
from rowmint.synthesizer.parts import ModelParts


class IndependentSynthesizer:
    """Draws every column's choice by its frequency and its scalar uniformly. Immutable, thread-safe.

    Conditions are met by rejection: a column is drawn from its marginal, restricted to the bins and categories that can
    satisfy its condition, and a candidate is rejected where a value in such a bin does not.

    Args:
        schema: Shape of the rows.
        heads: The modelled columns by name.
        weights: Integer weights of each column's choices, sum 2**32, by name.

    Attributes:
        cumulative: Their cumulative sums.
    """

    capabilities = Capabilities()

    def __init__(
        self, schema: TableSchema, heads: dict[str, ColumnHead], weights: dict[str, NDArray[np.uint64]]
    ) -> None:
        for name, head in heads.items():
            if weights[name].shape != (head.codec.choices,):
                raise DataLossError(
                    f"column {name!r} has {head.codec.choices} choices and weights of shape {weights[name].shape}"
                )
            if not sum_to_one(weights[name]):
                raise DataLossError(f"the weights of column {name!r} do not sum to one")
        self.schema = schema
        self.heads = heads
        self.weights = weights
        self.cumulative = {name: np.cumsum(own, dtype=np.uint64) for name, own in weights.items()}

    @classmethod
    def load(cls, parts: ModelParts) -> "IndependentSynthesizer":
        """Return the synthesizer whose weights are ``slots.{index of the column}``.

        Raises:
            DataLossError: One is missing or malformed.
        """
        try:
            weights = {
                name: entry.array(parts.arrays, f"slots.{head.index}", np.uint64) for name, head in parts.heads.items()
            }
        except KeyError as error:
            raise DataLossError(f"the model's weights lack {error.args[0]!r}") from error
        except ValueError as error:
            raise DataLossError(f"the model's weights are malformed: {error}") from error
        return cls(parts.schema, parts.heads, weights)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the weights and of their cumulative sums."""
        return 2 * sum(weights.nbytes for weights in self.weights.values())

    def propose_steps(self, tests: Sequence[ColumnCondition], weights: ColumnWeights | None = None) -> Steps[Proposal]:
        """Compile the drawing of rows that satisfy `tests`, in one step."""
        refuse_weights(weights)
        yield
        return _IndependentProposal(self, tests, ())

    def conditioned_column(self, tests: Sequence[ColumnCondition]) -> str:
        """Return the first tested column: every one is drawn from its own restricted marginal."""
        return tests[0].column if tests else ""

    def completer(self, key: TileKey, options: CompletionOptions) -> Completer:
        """Return a completer; known cells say nothing of unknown ones, so no candidates are needed."""
        return _IndependentCompleter(self, options)

    def completion_bytes(self, known: Collection[str], candidates: int) -> int:
        """Return 0: there are no candidates."""
        return 0


def _draw(head: ColumnHead, cumulative: NDArray[np.uint64], key: TileKey, size: int) -> ColumnArray:
    choices = draw_weighted(cumulative, head.choice_words(key, size).astype(np.uint64))
    alpha = None
    if head.codec.scalar:
        words = key.words32(f"alpha:{head.index}", size)
        alpha = (words >> np.uint32(8)).astype(np.int64) - ALPHA_ONE  # 24 bits: -1 to 1
    return head.decode(choices, alpha, head.rare_category_words(key, size))


class _IndependentProposal:
    tile_size = TILE_SIZE

    def __init__(self, model: IndependentSynthesizer, tests: Sequence[ColumnCondition], columns: Sequence[str]) -> None:
        self.plan_inputs: JsonObject = {}
        self.acceptance = self.probability = None if tests else 1.0
        self._model = model
        self._tests = tuple(tests)
        self._columns = tuple(columns)
        self._heads = model.heads
        self._cumulative = dict(model.cumulative)
        for test in tests:
            # The marginal, restricted to choices that can pass: a column's own rejection changes no other column.
            weights = np.where(model.heads[test.column].reachable(test), model.weights[test.column], np.uint64(0))
            self._cumulative[test.column] = np.cumsum(weights, dtype=np.uint64)

    @property
    def size_bytes(self) -> int:
        """Bytes of the tested columns' marginals; those of the others are the model's."""
        return sum(self._cumulative[test.column].nbytes for test in self._tests)

    def requesting(self, columns: Sequence[str]) -> "_IndependentProposal":
        """Return what makes these columns under the same conditions."""
        return _IndependentProposal(self._model, self._tests, columns)

    def candidates(self, key: TileKey, size: int) -> Candidates:
        """Draw the tested columns of `size` candidates and keep those that satisfy the conditions."""
        cells = {test.column: self._tested(test.column, key, size) for test in self._tests}
        passed = np.full(size, all(len(array) for array in cells.values()))
        for test in self._tests:
            if len(cells[test.column]):
                passed &= test.satisfied(cells[test.column])
        index = np.flatnonzero(passed)
        return Candidates(len(index), {}, {name: array.take(index[: len(array)]) for name, array in cells.items()})

    def finish(self, found: Candidates, key: TileKey) -> Units:
        """Draw the untested columns."""
        made = {
            name: found.cells[name]
            if name in found.cells
            else _draw(self._heads[name], self._cumulative[name], key, found.size)
            for name in self._columns
        }
        return Units(made)

    def _tested(self, name: str, key: TileKey, size: int) -> ColumnArray:
        cumulative = self._cumulative[name]
        return _draw(self._heads[name], cumulative, key, size if cumulative[-1] else 0)


class _IndependentCompleter:
    """Says whether the marginals can have the known cells; no candidates are drawn."""

    def __init__(self, model: IndependentSynthesizer, options: CompletionOptions) -> None:
        self._model = model
        self._cumulative = model.cumulative
        self._options = options

    def complete(self, rows: Sequence[Mapping[str, Cell]], keys: RowKeys) -> Steps[Sequence[CompletedCells]]:
        """Draw every unknown column from its marginal; see `Completer`."""
        return self._options.until_stopped(self._completed(known, keys.of(place)) for place, known in enumerate(rows))

    def _completed(self, known: Mapping[str, Cell], key: TileKey) -> CompletedCells:
        self._options.check_stopped()
        cells = dict(known)
        for name, head in self._model.heads.items():
            if name not in known:
                (cells[name],) = column_cells(_draw(head, self._cumulative[name], key, 1), head.column)
        heads = self._model.heads
        supported = all(self._can_have(heads[name], cell) for name, cell in known.items() if name in heads)
        return CompletedCells(
            cells,
            float(self._options.candidates) if supported else 0.0,
            self._options.tolerance,
            CompletionSupport.MATCHED if supported else CompletionSupport.UNSUPPORTED,
            chosen=None,
        )

    def _can_have(self, head: ColumnHead, cell: Cell) -> bool:
        """Say whether a column's marginal gives a cell a positive probability or density."""
        fact = known_fact(head, cell)
        drawn = self._model.weights[head.column.name] > 0
        if isinstance(fact, KnownChoice):
            return fact.choice is not None and bool(drawn[fact.choice])
        codec = head.codec
        if not isinstance(codec, NumericCodec) or fact.moved:
            return False
        low = -math.inf if fact.below else fact.x - fact.half
        high = math.inf if fact.above else fact.x + fact.half
        reached = (codec.centers - codec.widths <= high) & (codec.centers + codec.widths >= low)
        at_points = codec.points == fact.x
        here = np.concatenate([reached, at_points, np.zeros(int(codec.nullable), np.bool_)])
        return bool((drawn & here).any())
