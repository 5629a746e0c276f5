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
"""Attempts that a job may have since its beginning, or since its last checkpoint."""


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


# Phases that code before `phase_name` can read. To it, all others are none.
_OLD_PHASES = ("ENCODING", "FITTING", "PUBLISHING")
_NO_PHASE = "UNSPECIFIED"


def phase_values(phase: str) -> dict[str, str]:
    """Return the columns of a phase, of a job's row or an event's; empty for none."""
    old = phase.upper()
    return {"phase_name": phase, "phase": old if old in _OLD_PHASES else _NO_PHASE}


def phase_of(row: Row[Any]) -> str:
    """Return the phase in a job's row or an event's; empty for none, as of a job that no attempt works on."""
    if row.state not in (JobState.RUNNING, JobState.CANCELLING):
        return ""
    # Code that knows nothing of `phase_name` may have changed the phase since.
    if row.phase_name is not None and phase_values(row.phase_name)["phase"] == row.phase:
        return str(row.phase_name)
    return "" if row.phase == _NO_PHASE else str(row.phase).lower()


@dataclass(frozen=True)
class CheckpointRecord:
    """A stored checkpoint, from which the next attempt at a job resumes.

    Attributes:
        object_key: Its object in the data store.
        size: Bytes.
        sha256: 32 bytes.
        step: How far the work is, in steps of the job's kind.
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
    """Insert a PENDING job with its first event, unless its name or request_id is taken; return whether it is new.

    Args:
        connection: The caller's transaction.
        values: Columns of the row: `uid`, `project`, `job_id`, `kind`, `config`, `inputs`, and what else is known.
    """
    inputs = values["inputs"]
    row = {
        "state": JobState.PENDING,
        "outputs": {},
        "dataset_uid": "",
        "dataset_name": inputs.get("dataset", ""),
        "model_name": inputs.get("model", ""),
        "epoch": 0,
        "attempt": 0,
        "max_attempts": MAX_ATTEMPTS,
        "holder": "",
        "lease": 0,
        "cancel_requested": False,
        "event_count": 0,
        "create_time": DatabaseNow(),
        **phase_values(""),
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


_PHASE = (jobs.c.phase, jobs.c.phase_name)


def append_event(connection: Connection, uid: str, payload: Mapping[str, Any]) -> int:
    """Append an event that shows the job as it now is, and return its number, from 1 without gaps."""
    connection.execute(update(jobs).where(jobs.c.uid == uid).values(event_count=jobs.c.event_count + 1))
    shown = select(jobs.c.event_count, DatabaseNow().label("now"), jobs.c.attempt, jobs.c.state, *_PHASE).where(
        jobs.c.uid == uid
    )
    row = connection.execute(shown).one()
    connection.execute(
        insert(job_events).values(
            job_uid=uid,
            sequence=row.event_count,
            time=row.now,
            attempt=row.attempt,
            state=row.state,
            payload=dict(payload),
            **phase_values(phase_of(row)),
        )
    )
    return int(row.event_count)


def end_job(
    connection: Connection,
    uid: str,
    state: JobState,
    *,
    error: Mapping[str, str] | None = None,
    outputs: Mapping[str, Any] | None = None,
) -> None:
    """Bring a locked job to its last state and write its last event; its checkpoint is garbage from now on.

    Args:
        connection: The caller's transaction.
        uid: The job.
        state: SUCCEEDED, FAILED or CANCELLED.
        error: Why it failed: `reason` and `message`.
        outputs: What it made, JSON values; the last event reports them.
    """
    made = dict(outputs or {})
    drop_checkpoint(connection, uid)
    connection.execute(
        update(jobs)
        .where(jobs.c.uid == uid)
        .values(
            state=state,
            error=None if error is None else dict(error),
            outputs=made,
            model_version=made.get("model_version"),
            holder="",
            lease_until=None,
            end_time=DatabaseNow(),
            **phase_values(""),
        )
    )
    append_event(connection, uid, made if error is None else {**made, "error": dict(error)})


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


def unfinished_jobs(connection: Connection, dataset_uid: str) -> int:
    """Return how many jobs that read a dataset have not ended; its ingest, which makes it, is none of them."""
    unfinished = [state for state in JobState if not state.ended]
    return connection.execute(
        select(func.count())
        .select_from(jobs)
        .where(jobs.c.dataset_uid == dataset_uid, jobs.c.kind != JobKind.INGEST, jobs.c.state.in_(unfinished))
    ).scalar_one()
