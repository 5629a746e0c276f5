"""Channels to the two services, and the rule by which a call is made again."""

import ipaddress
import itertools
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

import grpc

from rowmint import names
from rowmint.client.errors import RowmintCallError, call_error
from rowmint.errors import InvalidFieldError

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
_ROUND_ROBIN = ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}')

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
    sleep: Callable[[float], None] = time.sleep

    def wait(self, failures: int, asked: float | None = None) -> None:
        """Wait before the next attempt.

        Args:
            failures: Failures so far since the last progress, from 1.
            asked: Seconds the service asked for; at most 30 are granted.
        """
        delay = min(self.first_delay * 2.0 ** min(failures - 1, 30), self.longest_delay)
        self.sleep(delay if asked is None else max(delay, min(asked, 30.0)))


@dataclass(frozen=True)
class Replica:
    """One address and the channel to it.

    Attributes:
        address: The address as given, for example ``127.0.0.1:7402``.
        role: ``trainer`` or ``sampler``, for messages.
        channel: The channel; opened by its first call.
    """

    address: str
    role: str
    channel: grpc.Channel

    def __str__(self) -> str:
        return f"the {self.role} at {self.address}"


def parse_addresses(given: str | Sequence[str], field: str) -> tuple[str, ...]:
    """Return the addresses in `given`: a sequence, or a text with commas between them.

    Raises:
        InvalidFieldError: There is none, or one is not of the form host:port.
    """
    parts = given.split(",") if isinstance(given, str) else [part for one in given for part in one.split(",")]
    addresses = tuple(part.strip() for part in parts if part.strip())
    if not addresses:
        raise InvalidFieldError(field, "no address is given; give host:port, such as 127.0.0.1:7402")
    for address in addresses:
        port = re.fullmatch(r"(?:\[[0-9a-fA-F:.%]+\]|[^\s:\[\]/]+):([0-9]{1,5})", address)
        if not (port and 0 < int(port[1]) < 65_536) and not re.match(r"(?:dns|unix|ipv4|ipv6|xds):", address):
            raise InvalidFieldError(field, f"{address!r} is not an address; give host:port, such as 127.0.0.1:7402")
    return addresses


def _balanced_target(addresses: Sequence[str]) -> str | None:
    """Return one target for all addresses, or None where a name server would have to be asked for one of them."""
    numeric = []
    for address in addresses:
        host, _, port = address.rpartition(":")
        host = "127.0.0.1" if host == "localhost" else host
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            return None
        numeric.append(f"{host}:{port}")
    return "ipv4:" + ",".join(numeric)


class Connection:
    """The channels of one client. Safe to use from several threads.

    Args:
        trainer: Address of the trainer.
        sampler: Addresses of the sampler's replicas.
        project: Project that short ids stand in.
        retry: When a call is made again.
        timeout: Seconds a call that is not a stream may take.
        channel_options: gRPC channel options beside ours.

    Raises:
        InvalidFieldError: An address or the project is malformed.
    """

    def __init__(
        self,
        trainer: str,
        sampler: str | Sequence[str],
        project: str,
        *,
        retry: RetryPolicy,
        timeout: float,
        channel_options: Sequence[tuple[str, int | str]] = (),
    ) -> None:
        self.project = names.ProjectName(names.validate_id(project, "project"))
        self.retry = retry
        self.timeout = timeout
        (trainer_address,) = parse_addresses(trainer, "trainer")[:1]
        addresses = parse_addresses(sampler, "sampler")
        options = (*_OPTIONS, *channel_options)

        def open_replica(address: str, role: str) -> Replica:
            return Replica(address, role, grpc.insecure_channel(address, options))

        self.trainer = open_replica(trainer_address, "trainer")
        self.replicas = tuple(open_replica(address, "sampler") for address in addresses)
        self._channels = [self.trainer.channel, *(replica.channel for replica in self.replicas)]
        # Calls that are not streams go round all replicas; a name that must be looked up is tried in turn instead.
        target = _balanced_target(addresses) if len(addresses) > 1 else None
        self._samplers: tuple[Replica, ...] = self.replicas
        if target is not None:
            balanced = grpc.insecure_channel(target, (*options, _ROUND_ROBIN))
            self._channels.append(balanced)
            self._samplers = (Replica(",".join(addresses), "sampler", balanced),)
        # Clients that start together begin on different replicas.
        self._turns = itertools.count(secrets.randbelow(len(self.replicas)))

    def next_replica(self) -> int:
        """Return the index in `replicas` that the next new stream begins on."""
        return next(self._turns) % len(self.replicas)

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
        return self._call(self._samplers, method, request)

    def _call(
        self,
        peers: Sequence[Replica],
        method: "Callable[[grpc.Channel], grpc.UnaryUnaryMultiCallable[_Request, _Response]]",
        request: _Request,
    ) -> _Response:
        for failures in itertools.count(1):
            peer = peers[(failures - 1) % len(peers)]
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
