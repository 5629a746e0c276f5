"""Secrets and cells stay where they belong: no log, metric, trace, audit log or error has them."""

import contextlib
import json
import os
import random
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from rowmint.client import Client, Credentials, RetryPolicy, RowmintCallError
from rowmint.errors import InvalidDataError
from rowmint.security.access_file import create_key
from rowmint.security.audit_verify import verify
from rowmint.security.identity import Role
from rowmint.v1 import model_service_pb2, schema_pb2
from rowmint.v1.model_service_pb2_grpc import ModelServiceStub
from tests.acceptance.leaks import leaks, leaks_of_services, values_in
from tests.acceptance.processes import ServiceProcess, Services, customers_csv, refused_start
from tests.observability.collector import Collector
from tests.observability.conftest import metrics_port
from tests.postgres_server import PostgresServer
from tests.swift_server import SwiftServer
from tests.waiting import PATIENCE, wait_until

PROJECT = "vault"
FITTED = re.compile(r'^rowmint_jobs_ended_total\{kind="train",state="SUCCEEDED"\} [1-9]', re.MULTILINE)
MODEL = f"projects/{PROJECT}/models/patients"
ONCE = RetryPolicy(attempts=1, unary_attempts=1)
ISSUER, AUDIENCE = "https://issuer.example", "rowmint"

NAMES = ["Zoltan Quxley", "Wilhelmina Jabberwock", "Ünsal Öztürk-Ğ", "Xerxes O'Hara", "Ygraine Vorpal"]
ODD_DAYS = ["19/Jul/1903", "7. Brumaire CXII", "MCMIII-XI-04"]
DAYS = ["1903-07-19", "1903-11-04", "1904-02-29"]
AMOUNTS = ["918273.6455", "827364.5546", "736455.4637"]
CELLS = [*NAMES, *ODD_DAYS, *DAYS, *AMOUNTS]
# What only requests hold.
REQUESTED_NAME = "Kunigunde Requested-4711"
REQUESTED_AMOUNT = 800_000.1357
FAR_AMOUNT = 645_546.3728
REFUSED_CELL = "Kanari-refused-8823"
COMPLETED_AMOUNT = 554637.2819
SENT = [REQUESTED_NAME, str(REQUESTED_AMOUNT), str(FAR_AMOUNT), REFUSED_CELL, str(COMPLETED_AMOUNT)]
GARBAGE = "kanari.garbage.0a1b2c3d4e5f"
WRONG_PASSWORD = "kanari-wrong-password-5512"
WRONG_SECRET = "kanariwrongstoresecret7731"


def patients_csv(rows: int) -> bytes:
    draw = random.Random(3)
    lines = ["name,day,odd_day,amount,visits"]
    for _ in range(rows):
        cells = [draw.choice(cells) for cells in (NAMES, DAYS, ODD_DAYS, AMOUNTS)]
        lines.append(",".join([*cells, str(draw.randrange(9))]))
    return ("\n".join(lines) + "\n").encode()


@dataclass
class Vault:
    """Services that log all they can, the main job done with them, and what they wrote.

    Attributes:
        home: Their folder.
        secrets: What only its bearer may see.
        errors: Errors of calls that failed, with the cells that they had sent, or may read in the
            model's schema.
        texts: All that the services wrote for others, by what it is.
        audit: Folder of the audit log.
    """

    home: Path
    secrets: list[str] = field(default_factory=list)
    errors: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    audit: Path = Path()

    @contextlib.contextmanager
    def refusing(self, reason: str, *sent: str) -> Iterator[None]:
        """Do something that must fail, and keep the error."""
        with pytest.raises((RowmintCallError, InvalidDataError)) as caught:
            yield
        error = caught.value
        assert error.reason == reason, error
        self.errors.append((f"{error.message} {error.metadata} {error.violations}", sent))


def scraped(service: ServiceProcess) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port(service)}/metrics", timeout=PATIENCE) as answer:
        return answer.read().decode()


def signing_pair(path: Path) -> bytes:
    """Write the public half of a new key to a file and return the private one."""
    key = Ed25519PrivateKey.generate()
    encoded = serialization.Encoding.PEM
    path.write_bytes(key.public_key().public_bytes(encoded, serialization.PublicFormat.SubjectPublicKeyInfo))
    return key.private_bytes(encoded, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def token(key: bytes, lifetime: timedelta, **claims: object) -> str:
    now = datetime.now(UTC)
    payload = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "iat": now, "exp": now + lifetime, **claims}
    return jwt.encode(payload, key, "EdDSA")


def ask_with(address: str, authorization: str, vault: Vault) -> None:
    """Call with a header of any form, which must be refused; keep the error."""
    with grpc.insecure_channel(address) as channel:
        request = model_service_pb2.GetModelVersionRequest(name=f"{MODEL}@latest")
        with pytest.raises(grpc.RpcError) as caught:
            ModelServiceStub(channel).GetModelVersion(
                request, timeout=PATIENCE, metadata=(("authorization", authorization), ("x-api-key", GARBAGE))
            )
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    vault.errors.append((f"{caught.value.details()} {caught.value.trailing_metadata()}", ()))


@pytest.fixture(scope="module")
def vault(postgres: PostgresServer, swift: SwiftServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    home = tmp_path_factory.mktemp("vault")
    services, collector = Services(home), Collector()
    found = Vault(home, audit=home / "audit")
    access, jwt_key = home / "access.json", home / "jwt.pem"
    database, data, models = postgres.create_database(), swift.create_bucket(), swift.create_bucket()
    key, _ = create_key(access, "ci", {PROJECT: Role.ADMIN}, datetime.now(UTC))
    other_key, _ = create_key(access, "other", {"elsewhere": Role.ADMIN}, datetime.now(UTC))
    wrong_key = key[: len("rowmint_0123456789ab_")] + other_key[len("rowmint_0123456789ab_") :]
    private = signing_pair(jwt_key)
    bearer = token(private, timedelta(hours=1), rowmint={PROJECT: "reader"})
    expired = token(private, timedelta(hours=-1), rowmint={PROJECT: "reader"})
    forged = token(signing_pair(home / "untrusted.pem"), timedelta(hours=1), rowmint={PROJECT: "admin"})
    found.secrets = [
        *(key, other_key, wrong_key, bearer, expired, forged, GARBAGE),
        *(one.rpartition(".")[2] for one in (bearer, expired, forged)),
        *(postgres.password, swift.secret, WRONG_PASSWORD, WRONG_SECRET),
    ]
    verbose_logs = {
        "ROWMINT_METRICS_LISTEN": "127.0.0.1:0",
        "ROWMINT_LOG_FORMAT": "json",
        "ROWMINT_LOG_LEVEL": "debug",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "ROWMINT_ACCESS_FILE": str(access),
        "ROWMINT_JWT_KEYS": str(jwt_key),
        "ROWMINT_JWT_ISSUER": ISSUER,
        "ROWMINT_JWT_AUDIENCE": AUDIENCE,
        "ROWMINT_AUDIT_LOG": str(found.audit),
        "ROWMINT_STORE_OPTIONS": json.dumps(swift.options),
        "ROWMINT_MODEL_STORE": models,
    }
    wrong_options = json.dumps({**swift.options, "secret_access_key": WRONG_SECRET})
    try:
        trainer = services.trainer(**verbose_logs, ROWMINT_REGISTRY=database, ROWMINT_DATA_STORE=data)
        sampler = services.sampler(**verbose_logs, ROWMINT_MODELS_REGISTRY=database)
        blind = services.sampler(
            **{**verbose_logs, "ROWMINT_STORE_OPTIONS": wrong_options}, ROWMINT_MODELS_REGISTRY=database
        )
        shown = Credentials(tls=False, token=key)
        with Client(trainer.address, sampler.address, PROJECT, retry=ONCE, credentials=shown) as client:
            main_job(client)
            refused_cells(client, found)
        for one in (other_key, bearer):
            with Client(
                trainer.address, sampler.address, PROJECT, retry=ONCE, credentials=Credentials(tls=False, token=one)
            ) as client:
                if one is bearer:
                    assert b"".join(client.sample("patients", 5, seed=1, format="csv").chunks()).count(b"\n") == 6
                else:
                    with found.refusing("PERMISSION_DENIED"):
                        list(client.sample(f"{MODEL}/versions/1", 5, where={"name": NAMES[0]}).chunks())
                with found.refusing("PERMISSION_DENIED"):
                    client.get_dataset("patients")
        with (
            Client(trainer.address, blind.address, PROJECT, retry=ONCE, credentials=shown) as client,
            found.refusing("UNAVAILABLE"),
        ):
            list(client.sample("patients", 5).chunks())
        for authorization in (
            *(f"Bearer {one}" for one in (wrong_key, expired, forged, GARBAGE)),
            f"Basic {GARBAGE}",
            key,
        ):
            for service in (trainer, sampler):
                ask_with(service.address, authorization, found)
        command(found, collector, key, services)
        collector.wait(lambda spans: any(span.name == "rowmint sample" for span in spans), "the command's spans")
        wait_until(lambda: FITTED.search(scraped(trainer)) is not None, "the end of a fit")
        found.texts["metrics"] = "".join(map(scraped, services.started))
        services.close()
        found.texts["traces"] = repr(collector.wait(lambda spans: spans, "spans"))
        written = [*(service.log for service in services.started), *found.audit.iterdir()]
        found.texts |= {path.name: path.read_text() for path in written}
        wrong_url = database.replace(postgres.password, WRONG_PASSWORD)
        for what, module, settings in (
            ("a wrong password", "trainer_service", {"ROWMINT_REGISTRY": wrong_url}),
            ("options that are no JSON", "sampler_service", {"ROWMINT_STORE_OPTIONS": wrong_options[:-1]}),
            (
                "options that there are not",
                "sampler_service",
                {"ROWMINT_MODEL_STORE": models, "ROWMINT_STORE_OPTIONS": f'{{"secret_access_kay": "{WRONG_SECRET}"}}'},
            ),
        ):
            found.texts[what] = refused_start(home, "-m", module, **settings)
        yield found
    finally:
        services.close()
        collector.close()
        postgres.drop_database(database)


def main_job(client: Client) -> None:
    dataset = client.upload(patients_csv(300), "patients", format="csv")
    client.wait_job(client.train(dataset, "patients", family="independent", seed=1))
    rows = b"".join(client.sample("patients", 200, seed=1, where={"name": NAMES[0]}, format="csv").chunks())
    assert NAMES[0] in rows.decode()
    partial = [{"name": NAMES[1], "amount": COMPLETED_AMOUNT}, {"odd_day": ODD_DAYS[0]}]
    assert len(list(client.complete_rows("patients", partial, seed=1))) == 2


def refused_cells(client: Client, vault: Vault) -> None:
    with vault.refusing("VALUE_NOT_FOUND", REQUESTED_NAME, *NAMES):
        list(client.sample("patients", 5, where={"name": REQUESTED_NAME}).chunks())
    with vault.refusing("INVALID_CONDITION", str(FAR_AMOUNT), min(AMOUNTS), max(AMOUNTS)):
        list(client.sample("patients", 5, where={"amount": (None, FAR_AMOUNT)}).chunks())
    with vault.refusing("ACCEPTANCE_TOO_LOW", str(REQUESTED_AMOUNT), NAMES[2]):
        where = {"amount": (REQUESTED_AMOUNT, REQUESTED_AMOUNT), "name": NAMES[2]}
        list(client.sample("patients", 5, where=where).chunks())
    for row, columns in (
        (f"{NAMES[3]},{REFUSED_CELL}", []),
        (
            f"{NAMES[3]},{DAYS[0]},{ODD_DAYS[0]},{REFUSED_CELL},1",
            [schema_pb2.ColumnSpec(name="amount", kind=schema_pb2.COLUMN_KIND_NUMERICAL)],
        ),
    ):
        with vault.refusing("INVALID_DATA", *row.split(",")):
            client.upload(patients_csv(20) + f"{row}\n".encode(), format="csv", columns=columns)


def command(vault: Vault, collector: Collector, key: str, services: Services) -> None:
    """Sample by the `rowmint` command, traced, and keep what it printed beside the rows."""
    trainer, sampler, _ = services.started
    (vault.home / "key").write_text(key)
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("rowmint")), "sample", "patients", "-n", "50", "--seed", "3"),
            *("--where", f"name = {NAMES[4]}", "--format", "csv", "--output", "rows.csv"),
        ],
        env={
            **os.environ,
            "ROWMINT_TRAINER": trainer.address,
            "ROWMINT_SAMPLER": sampler.address,
            "ROWMINT_PROJECT": PROJECT,
            "ROWMINT_TOKEN_FILE": str(vault.home / "key"),
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        },
        cwd=vault.home,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    vault.texts["the command"] = done.stdout + done.stderr


def test_services_write_no_secret(vault: Vault):
    assert {name: found for name, text in vault.texts.items() if (found := values_in(text, vault.secrets))} == {}


def test_services_write_no_cell(vault: Vault):
    assert {name: found for name, text in vault.texts.items() if (found := values_in(text, [*CELLS, *SENT]))} == {}


def test_every_output_is_searched_and_none_is_empty(vault: Vault):
    logs = [name for name in vault.texts if name.endswith(".log")]
    audits = [name for name in vault.texts if name.endswith(".jsonl")]
    assert len(logs) == 3
    assert sorted(name.partition("-")[0] for name in audits) == ["sampler", "sampler", "trainer"]
    assert all(vault.texts.values())
    assert "SamplingService/Sample" in vault.texts["traces"]
    assert "rowmint sample" in vault.texts["traces"]
    assert "rowmint_streams" in vault.texts["metrics"]
    calls = "".join(vault.texts[name] for name in logs)
    assert '"reason": "UNAUTHENTICATED"' in calls
    assert '"level": "debug"' in calls


def test_errors_have_no_secret_and_no_cell_but_the_callers_own(vault: Vault):
    assert len(vault.errors) == 21
    for text, sent in vault.errors:
        assert values_in(text, vault.secrets) == []
        assert set(values_in(text, [*CELLS, *SENT])) <= set(sent), text


def test_the_audit_log_has_every_decision_and_names_no_resource(vault: Vault):
    verdict = verify(vault.audit)
    assert [str(problem) for problem in verdict.problems] == []
    lines = [
        json.loads(line) for name, text in vault.texts.items() if name.endswith(".jsonl") for line in text.splitlines()
    ]
    decisions = {(one["who"], one["decision"]) for one in lines}
    assert decisions == {
        ("service:trainer", "allowed"),
        ("service:sampler", "allowed"),
        ("key:ci", "allowed"),
        ("key:other", "denied"),
        ("token:ada", "allowed"),
        ("token:ada", "denied"),
        ("unauthenticated", "unauthenticated"),
    }
    assert "patients" not in json.dumps(lines)
    assert sum(one["decision"] == "unauthenticated" for one in lines) == 12


def test_the_audit_log_is_its_owners_only(vault: Vault):
    assert [oct(path.stat().st_mode & 0o777) for path in [vault.audit, *vault.audit.iterdir()]] == [
        "0o700",
        *["0o600"] * 6,  # a log and its head file for each service
    ]


def test_values_are_found_in_any_form():
    value = "Ünsal Öztürk-Ğ"
    for text in (value, json.dumps(value), value.encode().hex(), "=%C3%9Cnsal%20%C3%96zt%C3%BCrk-%C4%9E&"):
        assert values_in(f"... {text} ...", [value, "other"]) == [value], text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nsince rowmint_0123456789ab_" + "A" * 43, ["line 2: an API key"]),
        ("authorization: Bearer abcdefghijkl", ["line 1: a bearer token"]),
        ("eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhZGEifQ.c2ln", ["line 1: a bearer token"]),
        ("-----BEGIN PRIVATE KEY-----", ["line 1: a private key"]),
        ("postgresql+psycopg://rowmint:hidden@127.0.0.1/rowmint", ["line 1: a password in a URL"]),
        ('{"secret_access_key": "0123456789ab"}', ["line 1: a secret in options"]),
        ("no city Oslo here", ["line 1: a city"]),
        ("at 2019-04-27T08:31:00", ["line 1: a day of joining"]),
        (f"of {customers_csv(1).decode().split(',')[13]}.", []),
        ('{"timestamp": "2026-04-27T08:31:00.123456Z", "seconds": 45231.771, "port": 20000}', []),
        ("key rowmint_0123456789ab of ci; postgresql://127.0.0.1/rowmint; Limassol", []),
    ],
)
def test_a_log_line_with_a_secret_is_found(text, expected):
    assert leaks(text) == expected


def test_an_income_is_found():
    income = customers_csv(1).decode().splitlines()[1].split(",")[4]
    assert leaks(f'could not convert "{income}"') == ["line 1: an income"]


def test_the_logs_of_all_services_are_searched(tmp_path: Path):
    folder = tmp_path / "test-one" / "home"
    folder.mkdir(parents=True)
    (folder / "trainer_service-1.log").write_text("fine\n")
    (folder / "sampler_service-2.log").write_text("fine\nnot fine: Quito\n")
    (folder / "other.log").write_text("Quito")
    assert list(leaks_of_services(tmp_path)) == [f"{folder / 'sampler_service-2.log'}, line 2: a city"]
    # This folder is looked through at the end, too.
    (folder / "sampler_service-2.log").unlink()
