"""Settings that both services share: what a service tells of itself."""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


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
