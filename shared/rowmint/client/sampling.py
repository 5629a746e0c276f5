"""Sampling: one logical stream of rows, put together from as many calls as it takes."""

import contextlib
import io
import os
import secrets
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

import google_crc32c
import grpc

from rowmint.client.connection import Connection
from rowmint.client.errors import RowmintCallError, call_error
from rowmint.client.models import ModelCalls
from rowmint.client.where import Conditions, where_message
from rowmint.errors import (
    ChecksumError,
    DataLossError,
    InvalidFieldError,
    RowmintError,
    StreamMismatchError,
    UnavailableError,
)
from rowmint.v1 import condition_pb2, model_pb2, sampling_pb2, schema_pb2
from rowmint.v1.sampling_service_pb2_grpc import SamplingServiceStub

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = {
    "arrow": sampling_pb2.ROW_FORMAT_ARROW_STREAM,
    "csv": sampling_pb2.ROW_FORMAT_CSV,
    "ndjson": sampling_pb2.ROW_FORMAT_NDJSON,
    "columns": sampling_pb2.ROW_FORMAT_COLUMNS,
}

SampleProgress = Callable[[int, int], None]
"""Called with the rows received so far and the rows asked for."""

_Leg = Generator[sampling_pb2.SampleHeader | sampling_pb2.SampleData, None, bool]


class _BrokenError(Exception):
    """What was received is not what a whole stream looks like; another attempt may be."""

    def __init__(self, error: RowmintError) -> None:
        super().__init__(error.message)
        self.error = error


class SampleStream:
    """A stream of rows, resumed on the next replica wherever one breaks. For one thread; read it once, in one way.

    A stream that is not read to its end must be closed, or used as a context manager.

    Args:
        connection: The channels.
        request: What is asked for; its framing is that of the first call.

    Attributes:
        header: Resolved version, digests, seed and schema.
        address: Address of the replica that is read from, or was last.
        resumes: How often the stream was gone on with by another call.
        candidates: Candidates drawn, by the calls that ended with a summary.
        accepted: Candidates that satisfied the conditions, likewise.
        missing: Ranges of row indices the conditions starved; only with `allow_partial`.

    Raises:
        RowmintCallError: The service refused, or no replica was reachable for too long.
        RowmintError: Every attempt delivered something damaged.
    """

    def __init__(self, connection: Connection, request: sampling_pb2.SampleRequest) -> None:
        self._connection = connection
        self._request = sampling_pb2.SampleRequest()
        self._request.CopyFrom(request)
        self._next_row = request.start_row
        # Bytes received of a stream of which no row was: a format's header by itself.
        self._lead_bytes = 0
        self._progress = 0
        self._start_row = request.start_row
        self.address = ""
        self.resumes = 0
        self.candidates = 0
        self.accepted = 0
        self.missing: list[sampling_pb2.RowRange] = []
        self._known: sampling_pb2.SampleHeader | None = None
        self._run = self._legs()
        first = next(self._run)
        if not isinstance(first, sampling_pb2.SampleHeader):
            raise TypeError("a stream begins with its header")
        self.header = first

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

    def _legs(self) -> Generator[sampling_pb2.SampleHeader | sampling_pb2.SampleData, None, None]:
        """Make calls until the stream is complete."""
        connection = self._connection
        replica = connection.next_replica()
        count = len(connection.replicas)
        failures = 0
        while True:
            peer = connection.replicas[replica]
            self.address = peer.address
            before = self._progress
            failure: RowmintCallError | RowmintError
            asked: float | None = None
            try:
                if (yield from self._leg(peer.channel)):
                    return
                failure = UnavailableError(f"{peer} ended the stream at row {self._next_row} and goes no further")
            except grpc.RpcError as error:
                failure = call_error(error, str(peer))
                asked = failure.retry_after
                if not failure.retryable:
                    raise failure from None
            except _BrokenError as error:
                failure = error.error
            failures = 0 if self._progress > before else failures + 1
            unreached = self._known is None and isinstance(failure, RowmintCallError) and not failure.reason
            if failures >= (count + 2 if unreached else connection.retry.attempts):
                if isinstance(failure, RowmintCallError) and not unreached:
                    failure = failure.given_up(failures)
                raise failure
            # Another replica is asked at once; one that has failed already, after a while.
            if failures >= count:
                connection.retry.wait(failures - count + 1, asked)
            replica = (replica + 1) % count
            self.resumes += self._known is not None

    def _next_request(self) -> tuple[sampling_pb2.SampleRequest, int]:
        """Return what is asked for next, and how many of its first bytes are known already."""
        header = self._known
        if header is None:
            return self._request, 0
        request = sampling_pb2.SampleRequest()
        request.CopyFrom(self._request)
        request.model = header.model_version
        request.seed = header.seed
        request.expected_model_digest = header.model_digest
        request.expected_plan_digest = header.plan_digest
        if self._next_row == self._start_row:
            # No row came: the start may lie off the grid, where only a stream with a header may begin.
            return request, self._lead_bytes
        request.start_row = self._next_row
        request.framing = sampling_pb2.FRAMING_CONTINUE
        return request, 0

    def _leg(self, channel: grpc.Channel) -> _Leg:
        """Make one call; yield the header where it is the first, then data; return whether all is there."""
        request, skip = self._next_request()
        seen = 0
        call = SamplingServiceStub(channel).Sample(request)
        started = False
        try:
            for response in call:
                kind = response.WhichOneof("message")
                if kind == "header":
                    started = True
                    if self._known is None:
                        self._known = response.header
                        self._next_row = self._start_row = response.header.start_row
                        yield response.header
                    else:
                        self._check_header(response.header)
                elif not started:
                    raise _BrokenError(DataLossError(f"{self.address} sent a stream without a header; try again"))
                elif kind == "data":
                    data = response.data
                    self._check_data(data)
                    seen += len(data.data)
                    known = min(skip, len(data.data))
                    skip -= known
                    self._count(data, seen)
                    if known:
                        data.data = data.data[known:]
                    yield data
                elif kind == "summary":
                    return self._finish(response.summary)
            raise _BrokenError(
                UnavailableError(
                    f"{self.address} ended the stream at row {self._next_row} without a summary; try again"
                )
            )
        finally:
            call.cancel()

    def _check_header(self, header: sampling_pb2.SampleHeader) -> None:
        first = self._known
        if first is None:
            return
        for field in ("model_version", "model_digest", "plan_digest", "seed", "rows", "end_row", "grid"):
            if getattr(header, field) != getattr(first, field):
                raise StreamMismatchError(
                    f"{self.address} went on with another stream: its {field} differs; do the replicas read one store?"
                )

    def _check_data(self, data: sampling_pb2.SampleData) -> None:
        if google_crc32c.value(data.data) != data.crc32c:
            raise _BrokenError(
                ChecksumError(f"the rows from {data.first_row} came damaged from {self.address}; try again")
            )
        if data.first_row != self._next_row or data.row_count < 0:
            raise _BrokenError(
                DataLossError(f"{self.address} sent row {data.first_row} where {self._next_row} was next; try again")
            )

    def _count(self, data: sampling_pb2.SampleData, seen: int) -> None:
        """Count a message; `seen` are the bytes of this call so far, its own included."""
        self._next_row += data.row_count
        self.missing.extend(data.missing)
        if data.row_count:
            self._progress += 1
        elif self.next_row == self._start_row and seen > self._lead_bytes:
            self._lead_bytes = seen
            self._progress += 1

    def _finish(self, summary: sampling_pb2.SampleSummary) -> bool:
        self.candidates += summary.candidates
        self.accepted += summary.accepted
        if not summary.complete:
            if summary.next_row != self._next_row:
                raise _BrokenError(
                    DataLossError(
                        f"{self.address} ended at row {summary.next_row}, but {self._next_row} was next; try again"
                    )
                )
            return False
        first = self._known
        if first is not None and self._next_row != first.end_row and not self._request.allow_partial:
            raise _BrokenError(
                DataLossError(f"{self.address} ended at row {self._next_row} of {first.end_row}; try again")
            )
        return True


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


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that appears under its name only when all is written; a device or pipe is written as it comes."""
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            yield file
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


class SamplingCalls(ModelCalls):
    """The part of the client that asks for rows."""

    def sample_request(
        self,
        model: str | model_pb2.ModelVersion,
        rows: int,
        *,
        where: Conditions = None,
        columns: Sequence[str] = (),
        seed: int | None = None,
        start_row: int | None = None,
        end_row: int | None = None,
        format: str = "arrow",  # noqa: A002  # the field's name
        allow_partial: bool = False,
        message_bytes: int | None = None,
        csv_escape_formulas: bool = False,
    ) -> sampling_pb2.SampleRequest:
        """Return the request that `sample` makes; arguments as there. Conditions are typed by the version's schema."""
        if format not in FORMATS:
            raise InvalidFieldError("format", f"{format!r} is unknown; say one of {', '.join(FORMATS)}")
        if isinstance(model, model_pb2.ModelVersion):
            name, schema = model.name, model.schema
        elif where is None or isinstance(where, condition_pb2.Where) or not where:
            name, schema = self._full_name(model, "models"), schema_pb2.TableSchema()
        else:
            # The version is pinned: an alias moved in between must not change what the values mean.
            version = self.get_version(model)
            name, schema = version.name, version.schema
        try:
            return sampling_pb2.SampleRequest(
                model=name,
                rows=rows,
                start_row=start_row,
                end_row=end_row,
                where=where_message(where, schema),
                columns=columns,
                seed=seed,
                format=FORMATS[format],
                allow_partial=allow_partial or None,
                message_bytes=message_bytes,
                csv_escape_formulas=csv_escape_formulas or None,
            )
        except (ValueError, TypeError) as error:
            raise InvalidFieldError("sample", f"a number is out of its type's range or no number ({error})") from error

    def sample(
        self,
        model: str | model_pb2.ModelVersion,
        rows: int,
        *,
        where: Conditions = None,
        columns: Sequence[str] = (),
        seed: int | None = None,
        start_row: int | None = None,
        end_row: int | None = None,
        format: str = "arrow",  # noqa: A002  # the field's name
        allow_partial: bool = False,
        message_bytes: int | None = None,
        csv_escape_formulas: bool = False,
    ) -> SampleStream:
        """Ask for rows; the stream's header is there on return, its rows come as they are read.

        Args:
            model: A version, its name, or a model by name or id: bare for its latest, `@alias`, `@sha256:digest`.
            rows: Length of the whole logical stream, 1 to 10^15.
            where: Which rows are wanted; see `rowmint.client.where`.
            columns: Columns delivered, in this order; empty for all.
            seed: Seed of the stream, 0 to 2^64 - 1; None for one drawn by the service, told in the header.
            start_row: First row delivered; None for 0.
            end_row: Row after the last one delivered; None for `rows`.
            format: `arrow`, `csv`, `ndjson` or `columns`.
            allow_partial: Whether rows that the conditions starve are left out instead of ending the stream.
            message_bytes: Size of messages aimed at, 16 KiB to 1 MiB; None for the service's default.
            csv_escape_formulas: Whether a CSV cell that a spreadsheet takes for a formula gets an apostrophe.

        Raises:
            RowmintCallError: The service refused, or no replica was reachable.
            ColumnNotFoundError: A condition names an unknown column.
            InvalidConditionError: A condition cannot be read.
        """
        return self.sample_stream(
            self.sample_request(
                model,
                rows,
                where=where,
                columns=columns,
                seed=seed,
                start_row=start_row,
                end_row=end_row,
                format=format,
                allow_partial=allow_partial,
                message_bytes=message_bytes,
                csv_escape_formulas=csv_escape_formulas,
            )
        )

    def sample_stream(self, request: sampling_pb2.SampleRequest) -> SampleStream:
        """Ask for the rows of a ready-made request, such as a part of `plan_sample`."""
        return SampleStream(self._connection, request)

    def sample_to_file(
        self,
        path: str | os.PathLike[str],
        model: str | model_pb2.ModelVersion,
        rows: int,
        *,
        format: str = "csv",  # noqa: A002  # the field's name
        progress: SampleProgress | None = None,
        where: Conditions = None,
        columns: Sequence[str] = (),
        seed: int | None = None,
        allow_partial: bool = False,
        csv_escape_formulas: bool = False,
    ) -> SampleStream:
        """Write rows to a file, which appears only when it is complete; other arguments and errors as in `sample`.

        Returns:
            The stream, read to its end: its header, acceptance and number of resumptions.
        """
        if format == "columns":
            raise InvalidFieldError("format", "columns have no file; say arrow, csv or ndjson")
        request = self.sample_request(
            model,
            rows,
            where=where,
            columns=columns,
            seed=seed,
            format=format,
            allow_partial=allow_partial,
            csv_escape_formulas=csv_escape_formulas,
        )
        with self.sample_stream(request) as stream, whole_file(Path(path)) as file:
            stream.write_to(file, progress)
            return stream

    def plan_sample(self, request: sampling_pb2.SampleRequest, parts: int = 1) -> sampling_pb2.PlanSampleResponse:
        """Say what a stream would be made of, and cut it into parts whose data, in order, is the single stream.

        Args:
            request: From `sample_request`.
            parts: Contiguous parts wanted, 1 to 1,024.
        """
        message = sampling_pb2.PlanSampleRequest(sample=request, parts=parts)
        return self._connection.call_sampler(lambda channel: SamplingServiceStub(channel).PlanSample, message)
