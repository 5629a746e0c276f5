"""Settings that both services share: what a service tells of itself, and whom it lets in."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from rowmint.security.loopback import is_loopback
from rowmint.security.tls_files import TlsFiles


class ObservabilitySettings(BaseSettings):
    """The part of a service's settings that is about its log and its metrics.

    Attributes:
        log_format: How the log is written: for people, or one JSON object a line.
        log_level: The least that is logged.
        metrics_listen: Address of the metrics, ``host:port``, port 0 for a free one; empty for none.
    """

    model_config = SettingsConfigDict(env_prefix="ROWMINT_", frozen=True)

    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    metrics_listen: str = Field(default="", pattern=r"^$|^\S+:\d{1,5}$")


class ServiceSettings(ObservabilitySettings):
    """The part that both services have. All files are read anew when they change.

    Attributes:
        listen: Address served, ``host:port``.
        tls_certificate: File of the server's certificate, and those between it and its authority, PEM; empty for plain
            text.
        tls_key: File of its private key, PEM.
        tls_client_ca: File of the authorities that clients' certificates must come from, PEM; empty: none is asked for.
        access_file: File of API keys and certificates and what each may do; `rowmint keys` writes it.
        jwt_keys: Keys that sign bearer tokens: file of a JWKS or PEM key, or ``https://`` address of a JWKS.
        jwt_issuer: Who must have issued a token.
        jwt_audience: Whom a token must be for.
        audit_log: Folder of the audit log; empty for none.
        insecure: Whether it may listen beyond this machine in plain text, or without asking who calls.
    """

    listen: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    access_file: str = ""
    jwt_keys: str = ""
    jwt_issuer: str = ""
    jwt_audience: str = ""
    audit_log: str = ""
    insecure: bool = False

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("ROWMINT_TLS_CERTIFICATE and ROWMINT_TLS_KEY go together: set both or neither")
        if self.tls_client_ca and not self.tls_certificate:
            raise ValueError(
                "ROWMINT_TLS_CLIENT_CA needs ROWMINT_TLS_CERTIFICATE and ROWMINT_TLS_KEY: mutual is both ways"
            )
        if self.tls_client_ca and not self.asks_who_calls:
            raise ValueError(
                "ROWMINT_TLS_CLIENT_CA says who may connect, not what they may do: set ROWMINT_ACCESS_FILE, too"
                " (`rowmint keys grant`), or ROWMINT_JWT_KEYS"
            )
        if self.jwt_keys and not (self.jwt_issuer and self.jwt_audience):
            raise ValueError(
                "ROWMINT_JWT_KEYS needs ROWMINT_JWT_ISSUER and ROWMINT_JWT_AUDIENCE: its keys may sign for others, too"
            )
        return self

    @model_validator(mode="after")
    def _lets_nobody_in_by_accident(self) -> Self:
        if self.insecure:
            return self
        told = "or ROWMINT_INSECURE=true if whatever can reach it may"
        if not listens_here(self.listen):
            if not self.tls_certificate:
                raise ValueError(
                    f"ROWMINT_LISTEN {self.listen!r} is reached from other machines, and those on the way could read"
                    f" along: set ROWMINT_TLS_CERTIFICATE and ROWMINT_TLS_KEY, {told}"
                )
            if not self.asks_who_calls:
                raise ValueError(
                    f"ROWMINT_LISTEN {self.listen!r} is reached from other machines, and everybody there could do"
                    f" everything: set ROWMINT_ACCESS_FILE or ROWMINT_JWT_KEYS, {told}"
                )
        if self.metrics_listen and not listens_here(self.metrics_listen) and not self.tls_client_ca:
            raise ValueError(
                f"ROWMINT_METRICS_LISTEN {self.metrics_listen!r} is reached from other machines, and asks nobody for"
                f" credentials: set ROWMINT_TLS_CLIENT_CA, {told}"
            )
        return self

    @property
    def asks_who_calls(self) -> bool:
        """Whether a call needs credentials."""
        return bool(self.access_file or self.jwt_keys)

    @property
    def tls_files(self) -> TlsFiles | None:
        """The files of TLS, or None for plain text."""
        if not self.tls_certificate:
            return None
        return TlsFiles(
            Path(self.tls_certificate), Path(self.tls_key), Path(self.tls_client_ca) if self.tls_client_ca else None
        )


def listens_here(listen: str) -> bool:
    """Return whether ``host:port`` is an address that only this machine reaches."""
    return is_loopback(listen.rpartition(":")[0].strip("[]"))
