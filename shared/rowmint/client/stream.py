"""A stream of rows, as whoever asked for it reads it; wherever the rows come from."""

import io
from abc import ABC
from collections.abc import Callable, Generator, Iterator
from typing import IO, TYPE_CHECKING, Self

from rowmint.errors import InvalidFieldError
from rowmint.v1 import sampling_pb2

if TYPE_CHECKING:
    import pyarrow as pa

SampleProgress = Callable[[int, int], None]
"""Called with the rows received so far and the rows asked for."""

Messages = Generator[sampling_pb2.SampleHeader | sampling_pb2.SampleData, None, None]


class SampleStream(ABC):
    """A stream of rows, gone on with at another replica wherever a call breaks. For one thread; read it once, one way.

    A stream that is not read to its end must be closed, or used as a context manager.

    Args:
        request: What is asked for.

    Attributes:
        header: Resolved version, digests, seed and schema.
        address: The replica that is read from, or was last, as it names itself; where it does not, the address that
            the client was given. Of several addresses, all, until one has answered.
        resumes: How often the stream was gone on with by another call.
        candidates: Candidates drawn, by the calls that ended with a summary.
        accepted: Candidates that satisfied the conditions, likewise.
        missing: Ranges of row indices the conditions starved, ascending and apart; only with `allow_partial`.
    """

    header: sampling_pb2.SampleHeader
    _run: Messages

    def __init__(self, request: sampling_pb2.SampleRequest) -> None:
        self._request = sampling_pb2.SampleRequest()
        self._request.CopyFrom(request)
        self._next_row = request.start_row
        self.address = ""
        self.resumes = 0
        self.candidates = 0
        self.accepted = 0
        self.missing: list[sampling_pb2.RowRange] = []

    @property
    def next_row(self) -> int:
        """Index of the next row not yet received."""
        return self._next_row

    @property
    def rows_asked(self) -> int:
        """Rows of this stream, missing ones included."""
        return self.header.end_row - self.header.start_row

    @property
    def acceptance(self) -> float | None:
        """Share of candidates that satisfied the conditions, or None where no call has told yet."""
        return self.accepted / self.candidates if self.candidates else None

    def messages(self) -> Iterator[sampling_pb2.SampleData]:
        """Yield the data messages, checked, in order, each row once."""
        for message in self._run:
            if isinstance(message, sampling_pb2.SampleData):
                yield message

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes of the stream; joined, they are what one unbroken call gives."""
        for message in self.messages():
            if message.data:
                yield message.data

    def reader(self) -> "pa.RecordBatchReader":
        """Return an Arrow reader of the stream; for `format="arrow"` from its beginning.

        Raises:
            InvalidFieldError: The stream is in another format, or goes on with another one.
        """
        if self._request.format not in (sampling_pb2.ROW_FORMAT_UNSPECIFIED, sampling_pb2.ROW_FORMAT_ARROW_STREAM):
            raise InvalidFieldError("format", "only an Arrow stream has record batches; sample with format='arrow'")
        if self._request.framing == sampling_pb2.FRAMING_CONTINUE:
            raise InvalidFieldError("framing", "a stream that goes on with another has no schema; read its chunks")
        import pyarrow.ipc  # noqa: PLC0415 - it loads numpy where there is one; most commands need neither.

        return pyarrow.ipc.open_stream(_JoinedBytes(self.chunks()))

    def __iter__(self) -> Iterator["pa.RecordBatch"]:
        if self.rows_asked:
            yield from self.reader()
            self._read_to_end()

    def to_table(self) -> "pa.Table":
        """Read the whole stream into an Arrow table."""
        table = self.reader().read_all()
        self._read_to_end()
        return table

    def _read_to_end(self) -> None:
        """Read what follows the last batch: a stream is complete only when its summary has come."""
        for _ in self.messages():
            pass

    def write_to(self, file: IO[bytes], progress: SampleProgress | None = None) -> None:
        """Write the stream's bytes to a binary file as they come."""
        for message in self.messages():
            file.write(message.data)
            if progress is not None:
                progress(self._next_row - self.header.start_row, self.rows_asked)

    def close(self) -> None:
        """End the stream; the call that runs is cancelled."""
        self._run.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _pass(self, message: sampling_pb2.SampleData) -> None:
        """Count a message that is passed on."""
        self._next_row += message.row_count
        for gap in message.missing:
            if self.missing and self.missing[-1].end_row == gap.start_row:
                self.missing[-1].end_row = gap.end_row
            else:
                # A copy: what comes out of a message keeps all of it in memory.
                self.missing.append(sampling_pb2.RowRange(start_row=gap.start_row, end_row=gap.end_row))


class _JoinedBytes(io.RawIOBase):
    """Chunks of bytes as one file, for Arrow: a read gives what was asked for, less only at the end."""

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
