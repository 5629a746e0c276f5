"""Metrics over HTTP, as Prometheus scrapes them: ``GET /metrics``."""

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
from rowmint.security.tls_files import SecuredSockets, TlsFiles, names_in

_log = structlog.get_logger(__name__)

_SECONDS = 30.0  # a scraper that says nothing for so long is given up


class MetricsServer:
    """Serves metrics from threads of its own until it is closed.

    Attributes:
        port: The port.
    """

    def __init__(self, server: "_Server") -> None:
        self.port = int(server.server_address[1])
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving and give the port back. Closing twice is harmless."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def serve_metrics(
    listen: str,
    registry: CollectorRegistry,
    tls: TlsFiles | None = None,
    admits: Callable[[Collection[str]], bool] | None = None,
) -> MetricsServer:
    """Serve metrics.

    Args:
        listen: ``host:port``; port 0 takes a free one.
        registry: The metrics; for those of several processes, `shared_registry`.
        tls: Files of its certificate; None for plain text.
        admits: Says whether the bearer of a certificate with such names may scrape; None lets everybody.

    Raises:
        UnavailableError: The address cannot be bound, or a file of TLS not be read.
        InvalidFieldError: A file of TLS cannot be understood.
    """
    # The instants at which counters were made are of no use to anybody and double the answer.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    handler = type(
        "_Handler", (_MetricsHandler,), {"registry": registry, "admits": staticmethod(admits or _admits_all)}
    )
    kind = _ServerV6 if ":" in host else _Server
    secured = None if tls is None else SecuredSockets(tls)
    try:
        server = kind((host, int(port)), handler)
    except (OSError, OverflowError, ValueError) as error:
        raise UnavailableError(
            f"cannot serve metrics on {listen!r}; ROWMINT_METRICS_LISTEN must be host:port of this machine, and free"
        ) from error
    server.secured = secured
    return MetricsServer(server)


def _admits_all(_: Collection[str]) -> bool:
    return True


def shared_registry(folder: str) -> CollectorRegistry:
    """Return the metrics that processes write down in a folder, joined anew whenever they are asked for.

    Args:
        folder: What each process was started with as `PROMETHEUS_MULTIPROC_DIR`; empty when the first was.
    """
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=folder)  # type: ignore[no-untyped-call]
    return registry


def mark_dead(pid: int, folder: str) -> None:
    """Forget the live values of a process that has ended; what it counted goes on counting."""
    mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # A second server must not bind the same port silently.
    allow_reuse_port = False
    secured: SecuredSockets | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Answer a scrape; in a thread of its own, which a handshake may keep waiting."""
        if self.secured is None:
            super().finish_request(request, client_address)
            return
        request.settimeout(_SECONDS)
        with self.secured.wrap(request) as wrapped:
            super().finish_request(wrapped, client_address)

    def server_bind(self) -> None:
        # Not that of HTTPServer, which asks a name server for the host's full name.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what went wrong; but that a scraper hangs up, says nothing or is not let in is no news."""
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError | ssl.SSLError):
            _log.error("a scrape failed", exc_info=error)


class _ServerV6(_Server):
    address_family = socket.AF_INET6


class _MetricsHandler(BaseHTTPRequestHandler):
    registry: CollectorRegistry
    admits: Callable[[Collection[str]], bool]
    timeout = _SECONDS

    def do_GET(self) -> None:
        """Answer a scrape."""
        if not self.admits(names_in(self.connection)):
            self.send_error(HTTPStatus.FORBIDDEN, "the certificate has no role in every project, of which metrics tell")
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
        """Say nothing of each scrape."""
