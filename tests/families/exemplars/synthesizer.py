"""The generative half of the family of the tests: every row is one of those kept, so conditions are met exactly."""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs.category import draw_weighted, integer_weights
from rowmint.conditions import ColumnCondition, ColumnWeights
from rowmint.lazy import lazy
from rowmint.rng import TileKey
from rowmint.schema import Cell
from rowmint.schema.arrays import ColumnArray, column_cells
from rowmint.steps import Steps
from rowmint.synthesizer.family import SynthesizerFamily
from rowmint.synthesizer.interface import (
    TILE_SIZE,
    Candidates,
    Capabilities,
    CompletedCells,
    CompletionOptions,
    CompletionSupport,
    ConditionSupport,
    JsonObject,
    RowKeys,
    RowScores,
    Units,
    check_stopped,
)
from rowmint.synthesizer.parts import ModelParts


class ExemplarsSynthesizer:
    """See `Synthesizer`."""

    def __init__(self, parts: ModelParts) -> None:
        self.schema = parts.schema
        choices, alpha = parts.arrays["exemplars.choices"], parts.arrays["exemplars.alpha"].astype(np.int64)
        self.size = len(choices)
        self.columns: dict[str, ColumnArray] = {}
        scalar = 0
        for place, (name, head) in enumerate(parts.heads.items()):
            own = alpha[:, scalar] if head.codec.scalar else None
            scalar += head.codec.scalar
            self.columns[name] = head.decode(choices[:, place].astype(np.int64), own, None)

    @property
    def memory_bytes(self) -> int:
        return sum(cells.values.nbytes for cells in self.columns.values())

    def propose_steps(
        self, tests: Sequence[ColumnCondition], weights: ColumnWeights | None = None
    ) -> "Steps[ExemplarsProposal]":
        yield
        return ExemplarsProposal(self, tests, (), weights)

    def conditioned_column(self, tests: Sequence[ColumnCondition]) -> str:
        return tests[0].column if tests else ""

    def completer(self, key: TileKey, options: CompletionOptions) -> "ExemplarsCompleter":
        return ExemplarsCompleter(self, options)

    def completion_bytes(self, known: Collection[str], candidates: int) -> int:
        return 0

    def scorer(self, stopped: Callable[[], bool]) -> "ExemplarsScorer":
        return ExemplarsScorer(self, stopped)

    def scoring_bytes(self, known: Collection[str]) -> int:
        return 0

    @lazy
    def cells(self) -> dict[str, list[Cell]]:
        return {name: column_cells(cells, self.schema.column(name)) for name, cells in self.columns.items()}

    def alike(self, known: Mapping[str, Cell]) -> NDArray[np.bool_]:
        """Return which rows kept have these cells, shape (rows,)."""
        found = np.ones(self.size, np.bool_)
        for name, cell in known.items():
            found &= np.array([own == cell for own in self.cells[name]])
        return found


class ExemplarsProposal:
    """See `Proposal`."""

    def __init__(
        self,
        model: ExemplarsSynthesizer,
        tests: Sequence[ColumnCondition],
        columns: Sequence[str],
        weights: ColumnWeights | None,
    ) -> None:
        self._conditions, self._weights = tuple(tests), weights
        fitting = np.ones(model.size, np.bool_)
        for test in tests:
            fitting &= test.satisfied(model.columns[test.column])
        self.tile_size = TILE_SIZE
        self._model, self._columns = model, tuple(columns)
        self._tested = [test.column for test in tests]
        self._cumulative: NDArray[np.uint64] | None = None
        if weights is not None:
            cells = model.columns[weights.column]
            held = [fitting & entry.condition.satisfied(cells) for entry in weights.entries]
            factors = weights.factors([float(own.mean()) for own in held])
            mass = np.sum([factor * own for factor, own in zip(factors, held, strict=True)], axis=0)
            fitting = mass > 0
            self._cumulative = np.cumsum(integer_weights(mass[fitting]), dtype=np.uint64)
        self._rows = np.flatnonzero(fitting)
        self.plan_inputs: JsonObject = {"exemplars": model.size}
        self.acceptance = 1.0 if len(self._rows) else None
        self.probability = len(self._rows) / model.size or None
        self.size_bytes = self._rows.nbytes + (0 if self._cumulative is None else self._cumulative.nbytes)

    def requesting(self, columns: Sequence[str]) -> "ExemplarsProposal":
        return ExemplarsProposal(self._model, self._conditions, columns, self._weights)

    def candidates(self, key: TileKey, size: int) -> Candidates:
        if not len(self._rows):
            return Candidates(0, {"row": self._rows}, {name: self._column(name, self._rows) for name in self._tested})
        words = key.words32("exemplar", size)
        if self._cumulative is None:
            rows = self._rows[words % np.uint32(len(self._rows))]
        else:
            rows = self._rows[draw_weighted(self._cumulative, words.astype(np.uint64))]
        return Candidates(size, {"row": rows}, {name: self._column(name, rows) for name in self._tested})

    def finish(self, found: Candidates, key: TileKey) -> Units:
        rows: NDArray[np.int64] = found.latents["row"].astype(np.int64)
        return Units({name: self._column(name, rows) for name in self._columns})

    def _column(self, name: str, rows: NDArray[np.int64]) -> ColumnArray:
        return self._model.columns[name].take(rows)


class ExemplarsCompleter:
    """See `Completer`."""

    def __init__(self, model: ExemplarsSynthesizer, options: CompletionOptions) -> None:
        self._model, self._options = model, options

    def complete(self, rows: Sequence[Mapping[str, Cell]], keys: RowKeys) -> Steps[Sequence[CompletedCells]]:
        return self._options.until_stopped(self._completed(known, keys.of(place)) for place, known in enumerate(rows))

    def _completed(self, known: Mapping[str, Cell], key: TileKey) -> CompletedCells:
        alike = np.flatnonzero(self._model.alike(known)).tolist()
        row = (alike or range(self._model.size))[int(key.words("exemplar", 1)[0]) % (len(alike) or self._model.size)]
        cells = {name: column[row] for name, column in self._model.cells.items()} | dict(known)
        support = CompletionSupport.MATCHED if alike else CompletionSupport.UNSUPPORTED
        return CompletedCells(cells, float(len(alike)), self._options.tolerance, support, row)


class ExemplarsScorer:
    """See `Scorer`."""

    def __init__(self, model: ExemplarsSynthesizer, stopped: Callable[[], bool]) -> None:
        self._model, self._stopped = model, stopped

    def score(self, rows: Sequence[Mapping[str, Cell]]) -> Steps[RowScores]:
        check_stopped(self._stopped)
        yield
        shares = np.array([self._model.alike(known).mean() for known in rows])
        return RowScores(np.log(np.where(shares > 0, shares, 1.0)), shares == 0)


CAPABILITIES = Capabilities(conditions=ConditionSupport.EXACT, likelihood=True)
SYNTHESIZER = SynthesizerFamily("exemplars", CAPABILITIES, ExemplarsSynthesizer)
