"""Streams that run: one on an event loop with blocks computed ahead, one in the caller's own thread.

Both make the same bytes: all that decides about them is in `rowmint.sampling.assembly`.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass
from typing import BinaryIO

from rowmint.artifact import Model
from rowmint.conditions import canonical, canonical_weights
from rowmint.errors import InvalidFieldError
from rowmint.sampling.formats import RowFormat
from rowmint.sampling.messages import RowsMessage, StreamHeader, StreamSummary
from rowmint.sampling.plan import compile_plan
from rowmint.sampling.prepared import PreparedStream, prepare
from rowmint.sampling.rows import Block
from rowmint.sampling.spec import SampleSpec
from rowmint.steps import finish, finish_in_turns
from rowmint.synthesizer import Proposal

_AHEAD = 2  # blocks of one stream computed or waiting at once


@dataclass(frozen=True)
class BlockDone:
    """A block that was computed.

    Attributes:
        waited: Seconds it waited for a thread.
        took: Seconds it took.
        candidates: Candidates drawn.
        accepted: Candidates that satisfied the conditions.
    """

    waited: float
    took: float
    candidates: int
    accepted: int


class SampleStream:
    """One stream, opened. For one event loop; read it once.

    Args:
        prepared: What it is made of.
        executor: Threads that compute.
        observe: Called with each block, on the thread that computed it.
    """

    def __init__(
        self, prepared: PreparedStream, executor: Executor, observe: Callable[[BlockDone], None] = lambda _: None
    ) -> None:
        self.header = prepared.header
        self._prepared = prepared
        self._assembly = prepared.assembly()
        self._executor = executor
        self._observe = observe
        self._stopped = threading.Event()

    def drain(self) -> None:
        """End the stream with the batches that are there; another call resumes it at `summary.next_row`."""
        self._assembly.drain()

    def expire(self) -> None:
        """End the stream as `drain` does, but not before a batch was delivered, so that every call makes progress."""
        self._assembly.expire()

    def stop(self) -> None:
        """Stop computing; from any thread, any number of times."""
        self._stopped.set()

    @property
    def rows_in_flight(self) -> int:
        """The most rows that are computed, or wait to be sent, at once."""
        return min(self.header.end_row - self.header.start_row, _AHEAD * self._prepared.plan.block_size)

    @property
    def proposal(self) -> Proposal:
        """Draws the rows; streams of one plan share it."""
        return self._prepared.plan.proposal

    @property
    def summary(self) -> StreamSummary:
        """What was done; final once `messages` has ended."""
        return self._assembly.summary

    async def messages(self) -> AsyncGenerator[RowsMessage, None]:
        """Yield the rows, in order; all of them, or after `drain` or `expire` only the first of them.

        Raises:
            AcceptanceTooLowError: Rows are missing and that is not allowed; whole batches before them were yielded.
            RowRangeError: An id column has no id for a row.
        """
        loop = asyncio.get_running_loop()
        assembly = self._assembly
        for message in assembly.opening():
            yield message
        async with aclosing(self._blocks()) as blocks:
            async for block in blocks:
                batches = await loop.run_in_executor(self._executor, assembly.encode, block)
                for message in assembly.messages(batches):
                    yield message
                if assembly.ended:
                    break
        for message in assembly.closing():
            yield message
        if assembly.unfilled is not None:
            raise await finish_in_turns(self._prepared.source.acceptance_too_low(assembly.unfilled), self._executor)

    async def _blocks(self) -> AsyncGenerator[Block, None]:
        """Yield the blocks, in order, each computed while those before it are being sent."""
        loop = asyncio.get_running_loop()
        ahead: deque[asyncio.Future[Block]] = deque()
        needed = self._prepared.blocks()
        try:
            while True:
                for number, rows in needed:
                    ahead.append(loop.run_in_executor(self._executor, self._block, number, rows, time.monotonic()))
                    if len(ahead) >= _AHEAD:
                        break
                if not ahead:
                    return
                yield await ahead.popleft()
        finally:
            self._stopped.set()
            for future in ahead:
                future.add_done_callback(_forget)
                future.cancel()

    def _block(self, number: int, rows: int, queued: float) -> Block:
        began = time.monotonic()
        block = self._prepared.source.block(number, rows, self._stopped.is_set)
        self._observe(BlockDone(began - queued, time.monotonic() - began, block.candidates, block.accepted))
        return block


def _forget(future: asyncio.Future[Block]) -> None:
    """Take the error of a block that is not needed any more."""
    if not future.cancelled():
        future.exception()


class LocalStream:
    """One stream, made in the caller's own thread. For one caller; read it once.

    Args:
        prepared: What it is made of.
    """

    def __init__(self, prepared: PreparedStream) -> None:
        self.header: StreamHeader = prepared.header
        self._prepared = prepared
        self._assembly = prepared.assembly()

    @property
    def summary(self) -> StreamSummary:
        """What was done; final once `messages` has ended."""
        return self._assembly.summary

    def messages(self) -> Iterator[RowsMessage]:
        """Yield the rows, in order, as `SampleStream.messages` does.

        Raises:
            AcceptanceTooLowError: Rows are missing and that is not allowed; whole batches before them were yielded.
            RowRangeError: An id column has no id for a row.
        """
        assembly = self._assembly
        yield from assembly.opening()
        for number, rows in self._prepared.blocks():
            yield from assembly.messages(assembly.encode(self._prepared.source.block(number, rows)))
            if assembly.ended:
                break
        yield from assembly.closing()
        if assembly.unfilled is not None:
            raise finish(self._prepared.source.acceptance_too_low(assembly.unfilled))


def open_stream(model: Model, spec: SampleSpec, version: str = "") -> LocalStream:
    """Open a stream of a model's rows; its messages are those that a sampler sends for the same spec.

    Args:
        model: The model, published or not.
        spec: The rows requested; its seed is given.
        version: Name of the version, for the header.

    Raises:
        RowmintError: The spec is not valid, or the model cannot meet it; see `SampleSpec.validate`, `canonical` and
            `prepare`.
    """
    spec.validate()
    spec.validate_for(model)
    conditions, weights = canonical(spec.where, model.schema), None
    if spec.weights is not None:
        conditions, weights = canonical_weights(spec.weights, conditions, model.schema)
    plan = compile_plan(model.digest, model.synthesizer, conditions, weights)
    plan = plan.allowing(spec.max_reuse, spec.expected_plan_digest)
    return LocalStream(prepare(model, spec, plan, version))


def write_rows(model: Model, spec: SampleSpec, sink: BinaryIO, version: str = "") -> StreamSummary:
    """Write a model's rows in a format of bytes: exactly those that a sampler sends for the same spec.

    Args:
        model: The model, published or not.
        spec: The rows requested; its seed is given.
        sink: A binary file, written to and left open.
        version: Name of the version.

    Returns:
        How the stream ended.

    Raises:
        InvalidFieldError: The format is typed columns, which are not bytes.
        RowmintError: As for `open_stream` and `LocalStream.messages`.
    """
    if spec.row_format is RowFormat.COLUMNS:
        raise InvalidFieldError("row_format", "is columns, which are not bytes; read the messages of open_stream")
    stream = open_stream(model, spec, version)
    sink.writelines(message.data for message in stream.messages())
    return stream.summary
