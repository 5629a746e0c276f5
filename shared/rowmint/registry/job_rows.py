"""Rows of the job table, within a transaction of the caller's: what the ledgers share."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from sqlalchemy import Connection, Row, func, insert, select, update

from rowmint.errors import FencedError, Reason
from rowmint.registry.engine import DatabaseNow, insert_if_absent, note_garbage
from rowmint.registry.tables import data_garbage, deleted_versions, job_events, jobs, model_versions, staged_versions

MAX_ATTEMPTS = 3
"""Attempts at a job that get no further: since its beginning, or its last checkpoint."""


class JobKind(StrEnum):
    """What a job does."""

    INGEST = "ingest"
    TRAIN = "train"


class JobState(StrEnum):
    """Where a job stands; the names of `rowmint.v1.JobState`."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def ended(self) -> bool:
        """Whether it never changes again."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class JobPhase(StrEnum):
    """What a running job is at; the names of `rowmint.v1.JobPhase`."""

    UNSPECIFIED = "UNSPECIFIED"
    ENCODING = "ENCODING"
    FITTING = "FITTING"
    PUBLISHING = "PUBLISHING"


@dataclass(frozen=True)
class CheckpointRecord:
    """A stored checkpoint, where the next attempt at a job goes on.

    Attributes:
        object_key: Its object in the data store.
        size: Bytes.
        sha256: 32 bytes.
        step: How far it is; what of, is the job's affair.
    """

    object_key: str
    size: int
    sha256: bytes
    step: int

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """Return what `to_json` gave."""
        return cls(body["key"], body["size"], bytes.fromhex(body["sha256"]), body["step"])

    def to_json(self) -> dict[str, Any]:
        """Return the checkpoint as JSON values."""
        return {"key": self.object_key, "size": self.size, "sha256": self.sha256.hex(), "step": self.step}


def insert_job(connection: Connection, values: Mapping[str, Any]) -> bool:
    """Insert a PENDING job with its first event, unless its name or request_id is taken; return whether it was.

    `values` hold what has no obvious start.
    """
    row = {
        "state": JobState.PENDING,
        "phase": JobPhase.UNSPECIFIED,
        "epoch": 0,
        "attempt": 0,
        "max_attempts": MAX_ATTEMPTS,
        "holder": "",
        "lease": 0,
        "cancel_requested": False,
        "event_count": 0,
        "create_time": DatabaseNow(),
        **values,
    }
    if not insert_if_absent(connection, jobs, row):
        return False
    append_event(connection, row["uid"], {})
    return True


def lock_job(connection: Connection, uid: str, epoch: int) -> Row[Any]:
    """Return the job's row, locked, if the attempt `epoch` still works on it.

    Raises:
        FencedError: A newer attempt does, or the job has ended, or it is gone.
    """
    row = connection.execute(select(jobs).where(jobs.c.uid == uid).with_for_update()).one_or_none()
    if row is None or row.epoch != epoch or row.state not in (JobState.RUNNING, JobState.CANCELLING):
        now = "gone" if row is None else f"{row.state} at epoch {row.epoch}"
        raise FencedError(
            f"attempt with epoch {epoch} of job {uid} has been overtaken: the job is {now}; stop and write nothing",
            metadata={"job_uid": uid, "epoch": str(epoch)},
        )
    return row


def append_event(connection: Connection, uid: str, payload: Mapping[str, Any]) -> int:
    """Append an event that shows the job as it now is, and return its number, from 1 without gaps."""
    connection.execute(update(jobs).where(jobs.c.uid == uid).values(event_count=jobs.c.event_count + 1))
    shown = select(jobs.c.uid, jobs.c.event_count, DatabaseNow(), jobs.c.attempt, jobs.c.state, jobs.c.phase).where(
        jobs.c.uid == uid
    )
    row = connection.execute(shown).one()
    connection.execute(
        insert(job_events).values(
            job_uid=row[0],
            sequence=row[1],
            time=row[2],
            attempt=row[3],
            state=row[4],
            phase=row[5],
            payload=dict(payload),
        )
    )
    return int(row[1])


def end_job(
    connection: Connection,
    uid: str,
    state: JobState,
    *,
    error: Mapping[str, str] | None = None,
    version: int | None = None,
    payload: Mapping[str, Any] | None = None,
) -> None:
    """Bring a locked job to its last state and write its last event; its checkpoint is garbage from now on."""
    drop_checkpoint(connection, uid)
    connection.execute(
        update(jobs)
        .where(jobs.c.uid == uid)
        .values(
            state=state,
            phase=JobPhase.UNSPECIFIED,
            error=None if error is None else dict(error),
            model_version=version,
            holder="",
            lease_until=None,
            end_time=DatabaseNow(),
        )
    )
    body = dict(payload or {})
    if error is not None:
        body["error"] = dict(error)
    if version is not None:
        body["model_version"] = version
    append_event(connection, uid, body)


def drop_checkpoint(connection: Connection, uid: str) -> None:
    """Put the checkpoint of a locked job, if it has one, on the list of garbage."""
    found = connection.execute(select(jobs.c.checkpoint).where(jobs.c.uid == uid)).scalar_one_or_none()
    if found is not None:
        note_garbage(connection, data_garbage, [CheckpointRecord.from_json(found).object_key])
        connection.execute(update(jobs).where(jobs.c.uid == uid).values(checkpoint=None))


def published_version(connection: Connection, uid: str) -> int | None:
    """Return the number of the version that the job has made, whatever its state, deleted or not, or None."""
    for table in (model_versions, staged_versions, deleted_versions):
        number = connection.execute(select(table.c.version).where(table.c.job_uid == uid)).scalar_one_or_none()
        if number is not None:
            return int(number)
    return None


def exhausted_error(attempts: int) -> dict[str, str]:
    """Return the error of a job that no attempt has ended."""
    return {
        "reason": Reason.INTERNAL,
        "message": f"the worker died in {attempts} attempts, the last {MAX_ATTEMPTS} of them without getting further;"
        " see the trainer's log, then start a new job",
    }


def running_jobs(connection: Connection, dataset_uid: str, kind: JobKind) -> int:
    """Return how many jobs of a kind on a dataset have not ended."""
    unfinished = [state for state in JobState if not state.ended]
    return connection.execute(
        select(func.count())
        .select_from(jobs)
        .where(jobs.c.dataset_uid == dataset_uid, jobs.c.kind == kind, jobs.c.state.in_(unfinished))
    ).scalar_one()
