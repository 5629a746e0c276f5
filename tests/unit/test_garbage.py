"""The sweeper: it deletes what nothing needs, all of it and nothing else."""

import hashlib
import os
import threading
from datetime import UTC, datetime, timedelta

import google_crc32c
import pytest
from sqlalchemy import text

from rowmint.errors import UnavailableError, WrongStateError
from rowmint.names import DatasetName
from rowmint.objects import MemoryStore
from rowmint.registry import Part, SegmentRecord, migrate, open_registry
from rowmint.registry.engine import writing
from tests.conformance.registries import copy_registry
from trainer_service import metrics
from trainer_service.datasets.upload import UploadService
from trainer_service.garbage import OrphanRules, Sweeper
from trainer_service.jobs.scratch import ScratchFolder
from trainer_service.jobs.stores import Stores
from trainer_service.object_keys import aside_key, checkpoint_key, kept_aside, segment_key, table_key
from trainer_service.store_claims import claim_stores

CSV = b"a,b\n1,2\n"
AT_ONCE = OrphanRules(0.0, 0.0)
NAME = DatasetName("p", "d")


class Store(MemoryStore):
    """A store that can be away, and whose clock a test sets."""

    away = False

    def __init__(self):
        super().__init__(lambda: datetime.now(UTC) - timedelta(seconds=self.seconds_ago))
        self.seconds_ago = 0.0

    def delete(self, key):
        if self.away:
            raise UnavailableError("the store is away", retry_after=1.0)
        super().delete(key)

    def objects(self) -> set[str]:
        """Return the keys of all objects but the marks."""
        return {key for key in self.list("") if not key.startswith(("_rowmint/data/", "_rowmint/models/"))}


@pytest.fixture
def registry(tmp_path):
    found = open_registry(f"sqlite:///{tmp_path}/registry")
    migrate(found.engine)
    yield found
    found.close()


@pytest.fixture
def stores(registry):
    found = Stores(Store(), Store())
    claim_stores(registry, found)
    return found


@pytest.fixture
def sweeper(registry, stores, tmp_path):
    """Give a function that makes a sweeper, which deletes orphans at once by default."""

    def made(*, seconds=3600.0, upload_idle_seconds=3600.0, orphans=AT_ONCE, over=None) -> Sweeper:
        return Sweeper(
            over or registry,
            stores,
            tmp_path / "scratch",
            seconds=seconds,
            upload_idle_seconds=upload_idle_seconds,
            orphans=orphans,
        )

    return made


def upload(registry, store):
    service = UploadService(registry.datasets, store, segment_bytes=4)
    record = service.create("p", "d", data_format={"type": "csv"})
    writer = service.open(NAME)
    writer.append(0, CSV, google_crc32c.value(CSV))
    return record, writer


def left_behind(registry, store, *, seconds_ago=0.0) -> str:
    """Store what a writer has left that was overtaken, and return its key."""
    record = registry.datasets.create("p", "", data_format={"type": "csv"})
    first = registry.datasets.take_writer(record.name)
    registry.datasets.take_writer(record.name)
    key = segment_key(record.uid, first.writer_epoch, 0)
    store.seconds_ago = seconds_ago
    store.put(key, b"rows")
    store.seconds_ago = 0.0
    return key


def test_needed_objects_stay_and_garbage_is_removed(registry, stores, sweeper):
    data, models = stores.data, stores.models
    record, writer = upload(registry, data)
    named = data.objects()
    about_to_be_named = segment_key(record.uid, writer.record.writer_epoch, 99)
    ended = segment_key(record.uid, 0, 1)
    # As of another registry, or of one from before it was restored.
    unknown = {table_key(record.uid, 1), segment_key(record.uid, 7, 1), checkpoint_key("0" * 32, 1, 5)}
    foreign = "foreign/object"
    for key in (about_to_be_named, ended, *unknown, foreign):
        data.put(key, b"x")
    version = f"p/m/{'0' * 32}-1/weights.safetensors"
    for key in (version, "p/m/notes.txt"):
        models.put(key, b"x")
    sweeper().sweep()
    assert data.objects() == {*named, about_to_be_named, foreign, *unknown}
    assert models.objects() == {version, "p/m/notes.txt"}
    assert [metrics.REGISTRY.get_sample_value("rowmint_unknown_objects", {"store": part}) for part in Part] == [3, 1]


def test_an_orphan_younger_than_it_must_be_is_left_alone(registry, stores, sweeper):
    young, old = (left_behind(registry, stores.data, seconds_ago=ago) for ago in (1800.0, 7200.0))
    sweeper(orphans=OrphanRules(3600.0, 0.0)).sweep()
    assert stores.data.objects() == {young}
    assert young != old


def test_an_orphan_is_kept_aside_and_deleted_when_its_time_is_up(registry, stores, sweeper, monkeypatch):
    key = left_behind(registry, stores.data)
    patient = sweeper(orphans=OrphanRules(0.0, 3600.0))
    for _ in range(2):
        patient.sweep()
        ((aside, kept),) = ((found, kept_aside(found)) for found in stores.data.objects())
        assert kept[0] == key
        assert stores.data.get(aside) == b"rows"
    now = registry.orphans.now()
    monkeypatch.setattr(registry.orphans, "now", lambda: now + timedelta(seconds=3601))
    patient.sweep()
    assert stores.data.objects() == set()


@pytest.mark.parametrize("orphan", ["aside", "put back"])
def test_what_another_trainer_has_swept_meanwhile_holds_up_nothing(registry, stores, sweeper, monkeypatch, orphan):
    key = left_behind(registry, stores.data)
    patient = sweeper(orphans=OrphanRules(0.0, 3600.0))
    if orphan == "put back":
        patient.sweep()
        (record,) = registry.datasets.list("p").items
        registry.datasets.commit_segment(record.uid, record.writer_epoch, SegmentRecord(0, 0, 4, bytes(32), key))
    move = stores.data.move

    def also_moved(source, target):
        stores.data.delete(source)
        move(source, target)

    monkeypatch.setattr(stores.data, "move", also_moved)
    patient.sweep()
    assert stores.data.objects() == set()


def test_what_is_kept_aside_for_a_dataset_that_is_deleted_is_deleted_at_once(registry, stores, sweeper):
    left_behind(registry, stores.data)
    patient = sweeper(orphans=OrphanRules(0.0, 3600.0))
    patient.sweep()
    assert len(stores.data.objects()) == 1
    (record,) = registry.datasets.list("p").items
    registry.datasets.delete(record.name)
    patient.sweep()
    assert stores.data.objects() == set()


def test_what_is_kept_aside_is_put_back_once_a_row_names_it(registry, stores, sweeper):
    key = left_behind(registry, stores.data)
    patient = sweeper(orphans=OrphanRules(0.0, 3600.0))
    patient.sweep()
    (record,) = registry.datasets.list("p").items
    segment = SegmentRecord(0, 0, 4, bytes(32), key)  # a newer registry was restored, which names it
    registry.datasets.commit_segment(record.uid, record.writer_epoch, segment)
    patient.sweep()
    assert (stores.data.objects(), stores.data.get(key)) == ({key}, b"rows")


def test_what_is_kept_aside_and_has_an_unknown_maker_stays(stores, sweeper):
    aside = aside_key(checkpoint_key("0" * 32, 1, 5), datetime(2020, 1, 1, tzinfo=UTC))
    stores.data.put(aside, b"x")
    sweeper(orphans=OrphanRules(0.0, 3600.0)).sweep()
    assert stores.data.objects() == {aside}


def test_of_a_registry_that_is_newer_than_this_release_only_the_lists_are_swept(registry, stores, sweeper):
    left = left_behind(registry, stores.data)
    upload(registry, stores.data)
    registry.datasets.delete(NAME)
    with writing(registry.engine) as connection:
        connection.execute(text("UPDATE rowmint_models.alembic_version SET version_num = 'models_9999'"))
    sweeper().sweep()
    assert (stores.data.objects(), registry.datasets.garbage()) == ({left}, ())


def test_a_registry_that_is_put_in_the_place_of_another_sweeps_nothing(registry, stores, sweeper, tmp_path):
    left_behind(registry, stores.data)
    other = open_registry(f"sqlite:///{tmp_path}/other")
    migrate(other.engine)
    for claimed in (False, True):
        if claimed:
            claim_stores(other, Stores(MemoryStore(), MemoryStore()))
        before = [set(store.entries("")) for store in (stores.data, stores.models)]
        with pytest.raises(WrongStateError, match="the data store belongs to the registry"):
            sweeper(over=other).sweep()
        assert [set(store.entries("")) for store in (stores.data, stores.models)] == before
    other.close()


def test_a_registry_that_is_restored_under_a_running_trainer_sweeps_nothing(registry, stores, sweeper, tmp_path):
    left_behind(registry, stores.data)
    copy_registry(tmp_path / "registry", tmp_path / "backup")
    sweeper(orphans=OrphanRules(3600.0, 0.0)).sweep()
    restored = open_registry(f"sqlite:///{tmp_path}/backup")
    sweeper(orphans=OrphanRules(3600.0, 0.0)).sweep()
    before = [set(store.entries("")) for store in (stores.data, stores.models)]
    for _ in range(3):  # more often than the store is ahead: being refused is no progress
        with pytest.raises(WrongStateError, match="the registry is older than the data store"):
            sweeper(over=restored).sweep()
    assert [set(store.entries("")) for store in (stores.data, stores.models)] == before
    restored.close()


def test_a_deleted_dataset_leaves_nothing(registry, stores, sweeper):
    data = stores.data
    record, writer = upload(registry, data)
    writer.finish(len(CSV), hashlib.sha256(CSV).digest())
    job = registry.jobs.claim("w", 60, ("ingest",))
    data.put(table_key(record.uid, job.epoch), b"x")
    data.put(checkpoint_key(job.uid, job.epoch, 1), b"x")
    registry.datasets.delete(NAME)
    sweeper().sweep()
    assert (data.objects(), registry.datasets.garbage()) == (set(), ())


def test_an_abandoned_upload_leaves_nothing_but_its_reason(registry, stores, sweeper):
    upload(registry, stores.data)
    sweeper(upload_idle_seconds=0).sweep()
    assert stores.data.objects() == set()
    (found,) = registry.datasets.list("p").items
    assert found.errors[0].message.startswith("the upload was abandoned")


def test_what_cannot_be_deleted_is_deleted_by_the_next_sweep(registry, stores, sweeper):
    data = stores.data
    upload(registry, data)
    registry.datasets.delete(NAME)
    data.away = True
    with pytest.raises(UnavailableError):
        sweeper().sweep()
    assert len(data.objects()) == len(registry.datasets.garbage()) > 0
    data.away = False
    sweeper().sweep()
    assert (data.objects(), registry.datasets.garbage()) == (set(), ())


def test_temporary_files_of_an_ended_worker_are_removed_and_those_of_a_running_one_kept(sweeper, tmp_path):
    with ScratchFolder(tmp_path / "scratch") as running:
        ended = ScratchFolder(tmp_path / "scratch")
        (ended.path / "table.parquet").write_bytes(b"rows")
        os.close(ended._lock)  # as its end would
        sweeper().sweep()
        assert [path.exists() for path in (running.path, ended.path)] == [True, False]


def test_a_scratch_folder_that_cannot_be_read_holds_up_nothing(registry, stores, sweeper, tmp_path):
    data = stores.data
    upload(registry, data)
    registry.datasets.delete(NAME)
    (tmp_path / "scratch").write_bytes(b"no folder")
    sweeper().sweep()
    assert data.objects() == set()


def test_it_sweeps_at_once_and_again_and_outlives_a_fault(sweeper, monkeypatch):
    swept = threading.Semaphore(0)
    outcomes = iter([UnavailableError("away"), WrongStateError("another registry's"), ZeroDivisionError()])

    def sweep(_):
        swept.release()
        error = next(outcomes, None)
        if error is not None:
            raise error

    monkeypatch.setattr(Sweeper, "sweep", sweep)
    found = sweeper(seconds=0.01)
    found.start()
    for _ in range(5):
        assert swept.acquire(timeout=30)
    found.close()
    found._thread.join(30)
    assert not found._thread.is_alive()
