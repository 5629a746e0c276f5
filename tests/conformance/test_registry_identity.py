"""Which registry it is, and how far it has come: the same in both parts, and never back."""

import threading
from uuid import uuid4

import pytest

from rowmint.registry import Identity, Part, migrate, open_models_registry, open_registry
from rowmint.registry.engine import writing
from rowmint.registry.identity import assign_identity
from tests.conformance.registries import publish, ready


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "postgresql":
        return request.getfixturevalue("migrated_postgres_url")
    found = f"sqlite:///{tmp_path}/registry"
    registry = open_registry(found)
    migrate(registry.engine)
    registry.close()
    return found


@pytest.fixture
def registry(url):
    found = open_registry(url)
    yield found
    found.close()


def at_once(count, call):
    """Call from so many threads at once, and return what was returned."""
    barrier, answers = threading.Barrier(count), []

    def work():
        barrier.wait()
        answers.append(call())

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def generations(registry):
    return [registry.identity.read(part).generation for part in (Part.DATA, Part.MODELS)]


def test_a_registry_has_no_identity_before_it_is_given_one(registry, url):
    reader = open_models_registry(url)
    assert [registry.identity.read(part) for part in Part] == [None, None]
    assert registry.identity.advance() == dict.fromkeys(Part)
    assert reader.identity() is None
    claimed = registry.identity.claim("a" * 32)
    assert claimed == {part: Identity("a" * 32, 1) for part in Part}
    assert reader.identity() == claimed[Part.MODELS]
    assert registry.identity.claim("b" * 32) == claimed
    reader.close()


def test_all_that_claim_at_once_get_the_same(registry):
    answers = at_once(8, lambda: registry.identity.claim(uuid4().hex))
    assert len(answers) == 8
    assert all(answer == answers[0] for answer in answers)
    assert {part: registry.identity.read(part) for part in Part} == answers[0]


def test_a_part_without_identity_gets_that_of_the_other(registry):
    with writing(registry.engine) as connection:
        assign_identity(connection, {Part.MODELS: Identity("a" * 32, 7)})
    assert registry.identity.claim("b" * 32) == {Part.MODELS: Identity("a" * 32, 7), Part.DATA: Identity("a" * 32, 1)}


def test_no_generation_is_had_twice(registry):
    registry.identity.claim("a" * 32)
    answers = at_once(8, registry.identity.advance)
    for part in Part:
        assert sorted(answer[part].generation for answer in answers) == list(range(2, 10))


def test_what_becomes_ready_or_is_published_is_a_generation_of_its_own(registry):
    registry.identity.claim("a" * 32)
    dataset = ready(registry)
    assert generations(registry) == [2, 1]
    publish(registry)  # of another dataset
    assert generations(registry) == [4, 2]
    assert dataset.canonical_key is not None
