"""TLS of a server, its certificates taken anew when their files change."""

import grpc

from rowmint.security.tls_files import TlsFiles, TlsMaterial
from rowmint.security.watched import Watched


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Return credentials of a server; each handshake is made with the certificate that the files hold then.

    Args:
        files: Certificate, key and, for mutual TLS, the authorities of clients.

    Raises:
        UnavailableError: One cannot be read.
        InvalidFieldError: One cannot be understood, or key and certificate do not belong together.
    """
    watched = files.watch()
    seen, first = watched.read()
    fetch = _Fetch(watched, seen)
    return grpc.dynamic_ssl_server_credentials(
        _configuration(first),
        fetch,  # type: ignore[arg-type]  # None stands for "as before"
        require_client_authentication=first.client_ca is not None,
    )


class _Fetch:
    """Asked by gRPC at each handshake, one at a time."""

    def __init__(self, watched: Watched[TlsMaterial], seen: int) -> None:
        self._watched = watched
        self._seen = seen

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        generation, material = self._watched.read()
        if generation == self._seen:
            return None  # as before
        self._seen = generation
        return _configuration(material)


def _configuration(material: TlsMaterial) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(material.key, material.certificate)], root_certificates=material.client_ca
    )
