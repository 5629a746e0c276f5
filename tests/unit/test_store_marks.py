"""Which stores a registry may serve: its own, and none that knows more than it does."""

import threading

import pytest

from rowmint.errors import UnavailableError, WrongStateError
from rowmint.names import ModelName
from rowmint.objects import MemoryStore
from rowmint.registry import Identity, Part, migrate, open_models_registry, open_registry
from rowmint.store_marks import Mark, read_marks, write_mark
from sampler_service.store_check import StoreCheck
from tests.conformance.registries import copy_registry, publish, ready, segment
from trainer_service.jobs.stores import Stores
from trainer_service.object_keys import segment_key, table_key, version_keys
from trainer_service.store_claims import claim_stores, mark_progress, renew_claims

UID = "0" * 32


@pytest.fixture
def opened(tmp_path):
    """Give a function that opens the registry in a folder, migrated."""
    found = []

    def make(name="registry"):
        registry = open_registry(f"sqlite:///{tmp_path / name}")
        migrate(registry.engine)
        found.append(registry)
        return registry

    yield make
    for registry in found:
        registry.close()


@pytest.fixture
def stores():
    return Stores(MemoryStore(), MemoryStore())


def contents(stores):
    return [{key: store.get(key) for key in store.list("")} for store in (stores.data, stores.models)]


def marks(stores):
    return [[(mark.part, mark.identity) for mark in read_marks(store)] for store in (stores.data, stores.models)]


def refused(registry, stores, part, match):
    """Claim stores, which is refused for what is in that of a part; nothing is changed."""
    before = contents(stores)
    with pytest.raises(WrongStateError, match=match) as caught:
        claim_stores(registry, stores)
    assert {"data": "the data store", "models": "the models' store"}[part] in caught.value.message
    assert contents(stores) == before


def test_empty_stores_are_claimed_and_served_from_then_on(opened, stores):
    registry = opened()
    claim_stores(registry, stores)
    first = registry.identity.read(Part.DATA)
    assert registry.identity.read(Part.MODELS) == first
    assert marks(stores) == [[(Part.DATA, first)], [(Part.MODELS, first)]]
    for generation in (2, 3):
        renew_claims(registry, stores)
        now = Identity(first.uid, generation)
        assert marks(stores) == [[(Part.DATA, now)], [(Part.MODELS, now)]]
    claim_stores(registry, stores)
    claim_stores(opened(), stores)


@pytest.mark.parametrize("part", Part)
def test_a_store_with_foreign_objects_alone_is_claimed(opened, stores, part):
    stores.of(part).put("photos/cat.png", b"x")
    claim_stores(opened(), stores)


@pytest.mark.parametrize("part", Part)
@pytest.mark.parametrize("claimed", [False, True])
def test_a_store_whose_objects_the_registry_does_not_know_is_refused(opened, stores, part, claimed):
    registry = opened()
    if claimed:  # of other, empty stores
        claim_stores(registry, Stores(MemoryStore(), MemoryStore()))
    stores.data.put("photos/cat.png", b"x")
    stores.of(part).put(table_key(UID, 1) if part is Part.DATA else version_keys_of(UID)[0], b"x")
    refused(registry, stores, part, "the registry knows none of the 1 objects in")


def version_keys_of(uid):
    return version_keys(ModelName("p", "m"), uid, 1)


def test_a_store_from_before_marks_is_claimed_by_the_registry_that_knows_it(opened, stores):
    registry = opened()
    record = registry.datasets.create("p", "d", data_format={})
    registry.datasets.take_writer(record.name)
    for key in (segment_key(record.uid, 1, 0), table_key(UID, 1)):
        stores.data.put(key, b"x")
    claim_stores(registry, stores)
    assert len(read_marks(stores.data)) == 1


def test_a_models_part_that_is_missing_is_not_served_as_an_empty_one(opened, stores, tmp_path):
    registry = opened()
    version = publish(registry)
    for key in version_keys_of(version.job_uid):
        stores.models.put(key, b"x")
    registry.close()
    for name in ("models.db", "models.db-wal", "models.db-shm"):
        (tmp_path / "registry" / name).unlink(missing_ok=True)
    refused(opened(), stores, Part.MODELS, "the registry knows none of the 2 objects")


@pytest.mark.parametrize("part", Part)
def test_a_store_of_another_registry_is_refused(opened, stores, part):
    theirs = Stores(MemoryStore(), MemoryStore())
    claim_stores(opened("theirs"), theirs)
    mixed = Stores(theirs.data, stores.models) if part is Part.DATA else Stores(stores.data, theirs.models)
    refused(opened("unclaimed"), mixed, part, "and this one has never claimed a store")
    mine = opened()
    claim_stores(mine, stores)
    refused(mine, mixed, part, f"and this one is {mine.identity.read(part).uid}")


@pytest.mark.parametrize("part", Part)
def test_parts_of_different_registries_are_refused(opened, stores, tmp_path, part):
    mine, theirs = opened(), opened("theirs")
    claim_stores(mine, stores)
    claim_stores(theirs, Stores(MemoryStore(), MemoryStore()))
    for registry in (mine, theirs):
        registry.close()
    (tmp_path / "theirs" / f"{part}.db").replace(tmp_path / "registry" / f"{part}.db")
    with pytest.raises(WrongStateError, match="the registry's two parts belong to different registries"):
        claim_stores(opened(), stores)


@pytest.mark.parametrize("part", Part)
def test_a_part_that_is_older_than_its_store_is_refused(opened, stores, tmp_path, part):
    registry = opened()
    claim_stores(registry, stores)
    copy_registry(tmp_path / "registry", tmp_path / "backup")
    renew_claims(registry, stores)
    registry.close()
    (tmp_path / "backup" / f"{part}.db").replace(tmp_path / "registry" / f"{part}.db")
    refused(opened(), stores, part, r"the registry is older than .* \(generation 1 of 2\)")


@pytest.mark.parametrize("event", ["ready", "published"])
def test_what_is_ready_or_published_is_never_hidden_by_a_backup_from_before_it(opened, stores, tmp_path, event):
    registry = opened()
    claim_stores(registry, stores)
    record = registry.datasets.create("p", "d", data_format={})
    epoch = registry.datasets.take_writer(record.name).writer_epoch
    registry.datasets.commit_segment(record.uid, epoch, segment(0, 0))
    if event == "published":
        publish(registry)
    copy_registry(tmp_path / "registry", tmp_path / "backup")
    mark_progress(registry, stores, *Part)
    claim_stores(opened("backup"), stores)
    if event == "published":
        publish(registry, "v2")
    else:
        ready(registry, "other")
    mark_progress(registry, stores, *Part)
    refused(opened("backup"), stores, Part.DATA, "the registry is older than")


def test_progress_of_a_registry_that_has_claimed_nothing_leaves_no_mark(opened, stores):
    mark_progress(opened(), stores, *Part)
    assert contents(stores) == [{}, {}]


def test_progress_that_cannot_be_marked_is_left_to_the_next_sweep(opened, stores, monkeypatch):
    registry = opened()
    claim_stores(registry, stores)

    def away(*_):
        raise UnavailableError("the store is away", retry_after=1.0)

    monkeypatch.setattr(stores.data, "put", away)
    mark_progress(registry, stores, Part.DATA)


@pytest.mark.parametrize("same", [True, False], ids=["one registry", "two registries"])
def test_of_trainers_that_claim_an_empty_store_at_once_only_those_of_one_registry_get_it(opened, stores, same):
    registries = [opened("0" if same else str(index)) for index in range(4)]
    barrier, served, failed = threading.Barrier(4), [], []

    def claim(registry):
        barrier.wait()
        try:
            claim_stores(registry, stores)
            served.append(registry.identity.read(Part.DATA).uid)
        except WrongStateError as error:
            failed.append(error.message)

    threads = [threading.Thread(target=claim, args=(registry,)) for registry in registries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(served) + len(failed) == 4
    assert (len(set(served)), len(served)) == (1, 4) if same else len(served) <= 1
    # What is left in the store belongs to the registry that is served, if one is.
    assert {identity.uid for found in marks(stores) for _, identity in found} == set(served)


def test_a_trainer_starts_while_another_of_its_registry_makes_progress(opened, tmp_path):
    registry, served = opened(), []

    class Progressing(MemoryStore):
        """A store that another trainer marks whenever it has been listed."""

        def list(self, prefix):
            found = list(super().list(prefix))
            if served and not served[-1]:
                served.append(True)
                renew_claims(registry, Stores(self, self))
                served.append(False)
            return iter(found)

    store = Progressing()
    claim_stores(registry, Stores(store, store))
    served.append(False)
    claim_stores(registry, Stores(store, store))
    assert served.count(True) > 1


def test_an_older_mark_than_the_newest_is_deleted_by_the_next(stores):
    for generation in (5, 3, 7):
        write_mark(stores.data, Mark(Part.DATA, Identity(UID, generation)))
    write_mark(stores.data, Mark(Part.MODELS, Identity(UID, 2)))  # one bucket for both
    assert {(mark.part, mark.identity.generation) for mark in read_marks(stores.data)} == {
        (Part.DATA, 7),
        (Part.MODELS, 2),
    }


def test_a_sampler_loads_from_its_own_store_or_one_that_says_nothing(opened, stores, tmp_path):
    registry = opened()
    reader = open_models_registry(f"sqlite:///{tmp_path}/registry")
    StoreCheck(reader.identity, stores.models)()
    claim_stores(registry, stores)
    check = StoreCheck(reader.identity, stores.models)
    check()
    write_mark(stores.models, Mark(Part.MODELS, Identity(UID, 1)))
    check()  # seen to be its own before
    with pytest.raises(UnavailableError, match="the models' store belongs to another registry"):
        StoreCheck(reader.identity, stores.models)()
    migrate(registry.engine, {"rowmint_models": "models_0004"})
    StoreCheck(reader.identity, stores.models)()
    reader.close()


def test_a_sampler_whose_registry_is_away_serves_what_it_can(stores):
    def away():
        raise UnavailableError("the registry is away", retry_after=1.0)

    write_mark(stores.models, Mark(Part.MODELS, Identity(UID, 1)))
    StoreCheck(away, stores.models)()
