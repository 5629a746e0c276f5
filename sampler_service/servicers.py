"""SamplingService: convert, call, convert."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from rowmint.errors import EmptyStreamError, LimitError
from rowmint.rpc import status
from rowmint.rpc.server import Service
from rowmint.v1 import sampling_pb2, sampling_service_pb2, sampling_service_pb2_grpc
from sampler_service import converters
from sampler_service.completion import GROUP_ROWS, RowCompletion
from sampler_service.sampler import Sampler
from sampler_service.stream import SampleStream

T = TypeVar("T")

_RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class StreamLimits:
    """What one process serves.

    Attributes:
        max_streams: Streams at once.
        write_timeout: Seconds a client may leave a message unread.
    """

    max_streams: int
    write_timeout: float


class SamplingServicer(sampling_service_pb2_grpc.SamplingServiceServicer):
    """Makes rows.

    Args:
        sampler: Opens streams.
        executor: Threads that encode and complete.
        limits: What is served at once.
    """

    def __init__(self, sampler: Sampler, executor: Executor, limits: StreamLimits) -> None:
        self._sampler = sampler
        self._executor = executor
        self._limits = limits
        self._streams = 0
        self._open: set[SampleStream] = set()
        self._draining = False
        self._farewells: set[asyncio.Task[None]] = set()

    def drain(self) -> None:
        """End every stream where it stands, on the grid, so that its client goes on at another replica."""
        self._draining = True
        for stream in self._open:
            stream.drain()

    async def Sample(
        self, request: sampling_pb2.SampleRequest, context: Any
    ) -> AsyncIterator[sampling_pb2.SampleResponse]:
        """Stream rows."""
        self._enter(context)
        async with aclosing(self._paced(self._sample(request, context), context)) as responses:
            async for response in responses:
                yield response

    async def PlanSample(
        self, request: sampling_pb2.PlanSampleRequest, context: Any
    ) -> sampling_pb2.PlanSampleResponse:
        """Say what a stream would be made of and cut it into parts."""
        spec = converters.sample_spec(request.sample, "sample.")
        with converters.within_sample():
            planned = await self._sampler.plan(spec, request.parts if request.HasField("parts") else 1)
        return converters.planned_to_proto(planned, request.sample)

    async def CompleteRows(
        self, request_iterator: AsyncIterator[sampling_pb2.CompleteRowsRequest], context: Any
    ) -> AsyncIterator[sampling_pb2.CompleteRowsResponse]:
        """Complete rows of which some cells are known."""
        self._enter(context)
        async with aclosing(self._paced(self._complete(request_iterator), context)) as responses:
            async for response in responses:
                yield response

    async def _sample(
        self, request: sampling_pb2.SampleRequest, context: Any
    ) -> AsyncGenerator[sampling_pb2.SampleResponse, None]:
        stream = await self._sampler.open(converters.sample_spec(request))
        # A client that is gone is noticed between two tiles, not between two messages.
        context.add_done_callback(lambda _: stream.stop())
        self._open.add(stream)
        context.add_done_callback(lambda _: self._open.discard(stream))
        if self._draining:
            stream.drain()
        yield sampling_pb2.SampleResponse(header=converters.header_to_proto(stream.header))
        loop = asyncio.get_running_loop()
        async with aclosing(stream.messages()) as messages:
            async for message in messages:
                yield await loop.run_in_executor(self._executor, converters.rows_to_proto, message)
        yield sampling_pb2.SampleResponse(summary=converters.summary_to_proto(stream.summary))

    async def _complete(
        self, requests: AsyncIterator[sampling_pb2.CompleteRowsRequest]
    ) -> AsyncGenerator[sampling_pb2.CompleteRowsResponse, None]:
        first = await anext(aiter(requests), None)
        if first is None:
            raise EmptyStreamError("the stream has no message; the first is the config")
        completion = await self._sampler.complete(converters.completion_spec(first))
        yield sampling_pb2.CompleteRowsResponse(header=converters.completion_header(completion))
        loop = asyncio.get_running_loop()
        # The next message is read when the last one's rows are written: a slow reader slows its own sending down.
        async for request in requests:
            rows = converters.partial_rows(request)
            for start in range(0, len(rows), GROUP_ROWS):
                chunk = rows[start : start + GROUP_ROWS]
                yield await loop.run_in_executor(self._executor, _completed, completion, chunk)
                if self._draining:
                    break
            if self._draining:
                break
        yield sampling_pb2.CompleteRowsResponse(
            summary=converters.completion_summary(completion, complete=not self._draining)
        )

    def _enter(self, context: Any) -> None:
        """Count a stream until its call is done.

        Raises:
            LimitError: There are as many as allowed.
        """
        limit = self._limits.max_streams
        if self._streams >= limit:
            raise LimitError(
                f"this sampler serves {limit} streams already; try again or ask another replica",
                metadata={"limit": str(limit), "setting": "ROWMINT_MAX_STREAMS"},
                retry_after=_RETRY_SECONDS,
            )
        self._streams += 1
        context.add_done_callback(self._leave)

    def _leave(self, _: Any) -> None:
        self._streams -= 1

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
