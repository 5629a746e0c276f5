"""The trace of a command, where OpenTelemetry's variables ask for traces."""

from collections.abc import Iterator
from contextlib import contextmanager

from rowmint.observability.environment import tracing_variable


@contextmanager
def traced_command(command: str) -> Iterator[None]:
    """Let what a command does be one trace, from its start to its end; nothing where no traces are asked for.

    Args:
        command: Its name. What serves makes traces by itself.

    Raises:
        UnavailableError: Traces are asked for, and OpenTelemetry is not installed.
        InvalidFieldError: They are to be sent in a way that there is not.
    """
    if command == "serve" or not tracing_variable():
        yield
        return
    from rowmint.observability.tracing import configure_tracing  # noqa: PLC0415 - most commands do without

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
