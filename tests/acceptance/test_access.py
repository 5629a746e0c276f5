"""Real services over mutual TLS authenticate and authorize calls; others learn nothing of a project."""

import json
import os
import re
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pyarrow as pa
import pytest
from google.api import annotations_pb2
from google.protobuf.message_factory import GetMessageClass

from rowmint.client import Client, Credentials, RetryPolicy, RowmintCallError
from rowmint.security.access_file import create_key, grant_certificate, revoke_key
from rowmint.security.certificates import CertificateAndKey, issue_certificate, make_authority
from rowmint.security.identity import Role
from tests.acceptance.processes import ServiceProcess, Services, customers_csv, refused_start
from tests.integration.test_access import METHODS, resources_of
from tests.waiting import PATIENCE, wait_until

ONCE = RetryPolicy(attempts=1, unary_attempts=1)
HERE = ("localhost", "127.0.0.1")
# Names that the HTTP annotations do not show.
PATTERNS = {
    ("rowmint.v1.DatasetService/WriteDataset", "name"): "projects/*/datasets/*",
    ("rowmint.v1.SamplingService/CompleteRows", "config.model"): "projects/*/models/*",
    ("rowmint.v1.SamplingService/ScoreRows", "config.model"): "projects/*/models/*",
    ("rowmint.v1.TrainingService/CreateTrainingJob", "training_job.dataset"): "projects/*/datasets/*",
    ("rowmint.v1.TrainingService/CreateTrainingJob", "training_job.model"): "projects/*/models/*",
}


def now() -> datetime:
    return datetime.now(UTC)


def pattern_of(method: str, path: str) -> str:
    """Return the form of the name in a field of a method's request, such as ``projects/*/datasets/*``."""
    if (method, path) in PATTERNS:
        return PATTERNS[method, path]
    rule = METHODS[method].GetOptions().Extensions[annotations_pb2.http]
    template = getattr(rule, rule.WhichOneof("pattern"))
    return re.search(r"\{" + re.escape(path) + r"=([^}]*)\}", template)[1]


def request_of(method: str, project: str, last: str) -> object:
    """Return a request about resources of a project that all bear one id."""
    request = GetMessageClass(METHODS[method].input_type)()
    for path in resources_of(method):
        *parents, field = path.split(".")
        target = request
        for parent in parents:
            target = getattr(target, parent)
        name = pattern_of(method, path).replace("projects/*", f"projects/{project}").replace("versions/*", "versions/1")
        setattr(target, field, name.replace("*", last))
    return request


@dataclass
class Guarded:
    """Services that require a certificate, and then for a key unless something is granted to it.

    Attributes:
        services: A trainer and two samplers.
        folder: Where their files are.
        authority: Who issues certificates.
        shown: A certificate to which nothing is granted.
        keys: API keys by role in the project `mine`; `root` is admin everywhere.
        settings: Settings of the services.
    """

    services: Services
    folder: Path
    authority: CertificateAndKey
    shown: CertificateAndKey
    keys: dict[str, str]
    settings: dict[str, str]

    @property
    def access_file(self) -> Path:
        return self.folder / "access.json"

    @property
    def trainer(self) -> ServiceProcess:
        return self.services.started[0]

    @property
    def samplers(self) -> list[str]:
        return [one.address for one in self.services.started[1:3]]

    def credentials(self, key: str | None = None, shown: CertificateAndKey | None = None) -> Credentials:
        shown = shown or self.shown
        return Credentials(
            authorities=self.authority.certificate, certificate=shown.certificate, key=shown.key, token=key
        )

    def client(self, role: str, project: str = "mine") -> Client:
        return Client(
            self.trainer.address, self.samplers, project, credentials=self.credentials(self.keys[role]), retry=ONCE
        )

    def call(self, method: str, request: object, key: str) -> tuple[str, str, tuple[tuple[str, object], ...]]:
        """Call a method with a key; return all that the caller gets."""
        descriptor = METHODS[method]
        service = self.services.started[1 if ".SamplingService/" in method else 0]
        kind = "_".join(
            "stream" if way else "unary" for way in (descriptor.client_streaming, descriptor.server_streaming)
        )
        with self.credentials(key).channel(service.address, service.address, ()) as channel:
            made = getattr(channel, kind)(
                f"/{method}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=bytes,
            )
            try:
                answer = made(iter([request]) if descriptor.client_streaming else request, timeout=PATIENCE)
                if descriptor.server_streaming:
                    list(answer)
            except grpc.RpcError as error:
                return error.code().name, error.details(), tuple(error.trailing_metadata())
        return "OK", "", ()


def issue(authority: CertificateAndKey, name: str, *hosts: str) -> CertificateAndKey:
    return issue_certificate(authority, name, now(), hosts=hosts)


def write(folder: Path, name: str, pair: CertificateAndKey) -> dict[str, str]:
    """Write a server's certificate and key; return the settings that name them."""
    (folder / f"{name}.pem").write_bytes(pair.certificate)
    (folder / f"{name}-key.pem").write_bytes(pair.key)
    return {"ROWMINT_TLS_CERTIFICATE": str(folder / f"{name}.pem"), "ROWMINT_TLS_KEY": str(folder / f"{name}-key.pem")}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    authority = make_authority("tests", now())
    shown = issue(authority, "unknown")
    (folder / "ca.pem").write_bytes(authority.certificate)
    settings = {
        **write(folder, "server", issue(authority, "server", *HERE)),
        "ROWMINT_TLS_CLIENT_CA": str(folder / "ca.pem"),
        "ROWMINT_ACCESS_FILE": str(folder / "access.json"),
        "ROWMINT_AUDIT_LOG": str(folder / "audit"),
        "ROWMINT_REAUTHORIZE_SECONDS": "0.1",
        "ROWMINT_METRICS_LISTEN": "127.0.0.1:0",
    }
    grants = {role.name.lower(): {"mine": role} for role in Role} | {"root": {"*": Role.ADMIN}}
    keys = {name: create_key(folder / "access.json", name, granted, now())[0] for name, granted in grants.items()}
    grant_certificate(folder / "access.json", "operator", {"*": Role.ADMIN})
    services = Services(folder)
    found = Guarded(services, folder, authority, shown, keys, settings)
    services.credentials = found.credentials()
    try:
        services.trainer(**settings)
        services.sampler(**settings)
        services.sampler(**settings)
        with found.client("root", "theirs") as client:
            dataset = client.upload(customers_csv(300), "secret", format="csv")
            client.wait_job(client.train(dataset, "secret", family="independent", seed=1, job_id="secret"))
        yield found
    finally:
        services.close()


@pytest.mark.parametrize("method", METHODS)
def test_a_resource_of_another_project_and_a_missing_one_are_indistinguishable(guarded: Guarded, method: str) -> None:
    for role in ("reader", "trainer", "admin"):
        there = guarded.call(method, request_of(method, "theirs", "secret"), guarded.keys[role])
        nowhere = guarded.call(method, request_of(method, "theirs", "absent"), guarded.keys[role])
        elsewhere = guarded.call(method, request_of(method, "nobodys", "secret"), guarded.keys[role])
        assert there == nowhere
        assert there[0] == "PERMISSION_DENIED"
        assert (elsewhere[0], elsewhere[1].replace("nobodys", "theirs")) == there[:2]
    # A caller with a role in the project gets the true reason.
    code, _, _ = guarded.call(method, request_of(method, "theirs", "absent"), guarded.keys["root"])
    assert code not in ("PERMISSION_DENIED", "UNAUTHENTICATED")


def test_the_main_job_over_mutual_tls_by_a_certificate_alone(guarded: Guarded) -> None:
    operator = issue(guarded.authority, "operator")
    credentials = guarded.credentials(shown=operator)
    with Client(guarded.trainer.address, guarded.samplers, "mine", credentials=credentials) as client:
        dataset = client.upload(customers_csv(300), "own", format="csv")
        job = client.wait_job(client.train(dataset, "own", family="independent", seed=1))
        rows = sum(batch.num_rows for batch in client.sample(job.model_version, rows=1000, parallel=2))
    assert rows == 1000
    with guarded.client("reader") as client:
        assert [model.name for model in client.list_models()] == ["projects/mine/models/own"]


def test_a_missing_or_untrusted_client_certificate_is_refused(guarded: Guarded) -> None:
    untrusted = make_authority("untrusted", now())
    key = guarded.keys["root"]
    shown = [
        Credentials(authorities=guarded.authority.certificate, token=key),
        guarded.credentials(key, issue(untrusted, "operator")),
        Credentials(tls=False, token=key),
    ]
    for credentials in shown:
        with Client(guarded.trainer.address, guarded.samplers, "mine", credentials=credentials, retry=ONCE) as client:
            with pytest.raises(RowmintCallError) as failure:
                list(client.list_datasets())
            assert failure.value.code is grpc.StatusCode.UNAVAILABLE


def test_a_server_of_another_authority_is_not_talked_to(guarded: Guarded) -> None:
    credentials = replace(guarded.credentials(), authorities=make_authority("other", now()).certificate)
    with Client(guarded.trainer.address, guarded.samplers, credentials=credentials, retry=ONCE) as client:
        with pytest.raises(RowmintCallError) as failure:
            list(client.list_datasets())
        assert failure.value.code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (None, "no roles are granted to the client certificate"),
        ("rowmint_0123456789ab_" + "A" * 43, "the API key is unknown, revoked or expired"),
        ("eyJhbGciOiJub25lIn0.e30.", "the bearer credential is not an API key"),
    ],
)
def test_a_wrong_key_is_refused_whatever_the_certificate(guarded: Guarded, key: str | None, said: str) -> None:
    shown = None if key is None else issue(guarded.authority, "operator")
    credentials = guarded.credentials(key, shown)
    with Client(guarded.trainer.address, guarded.samplers, credentials=credentials, retry=ONCE) as client:
        with pytest.raises(RowmintCallError) as failure:
            list(client.list_datasets())
        assert failure.value.code is grpc.StatusCode.UNAUTHENTICATED
        assert failure.value.reason == "UNAUTHENTICATED"
        assert said in failure.value.message


def test_a_revoked_key_ends_with_the_next_call(guarded: Guarded) -> None:
    text, key = create_key(guarded.access_file, "guest", {"mine": Role.READER}, now(), timedelta(days=1))
    with Client(
        guarded.trainer.address, guarded.samplers, "mine", credentials=guarded.credentials(text), retry=ONCE
    ) as client:
        list(client.list_models())
        revoke_key(guarded.access_file, key.id)
        with pytest.raises(RowmintCallError) as failure:
            list(client.list_models())
    assert failure.value.code is grpc.StatusCode.UNAUTHENTICATED


def refusals(guarded: Guarded, name: str) -> list[str]:
    """Return the methods that were refused to a key's holder, in the services' audit logs."""
    lines = [line for path in guarded.folder.glob("audit/*.jsonl") for line in path.read_bytes().splitlines(True)]
    records = [json.loads(line) for line in lines if line.endswith(b"\n")]
    return [one["method"] for one in records if (one["who"], one["decision"]) == (f"key:{name}", "unauthenticated")]


def test_a_stream_ends_when_its_key_is_revoked(guarded: Guarded) -> None:
    text, key = create_key(guarded.access_file, "guest of rows", {"theirs": Role.READER}, now())
    with Client(
        guarded.trainer.address, guarded.samplers, "theirs", credentials=guarded.credentials(text), retry=ONCE
    ) as client:
        stream = iter(client.sample("secret", rows=5_000_000, seed=1))
        next(stream)
        revoke_key(guarded.access_file, key.id)
        with pytest.raises(RowmintCallError) as failure:
            list(stream)
    assert failure.value.code is grpc.StatusCode.UNAUTHENTICATED
    assert refusals(guarded, "guest of rows") == ["rowmint.v1.SamplingService/Sample"]


def test_a_stream_is_resumed_when_its_key_is_replaced(guarded: Guarded) -> None:
    old, key = create_key(guarded.access_file, "renewed", {"theirs": Role.READER}, now())
    new, _ = create_key(guarded.access_file, "renewed", {"theirs": Role.READER}, now())
    keys = [old]
    credentials = replace(guarded.credentials(), token=lambda: keys[-1])
    with Client(guarded.trainer.address, guarded.samplers, "theirs", credentials=credentials) as client:
        expected = pa.Table.from_batches(client.sample("secret", rows=300_000, seed=1))
        stream = client.sample("secret", rows=300_000, seed=1)
        batches = iter(stream)
        received = [next(batches)]
        keys.append(new)
        revoke_key(guarded.access_file, key.id)
        # The stream waits for its reader meanwhile, and ends with the next block of rows.
        wait_until(lambda: refusals(guarded, "renewed") != [], "the refusal")
        received += batches
    assert pa.Table.from_batches(received) == expected
    assert stream.resumes == 1


def test_a_watch_ends_when_its_key_is_revoked(guarded: Guarded) -> None:
    text, key = create_key(guarded.access_file, "guest of jobs", {"theirs": Role.TRAINER}, now())
    with (
        guarded.client("root", "theirs") as operator,
        Client(
            guarded.trainer.address, guarded.samplers, "theirs", credentials=guarded.credentials(text), retry=ONCE
        ) as client,
    ):
        job = operator.train("secret", "secret", family="ctgan", epochs=100_000, seed=1)
        try:
            events = client.watch(job)
            next(events)
            revoke_key(guarded.access_file, key.id)
            with pytest.raises(RowmintCallError) as failure:
                list(events)
        finally:
            operator.cancel_job(job)
    assert failure.value.code is grpc.StatusCode.UNAUTHENTICATED


def test_a_new_certificate_is_loaded_without_a_restart_and_streams_continue(guarded: Guarded) -> None:
    before = peer_certificate(guarded)
    with guarded.client("root", "theirs") as client:
        stream = iter(client.sample("secret", rows=500_000, seed=1))
        first = next(stream)
        write(guarded.folder, "server", issue(guarded.authority, "server again", *HERE))
        wait_until(lambda: peer_certificate(guarded) != before, "the new certificate")
        rows = first.num_rows + sum(batch.num_rows for batch in stream)
    assert rows == 500_000
    # Half a pair changes nothing: a key that is not that of the certificate would end every handshake.
    changed = peer_certificate(guarded)
    (guarded.folder / "server-key.pem").write_bytes(issue(guarded.authority, "server", *HERE).key)
    assert peer_certificate(guarded) == changed
    write(guarded.folder, "server", issue(guarded.authority, "server", *HERE))


def client_context(guarded: Guarded, *, shows: bool = True, shown: CertificateAndKey | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=guarded.authority.certificate.decode())
    if shows:
        shown = write(guarded.folder, "shown", shown or guarded.shown)
        context.load_cert_chain(shown["ROWMINT_TLS_CERTIFICATE"], shown["ROWMINT_TLS_KEY"])
    return context


def peer_certificate(guarded: Guarded) -> bytes:
    """Return the certificate that a sampler shows now."""
    host, _, port = guarded.samplers[0].rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=PATIENCE) as plain,
        client_context(guarded).wrap_socket(plain, server_hostname=host) as wrapped,
    ):
        return wrapped.getpeercert(binary_form=True)


@pytest.mark.parametrize("of", ["a trainer", "a sampler of two processes"])
def test_metrics_are_served_over_mutual_tls_to_callers_with_a_role_in_every_project(guarded: Guarded, of: str) -> None:
    processes = {**guarded.settings, "ROWMINT_PROCESSES": "2"}
    service = guarded.trainer if of == "a trainer" else guarded.services.sampler(**processes)
    found = re.search(rb"serving metrics +port=(\d+)", service.log.read_bytes())
    url = f"https://localhost:{int(found[1])}/metrics"
    grant_certificate(guarded.access_file, "prometheus", {"*": Role.READER})
    prometheus = client_context(guarded, shown=issue(guarded.authority, "prometheus"))
    with urllib.request.urlopen(url, context=prometheus, timeout=PATIENCE) as answer:
        assert b"grpc_server_call_started" in answer.read()
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(url, context=client_context(guarded), timeout=PATIENCE).read()
    with pytest.raises((ssl.SSLError, urllib.error.URLError, ConnectionError)):
        urllib.request.urlopen(url, context=client_context(guarded, shows=False), timeout=PATIENCE).read()
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        urllib.request.urlopen(url.replace("https", "http"), timeout=PATIENCE).read()


@pytest.mark.parametrize("service", ["trainer_service", "sampler_service"])
def test_no_service_without_authentication_listens_on_the_network(tmp_path: Path, service: str) -> None:
    said = refused_start(tmp_path, "-m", service, ROWMINT_LISTEN="0.0.0.0:0")
    assert "ROWMINT_LISTEN '0.0.0.0:0' is reachable from other machines" in said
    assert "ROWMINT_INSECURE=true" in said


def test_files_that_are_wrong_let_no_service_start(tmp_path: Path) -> None:
    authority = make_authority("tests", now())
    settings = write(tmp_path, "server", issue(authority, "server", *HERE))
    (tmp_path / "server-key.pem").write_bytes(issue(authority, "server", *HERE).key)
    said = refused_start(tmp_path, "-m", "sampler_service", **settings)
    assert "the private key does not match the certificate" in said
    (tmp_path / "server-key.pem").unlink()
    assert "server-key.pem: No such file" in refused_start(tmp_path, "-m", "sampler_service", **settings)


@pytest.mark.parametrize("shows", [True, False])
def test_the_command_line_reports_health_over_mutual_tls(guarded: Guarded, shows: bool) -> None:
    shown = write(guarded.folder, "shown", guarded.shown)
    own = {"ROWMINT_CERTIFICATE": shown["ROWMINT_TLS_CERTIFICATE"], "ROWMINT_KEY": shown["ROWMINT_TLS_KEY"]}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("rowmint")), "--trainer", guarded.trainer.address, "health", "trainer"],
        env={**os.environ, "ROWMINT_CA": str(guarded.folder / "ca.pem"), **(own if shows else {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == ((0, "SERVING\n") if shows else (1, ""))
