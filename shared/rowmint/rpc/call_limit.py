"""Calls of Rowmint's own services at once, bounded for the process. For one event loop.

Health checks, reflection and load reports are not counted: they describe the process, and balancers must not be
refused. What a connection may have of them is bounded by `MAX_CONCURRENT_STREAMS`.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import grpc

from rowmint.errors import UnavailableError
from rowmint.observability.calls import wrap_handler

MAX_CONCURRENT_STREAMS = 1024
"""Calls of any service at once on one connection; a client with more waits, or opens another connection."""
SETTING = "ROWMINT_MAX_CALLS"
_RETRY_SECONDS = 0.1


class CallLimitInterceptor(grpc.aio.ServerInterceptor):
    """Refuses calls beyond a number. Inside authorization, so that refused calls are audited.

    Args:
        most: Calls at once, 1 or more.
        shed: Called with the reason whenever a call is refused.
    """

    def __init__(self, most: int, shed: Callable[[str], None]) -> None:
        self._most = most
        self._shed = shed
        self._running = 0

    async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Wrap the handler of a call."""
        handler = await continuation(handler_call_details)
        if handler is None or not str(handler_call_details.method).startswith("/rowmint."):
            return handler
        return wrap_handler(
            handler,
            self._limited_stream,
            self._limited_unary,
            handler.request_deserializer,
            handler.response_serializer,
        )

    @contextmanager
    def _counted(self) -> Iterator[None]:
        if self._running >= self._most:
            self._shed("calls")
            raise UnavailableError(
                f"this service has as many calls as it carries ({self._most}); retry later, or raise {SETTING}",
                metadata={"limit": str(self._most), "setting": SETTING},
                retry_after=_RETRY_SECONDS,
            )
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    def _limited_unary(self, inner: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
        async def behavior(request: Any, context: Any) -> Any:
            with self._counted():
                return await inner(request, context)

        return behavior

    def _limited_stream(
        self, inner: Callable[[Any, Any], AsyncGenerator[Any, None]]
    ) -> Callable[[Any, Any], AsyncIterator[Any]]:
        async def behavior(request: Any, context: Any) -> AsyncIterator[Any]:
            with self._counted():
                async with aclosing(inner(request, context)) as responses:
                    async for response in responses:
                        yield response

        return behavior
