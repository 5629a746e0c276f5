"""Certificate and key files of TLS, and sockets secured by them."""

import socket
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rowmint.errors import InvalidFieldError
from rowmint.security.reloaded_file import ReloadedFile


@dataclass(frozen=True)
class TlsMaterial:
    """Contents of the files, PEM.

    Attributes:
        certificate: Certificate chain of this process, its own first.
        key: Its private key.
        client_ca: Authorities of peers, or None if peers need no certificate.
    """

    certificate: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None


@dataclass(frozen=True)
class TlsFiles:
    """Paths of the files.

    Attributes:
        certificate: Certificate chain of this process, PEM.
        key: Its private key, PEM, not encrypted.
        client_ca: Authorities of peers, PEM, or None if peers need no certificate.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def load(self) -> ReloadedFile[TlsMaterial]:
        """Return their contents, which are reloaded when they change.

        Raises:
            UnavailableError: A file cannot be read.
            InvalidFieldError: A file cannot be parsed, or key and certificate do not match.
        """
        paths = [self.certificate, self.key, *([] if self.client_ca is None else [self.client_ca])]
        return ReloadedFile(paths, _parse, "TLS")


def _parse(contents: Sequence[bytes]) -> TlsMaterial:
    """Validate the contents, which gRPC would only do at a handshake, reporting failures to its own log only."""
    from cryptography import x509  # noqa: PLC0415 - only where there is TLS
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    certificate, key, *client_ca = contents
    own = x509.load_pem_x509_certificates(certificate)[0]
    try:
        private = load_pem_private_key(key, None)
    except TypeError as error:
        raise InvalidFieldError("TLS", "the private key is encrypted; store it without a password") from error
    if private.public_key() != own.public_key():
        raise InvalidFieldError("TLS", "the private key does not match the certificate; both must be of one key pair")
    for authorities in client_ca:
        x509.load_pem_x509_certificates(authorities)
    return TlsMaterial(certificate, key, client_ca[0] if client_ca else None)


class SecuredSockets:
    """Wraps accepted sockets in TLS, with the certificate current at each handshake. Thread-safe.

    Args:
        files: Certificate, key and, for mutual TLS, the authorities of clients.

    Raises:
        UnavailableError: A file cannot be read.
        InvalidFieldError: A file cannot be parsed, or key and certificate do not match.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._material = files.load()
        self._lock = threading.Lock()
        self._generation = 0
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)

    def wrap(self, accepted: socket.socket) -> ssl.SSLSocket:
        """Perform the handshake and return the secured socket.

        Raises:
            OSError: The handshake failed.
        """
        with self._lock:
            generation, _ = self._material.read()
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


def peer_names(connection: socket.socket) -> list[str]:
    """Return the names in the peer's verified certificate: its alternative names, then its common name.

    Empty without a peer certificate, and without TLS.
    """
    shown: Any = (isinstance(connection, ssl.SSLSocket) and connection.getpeercert()) or {}
    common = [value for part in shown.get("subject", ()) for key, value in part if key == "commonName"]
    return [*(value for _, value in shown.get("subjectAltName", ())), *common]
