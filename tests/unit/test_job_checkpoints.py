"""A job's checkpoints: object first, row second, and only then is the one before deleted."""

from types import SimpleNamespace

import pytest

from rowmint.errors import FencedError, UnavailableError
from rowmint.objects import MemoryStore
from rowmint.registry import CanonicalTable, JobKind, migrate, open_registry
from rowmint.schema import ColumnSpec, TableSchema
from trainer_service.jobs.attempts import Attempt
from trainer_service.jobs.checkpoints import JobCheckpoints

TABLE = CanonicalTable(TableSchema((ColumnSpec("a"),)), {}, 1, "table", 1, bytes(32), {})


class Store(MemoryStore):
    away = False

    def put(self, key, data):
        if self.away:
            raise UnavailableError("the store is away", retry_after=1.0)
        super().put(key, data)


@pytest.fixture
def registry(tmp_path):
    found = open_registry(f"sqlite:///{tmp_path}")
    migrate(found.engine)
    dataset = found.datasets.create("p", "d", data_format={})
    writer = found.datasets.take_writer(dataset.name)
    found.datasets.finish_upload(dataset.uid, writer.writer_epoch, 0, bytes(32))
    ingest = found.jobs.claim("w", 60, (JobKind.INGEST,))
    found.datasets.mark_ready(dataset.uid, ingest.uid, ingest.epoch, TABLE)
    inputs = {"dataset": str(dataset.name), "model": "projects/p/models/m"}
    found.jobs.create(JobKind.TRAIN, "p", "j", inputs=inputs, config={}, dataset_uid=dataset.uid)
    yield found
    found.close()


@pytest.fixture
def store():
    return Store()


def attempt_at(registry) -> Attempt:
    return Attempt(registry, registry.jobs.claim("w", 60, (JobKind.TRAIN,)), 1.0)


def test_the_newest_is_kept_and_the_one_before_is_deleted(registry, store):
    attempt = attempt_at(registry)
    kept = JobCheckpoints(registry, store, attempt, 60)
    assert kept.load() is None
    for step in (1, 2, 3):
        kept.save(step, b"%d" % step)
    (key,) = store.list("")
    assert registry.jobs.get_by_uid(attempt.job.uid).checkpoint.object_key == key
    registry.jobs.release(attempt.job.uid, attempt.job.epoch)
    assert JobCheckpoints(registry, store, attempt_at(registry), 60).load() == b"3"
    assert registry.datasets.garbage() == ()


def test_a_store_that_is_unavailable_stops_nothing(registry, store):
    attempt = attempt_at(registry)
    kept = JobCheckpoints(registry, store, attempt, 60)
    kept.save(1, b"1")
    store.away = True
    kept.save(2, b"2")
    assert kept.load() == b"1"
    store.away = False
    kept.save(3, b"3")
    assert kept.load() == b"3"
    assert len(list(store.list(""))) == 1


@pytest.mark.parametrize("what", ["missing", "damaged", "short"])
def test_a_damaged_checkpoint_is_not_used(registry, store, what):
    attempt = attempt_at(registry)
    kept = JobCheckpoints(registry, store, attempt, 60)
    kept.save(1, b"first")
    (key,) = store.list("")
    store.delete(key)
    if what != "missing":
        store.put(key, b"worst" if what == "damaged" else b"firs")
    assert kept.load() is None


def test_an_attempt_that_is_overtaken_keeps_none(registry, store):
    attempt = attempt_at(registry)
    kept = JobCheckpoints(registry, store, attempt, 60)
    registry.jobs.release(attempt.job.uid, attempt.job.epoch)
    with pytest.raises(FencedError):
        kept.save(1, b"1")


def test_one_is_due_after_every_pause_and_once_before_the_end():
    now = [100.0]
    attempt = SimpleNamespace(job=SimpleNamespace(checkpoint=None), shutting_down=False)
    kept = JobCheckpoints(None, None, attempt, 10, lambda: now[0])
    assert not kept.due()
    now[0] = 109.9
    assert not kept.due()
    now[0] = 110.0
    assert kept.due()
    kept._last = now[0]
    attempt.shutting_down = True
    assert [kept.due(), kept.due()] == [True, False]
