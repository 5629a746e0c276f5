"""The sweeper: it deletes what nothing needs, all of it and nothing else."""

import hashlib
import os
import threading

import google_crc32c
import pytest

from rowmint.errors import UnavailableError
from rowmint.names import DatasetName
from rowmint.objects import MemoryStore
from rowmint.registry import migrate, open_registry
from trainer_service.datasets.upload import UploadService
from trainer_service.garbage import Sweeper
from trainer_service.jobs.scratch import ScratchFolder
from trainer_service.object_keys import checkpoint_key, segment_key, table_key

CSV = b"a,b\n1,2\n"
NAME = DatasetName("p", "d")


class Store(MemoryStore):
    """A store that can be away."""

    away = False

    def delete(self, key):
        if self.away:
            raise UnavailableError("the store is away", retry_after=1.0)
        super().delete(key)


@pytest.fixture
def registry(tmp_path):
    found = open_registry(f"sqlite:///{tmp_path}")
    migrate(found.engine)
    yield found
    found.close()


@pytest.fixture
def stores():
    return Store(), Store()


@pytest.fixture
def sweeper(registry, stores, tmp_path):
    """Give a function that makes a sweeper."""

    def made(**more) -> Sweeper:
        return Sweeper(
            registry, *stores, tmp_path / "scratch", **{"seconds": 3600, "upload_idle_seconds": 3600, **more}
        )

    return made


def upload(registry, store):
    service = UploadService(registry.datasets, store, segment_bytes=4)
    record = service.create("p", "d", data_format={"type": "csv"})
    writer = service.open(NAME)
    writer.append(0, CSV, google_crc32c.value(CSV))
    return record, writer


def test_needed_objects_stay_and_garbage_is_removed(registry, stores, sweeper):
    data, models = stores
    record, writer = upload(registry, data)
    named = list(data.list(""))
    about_to_be_named = segment_key(record.uid, writer.record.writer_epoch, 99)
    left = [segment_key(record.uid, 0, 1), table_key(record.uid, 1), checkpoint_key("0" * 32, 1, 5)]
    foreign = "foreign/object"
    for key in (about_to_be_named, *left, foreign):
        data.put(key, b"x")
    models.put(f"p/m/{'0' * 32}-1/weights.safetensors", b"x")
    models.put("p/m/notes.txt", b"x")
    sweeper().sweep()
    assert set(data.list("")) == {*named, about_to_be_named, foreign}
    assert list(models.list("")) == ["p/m/notes.txt"]


def test_a_deleted_dataset_leaves_nothing(registry, stores, sweeper):
    data, _ = stores
    record, writer = upload(registry, data)
    writer.finish(len(CSV), hashlib.sha256(CSV).digest())
    job = registry.jobs.claim("w", 60, ("ingest",))
    data.put(table_key(record.uid, job.epoch), b"x")
    data.put(checkpoint_key(job.uid, job.epoch, 1), b"x")
    registry.datasets.delete(NAME)
    sweeper().sweep()
    assert (list(data.list("")), registry.datasets.garbage()) == ([], ())


def test_an_abandoned_upload_leaves_nothing_but_its_reason(registry, stores, sweeper):
    upload(registry, stores[0])
    sweeper(upload_idle_seconds=0).sweep()
    assert list(stores[0].list("")) == []
    (found,) = registry.datasets.list("p").items
    assert found.errors[0].message.startswith("the upload was abandoned")


def test_what_cannot_be_deleted_now_goes_with_the_next_sweep(registry, stores, sweeper):
    data, _ = stores
    upload(registry, data)
    registry.datasets.delete(NAME)
    data.away = True
    with pytest.raises(UnavailableError):
        sweeper().sweep()
    assert len(list(data.list(""))) == len(registry.datasets.garbage()) > 0
    data.away = False
    sweeper().sweep()
    assert (list(data.list("")), registry.datasets.garbage()) == ([], ())


def test_temporary_files_of_an_ended_worker_are_removed_and_those_of_a_running_one_kept(sweeper, tmp_path):
    with ScratchFolder(tmp_path / "scratch") as running:
        ended = ScratchFolder(tmp_path / "scratch")
        (ended.path / "table.parquet").write_bytes(b"rows")
        os.close(ended._lock)  # as its end would
        sweeper().sweep()
        assert [path.exists() for path in (running.path, ended.path)] == [True, False]


def test_a_scratch_folder_that_cannot_be_read_holds_up_nothing(registry, stores, sweeper, tmp_path):
    data, _ = stores
    upload(registry, data)
    registry.datasets.delete(NAME)
    (tmp_path / "scratch").write_bytes(b"no folder")
    sweeper().sweep()
    assert list(data.list("")) == []


def test_it_sweeps_at_once_and_again_and_outlives_a_fault(sweeper, monkeypatch):
    swept = threading.Semaphore(0)
    outcomes = iter([UnavailableError("away"), ZeroDivisionError()])

    def sweep(_):
        swept.release()
        error = next(outcomes, None)
        if error is not None:
            raise error

    monkeypatch.setattr(Sweeper, "sweep", sweep)
    found = sweeper(seconds=0.01)
    found.start()
    for _ in range(4):
        assert swept.acquire(timeout=30)
    found.close()
    found._thread.join(30)
    assert not found._thread.is_alive()
