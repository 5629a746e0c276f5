"""SamplingService: convert, call, convert."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from rowmint.errors import EmptyStreamError, LimitError, Reason
from rowmint.names import ModelVersionName, ModelVersionRef
from rowmint.observability.calls import record_reason
from rowmint.rpc import orca, status
from rowmint.rpc.server import Service
from rowmint.sampling.completion import GROUP_ROWS, CompletionSpec, RowCompletion
from rowmint.sampling.stream import SampleStream
from rowmint.v1 import sampling_pb2, sampling_service_pb2, sampling_service_pb2_grpc, statistics_pb2
from sampler_service import converters
from sampler_service.admission import Admission, Ticket
from sampler_service.sampler import Sampler, SampleSpec
from sampler_service.statistics import COMPLETED, Statistics

T = TypeVar("T")

_RETRY_SECONDS = 1.0
_LATE = object()  # stands for a message that has not come before its stream is to end

REPLICA = "rowmint-replica"
"""Initial metadata that says which replica answers."""


@dataclass(frozen=True)
class StreamLimits:
    """How long one call may take.

    Attributes:
        write_timeout: Seconds a client may leave a message unread.
        max_seconds: Seconds after which a stream is ended, to be gone on with elsewhere; 0 for never.
    """

    write_timeout: float
    max_seconds: float = 0.0


@dataclass(frozen=True)
class Replica:
    """What a replica tells of itself with every answer.

    Attributes:
        name: Says which it is, in printable ASCII, once it serves.
        load: Says how busy it is now.
        did: Counts candidates drawn that no block counts.
    """

    name: Callable[[], str]
    load: Callable[[], orca.LoadReport]
    did: Callable[[int], None]


class SamplingServicer(sampling_service_pb2_grpc.SamplingServiceServicer):
    """Makes rows.

    Args:
        sampler: Opens streams.
        executor_of: Gives the threads that encode and complete, for the id of a project.
        admission: Lets calls begin.
        limits: How long they may take.
        replica: What is told with every answer.
        statistics: What was done so far.
    """

    def __init__(
        self,
        sampler: Sampler,
        executor_of: Callable[[str], Executor],
        admission: Admission,
        *,
        limits: StreamLimits,
        replica: Replica,
        statistics: Statistics,
    ) -> None:
        self._statistics = statistics
        self._sampler = sampler
        self._executor_of = executor_of
        self._admission = admission
        self._limits = limits
        self._replica = replica
        self._open: set[SampleStream] = set()
        self._draining = asyncio.Event()
        self._farewells: set[asyncio.Task[None]] = set()

    def drain(self) -> None:
        """End every stream where it stands, on the grid, so that its client goes on at another replica."""
        self._draining.set()
        self._admission.drain()
        for stream in self._open:
            stream.drain()

    async def Sample(
        self, request: sampling_pb2.SampleRequest, context: Any
    ) -> AsyncIterator[sampling_pb2.SampleResponse]:
        """Stream rows."""
        spec = converters.sample_spec(request)
        ticket = self._enter(spec.model, context)
        async with aclosing(self._paced(self._sample(spec, ticket, context), context)) as responses:
            async for response in responses:
                yield response

    async def PlanSample(
        self, request: sampling_pb2.PlanSampleRequest, context: Any
    ) -> sampling_pb2.PlanSampleResponse:
        """Say what a stream would be made of and cut it into parts."""
        spec = converters.sample_spec(request.sample, "sample.")
        with converters.within_sample():
            planned = await self._sampler.plan(spec, request.parts if request.HasField("parts") else 1)
        await self._tell_who(context)
        self._tell_load(context)
        return converters.planned_to_proto(planned, request.sample)

    async def GetModelStatistics(
        self, request: statistics_pb2.GetModelStatisticsRequest, context: Any
    ) -> statistics_pb2.GetModelStatisticsResponse:
        """Say what this process has done for a model."""
        found = await self._statistics.read(request.name)
        return statistics_pb2.GetModelStatisticsResponse(
            replica=self._replica.name(),
            start_time=converters.instant(self._statistics.started_at),
            model_versions=[converters.statistics_to_proto(one) for one in found],
        )

    async def CompleteRows(
        self, request_iterator: AsyncIterator[sampling_pb2.CompleteRowsRequest], context: Any
    ) -> AsyncIterator[sampling_pb2.CompleteRowsResponse]:
        """Complete rows of which some cells are known."""
        first = await self._first(request_iterator)
        spec = converters.completion_spec(first)
        ticket = self._enter(spec.model, context)
        completing = self._complete(spec, request_iterator, ticket, context)
        async with aclosing(self._paced(completing, context)) as responses:
            async for response in responses:
                yield response

    async def _sample(
        self, spec: SampleSpec, ticket: Ticket, context: Any
    ) -> AsyncGenerator[sampling_pb2.SampleResponse, None]:
        began = time.monotonic()
        stream = await self._sampler.open(spec)
        ticket.hold(stream.rows_in_flight)
        # A client that is gone is noticed between two tiles, not between two messages.
        context.add_done_callback(lambda _: stream.stop())
        self._open.add(stream)
        context.add_done_callback(lambda _: self._open.discard(stream))
        if self._draining.is_set():
            stream.drain()
        loop = asyncio.get_running_loop()
        if self._limits.max_seconds:
            expiry = loop.call_later(self._limits.max_seconds, stream.expire)
            context.add_done_callback(lambda _: expiry.cancel())
        await self._tell_who(context)
        yield sampling_pb2.SampleResponse(header=converters.header_to_proto(stream.header))
        executor = self._executor_of(ticket.project)
        version = ModelVersionName.parse(stream.header.model_version)
        with self._statistics.stream(version, spec.row_format, began) as tally:
            async with aclosing(stream.messages()) as messages:
                async for message in messages:
                    response = await loop.run_in_executor(executor, converters.rows_to_proto, message)
                    tally.ready(message.rows)
                    yield response
                    tally.sent(message.rows)
            self._tell_load(context)
            tally.outcome = self._outcome(complete=stream.summary.complete)
            yield sampling_pb2.SampleResponse(summary=converters.summary_to_proto(stream.summary))

    async def _complete(
        self,
        spec: CompletionSpec,
        requests: AsyncIterator[sampling_pb2.CompleteRowsRequest],
        ticket: Ticket,
        context: Any,
    ) -> AsyncGenerator[sampling_pb2.CompleteRowsResponse, None]:
        ticket.hold(GROUP_ROWS)
        began = time.monotonic()
        ends = began + (self._limits.max_seconds or math.inf)
        completion = await self._sampler.complete(spec)
        await self._tell_who(context)
        yield sampling_pb2.CompleteRowsResponse(header=converters.completion_header(completion))
        loop = asyncio.get_running_loop()
        executor = self._executor_of(ticket.project)
        with self._statistics.stream(completion.loaded.name, COMPLETED, began) as tally:
            complete, drawn = False, 0
            while True:
                # The next message is read when the last one's rows are written: a slow reader slows its own sending.
                request = await self._next(requests, ends)
                if request is None or request is _LATE:
                    complete = request is None
                    break
                tally.asked()
                rows = converters.partial_rows(request)
                for start in range(0, len(rows), GROUP_ROWS):
                    chunk = rows[start : start + GROUP_ROWS]
                    response = await loop.run_in_executor(executor, _completed, completion, chunk)
                    self._replica.did(completion.candidates_drawn - drawn)
                    drawn = completion.candidates_drawn
                    tally.ready(len(chunk))
                    yield response
                    tally.sent(len(chunk))
                    if self._draining.is_set() or time.monotonic() > ends:
                        break
            self._tell_load(context)
            tally.outcome = self._outcome(complete=complete)
            summary = converters.completion_summary(completion, complete=complete)
            yield sampling_pb2.CompleteRowsResponse(summary=summary)

    async def _next(self, requests: AsyncIterator[sampling_pb2.CompleteRowsRequest], ends: float) -> Any:
        """Return the next message; None where there is none, `_LATE` where the stream is to end before it has come."""
        coming: asyncio.Future[Any] = asyncio.ensure_future(anext(aiter(requests), None))
        draining: asyncio.Future[Any] = asyncio.ensure_future(self._draining.wait())
        left = max(ends - time.monotonic(), 0.0)
        try:
            await asyncio.wait(
                (coming, draining), timeout=None if left == math.inf else left, return_when="FIRST_COMPLETED"
            )
            over = self._draining.is_set() or time.monotonic() > ends
            return coming.result() if coming.done() and not over else _LATE
        finally:
            for waiting in (coming, draining):
                waiting.cancel()
            await asyncio.gather(coming, draining, return_exceptions=True)

    def _outcome(self, *, complete: bool) -> str:
        """Return how a stream ends that has come to its summary."""
        cut = "drained" if self._draining.is_set() else "max_duration"
        return "complete" if complete else cut

    async def _first(
        self, requests: AsyncIterator[sampling_pb2.CompleteRowsRequest]
    ) -> sampling_pb2.CompleteRowsRequest:
        """Return the first message of a stream; nobody is counted, or waited for without end, before it has come.

        Raises:
            EmptyStreamError: The stream has none.
            LimitError: It has not come in time.
        """
        seconds = self._limits.write_timeout
        try:
            async with asyncio.timeout(seconds):
                first = await anext(aiter(requests), None)
        except TimeoutError:
            raise LimitError(
                f"the first message, which is the config, has not come for {seconds:g} seconds; send it at once",
                metadata={"limit": f"{seconds:g}", "setting": "ROWMINT_WRITE_TIMEOUT"},
                retry_after=_RETRY_SECONDS,
            ) from None
        if first is None:
            raise EmptyStreamError("the stream has no message; the first is the config")
        return first

    def _enter(self, model: ModelVersionRef, context: Any) -> Ticket:
        """Let a call begin, and count it until it is done.

        Raises:
            LimitError: Its project has as many as it may.
            UnavailableError: This process has as many as it carries.
        """
        ticket = self._admission.enter(model.model.project)
        context.add_done_callback(lambda _: ticket.close())
        return ticket

    async def _tell_who(self, context: Any) -> None:
        """Say which replica answers; not before it is sure that it answers with anything but an error.

        A proxy tells from that whether a call may be made again elsewhere, and what its HTTP status is.
        """
        try:
            await context.send_initial_metadata(((REPLICA, self._replica.name()),))
        except grpc.aio.InternalError:
            # The client has gone; what is sent later fails without a word, this would be told as a fault of ours.
            raise asyncio.CancelledError from None

    def _tell_load(self, context: Any) -> None:
        context.set_trailing_metadata((orca.trailer(self._replica.load()),))

    async def _paced(self, responses: AsyncGenerator[T, None], context: Any) -> AsyncGenerator[T, None]:
        """Pass responses on; end the call when the client leaves one unread for too long."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        async with aclosing(responses):
            async for response in responses:
                # While a generator is suspended at its `yield`, the call's task is writing what it yielded.
                timer = loop.call_later(self._limits.write_timeout, self._give_up, task, context)
                try:
                    yield response
                finally:
                    timer.cancel()

    def _give_up(self, task: asyncio.Task[Any] | None, context: Any) -> None:
        """Stop the work of a call whose client does not read, and leave the reason for when it does."""
        if task is None or task.done():
            return
        task.cancel()
        record_reason(Reason.LIMIT)
        farewell = asyncio.get_running_loop().create_task(self._say_why(context))
        self._farewells.add(farewell)
        farewell.add_done_callback(self._farewells.discard)

    async def _say_why(self, context: Any) -> None:
        seconds = self._limits.write_timeout
        found = LimitError(
            f"the client left a message unread for {seconds:g} seconds; go on from the row after the last one received",
            metadata={"limit": f"{seconds:g}", "setting": "ROWMINT_WRITE_TIMEOUT"},
            retry_after=_RETRY_SECONDS,
        )
        reply = status.to_status(found)
        # `abort` always raises; and there is nobody to tell where the client has gone meanwhile.
        with contextlib.suppress(Exception):
            await context.abort(reply.code, reply.details, (*reply.trailing_metadata, *status.trailers(found)))


def _completed(completion: RowCompletion, rows: Sequence[sampling_pb2.PartialRow]) -> sampling_pb2.CompleteRowsResponse:
    first = completion.next_row
    known = [converters.known_cells(row, first + offset) for offset, row in enumerate(rows)]
    done = completion.complete(known)
    return sampling_pb2.CompleteRowsResponse(
        rows=sampling_pb2.CompletedRows(
            rows=[converters.completed_to_proto(row, sent) for row, sent in zip(done, rows, strict=True)]
        )
    )


def sampling_service(servicer: SamplingServicer) -> Service:
    """Return the service, ready to join a server."""
    return Service(
        # Its file holds no message, so nothing else loads what reflection tells of it.
        sampling_service_pb2.DESCRIPTOR.services_by_name["SamplingService"].full_name,
        lambda server: sampling_service_pb2_grpc.add_SamplingServiceServicer_to_server(servicer, server),
    )
