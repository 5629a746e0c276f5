"""Environment variables that belong to Prometheus and OpenTelemetry, not to us; this needs neither."""

import os


def multiprocess_folder() -> str:
    """Return the folder through which processes that serve together share their metrics; empty where there is none."""
    return os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")


def tracing_wanted() -> str:
    """Return the name of the variable that asks for traces to be sent somewhere; empty where none does."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ""
    if os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return ""
    named = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return next((name for name in named if os.environ.get(name, "").strip()), "")


def tracing_protocol() -> tuple[str, str]:
    """Return the variable that says how traces are sent, and what it says: ``grpc`` by default."""
    named = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    name = next((name for name in named if os.environ.get(name, "").strip()), named[-1])
    return name, os.environ.get(name, "").strip().lower() or "grpc"
