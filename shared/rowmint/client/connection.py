"""Channels to the two services, and calls whose transient failures are retried."""

import itertools
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, Self, TypeVar

import grpc

from rowmint import names
from rowmint.client.balancing import Target, parse_addresses, sampler_targets, service_config
from rowmint.client.credentials import PLAIN, Credentials
from rowmint.client.errors import RowmintCallError, call_error
from rowmint.client.retry import RetryPolicy
from rowmint.client.route import Peer, Route
from rowmint.client.tracing import traced

MAX_RECEIVE_BYTES = 16 * 1024 * 1024

_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
    # Calls are retried here, where it is known what a call has done already, not by gRPC.
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


class Connection:
    """The channels of one client. Safe to use from several threads.

    Args:
        trainer: Address of the trainer.
        sampler: Addresses of the sampler's replicas; see `sampler_targets`.
        project: Project of short ids.
        retry: How often and how soon a call is made again.
        timeout: Seconds a call that is not a stream may take.
        balancing: ``weighted`` or ``round_robin``: how a replica is chosen.
        credentials: How the client authenticates itself and the services.
        channel_options: gRPC channel options; they win over the client's own.

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
        self._peers = [self._open_peers()]
        self._each: tuple[Peer, ...] = ()
        # Clients that start together begin with different peers.
        self._turns = itertools.count(secrets.randbelow(len(self._targets)))

    def _open(self, name: str, address: str, *options: tuple[str, int | str]) -> grpc.Channel:
        channel = traced(self._credentials.channel(name, address, (*_OPTIONS, *options, *self._options)))
        self._channels.append(channel)
        return channel

    def _open_peers(self, *options: tuple[str, int | str]) -> tuple[Peer, ...]:
        def peer(target: Target) -> Peer:
            balanced = (self._balanced,) if target.balanced else ()
            return Peer(target.address, "sampler", self._open(target.name, target.address, *balanced, *options))

        return tuple(map(peer, self._targets))

    def route(self) -> Route:
        """Return the route of a new stream."""
        return Route(self._peers[0], self._replicas, next(self._turns))

    def routes(self, streams: int) -> list[Route]:
        """Return a route for each of several streams read at once; together they reach all replicas and processes.

        A connection reaches one process only; so where there are more streams than replicas, there are several sets of
        peers, each with connections of its own. They stay open for later streams.

        Args:
            streams: How many; at least 1.
        """
        wanted = -(-streams // self._replicas)
        with self._lock:
            while len(self._peers) < wanted and not self._closed:
                self._peers.append(self._open_peers(_OWN_CONNECTIONS))
            chosen = self._peers[:wanted]
        return [Route(chosen[number % len(chosen)], self._replicas, next(self._turns)) for number in range(streams)]

    def each_sampler(self) -> tuple[Peer, ...]:
        """Return a peer for each address of the sampler, to call each by itself."""
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
        """Call one peer; transient failures are retried.

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
        """Call the trainer; transient failures are retried, so the call must be idempotent.

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
        """Call the trainer to delete a resource; transient failures are retried.

        A resource not found at a later attempt was deleted by an earlier one, whose answer was lost.

        Raises:
            RowmintCallError: It failed, or the resource did not exist at the first attempt.
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
        *,
        admitted: bool = False,
    ) -> _Response:
        """Call any replica of the sampler; transient failures are retried.

        Args:
            method: Returns the method on a channel.
            request: The request.
            admitted: Whether the sampler admits the call as it admits streams: where it has no room, it is tried as
                often as a stream is.

        Raises:
            RowmintCallError: It failed.
        """
        return self._call(self._peers[0], method, request, admitted=admitted)

    def _call(
        self,
        peers: Sequence[Peer],
        method: "Callable[[grpc.Channel], grpc.UnaryUnaryMultiCallable[_Request, _Response]]",
        request: _Request,
        *,
        admitted: bool = False,
    ) -> _Response:
        first = next(self._turns)
        for failures in itertools.count(1):
            peer = peers[(first + failures - 1) % len(peers)]
            try:
                return method(peer.channel)(request, timeout=self.timeout)
            except grpc.RpcError as error:
                failure: RowmintCallError = call_error(error, str(peer))
                failure.attempts = failures
            attempts = self.retry.attempts if admitted and failure.reason else self.retry.unary_attempts
            if not failure.retryable or failures >= max(attempts, len(peers)):
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


class Page(Protocol):
    """One page of a list."""

    next_page_token: str


_Page = TypeVar("_Page", bound=Page)


def pages(fetch: Callable[[str], _Page]) -> Iterator[_Page]:
    """Yield every page of a list.

    Args:
        fetch: Returns the page of a token; the first page's token is empty.
    """
    token = ""
    while True:
        page = fetch(token)
        yield page
        token = page.next_page_token
        if not token:
            return


class Calls:
    """Base of each part of the client.

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
        """Return `text` as a full name; a short id is one of the client's project."""
        return text if text.startswith("projects/") else f"{self.project}/{collection}/{text}"

    def close(self) -> None:
        """Close all channels; running streams end."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
