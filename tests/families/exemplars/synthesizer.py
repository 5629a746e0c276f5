"""The generative half of the family of the tests: every row is one of those kept, so conditions are met exactly."""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from rowmint.conditions import ColumnCondition
from rowmint.rng import TileKey
from rowmint.schema import Cell
from rowmint.schema.arrays import ColumnArray, column_cells
from rowmint.synthesizer.family import SynthesizerFamily
from rowmint.synthesizer.interface import (
    Candidates,
    Capabilities,
    CompletedCells,
    CompletionOptions,
    CompletionSupport,
    ConditionSupport,
    JsonObject,
    Units,
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

    def propose(self, tests: Sequence[ColumnCondition], columns: Sequence[str]) -> "ExemplarsProposal":
        return ExemplarsProposal(self, tests, columns)

    def conditioned_column(self, tests: Sequence[ColumnCondition]) -> str:
        return tests[0].column if tests else ""

    def completer(self, key: TileKey, options: CompletionOptions) -> "ExemplarsCompleter":
        return ExemplarsCompleter(self, options)

    def completion_bytes(self, known: Collection[str], candidates: int) -> int:
        return 0


class ExemplarsProposal:
    """See `Proposal`."""

    def __init__(self, model: ExemplarsSynthesizer, tests: Sequence[ColumnCondition], columns: Sequence[str]) -> None:
        fitting = np.ones(model.size, np.bool_)
        for test in tests:
            fitting &= test.satisfied(model.columns[test.column])
        self._model, self._columns = model, tuple(columns)
        self._tested = [test.column for test in tests]
        self._rows = np.flatnonzero(fitting)
        self.plan_inputs: JsonObject = {"exemplars": model.size}
        self.acceptance = 1.0 if len(self._rows) else None

    def candidates(self, key: TileKey, size: int) -> Candidates:
        if not len(self._rows):
            return Candidates(0, {"row": self._rows}, {name: self._column(name, self._rows) for name in self._tested})
        rows = self._rows[key.words32("exemplar", size) % np.uint32(len(self._rows))]
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

    def complete(self, known: dict[str, Cell], key: TileKey) -> CompletedCells:
        rows = {
            name: column_cells(cells, self._model.schema.column(name)) for name, cells in self._model.columns.items()
        }
        alike = [row for row in range(self._model.size) if all(rows[name][row] == cell for name, cell in known.items())]
        among = alike or list(range(self._model.size))
        row = among[int(key.words("exemplar", 1)[0]) % len(among)]
        cells = {name: column[row] for name, column in rows.items()} | known
        support = CompletionSupport.MATCHED if alike else CompletionSupport.UNSUPPORTED
        return CompletedCells(cells, float(len(alike)), self._options.tolerance, support, row)


CAPABILITIES = Capabilities(conditions=ConditionSupport.EXACT)
SYNTHESIZER = SynthesizerFamily("exemplars", CAPABILITIES, ExemplarsSynthesizer)
