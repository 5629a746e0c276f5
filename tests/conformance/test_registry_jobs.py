"""Jobs in every registry: claims, leases, attempts, events and cancellation."""

import threading

import pytest
from sqlalchemy import insert, select, update

from rowmint.errors import (
    CancelledError,
    FencedError,
    Reason,
    RequestIdReusedError,
    ResourceExistsError,
    ResourceNotFoundError,
    WrongStateError,
)
from rowmint.names import TrainingJobName
from rowmint.registry import (
    DatasetState,
    JobKind,
    JobState,
)
from rowmint.registry.engine import writing
from rowmint.registry.tables import jobs
from tests.conformance.registries import (
    INGEST,
    MODEL,
    TRAIN,
    OnPostgres,
    OnSqlite,
    RegistrySuite,
    expire,
    new_version,
    publish,
    ready,
    train,
    uploaded,
)
from tests.waiting import wait_until


class JobSuite(RegistrySuite):
    """What every registry holds of jobs."""

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
        former = {"request_digest": b"3" * 32, "former_digests": (b"1" * 32,)}
        assert train(registry, "", dataset, request_id="r", **former) == one
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
        # Its time is over, and no trainer has taken the job up: it is still the one to look at.
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

    def test_a_job_keeps_the_span_of_its_request(self, registry):
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

        def report(kind, state):
            # It is committed before it is reported.
            ended.append((kind, registry.jobs.get_by_uid(job.uid).state))
            assert ended[-1][1] is state

        for kinds in (TRAIN, INGEST):
            for attempt in (1, 2, 3):
                job = registry.jobs.claim("w", 60, kinds, ended=report)
                assert job.attempt == attempt
                expire(registry, job.uid)
            assert registry.jobs.claim("w", 60, kinds, ended=report) is None
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

    def test_a_cancelled_job_of_a_crashed_worker_is_ended(self, registry):
        made = train(registry)
        job = registry.jobs.claim("w", 60, TRAIN)
        registry.jobs.cancel_request(made.name)
        expire(registry, job.uid)
        ended = []
        assert registry.jobs.claim("x", 60, TRAIN, ended=lambda *reported: ended.append(reported)) is None
        assert registry.jobs.get(made.name).state is JobState.CANCELLED
        assert ended == [(JobKind.TRAIN, JobState.CANCELLED)]

    def test_an_ended_job_is_not_cancelled(self, registry):
        version = publish(registry)
        name = TrainingJobName("p", "j-v")
        with pytest.raises(WrongStateError, match="SUCCEEDED"):
            registry.jobs.cancel_request(name)
        assert registry.jobs.get(name).model_version == version.name.version

    def test_heads_are_read_together(self, registry):
        dataset = ready(registry, "watched")
        first, second = (train(registry, name, dataset) for name in ("first", "second"))
        registry.jobs.cancel_request(second.name)
        heads = registry.jobs.heads([first.uid, second.uid, *(f"none-{number}" for number in range(600))])
        ended = registry.jobs.get_by_uid(second.uid)
        assert heads == {first.uid: (first.event_count, False), second.uid: (ended.event_count, True)}
        assert registry.jobs.heads([]) == {}

    def test_jobs_are_listed_newest_first_in_pages(self, registry):
        dataset = ready(registry)
        made = [train(registry, f"j{index}", dataset).uid for index in range(3)]
        first = registry.jobs.list(JobKind.TRAIN, "p", 2)
        second = registry.jobs.list(JobKind.TRAIN, "p", 2, first.next_page_token)
        assert sorted(job.uid for job in (*first.items, *second.items)) == sorted(made)
        assert second.next_page_token == ""


class TestSqlite(OnSqlite, JobSuite):
    """On SQLite."""


class TestPostgres(OnPostgres, JobSuite):
    """On PostgreSQL."""
