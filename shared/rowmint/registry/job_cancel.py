"""Cancelling a job and all that is part of it, within a transaction of the caller's."""

from typing import Any

from sqlalchemy import Connection, Row, select, update

from rowmint.errors import CancelledError, ResourceNotFoundError, WrongStateError
from rowmint.registry.job_kinds import RULES, job_name
from rowmint.registry.job_rows import JobKind, JobState, append_event, end_job
from rowmint.registry.tables import jobs


def require_open(connection: Connection, parent: str) -> None:
    """Lock a job that is to get a part, against a cancel that would miss it.

    Raises:
        CancelledError: A cancel of it is committed.
        ResourceNotFoundError: There is none of this uid.
        WrongStateError: It has ended.
    """
    row = connection.execute(select(jobs).where(jobs.c.uid == parent).with_for_update(read=True)).one_or_none()
    if row is None:
        raise ResourceNotFoundError(f"there is no job with uid {parent}")
    name = job_name(JobKind(row.kind), row.project, row.job_id)
    if row.cancel_requested:
        raise CancelledError(f"{name} was cancelled: it gets no new parts")
    if JobState(row.state).ended:
        raise WrongStateError(f"{name} has {row.state} already: it gets no new parts", metadata={"state": row.state})


def cancel(connection: Connection, row: Row[Any]) -> JobState:
    """Cancel a locked job, and return its state from then on; one found done has SUCCEEDED, one that ended is left."""
    state = JobState(row.state)
    if state.ended:
        return state
    outputs = RULES[JobKind(row.kind)].made(connection, row.uid)
    if outputs is not None:
        end_job(connection, row.uid, JobState.SUCCEEDED, outputs=outputs)
        return JobState.SUCCEEDED
    changed = update(jobs).where(jobs.c.uid == row.uid)
    if state is JobState.PENDING:
        connection.execute(changed.values(cancel_requested=True))
        end_job(connection, row.uid, JobState.CANCELLED)
        return JobState.CANCELLED
    if state is JobState.RUNNING:
        connection.execute(changed.values(state=JobState.CANCELLING, cancel_requested=True))
        append_event(connection, row.uid, {})
    return JobState.CANCELLING


def cancel_parts(connection: Connection, parent: str) -> None:
    """Cancel all that is part of a locked job, and all that is part of that."""
    unfinished = [state for state in JobState if not state.ended]
    query = (
        select(jobs)
        .where(jobs.c.parent_uid == parent, jobs.c.state.in_(unfinished))
        .order_by(jobs.c.uid)
        .with_for_update()
    )
    for row in connection.execute(query).all():
        cancel(connection, row)
        cancel_parts(connection, row.uid)
