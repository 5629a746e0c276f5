"""Signatures in a registry: there with their version, kept with it, gone with it."""

import threading

import pytest
from sqlalchemy import func, select

from rowmint.errors import FencedError, ResourceNotFoundError, UnavailableError
from rowmint.names import ModelName, ModelVersionName
from rowmint.registry import migrate, open_models_registry, open_registry
from rowmint.registry.engine import reading
from rowmint.registry.tables import MODELS, version_signatures
from rowmint.security.signing import Signature
from tests.conformance.registries import MODEL, TRAIN, new_version, train

FIRST = ModelVersionName("p", "m", 1)
ONE, TWO = Signature("1" * 64, '{"of": 1}'), Signature("2" * 64, '{"of": 2}')


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path):
    if request.param == "postgresql":
        return request.getfixturevalue("migrated_postgres_url")
    return f"sqlite:///{tmp_path}/registry"


@pytest.fixture
def registry(url):
    found = open_registry(url)
    migrate(found.engine)
    yield found
    found.close()


def publish(registry, key="v", model=MODEL, signatures=(ONE,)):
    train(registry, f"j-{key}")
    job = registry.jobs.claim("w", 60, TRAIN)
    return registry.models.publish(job.uid, job.epoch, model, new_version(key), signatures=signatures)


def rows(registry):
    with reading(registry.engine) as connection:
        return connection.execute(select(func.count()).select_from(version_signatures)).scalar_one()


def test_a_version_is_published_with_its_signatures(registry):
    publish(registry, "a", signatures=(ONE, TWO))
    publish(registry, "b", signatures=())
    publish(registry, "c")
    assert registry.models.signatures(MODEL, [1, 2, 3]) == {1: (ONE, TWO), 2: (), 3: (ONE,)}
    assert registry.models.signatures(MODEL, [3]) == {3: (ONE,)}
    assert registry.models.signatures(MODEL, []) == {}


def test_signatures_are_a_models_own(registry):
    publish(registry, "a")
    publish(registry, "b", ModelName("p", "n"), (TWO,))
    publish(registry, "c", ModelName("q", "m"), ())
    found = [registry.models.signatures(model, [1]) for model in (MODEL, ModelName("p", "n"), ModelName("q", "m"))]
    assert found == [{1: (ONE,)}, {1: (TWO,)}, {1: ()}]
    assert registry.models.signatures(ModelName("p", "none"), [1, 9]) == {1: (), 9: ()}


def test_publishing_again_adds_no_signature(registry):
    train(registry)
    job = registry.jobs.claim("w", 60, TRAIN)
    for signatures in ((ONE,), (ONE,), (TWO,)):  # the last: its key was changed meanwhile
        registry.models.publish(job.uid, job.epoch, MODEL, new_version(), signatures=signatures)
    assert registry.models.signatures(MODEL, [1]) == {1: (ONE,)}


def test_an_attempt_that_may_not_publish_leaves_no_signature(registry):
    train(registry)
    job = registry.jobs.claim("w", 60, TRAIN)
    with pytest.raises(FencedError):
        registry.models.publish(job.uid, job.epoch + 1, MODEL, new_version(), signatures=(ONE,))
    assert rows(registry) == 0


def test_a_version_can_be_signed_later_and_by_several(registry):
    publish(registry, signatures=())
    for signature in (TWO, ONE, TWO):
        registry.models.sign(FIRST, signature)
    assert set(registry.models.signatures(MODEL, [1])[1]) == {ONE, TWO}
    assert rows(registry) == 2


def test_a_key_has_one_signature_and_the_newest_counts(registry):
    publish(registry, signatures=(Signature(ONE.key_id, "spoilt"), TWO))
    registry.models.sign(FIRST, ONE)
    assert set(registry.models.signatures(MODEL, [1])[1]) == {ONE, TWO}


def test_what_is_not_there_cannot_be_signed(registry):
    publish(registry, signatures=())
    for name in (ModelVersionName("p", "m", 2), ModelVersionName("p", "n", 1), ModelVersionName("q", "m", 1)):
        with pytest.raises(ResourceNotFoundError):
            registry.models.sign(name, ONE)
    registry.models.delete_version(FIRST, keep_seconds=3600)
    with pytest.raises(ResourceNotFoundError):
        registry.models.sign(FIRST, ONE)
    assert rows(registry) == 0


def test_a_deleted_version_keeps_its_signatures_until_it_is_purged(registry):
    publish(registry, "a", signatures=(ONE, TWO))
    publish(registry, "b")
    registry.models.delete_version(FIRST, keep_seconds=3600)
    assert registry.models.purge() == 0
    assert set(registry.models.signatures(MODEL, [1])[1]) == {ONE, TWO}
    registry.models.undelete_version(FIRST)
    assert set(registry.models.signatures(MODEL, [1])[1]) == {ONE, TWO}
    registry.models.delete_version(FIRST)
    assert registry.models.purge() == 1
    assert registry.models.signatures(MODEL, [1, 2]) == {1: (), 2: (ONE,)}
    assert rows(registry) == 1


def test_signers_at_the_same_moment_leave_one_signature_each(registry):
    publish(registry, signatures=())
    failed = []

    def sign(signature):
        try:
            registry.models.sign(FIRST, signature)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
            failed.append(error)

    threads = [threading.Thread(target=sign, args=(one,)) for one in (ONE, TWO) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (failed, set(registry.models.signatures(MODEL, [1])[1]), rows(registry)) == ([], {ONE, TWO}, 2)


def test_a_reader_sees_signatures_and_cannot_sign(registry, url):
    publish(registry)
    reader = open_models_registry(url)
    assert reader.models.signatures(MODEL, [1], needed=True) == {1: (ONE,)}
    with pytest.raises(UnavailableError):
        reader.models.sign(FIRST, TWO)
    registry.models.sign(FIRST, TWO)
    assert set(reader.models.signatures(MODEL, [1])[1]) == {ONE, TWO}
    reader.close()


@pytest.mark.parametrize("revision", ["models_0001", "models_0002"])
def test_in_a_registry_of_a_time_without_signatures_nothing_is_signed(registry, url, revision):
    publish(registry)
    try:
        migrate(registry.engine, revisions={MODELS: revision})
        reader = open_models_registry(url)
        assert reader.models.signatures(MODEL, [1]) == {1: ()}
        with pytest.raises(UnavailableError, match=r"older than this code.*start the trainer"):
            reader.models.signatures(MODEL, [1], needed=True)
        reader.close()
    finally:
        migrate(registry.engine)
    assert registry.models.signatures(MODEL, [1]) == {1: ()}
    registry.models.sign(FIRST, ONE)
    assert registry.models.signatures(MODEL, [1], needed=True) == {1: (ONE,)}
