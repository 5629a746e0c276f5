"""What a worker reports of its job while it works: its phases, to the trainer and to the trace the job belongs to."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import structlog

from rowmint.observability.tracing import Tracing
from rowmint.registry import JobRecord, JobState
from rowmint.spans import fail_span


class JobTelemetry:
    """The one job of a worker. For one thread.

    Args:
        tracing: Makes spans; None for none.
        on_phase: Called with each phase.
    """

    def __init__(self, tracing: Tracing | None, on_phase: Callable[[str], None]) -> None:
        self._tracing = tracing
        self._on_phase = on_phase
        self._phase = ExitStack()
        self._span: Any = None

    @contextmanager
    def attempt(self, job: JobRecord) -> Iterator[None]:
        """Report an attempt: its span is a child of the span of the call that created the job."""
        about: dict[str, str | int] = {"rowmint.job": str(job.name), "rowmint.attempt": job.attempt}
        with ExitStack() as stack:
            stack.enter_context(structlog.contextvars.bound_contextvars(job=str(job.name), attempt=job.attempt))
            if self._tracing is not None:
                self._span = stack.enter_context(self._tracing.span(f"{job.kind} attempt", about, job.trace_parent))
            stack.push(lambda *_: self._phase.close())
            yield

    def on_phase(self, phase: str) -> None:
        """Report that a phase begins, and with it that the one before has ended."""
        self._phase.close()
        if self._tracing is not None:
            self._phase.enter_context(self._tracing.span(phase, {}))
        self._on_phase(phase)

    def on_outputs(self, outputs: Mapping[str, Any]) -> None:
        """Report what the job has made."""
        if self._span is not None:
            for name, value in outputs.items():
                self._span.set_attribute(f"rowmint.{name}", value)

    def on_end(self, state: str) -> None:
        """Report the state that the attempt has brought its job to, or an empty one."""
        if self._span is not None:
            self._span.set_attribute("rowmint.state", state)
            if state == JobState.FAILED:
                fail_span(self._span, state)

    def close(self) -> None:
        """Send what is left to be sent."""
        if self._tracing is not None:
            self._tracing.close()
