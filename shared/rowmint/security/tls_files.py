"""The files that TLS is made of."""

import socket
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rowmint.errors import InvalidFieldError
from rowmint.security.watched import Watched


@dataclass(frozen=True)
class TlsMaterial:
    """What the files hold, PEM.

    Attributes:
        certificate: Certificate of this end and those between it and its authority.
        key: Its private key.
        client_ca: Authorities of the other end, or None where it need not show a certificate.
    """

    certificate: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None


@dataclass(frozen=True)
class TlsFiles:
    """Where they are.

    Attributes:
        certificate: Certificate of this end, PEM.
        key: Its private key, PEM, not encrypted.
        client_ca: Authorities of the other end, PEM, or None where it need not show a certificate.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def watch(self) -> Watched[TlsMaterial]:
        """Return what they hold, taken anew when they change.

        Raises:
            UnavailableError: One cannot be read.
            InvalidFieldError: One cannot be understood, or key and certificate do not belong together.
        """
        paths = [self.certificate, self.key, *([] if self.client_ca is None else [self.client_ca])]
        return Watched(paths, _parse, "TLS")


def _parse(contents: Sequence[bytes]) -> TlsMaterial:
    """Check what gRPC would only tell of at a handshake, and then nobody but its log."""
    from cryptography import x509  # noqa: PLC0415 - only where there is TLS
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    certificate, key, *client_ca = contents
    own = x509.load_pem_x509_certificates(certificate)[0]
    try:
        private = load_pem_private_key(key, None)
    except TypeError as error:
        raise InvalidFieldError("TLS", "the private key is encrypted; store it without a password") from error
    if private.public_key() != own.public_key():
        raise InvalidFieldError("TLS", "the private key is not that of the certificate; both must be of one pair")
    for authorities in client_ca:
        x509.load_pem_x509_certificates(authorities)
    return TlsMaterial(certificate, key, client_ca[0] if client_ca else None)


class SecuredSockets:
    """Turns accepted sockets into TLS ones, each with the certificate that the files hold then. For any thread.

    Args:
        files: Certificate, key and, for mutual TLS, the authorities of clients.

    Raises:
        UnavailableError: One cannot be read.
        InvalidFieldError: One cannot be understood, or key and certificate do not belong together.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._watched = files.watch()
        self._lock = threading.Lock()
        self._generation = 0
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)

    def wrap(self, accepted: socket.socket) -> ssl.SSLSocket:
        """Make the handshake and return the socket.

        Raises:
            OSError: The other end does not do its part.
        """
        with self._lock:
            generation, _ = self._watched.read()
            if generation != self._generation:
                self._context = self._new_context()
                self._generation = generation
            context = self._context
        return context.wrap_socket(accepted, server_side=True)

    def _new_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self._files.certificate, self._files.key)
        if self._files.client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self._files.client_ca)
        return context


def names_in(connection: socket.socket) -> list[str]:
    """Return the names in the other end's verified certificate: its alternative names, then its common name.

    None are returned where it has shown no certificate, and in plain text.
    """
    shown: Any = (isinstance(connection, ssl.SSLSocket) and connection.getpeercert()) or {}
    common = [value for part in shown.get("subject", ()) for key, value in part if key == "commonName"]
    return [*(value for _, value in shown.get("subjectAltName", ())), *common]
