"""Channels to the two services, and the rule by which a call is made again."""

import itertools
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

import grpc

from rowmint import names
from rowmint.client.balancing import Target, parse_addresses, sampler_targets, service_config
from rowmint.client.credentials import PLAIN, Credentials
from rowmint.client.errors import RowmintCallError, call_error
from rowmint.client.tracing import traced
from rowmint.errors import RowmintError

TRAINER = "127.0.0.1:7401"
SAMPLER = "127.0.0.1:7402"

MAX_RECEIVE_BYTES = 16 * 1024 * 1024

_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
    # Whether and when a call is made again is decided here, where it is known what a call has done already.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # Less often than the five minutes a server allows by default: more often ends in GOAWAY too_many_pings.
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)
# gRPC shares connections between channels alike in name and options; this one has its own.
_OWN_CONNECTIONS = ("grpc.use_local_subchannel_pool", 1)

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how soon a call is made again.

    Attributes:
        attempts: Consecutive attempts of a stream without progress, after which it is given up.
        unary_attempts: Attempts of a call that is not a stream.
        first_delay: Seconds before the second attempt; doubled from then on.
        longest_delay: Seconds, the most waited between two attempts.
        sleep: Waits for seconds.
    """

    attempts: int = 8
    unary_attempts: int = 4
    first_delay: float = 0.2
    longest_delay: float = 5.0
    sleep: Callable[[float], object] = time.sleep

    def wait(self, failures: int, asked: float | None = None) -> None:
        """Wait before the next attempt.

        Args:
            failures: Failures so far since the last progress, from 1.
            asked: Seconds the service asked for; at most 30 are granted.
        """
        delay = min(self.first_delay * 2.0 ** min(failures - 1, 30), self.longest_delay)
        self.sleep(delay if asked is None else max(delay, min(asked, 30.0)))


@dataclass(frozen=True)
class Peer:
    """What a channel leads to: one server, or replicas that it chooses among.

    Attributes:
        address: The address as given, for example ``127.0.0.1:7402``; several with commas between them.
        role: ``trainer`` or ``sampler``, for messages.
        channel: The channel; opened by its first call.
    """

    address: str
    role: str
    channel: grpc.Channel

    def __str__(self) -> str:
        return f"the {self.role} at {self.address}"


@dataclass(frozen=True)
class Way:
    """One way to the sampler.

    Attributes:
        peers: What its calls take in turn; together they are all replicas.
        replicas: How many replicas are known to be there, at least.
        first: Which peer the first call takes.
    """

    peers: tuple[Peer, ...]
    replicas: int
    first: int = 0


class Turns:
    """Where the next call of a stream goes, and when: the rule by which a broken stream is gone on with.

    As many failures in a row as there are replicas are answered at once, as another replica may well serve; from
    then on a while is waited, longer and longer. A service that says when to come back is not asked before.

    Args:
        way: The way to the sampler.
        retry: How often and how soon.
    """

    def __init__(self, way: Way, retry: RetryPolicy) -> None:
        self._way = way
        self._retry = retry
        self._turn = way.first
        self._failures = 0

    @property
    def peer(self) -> Peer:
        """What the next call goes to."""
        return self._way.peers[self._turn % len(self._way.peers)]

    def failed(
        self, failure: RowmintCallError | RowmintError, *, progress: bool, reached: bool, hope: bool = False
    ) -> None:
        """Take in that a call failed in a way that may pass, and wait until the next is due.

        Args:
            failure: Why.
            progress: Whether something came since the last failure.
            reached: Whether anything ever came; who never answered is not asked for long.
            hope: Whether other calls for the same reader came further meanwhile: then this is not the last attempt.

        Raises:
            RowmintCallError: It was the last attempt.
            RowmintError: Likewise, and what came was damaged.
        """
        self._failures = 0 if progress else self._failures + 1
        called = failure if isinstance(failure, RowmintCallError) else None
        unreached = called is not None and not called.reason and not reached
        if not hope and self._failures >= (self._way.replicas + 2 if unreached else self._retry.attempts):
            raise failure if called is None or unreached else called.given_up(self._failures)
        asked = None if called is None else called.retry_after
        if asked is not None or self._failures >= self._way.replicas:
            self._retry.wait(max(1, self._failures - self._way.replicas + 1), asked)
        self._turn += 1


class Connection:
    """The channels of one client. Safe to use from several threads.

    Args:
        trainer: Address of the trainer.
        sampler: Addresses of the sampler's replicas; see `sampler_targets`.
        project: Project that short ids stand in.
        retry: When a call is made again.
        timeout: Seconds a call that is not a stream may take.
        balancing: ``weighted`` or ``round_robin``: how a replica is chosen.
        credentials: What is shown to the services, and asked of them.
        channel_options: gRPC channel options beside ours; they win.

    Raises:
        InvalidFieldError: An address, the project or `balancing` is malformed, or a token would be sent in plain text
            over a network.
    """

    def __init__(
        self,
        trainer: str,
        sampler: str | Sequence[str],
        project: str,
        *,
        retry: RetryPolicy,
        timeout: float,
        balancing: str = "weighted",
        credentials: Credentials = PLAIN,
        channel_options: Sequence[tuple[str, int | str]] = (),
    ) -> None:
        self.project = names.ProjectName(names.validate_id(project, "project"))
        self.retry = retry
        self.timeout = timeout
        self._options = tuple(channel_options)
        self._credentials = credentials
        self._balanced = ("grpc.service_config", service_config(balancing))
        (trainer_address,) = parse_addresses(trainer, "trainer")[:1]
        self._targets = sampler_targets(parse_addresses(sampler, "sampler"))
        self._replicas = sum(target.replicas for target in self._targets)
        self._lock = threading.Lock()
        self._closed = False
        self._channels: list[grpc.Channel] = []
        self.trainer = Peer(trainer_address, "trainer", self._open(trainer_address, trainer_address))
        self._ways = [self._open_way()]
        self._each: tuple[Peer, ...] = ()
        # Clients that start together begin with different peers.
        self._turns = itertools.count(secrets.randbelow(len(self._targets)))

    def _open(self, name: str, address: str, *options: tuple[str, int | str]) -> grpc.Channel:
        channel = traced(self._credentials.channel(name, address, (*_OPTIONS, *options, *self._options)))
        self._channels.append(channel)
        return channel

    def _open_way(self, *options: tuple[str, int | str]) -> tuple[Peer, ...]:
        def peer(target: Target) -> Peer:
            balanced = (self._balanced,) if target.balanced else ()
            return Peer(target.address, "sampler", self._open(target.name, target.address, *balanced, *options))

        return tuple(map(peer, self._targets))

    def way(self) -> Way:
        """Return the way to the sampler that a new stream takes."""
        return Way(self._ways[0], self._replicas, next(self._turns))

    def ways(self, streams: int) -> list[Way]:
        """Return a way for each of so many streams at once; they spread over replicas, and processes that share a port.

        A connection reaches one process only; so where there are more streams than replicas, there are several ways,
        each with connections of its own. They stay open for the streams to come.

        Args:
            streams: How many; at least 1.
        """
        wanted = -(-streams // self._replicas)
        with self._lock:
            while len(self._ways) < wanted and not self._closed:
                self._ways.append(self._open_way(_OWN_CONNECTIONS))
            ways = self._ways[:wanted]
        return [Way(ways[number % len(ways)], self._replicas, next(self._turns)) for number in range(streams)]

    def each_sampler(self) -> tuple[Peer, ...]:
        """Return a peer for each address of the sampler, so that each can be asked by itself."""
        with self._lock:
            if not self._each:
                addresses = [address for target in self._targets for address in target.address.split(",")]
                self._each = tuple(Peer(address, "sampler", self._open(address, address)) for address in addresses)
            return self._each

    def call_peer(
        self,
        peer: Peer,
        method: "Callable[[grpc.Channel], grpc.UnaryUnaryMultiCallable[_Request, _Response]]",
        request: _Request,
    ) -> _Response:
        """Call one peer, again where the failure may pass.

        Args:
            peer: The peer.
            method: Returns the method on a channel.
            request: The request.

        Raises:
            RowmintCallError: It failed.
        """
        return self._call((peer,), method, request)

    def call_trainer(
        self,
        method: "Callable[[grpc.Channel], grpc.UnaryUnaryMultiCallable[_Request, _Response]]",
        request: _Request,
    ) -> _Response:
        """Call the trainer, again where the failure may pass; the call must be harmless to repeat.

        Args:
            method: Returns the method on a channel.
            request: The request.

        Raises:
            RowmintCallError: It failed.
        """
        return self._call((self.trainer,), method, request)

    def delete_on_trainer(
        self,
        method: "Callable[[grpc.Channel], grpc.UnaryUnaryMultiCallable[_Request, _Response]]",
        request: _Request,
    ) -> None:
        """Call the trainer to delete something, again where the failure may pass.

        What is not there at a later attempt was deleted by an earlier one, whose answer was lost.

        Raises:
            RowmintCallError: It failed, or there was nothing to delete from the start.
        """
        try:
            self.call_trainer(method, request)
        except RowmintCallError as error:
            if error.code is not grpc.StatusCode.NOT_FOUND or error.attempts == 1:
                raise

    def call_sampler(
        self,
        method: "Callable[[grpc.Channel], grpc.UnaryUnaryMultiCallable[_Request, _Response]]",
        request: _Request,
    ) -> _Response:
        """Call any replica of the sampler, again where the failure may pass.

        Args:
            method: Returns the method on a channel.
            request: The request.

        Raises:
            RowmintCallError: It failed.
        """
        return self._call(self._ways[0], method, request)

    def _call(
        self,
        peers: Sequence[Peer],
        method: "Callable[[grpc.Channel], grpc.UnaryUnaryMultiCallable[_Request, _Response]]",
        request: _Request,
    ) -> _Response:
        first = next(self._turns)
        for failures in itertools.count(1):
            peer = peers[(first + failures - 1) % len(peers)]
            try:
                return method(peer.channel)(request, timeout=self.timeout)
            except grpc.RpcError as error:
                failure: RowmintCallError = call_error(error, str(peer))
                failure.attempts = failures
            if not failure.retryable or failures >= max(self.retry.unary_attempts, len(peers)):
                raise failure
            if failure.code is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise failure
            self.retry.wait(failures, failure.retry_after)
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Close all channels; running streams end."""
        with self._lock:
            self._closed = True
        for channel in self._channels:
            channel.close()


class Calls:
    """What each part of the client is built on.

    Args:
        connection: The channels; owned by the client.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def project(self) -> str:
        """Name of the project, `projects/{project}`."""
        return str(self._connection.project)

    def _full_name(self, text: str, collection: str) -> str:
        """Return `text` as a full name: a short id stands in the client's project."""
        return text if text.startswith("projects/") else f"{self.project}/{collection}/{text}"

    def close(self) -> None:
        """Close all channels; running streams end."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
