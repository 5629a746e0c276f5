"""A stream of rows: blocks computed ahead, cut into grid cells, encoded, grouped into messages.

Cells lie on a grid anchored at row 0, and a cell's bytes depend on its rows alone, so whatever a call starts at and
however its messages are cut, the bytes of a stream and of the calls that go on with it join to the same.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass, field

from rowmint.errors import AcceptanceTooLowError
from rowmint.sampling.formats import Encoder, Payload, TypedBatch
from rowmint.sampling.rows import Block, RowSource
from rowmint.schema import TableSchema
from rowmint.schema.arrays import ColumnArray, concatenate

_AHEAD = 2  # blocks of one stream computed or waiting at once


@dataclass(frozen=True)
class StreamHeader:
    """What a stream is made from.

    Attributes:
        model_version: Name of the version.
        model_digest: 32 bytes.
        plan_digest: 32 bytes.
        seed: 0 to 2**64 - 1.
        grid: Rows of a grid cell, a power of two.
        rows: Length of the logical stream.
        start_row: First row.
        end_row: Row after the last.
        schema: Columns delivered.
        categories: Category lists of the columns, in order, empty for those without; None where the format has its own.
    """

    model_version: str
    model_digest: bytes
    plan_digest: bytes
    seed: int
    grid: int
    rows: int
    start_row: int
    end_row: int
    schema: TableSchema
    categories: tuple[tuple[str, ...], ...] | None = None


@dataclass(frozen=True)
class RowsMessage:
    """Some rows, encoded.

    Attributes:
        first_row: Index of the first row.
        row_count: Row indices covered, missing ones included.
        data: The rows in a format of bytes.
        batches: The rows as typed columns.
        missing: Ranges of missing row indices, first and one after the last.
    """

    first_row: int
    row_count: int
    data: bytes = b""
    batches: tuple[TypedBatch, ...] = ()
    missing: tuple[tuple[int, int], ...] = ()

    @property
    def rows(self) -> int:
        """Rows delivered, missing ones not counted."""
        return self.row_count - sum(stop - start for start, stop in self.missing)


@dataclass(frozen=True)
class StreamSummary:
    """How a stream ended.

    Attributes:
        candidates: Candidates drawn.
        accepted: Candidates that satisfied the conditions.
        rows_delivered: Rows delivered, missing ones not counted.
        complete: Whether every row asked for is covered.
        next_row: Row after the last one covered; on the grid, or the first or the last asked for.
    """

    candidates: int
    accepted: int
    rows_delivered: int
    complete: bool
    next_row: int


@dataclass(frozen=True)
class Framing:
    """How a stream's bytes are cut.

    Attributes:
        continued: Whether it goes on with another: no header.
        message_bytes: Size of messages aimed at.
        allow_partial: Whether rows that the conditions starve are left out.
    """

    continued: bool
    message_bytes: int
    allow_partial: bool


@dataclass(frozen=True)
class BlockDone:
    """A block that was computed.

    Attributes:
        waited: Seconds it waited for a thread.
        took: Seconds it took.
        candidates: Candidates drawn.
        accepted: Candidates that satisfied the conditions.
    """

    waited: float
    took: float
    candidates: int
    accepted: int


@dataclass(frozen=True)
class _Cell:
    """One grid cell, or the part of one that lies in the stream; `payload` is None where every row is missing."""

    first_row: int
    row_count: int
    rows: int
    payload: Payload | None
    missing: tuple[tuple[int, int], ...]


class SampleStream:
    """One stream, opened. For one event loop; read it once.

    Args:
        header: What it is made from.
        source: Makes the rows.
        block_size: Rows of a block.
        encoder: Writes them.
        framing: How they are cut.
        executor: Threads that compute.
        observe: Told of each block, on the thread that computed it.
    """

    def __init__(
        self,
        header: StreamHeader,
        source: RowSource,
        block_size: int,
        *,
        encoder: Encoder,
        framing: Framing,
        executor: Executor,
        observe: Callable[[BlockDone], None] = lambda _: None,
    ) -> None:
        self.header = header
        self._source = source
        self._block_size = block_size
        self._encoder = encoder
        self._framing = framing
        self._executor = executor
        self._observe = observe
        self._stopped = threading.Event()
        self._draining = False
        self._expired = False
        self._next_row = header.start_row
        self._candidates = 0
        self._accepted = 0
        self._delivered = 0

    def drain(self) -> None:
        """End the stream with the cells that are there; another call goes on from `summary.next_row`."""
        self._draining = True

    def expire(self) -> None:
        """End the stream as `drain` does, but not before it has delivered something: whoever goes on gets further."""
        self._expired = True

    def stop(self) -> None:
        """Stop computing; from any thread, any number of times."""
        self._stopped.set()

    @property
    def rows_in_flight(self) -> int:
        """The most rows that are computed, or wait to be sent, at once."""
        return min(self.header.end_row - self.header.start_row, _AHEAD * self._block_size)

    @property
    def summary(self) -> StreamSummary:
        """What was done; final once `messages` has ended."""
        complete = self._next_row == self.header.end_row
        return StreamSummary(self._candidates, self._accepted, self._delivered, complete, self._next_row)

    async def messages(self) -> AsyncGenerator[RowsMessage, None]:
        """Yield the rows, in order; all of them, or after `drain` or `expire` only the first of them.

        Raises:
            AcceptanceTooLowError: Rows are missing and that is not allowed; whole cells before them were yielded.
            RowRangeError: An id column has no id for a row.
        """
        header = self.header
        ends = header.end_row == header.rows and (header.start_row < header.end_row or not self._framing.continued)
        lead = b"" if self._framing.continued else self._encoder.header()
        # A header longer than a message is sent in pieces of no row, so that no message is longer than it must be.
        while len(lead) > self._framing.message_bytes:
            yield RowsMessage(header.start_row, 0, lead[: self._framing.message_bytes])
            lead = lead[self._framing.message_bytes :]
        group = _Group(header.start_row, lead)
        starved: AcceptanceTooLowError | None = None
        async with aclosing(self._cells()) as cells:
            try:
                async for cell in cells:
                    if self._draining or (self._expired and self._next_row > header.start_row):
                        break
                    if group.cells and group.size + _size(cell) > self._framing.message_bytes:
                        yield group.message()
                        group = _Group(cell.first_row)
                    group.add(cell)
                    self._delivered += cell.rows
                    self._next_row = cell.first_row + cell.row_count
            except AcceptanceTooLowError as error:
                starved = error
        if ends and starved is None and self._next_row == header.end_row:
            group.data.append(self._encoder.end())
        last = group.message()
        if last.row_count or last.data:
            yield last
        if starved is not None:
            raise starved

    async def _cells(self) -> AsyncGenerator[_Cell, None]:
        loop = asyncio.get_running_loop()
        assembly = _Assembly(self.header, self._encoder)
        ahead: deque[asyncio.Future[Block]] = deque()
        numbers = self._block_numbers()
        try:
            while True:
                for number, needed in numbers:
                    ahead.append(loop.run_in_executor(self._executor, self._block, number, needed, time.monotonic()))
                    if len(ahead) >= _AHEAD:
                        break
                if not ahead:
                    return
                block = await ahead.popleft()
                self._candidates += block.candidates
                self._accepted += block.accepted
                first, stop = self._asked(block.first_row)
                for cell in await loop.run_in_executor(self._executor, assembly.add, block, first, stop):
                    if cell.missing and not self._framing.allow_partial:
                        raise await loop.run_in_executor(self._executor, self._source.starved, block)
                    yield cell
                if block.first_row + block.rows < stop and not self._framing.allow_partial:
                    raise await loop.run_in_executor(self._executor, self._source.starved, block)
        finally:
            self._stopped.set()
            for future in ahead:
                future.add_done_callback(_forget)
                future.cancel()

    def _block(self, number: int, needed: int, queued: float) -> Block:
        began = time.monotonic()
        block = self._source.block(number, needed, self._stopped.is_set)
        self._observe(BlockDone(began - queued, time.monotonic() - began, block.candidates, block.accepted))
        return block

    def _block_numbers(self) -> Iterator[tuple[int, int]]:
        """Yield the blocks and the rows needed of each, counted from the block's own first row."""
        size, header = self._block_size, self.header
        number = header.start_row // size
        while number * size < header.end_row:
            yield number, min(header.end_row - number * size, size)
            number += 1

    def _asked(self, block_row: int) -> tuple[int, int]:
        """Return which rows of the stream lie in the block that begins at `block_row`: first, and after the last."""
        return max(block_row, self.header.start_row), min(block_row + self._block_size, self.header.end_row)


def _forget(future: asyncio.Future[Block]) -> None:
    """Take the error of a block that nobody waits for any more."""
    if not future.cancelled():
        future.exception()


def _size(cell: _Cell) -> int:
    return 0 if cell.payload is None else len(cell.payload)


@dataclass
class _Group:
    """Cells that make up one message."""

    first_row: int
    lead: bytes = b""
    cells: list[_Cell] = field(default_factory=list)
    data: list[bytes] = field(default_factory=list)
    size: int = 0

    def __post_init__(self) -> None:
        self.data.append(self.lead)
        self.size = len(self.lead)

    def add(self, cell: _Cell) -> None:
        """Add the cell that comes next."""
        self.cells.append(cell)
        self.size += _size(cell)
        if isinstance(cell.payload, bytes):
            self.data.append(cell.payload)

    def message(self) -> RowsMessage:
        """Return the message."""
        return RowsMessage(
            self.first_row,
            sum(cell.row_count for cell in self.cells),
            b"".join(self.data),
            tuple(cell.payload for cell in self.cells if isinstance(cell.payload, TypedBatch)),
            _joined([span for cell in self.cells for span in cell.missing]),
        )


def _joined(spans: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return ascending ranges, touching ones made one."""
    result: list[tuple[int, int]] = []
    for start, stop in spans:
        if result and result[-1][1] == start:
            result[-1] = (result[-1][0], stop)
        else:
            result.append((start, stop))
    return tuple(result)


class _Assembly:
    """Turns blocks, in order, into cells; a cell may span blocks, and a block cells. For one caller at a time."""

    def __init__(self, header: StreamHeader, encoder: Encoder) -> None:
        self._grid = header.grid
        self._end = header.end_row
        self._names = header.schema.names
        self._encoder = encoder
        self._parts: list[dict[str, ColumnArray]] = []
        self._missing: list[tuple[int, int]] = []
        self._first = header.start_row

    def add(self, block: Block, first: int, stop: int) -> list[_Cell]:
        """Take the rows `first` to `stop` of a block and return the cells they complete."""
        found = block.first_row + block.rows
        cells: list[_Cell] = []
        while first < stop:
            edge = min((first // self._grid + 1) * self._grid, self._end)
            upto = min(edge, stop)
            there = min(max(found, first), upto)
            if there > first:
                span = slice(first - block.first_row, there - block.first_row)
                self._parts.append({name: block.columns[name].take(span) for name in self._names})
            if there < upto:
                self._missing.append((there, upto))
            first = upto
            if upto == edge:
                cells.append(self._cell(edge))
        return cells

    def _cell(self, edge: int) -> _Cell:
        parts, missing, first = self._parts, _joined(self._missing), self._first
        self._parts, self._missing, self._first = [], [], edge
        rows = edge - first - sum(stop - start for start, stop in missing)
        payload = None
        if rows:
            columns = {name: concatenate([part[name] for part in parts]) for name in self._names}
            payload = self._encoder.batch(columns, first, rows)
        return _Cell(first, edge - first, rows, payload, missing)
