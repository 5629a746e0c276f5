"""Observation of the calls of a server, from start to end: the basis of call metrics, traces and logs."""

import asyncio
import inspect
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import grpc

OTHER = "other"
"""Stands for unknown methods: their names are chosen by clients, so their number is unbounded."""

_REQUEST_ID = re.compile(r"[0-9A-Za-z-]{1,64}")


@dataclass(slots=True)
class Call:
    """One call.

    Attributes:
        method: ``package.Service/Method``, or `OTHER`.
        metadata: The client's metadata, in order.
        started: Start time, seconds of the monotonic clock.
        received_bytes: Bytes of the messages received.
        sent_bytes: Bytes of the messages sent.
        received: Number of messages received.
        sent: Number of messages sent.
        status: Name of the status that the client gets, such as ``OK``; empty until the call has ended.
        request_id: Identifies the call in the log and the audit log; taken from the client, if it sent one.
        caller: Name of the authenticated caller; empty before authentication, and without it.
        reason: Why it failed: a name of `rowmint.errors.Reason`; empty unless a domain error ended it.
        seconds: Duration; 0 until the call has ended.
        observer_state: State of observers, each under a key of its own.
    """

    method: str
    metadata: Sequence[tuple[str, str | bytes]]
    started: float
    request_id: str = ""
    caller: str = ""
    received_bytes: int = 0
    sent_bytes: int = 0
    received: int = 0
    sent: int = 0
    status: str = ""
    reason: str = ""
    seconds: float = 0.0
    observer_state: dict[object, Any] = field(default_factory=dict)


_CURRENT: ContextVar[Call | None] = ContextVar("_CURRENT", default=None)


def record_reason(reason: str) -> None:
    """Set the error reason of the current call, if there is one.

    Args:
        reason: A name of `rowmint.errors.Reason`, never the message, which may quote the request.
    """
    call = _CURRENT.get()
    if call is not None:
        call.reason = reason


def record_caller(name: str) -> None:
    """Set the caller's name of the current call, if there is one."""
    call = _CURRENT.get()
    if call is not None:
        call.caller = name


def current_request_id() -> str:
    """Return the id of the current call; empty if there is none."""
    call = _CURRENT.get()
    return "" if call is None else call.request_id


class CallObserver(Protocol):
    """Observes every call of a server, on its event loop; must neither block nor raise."""

    def on_start(self, call: Call) -> None:
        """Handle the start of a call. Runs in its task: context variables set here apply to the whole call."""
        ...

    def on_end(self, call: Call) -> None:
        """Handle the end of a call, whose status is set."""
        ...


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Notifies observers of calls. It must be the outermost interceptor, to see each call's final status.

    Streamed responses have no overhead beyond counting their bytes: the handler's generator is iterated here, instead
    of in gRPC's own loop.

    Args:
        observers: The observers; notified in this order at the start of a call, and in reverse at its end.
        clock: Monotonic seconds.
    """

    def __init__(self, observers: Sequence[CallObserver], clock: Callable[[], float] = time.monotonic) -> None:
        self._observers = tuple(observers)
        self._clock = clock

    async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Wrap the handler of a call."""
        handler = await continuation(handler_call_details)
        method = OTHER if handler is None else str(handler_call_details.method).removeprefix("/")
        metadata = tuple(handler_call_details.invocation_metadata or ())
        call = Call(method, metadata, self._clock(), _request_id(metadata))
        outcome = _HandlerOutcome()
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("gRPC handles each call in a task of its own")
        _CURRENT.set(call)
        for observer in self._observers:
            observer.on_start(call)
        # The task ends after the handler: it also reads the request and sends the status.
        task.add_done_callback(partial(self._end, call, outcome, handler is not None))
        if handler is None:
            return None
        return _observed(handler, call, outcome)

    def _end(self, call: Call, outcome: "_HandlerOutcome", known: bool, _: object) -> None:
        call.seconds = self._clock() - call.started
        call.status = outcome.status() if known else grpc.StatusCode.UNIMPLEMENTED.name
        for observer in reversed(self._observers):
            observer.on_end(call)


def _request_id(metadata: Sequence[tuple[str, str | bytes]]) -> str:
    """Return the request id set by a proxy or the client, if it is well-formed, or a new one."""
    given = dict(metadata).get("x-request-id")
    return given if isinstance(given, str) and _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


class _HandlerOutcome:
    """How the handler of a call ended."""

    def __init__(self) -> None:
        self.context: Any = None
        self.returned = False
        self.error: BaseException | None = None

    @contextmanager
    def capturing_error(self) -> Iterator[None]:
        """Record an exception raised in this context."""
        try:
            yield
        except BaseException as error:
            self.error = error
            raise

    def status(self) -> str:
        """Return the name of the status that the client gets."""
        code = None if self.context is None else self.context.code()
        if code is not None:
            return _name(code)
        error = self.error
        own = isinstance(error, grpc.aio.BaseError) and not isinstance(error, grpc.aio.UsageError)
        if isinstance(error, Exception) and not own:
            return grpc.StatusCode.UNKNOWN.name
        if self.returned:
            return grpc.StatusCode.OK.name
        if self.context is None:  # cancelled before its request was received
            return grpc.StatusCode.CANCELLED.name
        # The client cancelled or the deadline passed, which cancels the handler's task or fails its writes.
        if self.context.time_remaining() == 0:
            return grpc.StatusCode.DEADLINE_EXCEEDED.name
        return grpc.StatusCode.CANCELLED.name


_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


def _name(code: Any) -> str:
    """Return the name of a status code in either form that gRPC accepts; UNKNOWN for an invalid one."""
    return code.name if isinstance(code, grpc.StatusCode) else _NAMES.get(code, grpc.StatusCode.UNKNOWN.name)


def wrap_handler(
    handler: Any,
    wrap_generator: Callable[[Any], Any],
    wrap_coroutine: Callable[[Any], Any],
    deserializer: Any,
    serializer: Any,
) -> Any:
    """Return a handler of the same kind as `handler` with wrapped behavior.

    Args:
        handler: The handler.
        wrap_generator: Wraps a behavior that is an asynchronous generator of responses.
        wrap_coroutine: Wraps any other behavior: one that returns a single response, or one that writes its responses
            itself, such as that of grpc.health.v1.Health/Watch.
        deserializer: The new handler's request deserializer.
        serializer: The new handler's response serializer.
    """
    sides = ("stream" if streams else "unary" for streams in (handler.request_streaming, handler.response_streaming))
    kind = "_".join(sides)
    inner = getattr(handler, kind)
    behavior = wrap_generator(inner) if inspect.isasyncgenfunction(inner) else wrap_coroutine(inner)
    return getattr(grpc, f"{kind}_rpc_method_handler")(behavior, deserializer, serializer)


def _observed(handler: Any, call: Call, outcome: _HandlerOutcome) -> Any:
    """Return a handler like `handler` that updates `call` and `outcome`."""

    def decode(body: bytes) -> Any:
        call.received += 1
        call.received_bytes += len(body)
        with outcome.capturing_error():
            return body if read is None else read(body)

    def encode(message: Any) -> bytes:
        with outcome.capturing_error():
            body: bytes = message if write is None else write(message)
        call.sent += 1
        call.sent_bytes += len(body)
        return body

    read, write = handler.request_deserializer, handler.response_serializer
    return wrap_handler(handler, partial(_observe_generator, outcome), partial(_observe, outcome), decode, encode)


def _observe(
    outcome: _HandlerOutcome, inner: Callable[[Any, Any], Awaitable[Any]]
) -> Callable[[Any, Any], Awaitable[Any]]:
    async def behavior(request: Any, context: Any) -> Any:
        outcome.context = context
        with outcome.capturing_error():
            response = await inner(request, context)
        outcome.returned = True
        return response

    return behavior


def _observe_generator(
    outcome: _HandlerOutcome, inner: Callable[[Any, Any], Any]
) -> Callable[[Any, Any], Awaitable[None]]:
    async def behavior(request: Any, context: Any) -> None:
        outcome.context = context
        with outcome.capturing_error():
            async with aclosing(inner(request, context)) as responses:
                async for response in responses:
                    await context.write(response)
        outcome.returned = True

    return behavior
