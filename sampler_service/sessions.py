"""Sessions: one call that makes rows, from its admission to its summary, counted, drained and ended in time."""

import asyncio
import math
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rowmint.names import ModelVersionName, ModelVersionRef
from rowmint.sampling.completion import GROUP_ROWS, CompletedRow, RowCompletion
from rowmint.sampling.messages import RowsMessage, StreamHeader, StreamSummary
from rowmint.sampling.parts import PlannedSample
from rowmint.sampling.stream import SampleStream
from rowmint.schema import Cell
from sampler_service.admission import Admission, Ticket
from sampler_service.computing import compute, schema_bytes
from sampler_service.drain import Drain
from sampler_service.replica import Replica
from sampler_service.requests import CompletionRequest, Received, SampleRequest
from sampler_service.sampler import Sampler
from sampler_service.statistics import COMPLETED, Statistics

P = TypeVar("P")
R = TypeVar("R")
T = TypeVar("T")

_TASK_COMPARISONS = 1 << 20  # rows times candidates: a second or less
_LATE = object()  # stands for a message that has not come before its stream is to end


@dataclass(frozen=True)
class CompletedRows(Generic[P]):
    """Some completed rows.

    Attributes:
        rows: The rows.
        sent: What the client sent of each.
    """

    rows: Sequence[CompletedRow]
    sent: Sequence[P]


SampleEvent = StreamHeader | RowsMessage | StreamSummary
"""What a stream of sampled rows consists of: a header, any number of messages, a summary."""
CompletionEvent = StreamHeader | CompletedRows[P] | StreamSummary
"""What a stream of completed rows consists of, likewise."""


@dataclass(frozen=True)
class SessionServices:
    """What sessions are made with.

    Attributes:
        sampler: Opens streams.
        executor_of: Returns the threads that encode and complete, for the id of a project.
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
            RowmintError: As `Received.read`, `Sampler.open` and `SampleStream.messages` do.
        """
        services, loop, began = self._services, asyncio.get_running_loop(), time.monotonic()
        request = await services.compute(self._ticket.project, self._received.size, self._received.read)
        stream = await services.sampler.open(request)
        self._ticket.hold(stream.rows_in_flight)
        self._end_in_time(stream)
        await services.replica.announce(self._context)
        header_bytes = schema_bytes(stream.header.schema)
        yield await services.compute(self._ticket.project, header_bytes, lambda: convert(stream.header))
        executor = services.executor_of(self._ticket.project)
        version = ModelVersionName.parse(stream.header.model_version)
        with services.statistics.stream(version, request.row_format, began) as tally:
            async with aclosing(stream.messages()) as messages:
                async for message in messages:
                    response = await loop.run_in_executor(executor, convert, message)
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


class CompletionSession(Generic[P]):
    """One stream of completed rows. For one event loop; read it once.

    Args:
        services: What it is made with.
        request: The completion requested.
        known_cells: Returns the known cells of a row, which is given with its index.
        context: The call's `grpc.aio.ServicerContext`.

    Raises:
        LimitError: Its project has as many calls as it may.
        UnavailableError: This process has as many as it carries, or is draining.
    """

    def __init__(
        self,
        services: SessionServices,
        request: CompletionRequest,
        known_cells: Callable[[P, int], Mapping[str, Cell]],
        context: Any,
    ) -> None:
        self._services = services
        self._request = request
        self._known_cells = known_cells
        self._context = context
        self._stopped = threading.Event()
        self._ticket = services.enter(request.model, context)

    def drain(self) -> None:
        """End the stream with the rows that are there; another call resumes it."""
        self._stopped.set()

    async def responses(
        self, messages: AsyncIterator[Sequence[P]], convert: Callable[[CompletionEvent[P]], Iterator[T]]
    ) -> AsyncGenerator[T, None]:
        """Yield the responses that `convert` makes; those with rows on the threads that complete.

        Args:
            messages: The rows to be completed. The next message is read when the last one's rows are written: a slow
                reader slows its own sending.
            convert: Makes responses, each when the one before is sent.

        Raises:
            RowmintError: As `Sampler.complete`, `Ticket.hold`, `Ticket.hold_bytes` and `RowCompletion.complete` do.
        """
        services, began = self._services, time.monotonic()
        deadline = began + (services.max_seconds or math.inf)
        version, completion = await services.sampler.complete(self._request, self._stopped.is_set)
        # Each row is compared with all candidates: they are what is at work.
        self._ticket.hold(max(GROUP_ROWS, self._request.candidates))
        self._stop_with_the_call()
        await services.replica.announce(self._context)
        header = completion.header(str(version))
        size = schema_bytes(header.schema)
        yield await services.compute(self._ticket.project, size, lambda: next(convert(header)))
        with services.statistics.stream(version, COMPLETED, began) as tally:
            complete = False
            while not self._is_over(deadline):
                rows = await self._next(messages, deadline)
                if rows is None or rows is _LATE:
                    complete = rows is None
                    break
                tally.requested()
                async with aclosing(self._completed(completion, rows, deadline)) as completed:
                    async for done in completed:
                        tally.ready(len(done.rows))
                        made = convert(done)
                        while (response := await self._run(next, made, None)) is not None:
                            yield response
                        tally.sent(len(done.rows))
            services.replica.report_load(self._context)
            tally.outcome = services.outcome(complete=complete)
            for response in convert(completion.summary(complete=complete)):
                yield response

    async def _completed(
        self, completion: RowCompletion, sent: Sequence[P], deadline: float
    ) -> AsyncGenerator[CompletedRows[P], None]:
        """Yield rows as they are completed, a task's at a time: other projects take turns between two."""
        task = max(1, min(GROUP_ROWS, _TASK_COMPARISONS // self._request.candidates))
        for start in range(0, len(sent), task):
            chunk = sent[start : start + task]
            known, size = await self._run(self._known, completion, chunk)
            self._ticket.hold_bytes(size)
            drawn = completion.candidates_drawn
            done = await self._run(completion.complete, known)
            self._services.count_candidates(completion.candidates_drawn - drawn)
            if done:
                yield CompletedRows(done, chunk[: len(done)])
            if self._is_over(deadline):
                return

    def _known(self, completion: RowCompletion, sent: Sequence[P]) -> tuple[Sequence[Mapping[str, Cell]], int]:
        """Return the known cells of the rows that come next, and the bytes that completing them takes."""
        known = [self._known_cells(row, completion.next_row + offset) for offset, row in enumerate(sent)]
        return known, completion.memory_bytes(known)

    async def _run(self, work: Callable[..., R], *arguments: Any) -> R:
        """Return what `work` does on the threads that complete."""
        executor = self._services.executor_of(self._ticket.project)
        return await asyncio.get_running_loop().run_in_executor(executor, work, *arguments)

    def _stop_with_the_call(self) -> None:
        """Stop computing when the process drains and when the call is over."""
        services, context = self._services, self._context
        context.add_done_callback(lambda _: self._stopped.set())
        services.drain.add(self)
        context.add_done_callback(lambda _: services.drain.discard(self))

    async def _next(self, messages: AsyncIterator[Sequence[P]], deadline: float) -> Any:
        """Return the next message; None where there is none, `_LATE` where the stream is to end before it has come."""
        coming: asyncio.Future[Any] = asyncio.ensure_future(anext(messages, None))
        draining: asyncio.Future[Any] = asyncio.ensure_future(self._services.drain.wait())
        left = max(deadline - time.monotonic(), 0.0)
        try:
            await asyncio.wait(
                (coming, draining), timeout=None if left == math.inf else left, return_when="FIRST_COMPLETED"
            )
            return coming.result() if coming.done() and not self._is_over(deadline) else _LATE
        finally:
            for waiting in (coming, draining):
                waiting.cancel()
            await asyncio.gather(coming, draining, return_exceptions=True)

    def _is_over(self, deadline: float) -> bool:
        return self._stopped.is_set() or self._services.drain.begun or time.monotonic() > deadline
