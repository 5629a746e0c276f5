"""Settings of the sampler: environment variables that begin with ``ROWMINT_``; none is needed."""

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class SamplerSettings(BaseSettings):
    """Everything about the sampler that can be set.

    Attributes:
        home: Folder of the embedded default.
        listen: Address served, ``host:port``.
        models_registry: Registry of models, only read: ``sqlite:///file.db`` or ``postgresql+psycopg://...``.
        model_store: Store of published models, only read: ``file:///folder``, ``s3://bucket/prefix``.
        store_options: Options of the store, such as endpoint and credentials.
        kernel: What multiplies matrices: ``onnxruntime``, ``numpy``, or ``auto``: the first where it is installed. All
            give the same rows.
        threads: Blocks computed at once, over all streams.
        model_cache_bytes: Bytes of models kept loaded.
        max_streams: Streams served at once; one more is asked to try again.
        max_rows: Longest logical stream, rows.
        write_timeout: Seconds a client may leave a message unread before its stream is ended.
        max_message_bytes: Largest message received.
        grace_seconds: How long calls may go on after SIGTERM.
        max_connection_age_seconds: Age at which connections are renewed; 0 for never.
    """

    model_config = SettingsConfigDict(env_prefix="ROWMINT_", frozen=True, protected_namespaces=())

    home: Path = Path(".rowmint")
    listen: str = "127.0.0.1:7402"
    models_registry: str = ""
    model_store: str = ""
    store_options: dict[str, Any] = Field(default_factory=dict)
    kernel: Literal["auto", "onnxruntime", "numpy"] = "auto"
    threads: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, le=256)
    model_cache_bytes: int = Field(default=1024**3, ge=1)
    max_streams: int = Field(default=64, ge=1)
    max_rows: int = Field(default=10**15, ge=1, le=10**15)
    write_timeout: float = Field(default=60.0, gt=0)
    max_message_bytes: int = Field(default=4 * 1024 * 1024, ge=64 * 1024)
    grace_seconds: float = Field(default=10.0, ge=0)
    max_connection_age_seconds: float = Field(default=0.0, ge=0)

    @property
    def models_registry_url(self) -> str:
        """The registry, the embedded default filled in."""
        return self.models_registry or f"sqlite:///{self.home.absolute()}/registry/models.db"

    @property
    def model_store_url(self) -> str:
        """The store, the embedded default filled in."""
        return self.model_store or f"file://{self.home.absolute()}/models"
