"""Sessions: one call that makes rows, from its admission to its summary, counted, drained and ended in time.

Those of calls that send rows are in `sampler_service.row_sessions`.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from rowmint.names import ModelVersionName, ModelVersionRef
from rowmint.sampling.messages import RowsMessage, StreamHeader, StreamSummary
from rowmint.sampling.parts import PlannedSample
from rowmint.sampling.stream import SampleStream
from sampler_service.admission import Admission, Ticket
from sampler_service.computing import compute, schema_bytes
from sampler_service.drain import Drain
from sampler_service.replica import Replica
from sampler_service.requests import Received, SampleRequest
from sampler_service.sampler import Sampler
from sampler_service.statistics import Statistics

T = TypeVar("T")

SampleEvent = StreamHeader | RowsMessage | StreamSummary
"""What a stream of sampled rows consists of: a header, any number of messages, a summary."""


@dataclass(frozen=True)
class SessionServices:
    """What sessions are made with.

    Attributes:
        sampler: Opens streams.
        executor_of: Returns the threads that encode, complete and score, for the id of a project.
        admission: Admits calls.
        drain: Says when to end them all.
        replica: Reports this process.
        statistics: Counts what they do.
        count_candidates: Called with the candidates drawn that no block counts.
        max_seconds: Seconds after which a stream is ended, to be resumed elsewhere; 0 for never.
    """

    sampler: Sampler
    executor_of: Callable[[str], Executor]
    admission: Admission
    drain: Drain
    replica: Replica
    statistics: Statistics
    count_candidates: Callable[[int], None] = lambda _: None
    max_seconds: float = 0.0

    def enter(self, model: ModelVersionRef, context: Any) -> Ticket:
        """Admit a call, and count it until it is done.

        Raises:
            LimitError: Its project has as many as it may.
            UnavailableError: This process has as many as it carries, or is draining.
        """
        ticket = self.admission.enter(model.model.project)
        context.add_done_callback(lambda _: ticket.close())
        return ticket

    async def compute(self, project: str, size: int, work: Callable[[], T]) -> T:
        """Return what `work` makes, of about `size` bytes; where these are many, on the threads of the project."""
        return await compute(self.executor_of(project), size, work)

    def outcome(self, *, complete: bool) -> str:
        """Return how a stream ends that has come to its summary, one of `metrics.OUTCOMES`."""
        cut = "drained" if self.drain.begun else "max_duration"
        return "complete" if complete else cut


class SampleSession:
    """One stream of sampled rows. For one event loop; read it once.

    Args:
        services: What it is made with.
        received: The rows requested.
        context: The call's `grpc.aio.ServicerContext`.

    Raises:
        LimitError: Its project has as many calls as it may.
        UnavailableError: This process has as many as it carries, or is draining.
    """

    def __init__(self, services: SessionServices, received: Received[SampleRequest], context: Any) -> None:
        self._services = services
        self._received = received
        self._context = context
        self._ticket = services.enter(received.model, context)

    async def responses(self, convert: Callable[[SampleEvent], T]) -> AsyncGenerator[T, None]:
        """Yield the responses that `convert` makes; those with rows on the threads that encode.

        Raises:
            RowmintError: As `Received.read`, `Sampler.open`, `Ticket.hold`, `Ticket.hold_shared` and
                `SampleStream.messages` do.
        """
        services, loop, began = self._services, asyncio.get_running_loop(), time.monotonic()
        request = await services.compute(self._ticket.project, self._received.size, self._received.read)
        stream = await services.sampler.open(request)
        self._ticket.hold(stream.rows_in_flight)
        self._ticket.hold_shared(stream.proposal, stream.proposal.size_bytes)
        self._end_in_time(stream)
        await services.replica.announce(self._context)
        header_bytes = schema_bytes(stream.header.schema)
        yield await services.compute(self._ticket.project, header_bytes, lambda: convert(stream.header))
        executor = services.executor_of(self._ticket.project)
        version = ModelVersionName.parse(stream.header.model_version)
        with services.statistics.stream(version, request.row_format, began) as tally:
            async with aclosing(stream.messages()) as messages:
                async for message in messages:
                    if message.batches:
                        response = await loop.run_in_executor(executor, convert, message)
                    else:
                        response = convert(message)  # bytes are only copied and summed up
                    tally.ready(message.rows)
                    yield response
                    tally.sent(message.rows)
            services.replica.report_load(self._context)
            tally.outcome = services.outcome(complete=stream.summary.complete)
            yield convert(stream.summary)

    def _end_in_time(self, stream: SampleStream) -> None:
        """End the stream when the process drains, when it has lasted too long, and when its client has gone."""
        services, context = self._services, self._context
        # A client that has gone is noticed between two tiles, not between two messages.
        context.add_done_callback(lambda _: stream.stop())
        services.drain.add(stream)
        context.add_done_callback(lambda _: services.drain.discard(stream))
        if services.max_seconds:
            expiry = asyncio.get_running_loop().call_later(services.max_seconds, stream.expire)
            context.add_done_callback(lambda _: expiry.cancel())


class PlanSession:
    """One call that plans a stream. For one event loop; used once.

    It is admitted as a stream is: a pilot draws candidates, and what is made of many parts is large.

    Args:
        services: What it is made with.
        received: The stream that is to be planned, and the number of its parts.
        context: The call's `grpc.aio.ServicerContext`.

    Raises:
        LimitError: Its project has as many calls as it may.
        UnavailableError: This process has as many as it carries, or is draining.
    """

    def __init__(self, services: SessionServices, received: Received[tuple[SampleRequest, int]], context: Any) -> None:
        self._services = services
        self._received = received
        self._context = context
        self._ticket = services.enter(received.model, context)

    async def response(self, convert: Callable[[PlannedSample], T]) -> T:
        """Return the response that `convert` makes of the plan.

        Raises:
            RowmintError: As `Received.read`, `Sampler.plan` and `convert` do.
        """
        services, received, project = self._services, self._received, self._ticket.project
        try:
            request, parts = await services.compute(project, received.size, received.read)
            planned = await services.sampler.plan(request, parts)
            await services.replica.announce(self._context)
            size = max(received.size * len(planned.parts), schema_bytes(planned.header.schema))
            response = await services.compute(project, size, lambda: convert(planned))
        finally:
            # Before the client has the answer, and begins to read the parts.
            self._ticket.close()
        services.replica.report_load(self._context)
        return response
