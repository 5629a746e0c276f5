"""Which versions a sampler serves: those that a key has signed which is trusted now."""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from rowmint.errors import DataLossError, InvalidFieldError, UnavailableError, UntrustedModelError
from rowmint.names import ModelName
from rowmint.rpc.project_threads import ProjectThreads
from rowmint.security.signing import Signature, SigningKey, Statement, generate_signing_key
from rowmint.synthesizer import choose_kernel
from sampler_service import model_cache
from sampler_service.model_cache import ModelCache
from sampler_service.trust import Trust, open_trusted_keys
from tests.golden.streams import Catalog, golden_catalog, reference

PAIRS = [generate_signing_key() for _ in range(3)]
KEYS = [SigningKey.parse(private) for private, _ in PAIRS]
MODEL = reference("ctgan").model


class SignedCatalog:
    """A catalog whose versions bear signatures; it counts how often they are read, and may be unreachable."""

    def __init__(self) -> None:
        self.catalog: Catalog = golden_catalog()
        self.signed: dict[str, list[Signature]] = {}
        self.requested: list[tuple[str, int]] = []
        self.away = False
        self.gate = threading.Event()
        self.gate.set()

    def sign(self, model: str, key: SigningKey) -> None:
        record = self.catalog.records[model]
        statement = Statement(record.name.parent, record.manifest_digest, record.weights_sha256)
        self.signed.setdefault(model, []).append(key.sign(statement))

    def resolve(self, ref, *, deleted=False, unpublished=False):
        if self.away:
            raise UnavailableError("away")
        return self.catalog.resolve(ref, deleted=deleted, unpublished=unpublished)

    def signatures(self, model, versions, *, needed=False):
        assert needed
        self.gate.wait(30)
        self.requested += [(model.model, version) for version in versions]
        if self.away:
            raise UnavailableError("away")
        return {version: tuple(self.signed.get(model.model, ())) for version in versions}


class KeysFile:
    """A file of trusted keys; each change is seen, however fast it comes."""

    def __init__(self, path: Path, *numbers: int) -> None:
        self.path = path
        self.changes = 0
        self.hold(*numbers)

    def hold(self, *numbers: int) -> None:
        self.write(b"".join(PAIRS[number][1] for number in numbers))

    def write(self, text: bytes) -> None:
        self.path.write_bytes(text)
        self.changes += 1
        os.utime(self.path, (self.changes, self.changes))


@pytest.fixture
def world():
    return SignedCatalog()


@pytest.fixture
def keys(tmp_path):
    return KeysFile(tmp_path / "trusted.pem", 0, 1)


@pytest.fixture
def executor():
    with ThreadPoolExecutor(4) as threads:
        yield threads


@pytest.fixture
def trust(world, keys):
    return Trust(open_trusted_keys(str(keys.path)), world)


def cache_of(world, trust, executor):
    return ModelCache(
        world,
        world.catalog.store,
        choose_kernel("numpy"),
        executor,
        1 << 28,
        lookups=ProjectThreads(executor, 4),
        trust=trust,
    )


def refused(trust, world, model="ctgan"):
    record = world.catalog.records[model]
    assert not trust.is_known(record.name.parent, record)
    with pytest.raises(UntrustedModelError) as caught:
        trust.require(record.name.parent, record)
    assert caught.value.metadata == {"name": str(record.name)}
    return caught.value.message


def accepted(trust, world, model="ctgan"):
    record = world.catalog.records[model]
    trust.require(record.name.parent, record)
    assert trust.is_known(record.name.parent, record)


# the verdict


def test_a_verdict_is_requested_once_while_the_keys_are_unchanged(world, trust):
    world.sign("ctgan", KEYS[1])
    record = world.catalog.records["ctgan"]
    assert not trust.is_known(MODEL, record)
    accepted(trust, world)
    world.away = True
    assert trust.is_known(MODEL, record)
    trust.require(MODEL, record)
    assert world.requested == [("ctgan", 1)]


def test_a_refusal_is_not_cached_as_the_version_may_be_signed_later(world, trust):
    assert "it is not signed" in refused(trust, world)
    world.sign("ctgan", KEYS[2])
    assert f"signed only by {KEYS[2].id[:16]}..." in refused(trust, world)
    world.sign("ctgan", KEYS[0])
    accepted(trust, world)


def test_a_removed_key_is_no_longer_trusted(world, trust, keys):
    world.sign("ctgan", KEYS[0])
    accepted(trust, world)
    keys.hold(1)
    refused(trust, world)
    keys.hold(1, 0)
    accepted(trust, world)
    keys.hold()
    refused(trust, world)


def test_keys_are_changed_while_the_registry_is_unavailable(world, trust, keys):
    world.sign("ctgan", KEYS[0])
    world.sign("ctgan", KEYS[1])
    accepted(trust, world)
    world.away = True
    keys.hold(1)
    accepted(trust, world)
    keys.hold(2)
    record = world.catalog.records["ctgan"]
    assert not trust.is_known(MODEL, record)
    with pytest.raises(UnavailableError):
        trust.require(MODEL, record)


def test_a_version_signed_again_is_served_after_its_first_key_is_removed(world, trust, keys):
    world.sign("ctgan", KEYS[0])
    accepted(trust, world)
    keys.hold(1)
    refused(trust, world)
    world.sign("ctgan", KEYS[1])
    accepted(trust, world)


def test_a_file_that_cannot_be_understood_leaves_the_last_keys_in_force(world, trust, keys):
    world.sign("ctgan", KEYS[0])
    world.sign("tvae", KEYS[2])
    accepted(trust, world)
    with structlog.testing.capture_logs() as logged:
        keys.write(PAIRS[2][1][:-20])
        accepted(trust, world)
        refused(trust, world, "tvae")
        keys.path.unlink()
        accepted(trust, world)
    assert [line["log_level"] for line in logged] == ["warning", "warning"]
    keys.hold(2)
    refused(trust, world)
    accepted(trust, world, "tvae")


def test_a_sampler_does_not_start_with_a_file_that_holds_something_else(tmp_path):
    path = tmp_path / "keys.pem"
    with pytest.raises(UnavailableError, match=r"ROWMINT_TRUSTED_KEYS.*keys\.pem"):
        open_trusted_keys(str(path))
    path.write_bytes(PAIRS[0][0])
    with pytest.raises(InvalidFieldError, match="private key"):
        open_trusted_keys(str(path))


def test_a_verdict_is_on_these_files_under_this_name_alone(world, trust):
    world.sign("ctgan", KEYS[0])
    accepted(trust, world)
    record = world.catalog.records["ctgan"]
    for model, other in (
        (ModelName(MODEL.project, "other"), record),
        (ModelName("other", MODEL.model), record),
        (MODEL, replace(record, manifest_sha256=bytes(32))),
        (MODEL, replace(record, weights_sha256=bytes(32))),
    ):
        assert not trust.is_known(model, other)
        with pytest.raises(UntrustedModelError, match="the object store was tampered with"):
            trust.require(model, other)


# the cache


def get(world, trust, executor, model="ctgan"):
    return asyncio.run(cache_of(world, trust, executor).get(reference(model)))


def test_a_signed_version_is_served(world, trust, executor):
    world.sign("ctgan", KEYS[0])
    assert get(world, trust, executor).name == world.catalog.records["ctgan"].name


def test_nothing_of_an_untrusted_version_is_read(world, trust, executor, monkeypatch):
    read = []
    monkeypatch.setattr(world.catalog.store, "get", read.append)
    with pytest.raises(UntrustedModelError):
        get(world, trust, executor)
    assert read == []


def test_without_trusted_keys_signatures_are_not_looked_at(world, executor):
    world.signed["ctgan"] = [Signature("x", "spoilt")]
    assert get(world, None, executor).name == world.catalog.records["ctgan"].name
    assert world.requested == []


def test_a_loaded_model_is_no_longer_served_once_its_key_is_removed(world, trust, keys, executor):
    world.sign("ctgan", KEYS[0])

    async def ask():
        cache = cache_of(world, trust, executor)
        loaded = await cache.get(reference("ctgan"))
        keys.hold(1)
        with pytest.raises(UntrustedModelError):
            await cache.get(reference("ctgan"))
        keys.hold(0)
        assert (await cache.get(reference("ctgan"))).model is loaded.model

    asyncio.run(ask())


def test_a_row_that_names_another_models_signed_files_is_refused(world, trust, executor):
    for model in ("ctgan", "tvae"):
        world.sign(model, KEYS[0])
    own = world.catalog.records["ctgan"].name
    world.catalog.records["ctgan"] = replace(world.catalog.records["tvae"], name=own)
    with pytest.raises(UntrustedModelError, match="the object store was tampered with"):
        get(world, trust, executor)
    world.signed["ctgan"] = world.signed["tvae"]  # and its signature, too
    with pytest.raises(UntrustedModelError, match="the object store was tampered with"):
        get(world, trust, executor)
    assert get(world, trust, executor, "tvae").name.model == "tvae"


def test_a_signed_version_under_the_name_of_another_model_is_refused(world, trust, executor):
    world.sign("tvae", KEYS[0])
    world.signed["ctgan"] = world.signed["tvae"]
    # With its own name: as if the model were renamed.
    world.catalog.records["ctgan"] = world.catalog.records["tvae"]
    with pytest.raises(UntrustedModelError, match="the object store was tampered with"):
        get(world, trust, executor)


@pytest.mark.parametrize("registered", [True, False])
def test_files_that_are_swapped_for_another_models_are_refused(world, trust, executor, registered):
    world.sign("ctgan", KEYS[0])
    ours, others = world.catalog.records["ctgan"], world.catalog.records["tvae"]
    for key, other in ((ours.manifest_key, others.manifest_key), (ours.weights_key, others.weights_key)):
        data = world.catalog.store.get(other)
        world.catalog.store.delete(key)
        world.catalog.store.put(key, data)
    if registered:  # the registry, too, is changed to what is stored now
        places = ("manifest", "weights")
        facts = {f"{place}_{fact}" for place in places for fact in ("size", "sha256")} | {"manifest_digest"}
        changed = {fact: getattr(others, fact) for fact in (*facts, "model_digest")}
        world.catalog.records["ctgan"] = replace(ours, **changed)
    with pytest.raises(UntrustedModelError if registered else DataLossError):
        get(world, trust, executor)


def test_weights_alone_cannot_be_swapped_behind_a_signed_manifest(world, trust, executor):
    world.sign("ctgan", KEYS[0])
    ours, others = world.catalog.records["ctgan"], world.catalog.records["tvae"]
    changed = {fact: getattr(others, fact) for fact in ("weights_key", "weights_size", "weights_sha256")}
    world.catalog.records["ctgan"] = replace(ours, **changed)
    with pytest.raises(UntrustedModelError):
        get(world, trust, executor)


def test_a_registry_that_hangs_delays_none_that_is_known(world, trust, executor, monkeypatch):
    world.sign("ctgan", KEYS[0])
    world.sign("tvae", KEYS[0])

    async def ask():
        cache = cache_of(world, trust, executor)
        await cache.get(reference("ctgan"))
        world.gate.clear()
        try:
            with monkeypatch.context() as patched:
                patched.setattr(model_cache, "_RESOLVE_SECONDS", 0.2)
                with pytest.raises(UnavailableError, match="does not answer"):
                    await cache.get(reference("tvae"))
                assert (await cache.get(reference("ctgan"))).name.model == "ctgan"
        finally:
            world.gate.set()
        assert (await cache.get(reference("tvae"))).name.model == "tvae"

    asyncio.run(ask())
