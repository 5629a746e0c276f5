"""Every registry keeps the same promises: datasets, jobs, models and versions, on SQLite and on PostgreSQL."""

import multiprocessing
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import event, func, insert, select, text, update
from sqlalchemy.engine import make_url

from rowmint.errors import (
    CancelledError,
    DataLossError,
    DataProblem,
    DigestMismatchError,
    FencedError,
    InvalidFieldError,
    Reason,
    RequestIdReusedError,
    ResourceExistsError,
    ResourceNotFoundError,
    UnavailableError,
    WrongStateError,
)
from rowmint.names import DatasetName, ModelName, ModelVersionName, ModelVersionRef, TrainingJobName
from rowmint.registry import (
    CanonicalTable,
    DatasetState,
    JobKind,
    JobState,
    NewVersion,
    Registry,
    SegmentRecord,
    migrate,
    open_models_registry,
    open_registry,
)
from rowmint.registry.engine import reading, writing
from rowmint.registry.tables import DATA, MODELS, jobs
from rowmint.schema import ColumnKind, ColumnSpec, DataType, Domain, TableSchema
from tests.acceptance.processes import ROOT
from tests.waiting import wait_until

SCHEMA = TableSchema((ColumnSpec("a", ColumnKind.NUMERICAL, DataType.INT64, Domain(minimum=1, maximum=2)),))
TABLE = CanonicalTable(SCHEMA, {"tables": {}}, 7, "canonical/1", 100, b"c" * 32, {"rows": 7})
MODEL = ModelName("p", "m")
INGEST, TRAIN = (JobKind.INGEST,), (JobKind.TRAIN,)


def new_version(key="v", digest=b"d" * 32):
    return NewVersion(
        training_job="projects/p/trainingJobs/j",
        manifest_key=f"{key}/manifest.json",
        manifest_size=10,
        manifest_sha256=b"m" * 32,
        weights_key=f"{key}/weights.safetensors",
        weights_size=20,
        weights_sha256=b"w" * 32,
        model_digest=digest,
        manifest_digest=b"n" * 32,
        family="ctgan",
        dataset_digest=b"s" * 32,
        training_rows=7,
        schema=SCHEMA,
    )


def segment(index, offset, size=10):
    return SegmentRecord(index, offset, size, bytes(32), f"raw/{index}-{offset}")


def uploaded(registry, dataset_id="d"):
    """A dataset of one segment that waits for ingest."""
    record = registry.datasets.create("p", dataset_id, data_format={"csv": {}})
    epoch = registry.datasets.take_writer(record.name).writer_epoch
    registry.datasets.commit_segment(record.uid, epoch, segment(0, 0))
    return registry.datasets.finish_upload(record.uid, epoch, 10, b"s" * 32)


def ready(registry, dataset_id="d"):
    record = uploaded(registry, dataset_id)
    job = registry.jobs.claim("w", 60, INGEST)
    registry.datasets.mark_ready(record.uid, job.uid, job.epoch, TABLE)
    return registry.datasets.get(record.name)


def train(registry, job_id="j", dataset=None, **more):
    dataset = dataset or ready(registry, f"of-{job_id}")
    return registry.jobs.create(
        JobKind.TRAIN,
        more.pop("project", "p"),
        job_id,
        inputs={"dataset": str(dataset.name), "model": str(MODEL)},
        config={"x": 1},
        dataset_uid=dataset.uid,
        **more,
    )


def publish(registry, key="v", digest=b"d" * 32):
    train(registry, f"j-{key}")
    job = registry.jobs.claim("w", 60, TRAIN)
    return registry.models.publish(job.uid, job.epoch, MODEL, new_version(key, digest))


def expire(registry, uid):
    with writing(registry.engine) as connection:
        connection.execute(update(jobs).where(jobs.c.uid == uid).values(lease_until=1))


class RegistrySuite:
    """What every registry keeps to; a subclass gives the places.

    Its fixture `empty_url` names one without a registry, `url` one whose registry is migrated and empty.
    """

    @pytest.fixture
    def empty_url(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    def url(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    def registry(self, url) -> Iterator[Registry]:
        registry = open_registry(url)
        yield registry
        registry.close()

    def test_migrating_again_changes_nothing(self, registry):
        ready(registry)
        migrate(registry.engine)
        assert len(registry.datasets.list("p").items) == 1

    # datasets

    def test_a_dataset_is_created_with_what_was_declared(self, registry):
        overrides = (
            ColumnSpec("n", ColumnKind.NUMERICAL, None, Domain(minimum=0, maximum=2.5, decimals=0)),
            ColumnSpec("c", None, None, Domain(categories=("x", 1, True, None, Decimal("1.50")), nullable=False)),
            ColumnSpec("t", ColumnKind.DATETIME, None, Domain(minimum=date(2020, 1, 1)), "%d/%m/%Y"),
            ColumnSpec("z", None, DataType.TIMESTAMP, Domain(maximum=datetime(2020, 1, 1, tzinfo=UTC))),
        )
        record = registry.datasets.create("p", "d", data_format={"csv": {"a": 1}}, overrides=overrides, primary_key="k")
        later = registry.datasets.create("p", "later", data_format={})
        assert record == registry.datasets.get(DatasetName("p", "d"))
        assert record == registry.datasets.get_by_uid(record.uid)
        assert record.overrides == overrides
        assert (record.state, record.committed_size, record.format) == (DatasetState.UPLOADING, 0, {"csv": {"a": 1}})
        assert datetime(2026, 1, 1, tzinfo=UTC) < record.create_time <= later.create_time

    def test_an_id_is_made_where_none_is_given(self, registry):
        names = {registry.datasets.create("p", "", data_format={}).name for _ in range(3)}
        assert len(names) == 3
        assert all(DatasetName.parse(str(name)) == name for name in names)

    def test_a_repeated_request_gives_the_same_dataset(self, registry):
        def create(digest=b"1" * 32, dataset_id="", project="p"):
            return registry.datasets.create(project, dataset_id, data_format={}, request_id="r", request_digest=digest)

        assert create() == create()
        with pytest.raises(RequestIdReusedError, match="'r'"):
            create(digest=b"2" * 32)
        assert create(project="q").name.project == "q"

    def test_a_dataset_name_is_taken_once(self, registry):
        registry.datasets.create("p", "d", data_format={})
        with pytest.raises(ResourceExistsError, match="projects/p/datasets/d"):
            registry.datasets.create("p", "d", data_format={}, request_id="other", request_digest=b"")
        with pytest.raises(ResourceNotFoundError, match="projects/p/datasets/e"):
            registry.datasets.get(DatasetName("p", "e"))

    def test_datasets_are_listed_newest_first_in_pages(self, registry):
        made = [registry.datasets.create("p", f"d{index}", data_format={}) for index in range(5)]
        registry.datasets.create("q", "other", data_format={})
        seen, token = [], ""
        while True:
            page = registry.datasets.list("p", 2, token)
            seen += page.items
            token = page.next_page_token
            if not token:
                break
        assert sorted(seen, key=lambda record: record.uid) == sorted(made, key=lambda record: record.uid)
        assert [record.create_time for record in seen] == sorted((r.create_time for r in made), reverse=True)

    @pytest.mark.parametrize("token", ["x", "!!", "W10=", "WyJkYXRhc2V0czpwIiwgInQiLCAidSJd", "e30=", "é"])
    def test_a_bad_page_is_refused(self, registry, token):
        with pytest.raises(InvalidFieldError, match="page_token"):
            registry.datasets.list("p", 1, token)
        for size in (0, -1, 1001):
            with pytest.raises(InvalidFieldError, match="page_size"):
                registry.datasets.list("p", size)

    def test_a_token_of_another_list_is_refused(self, registry):
        for index in range(2):
            registry.datasets.create("p", f"d{index}", data_format={})
        token = registry.datasets.list("p", 1).next_page_token
        with pytest.raises(InvalidFieldError, match="page_token"):
            registry.datasets.list("q", 1, token)
        with pytest.raises(InvalidFieldError, match="page_token"):
            registry.jobs.list(JobKind.TRAIN, "p", 1, token)

    def test_segments_follow_each_other(self, registry):
        record = registry.datasets.create("p", "d", data_format={})
        epoch = registry.datasets.take_writer(record.name).writer_epoch
        assert registry.datasets.commit_segment(record.uid, epoch, segment(0, 0)) == 10
        assert registry.datasets.commit_segment(record.uid, epoch, segment(1, 10, 5)) == 15
        for wrong in (segment(1, 10), segment(2, 14), segment(2, 16), segment(3, 15)):
            with pytest.raises(FencedError):
                registry.datasets.commit_segment(record.uid, epoch, wrong)
        assert registry.datasets.segments(record.uid) == (segment(0, 0), segment(1, 10, 5))
        assert registry.datasets.get(record.name).committed_size == 15

    def test_the_newest_writer_fences_the_older(self, registry):
        record = registry.datasets.create("p", "d", data_format={})
        old = registry.datasets.take_writer(record.name).writer_epoch
        new = registry.datasets.take_writer(record.name).writer_epoch
        assert new == old + 1
        with pytest.raises(FencedError, match="committed_size"):
            registry.datasets.commit_segment(record.uid, old, segment(0, 0))
        with pytest.raises(FencedError):
            registry.datasets.finish_upload(record.uid, old, 0, bytes(32))
        assert registry.datasets.commit_segment(record.uid, new, segment(0, 0)) == 10

    def test_finishing_hands_the_dataset_to_ingest_once(self, registry):
        record = uploaded(registry)
        assert record.state is DatasetState.INGESTING
        assert registry.datasets.finish_upload(record.uid, 1, 10, b"s" * 32) == record
        with pytest.raises(DigestMismatchError):
            registry.datasets.finish_upload(record.uid, 1, 10, b"t" * 32)
        with pytest.raises(FencedError):
            registry.datasets.commit_segment(record.uid, 1, segment(1, 10))
        assert registry.datasets.take_writer(record.name) == record
        job = registry.jobs.claim("w", 60, (JobKind.INGEST, JobKind.TRAIN))
        assert (job.kind, job.dataset_uid, job.dataset) == (JobKind.INGEST, record.uid, str(record.name))
        assert registry.jobs.claim("w", 60, INGEST) is None
        assert registry.jobs.list(JobKind.TRAIN, "p").items == ()

    def test_a_wrong_total_size_leaves_the_upload_open(self, registry):
        record = registry.datasets.create("p", "d", data_format={})
        epoch = registry.datasets.take_writer(record.name).writer_epoch
        with pytest.raises(DigestMismatchError, match="total_size is 3, but 0 bytes"):
            registry.datasets.finish_upload(record.uid, epoch, 3, bytes(32))
        assert registry.datasets.get(record.name).state is DatasetState.UPLOADING

    def test_ready_tells_the_table_and_frees_the_segments(self, registry):
        record = uploaded(registry)
        job = registry.jobs.claim("w", 60, INGEST)
        assert registry.datasets.mark_ready(record.uid, job.uid, job.epoch, TABLE) == ("raw/0-0",)
        found = registry.datasets.get(record.name)
        assert (found.state, found.schema, found.row_count) == (DatasetState.READY, SCHEMA, 7)
        assert (found.canonical_key, found.canonical_size, found.canonical_sha256) == ("canonical/1", 100, b"c" * 32)
        assert (found.profile, found.sdv_metadata, found.errors) == ({"rows": 7}, {"tables": {}}, ())
        assert registry.datasets.segments(record.uid) == ()
        assert registry.jobs.get_by_uid(job.uid).state is JobState.SUCCEEDED
        assert registry.datasets.garbage() == ("raw/0-0",)
        registry.datasets.forget(["raw/0-0", "never"])
        assert registry.datasets.garbage() == ()
        with pytest.raises(FencedError):
            registry.datasets.mark_ready(record.uid, job.uid, job.epoch, TABLE)

    def test_failed_tells_the_first_hundred_problems(self, registry):
        record = uploaded(registry)
        job = registry.jobs.claim("w", 60, INGEST)
        problems = [DataProblem(f"wrong {index}", index, index, "c") for index in range(150)]
        registry.datasets.mark_failed(record.uid, job.uid, job.epoch, problems)
        found = registry.datasets.get(record.name)
        assert (found.state, found.errors) == (DatasetState.FAILED, tuple(problems[:100]))
        assert registry.jobs.get_by_uid(job.uid).error.message == "wrong 0"

    def test_an_overtaken_ingest_changes_nothing(self, registry):
        record = uploaded(registry)
        old = registry.jobs.claim("w", 60, INGEST)
        expire(registry, old.uid)
        new = registry.jobs.claim("x", 60, INGEST)
        with pytest.raises(FencedError):
            registry.datasets.mark_ready(record.uid, old.uid, old.epoch, TABLE)
        with pytest.raises(FencedError):
            registry.datasets.mark_failed(record.uid, old.uid, old.epoch, [DataProblem("x")])
        assert registry.datasets.get(record.name).state is DatasetState.INGESTING
        registry.datasets.mark_ready(record.uid, new.uid, new.epoch, TABLE)

    def test_delete_returns_every_object(self, registry):
        record = registry.datasets.create("p", "d", data_format={})
        epoch = registry.datasets.take_writer(record.name).writer_epoch
        registry.datasets.commit_segment(record.uid, epoch, segment(0, 0))
        assert registry.datasets.delete(record.name) == ("raw/0-0",)
        with pytest.raises(ResourceNotFoundError):
            registry.datasets.get(record.name)
        with pytest.raises(ResourceNotFoundError):
            registry.datasets.delete(record.name)
        with pytest.raises(FencedError):
            registry.datasets.commit_segment(record.uid, epoch, segment(1, 10))
        finished = ready(registry, "e")
        assert registry.datasets.delete(finished.name) == ("canonical/1",)
        assert set(registry.datasets.garbage()) == {"raw/0-0", "canonical/1"}

    def test_delete_waits_for_training_but_overtakes_ingest(self, registry):
        dataset = ready(registry)
        job = train(registry, dataset=dataset)
        with pytest.raises(WrongStateError, match="cancel it"):
            registry.datasets.delete(dataset.name)
        registry.jobs.cancel_request(job.name)
        registry.datasets.delete(dataset.name)
        other = uploaded(registry, "e")
        ingest = registry.jobs.claim("w", 60, INGEST)
        registry.datasets.delete(other.name)
        with pytest.raises(FencedError):
            registry.jobs.heartbeat(ingest.uid, ingest.epoch)

    # jobs

    def test_a_job_needs_a_ready_dataset(self, registry):
        with pytest.raises(WrongStateError, match="INGESTING") as caught:
            train(registry, dataset=uploaded(registry))
        assert caught.value.metadata == {"state": "INGESTING"}
        dataset = ready(registry, "e")
        registry.datasets.delete(dataset.name)
        with pytest.raises(ResourceNotFoundError):
            train(registry, dataset=dataset)

    def test_a_repeated_request_gives_the_same_job(self, registry):
        dataset = ready(registry)
        one = train(registry, "", dataset, request_id="r", request_digest=b"1" * 32)
        assert train(registry, "", dataset, request_id="r", request_digest=b"1" * 32) == one
        with pytest.raises(RequestIdReusedError):
            train(registry, "", dataset, request_id="r", request_digest=b"2" * 32)
        train(registry, "j", dataset)
        with pytest.raises(ResourceExistsError, match="trainingJobs/j exists"):
            train(registry, "j", dataset)
        assert len(registry.jobs.list(JobKind.TRAIN, "p").items) == 2

    def test_the_oldest_job_is_claimed_by_one(self, registry):
        dataset = ready(registry)
        made = [train(registry, f"j{index}", dataset) for index in range(3)]
        claimed = [registry.jobs.claim(f"w{index}", 60, TRAIN) for index in range(4)]
        assert [job and job.uid for job in claimed] == [*(job.uid for job in made), None]
        first = claimed[0]
        assert (first.state, first.epoch, first.attempt, first.holder) == (JobState.RUNNING, 1, 1, "w0")
        assert first.start_time >= first.create_time
        assert round((first.lease_until - first.start_time).total_seconds(), 3) == 60

    def test_threads_claim_each_job_once(self, registry):
        dataset = ready(registry)
        made = [train(registry, f"j{index}", dataset).uid for index in range(12)]
        claimed = []

        def work():
            while (job := registry.jobs.claim("w", 60, TRAIN)) is not None:
                claimed.append(job.uid)
                registry.jobs.append_event(job.uid, job.epoch, {})

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(claimed) == sorted(made)

    def test_an_expired_lease_is_taken_up_and_the_old_attempt_fenced(self, registry):
        train(registry)
        old = registry.jobs.claim("w", 60, TRAIN)
        assert registry.jobs.claim("x", 60, TRAIN) is None
        expire(registry, old.uid)
        new = registry.jobs.claim("x", 60, TRAIN)
        assert (new.uid, new.epoch, new.attempt, new.start_time) == (old.uid, 2, 2, old.start_time)
        for call in (
            lambda: registry.jobs.heartbeat(old.uid, old.epoch),
            lambda: registry.jobs.append_event(old.uid, old.epoch, {}),
            lambda: registry.jobs.set_phase(old.uid, old.epoch, "fitting"),
            lambda: registry.jobs.fail(old.uid, old.epoch, Reason.INTERNAL, "x"),
            lambda: registry.jobs.release(old.uid, old.epoch),
            lambda: registry.jobs.finish_cancelled(old.uid, old.epoch),
            lambda: registry.models.publish(old.uid, old.epoch, MODEL, new_version()),
        ):
            with pytest.raises(FencedError):
                call()
        assert registry.jobs.get_by_uid(new.uid) == new

    def test_leases_run_by_the_databases_clock(self, registry):
        train(registry)
        old = registry.jobs.claim("w", 0.2, TRAIN)
        assert registry.jobs.heartbeat(old.uid, old.epoch) is False
        claimed = []

        def taken_over():
            claimed.append(registry.jobs.claim("x", 60, TRAIN))
            return claimed[-1] is not None

        wait_until(taken_over, "the end of the lease")
        assert claimed[-1].epoch == 2

    def test_jobs_are_counted_by_kind_and_state(self, registry):
        assert registry.jobs.census() == {}
        dataset = ready(registry)
        for job_id in ("a", "b", "c"):
            train(registry, job_id, dataset)
        registry.jobs.claim("w", 60, TRAIN)
        assert registry.jobs.census() == {
            (JobKind.INGEST, JobState.SUCCEEDED): 1,
            (JobKind.TRAIN, JobState.PENDING): 2,
            (JobKind.TRAIN, JobState.RUNNING): 1,
        }

    def test_jobs_of_kinds_that_only_newer_code_knows_are_left_out_and_left_alone(self, registry):
        train(registry)
        job = registry.jobs.claim("w", 60, TRAIN)
        with writing(registry.engine) as connection:
            row = dict(connection.execute(select(jobs)).mappings().first())
            newer = {**row, "uid": "0" * 32, "job_id": "later", "kind": "of-later", "lease_until": 1}
            connection.execute(insert(jobs), newer)
        assert registry.jobs.claim("w", 60, (*INGEST, *TRAIN)) is None
        assert registry.jobs.census()[JobKind.TRAIN, JobState.RUNNING] == 1
        assert list(registry.jobs.lease_ages()) == [job.name]

    def test_a_lease_is_as_old_as_its_last_heartbeat(self, registry):
        assert registry.jobs.lease_ages() == {}
        dataset = ready(registry)
        train(registry, "a", dataset)
        job = registry.jobs.claim("w", 60, TRAIN)
        train(registry, "b", dataset)
        (age,) = registry.jobs.lease_ages().values()
        with writing(registry.engine) as connection:
            hour = jobs.c.lease_until - 3_600_000_000
            connection.execute(update(jobs).where(jobs.c.uid == job.uid).values(lease_until=hour))
        # Its time is over, and nobody has taken the job up: it is still the one to look at.
        found = registry.jobs.lease_ages()
        assert list(found) == [job.name]
        assert 0 <= age < 60
        assert 3_600 <= found[job.name] < 3_660
        registry.jobs.heartbeat(job.uid, job.epoch)
        assert 0 <= registry.jobs.lease_ages()[job.name] < 60
        other = registry.jobs.claim("x", 60, TRAIN)
        registry.jobs.cancel_request(other.name)
        assert registry.jobs.lease_ages().keys() == {job.name, other.name}
        registry.jobs.release(job.uid, job.epoch)
        registry.jobs.finish_cancelled(other.uid, other.epoch)
        assert registry.jobs.lease_ages() == {}

    def test_a_job_keeps_the_span_that_asked_for_it(self, registry):
        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        dataset = ready(registry)
        made = train(registry, "j", dataset, trace_parent=parent, request_id="r", request_digest=b"1" * 32)
        assert made.trace_parent == parent
        again = train(registry, "j", dataset, trace_parent=None, request_id="r", request_digest=b"1" * 32)
        assert (again.uid, again.trace_parent) == (made.uid, parent)
        assert registry.jobs.claim("w", 60, TRAIN).trace_parent == parent
        assert train(registry, "k").trace_parent is None

    def test_a_heartbeat_renews_the_lease(self, registry):
        train(registry)
        job = registry.jobs.claim("w", 60, TRAIN)
        expire(registry, job.uid)
        registry.jobs.heartbeat(job.uid, job.epoch)
        assert registry.jobs.claim("x", 60, TRAIN) is None

    def test_after_three_attempts_a_job_has_failed(self, registry):
        train(registry)
        dataset = uploaded(registry, "e")
        ended: list[tuple[JobKind, JobState]] = []

        def tell(kind, state):
            # It is committed: whoever is told may look.
            ended.append((kind, registry.jobs.get_by_uid(job.uid).state))
            assert ended[-1][1] is state

        for kinds in (TRAIN, INGEST):
            for attempt in (1, 2, 3):
                job = registry.jobs.claim("w", 60, kinds, ended=tell)
                assert job.attempt == attempt
                expire(registry, job.uid)
            assert registry.jobs.claim("w", 60, kinds, ended=tell) is None
            assert ended.pop() == (kinds[0], JobState.FAILED)
            assert ended == []
            failed = registry.jobs.get_by_uid(job.uid)
            assert (failed.state, failed.error.reason) == (JobState.FAILED, "INTERNAL")
            assert "3 attempts" in failed.error.message
            assert failed.end_time is not None
        assert registry.datasets.get(dataset.name).state is DatasetState.FAILED

    def test_a_job_given_back_is_taken_up_again(self, registry):
        train(registry)
        for _ in range(4):
            job = registry.jobs.claim("w", 60, TRAIN)
            registry.jobs.release(job.uid, job.epoch)
            with pytest.raises(FencedError):
                registry.jobs.heartbeat(job.uid, job.epoch)
        assert registry.jobs.claim("w", 60, TRAIN).attempt == 5

    def test_events_are_numbered_without_gaps(self, registry):
        made = train(registry)
        job = registry.jobs.claim("w", 60, TRAIN)
        assert registry.jobs.set_phase(job.uid, job.epoch, "fitting") == 3
        assert registry.jobs.append_event(job.uid, job.epoch, {"progress": {"epoch": 1, "loss": 0.1}}) == 4
        registry.jobs.fail(job.uid, job.epoch, Reason.TRAINING_FAILED, "loss is infinite")
        events = registry.jobs.events_after(made.uid, 0)
        assert [event.sequence for event in events] == [1, 2, 3, 4, 5]
        assert [(event.state, event.phase, event.attempt) for event in events] == [
            (JobState.PENDING, "", 0),
            (JobState.RUNNING, "", 1),
            (JobState.RUNNING, "fitting", 1),
            (JobState.RUNNING, "fitting", 1),
            (JobState.FAILED, "", 1),
        ]
        assert events[3].payload == {"progress": {"epoch": 1, "loss": 0.1}}
        assert events[4].payload == {"error": {"reason": "TRAINING_FAILED", "message": "loss is infinite"}}
        assert registry.jobs.events_after(made.uid, 3) == events[3:]
        assert registry.jobs.events_after(made.uid, 0, limit=2) == events[:2]
        assert registry.jobs.get(made.name).event_count == 5

    def test_cancelling(self, registry):
        dataset = ready(registry)
        waiting, running = train(registry, "a", dataset), train(registry, "b", dataset)
        assert registry.jobs.cancel_request(waiting.name).state is JobState.CANCELLED
        assert registry.jobs.cancel_request(waiting.name).state is JobState.CANCELLED
        job = registry.jobs.claim("w", 60, TRAIN)
        assert job.uid == running.uid
        with pytest.raises(WrongStateError, match="no cancel"):
            registry.jobs.finish_cancelled(job.uid, job.epoch)
        for _ in range(2):
            assert registry.jobs.cancel_request(running.name).state is JobState.CANCELLING
        assert registry.jobs.heartbeat(job.uid, job.epoch) is True
        with pytest.raises(CancelledError):
            registry.models.publish(job.uid, job.epoch, MODEL, new_version())
        registry.jobs.finish_cancelled(job.uid, job.epoch)
        assert registry.jobs.get(running.name).state is JobState.CANCELLED
        with pytest.raises(ResourceNotFoundError):
            registry.models.get(MODEL)
        with pytest.raises(ResourceNotFoundError):
            registry.jobs.cancel_request(TrainingJobName("p", "none"))

    def test_a_cancelled_job_whose_worker_died_is_ended(self, registry):
        made = train(registry)
        job = registry.jobs.claim("w", 60, TRAIN)
        registry.jobs.cancel_request(made.name)
        expire(registry, job.uid)
        ended = []
        assert registry.jobs.claim("x", 60, TRAIN, ended=lambda *told: ended.append(told)) is None
        assert registry.jobs.get(made.name).state is JobState.CANCELLED
        assert ended == [(JobKind.TRAIN, JobState.CANCELLED)]

    def test_an_ended_job_is_not_cancelled(self, registry):
        version = publish(registry)
        name = TrainingJobName("p", "j-v")
        with pytest.raises(WrongStateError, match="SUCCEEDED"):
            registry.jobs.cancel_request(name)
        assert registry.jobs.get(name).model_version == version.name.version

    def test_jobs_are_listed_newest_first_in_pages(self, registry):
        dataset = ready(registry)
        made = [train(registry, f"j{index}", dataset).uid for index in range(3)]
        first = registry.jobs.list(JobKind.TRAIN, "p", 2)
        second = registry.jobs.list(JobKind.TRAIN, "p", 2, first.next_page_token)
        assert sorted(job.uid for job in (*first.items, *second.items)) == sorted(made)
        assert second.next_page_token == ""

    # models

    def test_publishing(self, registry):
        made = train(registry)
        job = registry.jobs.claim("w", 60, TRAIN)
        version = registry.models.publish(job.uid, job.epoch, MODEL, new_version())
        assert version.name == ModelVersionName("p", "m", 1)
        assert (version.job_uid, version.schema, version.weights_sha256) == (made.uid, SCHEMA, b"w" * 32)
        ended = registry.jobs.get(made.name)
        assert (ended.state, ended.model_version, ended.holder) == (JobState.SUCCEEDED, 1, "")
        last = registry.jobs.events_after(made.uid, 0)[-1]
        assert (last.state, last.payload) == (JobState.SUCCEEDED, {"model_version": 1})
        assert registry.models.get(MODEL).aliases == {"latest": 1}

    def test_a_job_publishes_once(self, registry):
        made = train(registry)
        job = registry.jobs.claim("w", 60, TRAIN)
        version = registry.models.publish(job.uid, job.epoch, MODEL, new_version("one"))
        assert registry.models.publish(job.uid, job.epoch, MODEL, new_version("one")) == version
        with pytest.raises(FencedError):
            registry.models.publish(job.uid, job.epoch + 1, MODEL, new_version("two"))
        assert len(registry.models.list_versions(MODEL).items) == 1
        assert registry.jobs.get(made.name).event_count == 3

    def test_a_version_whose_job_a_crash_left_open_ends_it(self, registry):
        # Of two SQLite files, the models' is committed first: this is what a crash in between leaves.
        for end in ("claim", "cancel", "publish"):
            version = publish(registry, end)
            with writing(registry.engine) as connection:
                connection.execute(
                    update(jobs)
                    .where(jobs.c.uid == version.job_uid)
                    .values(state=JobState.RUNNING, epoch=1, lease_until=1, model_version=None)
                )
            if end == "claim":
                assert registry.jobs.claim("x", 60, TRAIN) is None
            elif end == "cancel":
                with pytest.raises(WrongStateError):
                    registry.jobs.cancel_request(TrainingJobName("p", f"j-{end}"))
            else:
                assert registry.models.publish(version.job_uid, 1, MODEL, new_version(end)) == version
            job = registry.jobs.get_by_uid(version.job_uid)
            assert (job.state, job.model_version) == (JobState.SUCCEEDED, version.name.version)

    def test_versions_count_from_one_and_resolve(self, registry):
        made = [publish(registry, f"v{index}", bytes([index % 2]) * 32) for index in range(3)]
        assert [version.name.version for version in made] == [1, 2, 3]
        registry.models.set_alias(MODEL, "stable", 2)
        for ref, expected in (
            (ModelVersionRef(MODEL, version=1), made[0]),
            (ModelVersionRef(MODEL, alias="latest"), made[2]),
            (ModelVersionRef(MODEL, alias="stable"), made[1]),
            (ModelVersionRef(MODEL, digest=bytes(32)), made[2]),
            (ModelVersionRef(MODEL, digest=b"\x01" * 32), made[1]),
        ):
            assert registry.models.resolve(ref) == expected
        for ref, words in (
            (ModelVersionRef(MODEL, version=4), "versions/4"),
            (ModelVersionRef(MODEL, alias="best"), "latest, stable"),
            (ModelVersionRef(MODEL, digest=b"x" * 32), "@sha256:7878"),
            (ModelVersionRef(ModelName("p", "none"), version=1), "models/none"),
            (ModelVersionRef(ModelName("q", "m"), version=1), "projects/q"),
        ):
            with pytest.raises(ResourceNotFoundError, match=words):
                registry.models.resolve(ref)
        page = registry.models.list_versions(MODEL, 2)
        rest = registry.models.list_versions(MODEL, 2, page.next_page_token)
        assert (*page.items, *rest.items) == tuple(reversed(made))

    def test_aliases(self, registry):
        publish(registry)
        assert registry.models.set_alias(MODEL, "a", 1).aliases == {"a": 1, "latest": 1}
        assert registry.models.set_alias(MODEL, "a", 1).aliases == {"a": 1, "latest": 1}
        assert registry.models.set_alias(MODEL, "a", None).aliases == {"latest": 1}
        assert registry.models.set_alias(MODEL, "a", None).aliases == {"latest": 1}
        with pytest.raises(InvalidFieldError, match="alias"):
            registry.models.set_alias(MODEL, "latest", 1)
        with pytest.raises(InvalidFieldError, match="alias"):
            registry.models.set_alias(MODEL, "Not An Id", 1)
        with pytest.raises(ResourceNotFoundError, match="versions/2"):
            registry.models.set_alias(MODEL, "a", 2)

    def test_deleting_versions(self, registry):
        for index in (1, 2):
            publish(registry, f"v{index}")
        registry.models.set_alias(MODEL, "stable", 2)
        second = ModelVersionName("p", "m", 2)
        with pytest.raises(WrongStateError, match="'stable'"):
            registry.models.delete_version(second)
        registry.models.set_alias(MODEL, "stable", None)
        registry.models.delete_version(second)
        assert registry.models.purge() == 1
        assert set(registry.models.garbage()) == {"v2/manifest.json", "v2/weights.safetensors"}
        assert registry.models.get(MODEL).latest == 1
        assert set(registry.models.garbage()) == {"v2/manifest.json", "v2/weights.safetensors"}
        registry.models.forget(registry.models.garbage())
        assert registry.models.garbage() == ()
        with pytest.raises(ResourceNotFoundError):
            registry.models.delete_version(second)
        assert publish(registry, "v3").name.version == 3
        registry.models.delete_version(ModelVersionName("p", "m", 3))
        registry.models.delete_version(ModelVersionName("p", "m", 1))
        assert registry.models.get(MODEL).latest is None
        with pytest.raises(ResourceNotFoundError, match="latest"):
            registry.models.resolve(ModelVersionRef(MODEL, alias="latest"))

    def test_latest_is_resolved_while_the_version_it_points_at_is_deleted(self, registry, url):
        for index in (1, 2):
            publish(registry, f"v{index}")
        other = open_registry(url)
        deleted = []

        @event.listens_for(registry.engine, "after_cursor_execute")
        def after(connection, cursor, statement, *_):
            if "model_aliases" in statement and not deleted:
                deleted.append(ModelVersionName("p", "m", 2))
                other.models.delete_version(deleted[0], 3600)

        latest = ModelVersionRef(MODEL, alias="latest")
        # As it was when the read began, and as it is afterwards.
        assert [registry.models.resolve(latest).name.version for _ in range(2)] == [2, 1]
        other.close()

    def test_models_are_listed_by_name_in_pages(self, registry):
        for index, model in enumerate(("b", "c", "a")):
            train(registry, f"j{index}")
            job = registry.jobs.claim("w", 60, TRAIN)
            registry.models.publish(job.uid, job.epoch, ModelName("p", model), new_version(model))
        page = registry.models.list("p", 2)
        rest = registry.models.list("p", 2, page.next_page_token)
        assert [record.name.model for record in (*page.items, *rest.items)] == ["a", "b", "c"]
        assert page.items[0].aliases == {"latest": 1}

    def test_racing_publishers_give_one_version(self, registry):
        train(registry)
        job = registry.jobs.claim("w", 60, TRAIN)
        results = []

        def work(key):
            try:
                results.append(registry.models.publish(job.uid, job.epoch, MODEL, new_version(key)).manifest_key)
            except FencedError:
                results.append(None)

        threads = [threading.Thread(target=work, args=(f"k{index}",)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len([result for result in results if result]) == 1
        assert len(registry.models.list_versions(MODEL).items) == 1

    def test_processes_write_side_by_side(self, registry, url):
        train(registry)
        job = registry.jobs.claim("w", 60, TRAIN)
        context = multiprocessing.get_context("spawn")
        workers = [context.Process(target=append_events, args=(url, job.uid, job.epoch, 20)) for _ in range(2)]
        for worker in workers:
            worker.start()
        append_events(url, job.uid, job.epoch, 20)
        for worker in workers:
            worker.join(60)
        assert [worker.exitcode for worker in workers] == [0, 0]
        events = registry.jobs.events_after(job.uid, 0)
        assert [event.sequence for event in events] == list(range(1, 63))

    # readers

    def test_a_reader_sees_what_is_published_while_it_is_open(self, registry, url):
        reader = open_models_registry(url)
        for number in (1, 2):
            version = publish(registry, f"v{number}")
            assert reader.models.get(MODEL).latest == number
            assert reader.models.resolve(ModelVersionRef(MODEL, alias="latest")) == version
        with pytest.raises(UnavailableError):
            reader.models.set_alias(MODEL, "a", 1)
        reader.close()

    def test_a_reader_waits_for_a_registry_that_is_not_there_yet(self, empty_url):
        reader = open_models_registry(empty_url)
        with pytest.raises(UnavailableError, match="does not exist yet") as caught:
            reader.models.get(MODEL)
        assert caught.value.retry_after == 1.0
        writer = open_registry(empty_url)
        with reading(writer.engine), pytest.raises(UnavailableError, match="does not exist yet"):
            reader.models.get(MODEL)
        migrate(writer.engine)
        with pytest.raises(ResourceNotFoundError):
            reader.models.get(MODEL)
        reader.close()
        writer.close()

    def test_a_read_only_registry_refuses_to_write(self, registry, url):
        dataset = ready(registry)
        reader = open_registry(url, read_only=True)
        assert reader.datasets.get(dataset.name) == dataset
        with pytest.raises(UnavailableError):
            reader.datasets.create("p", "x", data_format={})
        reader.close()
        assert [record.name for record in registry.datasets.list("p").items] == [dataset.name]


def append_events(url, uid, epoch, count):
    registry = open_registry(url)
    for _ in range(count):
        registry.jobs.append_event(uid, epoch, {})
        registry.jobs.heartbeat(uid, epoch)
    registry.close()


class TestSqlite(RegistrySuite):
    @pytest.fixture
    def empty_url(self, tmp_path):
        return f"sqlite:///{tmp_path}/registry"

    @pytest.fixture
    def url(self, empty_url):
        registry = open_registry(empty_url)
        migrate(registry.engine)
        registry.close()
        return empty_url

    def test_each_schema_is_a_file_in_wal_mode(self, registry, tmp_path):
        ready(registry)
        assert {"data.db", "models.db"} <= {path.name for path in (tmp_path / "registry").iterdir()}
        with reading(registry.engine) as connection:
            for schema in (DATA, MODELS):
                assert connection.exec_driver_sql(f"PRAGMA {schema}.journal_mode").scalar() == "wal"
                assert connection.exec_driver_sql(f"PRAGMA {schema}.synchronous").scalar() == 2
            attached = [row[1] for row in connection.exec_driver_sql("PRAGMA database_list")]
        assert attached.index(MODELS) < attached.index(DATA)

    def test_a_reader_of_models_never_opens_the_data(self, registry, tmp_path):
        version = publish(registry)
        (tmp_path / "alone").mkdir()
        for name in ("models.db", "models.db-wal"):
            (tmp_path / "alone" / name).write_bytes((tmp_path / "registry" / name).read_bytes())
        for url in (f"sqlite:///{tmp_path}/alone/models.db", f"sqlite:///{tmp_path}/alone"):
            reader = open_models_registry(url)
            assert reader.models.resolve(ModelVersionRef(MODEL, alias="latest")) == version
            with pytest.raises(UnavailableError):
                reader.models.set_alias(MODEL, "a", 1)
            reader.close()
        assert not (tmp_path / "alone" / "data.db").exists()

    def test_a_reader_makes_nothing_where_no_registry_is(self, tmp_path):
        reader = open_models_registry(f"sqlite:///{tmp_path}/later/models.db")
        with pytest.raises(UnavailableError, match="does not exist yet"):
            reader.models.get(MODEL)
        reader.close()
        assert not (tmp_path / "later").exists()

    def test_models_may_live_elsewhere(self, tmp_path):
        models_url = f"sqlite:///{tmp_path}/m/models.db"
        registry = open_registry(f"sqlite:///{tmp_path}/d", models_url=models_url)
        migrate(registry.engine)
        version = publish(registry)
        reader = open_models_registry(models_url)
        assert reader.models.resolve(ModelVersionRef(MODEL, alias="latest")) == version
        assert sorted(path.name for path in tmp_path.glob("*/*.db")) == ["data.db", "models.db"]
        reader.close()
        registry.close()

    def test_a_damaged_file_is_lost_data(self, tmp_path):
        (tmp_path / "models.db").write_bytes(b"not a database, whatever its name says" * 100)
        reader = open_models_registry(f"sqlite:///{tmp_path}/models.db")
        with pytest.raises(DataLossError, match="backup"):
            reader.models.get(MODEL)
        reader.close()

    def test_a_crash_between_the_files_migrations_is_mended(self, tmp_path):
        for made in (MODELS, DATA):
            registry = open_registry(f"sqlite:///{tmp_path}/{made}")
            migrate(registry.engine)
            registry.close()
            (tmp_path / made / f"{made.removeprefix('rowmint_')}.db").unlink()
            registry = open_registry(f"sqlite:///{tmp_path}/{made}")
            migrate(registry.engine)
            publish(registry)
            registry.close()


class TestPostgres(RegistrySuite):
    @pytest.fixture
    def empty_url(self, postgres_url):
        return postgres_url

    @pytest.fixture
    def url(self, migrated_postgres_url):
        return migrated_postgres_url

    def test_the_models_url_may_name_the_same_database(self, registry, url):
        version = publish(registry)
        both = open_registry(url, models_url=url)
        assert both.models.resolve(ModelVersionRef(MODEL, alias="latest")) == version
        both.close()

    def test_a_registry_outlives_a_crash_of_the_server(self, registry, postgres):
        version = publish(registry)
        postgres.kill()
        try:
            for _ in range(2):
                with pytest.raises(UnavailableError) as caught:
                    registry.models.get(MODEL)
                assert (caught.value.retry_after, postgres.password in str(caught.value)) == (1.0, False)
        finally:
            postgres.start()
        assert registry.models.resolve(ModelVersionRef(MODEL, alias="latest")) == version
        assert publish(registry, "after").name.version == 2

    def test_a_transaction_that_is_cut_off_commits_nothing(self, registry, postgres):
        made = train(registry)
        job = registry.jobs.claim("w", 60, TRAIN)

        def change_and_be_cut_off():
            with writing(registry.engine) as connection:
                connection.execute(update(jobs).where(jobs.c.uid == made.uid).values(holder="nobody"))
                backend = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
                postgres.execute(sql.SQL("SELECT pg_terminate_backend({})").format(backend))
                connection.execute(select(func.count()).select_from(jobs))

        with pytest.raises(UnavailableError):
            change_and_be_cut_off()
        assert registry.jobs.get(made.name) == job
        assert registry.jobs.heartbeat(job.uid, job.epoch) is False

    def test_a_wrong_password_is_told_without_it(self, url, postgres):
        wrong = open_registry(postgres.url(make_url(url).database, password="not-the-password"))
        with pytest.raises(UnavailableError) as caught:
            wrong.models.get(MODEL)
        assert "not-the-password" not in str(caught.value)
        wrong.close()

    def test_the_samplers_role_reads_the_models_and_nothing_else(self, postgres):
        postgres.execute(sql.SQL("CREATE DATABASE rowmint"))
        postgres.run_script(
            ROOT / "deploy" / "postgres-init.sql",
            "rowmint",
            {"TRAINER_DATABASE_PASSWORD": "trains", "SAMPLER_DATABASE_PASSWORD": "samples"},
        )
        trainer = open_registry(postgres.url("rowmint", "rowmint_trainer", "trains"))
        migrate(trainer.engine)
        version = publish(trainer)
        sampler_url = postgres.url("rowmint", "rowmint_sampler", "samples")
        sampler = open_models_registry(sampler_url)
        assert sampler.models.resolve(ModelVersionRef(MODEL, alias="latest")) == version
        train(trainer, "staged")
        job = trainer.jobs.claim("w", 60, TRAIN)
        staged = trainer.models.publish(job.uid, job.epoch, MODEL, new_version("staged"), staged=True)
        assert sampler.models.resolve(ModelVersionRef(MODEL, version=2), unpublished=True) == staged
        with pytest.raises(UnavailableError):
            sampler.models.set_alias(MODEL, "a", 1)
        sampler.close()
        with psycopg.connect(sampler_url.replace("+psycopg", "")) as connection:
            for statement, error in (
                (f"SELECT * FROM {DATA}.datasets", psycopg.errors.InsufficientPrivilege),
                (f"DELETE FROM {MODELS}.models", psycopg.errors.ReadOnlySqlTransaction),
                (f"SET TRANSACTION READ WRITE; DELETE FROM {MODELS}.models", psycopg.errors.InsufficientPrivilege),
                ("CREATE TABLE public.t ()", psycopg.errors.ReadOnlySqlTransaction),
            ):
                with pytest.raises(error):
                    connection.execute(statement)
                connection.rollback()
        assert trainer.models.get(MODEL).latest == 1
        trainer.close()
        postgres.drop_database(postgres.url("rowmint"))
        for role in ("rowmint_trainer", "rowmint_sampler"):
            postgres.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://h/d", "sqlite://", "sqlite:///both.db"])
def test_other_urls_are_refused(url):
    with pytest.raises(InvalidFieldError, match="data_registry_url"):
        open_registry(url)


def test_the_models_of_postgresql_are_in_the_same_database():
    with pytest.raises(InvalidFieldError, match="same PostgreSQL database") as caught:
        open_registry("postgresql://u:secret@h/one", models_url="postgresql://u:secret@h/two")
    assert "secret" not in str(caught.value)
