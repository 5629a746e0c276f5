"""TLS of a gRPC server; certificates are reloaded when their files change."""

import grpc

from rowmint.security.reloaded_file import ReloadedFile
from rowmint.security.tls_files import TlsFiles, TlsMaterial


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Return credentials of a server; each handshake uses the certificate that is then in the files.

    Args:
        files: Certificate, key and, for mutual TLS, the authorities of clients.

    Raises:
        UnavailableError: A file cannot be read.
        InvalidFieldError: A file cannot be parsed, or key and certificate do not match.
    """
    material = files.load()
    generation, first = material.read()
    fetch = _ConfigurationFetcher(material, generation)
    return grpc.dynamic_ssl_server_credentials(
        _configuration(first),
        fetch,  # type: ignore[arg-type]  # None stands for "unchanged"
        require_client_authentication=first.client_ca is not None,
    )


class _ConfigurationFetcher:
    """Called by gRPC at each handshake, never concurrently."""

    def __init__(self, material: ReloadedFile[TlsMaterial], generation: int) -> None:
        self._material = material
        self._generation = generation

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        generation, material = self._material.read()
        if generation == self._generation:
            return None  # unchanged
        self._generation = generation
        return _configuration(material)


def _configuration(material: TlsMaterial) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(material.key, material.certificate)], root_certificates=material.client_ca
    )
