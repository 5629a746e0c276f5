"""Which credentials get a call and a scrape, with every kind of server that the settings can make.

What decides is TLS, mutual TLS, access file and token keys; addresses decide only whether a service starts
(tests/unit/test_security_combinations.py).
"""

import asyncio
import http.client
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
import structlog
from prometheus_client import CollectorRegistry

from rowmint.observability.exporter import serve_metrics
from rowmint.rpc.server import Server, ServerOptions, Service
from rowmint.rpc.server_security import scraper_authorization, server_security
from rowmint.security.access_file import create_key, grant_certificate
from rowmint.security.certificates import issue_certificate, make_authority
from rowmint.security.identity import Role
from rowmint.v1 import model_service_pb2, model_service_pb2_grpc
from tests.unit.signed_tokens import private, public_pem, signed
from tests.unit.test_security_combinations import COMBINATIONS, LOOPBACK, OUTSIDE, Combination, promised_start
from tests.waiting import PATIENCE
from trainer_service.settings import TrainerSettings

GRANTED = {"*": Role.READER}
# One of each kind that the settings accept, on loopback; with metrics where they can be had.
KINDS = [
    given
    for given in COMBINATIONS
    if (given.listen, given.insecure) == (LOOPBACK, False)
    and promised_start(given)
    and given.metrics == ("" if given.client_ca and not given.access_file else LOOPBACK)
]


@dataclass(frozen=True)
class Folder:
    """Files of a server and its callers.

    Attributes:
        given: Arguments of `Combination.settings`.
        authority: PEM file of the authority of all certificates.
        pairs: PEM files of certificate and key, by whose they are: `server`, `unknown`, `granted`, `narrow`.
        bearer: What each kind of bearer credential is.
    """

    given: dict[str, object]
    authority: str
    pairs: dict[str, tuple[str, str]]
    bearer: dict[str, str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("combinations")
    now = datetime.now(UTC)
    authority = make_authority("tests", now)
    (root / "ca.pem").write_bytes(authority.certificate)
    pairs = {}
    for name in ("server", "unknown", "granted", "narrow"):
        made = issue_certificate(authority, name, now, hosts=["localhost"] if name == "server" else [])
        pairs[name] = str(root / f"{name}.pem"), str(root / f"{name}-key.pem")
        (root / f"{name}.pem").write_bytes(made.certificate)
        (root / f"{name}-key.pem").write_bytes(made.key)
    key, _ = create_key(root / "access.json", "key", GRANTED, now)
    grant_certificate(root / "access.json", "granted", GRANTED)
    grant_certificate(root / "access.json", "narrow", {"mine": Role.ADMIN})
    (root / "keys.pem").write_bytes(public_pem(private("EdDSA")))
    token = signed(private("EdDSA"), "EdDSA", exp=now.timestamp() + 3600, iat=now.timestamp(), rowmint={"*": "reader"})
    given = {
        "tls": dict(zip(("tls_certificate", "tls_key"), pairs["server"], strict=True)),
        "client_ca": str(root / "ca.pem"),
        "access_file": str(root / "access.json"),
        "jwt_keys": str(root / "keys.pem"),
    }
    return Folder(given, str(root / "ca.pem"), pairs, {"key": key, "token": token})


class Models(model_service_pb2_grpc.ModelServiceServicer):
    async def ListModels(self, request, context):  # noqa: N802  # the contract's name
        return model_service_pb2.ListModelsResponse()


def model_list(folder, given, port, shown, bearer):
    """Call a server with a certificate, or none, and a bearer credential, or none; return the status."""
    target = f"localhost:{port}"
    if given.tls:
        pair = (None, None) if shown is None else [Path(path).read_bytes() for path in folder.pairs[shown]]
        credentials = grpc.ssl_channel_credentials(Path(folder.authority).read_bytes(), pair[1], pair[0])
        channel = grpc.secure_channel(target, credentials)
    else:
        channel = grpc.insecure_channel(target)
    metadata = () if bearer is None else (("authorization", f"Bearer {folder.bearer[bearer]}"),)
    with channel:
        try:
            model_service_pb2_grpc.ModelServiceStub(channel).ListModels(
                model_service_pb2.ListModelsRequest(parent="projects/theirs"), metadata=metadata, timeout=PATIENCE
            )
        except grpc.RpcError as error:
            return error.code().name
    return "OK"


def scrape(folder, given, port, shown):
    """Scrape with a certificate, or none; return the HTTP status, or 0 where the connection is refused."""
    if given.tls:
        context = ssl.create_default_context(cafile=folder.authority)
        if shown is not None:
            context.load_cert_chain(*folder.pairs[shown])
        connection = http.client.HTTPSConnection("localhost", port, timeout=PATIENCE, context=context)
    else:
        connection = http.client.HTTPConnection("localhost", port, timeout=PATIENCE)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


SHOWN = (None, "unknown", "granted", "narrow")
BEARERS = (None, "key", "token")


def promised_call(given, shown, bearer):
    """Return the status of a call of a reader's method in another project than `narrow` has, as the page has it."""
    if given.client_ca and shown is None:
        return "UNAVAILABLE"  # no handshake
    if not (given.access_file or given.jwt):
        return "OK"
    if bearer is not None:  # decides alone
        return "OK" if (given.access_file if bearer == "key" else given.jwt) else "UNAUTHENTICATED"
    if not (given.client_ca and given.access_file):
        return "UNAUTHENTICATED"  # a certificate is looked at under mutual TLS only
    return {"unknown": "UNAUTHENTICATED", "granted": "OK", "narrow": "PERMISSION_DENIED"}[shown]


def promised_scrape(given, shown):
    if not given.client_ca:
        return 200
    return {None: 0, "unknown": 403, "granted": 200, "narrow": 403}[shown]


def test_there_is_one_of_each_kind():
    assert sorted((given.tls, given.client_ca, given.access_file, given.jwt) for given in KINDS) == sorted(
        (tls, client_ca, access_file, jwt)
        for tls, client_ca in ((False, False), (True, False), (True, True))
        for access_file in (False, True)
        for jwt in (False, True)
        if not client_ca or access_file or jwt
    )


@pytest.mark.parametrize("given", KINDS, ids=str)
def test_credentials_get_the_calls_and_scrapes_that_the_page_promises(folder, given):
    settings = TrainerSettings(**given.settings(**folder.given))
    calls = [(shown, bearer) for shown in (SHOWN if given.tls else (None,)) for bearer in BEARERS]
    shown_to_metrics = SHOWN if given.tls else (None,)

    def ask(port):
        found = {call: model_list(folder, given, port, *call) for call in calls}
        if not given.metrics:
            return found, {}
        metrics = serve_metrics(
            settings.metrics_listen, CollectorRegistry(), settings.tls_files, scraper_authorization(settings)
        )
        try:
            return found, {shown: scrape(folder, given, metrics.port, shown) for shown in shown_to_metrics}
        finally:
            metrics.close()

    async def serve():
        service = Service(
            "rowmint.v1.ModelService",
            lambda server: model_service_pb2_grpc.add_ModelServiceServicer_to_server(Models(), server),
        )
        with server_security(settings, "trainer", lambda: datetime.now(UTC)) as security:
            server = Server([service], ServerOptions(settings.listen), security=security)
            port = await server.start()
            try:
                return await asyncio.to_thread(ask, port)
            finally:
                await server.stop()

    assert asyncio.run(serve()) == (
        {call: promised_call(given, *call) for call in calls},
        {shown: promised_scrape(given, shown) for shown in shown_to_metrics} if given.metrics else {},
    )


def test_without_an_access_file_no_certificate_scrapes_even_where_the_settings_are_passed_by(folder):
    given = Combination(tls=True, client_ca=True, jwt=True)
    may_scrape = scraper_authorization(TrainerSettings(**given.settings(**folder.given)))
    assert [may_scrape([name]) for name in ("", "granted", "prometheus")] == [False] * 3


@pytest.mark.parametrize(
    ("given", "warned"),
    [
        (Combination(access_file=True, insecure=True, listen=OUTSIDE), True),
        (Combination(access_file=True, insecure=True, listen=OUTSIDE, tls=True), False),
        (Combination(access_file=True), False),
        (Combination(insecure=True, listen=OUTSIDE), False),
    ],
    ids=str,
)
def test_credentials_in_plain_text_beyond_loopback_are_warned_of(folder, given, warned):
    settings = TrainerSettings(**given.settings(**folder.given))
    with structlog.testing.capture_logs() as lines, server_security(settings, "trainer", lambda: datetime.now(UTC)):
        pass
    expected = ["credentials cross the network in plain text: TLS is not set"] if warned else []
    assert [line["event"] for line in lines] == expected
