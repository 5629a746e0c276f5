"""Signing versions that are stored already: the files are read and verified before they are signed."""

import hashlib
import json
from dataclasses import fields

import pytest
import rfc8785
from sqlalchemy import update

from rowmint.errors import DataLossError, InvalidFieldError, ResourceNotFoundError, UnavailableError, WrongStateError
from rowmint.names import ModelName, ModelVersionName
from rowmint.objects import MemoryStore
from rowmint.registry import NewVersion, migrate, open_registry
from rowmint.registry.engine import writing
from rowmint.registry.tables import model_versions
from rowmint.security.signing import SigningKey, Statement, TrustedKeys, generate_signing_key
from tests.conformance.registries import TRAIN, train
from tests.golden.make import stored
from tests.golden.streams import record
from trainer_service.signer import VersionSigner, open_signing_key

PRIVATE, PUBLIC = generate_signing_key()
KEY = SigningKey.parse(PRIVATE)
NAME = ModelVersionName("p", "m", 1)


@pytest.fixture
def registry(tmp_path):
    found = open_registry(f"sqlite:///{tmp_path}/registry")
    migrate(found.engine)
    yield found
    found.close()


@pytest.fixture
def store():
    return MemoryStore()


def publish(registry, store):
    """Publish a model, unsigned."""
    manifest, weights = stored("independent")
    described = record("independent", manifest, weights)
    facts = {field.name: getattr(described, field.name) for field in fields(NewVersion)}
    train(registry)
    job = registry.jobs.claim("w", 60, TRAIN)
    made = registry.models.publish(job.uid, job.epoch, ModelName("p", "m"), NewVersion(**facts))
    store.put(made.manifest_key, manifest)
    store.put(made.weights_key, weights)
    return made


def signatures(registry):
    return registry.models.signatures(NAME.parent, [1])[1]


def test_a_version_is_signed_as_it_would_have_been_when_it_was_published(registry, store):
    made = publish(registry, store)
    signer = VersionSigner(registry.models, store, lambda: KEY)
    assert signer.sign(NAME) == made
    expected = KEY.sign(Statement(NAME.parent, made.manifest_digest, made.weights_sha256))
    assert signatures(registry) == (expected,)
    signer.sign(NAME)
    assert signatures(registry) == (expected,)
    keys = TrustedKeys.parse(PUBLIC)
    statement = Statement(NAME.parent, made.manifest_sha256, made.weights_sha256)
    assert keys.require(statement, signatures(registry), NAME) == KEY.id


def test_without_a_key_it_says_how_to_get_one(registry, store):
    publish(registry, store)
    with pytest.raises(WrongStateError, match=r"rowmint keys signing FOLDER.*ROWMINT_SIGNING_KEY"):
        VersionSigner(registry.models, store, None).sign(NAME)
    assert signatures(registry) == ()


def test_what_is_not_published_is_not_signed(registry, store):
    with pytest.raises(ResourceNotFoundError):
        VersionSigner(registry.models, store, lambda: KEY).sign(NAME)


@pytest.mark.parametrize("part", ["manifest", "weights"])
@pytest.mark.parametrize("damage", ["flipped", "short", "gone"])
def test_a_damaged_file_is_not_signed(registry, store, part, damage):
    made = publish(registry, store)
    key = getattr(made, f"{part}_key")
    data = bytearray(store.get(key))
    store.delete(key)
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    if damage != "gone":
        store.put(key, bytes(data[: -1 if damage == "short" else None]))
    with pytest.raises(DataLossError):
        VersionSigner(registry.models, store, lambda: KEY).sign(NAME)
    assert signatures(registry) == ()


def test_weights_of_another_manifest_are_not_signed(registry, store):
    made = publish(registry, store)
    others = record("tvae", *stored("tvae"))
    store.put("elsewhere", stored("tvae")[1])
    with writing(registry.engine) as connection:
        changed = {"weights_key": "elsewhere", "weights_size": others.weights_size}
        connection.execute(update(model_versions).values(**changed, weights_sha256=others.weights_sha256))
    with pytest.raises(DataLossError, match="manifest") as caught:
        VersionSigner(registry.models, store, lambda: KEY).sign(NAME)
    assert caught.value.metadata == {"name": str(made.name)}
    assert signatures(registry) == ()


def test_what_is_not_a_manifest_is_not_signed(registry, store):
    publish(registry, store)
    body = json.loads(stored("independent")[0])
    del body["generator"]["weights"]
    manifest = rfc8785.dumps(body)
    store.put("elsewhere", manifest)
    digest = hashlib.sha256(manifest).digest()
    with writing(registry.engine) as connection:
        changed = {"manifest_key": "elsewhere", "manifest_size": len(manifest)}
        connection.execute(update(model_versions).values(**changed, manifest_sha256=digest, manifest_digest=digest))
    with pytest.raises(DataLossError):
        VersionSigner(registry.models, store, lambda: KEY).sign(NAME)
    assert signatures(registry) == ()


def test_a_key_file_is_read_again_when_it_changes(tmp_path):
    path = tmp_path / "signing-key.pem"
    path.write_bytes(PRIVATE)
    source = open_signing_key(str(path))
    assert source().id == KEY.id
    other, _ = generate_signing_key()
    (tmp_path / "new.pem").write_bytes(other)
    (tmp_path / "new.pem").replace(path)
    assert source().id == SigningKey.parse(other).id


def test_a_key_file_that_holds_none_is_refused_and_none_is_none(tmp_path):
    assert open_signing_key("") is None
    path = tmp_path / "signing-key.pem"
    with pytest.raises(UnavailableError, match=r"ROWMINT_SIGNING_KEY.*signing-key\.pem"):
        open_signing_key(str(path))
    path.write_bytes(PUBLIC)
    with pytest.raises(InvalidFieldError, match="not a private key"):
        open_signing_key(str(path))
