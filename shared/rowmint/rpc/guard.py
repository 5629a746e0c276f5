"""What guards a server, composed of its settings."""

import socket
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from rowmint.rpc.server import Guard
from rowmint.rpc.settings import ServiceSettings
from rowmint.security.identity import EVERY_PROJECT, Role


def scraper_admission(settings: ServiceSettings) -> Callable[[Collection[str]], bool] | None:
    """Return what says whether the bearer of a certificate may read metrics, which tell of all projects; None: all may.

    Raises:
        UnavailableError: The access file cannot be read.
        InvalidFieldError: It cannot be understood.
    """
    if not (settings.tls_client_ca and settings.access_file):
        return None
    from rowmint.security.access_file import AccessFile  # noqa: PLC0415

    access = AccessFile(Path(settings.access_file))

    def admits(names: Collection[str]) -> bool:
        found = access.identify_certificate(names)
        return found is not None and found.may(Role.READER, EVERY_PROJECT)

    return admits


@contextmanager
def guarded(settings: ServiceSettings, label: str, now: Callable[[], datetime]) -> Iterator[Guard]:
    """Give what guards a server, for as long as it serves.

    Args:
        settings: Settings of the service.
        label: ``trainer`` or ``sampler``.
        now: Gives the present time, with its zone: when credentials expire, and when calls were judged.

    Raises:
        UnavailableError: A file that it takes cannot be read, or the audit log not be written.
        InvalidFieldError: One of them cannot be understood.
    """
    # Loaded where asked for: what reads keys and certificates takes its time to start.
    authenticator = None
    if settings.asks_who_calls:
        from rowmint.security.access_file import AccessFile  # noqa: PLC0415
        from rowmint.security.authenticator import Authenticator  # noqa: PLC0415

        tokens = None
        if settings.jwt_keys:
            from rowmint.security.tokens import TokenVerifier  # noqa: PLC0415

            tokens = TokenVerifier(settings.jwt_keys, settings.jwt_issuer, settings.jwt_audience, time.monotonic)
        access = AccessFile(Path(settings.access_file)) if settings.access_file else None
        authenticator = Authenticator(access, tokens, now)
    if not settings.audit_log:
        yield Guard(settings.tls_files, authenticator)
        return
    from rowmint.security.audit import AuditLog  # noqa: PLC0415

    audit = AuditLog(Path(settings.audit_log), label, socket.gethostname(), now)
    try:
        yield Guard(settings.tls_files, authenticator, audit)
    finally:
        audit.close()
