"""Settings that both services share: logging, metrics, listening, TLS, authentication, audit log."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from rowmint.security.loopback import is_loopback
from rowmint.security.tls_files import TlsFiles


class ObservabilitySettings(BaseSettings):
    """Settings of logging and metrics.

    Attributes:
        log_format: Format of the log: readable text, or one JSON object per line.
        log_level: Lowest level that is logged.
        metrics_listen: Address that serves metrics, ``host:port``, port 0 for a free one; empty for none.
    """

    model_config = SettingsConfigDict(env_prefix="ROWMINT_", frozen=True)

    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    metrics_listen: str = Field(default="", pattern=r"^$|^\S+:\d{1,5}$")


class ServiceSettings(ObservabilitySettings):
    """Settings that both services have. All files are reloaded when they change.

    Attributes:
        listen: Address to serve on, ``host:port``.
        tls_certificate: File of the server's certificate chain, PEM; empty for no TLS.
        tls_key: File of its private key, PEM.
        tls_client_ca: File of the authorities of client certificates, PEM; empty: no client certificate is required.
        access_file: File of API keys and certificates and the roles granted to them; written by `rowmint keys`.
        jwt_keys: Keys that verify bearer tokens: file of a JWKS or PEM key, or ``https://`` URL of a JWKS.
        jwt_issuer: Required issuer of tokens.
        jwt_audience: Required audience of tokens.
        audit_log: Folder of the audit log; empty for none.
        reauthorize_seconds: Pause between two checks that the caller of a running stream, upload or watch may still
            make it.
        max_calls: Calls served at once, those of health checks and reflection not counted; one more is refused, to be
            retried.
        max_page_bytes: Size at which a page of a list ends, whatever its `page_size`; below what clients receive.
        insecure: Whether it may listen on other than loopback addresses without TLS or without authentication.
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
    reauthorize_seconds: float = Field(default=10.0, gt=0)
    max_calls: int = Field(default=2000, ge=1)
    max_page_bytes: int = Field(default=3 << 20, ge=64 << 10)
    insecure: bool = False

    @model_validator(mode="after")
    def _are_consistent(self) -> Self:
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("ROWMINT_TLS_CERTIFICATE and ROWMINT_TLS_KEY belong together: set both or neither")
        if self.tls_client_ca and not self.tls_certificate:
            raise ValueError(
                "ROWMINT_TLS_CLIENT_CA (mutual TLS) requires ROWMINT_TLS_CERTIFICATE and ROWMINT_TLS_KEY: set them, too"
            )
        if self.tls_client_ca and not self.requires_credentials:
            raise ValueError(
                "ROWMINT_TLS_CLIENT_CA authenticates clients, but grants them no roles: also set ROWMINT_ACCESS_FILE"
                " (`rowmint keys grant`) or ROWMINT_JWT_KEYS"
            )
        if self.metrics_listen and self.tls_client_ca and not self.access_file:
            raise ValueError(
                "ROWMINT_METRICS_LISTEN with ROWMINT_TLS_CLIENT_CA serves metrics only to certificates with a role in"
                " every project, which only ROWMINT_ACCESS_FILE grants: set it, too (`rowmint keys grant`)"
            )
        if self.jwt_keys and not (self.jwt_issuer and self.jwt_audience):
            raise ValueError(
                "ROWMINT_JWT_KEYS requires ROWMINT_JWT_ISSUER and ROWMINT_JWT_AUDIENCE, as its keys may also sign"
                " tokens for other services: set them, too"
            )
        if (self.jwt_issuer or self.jwt_audience) and not self.jwt_keys:
            raise ValueError(
                "ROWMINT_JWT_ISSUER and ROWMINT_JWT_AUDIENCE have no effect without ROWMINT_JWT_KEYS, the keys that"
                " verify tokens: set it, too, or none of the three"
            )
        return self

    @model_validator(mode="after")
    def _are_secure_unless_declared_insecure(self) -> Self:
        if self.insecure:
            return self
        otherwise = "or ROWMINT_INSECURE=true if the network is trusted"
        if not is_loopback_address(self.listen):
            if not self.tls_certificate:
                raise ValueError(
                    f"ROWMINT_LISTEN {self.listen!r} is reachable from other machines, without encryption: set"
                    f" ROWMINT_TLS_CERTIFICATE and ROWMINT_TLS_KEY, {otherwise}"
                )
            if not self.requires_credentials:
                raise ValueError(
                    f"ROWMINT_LISTEN {self.listen!r} is reachable from other machines, without authentication: set"
                    f" ROWMINT_ACCESS_FILE or ROWMINT_JWT_KEYS, {otherwise}"
                )
        if self.metrics_listen and not is_loopback_address(self.metrics_listen) and not self.tls_client_ca:
            raise ValueError(
                f"ROWMINT_METRICS_LISTEN {self.metrics_listen!r} is reachable from other machines, without"
                f" authentication: set ROWMINT_TLS_CLIENT_CA, {otherwise}"
            )
        return self

    @property
    def requires_credentials(self) -> bool:
        """Whether calls must be authenticated."""
        return bool(self.access_file or self.jwt_keys)

    @property
    def tls_files(self) -> TlsFiles | None:
        """The certificate and key files, or None without TLS."""
        if not self.tls_certificate:
            return None
        return TlsFiles(
            Path(self.tls_certificate), Path(self.tls_key), Path(self.tls_client_ca) if self.tls_client_ca else None
        )


def is_loopback_address(listen: str) -> bool:
    """Return whether ``host:port`` is a loopback address."""
    return is_loopback(listen.rpartition(":")[0].strip("[]"))
