"""Requests of a stream that its client does not end, for `grpc.aio`."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

T = TypeVar("T")


async def unended(*requests: T) -> AsyncIterator[T]:
    """Yield the requests, and then wait for ever: for calls that the server ends.

    A client of `grpc.aio` that writes, or ends its writing, while the server ends the call may report that as INTERNAL
    or CANCELLED, not as the status that the server has sent.
    """
    for request in requests:
        yield request
    await asyncio.Event().wait()
