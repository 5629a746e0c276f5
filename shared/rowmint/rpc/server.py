"""The gRPC server that both services run: errors, health, reflection, draining."""

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
from rowmint.observability.calls import Call, CallInterceptor, CallObserver, record_reason, wrap_handler
from rowmint.rpc import status
from rowmint.rpc.access import AccessInterceptor, Auditor, Authenticator, access_rules
from rowmint.rpc.call_limit import MAX_CONCURRENT_STREAMS, CallLimitInterceptor
from rowmint.rpc.field_limits import FieldLimitInterceptor
from rowmint.rpc.tls import server_credentials
from rowmint.security.tls_files import TlsFiles

_log = structlog.get_logger(__name__)

_IDLE_SECONDS = 0.25  # calls that were in transit when clients got GOAWAY have arrived by then


@dataclass(frozen=True)
class Service:
    """A gRPC service and how it is added to a server.

    Attributes:
        name: Full name, such as ``rowmint.v1.SamplingService``.
        register: Adds the servicer to a server.
        reflected: Whether reflection lists it; requires its descriptor in the default pool.
    """

    name: str
    register: Callable[[grpc.aio.Server], None]
    reflected: bool = True


@dataclass(frozen=True)
class ServerOptions:
    """Options of a server.

    Attributes:
        listen: ``host:port``; port 0 for a free one.
        grace_seconds: Time that running calls get to finish after SIGTERM.
        max_message_bytes: Maximum size of a received message.
        max_connection_age_seconds: Age at which a connection gets GOAWAY, so that clients reconnect and find new
            replicas; 0 for never.
        max_call_seconds: Time that a call may continue on a connection after GOAWAY; 0 for no limit.
        max_calls: Calls of Rowmint's own services served at once.
        shares_port: Whether other processes may listen on the same port.
    """

    listen: str
    grace_seconds: float = 10.0
    max_message_bytes: int = 4 * 1024 * 1024
    max_connection_age_seconds: float = 0.0
    max_call_seconds: float = 0.0
    max_calls: int = 2000
    shares_port: bool = False


@dataclass(frozen=True)
class ServerSecurity:
    """Transport security, authentication and audit of a server.

    Attributes:
        tls: Certificate and key files; None for no TLS.
        authenticator: Authenticates callers; None grants every caller every role.
        audit: Records every decision; None for no audit log.
        reauthorize_seconds: Pause between two checks that the caller of a running call may still make it; above 0.
    """

    tls: TlsFiles | None = None
    authenticator: Authenticator | None = None
    audit: Auditor | None = None
    reauthorize_seconds: float = 10.0


INSECURE = ServerSecurity()
"""No TLS and no authentication: for a server on a loopback address."""


class _RunningCalls:
    """Counts running calls of Rowmint's own services, all of which end by themselves. Observes one server."""

    def __init__(self) -> None:
        self._running = 0
        self._started = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def wait_idle(self, seconds: float) -> None:
        """Wait until no call has been running for `seconds`."""
        while True:
            await self._idle.wait()
            started = self._started
            await asyncio.sleep(seconds)
            if started == self._started:
                return

    def on_start(self, call: Call) -> None:
        """Count a call."""
        if call.method.startswith("rowmint."):
            self._running += 1
            self._started += 1
            self._idle.clear()

    def on_end(self, call: Call) -> None:
        """Stop counting a call."""
        if call.method.startswith("rowmint."):
            self._running -= 1
            if not self._running:
                self._idle.set()


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns domain errors into statuses, and all other exceptions into INTERNAL with an error id and no detail."""

    async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Wrap the handler of a call."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = str(handler_call_details.method)
        decode = _decoder(handler.request_deserializer)
        behaviors = partial(_converted_stream, method), partial(_converted_unary, method)
        return wrap_handler(handler, *behaviors, decode, handler.response_serializer)


class _UndecodableMessage:
    """Stands for bytes that cannot be decoded: gRPC would report an error of the deserializer as UNKNOWN."""


def _decoder(decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(body: bytes) -> Any:
        try:
            return decode(body)
        except DecodeError:
            return _UndecodableMessage()

    return read


class _DecodedMessages:
    """The messages of a request stream; raises at one that could not be decoded."""

    def __init__(self, messages: AsyncIterator[Any]) -> None:
        self._messages = messages  # not `aiter` of it, which would already start reading

    def __aiter__(self) -> "_DecodedMessages":
        return self

    async def __anext__(self) -> Any:
        return _decoded(await anext(self._messages))


def _decoded(request: Any) -> Any:
    if isinstance(request, _UndecodableMessage):
        error = RowmintError(
            "the request's bytes cannot be decoded as a message of the method's type; check the client's stubs"
        )
        error.reason = Reason.INVALID_FIELD  # without a field violation, as no field is known
        raise error
    return _DecodedMessages(request) if isinstance(request, AsyncIterator) else request


def _converted_unary(method: str, inner: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
    async def behavior(request: Any, context: Any) -> Any:
        try:
            return await inner(_decoded(request), context)
        except Exception as error:  # noqa: BLE001 - every exception must become a status
            await _abort(error, method, context)

    return behavior


def _converted_stream(
    method: str, inner: Callable[[Any, Any], AsyncGenerator[Any, None]]
) -> Callable[[Any, Any], AsyncIterator[Any]]:
    async def behavior(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async with aclosing(inner(_decoded(request), context)) as responses:
                async for response in responses:
                    yield response
        except Exception as error:  # noqa: BLE001 - every exception must become a status
            await _abort(error, method, context)

    return behavior


async def _abort(error: Exception, method: str, context: Any) -> None:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if not isinstance(error, RowmintError):
        error_id = uuid.uuid4().hex
        _log.error("call failed", method=method, error_id=error_id, exc_info=error)
        error = RowmintError(
            f"internal error of the service; ask its operator to look for error id {error_id} in its log",
            metadata={"error_id": error_id},
        )
    elif error.reason is Reason.DATA_LOSS:
        # The operator has to fix it. The message may quote damaged data, so only the caller gets it.
        _log.error("stored bytes are corrupt", method=method, metadata=error.metadata)
    record_reason(error.reason)
    found = status.to_status(error)
    _forget_frames(error)
    await context.abort(found.code, found.details, (*found.trailing_metadata, *status.trailers(error)))


def _forget_frames(error: BaseException) -> None:
    """Drop the frames that raised an error: gRPC keeps the last error of a call long after its end.

    In them are requests, and buffers of megabytes. They are not cleared, as calls that wait for the same thing may
    share an error, and with it frames that are still at work.
    """
    failed: BaseException | None = error
    seen: set[int] = set()  # an error that was kept and raised again may be the context of its own cause
    while failed is not None and id(failed) not in seen:
        seen.add(id(failed))
        failed.__traceback__ = None
        failed = failed.__cause__ or failed.__context__


class Server:
    """A gRPC server on one event loop.

    Args:
        services: Its services, beside health and reflection.
        options: Its options.
        observers: Observers of every call, health and reflection included.
        security: TLS, authentication and audit log.
        shed: Called with the reason whenever a call is refused because too many are running.

    Raises:
        ValueError: A method of Rowmint's services has no access rule.

    Attributes:
        port: The port it listens on; 0 before `start`.
    """

    def __init__(
        self,
        services: Sequence[Service],
        options: ServerOptions,
        observers: Sequence[CallObserver] = (),
        security: ServerSecurity = INSECURE,
        shed: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._options = options
        self._security = security
        self.port = 0
        self._names = [service.name for service in services]
        reflected = [service.name for service in services if service.reflected]
        self._health = HealthServicer()
        settings: list[tuple[str, Any]] = [
            # Unless requested, a second server must not silently bind the same port.
            ("grpc.so_reuseport", int(options.shares_port)),
            ("grpc.max_receive_message_length", options.max_message_bytes),
            ("grpc.max_concurrent_streams", MAX_CONCURRENT_STREAMS),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_permit_without_calls", 1),
        ]
        if options.max_connection_age_seconds > 0:
            settings.append(("grpc.max_connection_age_ms", int(options.max_connection_age_seconds * 1000)))
            if options.max_call_seconds > 0:
                settings.append(("grpc.max_connection_age_grace_ms", int(options.max_call_seconds * 1000)))
        self._calls = _RunningCalls()
        rules = access_rules([name for name in self._names if name.startswith("rowmint.")])
        # Observers are outermost, so that they see the status that the client gets.
        interceptors: list[grpc.aio.ServerInterceptor] = [
            CallInterceptor([self._calls, *observers]),
            ErrorInterceptor(),
        ]
        if security.authenticator is not None or security.audit is not None:
            interceptors.append(
                AccessInterceptor(
                    rules,
                    security.authenticator,
                    security.audit,
                    partial(asyncio.sleep, security.reauthorize_seconds),
                )
            )
        interceptors += [CallLimitInterceptor(options.max_calls, shed), FieldLimitInterceptor()]
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
            UnavailableError: The address cannot be bound, or a TLS file cannot be read.
            InvalidFieldError: A TLS file cannot be parsed.
        """
        tls = None if self._security.tls is None else server_credentials(self._security.tls)
        try:
            if tls is None:
                port = self._server.add_insecure_port(self._options.listen)
            else:
                port = self._server.add_secure_port(self._options.listen, tls)
        except RuntimeError as error:
            raise UnavailableError(
                f"cannot listen on {self._options.listen!r}; it must be a free host:port of this machine"
            ) from error
        await self._server.start()
        self.port = int(port)
        for name in ("", *self._names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return self.port

    async def report_not_serving(self) -> None:
        """Report NOT_SERVING to health checks; calls are still served."""
        await self._health.enter_graceful_shutdown()

    async def drain(self) -> None:
        """Refuse new calls, and let running calls finish within the grace period.

        Calls that do not end by themselves (health watches and load reports) are not waited for.
        """
        stopping = asyncio.create_task(self._server.stop(self._options.grace_seconds))
        idle = asyncio.create_task(self._calls.wait_idle(_IDLE_SECONDS))
        await asyncio.wait((stopping, idle), return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        await self._server.stop(None)
        await stopping

    async def stop(self) -> None:
        """Cancel every call immediately."""
        await self._server.stop(None)


async def serve_until_signal(
    server: Server,
    label: str,
    close: Callable[[], Awaitable[None]],
    on_second_signal: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal stops the server immediately.

    Args:
        server: The server.
        label: Name of the service in the log.
        close: Closes the rest of the process; started after the first signal, once the server reports NOT_SERVING, and
            awaited together with the draining of calls.
        on_second_signal: Called on the second signal; `close` is still awaited.
    """
    loop = asyncio.get_running_loop()
    signals = asyncio.Semaphore(0)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.release)
    port = await server.start()
    _log.info("serving", service=label, port=port)
    await signals.acquire()
    _log.info("draining", service=label)
    await server.report_not_serving()
    closed: asyncio.Future[Any] = asyncio.gather(close(), server.drain())
    second: asyncio.Future[bool] = asyncio.create_task(signals.acquire())
    waited: set[asyncio.Future[Any]] = {closed, second}
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    if not closed.done():
        on_second_signal()
        await server.stop()
    second.cancel()
    await asyncio.gather(closed, second, return_exceptions=True)
    _log.info("stopped", service=label)
