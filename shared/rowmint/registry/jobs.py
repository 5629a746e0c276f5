"""The ledger of jobs: leased work, taken up by one worker at a time."""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, Engine, Row, Select, and_, func, or_, select, tuple_, update

from rowmint.errors import (
    CancelledError,
    DataProblem,
    Reason,
    ResourceExistsError,
    ResourceNotFoundError,
    WrongStateError,
)
from rowmint.names import TrainingJobName
from rowmint.registry.datasets import fail_dataset, require_ready
from rowmint.registry.engine import DatabaseNow, reading, writing
from rowmint.registry.job_records import EventRecord, JobRecord, job_record
from rowmint.registry.job_rows import (
    MAX_ATTEMPTS,
    CheckpointRecord,
    JobKind,
    JobPhase,
    JobState,
    append_event,
    drop_checkpoint,
    end_job,
    exhausted_error,
    insert_job,
    lock_job,
    published_version,
)
from rowmint.registry.paging import Page, PageRequest, instant
from rowmint.registry.requests import earlier_row
from rowmint.registry.tables import job_events, jobs

_LAST_EVENTS = 4  # a cancel may have written one in between


class JobLedger:
    """Jobs, one transaction a call. Safe for any number of threads and processes.

    Leases run by the database's clock only. Whoever works on a job holds its epoch; every write with an older one, or
    on a job that has ended, raises `FencedError` and changes nothing. Every method raises `UnavailableError` where the
    database cannot be used.

    Args:
        engine: An engine of both schemas.
        new_uid: Gives 32 hex digits, never the same twice.
    """

    def __init__(self, engine: Engine, new_uid: Callable[[], str]) -> None:
        self._engine = engine
        self._new_uid = new_uid

    def create(
        self,
        project: str,
        job_id: str,
        *,
        config: Mapping[str, Any],
        dataset_uid: str,
        dataset: str,
        model: str,
        request_id: str = "",
        request_digest: bytes = b"",
        trace_parent: str | None = None,
    ) -> JobRecord:
        """Create a training job, or return the one that the same request created before.

        Args:
            project: Its project.
            job_id: Last part of its name; empty: one is made.
            config: What is to be done, JSON values, every default filled in.
            dataset_uid: The dataset; it must be READY.
            dataset: The dataset's name.
            model: The model's name.
            request_id: What makes a repeated call harmless, or empty.
            request_digest: SHA-256 of the request's body; equal exactly for equal bodies.
            trace_parent: The span that asks for it, as W3C Trace Context writes it, or None.

        Raises:
            RequestIdReusedError: The request_id was used with another body.
            ResourceExistsError: There is a job of this name.
            ResourceNotFoundError: The dataset is gone.
            WrongStateError: The dataset is not READY.
        """
        uid = self._new_uid()
        name = TrainingJobName(project, job_id or f"job-{uid[:12]}")
        train = and_(jobs.c.project == project, jobs.c.kind == JobKind.TRAIN)
        with writing(self._engine) as connection:
            earlier = earlier_row(connection, jobs, train, request_id, request_digest)
            if earlier is not None:
                return job_record(earlier)
            require_ready(connection, dataset_uid)
            inserted = insert_job(
                connection,
                {
                    "uid": uid,
                    "project": project,
                    "job_id": name.job,
                    "kind": JobKind.TRAIN,
                    "config": dict(config),
                    "dataset_uid": dataset_uid,
                    "dataset_name": dataset,
                    "model_name": model,
                    "request_id": request_id or None,
                    "request_digest": request_digest if request_id else None,
                    "trace_parent": trace_parent,
                },
            )
            if inserted:
                return job_record(_row(connection, uid))
            # Another call with the same request may have won a race.
            earlier = earlier_row(connection, jobs, train, request_id, request_digest)
            if earlier is not None:
                return job_record(earlier)
            raise ResourceExistsError(f"{name} exists; choose another training_job_id", metadata={"name": str(name)})

    def repeated(self, project: str, request_id: str, request_digest: bytes) -> JobRecord | None:
        """Return the training job that the same request created before, or None; arguments as in `create`.

        Raises:
            RequestIdReusedError: The request_id was used with another body.
        """
        train = and_(jobs.c.project == project, jobs.c.kind == JobKind.TRAIN)
        with reading(self._engine) as connection:
            earlier = earlier_row(connection, jobs, train, request_id, request_digest)
            return None if earlier is None else job_record(earlier)

    def get(self, name: TrainingJobName) -> JobRecord:
        """Return a training job.

        Raises:
            ResourceNotFoundError: There is none of this name.
        """
        with reading(self._engine) as connection:
            return job_record(_named(connection, name))

    def get_by_uid(self, uid: str) -> JobRecord:
        """Return a job of any kind.

        Raises:
            ResourceNotFoundError: There is none of this uid.
        """
        with reading(self._engine) as connection:
            return job_record(_row(connection, uid))

    def list(self, project: str, page_size: int | None = None, page_token: str = "") -> Page[JobRecord]:
        """Return a page of a project's training jobs, newest first.

        Raises:
            InvalidFieldError: `page_size` or `page_token` is wrong.
        """
        request = PageRequest.parse(f"jobs:{project}", page_size, page_token, (int, str))
        query = select(jobs).where(jobs.c.project == project, jobs.c.kind == JobKind.TRAIN)
        if request.after is not None:
            query = query.where(tuple_(jobs.c.create_time, jobs.c.uid) < tuple_(*request.after))
        query = query.order_by(jobs.c.create_time.desc(), jobs.c.uid.desc()).limit(request.size + 1)
        with reading(self._engine) as connection:
            return request.page([((row.create_time, row.uid), job_record(row)) for row in connection.execute(query)])

    def events_after(self, uid: str, sequence: int, limit: int = 1000) -> tuple[EventRecord, ...]:
        """Return up to `limit` events numbered above `sequence`, in order."""
        query = (
            select(job_events)
            .where(job_events.c.job_uid == uid, job_events.c.sequence > sequence)
            .order_by(job_events.c.sequence)
            .limit(limit)
        )
        with reading(self._engine) as connection:
            return tuple(
                EventRecord(
                    row.job_uid,
                    row.sequence,
                    instant(row.time),
                    row.attempt,
                    JobState(row.state),
                    JobPhase(row.phase),
                    row.payload,
                )
                for row in connection.execute(query)
            )

    def census(self) -> dict[tuple[JobKind, JobState], int]:
        """Return how many jobs there are of each kind in each state; those of which there is none are left out."""
        query = select(jobs.c.kind, jobs.c.state, func.count()).group_by(jobs.c.kind, jobs.c.state)
        with reading(self._engine) as connection:
            return {(JobKind(kind), JobState(state)): count for kind, state, count in connection.execute(query)}

    def lease_ages(self) -> dict[TrainingJobName, float]:
        """Return how long ago the lease of each job that somebody holds was renewed, seconds by the database's clock.

        A lease that has run out is held until the job is taken up anew.
        """
        age = DatabaseNow() - (jobs.c.lease_until - jobs.c.lease)
        query = select(jobs.c.project, jobs.c.job_id, age).where(
            jobs.c.state.in_([JobState.RUNNING, JobState.CANCELLING])
        )
        with reading(self._engine) as connection:
            found = connection.execute(query)
            return {TrainingJobName(project, job): microseconds / 1_000_000 for project, job, microseconds in found}

    def claim(
        self,
        holder: str,
        lease_seconds: float,
        kinds: tuple[JobKind, ...],
        *,
        ended: Callable[[JobKind, JobState], None] = lambda _, __: None,
    ) -> JobRecord | None:
        """Take up the oldest job that waits or whose worker has let its lease run out; None where there is none.

        Jobs found on the way that need no worker are ended: one whose version is published already has SUCCEEDED, one
        that was being cancelled is CANCELLED, one taken up `max_attempts` times has FAILED.

        Args:
            holder: Who takes it up, for people to read.
            lease_seconds: How long the job is the caller's after each heartbeat, above 0.
            kinds: Kinds of job the caller can do.
            ended: Told of each job that was ended, once that is committed; must not raise.
        """
        # A look costs no write lock; most calls find nothing.
        with reading(self._engine) as connection:
            if connection.execute(_waiting(kinds)).first() is None:
                return None
        found = None
        over: list[tuple[JobKind, JobState]] = []
        with writing(self._engine) as connection:
            while (row := connection.execute(_waiting(kinds).with_for_update(skip_locked=True)).first()) is not None:
                state = _end_without_worker(connection, row)
                if state is None:
                    found = job_record(_take(connection, row, holder, lease_seconds))
                    break
                over.append((JobKind(row.kind), state))
        for kind, state in over:
            ended(kind, state)
        return found

    def heartbeat(self, uid: str, epoch: int) -> bool:
        """Renew the lease; return whether a cancel is committed, so that the worker must stop."""
        with writing(self._engine) as connection:
            row = lock_job(connection, uid, epoch)
            connection.execute(update(jobs).where(jobs.c.uid == uid).values(lease_until=DatabaseNow() + row.lease))
            return bool(row.cancel_requested)

    def release(self, uid: str, epoch: int) -> None:
        """Give a job back undone, for example as the worker shuts down; the attempt does not count as a failed one."""
        with writing(self._engine) as connection:
            row = lock_job(connection, uid, epoch)
            if row.state == JobState.CANCELLING:
                end_job(connection, uid, JobState.CANCELLED)
                return
            connection.execute(
                update(jobs)
                .where(jobs.c.uid == uid)
                .values(
                    state=JobState.PENDING,
                    phase=JobPhase.UNSPECIFIED,
                    holder="",
                    lease_until=None,
                    # The epoch moves on, so that the worker that let go is fenced from here on.
                    epoch=row.epoch + 1,
                    max_attempts=row.max_attempts + 1,
                )
            )
            append_event(connection, uid, {"message": "given back by a worker that shut down"})

    def append_event(self, uid: str, epoch: int, payload: Mapping[str, Any], *, again: bool = False) -> int:
        """Append to the job's log and return the event's number.

        Args:
            uid: The job.
            epoch: The attempt's epoch.
            payload: What the event tells, JSON values; no other event of the attempt tells the same.
            again: Whether the same call was made before and its answer lost: it is not to be written twice.
        """
        with writing(self._engine) as connection:
            row = lock_job(connection, uid, epoch)
            return (_written(connection, row, payload) if again else None) or append_event(connection, uid, payload)

    def set_phase(
        self, uid: str, epoch: int, phase: JobPhase, payload: Mapping[str, Any] | None = None, *, again: bool = False
    ) -> int:
        """Say what the job is at now, with an event, and return the event's number; see `append_event`."""
        body = dict(payload or {})
        with writing(self._engine) as connection:
            row = lock_job(connection, uid, epoch)
            if again and row.phase == phase:
                written = _written(connection, row, body)
                if written is not None:
                    return written
            connection.execute(update(jobs).where(jobs.c.uid == uid).values(phase=phase))
            return append_event(connection, uid, body)

    def save_checkpoint(self, uid: str, epoch: int, checkpoint: CheckpointRecord) -> None:
        """Let the next attempt go on from a stored checkpoint; the one before it is garbage from now on.

        A job that gets further may be taken up `MAX_ATTEMPTS` times more.

        Raises:
            CancelledError: A cancel was committed before.
        """
        with writing(self._engine) as connection:
            row = lock_job(connection, uid, epoch)
            if row.state == JobState.CANCELLING:
                raise CancelledError(f"job {uid} was cancelled before it saved a checkpoint")
            if row.checkpoint != checkpoint.to_json():
                drop_checkpoint(connection, uid)
            connection.execute(
                update(jobs)
                .where(jobs.c.uid == uid)
                .values(checkpoint=checkpoint.to_json(), max_attempts=max(row.max_attempts, row.attempt + MAX_ATTEMPTS))
            )

    def fail(self, uid: str, epoch: int, reason: Reason, message: str) -> None:
        """End a job as FAILED; of an ingest job, its dataset too. A job being cancelled is CANCELLED instead."""
        with writing(self._engine) as connection:
            row = lock_job(connection, uid, epoch)
            if row.state == JobState.CANCELLING:
                end_job(connection, uid, JobState.CANCELLED)
                return
            _fail(connection, row, {"reason": str(reason), "message": message})

    def cancel_request(self, name: TrainingJobName) -> JobRecord:
        """Commit a cancel. A job nobody works on is CANCELLED at once, a running one CANCELLING; otherwise harmless.

        Raises:
            ResourceNotFoundError: There is none of this name.
            WrongStateError: It has SUCCEEDED or FAILED.
        """
        with writing(self._engine) as connection:
            row = _named(connection, name, lock=True)
            state = JobState(row.state)
            if not state.ended:
                version = published_version(connection, row.uid)
                if version is not None:
                    end_job(connection, row.uid, JobState.SUCCEEDED, version=version)
                    state = JobState.SUCCEEDED
            if state is not JobState.SUCCEEDED and state is not JobState.FAILED:
                if state is JobState.PENDING:
                    connection.execute(update(jobs).where(jobs.c.uid == row.uid).values(cancel_requested=True))
                    end_job(connection, row.uid, JobState.CANCELLED)
                elif state is JobState.RUNNING:
                    changed = update(jobs).where(jobs.c.uid == row.uid)
                    connection.execute(changed.values(state=JobState.CANCELLING, cancel_requested=True))
                    append_event(connection, row.uid, {})
                return job_record(_row(connection, row.uid))
        # Raised outside the transaction: what was mended above stays.
        raise WrongStateError(f"{name} has {state} already; there is nothing to cancel", metadata={"state": state})

    def finish_cancelled(self, uid: str, epoch: int) -> None:
        """End a job as CANCELLED, once its worker has stopped.

        Raises:
            WrongStateError: No cancel was asked for.
        """
        with writing(self._engine) as connection:
            row = lock_job(connection, uid, epoch)
            if row.state != JobState.CANCELLING:
                raise WrongStateError(
                    f"job {uid} is {row.state}: no cancel is committed", metadata={"state": row.state}
                )
            end_job(connection, uid, JobState.CANCELLED)


def _written(connection: Connection, row: Row[Any], payload: Mapping[str, Any]) -> int | None:
    """Return the number of the attempt's event that tells `payload`, where it is among the last few."""
    last = (
        select(job_events)
        .where(job_events.c.job_uid == row.uid, job_events.c.attempt == row.attempt)
        .order_by(job_events.c.sequence.desc())
        .limit(_LAST_EVENTS)
    )
    found = (event for event in connection.execute(last) if event.payload == dict(payload) and event.phase == row.phase)
    event = next(found, None)
    return None if event is None else int(event.sequence)


def _waiting(kinds: tuple[JobKind, ...]) -> Select[Any]:
    expired = and_(jobs.c.state.in_([JobState.RUNNING, JobState.CANCELLING]), jobs.c.lease_until < DatabaseNow())
    return (
        select(jobs)
        .where(jobs.c.kind.in_(list(kinds)), or_(jobs.c.state == JobState.PENDING, expired))
        .order_by(jobs.c.create_time, jobs.c.uid)
        .limit(1)
    )


def _end_without_worker(connection: Connection, row: Row[Any]) -> JobState | None:
    """End a job that needs no worker, and return its state; None where it needs one."""
    version = published_version(connection, row.uid) if row.kind == JobKind.TRAIN else None
    if version is not None:
        end_job(connection, row.uid, JobState.SUCCEEDED, version=version)
        return JobState.SUCCEEDED
    if row.state == JobState.CANCELLING:
        end_job(connection, row.uid, JobState.CANCELLED)
        return JobState.CANCELLED
    if row.attempt >= row.max_attempts:
        _fail(connection, row, exhausted_error(row.attempt))
        return JobState.FAILED
    return None


def _take(connection: Connection, row: Row[Any], holder: str, lease_seconds: float) -> Row[Any]:
    lease = round(lease_seconds * 1_000_000)
    connection.execute(
        update(jobs)
        .where(jobs.c.uid == row.uid)
        .values(
            state=JobState.RUNNING,
            phase=JobPhase.UNSPECIFIED,
            epoch=row.epoch + 1,
            attempt=row.attempt + 1,
            holder=holder,
            lease=lease,
            lease_until=DatabaseNow() + lease,
            start_time=DatabaseNow() if row.start_time is None else row.start_time,
        )
    )
    append_event(connection, row.uid, {})
    return _row(connection, row.uid)


def _fail(connection: Connection, row: Row[Any], error: Mapping[str, str]) -> None:
    if row.kind == JobKind.INGEST:
        fail_dataset(connection, row.dataset_uid, [DataProblem(error["message"])])
    end_job(connection, row.uid, JobState.FAILED, error=error)


def _row(connection: Connection, uid: str) -> Row[Any]:
    row = connection.execute(select(jobs).where(jobs.c.uid == uid)).one_or_none()
    if row is None:
        raise ResourceNotFoundError(f"there is no job with uid {uid}")
    return row


def _named(connection: Connection, name: TrainingJobName, *, lock: bool = False) -> Row[Any]:
    query = select(jobs).where(jobs.c.project == name.project, jobs.c.job_id == name.job, jobs.c.kind == JobKind.TRAIN)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise ResourceNotFoundError(f"there is no {name}", metadata={"name": str(name)})
    return row
