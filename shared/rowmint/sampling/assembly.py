"""From blocks to messages: cut into batches on the grid, encoded, grouped.

The grid is anchored at row 0, and a batch's bytes depend on its rows alone. So wherever a stream starts and however its
messages are cut, its bytes and those of the streams that resume it join to the same.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from rowmint.sampling.formats import Encoder, Payload, TypedBatch
from rowmint.sampling.messages import RowsMessage, StreamHeader, StreamSummary
from rowmint.sampling.plan import Plan
from rowmint.sampling.pools import CandidateTally
from rowmint.sampling.rows import Block
from rowmint.schema.arrays import ColumnArray, concatenate


@dataclass(frozen=True)
class Framing:
    """How a stream's bytes are cut.

    Attributes:
        skipped: Bytes of the file's header that are left out, as they were received before, and more where rows were;
            None for a part that follows another, without any header.
        message_bytes: Size of messages aimed at.
        allow_partial: Whether rows are left out that could not be found within the candidate budget.
    """

    skipped: int | None
    message_bytes: int
    allow_partial: bool


@dataclass(frozen=True)
class Batch:
    """The rows between two edges of the grid, or those of them that lie in the stream.

    Attributes:
        first_row: Index of the first row.
        row_count: Row indices covered, missing ones included.
        rows: Rows encoded.
        payload: The rows; None where every row is missing.
        missing: Ranges of missing row indices, first and one after the last.
    """

    first_row: int
    row_count: int
    rows: int
    payload: Payload | None
    missing: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:
        """Bytes, or about as many."""
        return 0 if self.payload is None else len(self.payload)

    def spans(self) -> Iterator[tuple[int, int]]:
        """Yield the ranges of the rows that are not missing, first and one after the last, ascending."""
        start = self.first_row
        for missing, after in self.missing:
            if start < missing:
                yield start, missing
            start = after
        if start < self.first_row + self.row_count:
            yield start, self.first_row + self.row_count


class StreamAssembly:
    """Makes the messages of one stream from its blocks, given in order. For one caller at a time.

    The caller yields the messages of `opening`, then for each block those that `messages` makes of what `encode`
    returns, until `ended`, then those of `closing`; and raises an error where `unfilled` is a block.

    Args:
        header: What the stream is made from.
        encoder: Writes the rows.
        framing: How they are cut.
        plan: What the rows are computed by.

    Attributes:
        unfilled: The block whose candidate budget was exhausted, where rows may not be left out and the stream was not
            cut before it.
    """

    def __init__(self, header: StreamHeader, encoder: Encoder, framing: Framing, plan: Plan) -> None:
        self._header = header
        self._encoder = encoder
        self._framing = framing
        self._block_size = plan.block_size
        self._tally = CandidateTally(plan.pools)
        self._batches = _BatchAssembly(header, encoder)
        self._group = _Group(header.start_row)
        self._draining = False
        self._expired = False
        self._cut = False
        self._next_row = header.start_row
        self._candidates = 0
        self._accepted = 0
        self._delivered = 0
        self.unfilled: Block | None = None

    def drain(self) -> None:
        """End the stream with the batches that are there; another call resumes it at `summary.next_row`."""
        self._draining = True

    def expire(self) -> None:
        """End the stream as `drain` does, but not before a batch was delivered, so that every call makes progress."""
        self._expired = True

    @property
    def ended(self) -> bool:
        """Whether no more blocks are needed, though some may be left."""
        return self._cut or self.unfilled is not None

    @property
    def summary(self) -> StreamSummary:
        """What was done; final once `closing` was read."""
        complete = self._next_row == self._header.end_row
        return StreamSummary(
            candidates=self._candidates,
            accepted=self._accepted,
            rows_delivered=self._delivered,
            complete=complete,
            next_row=self._next_row,
            distinct_candidates=self._tally.distinct,
            rows_per_candidate=self._tally.most_shared,
        )

    def opening(self) -> Iterator[RowsMessage]:
        """Yield the messages before the first that holds rows: pieces of a header that is longer than a message."""
        lead = b""
        if self._framing.skipped is not None:
            lead = self._encoder.header() + (b"" if self._has_rows else self._end())
            lead = lead[self._framing.skipped :]
        while len(lead) > self._framing.message_bytes:
            yield RowsMessage(self._header.start_row, 0, lead[: self._framing.message_bytes])
            lead = lead[self._framing.message_bytes :]
        self._group = _Group(self._header.start_row, lead)

    def encode(self, block: Block) -> list[Batch]:
        """Take the next block and return the batches that it completes, those before a gap where none is allowed."""
        self._candidates += block.candidates
        self._accepted += block.accepted
        first = max(block.first_row, self._header.start_row)
        stop = min(block.first_row + self._block_size, self._header.end_row)
        batches = self._batches.add(block, first, stop)
        if block.first_row + block.rows < stop and not self._framing.allow_partial:
            self.unfilled = block
            return [batch for batch in batches if not batch.missing]
        return batches

    def messages(self, batches: Iterable[Batch]) -> Iterator[RowsMessage]:
        """Yield the messages that are full before each of the batches that come next."""
        for batch in batches:
            if self._draining or (self._expired and self._next_row > self._header.start_row):
                self._cut = True
                # A gap after the cut is one that the stream which resumes this one comes to.
                self.unfilled = None
                return
            if self._group.batches and self._group.size + batch.size > self._framing.message_bytes:
                yield self._group.message()
                self._group = _Group(batch.first_row)
            self._group.add(batch)
            self._delivered += batch.rows
            for start, stop in batch.spans():
                self._tally.add(start, stop)
            self._next_row = batch.first_row + batch.row_count

    def closing(self) -> Iterator[RowsMessage]:
        """Yield the last message, where there is anything left to send."""
        if self._has_rows and self.unfilled is None and self._next_row == self._header.end_row:
            self._group.data.append(self._end())
        last = self._group.message()
        if last.row_count or last.data:
            yield last

    @property
    def _has_rows(self) -> bool:
        return self._header.start_row < self._header.end_row

    def _end(self) -> bytes:
        """Return what the file ends with, where this stream is the end of it."""
        return self._encoder.end() if self._header.end_row == self._header.rows else b""


@dataclass
class _Group:
    """Batches that make up one message."""

    first_row: int
    lead: bytes = b""
    batches: list[Batch] = field(default_factory=list)
    data: list[bytes] = field(default_factory=list)
    size: int = 0

    def __post_init__(self) -> None:
        self.data.append(self.lead)
        self.size = len(self.lead)

    def add(self, batch: Batch) -> None:
        """Add the batch that comes next."""
        self.batches.append(batch)
        self.size += batch.size
        if isinstance(batch.payload, bytes):
            self.data.append(batch.payload)

    def message(self) -> RowsMessage:
        """Return the message."""
        return RowsMessage(
            self.first_row,
            sum(batch.row_count for batch in self.batches),
            b"".join(self.data),
            tuple(batch.payload for batch in self.batches if isinstance(batch.payload, TypedBatch)),
            _joined([span for batch in self.batches for span in batch.missing]),
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


class _BatchAssembly:
    """Turns blocks, in order, into batches; a batch may span blocks, and a block batches."""

    def __init__(self, header: StreamHeader, encoder: Encoder) -> None:
        self._grid = header.grid
        self._end = header.end_row
        self._names = header.schema.names
        self._encoder = encoder
        self._parts: list[dict[str, ColumnArray]] = []
        self._missing: list[tuple[int, int]] = []
        self._first = header.start_row

    def add(self, block: Block, first: int, stop: int) -> list[Batch]:
        """Take the rows `first` to `stop` of a block and return the batches they complete."""
        found = block.first_row + block.rows
        batches: list[Batch] = []
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
                batches.append(self._batch(edge))
        return batches

    def _batch(self, edge: int) -> Batch:
        parts, missing, first = self._parts, _joined(self._missing), self._first
        self._parts, self._missing, self._first = [], [], edge
        rows = edge - first - sum(stop - start for start, stop in missing)
        payload = None
        if rows:
            columns = {name: concatenate([part[name] for part in parts]) for name in self._names}
            payload = self._encoder.batch(columns, first, rows)
        return Batch(first, edge - first, rows, payload, missing)
