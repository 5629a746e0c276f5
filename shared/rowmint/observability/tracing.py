"""Traces by OpenTelemetry, set up by its own environment variables; where none asks for them, nothing is loaded.

What a span tells: which call, which model version, how many rows, which job. Never a value of a cell or condition.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc

from rowmint.errors import InvalidFieldError, UnavailableError
from rowmint.observability.calls import Call
from rowmint.observability.settings import tracing_protocol, tracing_wanted
from rowmint.spans import fail_span, loaded_trace, trace_parent

Attributes = Mapping[str, str | int | float | bool]

_CLOSE_SECONDS = 2.0  # a collector that is away must not hold up the end of a process
# Asked every few seconds by whoever balances: a trace of each would bury the others.
_UNTRACED = ("grpc.health.v1.", "grpc.reflection.", "xds.service.orca.")
# Those of a server's own fault, as OpenTelemetry's conventions for RPCs have it.
_FAULTS = ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")


def configure_tracing(service: str) -> "Tracing | None":
    """Set up traces where OpenTelemetry's variables ask for them; None, at no cost, where they do not.

    Args:
        service: What the traces call this process, ``rowmint-trainer`` for instance; `OTEL_SERVICE_NAME` goes before.

    Raises:
        UnavailableError: They are asked for, but what sends them is not installed.
        InvalidFieldError: They are to be sent in a way that there is not.
    """
    variable = tracing_wanted()
    if not variable:
        return None
    name, protocol = tracing_protocol()
    if protocol != "grpc":
        raise InvalidFieldError(name, f"is {protocol!r}; traces are sent over grpc: set it so, or not at all")
    try:
        return Tracing(service)
    except ImportError as error:
        raise UnavailableError(
            f"{variable} asks for traces, but OpenTelemetry is not installed: install rowmint[tracing], or unset it"
        ) from error


class Tracing:
    """Makes spans and sends them. Safe to use from any thread.

    Args:
        service: What the traces call this process.

    Raises:
        ImportError: OpenTelemetry's SDK or its exporter is not installed.
    """

    def __init__(self, service: str) -> None:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        # What the environment says of the process goes before.
        resource = Resource.create({"service.name": service}).merge(OTELResourceDetector().detect())
        self.provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self.provider.get_tracer("rowmint")

    def make_global(self) -> None:
        """Let whatever traces by OpenTelemetry's own means in this process, as our client does, use this."""
        from opentelemetry.trace import set_tracer_provider  # noqa: PLC0415

        set_tracer_provider(self.provider)

    def serve(self, name: str, metadata: Mapping[str, Any], attributes: Attributes) -> Any:
        """Begin the span of a call served, current from now on for the task that asks; whoever begins it ends it.

        Args:
            name: What it is of.
            metadata: What the client sent with the call: its span, if it told of one, is the parent.
            attributes: What it tells.
        """
        from opentelemetry import context, trace  # noqa: PLC0415

        parent = _context_of(metadata)
        span = self._tracer.start_span(name, parent, kind=trace.SpanKind.SERVER, attributes=dict(attributes))
        context.attach(trace.set_span_in_context(span, parent))
        return span

    @contextmanager
    def span(self, name: str, attributes: Attributes, parent: str | None = None) -> Iterator[Any]:
        """Make a span of what is done in this context, current for this thread or task.

        Args:
            name: What it is of.
            attributes: What it tells.
            parent: `traceparent` of what caused it (W3C Trace Context); None for the current span, if there is one.
        """
        from opentelemetry.trace import use_span  # noqa: PLC0415

        context = None if parent is None else _context_of({"traceparent": parent})
        span = self._tracer.start_span(name, context, attributes=dict(attributes))
        # An exception's text may hold what no span may tell.
        with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            try:
                yield span
            except BaseException as error:
                fail_span(span, type(error).__name__)
                raise

    def close(self) -> None:
        """Send what is left, but not for long."""
        thread = threading.Thread(target=self.provider.shutdown, name="tracing", daemon=True)
        thread.start()
        thread.join(_CLOSE_SECONDS)


class CallTracing:
    """Makes a span of each call of a server; its parent is the one that the client names in `traceparent`.

    Args:
        tracing: Makes the spans.
    """

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    def begun(self, call: Call) -> None:
        """Begin the call's span, current in its task."""
        if call.method.startswith(_UNTRACED):
            return
        service, _, method = call.method.rpartition("/")
        told = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        call.notes[self] = self._tracing.serve(call.method, dict(call.metadata), told)

    def ended(self, call: Call) -> None:
        """End the call's span."""
        span = call.notes.get(self)
        if span is None:
            return
        span.set_attribute("rpc.grpc.status_code", grpc.StatusCode[call.status].value[0])
        if call.status in _FAULTS:
            fail_span(span, call.status)
        span.end()


def annotate(attributes: Attributes) -> None:
    """Let the current span, if there is one, tell more."""
    span = _current_span()
    if span is not None:
        span.set_attributes(dict(attributes))


def current_trace_parent() -> str | None:
    """Return `traceparent` of the current span (W3C Trace Context, 55 characters), or None where there is none."""
    span = _current_span()
    if span is None:
        return None
    found = span.get_span_context()
    return trace_parent(found) if found.is_valid else None


def _current_span() -> Any:
    """Return the current span; None where nothing has loaded OpenTelemetry, as then there is none."""
    trace = loaded_trace()
    return None if trace is None else trace.get_current_span()


def _context_of(metadata: Mapping[str, Any]) -> Any:
    """Return the context that the headers of W3C Trace Context among `metadata` stand for; others are ignored."""
    from opentelemetry.context import Context  # noqa: PLC0415
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    return TraceContextTextMapPropagator().extract(
        {name: value for name, value in metadata.items() if isinstance(value, str)}, context=Context()
    )
