"""How an attempt at a job goes, as its trainer hears of it from the worker; measured for the metrics."""

from collections.abc import Callable, Mapping
from typing import Any

from rowmint.registry import JobKind, JobState
from trainer_service import metrics

_OUTCOMES = {JobState.SUCCEEDED: "done", JobState.FAILED: "failed", JobState.CANCELLED: "cancelled"}


class Course:
    """One attempt, from its first phase to its end. For one thread.

    Args:
        kind: What the job does.
        clock: Seconds; monotonic.
    """

    def __init__(self, kind: JobKind, clock: Callable[[], float]) -> None:
        self._kind = kind
        self._clock = clock
        self._phase = ""
        self._since = 0.0

    def hear(self, told: Mapping[str, Any]) -> None:
        """Take what a worker tells while it works: the phase that it enters."""
        self._leave("done")
        self._phase, self._since = str(told["entered"]), self._clock()

    def end(self, answer: Mapping[str, Any]) -> None:
        """Take a worker's answer, empty where it died."""
        state = answer.get("state")
        if state:
            metrics.job_ended(self._kind, state)
        metrics.garbage_deleted(answer.get("garbage", 0))
        self._leave(_OUTCOMES[JobState(state)] if state else "stopped" if answer else "died")

    def _leave(self, outcome: str) -> None:
        if self._phase:
            metrics.phase_ended(self._kind, self._phase, outcome, self._clock() - self._since)
        self._phase = ""
