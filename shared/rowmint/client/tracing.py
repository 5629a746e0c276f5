"""Spans of the client's calls, where the program that uses the client has set up OpenTelemetry; none elsewhere.

A program that traces has loaded OpenTelemetry: it is never loaded from here, and need not be installed.
"""

import sys
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import grpc

from rowmint.client.interceptor import Metadata, intercepted, with_metadata
from rowmint.spans import fail_span, loaded_trace, trace_parent

_PARENT = "traceparent"


def current_context() -> Any:
    """Return the current context, as the parent of spans of other threads; None where nothing is traced."""
    return None if loaded_trace() is None else sys.modules["opentelemetry.context"].get_current()


class StreamSpan:
    """The span of a logical stream, however many attempts it takes; a context manager that ends with the stream.

    It is never the current span: the reader does other things while it reads a stream.

    Args:
        method: The method that is called, ``package.Service/Method``.
        context: From `current_context`, where the stream was requested.
    """

    def __init__(self, method: str, context: Any) -> None:
        self._span = _begin(method, context)

    @property
    def metadata(self) -> Metadata:
        """Metadata of each of its calls, by which the server's spans have this one as their parent."""
        return () if self._span is None else _headers(self._span)

    def add_event(self, event: str, attributes: Mapping[str, str | int]) -> None:
        """Add an event."""
        if self._span is not None:
            self._span.add_event(event, dict(attributes))

    def annotate(self, attributes: Mapping[str, str | int]) -> None:
        """Set attributes."""
        if self._span is not None:
            self._span.set_attributes(dict(attributes))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A reader that needs no further rows closes the stream: nothing has failed.
        if self._span is not None:
            failed = kind is not None and issubclass(kind, Exception)
            _end(self._span, kind.__name__ if failed and kind is not None else "")


def traced(channel: grpc.Channel) -> grpc.Channel:
    """Return a channel whose calls make spans where the program traces; closing it closes `channel`."""
    return intercepted(channel, _spanned)


def _spanned(continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
    has_span = any(key == _PARENT for key, _ in details.metadata or ())
    span = None if has_span else _begin(details.method.lstrip("/"), None)
    if span is None:
        return continuation(details, request)
    call = continuation(with_metadata(details, _headers(span)), request)
    # gRPC calls this also for a call that has ended, or could not begin.
    call.add_done_callback(lambda done: _end_call(span, done.code()))
    return call


def _end_call(span: Any, code: grpc.StatusCode | None) -> None:
    if code is not None:
        span.set_attribute("rpc.grpc.status_code", code.value[0])
    failed = code not in (None, grpc.StatusCode.OK, grpc.StatusCode.CANCELLED)
    _end(span, code.name if failed and code is not None else "")


def _begin(method: str, context: Any) -> Any:
    """Begin a client's span; None where nothing is traced."""
    trace = loaded_trace()
    if trace is None:
        return None
    service, _, name = method.rpartition("/")
    attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
    span = trace.get_tracer("rowmint.client").start_span(
        method, context, kind=trace.SpanKind.CLIENT, attributes=attributes
    )
    return span if span.get_span_context().is_valid else None


def _headers(span: Any) -> Metadata:
    """Return the metadata that names a span to a server (W3C Trace Context)."""
    found = span.get_span_context()
    parent = (_PARENT, trace_parent(found))
    state = found.trace_state.to_header()
    return (parent, ("tracestate", state)) if state else (parent,)


def _end(span: Any, failure: str) -> None:
    """End a span; `failure` names the kind of failure, and is empty where the call succeeded."""
    if failure:
        fail_span(span, failure)
    span.end()
