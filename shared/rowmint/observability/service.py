"""What a service tells of itself, for as long as it serves."""

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager

import structlog
from prometheus_client import CollectorRegistry

from rowmint.observability.access import CallLog
from rowmint.observability.calls import CallObserver
from rowmint.observability.exporter import serve_metrics
from rowmint.observability.metrics import CallMetrics
from rowmint.observability.tracing import CallTracing, configure_tracing
from rowmint.security.tls_files import TlsFiles

_log = structlog.get_logger(__name__)


@contextmanager
def observed(
    service: str,
    registry: CollectorRegistry,
    calls: CallMetrics,
    metrics_listen: str,
    *,
    tls: TlsFiles | None = None,
    admits: Callable[[Collection[str]], bool] | None = None,
) -> Iterator[tuple[CallObserver, ...]]:
    """Serve the metrics and set up the traces that are asked for; give what is to be told of a server's calls.

    Args:
        service: ``trainer`` or ``sampler``.
        registry: The metrics served.
        calls: Those of them that are about calls.
        metrics_listen: Where they are served, ``host:port``; empty for nowhere.
        tls: Files of the certificate that they are served with; None for plain text.
        admits: Says whether the bearer of a certificate with such names may scrape; None lets everybody.

    Raises:
        UnavailableError: The address cannot be bound, or traces are asked for and OpenTelemetry is not installed.
        InvalidFieldError: Traces are to be sent in a way that there is not.
    """
    with ExitStack() as stack:
        if metrics_listen:
            server = serve_metrics(metrics_listen, registry, tls, admits)
            stack.callback(server.close)
            _log.info("serving metrics", service=service, port=server.port)
        tracing = configure_tracing(f"rowmint-{service}")
        if tracing is not None:
            stack.callback(tracing.close)
        yield (calls, *(() if tracing is None else (CallTracing(tracing),)), CallLog())
