"""Pacing: calls are ended whose clients neither send their first message nor read what they are sent."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, TypeVar

from rowmint.errors import EmptyStreamError, LimitError, Reason
from rowmint.observability.calls import record_reason
from rowmint.rpc import status

T = TypeVar("T")

_RETRY_SECONDS = 1.0


class Pacing:
    """Ends calls that a client does not keep going. For one event loop.

    Args:
        write_timeout: Seconds a client may leave a message unread, or the first one unsent.
    """

    def __init__(self, write_timeout: float) -> None:
        self._seconds = write_timeout
        self._aborts: set[asyncio.Task[None]] = set()

    @property
    def aborting(self) -> int:
        """Calls that are being ended."""
        return len(self._aborts)

    async def first(self, messages: AsyncIterator[T]) -> T:
        """Return the first message that a client sends.

        Raises:
            EmptyStreamError: There is none.
            LimitError: It has not come in time.
        """
        try:
            async with asyncio.timeout(self._seconds):
                first = await anext(aiter(messages), None)
        except TimeoutError:
            raise self._limit(
                f"the first message, which is the config, has not come for {self._seconds:g} seconds; send it at once"
            ) from None
        if first is None:
            raise EmptyStreamError("the stream has no message; the first is the config")
        return first

    async def paced(self, responses: AsyncGenerator[T, None], context: Any) -> AsyncGenerator[T, None]:
        """Yield the responses; end the call when the client leaves one unread for too long.

        Args:
            responses: The responses; closed at the end.
            context: The call's `grpc.aio.ServicerContext`.
        """
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        async with aclosing(responses):
            async for response in responses:
                # While a generator is suspended at its `yield`, the call's task is writing what it yielded.
                timer = loop.call_later(self._seconds, self._give_up, task, context)
                try:
                    yield response
                finally:
                    timer.cancel()

    def _give_up(self, task: asyncio.Task[Any] | None, context: Any) -> None:
        """Stop the work of a call whose client does not read, and leave the reason for when it does."""
        if task is None or task.done():
            return
        task.cancel()
        record_reason(Reason.LIMIT)
        abort = asyncio.get_running_loop().create_task(self._abort(context))
        self._aborts.add(abort)
        abort.add_done_callback(self._aborts.discard)

    async def _abort(self, context: Any) -> None:
        found = self._limit(
            f"the client left a message unread for {self._seconds:g} seconds; resume from the row after the last one"
            " received"
        )
        reply = status.to_status(found)
        # `abort` always raises; and where the client has gone meanwhile, there is none to send it to.
        with contextlib.suppress(Exception):
            await context.abort(reply.code, reply.details, (*reply.trailing_metadata, *status.trailers(found)))

    def _limit(self, message: str) -> LimitError:
        return LimitError(
            message,
            metadata={"limit": f"{self._seconds:g}", "setting": "ROWMINT_WRITE_TIMEOUT"},
            retry_after=_RETRY_SECONDS,
        )
