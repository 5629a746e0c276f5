"""One logical stream of rows, read as parts by several calls at once and delivered in order.

A plan pins version, seed and digests. The parts are cut here, on the plan's grid, as they are started. Each has about
as many rows as make `PART_BYTES`, estimated from the rows received so far; fewer at the beginning, where nothing is
known, and at the end, so that no call works alone. A part that is started is read whole, however slowly the rows are
taken: a server never waits for the reader. Memory is bounded by the number of parts started and not yet delivered.
"""

import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace

from rowmint.client.cancellation import Cancellation
from rowmint.client.connection import Connection
from rowmint.client.retry import RetryPolicy, SharedProgress
from rowmint.client.route import Route
from rowmint.client.row_stream import RowStream
from rowmint.client.sample_stream import SampleStream
from rowmint.client.tracing import current_context
from rowmint.errors import DataLossError
from rowmint.v1 import sampling_pb2
from rowmint.v1.sampling_service_pb2_grpc import SamplingServiceStub

PART_BYTES = 4 * 1024 * 1024
"""Bytes of a part aimed at; one block or batch, whichever is longer, where that has more."""
_SPARE = 2  # parts held beyond those that are read: the one that is delivered, and one for the next free call


@dataclass
class _Part:
    """A part that was started.

    Attributes:
        request: Its request.
        header: The header that its stream must have.
        first: Whether it is the first.
        stream: Its rows, as they come; None until they are requested.
        messages: Messages received and not yet delivered.
        done: Whether nothing more comes.
        error: Why the part is incomplete; None where it is complete.
    """

    request: sampling_pb2.SampleRequest
    header: sampling_pb2.SampleHeader
    first: bool
    stream: RowStream | None = None
    messages: deque[sampling_pb2.SampleData] = field(default_factory=deque)
    done: bool = False
    error: BaseException | None = None


class _Cutter:
    """Cuts a stream into parts, in order; not for several threads at once.

    Args:
        plan: The stream's plan.
        parallel: Parts that are read at once.
    """

    def __init__(self, plan: sampling_pb2.PlanSampleResponse, parallel: int) -> None:
        # Two parts that share a block would both compute it.
        self.unit = max(plan.header.grid, plan.block_size)
        self._row = plan.header.start_row
        self._end = plan.header.end_row
        self._parallel = parallel
        self._row_bytes = 0.0
        self.cut = 0

    @property
    def more(self) -> bool:
        """Whether a part remains; a stream without rows is one part: its format may have a header."""
        return not self.cut or self._row < self._end

    @property
    def units(self) -> int:
        """Parts that remain, at most."""
        return max(1, -(-self._end // self.unit) - self._row // self.unit)

    def next(self) -> tuple[int, int]:
        """Return the next part: its first row, and the row after its last."""
        fair = (self._end - self._row) // (2 * self._parallel)
        aimed = min(fair, int(PART_BYTES / self._row_bytes)) if self._row_bytes else 0
        start = self._row
        self._row = min((start // self.unit + max(1, aimed // self.unit)) * self.unit, self._end)
        self.cut += 1
        return start, self._row

    def learn(self, rows: int, size: int) -> None:
        """Update the estimate of bytes per row from the rows received of a part, and their bytes."""
        if rows:
            self._row_bytes = max(self._row_bytes, size / rows)


class _Readers:
    """Threads that read parts, each one part after the other. They end when no part remains, or on `stop`.

    Args:
        routes: The routes to the sampler, distributed over the threads.
        retry: How often and how soon a part is resumed.
        request: The whole stream.
        plan: Its plan.
        parallel: Parts read at once, at most.
    """

    def __init__(
        self,
        routes: list[Route],
        retry: RetryPolicy,
        request: sampling_pb2.SampleRequest,
        *,
        plan: sampling_pb2.PlanSampleResponse,
        parallel: int,
    ) -> None:
        self._request = request
        self._header = plan.header
        self._cutter = _Cutter(plan, parallel)
        self._cancellation = Cancellation()
        self._progress = SharedProgress()
        # Taken here: the parts are read on threads of their own.
        self._trace = current_context()
        # A pause between two attempts must not outlast the reader; a caller's own `sleep` is kept.
        own_sleep = retry.sleep is not time.sleep
        self._retry = retry if own_sleep else replace(retry, sleep=self._cancellation.cancelled.wait)
        self._window = parallel + _SPARE
        self._changed = threading.Condition()
        self._started: deque[_Part] = deque()
        self._failed = False
        self._threads = [
            threading.Thread(
                target=self._work, args=(routes[number % len(routes)],), name=f"parts-{number}", daemon=True
            )
            for number in range(min(parallel, self._cutter.units))
        ]

    def parts(self) -> Iterator[_Part]:
        """Yield the parts, in order, each as soon as it is started; asking for the next releases the one before."""
        for thread in self._threads:
            thread.start()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._started or not self._cutter.more)
                if not self._started:
                    return
                part = self._started[0]
            yield part
            with self._changed:
                self._started.popleft()
                self._changed.notify_all()

    def messages(self, part: _Part) -> Iterator[sampling_pb2.SampleData]:
        """Yield the messages of a part.

        Raises:
            RowmintCallError: It could not be read whole.
            RowmintError: Likewise.
        """
        while True:
            with self._changed:
                self._changed.wait_for(lambda: part.messages or part.done)
                if not part.messages:
                    break
                message = part.messages.popleft()
            yield message
        if part.error is not None:
            raise part.error

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._cancellation.cancelled.is_set()

    def stop(self) -> None:
        """Cancel the calls that run; does not wait."""
        self._cancellation.cancel()
        with self._changed:
            self._changed.notify_all()

    def join(self) -> None:
        """Wait until every thread has ended."""
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _work(self, route: Route) -> None:
        while (part := self._start()) is not None:
            size = rows = 0
            try:
                part.stream = RowStream(
                    route,
                    self._retry,
                    part.request,
                    header=part.header,
                    cancellation=self._cancellation,
                    shared=self._progress,
                    trace=self._trace,
                )
                for message in part.stream.messages():
                    size += message.ByteSize()
                    # Missing rows take no room; those of the next part may be there.
                    rows += message.row_count - sum(gap.end_row - gap.start_row for gap in message.missing)
                    with self._changed:
                        part.messages.append(message)
                        self._changed.notify_all()
            except BaseException as error:  # noqa: BLE001 - the reader gets it, after the rows before it
                part.error = error
            with self._changed:
                part.done = True
                self._failed |= part.error is not None
                # The first has the format's header in it, which may be longer than its rows.
                self._cutter.learn(0 if part.first else rows, size)
                self._changed.notify_all()

    def _start(self) -> _Part | None:
        """Return the next part, once there is room for it; None where none is to be read."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._started) < self._window or self._ending)
            if self._ending:
                return None
            first = not self._cutter.cut
            start, end = self._cutter.next()
            request, header = sampling_pb2.SampleRequest(), sampling_pb2.SampleHeader()
            request.CopyFrom(self._request)
            header.CopyFrom(self._header)
            request.start_row = header.start_row = start
            request.end_row = header.end_row = end
            if not first:
                request.framing = sampling_pb2.FRAMING_CONTINUE
                request.ClearField("received_bytes")
            part = _Part(request, header, first)
            self._started.append(part)
            self._changed.notify_all()
            return part

    @property
    def _ending(self) -> bool:
        # After a part that failed nothing is delivered.
        return self._cancellation.cancelled.is_set() or self._failed or not self._cutter.more


class ParallelStream(SampleStream):
    """A stream of which several parts are read at once. Nothing is read before the first row is requested.

    Args:
        connection: The channels.
        request: The request.
        parallel: Parts read at once, at least 2. Up to two more are held, of about `PART_BYTES` each.

    Raises:
        RowmintCallError: The service refused, or no replica was reachable.
    """

    def __init__(self, connection: Connection, request: sampling_pb2.SampleRequest, parallel: int) -> None:
        super().__init__(request)
        planned = sampling_pb2.PlanSampleRequest(sample=request, ranges_only=True)
        plan = connection.call_sampler(lambda channel: SamplingServiceStub(channel).PlanSample, planned, admitted=True)
        self.header = plan.header
        self._address = ""
        self._resumes = 0
        self._readers = _Readers(
            connection.routes(parallel), connection.retry, self._request, plan=plan, parallel=parallel
        )
        self._run = self._in_order()

    @property
    def address(self) -> str:
        """See `SampleStream`."""
        return self._address

    @property
    def resumes(self) -> int:
        """See `SampleStream`."""
        return self._resumes

    def messages(self) -> Iterator[sampling_pb2.SampleData]:
        """See `SampleStream`."""
        return self._run

    def close(self) -> None:
        """End the stream: calls that run are cancelled, and no thread is left."""
        self._run.close()
        self._readers.join()

    def _gap(self) -> DataLossError:
        return DataLossError(
            f"the parts of the stream do not join at row {self.next_row}; this is a defect, please report it"
        )

    def _in_order(self) -> Generator[sampling_pb2.SampleData, None, None]:
        try:
            for part in self._readers.parts():
                try:
                    for message in self._readers.messages(part):
                        if message.first_row != self.next_row:
                            raise self._gap()
                        if part.stream is not None:
                            self._address = part.stream.address
                        self._tally.add(message)
                        yield message
                finally:
                    if part.stream is not None:
                        self._resumes += part.stream.resumes
                        self._tally.candidates += part.stream.candidates
                        self._tally.accepted += part.stream.accepted
                        self._tally.distinct += part.stream.distinct_candidates
            if self.next_row != self.header.end_row and not self._readers.stopped:
                raise self._gap()
        finally:
            # No waiting here: a stream that is dropped is closed on the thread that collects it.
            self._readers.stop()
        self._readers.join()
