"""Environment variables of Prometheus and OpenTelemetry, read without importing either."""

import os


def multiprocess_folder() -> str:
    """Return the folder through which processes share their metrics; empty if metrics are not shared."""
    return os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")


def tracing_variable() -> str:
    """Return the name of the variable that enables tracing by naming an endpoint; empty if tracing is disabled."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ""
    if os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return ""
    named = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return next((name for name in named if os.environ.get(name, "").strip()), "")


def tracing_protocol() -> tuple[str, str]:
    """Return the name of the variable that sets the OTLP protocol, and its value, ``grpc`` by default."""
    named = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    name = next((name for name in named if os.environ.get(name, "").strip()), named[-1])
    return name, os.environ.get(name, "").strip().lower() or "grpc"
