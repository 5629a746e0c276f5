"""The trace of a command, where OpenTelemetry's variables enable traces."""

from collections.abc import Iterator
from contextlib import contextmanager

from rowmint.observability.environment import tracing_variable


@contextmanager
def traced_command(command: str) -> Iterator[None]:
    """Make one trace of a command, from its start to its end; nothing where traces are not enabled.

    Args:
        command: Its name. The services of `serve` make their own traces.

    Raises:
        UnavailableError: Traces are enabled, and OpenTelemetry is not installed.
        InvalidFieldError: The protocol to send them by is unknown.
    """
    if command == "serve" or not tracing_variable():
        yield
        return
    from rowmint.observability.tracing import configure_tracing  # noqa: PLC0415 - most commands need no traces

    tracing = configure_tracing("rowmint-client")
    if tracing is None:
        yield
        return
    tracing.make_global()
    try:
        with tracing.span(f"rowmint {command}", {}):
            yield
    finally:
        tracing.close()
