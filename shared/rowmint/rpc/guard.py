"""What guards a server, composed of its settings."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from rowmint.rpc.server import Guard
from rowmint.rpc.settings import ServiceSettings


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
        from rowmint.security.tokens import TokenVerifier  # noqa: PLC0415

        tokens = None
        if settings.jwt_keys:
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
