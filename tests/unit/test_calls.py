"""What observers of a server's calls get, and what the metrics of gRFC A66 make of it."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import grpc
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from rowmint.errors import ChecksumError, DataLossError, ResourceNotFoundError
from rowmint.observability.call_log import CallLog
from rowmint.observability.calls import Call, _HandlerOutcome
from rowmint.observability.metrics import CallMetrics
from rowmint.rpc.server import Server, ServerOptions, Service
from tests.unended import unended
from tests.waiting import PATIENCE

SERVICE = "test.Echo"
KINDS = {
    "UnaryUnary": grpc.unary_unary_rpc_method_handler,
    "UnaryStream": grpc.unary_stream_rpc_method_handler,
    "StreamUnary": grpc.stream_unary_rpc_method_handler,
    "StreamStream": grpc.stream_stream_rpc_method_handler,
}


class Echo:
    """Answers with what it is sent, three times where it streams, and does what the first byte says."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.closed = asyncio.Event()

    async def _obey(self, order: bytes, context) -> None:
        self.begun.set()
        if order == b"abort":
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, "it exists")
        if order == b"domain":
            raise ResourceNotFoundError("there is none")
        if order == b"damaged":
            raise DataLossError(
                "the codec of 'salary' is malformed", metadata={"name": "projects/p/models/m/versions/1"}
            )
        if order == b"checksum":
            raise ChecksumError("it does not match")
        if order == b"fault":
            raise ZeroDivisionError
        if order == b"set":
            context.set_code(grpc.StatusCode.DATA_LOSS)
        if order == b"wait":
            try:
                await asyncio.Event().wait()
            finally:
                self.closed.set()

    async def unary_unary(self, request: bytes, context) -> bytes:
        await self._obey(request, context)
        return request

    async def stream_unary(self, requests, context) -> bytes:
        joined = b""
        async for request in requests:
            await self._obey(request, context)
            joined += request
        return joined

    async def unary_stream(self, request: bytes, context):
        await self._obey(request, context)
        for _ in range(3):
            yield request

    async def stream_stream(self, requests, context):
        async for request in requests:
            await self._obey(request, context)
            yield request

    async def writes(self, request: bytes, context) -> None:
        await self._obey(request, context)
        for _ in range(3):
            await context.write(request)

    async def floods(self, request: bytes, context):
        self.begun.set()
        try:
            while True:
                yield bytes(1 << 20)
        finally:
            self.closed.set()

    def register(self, server: grpc.aio.Server) -> None:
        handlers = {
            "UnaryUnary": KINDS["UnaryUnary"](self.unary_unary, bytes),
            "StreamUnary": KINDS["StreamUnary"](self.stream_unary, bytes),
            "UnaryStream": KINDS["UnaryStream"](self.unary_stream, bytes),
            "StreamStream": KINDS["StreamStream"](self.stream_stream, bytes, bytes),
            "Writes": KINDS["UnaryStream"](self.writes, bytes),
            "Floods": KINDS["UnaryStream"](self.floods, bytes),
            "Unreadable": KINDS["UnaryUnary"](self.unary_unary, _refuse),
            "Unwritable": KINDS["UnaryUnary"](self.unary_unary, bytes, _refuse),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


def _refuse(_: object) -> bytes:
    raise ValueError("not these")


class Reported:
    """Keeps every call that is reported to it."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.open = 0
        self.changed = asyncio.Event()

    def on_start(self, call: Call) -> None:
        self.open += 1

    def on_end(self, call: Call) -> None:
        self.open -= 1
        self.calls.append(call)
        self.changed.set()

    async def ends(self, count: int) -> list[Call]:
        while len(self.calls) < count:
            self.changed.clear()
            await self.changed.wait()
        return self.calls


class World:
    """A server with its observers, and a channel to it."""

    def __init__(self) -> None:
        self.echo = Echo()
        self.reported = Reported()
        self.registry = CollectorRegistry()
        self.observers = [CallMetrics(self.registry), self.reported, CallLog()]

    def call(self, method: str, **options) -> object:
        kind = {
            "Writes": "UnaryStream",
            "Floods": "UnaryStream",
            "Unreadable": "UnaryUnary",
            "Unwritable": "UnaryUnary",
        }
        name = kind.get(method, method if method in KINDS else "UnaryUnary")
        made = {
            "UnaryUnary": self.channel.unary_unary,
            "UnaryStream": self.channel.unary_stream,
            "StreamUnary": self.channel.stream_unary,
            "StreamStream": self.channel.stream_stream,
        }[name]
        return made(f"/{SERVICE}/{method}")

    def value(self, name: str, **labels) -> float:
        return self.registry.get_sample_value(f"grpc_server_call_{name}", labels) or 0.0


def within(test: Callable[[World], Awaitable[None]]) -> None:
    """Run a test against a server of its own."""

    async def bounded() -> None:
        world = World()
        server = Server(
            [Service(SERVICE, world.echo.register, reflected=False)], ServerOptions("127.0.0.1:0"), world.observers
        )
        async with asyncio.timeout(PATIENCE):
            port = await server.start()
            try:
                async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as world.channel:
                    await test(world)
            finally:
                await server.stop()
            assert world.reported.open == 0

    asyncio.run(bounded())


async def code_of(call) -> grpc.StatusCode:
    """Wait for the end of a call, its responses read, and return its status."""
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return await call.code()


async def sent(*messages: bytes):
    for message in messages:
        yield message


@pytest.mark.parametrize("method", [*KINDS, "Writes"])
@pytest.mark.parametrize(
    ("order", "status"),
    [
        (b"ok", "OK"),
        (b"abort", "ALREADY_EXISTS"),
        (b"domain", "NOT_FOUND"),
        (b"fault", "INTERNAL"),
        (b"set", "DATA_LOSS"),
    ],
)
def test_the_status_is_the_one_that_the_client_gets(method, order, status):
    async def test(world):
        stream = sent if order in {b"ok", b"set"} else unended
        request = stream(order) if method.startswith("Stream") else order
        assert (await code_of(world.call(method)(request))).name == status
        (call,) = await world.reported.ends(1)
        assert (call.method, call.status) == (f"{SERVICE}/{method}", status)
        assert call.seconds >= 0
        labels = {"grpc_method": f"{SERVICE}/{method}"}
        assert world.value("started_total", **labels) == 1
        assert world.value("duration_seconds_count", **labels, grpc_status=status) == 1

    within(test)


def test_messages_are_counted_by_the_bytes_they_have_on_the_wire():
    async def test(world):
        assert [answer async for answer in world.call("StreamStream")(sent(b"12345", b"", b"678"))] == [
            b"12345",
            b"",
            b"678",
        ]
        (call,) = await world.reported.ends(1)
        assert (call.received, call.received_bytes, call.sent, call.sent_bytes) == (3, 8, 3, 8)
        assert [answer async for answer in world.call("UnaryStream")(b"four")] == [b"four"] * 3
        labels = {"grpc_method": f"{SERVICE}/UnaryStream", "grpc_status": "OK"}
        await world.reported.ends(2)
        assert world.value("sent_total_compressed_message_size_bytes_sum", **labels) == 12
        assert world.value("rcvd_total_compressed_message_size_bytes_sum", **labels) == 4
        assert world.value("sent_total_compressed_message_size_bytes_count", **labels) == 1

    within(test)


@pytest.mark.parametrize("method", [*KINDS, "Writes"])
def test_a_call_that_the_client_gives_up_is_cancelled(method):
    async def test(world):
        call = world.call(method)(sent(b"wait") if method.startswith("Stream") else b"wait")
        reading = asyncio.create_task(code_of(call))
        await world.echo.begun.wait()
        call.cancel()
        await world.echo.closed.wait()
        (reported,) = await world.reported.ends(1)
        assert reported.status == "CANCELLED"
        # gRPC reports a reader's own cancel as that of the task.
        await asyncio.gather(reading, return_exceptions=True)

    within(test)


def test_an_abandoned_stream_is_closed_and_cancelled():
    async def test(world):
        call = world.call("Floods")(b"")
        assert len(await call.read()) == 1 << 20
        call.cancel()
        await world.echo.closed.wait()
        (reported,) = await world.reported.ends(1)
        assert reported.status == "CANCELLED"
        assert reported.sent_bytes >= 1 << 20

    within(test)


def test_a_call_whose_time_is_over_says_so():
    async def test(world):
        assert (await code_of(world.call("UnaryStream")(b"wait", timeout=1))) is grpc.StatusCode.DEADLINE_EXCEEDED
        (reported,) = await world.reported.ends(1)
        # The client, whose time is over first, cancels the call.
        assert reported.status in {"DEADLINE_EXCEEDED", "CANCELLED"}

    within(test)


@pytest.mark.parametrize(("left", "status"), [(0.0, "DEADLINE_EXCEEDED"), (0.1, "CANCELLED"), (None, "CANCELLED")])
def test_a_handler_that_is_cancelled_when_the_time_is_over_has_run_out_of_time(left, status):
    outcome = _HandlerOutcome()
    outcome.context = SimpleNamespace(code=lambda: None, time_remaining=lambda: left)
    with pytest.raises(asyncio.CancelledError), outcome.capturing_error():
        raise asyncio.CancelledError
    assert outcome.status() == status


def test_a_client_that_leaves_before_its_request_arrives_is_counted():
    async def test(world):
        arrived = asyncio.Event()

        async def late():
            arrived.set()
            await asyncio.Event().wait()
            yield b""

        # A unary handler for a client that streams: its one request never comes.
        call = world.channel.stream_unary(f"/{SERVICE}/UnaryUnary")(late())
        await arrived.wait()
        while not world.reported.open:  # noqa: ASYNC110 - `within` sets the bound
            await asyncio.sleep(0.005)
        call.cancel()
        (reported,) = await world.reported.ends(1)
        assert (reported.status, reported.received) == ("CANCELLED", 0)

    within(test)


def test_unknown_methods_are_counted_as_other():
    async def test(world):
        for name in ("/test.Echo/Nothing", "/secret-4711/Thing"):
            assert (await code_of(world.channel.unary_unary(name)(b"x"))) is grpc.StatusCode.UNIMPLEMENTED
        assert [(call.method, call.status) for call in await world.reported.ends(2)] == [("other", "UNIMPLEMENTED")] * 2
        assert world.value("started_total", grpc_method="other") == 2
        assert "secret-4711" not in str(list(world.registry.collect()))

    within(test)


@pytest.mark.parametrize("method", ["Unreadable", "Unwritable"])
def test_bytes_that_no_codec_takes_are_unknown(method, caplog):
    async def test(world):
        assert (await code_of(world.call(method)(b"x"))) is grpc.StatusCode.UNKNOWN
        (reported,) = await world.reported.ends(1)
        assert reported.status == "UNKNOWN"

    within(test)


def test_health_checks_are_calls_too():
    async def test(world):
        stub = health_pb2_grpc.HealthStub(world.channel)
        assert (await stub.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
        watching = stub.Watch(health_pb2.HealthCheckRequest())
        assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING
        watching.cancel()
        reported = {call.method: call.status for call in await world.reported.ends(2)}
        assert reported == {"grpc.health.v1.Health/Check": "OK", "grpc.health.v1.Health/Watch": "CANCELLED"}

    within(test)


@pytest.mark.parametrize("method", [*KINDS, "Writes"])
def test_a_call_that_fails_says_why(method):
    async def test(world):
        with structlog.testing.capture_logs() as lines:
            for order in (b"ok", b"domain", b"abort", b"fault", b"damaged", b"checksum"):
                await code_of(world.call(method)(sent(order) if method.startswith("Stream") else order))
            reported = await world.reported.ends(6)
        reasons = ["", "RESOURCE_NOT_FOUND", "", "INTERNAL", "DATA_LOSS", "CHECKSUM"]
        assert [call.reason for call in reported] == reasons
        calls = [line for line in lines if line["event"] == "call"]
        assert [line.get("reason", "") for line in calls] == reasons

    within(test)


def test_stored_bytes_that_are_damaged_are_logged_by_their_names_alone():
    async def test(world):
        with structlog.testing.capture_logs() as lines:
            for order in (b"damaged", b"checksum"):
                await code_of(world.call("UnaryUnary")(order))
            await world.reported.ends(2)
        (damaged,) = [line for line in lines if line["log_level"] == "error"]
        assert damaged == {
            "event": "stored bytes are corrupt",
            "log_level": "error",
            "method": f"/{SERVICE}/UnaryUnary",
            "metadata": {"name": "projects/p/models/m/versions/1"},
        }
        assert "salary" not in str(lines)

    within(test)


def test_a_call_writes_a_line_and_its_request_id_goes_with_every_event():
    async def test(world):
        with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
            await code_of(world.call("UnaryUnary")(b"ok", metadata=(("x-request-id", "id-1"),)))
            await code_of(world.call("UnaryUnary")(b"domain", metadata=(("x-request-id", "has a text"),)))
            await code_of(world.call("UnaryUnary")(b"fault", metadata=(("x-request-id", "id-3"),)))
            await world.reported.ends(3)
        calls = [line for line in lines if line["event"] == "call"]
        assert [line["log_level"] for line in calls] == ["debug", "info", "info"]
        assert [line["status"] for line in calls] == ["OK", "NOT_FOUND", "INTERNAL"]
        given, made, last = [line["request_id"] for line in calls]
        assert (given, last) == ("id-1", "id-3")
        assert re.fullmatch("[0-9a-f]{32}", made)
        (fault,) = [line for line in lines if line["event"] == "call failed"]
        assert fault["request_id"] == "id-3"

    within(test)
