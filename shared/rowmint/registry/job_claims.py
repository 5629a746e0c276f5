"""Which job is claimed next: fair between projects, and no more of a project's at once than allowed.

A claim takes the project that has the fewest jobs at work; among equals the one whose last claim is longest ago, and of
those never claimed the one whose job waits longest; and its oldest job. Jobs of each kind are counted apart, as each
kind has workers of its own: a study that waits for its trials does not keep them from running.
"""

from typing import Any

from sqlalchemy import Connection, Row, Select, and_, case, func, or_, select, text, update

from rowmint.registry.engine import DatabaseNow, insert_if_absent
from rowmint.registry.job_rows import JobKind, JobState
from rowmint.registry.tables import job_turns, jobs

_CLAIM_MILLISECONDS = 10_000  # how long a claim waits for others, each of which takes a few
_CLAIMED = (JobState.RUNNING, JobState.CANCELLING)


def serialize_claims(connection: Connection) -> None:
    """Let no other claim proceed before the transaction ends: what it counts stays true until then.

    On SQLite the transaction has the write lock already.

    Raises:
        UnavailableError: Another claim does not end, as that of a process that was suspended in it.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SET LOCAL lock_timeout = {_CLAIM_MILLISECONDS}"))
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended("rowmint:claim", 0))))


def claimable(kinds: tuple[JobKind, ...], max_project_jobs: int) -> Select[Any]:
    """Return the query of the job to claim next: one that is PENDING, or whose lease has run out.

    A job whose lease has run out still counts towards the limit, as its worker may be alive and renew it; to take it
    over makes no more of them.

    Args:
        kinds: Kinds of job.
        max_project_jobs: RUNNING and CANCELLING jobs of one kind that a project may have; 0 for any number.
    """
    expired = and_(jobs.c.state.in_(_CLAIMED), jobs.c.lease_until < DatabaseNow())
    pending = jobs.c.state == JobState.PENDING
    at_work = (
        select(
            jobs.c.kind,
            jobs.c.project,
            func.count().label("claimed"),
            func.sum(case((jobs.c.lease_until < DatabaseNow(), 0), else_=1)).label("alive"),
        )
        .where(jobs.c.state.in_(_CLAIMED))
        .group_by(jobs.c.kind, jobs.c.project)
        .subquery("at_work")
    )
    if max_project_jobs:
        pending = and_(pending, func.coalesce(at_work.c.claimed, 0) < max_project_jobs)
    joined = jobs.outerjoin(
        at_work, and_(at_work.c.kind == jobs.c.kind, at_work.c.project == jobs.c.project)
    ).outerjoin(job_turns, and_(job_turns.c.kind == jobs.c.kind, job_turns.c.project == jobs.c.project))
    return (
        select(jobs)
        .select_from(joined)
        # The states by themselves, for the index: jobs that have ended are kept for good.
        .where(jobs.c.kind.in_(list(kinds)), jobs.c.state.in_((JobState.PENDING, *_CLAIMED)), or_(pending, expired))
        .order_by(func.coalesce(at_work.c.alive, 0), func.coalesce(job_turns.c.turn, 0), jobs.c.create_time, jobs.c.uid)
        .limit(1)
    )


def next_job(connection: Connection, kinds: tuple[JobKind, ...], max_project_jobs: int) -> Row[Any] | None:
    """Return the row of the job to claim next, locked, or None; see `claimable`."""
    query = claimable(kinds, max_project_jobs).with_for_update(of=jobs, skip_locked=True)
    return connection.execute(query).first()


def note_turn(connection: Connection, row: Row[Any]) -> None:
    """Note that a job of its project was claimed now; for a transaction that `serialize_claims` was called in."""
    of_kind = job_turns.c.kind == row.kind
    turn = connection.execute(select(func.coalesce(func.max(job_turns.c.turn), 0)).where(of_kind)).scalar_one() + 1
    values = {"kind": row.kind, "project": row.project, "turn": turn}
    if not insert_if_absent(connection, job_turns, values):
        connection.execute(update(job_turns).where(of_kind, job_turns.c.project == row.project).values(turn=turn))
