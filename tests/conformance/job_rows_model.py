"""What a job's row and its events should be: a model in memory, against which both ledgers' machines check."""

from dataclasses import dataclass, field
from typing import Any

from rowmint.registry import (
    CheckpointRecord,
    EventRecord,
    JobKind,
    JobRecord,
    JobState,
    Registry,
)
from rowmint.registry.job_rows import MAX_ATTEMPTS

ALIVE = (JobState.RUNNING, JobState.CANCELLING)


@dataclass
class ModelJob:
    """One job as it should be.

    Attributes:
        expired: Whether its lease has run out.
        events: What each event should show: state, phase, attempt, payload.
        read: The events as they were last read.
    """

    uid: str
    kind: JobKind
    dataset_uid: str
    parent_uid: str | None = None
    state: JobState = JobState.PENDING
    phase: str = ""
    epoch: int = 0
    attempt: int = 0
    max_attempts: int = MAX_ATTEMPTS
    holder: str = ""
    cancel_requested: bool = False
    error: tuple[str, str] | None = None
    version: int | None = None
    checkpoint: CheckpointRecord | None = None
    expired: bool = False
    events: list[tuple[JobState, str, int, dict[str, Any]]] = field(default_factory=list)
    read: tuple[EventRecord, ...] = ()

    def __post_init__(self) -> None:
        self.note()

    @property
    def waits(self) -> bool:
        return self.state is JobState.PENDING or (self.state in ALIVE and self.expired)

    def accepts(self, epoch: int) -> bool:
        """Say whether the attempt `epoch` may write."""
        return self.state in ALIVE and epoch == self.epoch

    def note(self, payload: dict[str, Any] | None = None) -> None:
        self.events.append((self.state, self.phase, self.attempt, payload or {}))

    def take(self, holder: str) -> None:
        self.state, self.phase, self.expired = JobState.RUNNING, "", False
        self.epoch, self.attempt, self.holder = self.epoch + 1, self.attempt + 1, holder
        self.note()

    def end(self, state: JobState, payload: dict[str, Any] | None = None) -> set[str]:
        """Bring the job to its last state and return the keys that are garbage from then on."""
        self.state, self.phase, self.holder, self.expired = state, "", "", False
        found = payload or {}
        self.version = found.get("model_version")
        self.error = (found["error"]["reason"], found["error"]["message"]) if "error" in found else None
        dropped = set() if self.checkpoint is None else {self.checkpoint.object_key}
        self.checkpoint = None
        self.note(found)
        return dropped

    def fail(self, reason: str, message: str) -> set[str]:
        """As `end`, with an error."""
        return self.end(JobState.FAILED, {"error": {"reason": reason, "message": message}})

    def check(self, record: JobRecord) -> None:
        """Compare with what was read."""
        error = None if record.error is None else (record.error.reason, record.error.message)
        assert (
            record.uid,
            record.kind,
            record.dataset_uid,
            record.parent_uid,
            record.state,
            record.phase,
            record.epoch,
            record.attempt,
            record.max_attempts,
            record.holder,
            record.cancel_requested,
            error,
            record.model_version,
            record.checkpoint,
            record.event_count,
        ) == (
            self.uid,
            self.kind,
            self.dataset_uid,
            self.parent_uid,
            self.state,
            self.phase,
            self.epoch,
            self.attempt,
            self.max_attempts,
            self.holder,
            self.cancel_requested,
            self.error,
            self.version,
            self.checkpoint,
            len(self.events),
        )
        assert (record.lease_until is not None) == (self.state in ALIVE)
        assert (record.start_time is not None) == (self.attempt > 0)
        assert (record.end_time is not None) == self.state.ended

    def check_events(self, registry: Registry) -> None:
        """Compare every event with what it should be and with what it was."""
        found = registry.jobs.events_after(self.uid, 0)
        assert [(event.state, event.phase, event.attempt, event.payload) for event in found] == self.events
        assert [event.sequence for event in found] == list(range(1, len(self.events) + 1))
        assert found[: len(self.read)] == self.read
        self.read = found
