"""Connections that outlive what they began with: an expired certificate, and the age at which they are renewed."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import grpc

from rowmint.rpc.server import Server, ServerOptions, ServerSecurity, Service
from rowmint.security.access_file import AccessFile, grant_certificate
from rowmint.security.authenticator import Authenticator
from rowmint.security.certificates import issue_certificate, make_authority
from rowmint.security.identity import Role
from rowmint.security.tls_files import TlsFiles
from rowmint.v1 import model_service_pb2, model_service_pb2_grpc
from tests.waiting import PATIENCE, wait_until


class Models(model_service_pb2_grpc.ModelServiceServicer):
    async def ListModels(self, request, context):  # noqa: N802  # the contract's name
        return model_service_pb2.ListModelsResponse()


def serving(service, options, security, ask):
    """Serve, and return what a function of the port returns."""

    async def run():
        server = Server([service], options, security=security)
        port = await server.start()
        try:
            return await asyncio.to_thread(ask, port)
        finally:
            await server.stop()

    return asyncio.run(run())


def test_a_certificate_is_refused_once_it_has_expired_on_a_connection_that_is_still_open(tmp_path):
    now = datetime.now(UTC)
    authority = make_authority("tests", now)
    server = issue_certificate(authority, "server", now, hosts=["localhost"])
    client = issue_certificate(authority, "ada", now, days=2)
    contents = {"ca.pem": authority.certificate, "server.pem": server.certificate, "key.pem": server.key}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    grant_certificate(tmp_path / "access.json", "ada", {"mine": Role.READER})
    clock = [now]
    security = ServerSecurity(
        TlsFiles(tmp_path / "server.pem", tmp_path / "key.pem", tmp_path / "ca.pem"),
        Authenticator(AccessFile(tmp_path / "access.json"), None, lambda: clock[0]),
    )
    service = Service(
        "rowmint.v1.ModelService",
        lambda server: model_service_pb2_grpc.add_ModelServiceServicer_to_server(Models(), server),
    )

    def ask(port):
        shown = grpc.ssl_channel_credentials(authority.certificate, client.key, client.certificate)
        with grpc.secure_channel(f"localhost:{port}", shown) as channel:
            stub = model_service_pb2_grpc.ModelServiceStub(channel)
            answers = []
            for days in (0, 1, 3, 0):
                clock[0] = now + timedelta(days=days)
                try:
                    stub.ListModels(model_service_pb2.ListModelsRequest(parent="projects/mine"), timeout=PATIENCE)
                    answers.append("OK")
                except grpc.RpcError as error:
                    answers.append(error.details().partition(" at ")[0])
            return answers

    expected = ["OK", "OK", "the client certificate expired", "OK"]
    assert serving(service, ServerOptions("127.0.0.1:0"), security, ask) == expected


def test_connections_are_renewed_and_a_stream_that_runs_is_not_ended_by_that():
    async def peer(request, context):
        return context.peer().encode()

    async def count(requests, context):
        return str(len([one async for one in requests])).encode()

    handlers = {
        "Peer": grpc.unary_unary_rpc_method_handler(peer, bytes),
        "Count": grpc.stream_unary_rpc_method_handler(count, bytes),
    }
    generic = grpc.method_handlers_generic_handler("other.Service", handlers)
    service = Service("other.Service", lambda server: server.add_generic_rpc_handlers((generic,)), reflected=False)

    def ask(port):
        renewed = threading.Event()

        def upload():
            yield b"first"
            renewed.wait(PATIENCE)
            yield b"last"

        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            counted = channel.stream_unary("/other.Service/Count").future(upload(), timeout=PATIENCE)
            call = channel.unary_unary("/other.Service/Peer")
            first = call(b"", timeout=PATIENCE, wait_for_ready=True)
            wait_until(lambda: call(b"", timeout=PATIENCE, wait_for_ready=True) != first, "another connection")
            renewed.set()
            return counted.result()

    assert serving(service, ServerOptions("127.0.0.1:0", max_connection_age_seconds=0.2), ServerSecurity(), ask) == b"2"
