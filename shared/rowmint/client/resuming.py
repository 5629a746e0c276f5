"""One logical stream of rows, put together from as many calls as it takes, one after the other."""

import threading
from collections.abc import Generator
from typing import Any

import google_crc32c
import grpc

from rowmint.client.connection import RetryPolicy, Turns, Way
from rowmint.client.errors import RowmintCallError, call_error
from rowmint.client.stream import Messages, SampleStream
from rowmint.client.tracing import StreamSpan, current_context
from rowmint.errors import ChecksumError, DataLossError, RowmintError, StreamMismatchError, UnavailableError
from rowmint.v1 import sampling_pb2
from rowmint.v1.sampling_service_pb2_grpc import SamplingServiceStub

_Leg = Generator[sampling_pb2.SampleHeader | sampling_pb2.SampleData, None, bool]
_STATUS_SECONDS = 1.0
_REPLICA = "rowmint-replica"
"""Initial metadata by which a replica names itself."""


class _BrokenError(Exception):
    """What was received is not what a whole stream looks like; another attempt may be."""

    def __init__(self, error: RowmintError) -> None:
        super().__init__(error.message)
        self.error = error


def _replica(call: Any) -> str:
    """Return how the replica that answers a call names itself, or nothing. A call that was answered does not wait."""
    return next((str(value) for key, value in call.initial_metadata() if key == _REPLICA), "")


def _await_status(call: Any) -> None:
    """Wait a moment for the end of a call that has told all: to cancel it now would be counted as giving it up."""
    ended = threading.Event()
    if call.add_callback(ended.set):
        ended.wait(_STATUS_SECONDS)


def _kind(failure: RowmintCallError | RowmintError) -> str:
    """Return what kind of failure it was, in a word."""
    return failure.code.name if isinstance(failure, RowmintCallError) else type(failure).__name__


class Effort:
    """What calls that serve one reader share, on however many threads: their progress, and their end.

    Attributes:
        progress: Messages that brought one of them further. While it grows, none is given up.
        trace: What their spans hang on.
    """

    def __init__(self) -> None:
        self.progress = 0
        # A reader that is dropped cancels on whichever thread collects it, perhaps inside one of these very methods.
        self._lock = threading.RLock()
        self._calls: set[grpc.Call] = set()
        # Taken here, as parts of a stream are read on threads of their own.
        self.trace = current_context()
        self.cancelled = threading.Event()

    def advance(self) -> None:
        """Count a message that brought a call further."""
        with self._lock:
            self.progress += 1

    def begin(self, call: grpc.Call) -> None:
        """Take in a call that runs, to be cancelled with the others."""
        with self._lock:
            self._calls.add(call)
        if self.cancelled.is_set():
            call.cancel()

    def end(self, call: grpc.Call) -> None:
        """Cancel one call, where it still runs, and let go of it."""
        call.cancel()
        with self._lock:
            self._calls.discard(call)

    def cancel(self) -> None:
        """Cancel every call, and those to come; from any thread, any number of times."""
        self.cancelled.set()
        with self._lock:
            calls = tuple(self._calls)
        for call in calls:
            call.cancel()


class ResumingStream(SampleStream):
    """A stream that is one call at a time; its header is there once it is made.

    Args:
        way: The way to the sampler.
        retry: When it is gone on with.
        request: What is asked for; its framing is that of the first call.
        known: Its header, where a plan has told it: the first call is then held to it, and made by the first read.
        effort: What it shares with other streams of the same reader.

    Raises:
        RowmintCallError: The service refused, or no replica was reachable for too long.
        RowmintError: Every attempt delivered something damaged.
    """

    def __init__(
        self,
        way: Way,
        retry: RetryPolicy,
        request: sampling_pb2.SampleRequest,
        *,
        known: sampling_pb2.SampleHeader | None = None,
        effort: Effort | None = None,
    ) -> None:
        super().__init__(request)
        self._way = way
        self._retry = retry
        self._effort = Effort() if effort is None else effort
        # Bytes received of a stream of which no row was: a format's header by itself.
        self._lead_bytes = 0
        self._progress = 0
        self._start_row = request.start_row
        self._known = known
        self._answered = False
        self._span = StreamSpan("rowmint.v1.SamplingService/Sample", self._effort.trace)
        self._run = self._legs()
        if known is None:
            first = next(self._run)
            if not isinstance(first, sampling_pb2.SampleHeader):
                raise TypeError("a stream begins with its header")
            known = first
        self.header = known

    def _legs(self) -> Messages:
        """Make calls until the stream is complete, all of them in one span."""
        with self._span:
            yield from self._calls()

    def _calls(self) -> Messages:
        turns = Turns(self._way, self._retry)
        own, all_of_us = self._progress, self._effort.progress
        while True:
            peer = turns.peer
            self.address = peer.address
            failure: RowmintCallError | RowmintError
            try:
                if (yield from self._leg(peer.channel)):
                    return
                failure = UnavailableError(
                    f"the sampler at {self.address} ended the stream at row {self._next_row} and goes no further"
                )
            except grpc.RpcError as error:
                failure = call_error(error, f"the sampler at {self.address}")
                if not failure.retryable or self._effort.cancelled.is_set():
                    raise failure from None
            except _BrokenError as error:
                failure = error.error
            came, hope = self._progress > own, self._effort.progress > all_of_us
            own, all_of_us = self._progress, self._effort.progress
            turns.failed(failure, progress=came, reached=self._known is not None, hope=hope)
            self.resumes += self._answered
            self._span.tell("resumed", {"rowmint.next_row": self._next_row, "error.type": _kind(failure)})

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
        call: Any = SamplingServiceStub(channel).Sample(request, metadata=self._span.metadata)
        self._effort.begin(call)
        started = False
        try:
            for response in call:
                kind = response.WhichOneof("message")
                if kind == "header":
                    started = self._answered = True
                    self.address = _replica(call) or self.address
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
                    _await_status(call)
                    return self._finish(response.summary)
            raise _BrokenError(
                UnavailableError(
                    f"{self.address} ended the stream at row {self._next_row} without a summary; try again"
                )
            )
        finally:
            self._effort.end(call)

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
        self._pass(data)
        if data.row_count:
            self._advance()
        elif self.next_row == self._start_row and seen > self._lead_bytes:
            self._lead_bytes = seen
            self._advance()

    def _advance(self) -> None:
        self._progress += 1
        self._effort.advance()

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
        self._span.annotate({"rowmint.rows": self._next_row - self._start_row})
        first = self._known
        if first is not None and self._next_row != first.end_row and not self._request.allow_partial:
            raise _BrokenError(
                DataLossError(f"{self.address} ended at row {self._next_row} of {first.end_row}; try again")
            )
        return True
