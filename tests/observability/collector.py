"""A collector of traces: a real OTLP server that keeps what it is sent."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

PATIENCE = 60.0


@dataclass(frozen=True)
class Span:
    """One span as it was received.

    Attributes:
        service: What made it.
        name: What it is of.
        kind: OTLP's number: 1 internal, 2 server, 3 client.
        trace: Its trace, hex.
        id: Its own id, hex.
        parent: The id of the span it hangs on, hex; empty for the root.
        attributes: Its attributes.
        events: Names and attributes of its events.
        failed: Whether it is marked as one of what failed.
    """

    service: str
    name: str
    kind: int
    trace: str
    id: str
    parent: str
    attributes: dict[str, Any]
    events: tuple[tuple[str, dict[str, Any]], ...]
    failed: bool


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps every span; from `start` to `close`."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._spans: list[Span] = []
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def Export(self, request, context):  # noqa: N802 - the name in the proto
        found = []
        for resource in request.resource_spans:
            service = _attributes(resource.resource)["service.name"]
            found += [_span(service, span) for scope in resource.scope_spans for span in scope.spans]
        with self._changed:
            self._spans += found
            self._changed.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def wait(self, enough: Callable[[list[Span]], Any], what: str) -> Any:
        """Return what `enough` says of the spans received, once that is true; None where it never becomes so."""
        with self._changed:
            found = self._changed.wait_for(lambda: enough(list(self._spans)), PATIENCE)
            assert found, f"{what} did not come; there are {sorted({span.name for span in self._spans})}"
            return found

    def close(self) -> None:
        self._server.stop(None).wait()


def _attributes(holder: Any) -> dict[str, Any]:
    found = {}
    for attribute in holder.attributes:
        value = attribute.value
        found[attribute.key] = getattr(value, value.WhichOneof("value"))
    return found


def _span(service: str, span: Any) -> Span:
    return Span(
        service=service,
        name=span.name,
        kind=span.kind,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        attributes=_attributes(span),
        events=tuple((event.name, _attributes(event)) for event in span.events),
        failed=span.status.code == 2,
    )
