"""Prometheus exporter: metrics over HTTP, at ``GET /metrics``."""

import gzip
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Collection
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from rowmint.errors import UnavailableError
from rowmint.security.tls_files import SecuredSockets, TlsFiles, peer_names

_log = structlog.get_logger(__name__)

Scrapers = Callable[[Collection[str]], bool]
"""Returns whether a client may scrape whose certificate has the given names; there are none without a certificate."""

_TIMEOUT_SECONDS = 30.0  # connections that are idle for longer are closed
MAX_CONNECTIONS = 32
"""Connections at once, each with a thread, before its client is known; one more is closed."""


class MetricsServer:
    """Serves metrics from its own threads until it is closed.

    Attributes:
        port: The port.
    """

    def __init__(self, server: "_Server") -> None:
        self.port = int(server.server_address[1])
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving and release the port. Idempotent."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def serve_metrics(
    listen: str,
    registry: CollectorRegistry,
    tls: TlsFiles | None,
    may_scrape: Scrapers,
) -> MetricsServer:
    """Serve metrics.

    Args:
        listen: ``host:port``; port 0 for a free one.
        registry: The metrics; `shared_registry` for those of several processes.
        tls: Certificate and key files; None for no TLS.
        may_scrape: Returns whether a client may scrape; `every_client` allows all.

    Raises:
        UnavailableError: The address cannot be bound, or a TLS file cannot be read.
        InvalidFieldError: A TLS file cannot be parsed.
    """
    # `_created` series are not used, and would double the size of the response.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    handler = type("_Handler", (_MetricsHandler,), {"registry": registry, "may_scrape": staticmethod(may_scrape)})
    kind = _ServerV6 if ":" in host else _Server
    secured = None if tls is None else SecuredSockets(tls)
    try:
        server = kind((host, int(port)), handler)
    except (OSError, OverflowError, ValueError) as error:
        raise UnavailableError(
            f"cannot serve metrics on {listen!r}; ROWMINT_METRICS_LISTEN must be a free host:port of this machine"
        ) from error
    server.secured = secured
    return MetricsServer(server)


def every_client(_: Collection[str]) -> bool:
    """Allow every client to scrape."""
    return True


def shared_registry(folder: str) -> CollectorRegistry:
    """Return a registry that merges, at each scrape, the metrics that processes share through a folder.

    Args:
        folder: `PROMETHEUS_MULTIPROC_DIR` of each process; must be empty when the first process starts.
    """
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=folder)  # type: ignore[no-untyped-call]
    return registry


def mark_dead(pid: int, folder: str) -> None:
    """Remove the live gauges of a process that has ended; its counters are kept."""
    mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # A second server must not bind the same port silently.
    allow_reuse_port = False
    secured: SecuredSockets | None = None

    def __init__(self, *args: Any) -> None:
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own, or close it where there are too many."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Answer a scrape, in its own thread, so that a slow TLS handshake blocks no other scrape."""
        if self.secured is None:
            super().finish_request(request, client_address)
            return
        request.settimeout(_TIMEOUT_SECONDS)
        with self.secured.wrap(request) as wrapped:
            super().finish_request(wrapped, client_address)

    def server_bind(self) -> None:
        # Not HTTPServer.server_bind, which looks up the host's full name in DNS.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log errors, except closed connections, timeouts and failed TLS handshakes."""
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError | ssl.SSLError):
            _log.error("a scrape failed", exc_info=error)


class _ServerV6(_Server):
    address_family = socket.AF_INET6


class _MetricsHandler(BaseHTTPRequestHandler):
    registry: CollectorRegistry
    may_scrape: Scrapers
    timeout = _TIMEOUT_SECONDS

    def do_GET(self) -> None:
        """Answer a scrape."""
        if not self.may_scrape(peer_names(self.connection)):
            self.send_error(HTTPStatus.FORBIDDEN, "metrics require the role reader in every project ('*')")
            return
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(HTTPStatus.NOT_FOUND, "metrics are at /metrics")
            return
        encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        body = encode(self.registry)
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", content_type)
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body, compresslevel=1)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Do not log scrapes."""
