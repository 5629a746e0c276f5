"""How the client authenticates itself to the services, and the services to itself."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc

from rowmint.client.interceptor import intercepted, with_metadata
from rowmint.errors import InvalidFieldError, UnavailableError
from rowmint.security.loopback import is_loopback

_LONGEST_TOKEN = 8192


@dataclass(frozen=True)
class Credentials:
    """The client's certificate or token, and how it verifies the services.

    Attributes:
        tls: Whether the connections use TLS; in plain text, a token is sent to this machine only.
        authorities: Certificates of the authorities that issue the services' certificates, PEM; None for those that
            this system trusts.
        certificate: The client's certificate and those between it and its authority, PEM; None for none.
        key: Its private key, PEM.
        token: API key or bearer token, or a callable that returns the current one; None for none.
        server_name: Name that the services' certificates must have, where it is not that of their address.
    """

    tls: bool = True
    authorities: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    token: str | Callable[[], str] | None = field(default=None, repr=False)
    server_name: str = ""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise InvalidFieldError("credentials", "certificate and key belong together; give both or neither")
        if not self.tls and (self.authorities is not None or self.certificate is not None or self.server_name):
            raise InvalidFieldError("credentials", "certificates need TLS; set tls")

    @classmethod
    def from_files(
        cls,
        *,
        tls: bool = False,
        authorities: str | Path | None = None,
        certificate: str | Path | None = None,
        key: str | Path | None = None,
        token: str | None = None,
        token_file: str | Path | None = None,
        server_name: str = "",
    ) -> Self:
        """Return credentials from files; any certificate implies TLS.

        Args:
            tls: Whether to use TLS without any certificate.
            authorities: PEM file.
            certificate: PEM file.
            key: PEM file.
            token: API key or bearer token.
            token_file: File that holds it, read for each call, so that it can be renewed there.
            server_name: As the attribute.

        Raises:
            UnavailableError: A file cannot be read.
            InvalidFieldError: The arguments do not belong together.
        """
        if token and token_file:
            raise InvalidFieldError("credentials", "both a token and a token file are given; give one of them")
        secured = tls or bool(authorities or certificate or key or server_name)

        def held() -> str:
            return _read(Path(token_file or "")).decode("utf-8", "replace").strip()

        return cls(
            tls=secured,
            authorities=_read(Path(authorities)) if authorities else None,
            certificate=_read(Path(certificate)) if certificate else None,
            key=_read(Path(key)) if key else None,
            token=held if token_file else token or None,
            server_name=server_name,
        )

    def channel(self, target: str, address: str, options: tuple[tuple[str, int | str], ...]) -> grpc.Channel:
        """Return a channel.

        Args:
            target: gRPC's name of the target.
            address: The target's addresses as they were given, with commas between them.
            options: Options of the channel.

        Raises:
            InvalidFieldError: A token would be sent in plain text over a network.
        """
        here = all(map(_is_here, address.split(",")))
        if here:
            # A proxy named in the environment would look for the service on its own machine.
            options = (*options, ("grpc.enable_http_proxy", 0))
        if not self.tls:
            if self.token is not None and not here:
                raise InvalidFieldError(
                    "credentials",
                    f"a token is not sent to {address} in plain text, where others could read it; set tls",
                )
            channel = grpc.insecure_channel(target, options)
        else:
            # For a channel to several addresses, gRPC would look for all of them in a certificate.
            name = self.server_name or (_host_of(address.split(",", maxsplit=1)[0]) if target != address else "")
            named = (("grpc.ssl_target_name_override", name),) if name else ()
            shown = grpc.ssl_channel_credentials(self.authorities, self.key, self.certificate)
            channel = grpc.secure_channel(target, shown, (*options, *named))
        return channel if self.token is None else intercepted(channel, self._with_token)

    def _with_token(self, continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
        token = self.token() if callable(self.token) else self.token
        if not token or len(token) > _LONGEST_TOKEN or not (token.isascii() and token.isprintable()) or " " in token:
            raise InvalidFieldError(
                "credentials", "the token is empty, too long, or has characters that a token cannot have"
            )
        return continuation(with_metadata(details, (("authorization", f"Bearer {token}"),)), request)


PLAIN = Credentials(tls=False)
"""Plain text, without a token."""


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnavailableError(f"credentials: {path}: {error.strerror or 'cannot be read'}") from error


def _host_of(address: str) -> str:
    return address.rpartition("/")[2].rpartition(":")[0].strip("[]")


def _is_here(address: str) -> bool:
    """Return whether an address is this machine's own, without resolving names."""
    return address.startswith("unix:") or is_loopback(_host_of(address))
