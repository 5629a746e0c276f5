"""Completing rows from a circuit: exact draws of what is not known, given what is.

Rows are `MATCHED`, by no kernel and no candidates, and independent of each other. A number that never occurs counts as
the nearest one that does, and such a row is `WIDENED`. A known cell that cannot be together with others, or at all, has
no say in the cells that are not known; the columns are gone through in order, so that of two that contradict each other
the later one has none. Such a row is `UNSUPPORTED`. Known cells are kept as they were sent in any case.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs.numeric import ALPHA_ONE
from rowmint.errors import CancelledError
from rowmint.schema import Cell
from rowmint.schema.arrays import column_cells
from rowmint.steps import Steps, checked
from rowmint.synthesizer.circuit.known import Int64
from rowmint.synthesizer.circuit.posterior import Posterior, RowWords
from rowmint.synthesizer.circuit.row_evidence import ONE_BIN, SEVERAL_BINS, UNKNOWN, ColumnEvidence
from rowmint.synthesizer.circuit.row_messages import RowBeliefs
from rowmint.synthesizer.circuit.rows import CircuitRows, KnownRows, Masks
from rowmint.synthesizer.circuit.tree import ONE, Bins
from rowmint.synthesizer.heads import ColumnHead
from rowmint.synthesizer.interface import CompletedCells, CompletionOptions, CompletionSupport, RowKeys


class BinChoices:
    """Draws a column's choices within its bins, by weight. Immutable, thread-safe.

    Args:
        bins: The column's bins.
    """

    def __init__(self, bins: Bins) -> None:
        self._order = np.argsort(bins.of_choice, kind="stable")
        self._running = np.cumsum(bins.weights[self._order], dtype=np.int64)  # each bin adds `ONE`

    def draw(self, bins: Int64, words: NDArray[np.uint64]) -> Int64:
        """Return a choice of each bin, shape (n,); `words` have 64 bits."""
        place = bins * ONE + (words >> np.uint64(40)).astype(np.int64)
        return self._order[np.searchsorted(self._running, place, side="right")]


@dataclass(frozen=True)
class _Answer:
    """What is found of rows while they are completed.

    Attributes:
        choices: Choices of the tree's columns, int64, shape (rows,), by position; 0 where none was drawn.
        unsupported: Which rows have known cells without a say, shape (rows,).
    """

    choices: dict[int, Int64]
    unsupported: NDArray[np.bool_]


class CircuitCompleter:
    """See `Completer`.

    Args:
        rows: Reads the rows.
        heads: The modelled columns in order of their positions.
        posterior: Draws bins.
        choices: Draws choices within a bin, by position.
        options: How rows are completed; a circuit needs neither candidates nor tolerance.
    """

    def __init__(
        self,
        rows: CircuitRows,
        heads: Sequence[ColumnHead],
        posterior: Posterior,
        choices: Mapping[int, BinChoices],
        options: CompletionOptions,
    ) -> None:
        self._rows = rows
        self._heads = tuple(heads)
        self._posterior = posterior
        self._choices = choices
        self._options = options

    def complete(self, rows: Sequence[Mapping[str, Cell]], keys: RowKeys) -> Steps[Sequence[CompletedCells]]:
        """See `Completer`; the rows are completed together, so none is where it was stopped."""
        try:
            return (yield from checked(self._in_pieces(rows, keys), self._options.check_stopped))
        except CancelledError:
            return ()

    def _in_pieces(self, rows: Sequence[Mapping[str, Cell]], keys: RowKeys) -> Steps[Sequence[CompletedCells]]:
        done: list[CompletedCells] = []
        for piece in self._rows.pieces(rows):
            done += yield from self._completed(rows[piece], keys.after(piece.start))
        return done

    def _completed(self, rows: Sequence[Mapping[str, Cell]], keys: RowKeys) -> Steps[Sequence[CompletedCells]]:
        known = self._rows.read(rows)
        yield
        answer = _Answer(
            {position: np.zeros(len(rows), np.int64) for position in self._rows.circuit.columns},
            np.zeros(len(rows), np.bool_),
        )
        counted = {position: mask.copy() for position, mask in known.known.items()}
        left = yield from self._draw(known, counted, np.arange(len(rows)), keys, answer)
        answer.unsupported[left] = True
        possible = np.zeros(len(left), np.int64)
        while len(left):
            possible = yield from self._let_go(known, counted, left, possible)
            before = left
            left = yield from self._draw(known, counted, before, keys, answer)
            possible = possible[np.isin(before, left)]
        cells = [dict(row) for row in rows]
        for position in range(len(self._heads)):
            self._fill(position, known, keys, answer, cells)
        size = float(self._options.candidates)
        found = zip(cells, answer.unsupported.tolist(), known.moved.tolist(), strict=True)
        return [
            CompletedCells(own, 0.0, 0.0, CompletionSupport.UNSUPPORTED, None)
            if unsupported
            else CompletedCells(own, size, 0.0, CompletionSupport.WIDENED if moved else CompletionSupport.MATCHED, None)
            for own, unsupported, moved in found
        ]

    def _draw(
        self, known: KnownRows, counted: Masks, rows: NDArray[np.intp], keys: RowKeys, answer: _Answer
    ) -> Steps[NDArray[np.intp]]:
        """Draw the choices of some rows; return those whose known cells cannot be together."""
        evidence = self._rows.evidence(known, counted)
        never = self._rows.never(evidence, known.count)
        refused = [rows[never[rows]]]
        words = cache(partial(keys.words, count=known.count))
        for part in self._rows.parts(evidence, rows[~never[rows]], kept=True):
            for own, beliefs in (yield from self._rows.believed(part, kept=True)):
                possible = np.flatnonzero(beliefs.probability)
                refused.append(own.rows[beliefs.probability == 0])
                if len(possible) < len(own.rows):
                    own, beliefs = own.take(possible), beliefs.take(possible)  # noqa: PLW2901 - the rest of the part
                if len(possible):
                    self._draw_part(known, evidence, beliefs, _PartWords(words, own.rows), answer)
                    yield
        return np.sort(np.concatenate(refused))

    def _draw_part(
        self,
        known: KnownRows,
        evidence: Mapping[int, ColumnEvidence],
        beliefs: RowBeliefs,
        words: "_PartWords",
        answer: _Answer,
    ) -> None:
        """Draw the choices that some rows' unknown cells depend on."""
        requested = self._requested(known, words.rows)
        nothing = np.full(len(words.rows), UNKNOWN, np.uint8)
        kinds = {at: evidence[at].kind[words.rows] if at in evidence else nothing for at in requested}
        wanted = {position: mask & (kinds[position] != ONE_BIN) for position, mask in requested.items()}
        bins = self._posterior.draw(beliefs, wanted, words.of)
        for position, mask in requested.items():
            own = words.of(f"choice:{self._posterior.indices[position]}")
            index = np.flatnonzero(mask & (kinds[position] == UNKNOWN))
            if len(index):
                made = self._choices[position].draw(bins[position][index], own[index])
                answer.choices[position][words.rows[index]] = made
            for kind in (ONE_BIN, SEVERAL_BINS):
                index = np.flatnonzero(mask & (kinds[position] == kind))
                if len(index):
                    rows, one = words.rows[index], evidence[position]
                    at = one.one_bin(rows)[0] if kind == ONE_BIN else bins[position][index]
                    answer.choices[position][rows] = one.drawn(rows, at, own[index])

    def _requested(self, known: KnownRows, rows: NDArray[np.intp]) -> dict[int, NDArray[np.bool_]]:
        """Return, by column of the tree, the rows with a cell that is not known and that its choice decides."""
        found: dict[int, NDArray[np.bool_]] = {}
        for position in range(len(self._heads)):
            unknown = ~known.known[position][rows] if position in known.known else np.ones(len(rows), np.bool_)
            if unknown.any():
                at = self._rows.circuit.determining(position)
                found[at] = found[at] | unknown if at in found else unknown
        return found

    def _let_go(self, known: KnownRows, counted: Masks, rows: NDArray[np.intp], possible: Int64) -> Steps[Int64]:
        """Let the first known cell of each row not count that cannot be together with those of the columns before.

        Args:
            known: The known cells.
            counted: Those that count; those of the rows cannot be together.
            rows: The rows, shape (n,).
            possible: How many of the columns, from the first, have cells that can be together, int64, shape (n,).

        Returns:
            `possible` as it is afterwards.
        """
        own = known.take(rows)
        masks = {position: mask[rows] for position, mask in counted.items()}

        def first(columns: Int64) -> Masks:
            return {position: mask & (place < columns) for place, (position, mask) in enumerate(masks.items())}

        # By halves, first by what single columns say of themselves: that costs little, and says most contradictions.
        low, high = possible, np.full(len(rows), len(masks))
        while (low + 1 < high).any():
            middle = (low + high) // 2
            never = self._rows.never(self._rows.evidence(own, first(middle)), own.count)
            low, high = np.where(never, low, middle), np.where(never, middle, high)
            yield
        low, middle = possible, high - 1
        while len(left := np.flatnonzero(low + 1 < high)):
            never = np.zeros(own.count, np.bool_)
            evidence = self._rows.evidence(own, first(middle))
            for part in self._rows.parts(evidence, left, kept=False):
                for some, beliefs in (yield from self._rows.believed(part, kept=False)):
                    never[some.rows] = beliefs.probability == 0
            low, high = np.where(never, low, middle), np.where(never, middle, high)
            middle = (low + high) // 2
        for place, position in enumerate(masks):
            counted[position][rows[high == place + 1]] = False
        return high

    def _fill(
        self, position: int, known: KnownRows, keys: RowKeys, answer: _Answer, cells: list[dict[str, Cell]]
    ) -> None:
        """Put in the cells of a column that are not known."""
        head = self._heads[position]
        rows = np.arange(known.count)
        if position in known.known:
            rows = np.flatnonzero(~known.known[position])
        if not len(rows):
            return
        derived = self._rows.circuit.derived.get(position)
        choices = answer.choices[position if derived is None else derived.of][rows]
        if derived is not None:
            choices = derived.choices[choices].astype(np.int64)
        alpha = words = None
        if head.codec.scalar:
            scalar = keys.words32(f"scalar:{head.index}", known.count)[rows]
            alpha = (scalar >> np.uint32(8)).astype(np.int64) - ALPHA_ONE  # 24 bits: -1 to 1
        if head.codec.draws_rare:
            words = keys.words32(f"tail:{head.index}", known.count)[rows].astype(np.uint64)
        made = head.decode(choices, alpha, words)
        for row, cell in zip(rows.tolist(), column_cells(made, head.column), strict=True):
            cells[row][head.column.name] = cell


@dataclass(frozen=True)
class _PartWords:
    """The words of some of the rows that are completed together.

    Attributes:
        all: Returns the words of all, by what they are for.
        rows: Which of them these are.
    """

    all: RowWords
    rows: NDArray[np.intp]

    def of(self, purpose: str) -> NDArray[np.uint64]:
        """Return a word of each of the rows."""
        return self.all(purpose)[self.rows]
