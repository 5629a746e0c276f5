"""Sessions of calls that send rows and get an answer to each: rows completed, rows scored.

The next message is read when the answers to the last one are written: a slow reader slows its own sending.
"""

import asyncio
import math
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from rowmint.names import ModelVersionName, ModelVersionRef
from rowmint.sampling.completion import CompletedRow
from rowmint.sampling.messages import StreamHeader, StreamSummary
from rowmint.sampling.row_work import GROUP_ROWS, RowWork
from rowmint.sampling.scoring import ScoredRow
from rowmint.schema import Cell
from rowmint.steps import Steps, finish_in_turns
from rowmint.synthesizer.interface import MOST_ROWS
from sampler_service.computing import schema_bytes
from sampler_service.requests import CompletionRequest, ScoringRequest
from sampler_service.sampler import Sampler
from sampler_service.sessions import SessionServices
from sampler_service.statistics import COMPLETED, SCORED

A = TypeVar("A")
A_co = TypeVar("A_co", covariant=True)
P = TypeVar("P")
R = TypeVar("R")
S = TypeVar("S", bound="ReadRows")
T = TypeVar("T")

_BATCH_COMPARISONS = 1 << 20  # rows times candidates: a second or less
_LATE = object()  # stands for a message that has not come before its stream is to end


class ReadRows(Protocol):
    """Rows that a client sent, read.

    Attributes:
        known: The known cells of each by column.
    """

    known: Sequence[Mapping[str, Cell]]


@dataclass(frozen=True)
class AnsweredRows(Generic[A, S]):
    """Answers to some rows.

    Attributes:
        rows: The answers.
        sent: The rows, as they were sent; more of them than answers where it was stopped.
    """

    rows: Sequence[A]
    sent: S


RowEvent = StreamHeader | AnsweredRows[A, S] | StreamSummary
"""What a stream of answers consists of: a header, any number of answers, a summary."""


@dataclass(frozen=True)
class OpenedWork(Generic[A_co]):
    """What answers the rows of one call.

    Attributes:
        version: The version that it does so with.
        work: Keeps count of the rows.
        answer: Answers the rows that come next, in steps; fewer than given where it was stopped.
        held: Rows that are at work at once; each candidate that rows are compared with is one.
        batch: Rows answered at once: they are sent together.
    """

    version: ModelVersionName
    work: RowWork
    answer: Callable[[Sequence[Mapping[str, Cell]]], Steps[Sequence[A_co]]]
    held: int
    batch: int


class Answering(Protocol[A_co]):
    """What one kind of call does with its rows."""

    @property
    def model(self) -> ModelVersionRef:
        """The version that is requested."""
        ...

    @property
    def label(self) -> str:
        """Stands for the row format in the metrics."""
        ...

    async def open(self, sampler: Sampler, stopped: Callable[[], bool]) -> OpenedWork[A_co]:
        """Return what answers the rows until it is `stopped`.

        Raises:
            RowmintError: It is not possible.
        """
        ...


@dataclass(frozen=True)
class Completing:
    """Completes rows as requested."""

    request: CompletionRequest
    label = COMPLETED

    @property
    def model(self) -> ModelVersionRef:
        """See `Answering`."""
        return self.request.model

    async def open(self, sampler: Sampler, stopped: Callable[[], bool]) -> OpenedWork[CompletedRow]:
        """See `Answering` and `Sampler.complete`."""
        version, completion = await sampler.complete(self.request, stopped)
        if completion.is_exact:
            return OpenedWork(version, completion, completion.complete, completion.group_rows, completion.group_rows)
        candidates = self.request.candidates
        batch = max(1, min(GROUP_ROWS, _BATCH_COMPARISONS // candidates))
        return OpenedWork(version, completion, completion.complete, max(GROUP_ROWS, candidates), batch)


@dataclass(frozen=True)
class Scoring:
    """Scores rows as requested."""

    request: ScoringRequest
    label = SCORED

    @property
    def model(self) -> ModelVersionRef:
        """See `Answering`."""
        return self.request.model

    async def open(self, sampler: Sampler, stopped: Callable[[], bool]) -> OpenedWork[ScoredRow]:
        """See `Answering` and `Sampler.score`."""
        version, scoring = await sampler.score(self.request, stopped)
        return OpenedWork(version, scoring, scoring.score, MOST_ROWS, MOST_ROWS)


class RowSession(Generic[A, P, S]):
    """One stream of answers to rows. For one event loop; read it once.

    Args:
        services: What it is made with.
        answering: What is done with the rows.
        read: Reads rows that follow one another; the index of the first is given with them.
        context: The call's `grpc.aio.ServicerContext`.

    Raises:
        LimitError: Its project has as many calls as it may.
        UnavailableError: This process has as many as it carries, or is draining.
    """

    def __init__(
        self,
        services: SessionServices,
        answering: Answering[A],
        read: Callable[[Sequence[P], int], S],
        context: Any,
    ) -> None:
        self._services = services
        self._answering = answering
        self._read = read
        self._context = context
        self._stopped = threading.Event()
        self._ticket = services.enter(answering.model, context)

    def drain(self) -> None:
        """End the stream with the rows that are there; another call resumes it."""
        self._stopped.set()

    async def responses(
        self, messages: AsyncIterator[Sequence[P]], convert: Callable[[RowEvent[A, S]], Iterator[T]]
    ) -> AsyncGenerator[T, None]:
        """Yield the responses that `convert` makes; those with rows on the project's threads.

        Args:
            messages: The rows.
            convert: Makes responses, each when the one before is sent.

        Raises:
            RowmintError: As `Answering.open`, `Ticket.hold`, `Ticket.hold_bytes` and `OpenedWork.answer` do.
        """
        services, began = self._services, time.monotonic()
        deadline = began + (services.max_seconds or math.inf)
        opened = await self._answering.open(services.sampler, self._stopped.is_set)
        self._ticket.hold(opened.held)
        self._stop_with_the_call()
        await services.replica.announce(self._context)
        header = opened.work.header(str(opened.version))
        size = schema_bytes(header.schema)
        yield await services.compute(self._ticket.project, size, lambda: next(convert(header)))
        with services.statistics.stream(opened.version, self._answering.label, began) as tally:
            complete = False
            while not self._is_over(deadline):
                rows = await self._next(messages, deadline)
                if rows is None or rows is _LATE:
                    complete = rows is None
                    break
                tally.requested()
                async with aclosing(self._answered(opened, rows, deadline)) as answered:
                    async for done in answered:
                        tally.ready(len(done.rows))
                        made = convert(done)
                        while (response := await self._run(next, made, None)) is not None:
                            yield response
                        tally.sent(len(done.rows))
            services.replica.report_load(self._context)
            tally.outcome = services.outcome(complete=complete)
            for response in convert(opened.work.summary(complete=complete)):
                yield response

    async def _answered(
        self, opened: OpenedWork[A], sent: Sequence[P], deadline: float
    ) -> AsyncGenerator[AnsweredRows[A, S], None]:
        """Yield answers as they are made, a batch at a time; other projects take turns while they are."""
        work, executor = opened.work, self._services.executor_of(self._ticket.project)
        for start in range(0, len(sent), opened.batch):
            chunk = sent[start : start + opened.batch]
            read, size = await self._run(self._known, work, chunk)
            self._ticket.hold_bytes(size)
            drawn = work.candidates_drawn
            done = await finish_in_turns(opened.answer(read.known), executor)
            self._services.count_candidates(work.candidates_drawn - drawn)
            if done:
                yield AnsweredRows(done, read)
            if self._is_over(deadline):
                return

    def _known(self, work: RowWork, sent: Sequence[P]) -> tuple[S, int]:
        """Return the rows that come next, read, and the bytes that answering them takes."""
        read = self._read(sent, work.next_row)
        return read, work.memory_bytes(read.known)

    async def _run(self, work: Callable[..., R], *arguments: Any) -> R:
        """Return what `work` does on the project's threads."""
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
