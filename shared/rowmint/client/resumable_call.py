"""One logical stream, made of as many attempts as it takes, one after the other."""

import threading
from collections.abc import Generator, Iterator
from typing import Any, Generic, Protocol, TypeVar

import grpc

from rowmint.client.cancellation import Cancellation
from rowmint.client.errors import RowmintCallError, call_error
from rowmint.client.interceptor import Metadata
from rowmint.client.retry import RetryPolicy, RetryState, SharedProgress
from rowmint.client.route import Route
from rowmint.client.tracing import StreamSpan, current_context
from rowmint.errors import DataLossError, RowmintError, StreamMismatchError, UnavailableError
from rowmint.v1 import sampling_pb2

Item = TypeVar("Item")
_Item_co = TypeVar("_Item_co", covariant=True)

_STATUS_SECONDS = 1.0
_REPLICA = "rowmint-replica"
"""Initial metadata by which a replica names itself."""


class BrokenAttemptError(Exception):
    """What an attempt received is not what a whole stream looks like; another attempt may succeed.

    Args:
        error: What is raised where none does.
    """

    def __init__(self, error: RowmintError) -> None:
        super().__init__(error.message)
        self.error = error


class Exchange(Protocol[_Item_co]):
    """What one kind of stream sends and receives: the part of a `ResumableCall` that knows the messages.

    Its methods are called by one thread, in the order of the attempts: `begin`, then `receive` for each message of
    rows, `finish` where a summary came, and `end`.

    Attributes:
        method: The method, ``package.Service/Method``.
        pinned: Fields of the header that every attempt must repeat.
    """

    method: str
    pinned: tuple[str, ...]

    @property
    def start_row(self) -> int:
        """Index of the stream's first row."""

    @property
    def next_row(self) -> int:
        """Index of the next row not yet received."""

    def begin(self, channel: grpc.Channel, header: sampling_pb2.SampleHeader | None, metadata: Metadata) -> Any:
        """Start an attempt that continues after what was received so far.

        Args:
            channel: The channel.
            header: The stream's header; None before the first attempt that was answered.
            metadata: Metadata of the call.

        Returns:
            gRPC's call, an iterator of responses.
        """

    def receive(self, response: Any, peer: str) -> Iterator[tuple[_Item_co, bool]]:
        """Check and count a message of rows; yield what is in it, each with whether it brought the stream further.

        Args:
            response: The message.
            peer: The replica that sent it, for errors.

        Raises:
            BrokenAttemptError: It is damaged, or not the next one.
        """

    def finish(self, summary: sampling_pb2.SampleSummary, header: sampling_pb2.SampleHeader, peer: str) -> bool:
        """Check and count the summary of an attempt; return whether the stream is complete.

        Args:
            summary: The summary.
            header: The stream's header.
            peer: The replica that sent it, for errors.

        Raises:
            BrokenAttemptError: It does not fit what was received.
        """

    def end(self) -> None:
        """Release what the attempt holds; the attempt has ended, in whatever way."""


class ResumableCall(Generic[Item]):
    """A stream that is resumed by another attempt wherever one breaks, at another replica where there is one.

    Nothing is sent before it is read. Each attempt is held to the header of the first one that was answered: a replica
    with another model, plan or seed never continues a stream. All attempts are one span. For one thread; `Cancellation`
    ends it from another.

    Args:
        exchange: The stream's messages.
        route: Which peers its attempts go to.
        retry: How often and how soon it is resumed.
        header: Its header, where a plan has said it already: the first attempt is then held to it.
        cancellation: What ends it; None where closing it does.
        shared: Progress of all streams that serve the same reader; None where there is no other.
        trace: Context that its span hangs on, from `current_context`; None for the current one.

    Attributes:
        header: The header; None before the first answer.
        address: The replica that is read from, or was last, as it names itself; the peer's address before it has
            answered, and where it does not name itself.
        resumes: How often an answered stream was resumed.
    """

    def __init__(
        self,
        exchange: Exchange[Item],
        route: Route,
        retry: RetryPolicy,
        *,
        header: sampling_pb2.SampleHeader | None = None,
        cancellation: Cancellation | None = None,
        shared: SharedProgress | None = None,
        trace: Any = None,
    ) -> None:
        self.header = header
        self.address = ""
        self.resumes = 0
        self._exchange = exchange
        self._cancellation = Cancellation() if cancellation is None else cancellation
        self._retry = RetryState(route, retry, shared)
        self._answered = False
        self._span = StreamSpan(exchange.method, current_context() if trace is None else trace)
        self._run = self._attempts()

    def await_header(self) -> sampling_pb2.SampleHeader:
        """Return the header, reading until it is there.

        Raises:
            RowmintCallError: The service refused, or no replica was reachable for too long.
            RowmintError: Every attempt delivered something damaged.
        """
        while self.header is None:
            next(self._run)
        return self.header

    def __iter__(self) -> Iterator[Item]:
        """Yield what the stream delivers, each item once and in order; errors as in `await_header`.

        Raises:
            StreamMismatchError: A replica continued with another stream.
        """
        for item in self._run:
            if item is not None:
                yield item

    def close(self) -> None:
        """End the stream; the call that runs is cancelled."""
        self._run.close()

    def _attempts(self) -> Generator[Item | None, None, None]:
        """Make attempts until the stream is complete; yield None once the header is there, then the items."""
        with self._span:
            while True:
                peer = self._retry.peer
                self.address = peer.address
                failure: RowmintCallError | RowmintError
                try:
                    if (yield from self._attempt(peer.channel)):
                        self._span.annotate({"rowmint.rows": self._exchange.next_row - self._exchange.start_row})
                        return
                    failure = UnavailableError(
                        f"the sampler at {self.address} ended the stream at row {self._exchange.next_row} and goes no"
                        " further"
                    )
                except grpc.RpcError as error:
                    failure = call_error(error, f"the sampler at {self.address}")
                    if not failure.retryable or self._cancellation.cancelled.is_set():
                        raise failure from None
                except BrokenAttemptError as error:
                    failure = error.error
                self._retry.failed(failure, reached=self.header is not None)
                self.resumes += self._answered
                self._span.add_event(
                    "resumed", {"rowmint.next_row": self._exchange.next_row, "error.type": _kind(failure)}
                )

    def _attempt(self, channel: grpc.Channel) -> Generator[Item | None, None, bool]:
        """Make one attempt; return whether the stream is complete."""
        call = self._exchange.begin(channel, self.header, self._span.metadata)
        self._cancellation.register(call)
        header: sampling_pb2.SampleHeader | None = None
        try:
            for response in call:
                kind = response.WhichOneof("message")
                if kind == "header":
                    header = response.header
                    self._answered = True
                    self.address = _replica(call) or self.address
                    if self.header is None:
                        self.header = header
                        yield None
                    else:
                        self._check_header(header)
                elif header is None:
                    raise BrokenAttemptError(DataLossError(f"{self.address} sent a stream without a header; try again"))
                elif kind == "summary":
                    _await_status(call)
                    return self._exchange.finish(response.summary, header, self.address)
                else:
                    for item, further in self._exchange.receive(response, self.address):
                        if further:
                            self._retry.progress()
                        yield item
            raise BrokenAttemptError(
                UnavailableError(
                    f"{self.address} ended the stream at row {self._exchange.next_row} without a summary; try again"
                )
            )
        finally:
            self._exchange.end()
            self._cancellation.release(call)

    def _check_header(self, header: sampling_pb2.SampleHeader) -> None:
        for name in self._exchange.pinned:
            if getattr(header, name) != getattr(self.header, name):
                raise StreamMismatchError(
                    f"{self.address} resumed with another stream: its {name} differs; do the replicas read one store?"
                )


def _replica(call: Any) -> str:
    """Return how the replica that answers a call names itself, or nothing. A call that was answered does not wait."""
    return next((str(value) for key, value in call.initial_metadata() if key == _REPLICA), "")


def _await_status(call: Any) -> None:
    """Wait a moment for the end of a call whose summary came: to cancel it now would count as a cancelled stream."""
    ended = threading.Event()
    if call.add_callback(ended.set):
        ended.wait(_STATUS_SECONDS)


def _kind(failure: RowmintCallError | RowmintError) -> str:
    """Return what kind of failure it was, in a word."""
    return failure.code.name if isinstance(failure, RowmintCallError) else type(failure).__name__
