"""Every call of a server, from its begin to its end, as what counts, traces and logs calls sees it."""

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
"""Stands for methods the server does not have: their names are the client's, and there is no end of them."""

_REQUEST_ID = re.compile(r"[0-9A-Za-z-]{1,64}")


@dataclass(slots=True)
class Call:
    """One call.

    Attributes:
        method: ``package.Service/Method``, or `OTHER`.
        metadata: What the client sent with it, in order.
        started: When it began, seconds of the monotonic clock.
        received_bytes: Bytes of the messages received.
        sent_bytes: Bytes of the messages sent.
        received: Messages received.
        sent: Messages sent.
        status: Name of the status that the client gets, such as ``OK``; empty until it has ended.
        request_id: Tells it from others, in the log and in the audit log; the client's own, where it has given one.
        caller: Who calls, once that is known; empty where nobody asks.
        reason: Why it failed: a name of `rowmint.errors.Reason`; empty where it did not, or not by a domain error.
        seconds: How long it took; 0 until it has ended.
        notes: What observers keep about it, each under a key of its own.
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
    notes: dict[object, Any] = field(default_factory=dict)


_CURRENT: ContextVar[Call | None] = ContextVar("_CURRENT", default=None)


def note_reason(reason: str) -> None:
    """Let the call that is being served, if one is, say why it fails.

    Args:
        reason: A name of `rowmint.errors.Reason`, never a text that was made for a caller.
    """
    call = _CURRENT.get()
    if call is not None:
        call.reason = reason


def note_caller(name: str) -> None:
    """Let the call that is being served, if one is, say who calls."""
    call = _CURRENT.get()
    if call is not None:
        call.caller = name


def current_request_id() -> str:
    """Return the id of the call that is being served; empty where none is."""
    call = _CURRENT.get()
    return "" if call is None else call.request_id


class CallObserver(Protocol):
    """Is told of every call of a server, on its event loop; must neither wait nor raise."""

    def begun(self, call: Call) -> None:
        """A call has begun. Called in its task: context variables set here hold for as long as it lasts."""
        ...

    def ended(self, call: Call) -> None:
        """A call has ended; it has a status."""
        ...


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Tells observers of calls. It must stand outside whatever decides on a call's status.

    A call that streams responses costs nothing for each of them but the count of its bytes: its handler's generator is
    run here, in the place of gRPC's own loop.

    Args:
        observers: Who is told; in this order at a call's begin, and in the other at its end.
        clock: Seconds; monotonic.
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
        course = _Course()
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call has no task")
        _CURRENT.set(call)
        for observer in self._observers:
            observer.begun(call)
        # The task outlives the handler by what gRPC does for it: reading the request, sending the status.
        task.add_done_callback(partial(self._end, call, course, handler is not None))
        if handler is None:
            return None
        return _wrapped(handler, call, course)

    def _end(self, call: Call, course: "_Course", known: bool, _: object) -> None:
        call.seconds = self._clock() - call.started
        call.status = course.status() if known else grpc.StatusCode.UNIMPLEMENTED.name
        for observer in reversed(self._observers):
            observer.ended(call)


def _request_id(metadata: Sequence[tuple[str, str | bytes]]) -> str:
    """Return the id that a proxy or client has given a call, where it cannot be any other text, or a new one."""
    given = dict(metadata).get("x-request-id")
    return given if isinstance(given, str) and _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


class _Course:
    """How the handler of a call fared."""

    def __init__(self) -> None:
        self.context: Any = None
        self.returned = False
        self.error: BaseException | None = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note an error in what is done here."""
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
        if self.context is None:  # gone before its request had come
            return grpc.StatusCode.CANCELLED.name
        # The client hung up or its time was over, which ends the handler's task or fails what it sends.
        if self.context.time_remaining() == 0:
            return grpc.StatusCode.DEADLINE_EXCEEDED.name
        return grpc.StatusCode.CANCELLED.name


_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


def _name(code: Any) -> str:
    """Return the name of a status code in either of the forms that gRPC takes; of none it knows, UNKNOWN."""
    return code.name if isinstance(code, grpc.StatusCode) else _NAMES.get(code, grpc.StatusCode.UNKNOWN.name)


def rebuilt(
    handler: Any, generated: Callable[[Any], Any], awaited: Callable[[Any], Any], decode: Any, encode: Any
) -> Any:
    """Return a handler of the same kind as `handler` that behaves otherwise.

    Args:
        handler: The handler.
        generated: Returns the new behaviour for one that is a generator of responses.
        awaited: Returns it for any other: one with a single response, or one that writes its responses itself, as that
            of grpc.health.v1.Health/Watch does.
        decode: Makes requests of bytes.
        encode: Makes bytes of responses.
    """
    sides = ("stream" if streams else "unary" for streams in (handler.request_streaming, handler.response_streaming))
    kind = "_".join(sides)
    inner = getattr(handler, kind)
    behavior = generated(inner) if inspect.isasyncgenfunction(inner) else awaited(inner)
    return getattr(grpc, f"{kind}_rpc_method_handler")(behavior, decode, encode)


def _wrapped(handler: Any, call: Call, course: _Course) -> Any:
    """Return a handler like `handler` that keeps `call` and `course` up to date."""

    def decode(body: bytes) -> Any:
        call.received += 1
        call.received_bytes += len(body)
        try:
            return body if read is None else read(body)
        except Exception as error:
            course.error = error
            raise

    def encode(message: Any) -> bytes:
        try:
            body: bytes = message if write is None else write(message)
        except Exception as error:
            course.error = error
            raise
        call.sent += 1
        call.sent_bytes += len(body)
        return body

    read, write = handler.request_deserializer, handler.response_serializer
    return rebuilt(handler, partial(_written, course), partial(_awaited, course), decode, encode)


def _awaited(course: _Course, inner: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
    async def behavior(request: Any, context: Any) -> Any:
        course.context = context
        with course.watched():
            response = await inner(request, context)
        course.returned = True
        return response

    return behavior


def _written(course: _Course, inner: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Awaitable[None]]:
    async def behavior(request: Any, context: Any) -> None:
        course.context = context
        with course.watched():
            async with aclosing(inner(request, context)) as responses:
                async for response in responses:
                    await context.write(response)
        course.returned = True

    return behavior
