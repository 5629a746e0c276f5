"""A stream of rows as its reader sees it, however many calls deliver the rows."""

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Self

from rowmint.errors import InvalidFieldError
from rowmint.v1 import sampling_pb2

if TYPE_CHECKING:
    import pyarrow as pa

SampleProgress = Callable[[int, int], None]
"""Called with the rows received so far and the rows requested."""


@dataclass
class Tally:
    """What a stream has received so far.

    Attributes:
        next_row: Index of the next row not yet received.
        candidates: Candidates drawn, by the calls that ended with a summary.
        accepted: Candidates that satisfied the conditions, likewise.
        distinct: Distinct candidates that the rows of each call rest on, summed likewise.
        missing: Ranges of row indices that are left out, ascending and apart.
    """

    next_row: int
    candidates: int = 0
    accepted: int = 0
    distinct: int = 0
    missing: list[sampling_pb2.RowRange] = field(default_factory=list)

    def add(self, message: sampling_pb2.SampleData) -> None:
        """Count a message of rows."""
        self.next_row += message.row_count
        for gap in message.missing:
            if self.missing and self.missing[-1].end_row == gap.start_row:
                self.missing[-1].end_row = gap.end_row
            else:
                # A copy: what comes out of a message keeps all of it in memory.
                self.missing.append(sampling_pb2.RowRange(start_row=gap.start_row, end_row=gap.end_row))

    def finish(self, summary: sampling_pb2.SampleSummary) -> None:
        """Count what a call says that it has done."""
        self.candidates += summary.candidates
        self.accepted += summary.accepted
        self.distinct += summary.distinct_candidates


class SampleStream(ABC):
    """A stream of rows, resumed at another replica wherever a call breaks. For one thread; read it once, one way.

    A stream that is not read to its end must be closed, or used as a context manager.

    Args:
        request: The request.

    Attributes:
        header: Resolved version, digests, seed and schema.
    """

    header: sampling_pb2.SampleHeader

    def __init__(self, request: sampling_pb2.SampleRequest) -> None:
        self._request = sampling_pb2.SampleRequest()
        self._request.CopyFrom(request)
        self._tally = Tally(request.start_row)

    @property
    @abstractmethod
    def address(self) -> str:
        """The replica that is read from, or was last, as it names itself.

        Where it does not name itself, the address that the client was given: of several addresses all.
        """

    @property
    @abstractmethod
    def resumes(self) -> int:
        """How often the stream was resumed by another call."""

    @abstractmethod
    def messages(self) -> Iterator[sampling_pb2.SampleData]:
        """Yield the data messages, checked, in order, each row once."""

    @abstractmethod
    def close(self) -> None:
        """End the stream; calls that run are cancelled."""

    @property
    def next_row(self) -> int:
        """Index of the next row not yet received."""
        return self._tally.next_row

    @property
    def rows_requested(self) -> int:
        """Rows of this stream, missing ones included."""
        return self.header.end_row - self.header.start_row

    @property
    def candidates(self) -> int:
        """Candidates drawn, by the calls that ended with a summary."""
        return self._tally.candidates

    @property
    def accepted(self) -> int:
        """Candidates that satisfied the conditions, by the calls that ended with a summary."""
        return self._tally.accepted

    @property
    def rows_per_candidate(self) -> int:
        """Most rows of the whole logical stream that share a candidate; 1: they are independent; 0: not known."""
        return self.header.rows_per_candidate

    @property
    def distinct_candidates(self) -> int:
        """Distinct candidates that the rows rest on, by the calls that ended with a summary; 0 where it is not known.

        Where `rows_per_candidate` is above 1 and several calls delivered the rows, it is an upper bound: two calls may
        have used the same candidates.
        """
        return min(self._tally.distinct, self.header.distinct_candidates)

    @property
    def missing(self) -> list[sampling_pb2.RowRange]:
        """Ranges of row indices that are left out, ascending and apart; only with `allow_partial`."""
        return self._tally.missing

    @property
    def acceptance(self) -> float | None:
        """Share of candidates that satisfied the conditions, or None where no call has reported it yet."""
        return self.accepted / self.candidates if self.candidates else None

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes of the stream; joined, they are what one unbroken call gives."""
        for message in self.messages():
            if message.data:
                yield message.data

    def reader(self) -> "pa.RecordBatchReader":
        """Return an Arrow reader of the stream; for `format="arrow"` from its beginning.

        Raises:
            InvalidFieldError: The stream is in another format, or continues another one.
        """
        if self._request.format not in (sampling_pb2.ROW_FORMAT_UNSPECIFIED, sampling_pb2.ROW_FORMAT_ARROW_STREAM):
            raise InvalidFieldError("format", "only an Arrow stream has record batches; sample with format='arrow'")
        if self._request.framing == sampling_pb2.FRAMING_CONTINUE or self._request.received_bytes:
            raise InvalidFieldError("framing", "a stream that continues another one has no schema; read its chunks")
        import pyarrow.ipc  # noqa: PLC0415 - it loads numpy where there is one; most commands need neither.

        return pyarrow.ipc.open_stream(_JoinedBytes(self.chunks()))

    def __iter__(self) -> Iterator["pa.RecordBatch"]:
        if self.rows_requested:
            yield from self.reader()
            self.read_to_end()

    def to_table(self) -> "pa.Table":
        """Read the whole stream into an Arrow table."""
        table = self.reader().read_all()
        self.read_to_end()
        return table

    def read_to_end(self) -> None:
        """Read what follows the last batch: a stream is complete only when its summary has come."""
        for _ in self.messages():
            pass

    def write_to(self, file: IO[bytes], progress: SampleProgress | None = None) -> None:
        """Write the stream's bytes to a binary file as they come."""
        for message in self.messages():
            file.write(message.data)
            if progress is not None:
                progress(self.next_row - self.header.start_row, self.rows_requested)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _JoinedBytes(io.RawIOBase):
    """Chunks of bytes as one file, for Arrow: a read gives the size requested, less only at the end."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks = chunks
        self._buffer = b""
        self._position = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = -1 if size is None else size
        parts: list[bytes] = []
        while wanted:
            if self._position == len(self._buffer):
                self._buffer = next(self._chunks, b"")
                self._position = 0
                if not self._buffer:
                    break
            end = len(self._buffer) if wanted < 0 else min(self._position + wanted, len(self._buffer))
            parts.append(self._buffer[self._position : end])
            wanted -= end - self._position if wanted > 0 else 0
            self._position = end
        return b"".join(parts)
