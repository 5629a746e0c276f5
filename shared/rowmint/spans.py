"""Access to OpenTelemetry's spans without importing it: it need not be installed."""

import sys
from typing import Any


def loaded_trace() -> Any:
    """Return the module `opentelemetry.trace` if it is imported, else None, as then there is no span."""
    module = sys.modules.get("opentelemetry.trace")
    # Another thread may be importing it right now.
    return module if hasattr(module, "use_span") else None


def trace_parent(context: Any) -> str:
    """Return `traceparent` of a span context (W3C Trace Context, 55 characters)."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def fail_span(span: Any, kind: str) -> None:
    """Set a span's status to error.

    Args:
        span: The span.
        kind: Type of the error; never its message, which may quote the request.
    """
    trace = loaded_trace()
    span.set_attribute("error.type", kind)
    span.set_status(trace.Status(trace.StatusCode.ERROR))
