"""Every method with every role and a resource of another project: made of the contract's descriptors, over the wire.

The handlers here only note that they were reached; what real ones answer is in tests/acceptance/test_access.py.
"""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, empty_pb2
from google.protobuf.message_factory import GetMessageClass

from rowmint.errors import UnauthenticatedError, UnavailableError
from rowmint.rpc.access import access_rules
from rowmint.rpc.server import Server, ServerOptions, ServerSecurity, Service
from rowmint.security.identity import Identity, Role
from rowmint.v1 import (  # noqa: F401  # their descriptors are looked for in the default pool
    dataset_service_pb2,
    model_admin_service_pb2,
    model_service_pb2,
    sampling_service_pb2,
    training_service_pb2,
)
from tests.waiting import PATIENCE, wait_until

POOL = descriptor_pool.Default()
# What the two services offer; test_a_service_without_a_rule finds any that is missing here.
SERVICES = tuple(f"rowmint.v1.{name}Service" for name in ("Dataset", "ModelAdmin", "Model", "Sampling", "Training"))
METHODS = {
    f"{service}/{method.name}": method for service in SERVICES for method in POOL.FindServiceByName(service).methods
}
# Whom the tests call by which token. `mine` is their project, and `theirs` is another.
CALLERS = {
    "reader": Identity("reader", {"mine": Role.READER}),
    "trainer": Identity("trainer", {"mine": Role.TRAINER}),
    "admin": Identity("admin", {"mine": Role.ADMIN}),
    "reader of all": Identity("reader of all", {"*": Role.READER}),
    "admin of all": Identity("admin of all", {"*": Role.ADMIN}),
    "granted nothing": Identity("no roles are granted", {}),
    "mixed": Identity("mixed", {"mine": Role.ADMIN, "theirs": Role.READER}),
}
RANKS = {"READER": 1, "TRAINER": 2, "ADMIN": 3}
HELD = {  # by caller: rank in mine, rank in theirs
    "reader": (1, 0),
    "trainer": (2, 0),
    "admin": (3, 0),
    "reader of all": (1, 1),
    "admin of all": (3, 3),
    "granted nothing": (0, 0),
    "mixed": (3, 1),
}
# Written down once more, so that a change of the contract is seen for what it is.
ROLES = {
    "Dataset": "TRAINER",
    "ModelAdmin": "ADMIN",
    "Model": "READER",
    "Sampling": "READER",
    "Training": "TRAINER",
}


def resources_of(method: str) -> tuple[str, ...]:
    return access_rules(SERVICES)[method].resources


def request_of(method: str, **projects: str) -> object:
    """Return a request whose resources lie in projects: `first` is that of the first, `others` of the rest."""
    request = GetMessageClass(METHODS[method].input_type)()
    for index, path in enumerate(resources_of(method)):
        project = projects["first"] if index == 0 else projects.get("others", projects["first"])
        *parents, last = path.split(".")
        target = request
        for parent in parents:
            target = getattr(target, parent)
        setattr(target, last, f"projects/{project}/things/one")
    return request


@dataclass
class Gate:
    """A server of the whole contract whose handlers note that they were reached.

    Attributes:
        authenticator: Knows the callers.
        audit: Records decisions; None for none.
        endless: Whether streams of responses do not end after their one response.
        reauthorize_seconds: Pause between checks of running calls.
        reached: Methods in the order in which their handlers were reached.
    """

    authenticator: object
    audit: object = None
    endless: bool = False
    reauthorize_seconds: float = 10.0
    reached: list[str] = field(default_factory=list)

    def service(self, name: str) -> Service:
        handlers = {
            method.name: self._handler(f"{name}/{method.name}", method)
            for method in POOL.FindServiceByName(name).methods
        }

        def register(server: grpc.aio.Server) -> None:
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))

        return Service(name, register, reflected=True)

    def _handler(self, name: str, method: object) -> object:
        request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)

        async def reach(given):
            if method.client_streaming:
                async for _ in given:
                    self.reached.append(name)
            else:
                self.reached.append(name)

        async def one(given, context):
            await reach(given)
            return response()

        async def many(given, context):
            await reach(given)
            yield response()
            if self.endless:
                await asyncio.get_running_loop().create_future()

        kind = "_".join("stream" if way else "unary" for way in (method.client_streaming, method.server_streaming))
        handler = getattr(grpc, f"{kind}_rpc_method_handler")
        return handler(many if method.server_streaming else one, request.FromString, response.SerializeToString)

    async def __aenter__(self):
        self.server = Server(
            [self.service(name) for name in SERVICES],
            ServerOptions("127.0.0.1:0"),
            security=ServerSecurity(
                authenticator=self.authenticator, audit=self.audit, reauthorize_seconds=self.reauthorize_seconds
            ),
        )
        port = await self.server.start()
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        return self

    async def __aexit__(self, *_):
        self.channel.close()
        await self.server.stop()

    def stub(self, method: str):
        """Return what calls a method."""
        descriptor = METHODS[method]
        kind = "_".join(
            "stream" if way else "unary" for way in (descriptor.client_streaming, descriptor.server_streaming)
        )
        return getattr(self.channel, kind)(
            f"/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=bytes,
        )

    async def call(self, method: str, request, caller: str | None, requests=None) -> tuple[grpc.StatusCode, str]:
        """Call a method; return the status and what it says."""
        # From a thread: a client of grpc.aio that writes while its call is refused may report that as INTERNAL.
        return await asyncio.to_thread(self._call, method, requests or [request], caller)

    def _call(self, method: str, requests: Sequence[object], caller: str | None) -> tuple[grpc.StatusCode, str]:
        descriptor = METHODS[method]
        metadata = () if caller is None else (("authorization", caller),)
        sent = iter(requests) if descriptor.client_streaming else requests[0]
        try:
            answers = self.stub(method)(sent, metadata=metadata, timeout=10)
            if descriptor.server_streaming:
                for _ in answers:
                    pass
        except grpc.RpcError as error:
            return error.code(), error.details()
        return grpc.StatusCode.OK, ""


class ByToken:
    """Knows callers by what they send."""

    async def identify(self, authorization, certificate):
        if list(authorization) and authorization[0] in CALLERS:
            return CALLERS[authorization[0]]
        raise UnauthenticatedError("who are you?")


class Kept:
    """Keeps decisions in memory."""

    def __init__(self, full=False):
        self.entries = []
        self.full = full

    async def record(self, entry):
        if self.full:
            raise UnavailableError("the disk is full", retry_after=1.0)
        self.entries.append(entry)


def within(test, **options):
    async def run():
        async with Gate(ByToken(), **options) as gate:
            return await test(gate)

    return asyncio.run(run())


def test_every_service_of_the_contract_is_walked():
    from pathlib import Path

    from rowmint import v1

    stubs = {path.name for path in Path(v1.__path__[0]).glob("*_service_pb2.py")}
    files = {POOL.FindServiceByName(name).file.name.rpartition("/")[2] for name in SERVICES}
    assert {name.replace("_pb2.py", ".proto") for name in stubs} == files


def test_every_method_takes_the_role_of_its_service():
    found = {method: rule.role.name for method, rule in access_rules(SERVICES).items()}
    assert found == {method: ROLES[method.split("/")[0].split(".")[2].removesuffix("Service")] for method in METHODS}


def test_every_method_with_every_role_and_a_resource_of_another_project():
    cases = list(itertools.product(METHODS, CALLERS, ("mine", "theirs"), ("mine", "theirs")))
    cases = [case for case in cases if case[2] == case[3] or len(resources_of(case[0])) > 1]

    async def test(gate):
        answers = {}
        for method, caller, first, others in cases:
            gate.reached.clear()
            code, _ = await gate.call(method, request_of(method, first=first, others=others), caller)
            answers[method, caller, first, others] = code.name, bool(gate.reached)
        return answers

    def expected(method, caller, *projects):
        needed = RANKS[access_rules(SERVICES)[method].role.name]
        held = dict(zip(("mine", "theirs"), HELD[caller], strict=True))
        allowed = all(held[project] >= needed for project in projects)
        return ("OK", True) if allowed else ("PERMISSION_DENIED", False)

    assert within(test) == {case: expected(*case) for case in cases}
    assert len(cases) > 300


def test_an_unauthenticated_caller_reaches_no_method():
    async def test(gate):
        callers = (None, "", "unknown")
        calls = itertools.product(METHODS, callers)
        answers = [await gate.call(method, request_of(method, first="mine"), caller) for method, caller in calls]
        return set(answers), gate.reached

    assert within(test) == ({(grpc.StatusCode.UNAUTHENTICATED, "who are you?")}, [])


def test_a_request_that_names_nothing_is_refused_before_its_method():
    async def test(gate):
        empty = {
            method: await gate.call(method, GetMessageClass(METHODS[method].input_type)(), "admin of all")
            for method in METHODS
        }
        return empty, gate.reached

    empty, reached = within(test)
    assert reached == []
    for method, (code, details) in empty.items():
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert details.startswith(f"{resources_of(method)[0]}: is required")


@pytest.mark.parametrize(
    "name",
    [
        "projects/mine\n/things/one",
        "projects/Mine/things/one",
        "projects//things",
        "things/projects/mine",
        "projects/-/x",
    ],
)
def test_a_name_that_could_be_read_in_two_ways_is_not_a_name(name):
    async def test(gate):
        request = request_of("rowmint.v1.ModelService/GetModel", first="mine")
        request.name = name
        return (await gate.call("rowmint.v1.ModelService/GetModel", request, "admin of all"))[0], gate.reached

    assert within(test) == (grpc.StatusCode.INVALID_ARGUMENT, [])


@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].client_streaming])
def test_a_stream_cannot_switch_to_a_resource_of_another_project(method):
    mine, theirs = request_of(method, first="mine"), request_of(method, first="theirs")
    nothing = GetMessageClass(METHODS[method].input_type)()

    async def test(gate):
        code, _ = await gate.call(method, None, "admin", requests=[mine, nothing, mine, theirs, mine])
        return code, gate.reached

    assert within(test) == (grpc.StatusCode.PERMISSION_DENIED, [method] * 3)


@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].client_streaming])
def test_a_stream_that_sends_nothing_is_open_only_to_those_who_may_send_something(method):
    needed, kept = RANKS[access_rules(SERVICES)[method].role.name], Kept()
    callers = [caller for caller, held in HELD.items() if max(held) < needed]

    def open_silently(gate, caller):
        silent = threading.Event()
        try:
            # Requests are drawn in a thread of the client's own.
            call = getattr(gate.stub(method), "future", gate.stub(method))(
                iter(silent.wait, True), metadata=(("authorization", caller),), timeout=PATIENCE
            )
            return call.code()
        finally:
            silent.set()

    async def test(gate):
        return [await asyncio.to_thread(open_silently, gate, caller) for caller in callers], gate.reached

    assert within(test, audit=kept) == ([grpc.StatusCode.PERMISSION_DENIED] * len(callers), [])
    assert [(entry.decision, entry.resource) for entry in kept.entries] == [("denied", "")] * len(callers)
    assert "granted nothing" in callers


def test_every_decision_is_kept_before_it_takes_effect():
    kept = Kept()
    method = "rowmint.v1.ModelService/GetModel"

    async def test(gate):
        for caller, project in (("reader", "mine"), ("reader", "theirs"), (None, "mine")):
            await gate.call(method, request_of(method, first=project), caller)

    within(test, audit=kept)
    reported = [(entry.caller, entry.method, entry.resource, entry.decision, entry.reason) for entry in kept.entries]
    assert reported == [
        ("reader", method, "projects/mine/things/one", "allowed", ""),
        ("reader", method, "projects/theirs/things/one", "denied", "PERMISSION_DENIED"),
        ("unauthenticated", method, "", "unauthenticated", "UNAUTHENTICATED"),
    ]
    assert len({entry.request_id for entry in kept.entries}) == 3


STREAMING = [name for name in METHODS if METHODS[name].client_streaming or METHODS[name].server_streaming]


class Revocable:
    """Knows one caller, until that is revoked."""

    def __init__(self):
        self.revoked = False

    async def identify(self, authorization, certificate):
        if self.revoked:
            raise UnauthenticatedError("revoked")
        return CALLERS["admin"]


@pytest.mark.parametrize("method", STREAMING)
def test_every_running_stream_ends_when_its_caller_is_revoked(method):
    known, kept = Revocable(), Kept()

    def revoke_while_it_runs(gate):
        ended = threading.Event()

        def silent_after_one():
            yield request_of(method, first="mine")
            ended.wait()

        client_streams, server_streams = METHODS[method].client_streaming, METHODS[method].server_streaming
        sent = silent_after_one() if client_streams else request_of(method, first="mine")
        stub = gate.stub(method)
        call = stub(sent, timeout=PATIENCE) if server_streams else stub.future(sent, timeout=PATIENCE)
        try:
            wait_until(lambda: gate.reached == [method], "the handler")
            known.revoked = True
            with pytest.raises(grpc.RpcError):
                list(call) if server_streams else call.result()
        finally:
            ended.set()
        return call.code(), call.details(), dict(call.trailing_metadata())["grpc-retry-pushback-ms"]

    async def test():
        async with Gate(known, audit=kept, endless=True, reauthorize_seconds=0.01) as gate:
            return await asyncio.to_thread(revoke_while_it_runs, gate)

    # It may be resumed at once, with other credentials.
    assert asyncio.run(test()) == (grpc.StatusCode.UNAUTHENTICATED, "revoked", "1000")
    assert [(entry.caller, entry.resource, entry.decision) for entry in kept.entries] == [
        ("admin", "projects/mine/things/one", "allowed"),
        ("admin", "projects/mine/things/one", "unauthenticated"),
    ]


def test_a_call_that_cannot_be_audited_is_refused():
    async def test(gate):
        code, details = await gate.call(
            "rowmint.v1.ModelService/GetModel", request_of("rowmint.v1.ModelService/GetModel", first="mine"), "reader"
        )
        return code, details, gate.reached

    assert within(test, audit=Kept(full=True)) == (grpc.StatusCode.UNAVAILABLE, "the disk is full", [])


def test_too_many_entries_are_refused_once_the_caller_is_known():
    method = "rowmint.v1.DatasetService/CreateDataset"
    kept = Kept()

    async def test(gate):
        request = request_of(method, first="mine")
        request.dataset.format.csv.null_values.extend(["-"] * 101)
        found = [await gate.call(method, request, caller) for caller in (None, "trainer")]
        return [code for code, _ in found], found[1][1], gate.reached

    codes, details, reached = within(test, audit=kept)
    assert codes == [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.INVALID_ARGUMENT]
    assert details == "dataset.format.csv.null_values: has 101 entries; at most 100"
    assert reached == []
    assert [entry.decision for entry in kept.entries] == ["unauthenticated", "allowed"]


def test_a_method_without_a_rule_lets_no_server_start():
    file = descriptor_pb2.FileDescriptorProto(
        name="rowmint_test/lawless.proto", package="rowmint_test", syntax="proto3"
    )
    file.dependency.append(empty_pb2.DESCRIPTOR.name)
    service = file.service.add(name="Lawless")
    service.method.add(name="Do", input_type=".google.protobuf.Empty", output_type=".google.protobuf.Empty")
    POOL.AddSerializedFile(file.SerializeToString())
    with pytest.raises(ValueError, match=r"rowmint_test\.Lawless\.Do has no access rule"):
        access_rules(["rowmint_test.Lawless"])


def test_a_service_without_a_rule_is_served_to_no_caller():
    async def echo(request, context):
        return request

    handlers = {"Do": grpc.unary_unary_rpc_method_handler(echo)}
    generic = grpc.method_handlers_generic_handler("other.Service", handlers)
    other = Service("other.Service", lambda server: server.add_generic_rpc_handlers((generic,)), reflected=False)

    async def run():
        server = Server([other], ServerOptions("127.0.0.1:0"), security=ServerSecurity(authenticator=ByToken()))
        port = await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                await channel.unary_unary("/other.Service/Do")(
                    b"", metadata=(("authorization", "admin of all"),), timeout=10
                )
        finally:
            await server.stop()

    with pytest.raises(grpc.aio.AioRpcError) as failure:
        asyncio.run(run())
    assert failure.value.code() is not grpc.StatusCode.OK


def test_health_is_served_to_every_caller_and_reflection_to_authenticated_ones():
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    async def test(gate):
        return await asyncio.to_thread(ask, gate.channel)

    def ask(channel):
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        codes = []
        for caller in (None, "granted nothing"):
            metadata = () if caller is None else (("authorization", caller),)
            requested = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
                iter([reflection_pb2.ServerReflectionRequest(list_services="")]), metadata=metadata, timeout=10
            )
            with contextlib.suppress(grpc.RpcError):
                list(requested)
            codes.append(requested.code().name)
        return health.status, codes

    assert within(test) == (1, ["UNAUTHENTICATED", "OK"])
