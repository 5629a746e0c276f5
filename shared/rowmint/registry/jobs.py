"""The ledger of jobs: leased work, claimed by one worker at a time."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, and_, func, select, tuple_, update

from rowmint.errors import (
    CancelledError,
    Reason,
    ResourceExistsError,
    ResourceNotFoundError,
    WrongStateError,
)
from rowmint.registry.datasets import require_ready
from rowmint.registry.engine import DatabaseNow, reading, writing
from rowmint.registry.job_cancel import cancel, cancel_parts, require_open
from rowmint.registry.job_claims import claimable, next_job, note_turn, serialize_claims
from rowmint.registry.job_kinds import RULES, JobName, job_name, kind_of
from rowmint.registry.job_records import EventRecord, JobRecord, event_record, job_record
from rowmint.registry.job_rows import (
    MAX_ATTEMPTS,
    CheckpointRecord,
    JobKind,
    JobState,
    append_event,
    drop_checkpoint,
    end_job,
    exhausted_error,
    insert_job,
    lock_job,
    phase_of,
    phase_values,
)
from rowmint.registry.paging import FEW_ROWS, Page, PageRequest, every
from rowmint.registry.requests import earlier_row
from rowmint.registry.tables import job_events, jobs

_JOBS_AT_ONCE = 500  # named in one statement
_LAST_EVENTS = 4  # a cancel may have written one in between
# A trainer of a later release may have created jobs of other kinds beside this one.
_KNOWN = jobs.c.kind.in_(list(JobKind))


class JobLedger:
    """Jobs of all kinds, one transaction a call. Safe for any number of threads and processes.

    Leases run by the database's clock only. Each attempt at a job has an epoch; every write with an older one, or on a
    job that has ended, raises `FencedError` and changes nothing. Every method raises `UnavailableError` where the
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
        kind: JobKind,
        project: str,
        job_id: str = "",
        *,
        inputs: Mapping[str, Any],
        config: Mapping[str, Any],
        dataset_uid: str = "",
        parent: str | None = None,
        request_id: str = "",
        request_digest: bytes = b"",
        former_digests: Collection[bytes] = (),
        trace_parent: str | None = None,
    ) -> JobRecord:
        """Create a job, or return the one that the same request created before.

        Args:
            kind: What it does.
            project: Its project.
            job_id: Last part of its name; empty: one is made.
            inputs: What it works on, JSON values; see `JobRecord`.
            config: What is to be done, JSON values, every default filled in.
            dataset_uid: The dataset whose rows it reads, or empty; it must be READY, and stays until the job has ended.
            parent: Uid of the job that it is a part of, or None; that one's cancel reaches it.
            request_id: What makes a repeated call harmless, or empty.
            request_digest: SHA-256 of the request's body; equal exactly for equal bodies.
            former_digests: What earlier releases kept as the digest of an equal body.
            trace_parent: The span that creates it, as W3C Trace Context writes it, or None.

        Raises:
            CancelledError: A cancel of the parent is committed.
            RequestIdReusedError: The request_id was used with another body.
            ResourceExistsError: There is a job of this name.
            ResourceNotFoundError: The dataset or the parent is gone.
            WrongStateError: The dataset is not READY, or the parent has ended.
        """
        uid = self._new_uid()
        name = job_name(kind, project, job_id or f"job-{uid[:12]}")
        scope, digests = _of_kind(project, kind), {request_digest, *former_digests}
        with writing(self._engine) as connection:
            earlier = earlier_row(connection, jobs, scope, request_id, digests)
            if earlier is not None:
                return job_record(earlier)
            if parent is not None:
                require_open(connection, parent)
            if dataset_uid:
                require_ready(connection, dataset_uid)
            inserted = insert_job(
                connection,
                {
                    "uid": uid,
                    "project": project,
                    "job_id": name.job,
                    "kind": kind,
                    "config": dict(config),
                    "inputs": dict(inputs),
                    "dataset_uid": dataset_uid,
                    "parent_uid": parent,
                    "request_id": request_id or None,
                    "request_digest": request_digest if request_id else None,
                    "trace_parent": trace_parent,
                },
            )
            if inserted:
                return job_record(_row(connection, uid))
            # Another call with the same request may have won a race.
            earlier = earlier_row(connection, jobs, scope, request_id, digests)
            if earlier is not None:
                return job_record(earlier)
            raise ResourceExistsError(f"{name} exists; choose another id", metadata={"name": str(name)})

    def repeated(self, kind: JobKind, project: str, request_id: str, digests: Collection[bytes]) -> JobRecord | None:
        """Return the job that the same request created before, or None.

        Args:
            kind: What the job does.
            project: Its project.
            request_id: As in `create`.
            digests: `request_digest` and `former_digests` of `create`.

        Raises:
            RequestIdReusedError: The request_id was used with another body.
        """
        with reading(self._engine) as connection:
            earlier = earlier_row(connection, jobs, _of_kind(project, kind), request_id, digests)
            return None if earlier is None else job_record(earlier)

    def get(self, name: JobName) -> JobRecord:
        """Return a job.

        Raises:
            ResourceNotFoundError: There is none of this name.
        """
        with reading(self._engine) as connection:
            return job_record(_named(connection, name))

    def get_by_uid(self, uid: str) -> JobRecord:
        """Return a job.

        Raises:
            ResourceNotFoundError: There is none of this uid.
        """
        with reading(self._engine) as connection:
            return job_record(_row(connection, uid))

    def list(
        self,
        kind: JobKind,
        project: str,
        page_size: int | None = None,
        page_token: str = "",
        fits: Callable[[JobRecord], bool] = every,
    ) -> Page[JobRecord]:
        """Return a page of a project's jobs of a kind, newest first; `fits` as of `PageRequest.page`.

        Raises:
            InvalidFieldError: `page_size` or `page_token` is wrong.
        """
        return self._page(f"jobs:{kind}:{project}", _of_kind(project, kind), page_size, page_token, fits)

    def children(self, parent: str, page_size: int | None = None, page_token: str = "") -> Page[JobRecord]:
        """Return a page of the jobs that are part of the job of this uid, newest first.

        Raises:
            InvalidFieldError: `page_size` or `page_token` is wrong.
        """
        return self._page(f"children:{parent}", jobs.c.parent_uid == parent, page_size, page_token)

    def _page(
        self,
        scope: str,
        among: ColumnElement[bool],
        size: int | None,
        token: str,
        fits: Callable[[JobRecord], bool] = every,
    ) -> Page[JobRecord]:
        request = PageRequest.parse(scope, size, token, (int, str))
        query = select(jobs).where(among)
        if request.after is not None:
            query = query.where(tuple_(jobs.c.create_time, jobs.c.uid) < tuple_(*request.after))
        query = query.order_by(jobs.c.create_time.desc(), jobs.c.uid.desc()).limit(request.size + 1)
        with reading(self._engine) as connection, connection.execute(query, execution_options=FEW_ROWS) as rows:
            return request.page((((row.create_time, row.uid), job_record(row)) for row in rows), fits)

    def events_after(self, uid: str, sequence: int, limit: int = 1000) -> tuple[EventRecord, ...]:
        """Return up to `limit` events numbered above `sequence`, in order."""
        query = (
            select(job_events)
            .where(job_events.c.job_uid == uid, job_events.c.sequence > sequence)
            .order_by(job_events.c.sequence)
            .limit(limit)
        )
        with reading(self._engine) as connection:
            return tuple(event_record(row) for row in connection.execute(query))

    def heads(self, uids: Sequence[str]) -> dict[str, tuple[int, bool]]:
        """Return the number of events of each of these jobs, and whether it has ended; those gone are left out."""
        found: dict[str, tuple[int, bool]] = {}
        with reading(self._engine) as connection:
            for start in range(0, len(uids), _JOBS_AT_ONCE):
                own = jobs.c.uid.in_(uids[start : start + _JOBS_AT_ONCE])
                query = select(jobs.c.uid, jobs.c.event_count, jobs.c.state).where(own)
                found |= {uid: (count, JobState(state).ended) for uid, count, state in connection.execute(query)}
        return found

    def census(self) -> dict[tuple[JobKind, JobState], int]:
        """Return how many jobs there are of each kind in each state; those of which there is none are left out."""
        query = select(jobs.c.kind, jobs.c.state, func.count()).where(_KNOWN).group_by(jobs.c.kind, jobs.c.state)
        with reading(self._engine) as connection:
            return {(JobKind(kind), JobState(state)): count for kind, state, count in connection.execute(query)}

    def lease_ages(self) -> dict[JobName, float]:
        """Return how long ago the lease of each claimed job was renewed, seconds by the database's clock.

        A lease that has run out is held until the job is claimed again.
        """
        age = DatabaseNow() - (jobs.c.lease_until - jobs.c.lease)
        query = select(jobs.c.kind, jobs.c.project, jobs.c.job_id, age).where(
            _KNOWN, jobs.c.state.in_([JobState.RUNNING, JobState.CANCELLING])
        )
        with reading(self._engine) as connection:
            found = connection.execute(query)
            return {
                job_name(JobKind(kind), project, job): microseconds / 1_000_000
                for kind, project, job, microseconds in found
            }

    def claim(
        self,
        holder: str,
        lease_seconds: float,
        kinds: tuple[JobKind, ...],
        *,
        max_project_jobs: int = 0,
        ended: Callable[[JobKind, JobState], None] = lambda _, __: None,
    ) -> JobRecord | None:
        """Claim a job that is PENDING or whose worker has let its lease run out; None where there is none.

        Projects take turns; see `rowmint.registry.job_claims`. Jobs found on the way that need no worker are ended:
        one that is done already has SUCCEEDED, one that was being cancelled is CANCELLED, one claimed `max_attempts`
        times has FAILED.

        Args:
            holder: Who claims it, for people to read.
            lease_seconds: How long the job is the caller's after each heartbeat, above 0.
            kinds: Kinds of job the caller can do.
            max_project_jobs: RUNNING and CANCELLING jobs of one kind that a project may have, at all trainers together;
                0 for any number. Callers that name the same number keep it together.
            ended: Called for each job that was ended, once that is committed; must not raise.
        """
        # A look costs no write lock; most calls find nothing.
        with reading(self._engine) as connection:
            if connection.execute(claimable(kinds, max_project_jobs)).first() is None:
                return None
        found = None
        over: list[tuple[JobKind, JobState]] = []
        with writing(self._engine) as connection:
            serialize_claims(connection)
            while (row := next_job(connection, kinds, max_project_jobs)) is not None:
                state = _end_without_worker(connection, row)
                if state is None:
                    note_turn(connection, row)
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
                    holder="",
                    lease_until=None,
                    # The epoch moves on, so that the worker that let go is fenced from here on.
                    epoch=row.epoch + 1,
                    max_attempts=row.max_attempts + 1,
                    **phase_values(""),
                )
            )
            append_event(connection, uid, {"message": "given back by a worker that shut down"})

    def append_event(self, uid: str, epoch: int, payload: Mapping[str, Any], *, again: bool = False) -> int:
        """Append to the job's log and return the event's number.

        Args:
            uid: The job.
            epoch: The attempt's epoch.
            payload: What the event reports, JSON values; no other event of the attempt reports the same.
            again: Whether the same call was made before and its answer lost: it is not to be written twice.
        """
        with writing(self._engine) as connection:
            row = lock_job(connection, uid, epoch)
            return (_written(connection, row, payload) if again else None) or append_event(connection, uid, payload)

    def set_phase(
        self, uid: str, epoch: int, phase: str, payload: Mapping[str, Any] | None = None, *, again: bool = False
    ) -> int:
        """Set what the job is at now, with an event, and return the event's number; see `append_event`.

        Args:
            uid: The job.
            epoch: The attempt's epoch.
            phase: A phase of the runner of its kind, up to 32 characters.
            payload: As in `append_event`.
            again: As in `append_event`.
        """
        body = dict(payload or {})
        with writing(self._engine) as connection:
            row = lock_job(connection, uid, epoch)
            if again and phase_of(row) == phase:
                written = _written(connection, row, body)
                if written is not None:
                    return written
            connection.execute(update(jobs).where(jobs.c.uid == uid).values(phase_values(phase)))
            return append_event(connection, uid, body)

    def save_checkpoint(self, uid: str, epoch: int, checkpoint: CheckpointRecord) -> None:
        """Let the next attempt resume from a stored checkpoint; the one before it is garbage from now on.

        A job that gets further may be claimed `MAX_ATTEMPTS` times more.

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
        """End a job as FAILED, with what belongs to it. A job being cancelled is CANCELLED instead."""
        with writing(self._engine) as connection:
            row = lock_job(connection, uid, epoch)
            if row.state == JobState.CANCELLING:
                end_job(connection, uid, JobState.CANCELLED)
                return
            _fail(connection, row, {"reason": str(reason), "message": message})

    def cancel_request(self, name: JobName) -> JobRecord:
        """Commit a cancel of a job and of all that is part of it.

        A job that no worker has is CANCELLED at once, a running one CANCELLING; otherwise harmless.

        Raises:
            ResourceNotFoundError: There is none of this name.
            WrongStateError: It has SUCCEEDED or FAILED.
        """
        with writing(self._engine) as connection:
            row = _named(connection, name, lock=True)
            state = cancel(connection, row)
            if state is JobState.CANCELLING or state is JobState.CANCELLED:
                cancel_parts(connection, row.uid)
                return job_record(_row(connection, row.uid))
        # Raised outside the transaction: a job found done is to be ended.
        raise WrongStateError(f"{name} has {state} already; there is nothing to cancel", metadata={"state": state})

    def finish_cancelled(self, uid: str, epoch: int) -> None:
        """End a job as CANCELLED, once its worker has stopped.

        Raises:
            WrongStateError: No cancel is committed.
        """
        with writing(self._engine) as connection:
            row = lock_job(connection, uid, epoch)
            if row.state != JobState.CANCELLING:
                raise WrongStateError(
                    f"job {uid} is {row.state}: no cancel is committed", metadata={"state": row.state}
                )
            end_job(connection, uid, JobState.CANCELLED)


def _of_kind(project: str, kind: JobKind) -> ColumnElement[bool]:
    return and_(jobs.c.project == project, jobs.c.kind == kind)


def _written(connection: Connection, row: Row[Any], payload: Mapping[str, Any]) -> int | None:
    """Return the number of the attempt's event that reports `payload`, where it is among the last few."""
    last = (
        select(job_events)
        .where(job_events.c.job_uid == row.uid, job_events.c.attempt == row.attempt)
        .order_by(job_events.c.sequence.desc())
        .limit(_LAST_EVENTS)
    )
    phase = phase_of(row)
    found = (event for event in connection.execute(last) if event.payload == dict(payload) and phase_of(event) == phase)
    event = next(found, None)
    return None if event is None else int(event.sequence)


def _end_without_worker(connection: Connection, row: Row[Any]) -> JobState | None:
    """End a job that needs no worker, and return its state; None where it needs one."""
    outputs = RULES[JobKind(row.kind)].made(connection, row.uid)
    if outputs is not None:
        end_job(connection, row.uid, JobState.SUCCEEDED, outputs=outputs)
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
            epoch=row.epoch + 1,
            attempt=row.attempt + 1,
            holder=holder,
            lease=lease,
            lease_until=DatabaseNow() + lease,
            start_time=DatabaseNow() if row.start_time is None else row.start_time,
            **phase_values(""),
        )
    )
    append_event(connection, row.uid, {})
    return _row(connection, row.uid)


def _fail(connection: Connection, row: Row[Any], error: Mapping[str, str]) -> None:
    RULES[JobKind(row.kind)].fail(connection, row, error)
    end_job(connection, row.uid, JobState.FAILED, error=error)


def _row(connection: Connection, uid: str) -> Row[Any]:
    row = connection.execute(select(jobs).where(jobs.c.uid == uid)).one_or_none()
    if row is None:
        raise ResourceNotFoundError(f"there is no job with uid {uid}")
    return row


def _named(connection: Connection, name: JobName, *, lock: bool = False) -> Row[Any]:
    query = select(jobs).where(_of_kind(name.project, kind_of(name)), jobs.c.job_id == name.job)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise ResourceNotFoundError(f"there is no {name}", metadata={"name": str(name)})
    return row
