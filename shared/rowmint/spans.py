"""OpenTelemetry's spans where a program has loaded it; it is never loaded from here, and need not be installed."""

import sys
from typing import Any


def loaded_trace() -> Any:
    """Return OpenTelemetry's module of traces; None where nothing has loaded all of it, as then there is no span."""
    module = sys.modules.get("opentelemetry.trace")
    # Another thread may be at loading it.
    return module if hasattr(module, "use_span") else None


def trace_parent(context: Any) -> str:
    """Return what tells others of a span, by its context (`traceparent` of W3C Trace Context, 55 characters)."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def fail_span(span: Any, kind: str) -> None:
    """Mark a span as one of what failed.

    Args:
        span: The span.
        kind: What kind of failure: a name, never a text that was made for a caller.
    """
    trace = loaded_trace()
    span.set_attribute("error.type", kind)
    span.set_status(trace.Status(trace.StatusCode.ERROR))
