"""Jobs and their events as they were when read."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row

from rowmint.registry.job_kinds import JobName, job_name
from rowmint.registry.job_rows import CheckpointRecord, JobKind, JobState, phase_of
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
        name: Its name, of the class that its kind has.
        kind: What it does.
        state: Where it stands.
        phase: What it is at: a phase of its kind's runner, or empty.
        config: What is to be done, JSON values; the registry does not look inside.
        inputs: What it works on, JSON values: ``dataset`` and ``model`` are resource names; ``staged`` says that the
            version it makes is to wait for its promotion.
        outputs: What it has made, JSON values, such as ``model_version``; empty before its end.
        dataset_uid: The dataset whose rows it reads, or empty.
        parent_uid: The job that it is a part of, or None.
        epoch: Fencing number of the newest attempt; 0 before the first.
        attempt: How often it was claimed.
        max_attempts: How often it may be; more from each checkpoint on.
        holder: The trainer that works on it, or empty.
        lease_until: When others may claim it, by the database's clock.
        cancel_requested: Whether a cancel is committed.
        error: Why it failed.
        event_count: Events written.
        create_time: When it was created.
        start_time: When work began.
        end_time: When it ended.
        checkpoint: From where the next attempt resumes, or None.
        trace_parent: The span that created it, as W3C Trace Context writes it, or None.
    """

    uid: str
    name: JobName
    kind: JobKind
    state: JobState
    phase: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    dataset_uid: str
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
    parent_uid: str | None = None
    checkpoint: CheckpointRecord | None = None
    trace_parent: str | None = None

    @property
    def dataset(self) -> str:
        """Name of the dataset it works on, or empty."""
        return str(self.inputs.get("dataset", ""))

    @property
    def model(self) -> str:
        """Name of the model it works on, or empty."""
        return str(self.inputs.get("model", ""))

    @property
    def staged(self) -> bool:
        """Whether the version it makes is to wait for its promotion."""
        return bool(self.inputs.get("staged", False))

    @property
    def model_version(self) -> int | None:
        """Number of the version it has made, or None."""
        return self.outputs.get("model_version")


@dataclass(frozen=True)
class EventRecord:
    """One entry of a job's log; never changed.

    Attributes:
        job_uid: The job.
        sequence: Its number, from 1 without gaps.
        time: When it was written, by the database's clock.
        attempt: The attempt that wrote it.
        state: The job's state from here on.
        phase: The job's phase from here on; empty for none.
        payload: What else it reports, JSON values: ``message``, ``progress``, ``error``, and the job's outputs.
    """

    job_uid: str
    sequence: int
    time: datetime
    attempt: int
    state: JobState
    phase: str
    payload: Mapping[str, Any]


def job_record(row: Row[Any]) -> JobRecord:
    """Return the record of a row of the job table."""
    return JobRecord(
        uid=row.uid,
        name=job_name(JobKind(row.kind), row.project, row.job_id),
        kind=JobKind(row.kind),
        state=JobState(row.state),
        phase=phase_of(row),
        config=row.config,
        inputs=_inputs(row),
        outputs=_outputs(row),
        dataset_uid=row.dataset_uid,
        parent_uid=row.parent_uid,
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
        checkpoint=None if row.checkpoint is None else CheckpointRecord.from_json(row.checkpoint),
        trace_parent=row.trace_parent,
    )


def event_record(row: Row[Any]) -> EventRecord:
    """Return the record of a row of the table of events."""
    return EventRecord(
        job_uid=row.job_uid,
        sequence=row.sequence,
        time=instant(row.time),
        attempt=row.attempt,
        state=JobState(row.state),
        phase=phase_of(row),
        payload=row.payload,
    )


# Code that knows nothing of inputs and outputs creates and ends jobs without them.


def _inputs(row: Row[Any]) -> Mapping[str, Any]:
    if row.inputs is not None:
        return dict(row.inputs)
    named = {"dataset": row.dataset_name, "model": row.model_name}
    return {part: name for part, name in named.items() if name}


def _outputs(row: Row[Any]) -> Mapping[str, Any]:
    version = {} if row.model_version is None else {"model_version": row.model_version}
    return {**(row.outputs or {}), **version}
