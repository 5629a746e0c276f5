"""Streams that answer each row that is sent: the exchange of messages, resumed wherever it breaks."""

import queue
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, Self, TypeVar

import grpc

from rowmint.client.connection import Connection
from rowmint.client.interceptor import Metadata
from rowmint.client.partial_rows import PartialRows
from rowmint.client.resumable_call import BrokenAttemptError, ResumableCall
from rowmint.errors import DataLossError, InvalidFieldError
from rowmint.rpc.wire import field
from rowmint.v1 import model_pb2, sampling_pb2
from rowmint.v1.sampling_service_pb2_grpc import SamplingServiceStub

Answer = TypeVar("Answer")

_ROW_TAG = sampling_pb2.PartialRows(rows=[sampling_pb2.PartialRow()]).SerializeToString()[:1]
_WINDOW = 4_096  # rows sent and not yet answered: enough to keep a replica busy, few enough to send again when it dies
MESSAGE_ROWS = 1_024
"""Rows of one message: as many as a sampler computes together."""


class RowExchange(ABC, Generic[Answer]):
    """The messages of one method that answers rows; see `rowmint.client.resumable_call.Exchange`.

    Rows are sent ahead of the answers, up to `_WINDOW` of them; those not yet answered are kept for the next attempt.

    Args:
        version: The model version.
        rows: The partial rows; read as they are needed.
        start_row: Index of the first row.
    """

    method: str
    pinned: tuple[str, ...]

    def __init__(
        self, version: model_pb2.ModelVersion, rows: Iterable[Mapping[str, object]], start_row: int = 0
    ) -> None:
        self.start_row = self.next_row = start_row
        self._version = version
        self._messages = PartialRows(version.schema)
        self._source = iter(rows)
        self._read = 0
        self._exhausted = False
        self._pending: deque[bytes] = deque()  # in bytes, each as a message that has no other
        self._outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()

    @abstractmethod
    def config(self, header: sampling_pb2.SampleHeader | None) -> Any:
        """Return the first message of an attempt that begins at `next_row`.

        Args:
            header: The stream's header; None before the first attempt that was answered.
        """

    @abstractmethod
    def request(self) -> Any:
        """Return a message that sends rows, before these are in."""

    @abstractmethod
    def call(self, stub: SamplingServiceStub, messages: Iterator[Any], metadata: Metadata) -> Any:
        """Begin the call."""

    @abstractmethod
    def answers(self, response: Any) -> Sequence[Any]:
        """Return the answers in a message, each with its `row`."""

    @abstractmethod
    def read(self, answer: Any) -> Answer:
        """Return an answer as the caller gets it.

        Raises:
            InvalidFieldError: It is damaged.
            ValueError: It is damaged.
        """

    def begin(self, channel: grpc.Channel, header: sampling_pb2.SampleHeader | None, metadata: Metadata) -> Any:
        """See `Exchange`."""
        self._outbox = queue.SimpleQueue()
        self._outbox.put(self.config(header))
        waiting = list(self._pending)
        for first in range(0, len(waiting), MESSAGE_ROWS):
            self._send(waiting[first : first + MESSAGE_ROWS])
        if self._exhausted:
            self._outbox.put(None)
        self._fill()
        return self.call(SamplingServiceStub(channel), iter(self._outbox.get, None), metadata)

    def receive(self, response: Any, peer: str) -> Iterator[tuple[Answer, bool]]:
        """See `Exchange`."""
        for answer in self.answers(response):
            if answer.row != self.next_row or not self._pending:
                raise BrokenAttemptError(
                    DataLossError(f"{peer} sent row {answer.row} where {self.next_row} was next; try again")
                )
            found = self._whole(answer, peer)
            self._pending.popleft()
            self.next_row += 1
            yield found, True
        self._fill()

    def _whole(self, answer: Any, peer: str) -> Answer:
        try:
            return self.read(answer)
        except (InvalidFieldError, ValueError) as error:
            raise BrokenAttemptError(
                DataLossError(f"row {answer.row} came damaged from {peer}: {error}; try again")
            ) from error

    def finish(self, summary: sampling_pb2.SampleSummary, header: sampling_pb2.SampleHeader, peer: str) -> bool:
        """See `Exchange`."""
        if summary.next_row != self.next_row:
            raise BrokenAttemptError(
                DataLossError(f"{peer} ended at row {summary.next_row}, but {self.next_row} was next; try again")
            )
        return self._exhausted and not self._pending

    def end(self) -> None:
        """See `Exchange`."""
        # Ends the thread that sends.
        self._outbox.put(None)

    def _send(self, rows: list[bytes]) -> None:
        request = self.request()
        # Messages one after another are the message that has the fields of all.
        request.rows.MergeFromString(b"".join(rows))
        self._outbox.put(request)

    def _fill(self) -> None:
        """Send what the window has room for."""
        while not self._exhausted and len(self._pending) + MESSAGE_ROWS <= _WINDOW:
            rows: list[bytes] = []
            while len(rows) < MESSAGE_ROWS:
                known = next(self._source, None)
                if known is None:
                    self._exhausted = True
                    break
                rows.append(field(_ROW_TAG, self._messages.row(known, self._read)))
                self._read += 1
            self._pending.extend(rows)
            if rows:
                self._send(rows)
            if self._exhausted:
                self._outbox.put(None)


class AnswerStream(Generic[Answer]):
    """Answers to rows in the order given, resumed at another replica wherever a call breaks. For one thread.

    Args:
        connection: The channels.
        version: The model version.
        exchange: The messages.

    Attributes:
        version: The model version.
    """

    def __init__(self, connection: Connection, version: model_pb2.ModelVersion, exchange: RowExchange[Answer]) -> None:
        self.version = version
        self._call = ResumableCall(exchange, connection.route(), connection.retry)
        self._run = iter(self._call)

    @property
    def address(self) -> str:
        """The replica that is read from, or was last; as `SampleStream.address`."""
        return self._call.address

    @property
    def resumes(self) -> int:
        """How often the stream was resumed by another call."""
        return self._call.resumes

    def __iter__(self) -> Iterator[Answer]:
        return self._run

    def __next__(self) -> Answer:
        return next(self._run)

    def close(self) -> None:
        """End the stream; the call that runs is cancelled."""
        self._call.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
