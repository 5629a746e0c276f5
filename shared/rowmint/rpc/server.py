"""The gRPC server both services run: errors, health, reflection, drain."""

import asyncio
import signal
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from rowmint.errors import Reason, RowmintError, UnavailableError
from rowmint.observability.calls import Call, CallInterceptor, CallObserver, note_reason, rebuilt
from rowmint.rpc import status
from rowmint.rpc.access import AccessInterceptor, Auditor, Authenticator, rules_of
from rowmint.rpc.tls import server_credentials
from rowmint.security.tls_files import TlsFiles

_log = structlog.get_logger(__name__)

_QUIET_SECONDS = 0.25  # a call that was on its way when clients were told to go has come by then


@dataclass(frozen=True)
class Service:
    """A servicer and how it joins a server.

    Attributes:
        name: Full name, such as ``rowmint.v1.SamplingService``.
        register: Adds the servicer to a server.
        reflected: Whether reflection tells of it; it can only where its descriptor is in the default pool.
    """

    name: str
    register: Callable[[grpc.aio.Server], None]
    reflected: bool = True


@dataclass(frozen=True)
class ServerOptions:
    """How a server listens.

    Attributes:
        listen: ``host:port``; port 0 takes a free one.
        grace_seconds: How long calls in flight may go on after SIGTERM.
        max_message_bytes: Largest message received.
        max_connection_age_seconds: After this a connection is asked to be opened anew, so that clients find new
            replicas; 0 for never.
        max_call_seconds: How long a call may go on on a connection that is being given up; 0 for as long as it takes.
        shares_port: Whether other processes may listen on the same port.
    """

    listen: str
    grace_seconds: float = 10.0
    max_message_bytes: int = 4 * 1024 * 1024
    max_connection_age_seconds: float = 0.0
    max_call_seconds: float = 0.0
    shares_port: bool = False


@dataclass(frozen=True)
class Guard:
    """Who may reach a server, and who is let in.

    Attributes:
        tls: Files of its certificate; None for plain text.
        authenticator: Tells who calls; None lets anybody do everything.
        audit: Keeps every decision; None keeps none.
    """

    tls: TlsFiles | None = None
    authenticator: Authenticator | None = None
    audit: Auditor | None = None


UNGUARDED = Guard()
"""In plain text, and open to anybody: for a server that only this machine reaches."""


class _OwnCalls:
    """Counts calls of our own services: every one of them ends. Observes the calls of one server."""

    def __init__(self) -> None:
        self._running = 0
        self._begun = 0
        self._none = asyncio.Event()
        self._none.set()

    async def quiet(self, seconds: float) -> None:
        """Wait until none has been running for `seconds`."""
        while True:
            await self._none.wait()
            begun = self._begun
            await asyncio.sleep(seconds)
            if begun == self._begun:
                return

    def begun(self, call: Call) -> None:
        """Count a call."""
        if call.method.startswith("rowmint."):
            self._running += 1
            self._begun += 1
            self._none.clear()

    def ended(self, call: Call) -> None:
        """Forget it."""
        if call.method.startswith("rowmint."):
            self._running -= 1
            if not self._running:
                self._none.set()


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns domain errors into aborts, and everything else into INTERNAL with an id and no detail."""

    async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Wrap the handler of a call."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = str(handler_call_details.method)
        decode = _decoder(handler.request_deserializer)
        guards = partial(_guard_stream, method), partial(_guard_unary, method)
        return rebuilt(handler, *guards, decode, handler.response_serializer)


class _NoMessage:
    """Stands for bytes that are no message: an error raised while gRPC decodes them would be told as UNKNOWN."""


def _decoder(decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(body: bytes) -> Any:
        try:
            return decode(body)
        except DecodeError:
            return _NoMessage()

    return read


class _Requests:
    """The messages of a stream; one that cannot be read is refused."""

    def __init__(self, messages: AsyncIterator[Any]) -> None:
        self._messages = messages  # not `aiter` of it, which would begin to read what nobody may want

    def __aiter__(self) -> "_Requests":
        return self

    async def __anext__(self) -> Any:
        return _readable(await anext(self._messages))


def _readable(request: Any) -> Any:
    if isinstance(request, _NoMessage):
        error = RowmintError("the request's bytes are no message of the method's type; look at the client")
        error.reason = Reason.INVALID_FIELD  # of which none can be named
        raise error
    return _Requests(request) if isinstance(request, AsyncIterator) else request


def _guard_unary(method: str, inner: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
    async def behavior(request: Any, context: Any) -> Any:
        try:
            return await inner(_readable(request), context)
        except Exception as error:  # noqa: BLE001 - the edge of the service
            await _abort(error, method, context)

    return behavior


def _guard_stream(
    method: str, inner: Callable[[Any, Any], AsyncGenerator[Any, None]]
) -> Callable[[Any, Any], AsyncIterator[Any]]:
    async def behavior(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async with aclosing(inner(_readable(request), context)) as responses:
                async for response in responses:
                    yield response
        except Exception as error:  # noqa: BLE001 - the edge of the service
            await _abort(error, method, context)

    return behavior


async def _abort(error: Exception, method: str, context: Any) -> None:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if not isinstance(error, RowmintError):
        error_id = uuid.uuid4().hex
        _log.error("call failed", method=method, error_id=error_id, exc_info=error)
        error = RowmintError(
            f"a fault of the service; its log says more under {error_id}", metadata={"error_id": error_id}
        )
    elif error.reason is Reason.DATA_LOSS:
        # Whoever runs the service has to mend it. The message may quote what is damaged, and stays with the caller.
        _log.error("stored bytes are damaged", method=method, about=error.metadata)
    note_reason(error.reason)
    found = status.to_status(error)
    await context.abort(found.code, found.details, (*found.trailing_metadata, *status.trailers(error)))


class Server:
    """A gRPC server on one event loop.

    Args:
        services: What it offers, beside health and reflection.
        options: How it listens.
        observers: Told of every call, health and reflection included.
        guard: Who may reach it, and who is let in.

    Raises:
        ValueError: A method of our contract has no rule of access.

    Attributes:
        port: Where it listens; 0 before `start`.
    """

    def __init__(
        self,
        services: Sequence[Service],
        options: ServerOptions,
        observers: Sequence[CallObserver] = (),
        guard: Guard = UNGUARDED,
    ) -> None:
        self._options = options
        self._guard = guard
        self.port = 0
        self._names = [service.name for service in services]
        reflected = [service.name for service in services if service.reflected]
        self._health = HealthServicer()
        settings: list[tuple[str, Any]] = [
            # A second server must not bind the same port silently, but on purpose.
            ("grpc.so_reuseport", int(options.shares_port)),
            ("grpc.max_receive_message_length", options.max_message_bytes),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_permit_without_calls", 1),
        ]
        if options.max_connection_age_seconds > 0:
            settings.append(("grpc.max_connection_age_ms", int(options.max_connection_age_seconds * 1000)))
            if options.max_call_seconds > 0:
                settings.append(("grpc.max_connection_age_grace_ms", int(options.max_call_seconds * 1000)))
        self._calls = _OwnCalls()
        rules = rules_of([name for name in self._names if name.startswith("rowmint.")])
        # Observers stand outermost: the status that counts is the one that the client gets.
        interceptors: list[grpc.aio.ServerInterceptor] = [
            CallInterceptor([self._calls, *observers]),
            ErrorInterceptor(),
        ]
        if guard.authenticator is not None or guard.audit is not None:
            interceptors.append(AccessInterceptor(rules, guard.authenticator, guard.audit))
        self._server = grpc.aio.server(interceptors=interceptors, options=settings)
        for service in services:
            service.register(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        own = (health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
        reflection.enable_server_reflection([*reflected, *own], self._server)

    async def start(self) -> int:
        """Bind, serve, and report SERVING.

        Returns:
            The port.

        Raises:
            UnavailableError: The address cannot be bound, or a file of TLS not be read.
            InvalidFieldError: A file of TLS cannot be understood.
        """
        tls = None if self._guard.tls is None else server_credentials(self._guard.tls)
        try:
            if tls is None:
                port = self._server.add_insecure_port(self._options.listen)
            else:
                port = self._server.add_secure_port(self._options.listen, tls)
        except RuntimeError as error:
            raise UnavailableError(
                f"cannot listen on {self._options.listen!r}; it must be host:port of this machine, and free"
            ) from error
        await self._server.start()
        self.port = int(port)
        for name in ("", *self._names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return self.port

    async def retire(self) -> None:
        """Report NOT_SERVING; calls are served as ever."""
        await self._health.enter_graceful_shutdown()

    async def drain(self) -> None:
        """Refuse new calls, let running ones end within the grace.

        Those that have no end of their own, as health watches and load reports have none, are not waited for.
        """
        stopping = asyncio.create_task(self._server.stop(self._options.grace_seconds))
        quiet = asyncio.create_task(self._calls.quiet(_QUIET_SECONDS))
        await asyncio.wait((stopping, quiet), return_when=asyncio.FIRST_COMPLETED)
        quiet.cancel()
        await self._server.stop(None)
        await stopping

    async def stop(self) -> None:
        """End every call at once."""
        await self._server.stop(None)


async def serve_until_signal(
    server: Server, label: str, closing: Callable[[], Awaitable[None]], hurrying: Callable[[], None] = lambda: None
) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal ends at once.

    Args:
        server: The server.
        label: What the log calls it.
        closing: Ends what else is at work; begun once the first signal has arrived and the server reports NOT_SERVING,
            and waited for beside the calls that are drained.
        hurrying: Called when the second signal arrives; `closing` is still waited for.
    """
    loop = asyncio.get_running_loop()
    asked = asyncio.Semaphore(0)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.release)
    port = await server.start()
    _log.info("serving", service=label, port=port)
    await asked.acquire()
    _log.info("draining", service=label)
    await server.retire()
    ended: asyncio.Future[Any] = asyncio.gather(closing(), server.drain())
    second: asyncio.Future[bool] = asyncio.create_task(asked.acquire())
    waited: set[asyncio.Future[Any]] = {ended, second}
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    if not ended.done():
        hurrying()
        await server.stop()
    second.cancel()
    await asyncio.gather(ended, second, return_exceptions=True)
    _log.info("stopped", service=label)
