"""Tracing with OpenTelemetry, configured by its own environment variables; not imported unless they enable it.

Span attributes identify calls, model versions, jobs and numbers of rows, and never contain values of cells or
conditions.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc

from rowmint.errors import InvalidFieldError, UnavailableError
from rowmint.observability.calls import Call
from rowmint.observability.environment import tracing_protocol, tracing_variable
from rowmint.spans import fail_span, loaded_trace, trace_parent

Attributes = Mapping[str, str | int | float | bool]

_CLOSE_SECONDS = 2.0  # an unreachable collector must not delay the end of a process
# Called every few seconds by load balancers: their traces would outnumber all others.
_UNTRACED = ("grpc.health.v1.", "grpc.reflection.", "xds.service.orca.")
# Statuses that are errors of the server, by OpenTelemetry's semantic conventions for RPCs.
_SERVER_ERRORS = ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")


def configure_tracing(service: str) -> "Tracing | None":
    """Set up tracing if OpenTelemetry's environment variables enable it; return None, at no cost, if not.

    Args:
        service: Name of this service in traces, such as ``rowmint-trainer``; `OTEL_SERVICE_NAME` takes precedence.

    Raises:
        UnavailableError: Tracing is enabled, but OpenTelemetry is not installed.
        InvalidFieldError: The configured protocol is not supported.
    """
    variable = tracing_variable()
    if not variable:
        return None
    name, protocol = tracing_protocol()
    if protocol != "grpc":
        raise InvalidFieldError(name, f"is {protocol!r}, but only grpc is supported: set it to grpc, or unset it")
    try:
        return Tracing(service)
    except ImportError as error:
        raise UnavailableError(
            f"{variable} enables tracing, but OpenTelemetry is not installed: install rowmint[tracing], or unset it"
        ) from error


class Tracing:
    """Creates and exports spans. Thread-safe.

    Args:
        service: Name of this service in traces.

    Raises:
        ImportError: OpenTelemetry's SDK or its exporter is not installed.
    """

    def __init__(self, service: str) -> None:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        # Resource attributes from the environment take precedence.
        resource = Resource.create({"service.name": service}).merge(OTELResourceDetector().detect())
        self.provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self.provider.get_tracer("rowmint")

    def make_global(self) -> None:
        """Make this the global tracer provider, which the client library uses."""
        from opentelemetry.trace import set_tracer_provider  # noqa: PLC0415

        set_tracer_provider(self.provider)

    def start_server_span(self, name: str, metadata: Mapping[str, Any], attributes: Attributes) -> Any:
        """Start the span of a served call and make it current in this task; the caller must end it.

        Args:
            name: Name of the span.
            metadata: Metadata of the call; the client's span in it, if any, becomes the parent.
            attributes: Attributes of the span.
        """
        from opentelemetry import context, trace  # noqa: PLC0415

        parent = _context_of(metadata)
        span = self._tracer.start_span(name, parent, kind=trace.SpanKind.SERVER, attributes=dict(attributes))
        context.attach(trace.set_span_in_context(span, parent))
        return span

    @contextmanager
    def span(self, name: str, attributes: Attributes, parent: str | None = None) -> Iterator[Any]:
        """Create a span for this context, current in this thread or task.

        Args:
            name: Name of the span.
            attributes: Attributes of the span.
            parent: `traceparent` of the parent (W3C Trace Context); None for the current span, if there is one.
        """
        from opentelemetry.trace import use_span  # noqa: PLC0415

        context = None if parent is None else _context_of({"traceparent": parent})
        span = self._tracer.start_span(name, context, attributes=dict(attributes))
        # Messages of exceptions are not recorded, as they may quote data.
        with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            try:
                yield span
            except BaseException as error:
                fail_span(span, type(error).__name__)
                raise

    def close(self) -> None:
        """Export remaining spans, for a short time at most."""
        thread = threading.Thread(target=self.provider.shutdown, name="tracing", daemon=True)
        thread.start()
        thread.join(_CLOSE_SECONDS)


class CallTracing:
    """Creates a span for each call of a server, a child of the client's span in `traceparent`.

    Args:
        tracing: Creates the spans.
    """

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    def on_start(self, call: Call) -> None:
        """Start the call's span, current in its task."""
        if call.method.startswith(_UNTRACED):
            return
        service, _, method = call.method.rpartition("/")
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        call.observer_state[self] = self._tracing.start_server_span(call.method, dict(call.metadata), attributes)

    def on_end(self, call: Call) -> None:
        """End the call's span."""
        span = call.observer_state.get(self)
        if span is None:
            return
        span.set_attribute("rpc.grpc.status_code", grpc.StatusCode[call.status].value[0])
        if call.status in _SERVER_ERRORS:
            fail_span(span, call.status)
        span.end()


def annotate(attributes: Attributes) -> None:
    """Set attributes of the current span, if there is one."""
    span = _current_span()
    if span is not None:
        span.set_attributes(dict(attributes))


def current_trace_parent() -> str | None:
    """Return `traceparent` of the current span (W3C Trace Context, 55 characters), or None if there is none."""
    span = _current_span()
    if span is None:
        return None
    found = span.get_span_context()
    return trace_parent(found) if found.is_valid else None


def _current_span() -> Any:
    """Return the current span; None if OpenTelemetry is not imported, as then there is none."""
    trace = loaded_trace()
    return None if trace is None else trace.get_current_span()


def _context_of(metadata: Mapping[str, Any]) -> Any:
    """Return the trace context in the W3C Trace Context headers of `metadata`; other metadata is ignored."""
    from opentelemetry.context import Context  # noqa: PLC0415
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    return TraceContextTextMapPropagator().extract(
        {name: value for name, value in metadata.items() if isinstance(value, str)}, context=Context()
    )
