"""Rows of known cells: read, parted by the memory they take, and their probabilities and beliefs computed."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rowmint.schema import Cell
from rowmint.steps import Steps
from rowmint.synthesizer.circuit.known import Alternatives, KnownColumn, remembered_cells
from rowmint.synthesizer.circuit.row_evidence import (
    NEVER,
    ONE_BIN,
    SEVERAL_BINS,
    ColumnEvidence,
    column_evidence,
)
from rowmint.synthesizer.circuit.row_memory import RowMemory
from rowmint.synthesizer.circuit.row_messages import BinEvidence, RowBeliefs, row_beliefs
from rowmint.synthesizer.circuit.row_sums import SlicedSums, WholeSums
from rowmint.synthesizer.circuit.row_tables import RowTables
from rowmint.synthesizer.circuit.tree import Circuit
from rowmint.synthesizer.heads import ColumnHead
from rowmint.synthesizer.interface import MOST_ROWS

PART_BYTES = 16 << 20
"""Memory that the rows worked on at once take, about."""
_MOST_ERROR = 2.0**-33  # above it a row is computed again by sums that cut off nothing
_PATTERNS = 1024  # of what rows know, whose memory is remembered
_ALTERNATIVES = 1 << 19  # choices that the known cells of rows worked on at once may be drawn by, about
_ALTERNATIVE_BYTES = 160

Masks = Mapping[int, NDArray[np.bool_]]


@dataclass(frozen=True)
class KnownRows:
    """The known cells of some rows.

    Attributes:
        count: Number of rows.
        known: Whether the cell of a modelled column is known, bool, shape (count,), by position; columns that no row
            knows are left out.
        cells: The choices that the known cells may be drawn by, likewise.
        moved: Which rows have a number that never occurs, and that stands for the nearest that does; shape (count,).
    """

    count: int
    known: Masks
    cells: Mapping[int, Alternatives]
    moved: NDArray[np.bool_]

    def take(self, index: NDArray[np.intp]) -> "KnownRows":
        """Return some of the rows; `index` ascends."""
        known = {position: mask[index] for position, mask in self.known.items()}
        cells = {position: own.of_rows(index) for position, own in self.cells.items()}
        return KnownRows(len(index), known, cells, self.moved[index])


@dataclass(frozen=True)
class RowPart:
    """Some rows that are computed together.

    Attributes:
        rows: Which rows, shape (n,).
        known: What they know of the tree's columns, by position.
        shares: Share of each known bin that the known cells are, 1 where none is known, float64, shape (n,), one for
            each column.
    """

    rows: NDArray[np.intp]
    known: Mapping[int, BinEvidence]
    shares: tuple[NDArray[np.float64], ...]

    def take(self, index: NDArray[np.intp]) -> "RowPart":
        """Return some of the rows."""
        known = {position: one.take(index) for position, one in self.known.items()}
        return RowPart(self.rows[index], known, tuple(share[index] for share in self.shares))


class CircuitRows:
    """Reads rows and computes what their known cells say. Immutable, thread-safe.

    Args:
        tables: The model.
        heads: Its modelled columns in order of their positions.
    """

    def __init__(self, tables: RowTables, heads: Sequence[ColumnHead]) -> None:
        self.tables = tables
        self.circuit = tables.circuit
        most = remembered_cells(len(heads))
        self._memory = RowMemory(tables.circuit)
        self._row_bytes = lru_cache(_PATTERNS)(self._memory.of_pattern)
        self._columns = {head.column.name: (position, KnownColumn(head, most)) for position, head in enumerate(heads)}
        self._inverted = _inverted(tables.circuit, [head.column.name for head in heads])

    def pieces(self, rows: Sequence[Mapping[str, Cell]]) -> Iterator[slice]:
        """Yield which rows are worked on at once: fewer where known cells of derived columns stand for many choices."""
        step = max(len(rows), 1)
        if len(rows) * sum(max(one.most.values()) for one in self._inverted) > _ALTERNATIVES:
            step = max(_ALTERNATIVES // max(1, *(_alternatives(self._inverted, row) for row in rows)), 1)
        for start in range(0, len(rows), step):
            yield slice(start, min(start + step, len(rows)))

    def read(self, rows: Sequence[Mapping[str, Cell]]) -> KnownRows:
        """Return the known cells of rows; what is not modelled is ignored."""
        known: dict[int, NDArray[np.bool_]] = {}
        cells: dict[int, Alternatives] = {}
        moved = np.zeros(len(rows), np.bool_)
        for name, (position, column) in self._columns.items():
            own = [row[name] for row in rows if name in row]
            if not own:
                continue
            known[position] = np.ones(len(rows), np.bool_)
            if len(own) < len(rows):
                known[position] = np.fromiter((name in row for row in rows), np.bool_, len(rows))
            index = known[position].nonzero()[0]
            found, near = column.alternatives(own)
            moved[index] |= near
            cells[position] = Alternatives(index[found.rows], found.choices, found.shares)
        return KnownRows(len(rows), known, cells, moved)

    def evidence(self, rows: KnownRows, known: Masks) -> dict[int, ColumnEvidence]:
        """Return what some of the known cells of rows say about the tree's columns, by position."""
        return column_evidence(self.circuit, known, rows.cells, rows.count)

    def never(self, evidence: Mapping[int, ColumnEvidence], count: int) -> NDArray[np.bool_]:
        """Return which rows have known cells that a column never has, or not together with those derived of it."""
        found = np.zeros(count, np.bool_)
        for one in evidence.values():
            found |= one.kind == NEVER
        return found

    def parts(self, evidence: Mapping[int, ColumnEvidence], rows: NDArray[np.intp], *, kept: bool) -> Iterator[RowPart]:
        """Yield some rows in parts that are computed together, by the memory that they take.

        Args:
            evidence: What all rows know; none of the rows may know what a column never has.
            rows: Which rows.
            kept: As for `believed`.
        """
        if not len(rows):
            return
        kinds = np.array([one.kind[rows] for one in evidence.values()], np.uint8).reshape(-1, len(rows)).T
        patterns = [pattern.tobytes() for pattern in kinds]
        positions = tuple(evidence)
        sizes = {pattern: self._row_bytes(positions, pattern, kept=kept) for pattern in set(patterns)}
        own = np.array([sizes[pattern] for pattern in patterns])
        # Rows of about one size together: a part's arrays are as large as its largest row makes them.
        order = np.argsort(own, kind="stable")
        start = 0
        while start < len(order):
            ahead = own[order[start:]]
            step = max(1, int((ahead * np.arange(1, len(ahead) + 1) <= PART_BYTES).sum()))
            yield _part(evidence, np.sort(rows[order[start : start + step]]))
            start += step

    def believed(self, part: RowPart, *, kept: bool) -> Steps[Sequence[tuple[RowPart, RowBeliefs]]]:
        """Return what rows know: those of the part, in one piece or two.

        Args:
            part: The rows.
            kept: Whether what they know at each column is kept, to draw from, or the probability alone.
        """
        found = yield from row_beliefs(self.tables, part.known, len(part.rows), SlicedSums(), kept=kept)
        doubtful = ~(found.error <= _MOST_ERROR)
        if not doubtful.any():
            return [(part, found)]
        sound, again = np.flatnonzero(~doubtful), np.flatnonzero(doubtful)
        pieces = [(part.take(sound), found.take(sound))] if len(sound) else []
        del found
        rest = part.take(again)
        found = yield from row_beliefs(self.tables, rest.known, len(rest.rows), WholeSums(), kept=kept)
        return [*pieces, (rest, found)]

    def most_bytes(self, known: Collection[str], *, kept: bool) -> int:
        """Return the most memory that rows take, as many as are answered at once, that know some columns."""
        positions = {self.circuit.determining(self._columns[name][0]) for name in known if name in self._columns}
        # Some rows may know a derived column and not the one that it is derived from.
        derived = {name for one in self._inverted for name in one.most if name in known}
        alternatives = min(MOST_ROWS * _alternatives(self._inverted, derived), _ALTERNATIVES)
        own = self._memory.most(positions, MOST_ROWS, PART_BYTES, kept=kept)
        return own + alternatives * _ALTERNATIVE_BYTES


@dataclass(frozen=True)
class _Inverted:
    """What known cells of the columns derived from one column stand for, where that is not known.

    Attributes:
        of: Name of that column; empty for a joint one.
        most: Most of its choices that one choice of a derived column stands for, by that column's name, in the order in
            which evidence is read.
    """

    of: str
    most: Mapping[str, int]


def _inverted(circuit: Circuit, names: Sequence[str]) -> tuple[_Inverted, ...]:
    """Return it for every column that others are derived from; `names` are those of the modelled columns."""
    found: dict[int, dict[str, int]] = {}
    for position, derived in circuit.derived.items():
        found.setdefault(derived.of, {})[names[position]] = int(np.bincount(derived.choices).max())
    return tuple(_Inverted(names[of] if of < len(names) else "", most) for of, most in found.items())


def _alternatives(inverted: Sequence[_Inverted], known: Collection[str]) -> int:
    """Return how many choices a row's known cells of derived columns stand for, about: by the first known of each."""
    return sum(
        next((most for name, most in one.most.items() if name in known), 0) for one in inverted if one.of not in known
    )


def _part(evidence: Mapping[int, ColumnEvidence], rows: NDArray[np.intp]) -> RowPart:
    known = {}
    shares = []
    for position, one in evidence.items():
        kind = one.kind[rows]
        bins, share = np.zeros(len(rows), np.int64), np.ones(len(rows))
        fixed = np.flatnonzero(kind == ONE_BIN)
        bins[fixed], share[fixed] = one.one_bin(rows[fixed])
        known[position] = BinEvidence(kind, bins, one.several_bins(rows[kind == SEVERAL_BINS]))
        shares.append(share)
    return RowPart(rows, known, tuple(shares))
