"""What a replica reports of itself with every answer: its name first, its load last."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from rowmint.rpc import orca

REPLICA = "rowmint-replica"
"""Initial metadata that names the replica that answers."""


@dataclass(frozen=True)
class Replica:
    """This process, as clients and balancers see it.

    Attributes:
        name: Returns its name, printable ASCII, once it serves.
        load: Returns how busy it is now.
    """

    name: Callable[[], str]
    load: Callable[[], orca.LoadReport]

    async def announce(self, context: Any) -> None:
        """Send the replica's name; not before it is certain that the call is answered with anything but an error.

        A proxy decides by it whether a call may be made again at another replica, and what its HTTP status is.

        Args:
            context: The call's `grpc.aio.ServicerContext`.

        Raises:
            asyncio.CancelledError: The client has gone.
        """
        try:
            await context.send_initial_metadata(((REPLICA, self.name()),))
        except grpc.aio.InternalError:
            # The client has gone. What is sent later fails silently, this would be logged as a fault of ours.
            raise asyncio.CancelledError from None

    def report_load(self, context: Any) -> None:
        """Send the load at the end of a call.

        Args:
            context: The call's `grpc.aio.ServicerContext`.
        """
        context.set_trailing_metadata((orca.trailer(self.load()),))
