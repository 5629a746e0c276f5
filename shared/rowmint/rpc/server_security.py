"""Security of a server, composed from its settings: TLS, authentication, audit log."""

import socket
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import structlog

from rowmint.observability.exporter import Scrapers, every_client
from rowmint.rpc.server import ServerSecurity
from rowmint.rpc.settings import ServiceSettings, is_loopback_address
from rowmint.security.identity import EVERY_PROJECT, Role

_log = structlog.get_logger(__name__)


def scraper_authorization(settings: ServiceSettings) -> Scrapers:
    """Return a function that says whether a client certificate with the given names may read metrics.

    Metrics cover all projects, so under mutual TLS reading them requires the role reader in every project. Without it,
    every client that reaches the address may: the settings allow that on loopback, or where they are declared insecure.

    Raises:
        UnavailableError: The access file cannot be read.
        InvalidFieldError: It cannot be parsed.
    """
    if not settings.tls_client_ca:
        return every_client
    if not settings.access_file:
        # Settings refuse it beside `metrics_listen`: nothing else grants roles to certificates.
        return lambda _: False
    from rowmint.security.access_file import AccessFile  # noqa: PLC0415

    access = AccessFile(Path(settings.access_file))

    def may_scrape(names: Collection[str]) -> bool:
        found = access.identify_certificate(names)
        return found is not None and found.has_role(Role.READER, EVERY_PROJECT)

    return may_scrape


@contextmanager
def server_security(settings: ServiceSettings, label: str, now: Callable[[], datetime]) -> Iterator[ServerSecurity]:
    """Open the security of a server, for as long as it serves.

    Args:
        settings: Settings of the service.
        label: ``trainer`` or ``sampler``.
        now: Returns the current time, with its zone; used for expiry of credentials and times in the audit log.

    Raises:
        UnavailableError: One of its files cannot be read, or the audit log cannot be written.
        InvalidFieldError: One of its files cannot be parsed.
    """
    # Imported only if needed: the libraries for keys and certificates are slow to import.
    authenticator = None
    if settings.requires_credentials:
        from rowmint.security.access_file import AccessFile  # noqa: PLC0415
        from rowmint.security.authenticator import Authenticator  # noqa: PLC0415

        tokens = None
        if settings.jwt_keys:
            from rowmint.security.tokens import TokenVerifier  # noqa: PLC0415

            tokens = TokenVerifier(settings.jwt_keys, settings.jwt_issuer, settings.jwt_audience, time.monotonic)
        access = AccessFile(Path(settings.access_file)) if settings.access_file else None
        authenticator = Authenticator(access, tokens, now)
        if not settings.tls_certificate and not is_loopback_address(settings.listen):
            _log.warning("credentials cross the network in plain text: TLS is not set", listen=settings.listen)
    if not settings.audit_log:
        yield ServerSecurity(settings.tls_files, authenticator, reauthorize_seconds=settings.reauthorize_seconds)
        return
    from rowmint.security.audit import AuditLog  # noqa: PLC0415

    audit = AuditLog(Path(settings.audit_log), label, socket.gethostname(), now)
    try:
        yield ServerSecurity(settings.tls_files, authenticator, audit, settings.reauthorize_seconds)
    finally:
        audit.close()
