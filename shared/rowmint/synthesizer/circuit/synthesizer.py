"""The circuit family: rows, rows given conditions, and probabilities, all exact."""

from collections.abc import Callable, Collection, Sequence

from rowmint.conditions import ColumnCondition, ColumnWeights
from rowmint.lazy import lazy
from rowmint.rng import TileKey
from rowmint.schema import TableSchema
from rowmint.steps import Steps
from rowmint.synthesizer.circuit.arrays import read_circuit
from rowmint.synthesizer.circuit.completer import BinChoices, CircuitCompleter
from rowmint.synthesizer.circuit.conditioning import conditioned_steps
from rowmint.synthesizer.circuit.draws import choice_draw, column_tables
from rowmint.synthesizer.circuit.known import known_bytes
from rowmint.synthesizer.circuit.posterior import Posterior
from rowmint.synthesizer.circuit.proposal import CircuitProposal, Drawing
from rowmint.synthesizer.circuit.row_tables import RowTables, row_tables_bytes
from rowmint.synthesizer.circuit.rows import CircuitRows
from rowmint.synthesizer.circuit.scores import CircuitScorer
from rowmint.synthesizer.circuit.tree import Circuit
from rowmint.synthesizer.heads import ColumnHead
from rowmint.synthesizer.interface import (
    Capabilities,
    Completer,
    CompletionOptions,
    ConditionSupport,
    Proposal,
    Scorer,
)
from rowmint.synthesizer.parts import ModelParts


class CircuitSynthesizer:
    """A tree of columns with hidden states; see `rowmint.synthesizer.circuit.tree`. Immutable, thread-safe.

    Args:
        schema: Shape of the rows.
        heads: The modelled columns by name, in order of their positions.
        circuit: The parameters.
    """

    capabilities = Capabilities(conditions=ConditionSupport.EXACT, likelihood=True)

    def __init__(self, schema: TableSchema, heads: dict[str, ColumnHead], circuit: Circuit) -> None:
        self.schema = schema
        self.heads = heads
        self.circuit = circuit
        in_order = tuple(heads.values())
        indices = _indices(circuit, in_order, len(schema.columns))
        columns = {p: column_tables(circuit, column, indices[p]) for p, column in circuit.columns.items()}
        choices = {p: choice_draw(column.bins, indices[p]) for p, column in circuit.columns.items()}
        self._table_bytes = sum(table.size_bytes for table in (*columns.values(), *choices.values()))
        self._drawing = Drawing(circuit, in_order, indices, columns, choices, {})
        self._in_order = in_order
        self._positions = {name: position for position, name in enumerate(heads)}

    @classmethod
    def load(cls, parts: ModelParts) -> "CircuitSynthesizer":
        """Return the synthesizer of a model's parts.

        Raises:
            DataLossError: They do not make a circuit.
        """
        choices = [head.codec.choices for head in parts.heads.values()]
        return cls(parts.schema, parts.heads, read_circuit(parts.network, parts.arrays, choices))

    @lazy
    def _rows(self) -> CircuitRows:
        """What reads rows of known cells; its tables are made when the first are to be read."""
        return CircuitRows(RowTables(self.circuit), self._in_order)

    @lazy
    def _bin_choices(self) -> dict[int, BinChoices]:
        return {position: BinChoices(column.bins) for position, column in self.circuit.columns.items()}

    @property
    def memory_bytes(self) -> int:
        """Bytes of the parameters, and of the tables that rows are drawn from and looked up in."""
        looked_up = row_tables_bytes(self.circuit) + known_bytes(self._in_order)
        return self.circuit.size_bytes + self._table_bytes + looked_up

    def propose_steps(self, tests: Sequence[ColumnCondition], weights: ColumnWeights | None = None) -> Steps[Proposal]:
        """Compile the drawing of rows that satisfy `tests`; see `Synthesizer`. A step is a column."""
        drawing, log_probability = self._drawing, 0.0
        if tests or weights is not None:
            drawing, log_probability = yield from conditioned_steps(drawing, tests, weights)
        tested = [test.column for test in tests] + ([] if weights is None else [weights.column])
        return CircuitProposal(drawing, self._positions, tested, (), log_probability)

    def completer(self, key: TileKey, options: CompletionOptions) -> Completer:
        """Return a completer: rows are exact draws given what is known, so that no candidates are needed."""
        posterior = Posterior(self._rows.tables, self._drawing.indices)
        return CircuitCompleter(self._rows, self._in_order, posterior, self._bin_choices, options)

    def completion_bytes(self, known: Collection[str], candidates: int) -> int:
        """Return the most bytes that completing rows takes."""
        return self._rows.most_bytes(known, kept=True)

    def scorer(self, stopped: Callable[[], bool]) -> Scorer:
        """Return what scores rows."""
        return CircuitScorer(self._rows, stopped)

    def scoring_bytes(self, known: Collection[str]) -> int:
        """Return the most bytes that scoring rows takes."""
        return self._rows.most_bytes(known, kept=False)

    def conditioned_column(self, tests: Sequence[ColumnCondition]) -> str:
        """Return the first tested column: rows are drawn for all of them."""
        return tests[0].column if tests else ""


def _indices(circuit: Circuit, heads: Sequence[ColumnHead], columns: int) -> dict[int, int]:
    """Return what the words of the tree's columns are keyed by, by position; joint columns come after the schema's."""
    return {
        position: heads[position].index if position < len(heads) else columns + position - len(heads)
        for position in circuit.columns
    }
