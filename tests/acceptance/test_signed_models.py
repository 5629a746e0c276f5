"""Real services, of which the sampler serves signed versions only: keys come and go, and cannot be bypassed."""

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, select, update
from typer.testing import CliRunner

from rowmint.cli.app import app
from rowmint.client import Client, RowmintCallError
from rowmint.errors import InvalidFieldError, UntrustedModelError
from rowmint.registry import open_registry
from rowmint.registry.engine import reading, writing
from rowmint.registry.tables import model_versions, version_signatures
from rowmint.security.signing import generate_signing_key, key_id
from tests.acceptance.processes import ServiceProcess, Services, customers_csv, refused_start
from tests.faults.golden_home import publish_golden
from tests.golden.streams import PROJECT

PAIRS = [generate_signing_key() for _ in range(2)]
IDS = [key_id(public) for _, public in PAIRS]


def version(model: str) -> str:
    return f"projects/{PROJECT}/models/{model}/versions/1"


class Deployment:
    """A trainer that signs and a sampler that trusts, over a home in which unsigned models were published before."""

    def __init__(self, home: Path) -> None:
        publish_golden(home)
        self.home = home
        self.services = Services(home)
        self.trusted = home / "trusted.pem"
        self.changes = 0
        self.trust(0)
        self.sampler = self.services.sampler(ROWMINT_TRUSTED_KEYS=str(self.trusted))
        self.trainer = self.start_trainer(0)

    def start_trainer(self, number: int) -> ServiceProcess:
        path = self.home / f"signing-key-{number}.pem"
        path.write_bytes(PAIRS[number][0])
        path.chmod(0o600)
        self.trainer = self.services.trainer(ROWMINT_SIGNING_KEY=str(path))
        return self.trainer

    def trust(self, *numbers: int) -> None:
        """Replace the file of trusted keys, as a careful person does: the sampler never sees half of it."""
        new = self.trusted.with_suffix(".new")
        new.write_bytes(b"".join(PAIRS[number][1] for number in numbers))
        self.changes += 1
        os.utime(new, (self.changes, self.changes))
        new.replace(self.trusted)

    def client(self) -> Client:
        return Client(self.trainer.address, self.sampler.address, PROJECT)

    def command(self, *arguments: str) -> tuple[int, str]:
        """Run the command; return its exit code and what it prints."""
        start = ["--trainer", self.trainer.address, "--sampler", self.sampler.address, "--project", PROJECT]
        done = CliRunner().invoke(app, [*start, *arguments])
        return done.exit_code, done.output


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("home"))
    yield deployment
    deployment.services.close()


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    found = Deployment(tmp_path)
    yield found
    found.services.close()


def served(client: Client, name: str) -> int:
    return client.sample(name, 10, seed=1).to_table().num_rows


def refusal(client: Client, name: str) -> str:
    """Return what is said of a version that is served by no call."""
    reported = set()
    for call in (
        lambda: client.sample(name, 10, seed=1).to_table(),
        lambda: list(client.complete_rows(name, [{}])),
        lambda: client.plan_sample(client.sample_request(name, 10)),
    ):
        with pytest.raises(RowmintCallError) as caught:
            call()
        assert (caught.value.code.name, caught.value.reason) == ("FAILED_PRECONDITION", "UNTRUSTED_MODEL")
        assert caught.value.metadata["name"] == name
        reported.add(caught.value.message)
    (message,) = reported
    return message


def test_what_a_trainer_publishes_is_signed_and_served(shared: Deployment) -> None:
    with shared.client() as client:
        dataset = client.upload(customers_csv(200), "customers", format="csv", primary_key="customer")
        job = client.wait_job(client.train(dataset, "customers", family="independent", seed=1))
        assert served(client, job.model_version) == 10
        found = client.get_version(job.model_version)
        assert [one.key_id for one in found.signatures] == [IDS[0]]
        assert next(iter(client.list_versions("customers"))).signatures == found.signatures
        bundle = json.loads(found.signatures[0].bundle_json)
        said = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
        assert said["subject"] == [
            {"name": f"projects/{PROJECT}/models/customers", "digest": {"sha256": found.manifest_digest.hex()}}
        ]
        assert client.verify_version("customers", PAIRS[0][1]) == IDS[0]
        with pytest.raises(UntrustedModelError, match="is signed only by"):
            client.verify_version("customers", PAIRS[1][1])
        with pytest.raises(InvalidFieldError, match="private key"):
            client.verify_version("customers", PAIRS[0][0])


def test_an_unsigned_version_is_served_by_no_call_and_can_be_looked_at(shared: Deployment) -> None:
    with shared.client() as client:
        assert "it is not signed; sign it (`rowmint models sign`)" in refusal(client, version("ctgan"))
        found = client.get_version(version("ctgan"))
        assert (found.family, list(found.signatures)) == ("ctgan", [])
        with pytest.raises(UntrustedModelError, match="it is not signed"):
            client.verify_version(version("ctgan"), PAIRS[0][1])


def test_an_old_version_is_served_once_it_is_signed_by_command(shared: Deployment) -> None:
    trusted = ("--keys", str(shared.trusted), "--json")
    with shared.client() as client:
        refusal(client, version("tvae"))
        code, reported = shared.command("models", "verify", "tvae", *trusted)
        assert (code, "it is not signed" in reported) == (1, True)
        code, reported = shared.command("models", "sign", "tvae/versions/1", "--json")
        assert (code, [one["key_id"] for one in json.loads(reported)["signatures"]]) == (0, [IDS[0]])
        first = client.get_version(version("tvae"))
        assert client.sign_version("tvae/versions/1").signatures == first.signatures
        assert shared.command("models", "verify", "tvae", *trusted) == (0, json.dumps({"key_id": IDS[0]}) + "\n")
        assert served(client, version("tvae")) == 10
    code, reported = shared.command("models", "sign", "tvae")
    assert (code, "tvae/versions/NUMBER" in reported) == (1, True)


def test_keys_are_changed_while_the_sampler_runs(deployment: Deployment) -> None:
    with deployment.client() as client:
        for model in ("ctgan", "tvae"):
            client.sign_version(version(model))
            assert served(client, version(model)) == 10
    deployment.trust(0, 1)
    deployment.trainer.terminate()
    deployment.start_trainer(1)
    with deployment.client() as client:
        signed = client.sign_version(version("ctgan"))
        assert [one.key_id for one in signed.signatures] == IDS
        assert (served(client, version("ctgan")), served(client, version("tvae"))) == (10, 10)
        deployment.trust(1)
        assert served(client, version("ctgan")) == 10
        assert f"is signed only by {IDS[0][:16]}..." in refusal(client, version("tvae"))
        deployment.trust()
        refusal(client, version("ctgan"))
        deployment.trust(1)
        assert served(client, version("ctgan")) == 10
        assert deployment.sampler.process.poll() is None


def test_a_model_forged_in_registry_and_store_without_a_key_is_not_served(deployment: Deployment) -> None:
    with deployment.client() as client:
        for model in ("ctgan", "tvae"):
            client.sign_version(version(model))
            assert served(client, version(model)) == 10
        registry = open_registry(f"sqlite:///{deployment.home}/registry")
        try:
            with reading(registry.engine) as connection:
                rows = {row.model_uid: row._asdict() for row in connection.execute(select(model_versions))}
                bundles = {row.model_uid: row._asdict() for row in connection.execute(select(version_signatures))}
            # The row of one model is made to name the files of another, and given its signature, too.
            files = {name: value for name, value in rows["tvae"].items() if name.startswith(("manifest", "weights"))}
            with writing(registry.engine) as connection:
                at = model_versions.c.model_uid == "ctgan"
                connection.execute(
                    update(model_versions).where(at).values(**files, model_digest=rows["tvae"]["model_digest"])
                )
            assert "the object store was tampered with" in refusal(client, version("ctgan"))
            with writing(registry.engine) as connection:
                connection.execute(delete(version_signatures).where(version_signatures.c.model_uid == "ctgan"))
                connection.execute(insert(version_signatures).values(bundles["tvae"] | {"model_uid": "ctgan"}))
            assert "the object store was tampered with" in refusal(client, version("ctgan"))
            assert served(client, version("tvae")) == 10
            # A key of their own, under the name of the trusted one.
            with writing(registry.engine) as connection:
                connection.execute(
                    update(model_versions)
                    .where(at)
                    .values(
                        **{name: rows["independent"][name] for name in files},
                        model_digest=rows["independent"]["model_digest"],
                    )
                )
                forged = bundles["ctgan"]["bundle"].replace(IDS[0], IDS[1])
                connection.execute(delete(version_signatures).where(version_signatures.c.model_uid == "ctgan"))
                connection.execute(
                    insert(version_signatures).values(bundles["ctgan"] | {"bundle": forged, "key_id": IDS[1]})
                )
            assert f"is signed only by {IDS[1][:16]}..." in refusal(client, version("ctgan"))
        finally:
            registry.close()


def test_a_service_does_not_start_with_a_key_that_is_none_and_does_not_show_it(tmp_path: Path) -> None:
    private, public = (path.decode() for path in PAIRS[0])
    (tmp_path / "private.pem").write_text(private)
    (tmp_path / "public.pem").write_text(public)
    for module, setting, file, words in (
        ("trainer_service", "ROWMINT_SIGNING_KEY", "public.pem", "signing key: is not a private key in PEM"),
        ("sampler_service", "ROWMINT_TRUSTED_KEYS", "private.pem", "trusted keys: contain a private key"),
    ):
        reported = refused_start(tmp_path, "-m", module, **{setting: str(tmp_path / file)})
        assert (words in reported, private.splitlines()[1] in reported) == (True, False)
