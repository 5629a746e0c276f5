"""Jobs and their events as they were when read."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row

from rowmint.names import TrainingJobName
from rowmint.registry.job_rows import CheckpointRecord, JobKind, JobPhase, JobState
from rowmint.registry.paging import instant, optional_instant


@dataclass(frozen=True)
class JobError:
    """Why a job failed.

    Attributes:
        reason: A name of `rowmint.errors.Reason`.
        message: What happened and what to do.
    """

    reason: str
    message: str


@dataclass(frozen=True)
class JobRecord:
    """One job as it was when read.

    Attributes:
        uid: What its objects and version are keyed by.
        name: Its name.
        kind: What it does; ingest jobs are internal and in no list.
        state: Where it stands.
        phase: What it is at.
        config: What is to be done, JSON values; the registry does not look inside.
        dataset_uid: The dataset it works on.
        dataset: The dataset's name, "projects/{project}/datasets/{dataset}".
        model: The model it publishes to, "projects/{project}/models/{model}"; empty for ingest.
        epoch: Fencing number of the newest attempt; 0 before the first.
        attempt: How often it was taken up.
        max_attempts: How often it may be; more from each checkpoint on.
        holder: Who works on it, or empty.
        lease_until: When others may take it up, by the database's clock.
        cancel_requested: Whether a cancel is committed.
        error: Why it failed.
        event_count: Events written.
        create_time: When it was created.
        start_time: When work began.
        end_time: When it ended.
        model_version: Number of the version it published.
        checkpoint: Where the next attempt goes on, or None.
        trace_parent: The span that asked for it, as W3C Trace Context writes it, or None.
    """

    uid: str
    name: TrainingJobName
    kind: JobKind
    state: JobState
    phase: JobPhase
    config: Mapping[str, Any]
    dataset_uid: str
    dataset: str
    model: str
    epoch: int
    attempt: int
    max_attempts: int
    holder: str
    lease_until: datetime | None
    cancel_requested: bool
    error: JobError | None
    event_count: int
    create_time: datetime
    start_time: datetime | None
    end_time: datetime | None
    model_version: int | None
    checkpoint: CheckpointRecord | None = None
    trace_parent: str | None = None


@dataclass(frozen=True)
class EventRecord:
    """One entry of a job's log; never changed.

    Attributes:
        job_uid: The job.
        sequence: Its number, from 1 without gaps.
        time: When it was written, by the database's clock.
        attempt: The attempt that wrote it.
        state: The job's state from here on.
        phase: The job's phase from here on.
        payload: What else it tells, JSON values: ``message``, ``progress``, ``error``, ``model_version``.
    """

    job_uid: str
    sequence: int
    time: datetime
    attempt: int
    state: JobState
    phase: JobPhase
    payload: Mapping[str, Any]


def job_record(row: Row[Any]) -> JobRecord:
    """Return the record of a row of the job table."""
    return JobRecord(
        uid=row.uid,
        name=TrainingJobName(row.project, row.job_id),
        kind=JobKind(row.kind),
        state=JobState(row.state),
        phase=JobPhase(row.phase),
        config=row.config,
        dataset_uid=row.dataset_uid,
        dataset=row.dataset_name,
        model=row.model_name,
        epoch=row.epoch,
        attempt=row.attempt,
        max_attempts=row.max_attempts,
        holder=row.holder,
        lease_until=optional_instant(row.lease_until),
        cancel_requested=row.cancel_requested,
        error=None if row.error is None else JobError(row.error["reason"], row.error["message"]),
        event_count=row.event_count,
        create_time=instant(row.create_time),
        start_time=optional_instant(row.start_time),
        end_time=optional_instant(row.end_time),
        model_version=row.model_version,
        checkpoint=None if row.checkpoint is None else CheckpointRecord.from_json(row.checkpoint),
        trace_parent=row.trace_parent,
    )
