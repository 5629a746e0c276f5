"""What a registry keeps in order: checkpoints, quotas, abandoned uploads, deleted versions, orphans."""

import threading

import pytest
from sqlalchemy import delete, insert, update

from rowmint.errors import CancelledError, FencedError, LimitError, ResourceNotFoundError
from rowmint.names import ModelVersionName, ModelVersionRef
from rowmint.registry import (
    AttemptRef,
    CheckpointRecord,
    DatasetState,
    JobState,
    Maker,
    Registry,
    SortedKeys,
    migrate,
    open_registry,
)
from rowmint.registry.engine import writing
from rowmint.registry.tables import datasets, deleted_versions, lost_attempts, model_versions
from tests.conformance.registries import (
    INGEST,
    MODEL,
    TRAIN,
    expire,
    new_version,
    publish,
    ready,
    segment,
    train,
    uploaded,
)

SECOND = ModelVersionName("p", "m", 2)
HOUR = 3_600_000_000


@pytest.fixture(params=["sqlite", "postgresql"])
def registry(request: pytest.FixtureRequest, tmp_path):
    if request.param == "sqlite":
        found = open_registry(f"sqlite:///{tmp_path}/registry")
        migrate(found.engine)
    else:
        found = open_registry(request.getfixturevalue("migrated_postgres_url"))
    yield found
    found.close()


def checkpoint(step: int) -> CheckpointRecord:
    return CheckpointRecord(f"checkpoints/{step}", 100 + step, bytes([step]) * 32, step)


def backdate(registry: Registry, table, column, microseconds=HOUR) -> None:
    """Let what is in a column be an hour ago."""
    with writing(registry.engine) as connection:
        connection.execute(update(table).values({column: column - microseconds}))


# checkpoints


def test_the_next_attempt_finds_the_newest_checkpoint(registry):
    train(registry)
    job = registry.jobs.claim("one", 60, TRAIN)
    assert job.checkpoint is None
    registry.jobs.save_checkpoint(job.uid, job.epoch, checkpoint(1))
    registry.jobs.save_checkpoint(job.uid, job.epoch, checkpoint(2))
    assert set(registry.datasets.garbage()) == {"raw/0-0", "checkpoints/1"}
    expire(registry, job.uid)
    assert registry.jobs.claim("two", 60, TRAIN).checkpoint == checkpoint(2)


def test_saving_the_same_checkpoint_again_is_harmless(registry):
    train(registry)
    job = registry.jobs.claim("one", 60, TRAIN)
    for _ in range(2):
        registry.jobs.save_checkpoint(job.uid, job.epoch, checkpoint(1))
    assert registry.jobs.get_by_uid(job.uid).checkpoint == checkpoint(1)
    assert "checkpoints/1" not in registry.datasets.garbage()


def test_an_attempt_that_is_overtaken_saves_no_checkpoint(registry):
    train(registry)
    first = registry.jobs.claim("one", 60, TRAIN)
    expire(registry, first.uid)
    second = registry.jobs.claim("two", 60, TRAIN)
    registry.jobs.save_checkpoint(second.uid, second.epoch, checkpoint(1))
    with pytest.raises(FencedError):
        registry.jobs.save_checkpoint(first.uid, first.epoch, checkpoint(2))
    assert registry.jobs.get_by_uid(first.uid).checkpoint == checkpoint(1)


def test_a_job_being_cancelled_saves_no_checkpoint(registry):
    job = train(registry)
    job = registry.jobs.claim("one", 60, TRAIN)
    registry.jobs.cancel_request(job.name)
    with pytest.raises(CancelledError):
        registry.jobs.save_checkpoint(job.uid, job.epoch, checkpoint(1))


def test_a_job_given_back_keeps_its_checkpoint(registry):
    train(registry)
    job = registry.jobs.claim("one", 60, TRAIN)
    registry.jobs.save_checkpoint(job.uid, job.epoch, checkpoint(1))
    registry.jobs.release(job.uid, job.epoch)
    assert registry.jobs.claim("two", 60, TRAIN).checkpoint == checkpoint(1)


@pytest.mark.parametrize("end", ["publish", "fail", "cancel"])
def test_the_checkpoint_of_a_job_that_has_ended_is_garbage(registry, end):
    train(registry)
    job = registry.jobs.claim("one", 60, TRAIN)
    registry.jobs.save_checkpoint(job.uid, job.epoch, checkpoint(1))
    if end == "publish":
        registry.models.publish(job.uid, job.epoch, MODEL, new_version())
    elif end == "fail":
        registry.jobs.fail(job.uid, job.epoch, "INTERNAL", "why")
    else:
        registry.jobs.cancel_request(job.name)
        registry.jobs.finish_cancelled(job.uid, job.epoch)
    found = registry.jobs.get_by_uid(job.uid)
    assert (found.state.ended, found.checkpoint) == (True, None)
    assert "checkpoints/1" in registry.datasets.garbage()


def die(registry: Registry, name: str):
    job = registry.jobs.claim(name, 60, TRAIN)
    if job is not None:
        expire(registry, job.uid)
    return job


def test_attempts_that_get_no_further_are_bounded(registry):
    uid = train(registry).uid
    for number in range(3):
        assert die(registry, f"w{number}").attempt == number + 1
    assert die(registry, "w4") is None
    found = registry.jobs.get_by_uid(uid)
    assert (found.state, found.error.reason) == (JobState.FAILED, "INTERNAL")
    assert found.error.message == (
        "the worker died in 3 attempts, the last 3 of them without getting further; see the trainer's log, then start a"
        " new job"
    )


def test_a_job_that_gets_further_may_be_taken_up_again_and_again(registry):
    uid = train(registry).uid
    for step in range(1, 6):
        job = registry.jobs.claim(f"w{step}", 60, TRAIN)
        registry.jobs.save_checkpoint(job.uid, job.epoch, checkpoint(step))
        expire(registry, uid)
    for _ in range(3):
        assert die(registry, "w") is not None
    assert die(registry, "w") is None
    assert registry.jobs.get_by_uid(uid).attempt == 8


# quotas


def test_open_uploads_of_a_project_are_bounded(registry):
    for index in range(2):
        registry.datasets.create("p", f"d{index}", data_format={}, max_open=2)
    with pytest.raises(LimitError, match="projects/p already has 2 unfinished uploads") as caught:
        registry.datasets.create("p", "d2", data_format={}, max_open=2)
    assert caught.value.metadata == {"limit": "2", "setting": "ROWMINT_MAX_OPEN_UPLOADS"}
    assert len(registry.datasets.list("p").items) == 2
    registry.datasets.create("q", "d2", data_format={}, max_open=2)
    registry.datasets.delete(registry.datasets.list("p").items[0].name)
    registry.datasets.create("p", "d2", data_format={}, max_open=2)


def test_a_finished_upload_is_no_longer_open(registry):
    uploaded(registry, "done")
    registry.datasets.create("p", "d", data_format={}, max_open=1)


def test_open_uploads_are_counted_right_by_many_at_once(registry):
    barrier, results = threading.Barrier(6), []

    def create(index: int) -> None:
        barrier.wait()
        try:
            registry.datasets.create("p", f"d{index}", data_format={}, max_open=3)
            results.append("made")
        except LimitError:
            results.append("refused")

    threads = [threading.Thread(target=create, args=(index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["made"] * 3 + ["refused"] * 3
    assert len(registry.datasets.list("p").items) == 3


def test_bytes_of_a_project_are_bounded(registry):
    ready(registry, "table")  # its canonical table has 100 bytes, its 10 raw bytes are gone
    record = registry.datasets.create("p", "d", data_format={})
    epoch = registry.datasets.take_writer(record.name).writer_epoch
    assert registry.datasets.commit_segment(record.uid, epoch, segment(0, 0), 120) == 10
    assert registry.datasets.commit_segment(record.uid, epoch, segment(1, 10), 120) == 20
    with pytest.raises(LimitError, match="has 120 bytes of datasets; 10 more would exceed its limit of 120") as caught:
        registry.datasets.commit_segment(record.uid, epoch, segment(2, 20), 120)
    assert caught.value.metadata == {"limit": "120", "setting": "ROWMINT_MAX_PROJECT_BYTES"}
    assert registry.datasets.get(record.name).committed_size == 20
    registry.datasets.delete(registry.datasets.get_by_uid(record.uid).name)
    other = registry.datasets.create("q", "d", data_format={})
    epoch = registry.datasets.take_writer(other.name).writer_epoch
    registry.datasets.commit_segment(other.uid, epoch, segment(0, 0), 10)


# abandoned uploads


def test_an_abandoned_upload_fails_and_its_bytes_are_garbage(registry):
    record = registry.datasets.create("p", "d", data_format={})
    epoch = registry.datasets.take_writer(record.name).writer_epoch
    registry.datasets.commit_segment(record.uid, epoch, segment(0, 0))
    assert registry.datasets.expire(1800) == 0
    backdate(registry, datasets, datasets.c.update_time)
    assert registry.datasets.expire(1800) == 1
    found = registry.datasets.get(record.name)
    assert (found.state, found.committed_size, found.segment_count) == (DatasetState.FAILED, 0, 0)
    assert found.errors[0].message == (
        "the upload was abandoned: 10 bytes were received, then none for 1800 s; delete the dataset and upload it again"
    )
    assert registry.datasets.garbage() == ("raw/0-0",)
    with pytest.raises(FencedError):
        registry.datasets.commit_segment(record.uid, epoch, segment(1, 10))
    assert registry.datasets.expire(1800) == 0


@pytest.mark.parametrize("what", ["segment", "writer"])
def test_an_active_writer_has_not_abandoned_its_upload(registry, what):
    record = registry.datasets.create("p", "d", data_format={})
    epoch = registry.datasets.take_writer(record.name).writer_epoch
    backdate(registry, datasets, datasets.c.update_time)
    if what == "segment":
        registry.datasets.commit_segment(record.uid, epoch, segment(0, 0))
    else:
        registry.datasets.take_writer(record.name)
    assert registry.datasets.expire(1800) == 0


def test_what_is_finished_is_never_abandoned(registry):
    uploaded(registry, "ingesting")
    ready(registry, "ready")
    backdate(registry, datasets, datasets.c.update_time)
    assert registry.datasets.expire(1800) == 0


# deleted versions


def test_a_deleted_version_is_not_served_and_can_be_restored(registry):
    publish(registry, "v1")
    version = publish(registry, "v2")
    registry.models.delete_version(SECOND, 3600)
    assert [found.name.version for found in registry.models.list_versions(MODEL).items] == [1]
    assert registry.models.get(MODEL).aliases == {"latest": 1}
    with pytest.raises(ResourceNotFoundError):
        registry.models.resolve(ModelVersionRef(MODEL, version=2))
    assert registry.models.resolve(ModelVersionRef(MODEL, version=2), deleted=True) == version
    assert (registry.models.purge(), registry.models.garbage()) == (0, ())
    assert registry.models.undelete_version(SECOND) == version
    assert registry.models.get(MODEL).aliases == {"latest": 2}
    assert registry.models.resolve(ModelVersionRef(MODEL, version=2)) == version
    assert registry.models.undelete_version(SECOND) == version
    registry.models.delete_version(SECOND, 3600)
    assert registry.models.undelete_version(SECOND) == version


def test_a_deleted_version_is_purged_when_its_time_is_up(registry):
    publish(registry, "v1")
    publish(registry, "v2")
    registry.models.delete_version(SECOND, 1800)
    backdate(registry, deleted_versions, deleted_versions.c.purge_time)
    assert (registry.models.purge(), registry.models.purge()) == (1, 0)
    assert set(registry.models.garbage()) == {"v2/manifest.json", "v2/weights.safetensors"}
    for call in (registry.models.undelete_version, registry.models.delete_version):
        with pytest.raises(ResourceNotFoundError):
            call(SECOND)
    with pytest.raises(ResourceNotFoundError):
        registry.models.resolve(ModelVersionRef(MODEL, version=2), deleted=True)
    assert publish(registry, "v3").name.version == 3


def test_only_a_number_stands_for_a_deleted_version(registry):
    publish(registry, "v1", b"1" * 32)
    registry.models.delete_version(ModelVersionName("p", "m", 1), 3600)
    for ref in (ModelVersionRef(MODEL, alias="latest"), ModelVersionRef(MODEL, digest=b"1" * 32)):
        with pytest.raises(ResourceNotFoundError):
            registry.models.resolve(ref, deleted=True)


def test_a_job_whose_version_was_deleted_publishes_no_other(registry):
    train(registry)
    job = registry.jobs.claim("w", 60, TRAIN)
    published = registry.models.publish(job.uid, job.epoch, MODEL, new_version("a"))
    registry.models.delete_version(published.name, 3600)
    with pytest.raises(FencedError):
        registry.models.publish(job.uid, job.epoch, MODEL, new_version("b"))


# orphans


def sorted_alike(registry: Registry, keys: dict[str, AttemptRef]) -> SortedKeys:
    """Return what is known of objects, each kind in order of keys."""
    found = registry.orphans.sort(keys)
    return SortedKeys(*(tuple(sorted(part)) for part in (found.named, found.ended, found.deleted, found.unknown)))


def test_an_object_of_an_attempt_at_work_is_never_an_orphan(registry):
    record = registry.datasets.create("p", "d", data_format={})
    writer = registry.datasets.take_writer(record.name)
    other = uploaded(registry, "ingesting")
    registry.jobs.claim("w", 60, INGEST)
    train(registry)
    job = registry.jobs.claim("w", 60, TRAIN)
    at_work = {
        "a": AttemptRef(Maker.WRITER, record.uid, writer.writer_epoch),
        "b": AttemptRef(Maker.INGEST, other.uid, 1),
        "c": AttemptRef(Maker.JOB, job.uid, job.epoch),
        "d": AttemptRef(Maker.VERSION, job.uid, job.epoch),
    }
    assert registry.orphans.sort(at_work) == SortedKeys((), (), (), ())


def test_what_an_ended_attempt_left_is_an_orphan_unless_it_is_named(registry):
    record = registry.datasets.create("p", "d", data_format={})
    first = registry.datasets.take_writer(record.name)
    registry.datasets.commit_segment(record.uid, first.writer_epoch, segment(0, 0))
    registry.datasets.take_writer(record.name)
    table = ready(registry, "table")
    train(registry, dataset=table)
    job = registry.jobs.claim("one", 60, TRAIN)
    registry.jobs.save_checkpoint(job.uid, job.epoch, checkpoint(1))
    expire(registry, job.uid)
    registry.jobs.claim("two", 60, TRAIN)
    version = publish(registry, "v1")
    publish(registry, "v2")
    registry.models.delete_version(SECOND, 3600)
    writer, ingest = AttemptRef(Maker.WRITER, record.uid, 1), AttemptRef(Maker.INGEST, table.uid, 1)
    ended, published = AttemptRef(Maker.JOB, job.uid, 1), AttemptRef(Maker.VERSION, version.job_uid, 1)
    named = {
        "raw/0-0": writer,
        "canonical/1": ingest,
        "checkpoints/1": ended,
        "v1/manifest.json": published,
        "v1/weights.safetensors": published,
        "v2/manifest.json": published,
    }
    left = {
        "raw/left": writer,
        "table/left": ingest,
        "checkpoints/left": ended,
        "weights/left": AttemptRef(Maker.VERSION, job.uid, 1),
        "of/ended/checkpoint": AttemptRef(Maker.JOB, version.job_uid, 1),
    }
    assert sorted_alike(registry, named | left) == SortedKeys(tuple(sorted(named)), tuple(sorted(left)), (), ())


@pytest.mark.parametrize("maker", Maker)
def test_what_the_registry_knows_nothing_of_is_not_garbage(registry, maker):
    assert registry.orphans.sort({"k": AttemptRef(maker, "0" * 32, 1)}) == SortedKeys((), (), (), ("k",))


@pytest.mark.parametrize("maker", Maker)
def test_a_later_attempt_than_the_registry_knows_is_unknown(registry, maker):
    record = registry.datasets.create("p", "d", data_format={})
    registry.datasets.take_writer(record.name)
    made = publish(registry)
    job = registry.jobs.get_by_uid(made.job_uid)
    uid = {Maker.WRITER: record.uid, Maker.INGEST: job.dataset_uid}.get(maker, job.uid)
    assert registry.orphans.sort({"k": AttemptRef(maker, uid, 2)}) == SortedKeys((), (), (), ("k",))


def test_a_published_version_whose_row_is_gone_is_not_garbage(registry):
    version = publish(registry)
    with writing(registry.engine) as connection:  # as where `rowmint_models` was restored from an older backup
        connection.execute(delete(model_versions))
    keys = {"v/manifest.json": AttemptRef(Maker.VERSION, version.job_uid, 1)}
    assert registry.orphans.sort(keys) == SortedKeys((), (), (), ("v/manifest.json",))


def test_nothing_of_a_deleted_dataset_is_to_stay_but_its_models(registry):
    version = publish(registry)
    job = registry.jobs.get_by_uid(version.job_uid)
    uploading = registry.datasets.create("p", "d", data_format={})
    registry.datasets.take_writer(uploading.name)
    for uid in (job.dataset_uid, uploading.uid):
        registry.datasets.delete(registry.datasets.get_by_uid(uid).name)
    gone = {
        "segment": AttemptRef(Maker.WRITER, uploading.uid, 1),
        "later segment": AttemptRef(Maker.WRITER, uploading.uid, 9),
        "table": AttemptRef(Maker.INGEST, job.dataset_uid, 1),
        "table of no job": AttemptRef(Maker.INGEST, uploading.uid, 1),
        "checkpoint": AttemptRef(Maker.JOB, job.uid, 1),
    }
    stays = {"v/manifest.json": AttemptRef(Maker.VERSION, job.uid, 1)}
    assert sorted_alike(registry, gone | stays) == SortedKeys(tuple(stays), (), tuple(sorted(gone)), ())


def test_what_another_history_of_the_registry_made_is_not_garbage(registry):
    train(registry)
    for holder in ("one", "two", "three"):
        job = registry.jobs.claim(holder, 60, TRAIN)
        expire(registry, job.uid)
    with writing(registry.engine) as connection:
        span = {"uid": job.uid, "first_epoch": 2, "last_epoch": 2}
        connection.execute(insert(lost_attempts).values(maker=Maker.VERSION, **span))
        connection.execute(insert(lost_attempts).values(maker=Maker.INGEST, **span | {"last_epoch": 3}))
    keys = {
        f"{maker} {epoch}": AttemptRef(maker, job.uid, epoch)
        for maker in (Maker.JOB, Maker.VERSION)
        for epoch in (1, 2)
    }
    found = sorted_alike(registry, keys)
    assert found == SortedKeys((), ("job 1", "version 1"), (), ("job 2", "version 2"))


def test_an_attempt_whose_cancel_is_committed_has_ended(registry):
    train(registry)
    job = registry.jobs.claim("one", 60, TRAIN)
    mine = {"k": AttemptRef(Maker.VERSION, job.uid, job.epoch)}
    assert registry.orphans.sort(mine) == SortedKeys((), (), (), ())
    registry.jobs.cancel_request(job.name)
    assert registry.orphans.sort(mine) == SortedKeys((), ("k",), (), ())


# events whose answer was lost


def test_an_event_is_not_written_twice_where_its_answer_was_lost(registry):
    train(registry)
    job = registry.jobs.claim("one", 60, TRAIN)
    first = registry.jobs.set_phase(job.uid, job.epoch, "fitting", {"message": "fitting"})
    assert registry.jobs.set_phase(job.uid, job.epoch, "fitting", {"message": "fitting"}, again=True) == first
    second = registry.jobs.append_event(job.uid, job.epoch, {"progress": {"epoch": 1}})
    assert registry.jobs.append_event(job.uid, job.epoch, {"progress": {"epoch": 1}}, again=True) == second
    # What was not written is written now, and what another attempt reported is not this one's.
    third = registry.jobs.append_event(job.uid, job.epoch, {"progress": {"epoch": 2}}, again=True)
    expire(registry, job.uid)
    later = registry.jobs.claim("two", 60, TRAIN)
    fourth = registry.jobs.append_event(later.uid, later.epoch, {"progress": {"epoch": 2}}, again=True)
    assert (second, third, fourth) == (first + 1, first + 2, first + 4)
    assert registry.jobs.get_by_uid(job.uid).event_count == fourth
