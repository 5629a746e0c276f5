"""Metrics of calls, named as in gRFC A66, in Prometheus style: no dots, and counters end in `_total`."""

from prometheus_client import CollectorRegistry, Counter, Histogram

from rowmint.observability.calls import Call

# The buckets recommended by gRFC A66.
_SECONDS = (
    *(0.0, 0.00001, 0.00005, 0.0001, 0.0003, 0.0006, 0.0008, 0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.008, 0.01),
    *(0.013, 0.016, 0.02, 0.025, 0.03, 0.04, 0.05, 0.065, 0.08, 0.1, 0.13, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.65, 0.8),
    *(1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0),
)
_BYTES = (0, 1024, 2048, *(4**power for power in range(6, 17)))


class CallMetrics:
    """Counts calls and measures their durations and message sizes. Observes the calls of one or more servers.

    Args:
        registry: Registry of the metrics.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ["grpc_method", "grpc_status"]
        self._started = Counter("grpc_server_call_started", "Calls started.", ["grpc_method"], registry=registry)
        self._seconds = Histogram(
            "grpc_server_call_duration_seconds",
            "Duration of calls, seconds.",
            labels,
            registry=registry,
            buckets=_SECONDS,
        )
        self._sent = Histogram(
            "grpc_server_call_sent_total_compressed_message_size_bytes",
            "Total bytes of the messages sent per call.",
            labels,
            registry=registry,
            buckets=_BYTES,
        )
        self._received = Histogram(
            "grpc_server_call_rcvd_total_compressed_message_size_bytes",
            "Total bytes of the messages received per call.",
            labels,
            registry=registry,
            buckets=_BYTES,
        )

    def on_start(self, call: Call) -> None:
        """Count a call."""
        self._started.labels(call.method).inc()

    def on_end(self, call: Call) -> None:
        """Observe duration and sizes of a call."""
        labels = (call.method, call.status)
        self._seconds.labels(*labels).observe(call.seconds)
        self._sent.labels(*labels).observe(call.sent_bytes)
        self._received.labels(*labels).observe(call.received_bytes)
