"""Where a call goes: the peers that channels lead to, and the route of a stream over them."""

from dataclasses import dataclass

import grpc


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
class Route:
    """The peers that the attempts of one stream go to.

    Attributes:
        peers: Taken in turn; together they are all replicas.
        replicas: How many replicas are known to exist, at least.
        first: Index of the peer that the first attempt goes to; taken modulo the number of peers.
    """

    peers: tuple[Peer, ...]
    replicas: int
    first: int = 0
