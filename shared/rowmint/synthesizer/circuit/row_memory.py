"""How much memory the beliefs of rows take, by what the rows know."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from rowmint.synthesizer.circuit.row_evidence import ONE_BIN, SEVERAL_BINS, UNKNOWN
from rowmint.synthesizer.circuit.tree import Circuit, TreeColumn

_FLOAT = 8  # bytes
_CELL_BYTES = 384
"""Of a row's place at a column: alternatives, evidence, words and what is drawn."""


@dataclass
class _Held:
    """Numbers that are held while a row's messages go up.

    Attributes:
        kept: What is kept of columns that are done.
        received: What was received, by column; only of those still to come.
        most: The most so far, in all.
    """

    kept: int
    received: dict[int, int]
    most: int

    def also(self, working: int) -> None:
        """Hold more for a moment."""
        self.most = max(self.most, self.kept + sum(self.received.values()) + working)


class RowMemory:
    """Counts the memory of beliefs. Immutable, thread-safe.

    Args:
        circuit: The model.
    """

    def __init__(self, circuit: Circuit) -> None:
        self._circuit = circuit
        self._upward = tuple(circuit.columns.values())[::-1]

    def of_row(self, kinds: Mapping[int, int], *, kept: bool) -> int:
        """Return about how many bytes a row takes, at most.

        Args:
            kinds: What it knows of the tree's columns, by position: `UNKNOWN`, `ONE_BIN` or `SEVERAL_BINS`.
            kept: Whether beliefs are kept to draw from.
        """
        held = _Held(0, {}, 0)
        # Senders whose message is of all the parent's bins, and those of which the bin is known.
        full: dict[int, int] = {}
        ranked: dict[int, int] = {}
        for column in self._upward:
            position = column.position
            kind = kinds.get(position, UNKNOWN)
            if kind == UNKNOWN and position not in full and position not in ranked:
                continue
            parent = None if column.edge is None else column.edge.parent
            fixed = parent is None or kinds.get(parent, UNKNOWN) == ONE_BIN
            incoming = full.get(position, 0) + ranked.get(position, 0)
            is_ranked = kind == UNKNOWN and incoming == 1 and position in ranked
            weights = self._weights(column, kind, incoming)
            message = self._message(column, kind, fixed=fixed)
            # What one known bin says is used as it is, but for messages to a parent whose bin is not known.
            held.also(self._working(column, kind, 0 if is_ranked and fixed else weights, fixed=fixed))
            received = held.received.pop(position, 0)
            if kept:
                held.kept += (received if is_ranked else weights) + message
            if parent is not None:
                held.received[parent] = held.received.get(parent, 0) + message
                senders = ranked if kind == ONE_BIN and not fixed else full
                senders[parent] = senders.get(parent, 0) + 1
        held.also(4 * max(column.bins.count for column in self._upward))  # while bins are drawn
        return _FLOAT * held.most

    def of_pattern(self, positions: Sequence[int], kinds: bytes, *, kept: bool) -> int:
        """Return `of_row` of a row that knows these kinds of some columns, and nothing of the others."""
        return self.of_row(dict(zip(positions, kinds, strict=True)), kept=kept)

    def most(self, known: Collection[int], rows: int, part: int, *, kept: bool) -> int:
        """Return the most bytes that rows take.

        Args:
            known: The tree's columns that some of them know something of, by position.
            rows: How many there are.
            part: Bytes that rows computed together take, where there is more than one.
            kept: As for `of_row`.
        """
        if not known:
            return 0
        # No row takes more than one of whose known columns nothing but shares of bins is known.
        row = self.of_row(dict.fromkeys(known, SEVERAL_BINS), kept=kept)
        # Rows that are computed again are held twice for a moment.
        return 2 * max(part, row) + rows * _CELL_BYTES * len(self._upward)

    def _weights(self, column: TreeColumn, kind: int, incoming: int) -> int:
        """Return the numbers of A."""
        if kind == ONE_BIN:
            return self._circuit.states
        return column.bins.count * (self._circuit.states if incoming else 1)

    def _message(self, column: TreeColumn, kind: int, *, fixed: bool) -> int:
        """Return the numbers of S, and those of what is sent."""
        states, components = self._circuit.states, self._circuit.components
        if fixed or column.edge is None:
            return states
        bins = len(column.edge.group)
        if kind == ONE_BIN and bins > components:
            return states * (components + 1) + components * bins
        return states * bins

    def _working(self, column: TreeColumn, kind: int, weights: int, *, fixed: bool) -> int:
        """Return the numbers held while S and the message are computed: A's and the message's copies among them."""
        states, components = self._circuit.states, self._circuit.components
        sent = self._message(column, kind, fixed=fixed)
        if kind == ONE_BIN and fixed:
            return 6 * states
        small = 6 * states * (components + 1)
        if kind == ONE_BIN:
            return small + 4 * sent
        return small + 4 * weights + (components + 1) * column.bins.count + (2 if fixed else 6) * sent
