"""Metrics, traces and call log of a service, for as long as it serves."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import structlog
from prometheus_client import CollectorRegistry

from rowmint.observability.call_log import CallLog
from rowmint.observability.calls import CallObserver
from rowmint.observability.exporter import Scrapers, serve_metrics
from rowmint.observability.metrics import CallMetrics
from rowmint.observability.tracing import CallTracing, configure_tracing
from rowmint.security.tls_files import TlsFiles

_log = structlog.get_logger(__name__)


@contextmanager
def service_telemetry(
    service: str,
    registry: CollectorRegistry,
    calls: CallMetrics,
    metrics_listen: str,
    *,
    tls: TlsFiles | None,
    may_scrape: Scrapers,
) -> Iterator[tuple[CallObserver, ...]]:
    """Serve metrics and set up tracing, as configured; yield the observers of a server's calls.

    Args:
        service: ``trainer`` or ``sampler``.
        registry: The metrics to serve.
        calls: The call metrics among them.
        metrics_listen: Address to serve them on, ``host:port``; empty for none.
        tls: Certificate and key files of the metrics server; None for no TLS.
        may_scrape: Returns whether a client may scrape.

    Raises:
        UnavailableError: The address cannot be bound, or tracing is configured and OpenTelemetry is not installed.
        InvalidFieldError: Tracing is configured with an unsupported protocol.
    """
    with ExitStack() as stack:
        if metrics_listen:
            server = serve_metrics(metrics_listen, registry, tls, may_scrape)
            stack.callback(server.close)
            _log.info("serving metrics", service=service, port=server.port)
        tracing = configure_tracing(f"rowmint-{service}")
        if tracing is not None:
            stack.callback(tracing.close)
        yield (calls, *(() if tracing is None else (CallTracing(tracing),)), CallLog())
