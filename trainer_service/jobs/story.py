"""What a worker tells of its job while it works: its phases, to the trainer and to the trace of who asked for it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import structlog

from rowmint.observability.tracing import Tracing
from rowmint.registry import JobRecord, JobState
from rowmint.spans import fail_span


class Story:
    """The one job of a worker. For one thread.

    Args:
        tracing: Makes spans; None for none.
        entered: Told of each phase.
    """

    def __init__(self, tracing: Tracing | None, entered: Callable[[str], None]) -> None:
        self._tracing = tracing
        self._entered = entered
        self._phase = ExitStack()
        self._span: Any = None

    @contextmanager
    def attempt(self, job: JobRecord) -> Iterator[None]:
        """Tell of an attempt: its span hangs on the span of the call that made the job."""
        told: dict[str, str | int] = {"rowmint.job": str(job.name), "rowmint.attempt": job.attempt}
        with ExitStack() as stack:
            stack.enter_context(structlog.contextvars.bound_contextvars(job=str(job.name), attempt=job.attempt))
            if self._tracing is not None:
                self._span = stack.enter_context(self._tracing.span(f"{job.kind} attempt", told, job.trace_parent))
            stack.push(lambda *_: self._phase.close())
            yield

    def enter(self, phase: str) -> None:
        """Tell that a phase begins, and with it that the one before has ended."""
        self._phase.close()
        if self._tracing is not None:
            self._phase.enter_context(self._tracing.span(phase, {}))
        self._entered(phase)

    def end(self, state: str) -> str:
        """Tell the state that the attempt has brought its job to, or an empty one, and return it."""
        if self._span is not None:
            self._span.set_attribute("rowmint.state", state)
            if state == JobState.FAILED:
                fail_span(self._span, state)
        return state

    def close(self) -> None:
        """Send what is left to be sent."""
        if self._tracing is not None:
            self._tracing.close()
