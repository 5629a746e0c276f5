"""Settings of the sampler: environment variables that begin with ``ROWMINT_``; none is needed."""

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from rowmint.rpc.settings import ServiceSettings
from rowmint.sampling.limits import MAX_ROWS

MAX_PLAN_BYTES = 3 * 1024 * 1024
"""Default of `SamplerSettings.max_plan_bytes`: what clients receive by default is 4 MiB."""


class SamplerSettings(ServiceSettings):
    """The sampler's own settings, beside those that both services have.

    Attributes:
        home: Folder of the embedded default.
        models_registry: Registry of models, only read: ``sqlite:///file.db`` or ``postgresql+psycopg://...``.
        model_store: Store of published models, only read: ``file:///folder``, ``s3://bucket/prefix``.
        store_options: Options of the store, such as endpoint and credentials.
        kernel: What multiplies matrices: ``onnxruntime``, ``numpy``, or ``auto``: the first where it is installed. All
            give the same rows.
        trusted_keys: File of Ed25519 public keys, PEM, one of which must have signed a version; empty to serve all.
        processes: Processes that share the port, and so the machine's cores; each has limits and models of its own.
        shares_port: Whether others listen on the same port; set by the process that starts them.
        threads: Blocks computed at once, over all streams of all processes.
        model_cache_bytes: Memory of the models kept loaded, bytes; with those that are loading or still in use, twice
            as much at most.
        max_streams: Calls that make or plan rows served at once; one more is refused, to be retried at another replica.
        max_project_streams: Likewise, of one project; 0 for as many as all.
        max_rows_in_flight: Rows computed, or waiting to be sent, at once.
        max_project_rows_in_flight: Likewise, of one project; 0 for as many as all.
        max_work_bytes: Bytes that completions and scorings compute in at once, and of the tables of conditions that
            streams meet, all together.
        max_stream_seconds: Seconds after which a stream is ended on the grid, to be resumed elsewhere; 0 for never.
        max_rows: Longest logical stream, rows.
        max_plan_bytes: Bytes that the requests of a plan's parts may have together; more are answered as ranges only.
        write_timeout: Seconds a client may leave a message unread before its stream is ended.
        max_message_bytes: Largest message received.
        grace_seconds: How long calls may last after SIGTERM, seconds.
        max_connection_age_seconds: Age at which connections are renewed; 0 for never.
    """

    model_config = SettingsConfigDict(env_prefix="ROWMINT_", frozen=True, protected_namespaces=())

    home: Path = Path(".rowmint")
    listen: str = "127.0.0.1:7402"
    models_registry: str = ""
    model_store: str = ""
    store_options: dict[str, Any] = Field(default_factory=dict)
    kernel: Literal["auto", "onnxruntime", "numpy"] = "auto"
    trusted_keys: str = ""
    processes: int = Field(default=1, ge=1, le=256)
    shares_port: bool = False
    threads: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, le=256)
    model_cache_bytes: int = Field(default=1024**3, ge=1)
    max_streams: int = Field(default=64, ge=1)
    max_project_streams: int = Field(default=0, ge=0)
    max_rows_in_flight: int = Field(default=1 << 21, ge=1)
    max_project_rows_in_flight: int = Field(default=0, ge=0)
    max_work_bytes: int = Field(default=1024**3, ge=1)
    max_stream_seconds: float = Field(default=600.0, ge=0)
    max_rows: int = Field(default=MAX_ROWS, ge=1, le=MAX_ROWS)
    max_plan_bytes: int = Field(default=MAX_PLAN_BYTES, ge=64 * 1024)
    write_timeout: float = Field(default=60.0, gt=0)
    max_message_bytes: int = Field(default=4 * 1024 * 1024, ge=64 * 1024)
    grace_seconds: float = Field(default=10.0, ge=0)
    max_connection_age_seconds: float = Field(default=900.0, ge=0)

    @property
    def models_registry_url(self) -> str:
        """The registry, the embedded default filled in."""
        return self.models_registry or f"sqlite:///{self.home.absolute()}/registry/models.db"

    @property
    def model_store_url(self) -> str:
        """The store, the embedded default filled in."""
        return self.model_store or f"file://{self.home.absolute()}/models"


def sibling_environment(settings: SamplerSettings) -> dict[str, str]:
    """Return the environment of one of several processes: that of this one, and its share of the threads."""
    return {**os.environ, "ROWMINT_THREADS": str(-(-settings.threads // settings.processes))}
