"""Settings of the trainer: environment variables that begin with ``ROWMINT_``; none is needed."""

import os
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from rowmint.rpc.settings import ServiceSettings
from trainer_service.datasets.limits import IngestLimits
from trainer_service.devices import CudaSetting
from trainer_service.memory import default_worker_memory, machine_memory


class TrainerSettings(ServiceSettings):
    """Everything about the trainer that can be set, beside what both services have.

    Attributes:
        home: Folder of the embedded default: registry, objects, scratch.
        registry: Registry of datasets, jobs and models: ``sqlite:///folder`` or ``postgresql+psycopg://...``.
        data_store: Store of uploads and tables: ``file:///folder``, ``s3://bucket/prefix``, ``gs://...``, ``az://...``.
        model_store: Store of published models, likewise.
        models_group: Group that may read published models and their registry where these are folders, by name or
            number; empty: only this user.
        store_options: Options of both stores, such as endpoint and credentials.
        workers: Training jobs run at once, and as many ingest jobs beside them.
        max_project_jobs: Jobs of each kind that a project may have running, at all trainers together where each has the
            same number here; 0 for as many as there are workers.
        threads: CPU threads of a fit whose job does not say. The usual networks are too small to share: waking a thread
            costs more than it saves, unless threads spin (`OMP_WAIT_POLICY=ACTIVE`) on a machine that is idle.
        cuda: Whether jobs may ask for DEVICE_CUDA: `auto` where this machine has a device that torch can use, `true`
            where another trainer of the registry has one, or torch is built for ROCm, `false` never.
        worker_memory_bytes: Memory that a worker may take beside what it has when it starts on a job; 0 for no limit.
            Default: four fifths of the memory of the machine or container, divided by twice the workers, but at least
            2 GiB. A job on CUDA is not limited.
        lease_seconds: After so long without a heartbeat a job is claimed by another worker.
        heartbeat_seconds: Pause between two heartbeats; at most half the lease.
        segment_bytes: Bytes of an upload committed at once.
        segment_seconds: After so long what has come is committed, however little.
        checkpoint_seconds: Pause between two checkpoints of a fit, written between two steps.
        sweep_seconds: Pause between two searches for objects that nothing needs.
        orphan_seconds: Age below which an object that no row names is left alone.
        keep_orphans_seconds: How long such an object is kept aside before it is deleted; 0: it is deleted at once.
        upload_idle_seconds: After so long without a byte an upload is abandoned, and fails.
        keep_deleted_seconds: How long a deleted model version can be brought back.
        max_open_uploads: Datasets of a project that may wait for their bytes at once.
        max_upload_streams: Upload streams open at once; each takes up to the bytes of a segment and two messages.
        max_project_upload_streams: Likewise, of one project; 0 for as many as all.
        upload_stream_idle_seconds: After so long without a message an upload stream is ended, to be resumed.
        max_watches: Watches of jobs open at once.
        max_project_watches: Likewise, of one project; 0 for as many as all.
        max_project_bytes: Bytes of all datasets of a project together.
        max_columns: Columns of a table.
        max_row_bytes: Bytes of a row, or of an object of JSON.
        max_text_bytes: Bytes of a cell of text.
        max_decompressed_bytes: Bytes of a table once it is decompressed.
        max_row_group_bytes: Memory that a worker may take to read a row group of Parquet.
        max_message_bytes: Largest message received.
        grace_seconds: How long calls may continue after SIGTERM.
        max_connection_age_seconds: Age at which connections are renewed; 0 for never.
        signing_key: File of the Ed25519 private key, PEM, that versions are signed with; empty: they are not.
        failpoint: A place to die at, for tests of what is lost then; see `rowmint.failpoints.arm`.
    """

    model_config = SettingsConfigDict(env_prefix="ROWMINT_", frozen=True)

    home: Path = Path(".rowmint")
    listen: str = "127.0.0.1:7401"
    registry: str = ""
    data_store: str = ""
    model_store: str = ""
    models_group: str = ""
    store_options: dict[str, Any] = Field(default_factory=dict)
    workers: int = Field(default=1, ge=1, le=256)
    max_project_jobs: int = Field(default=0, ge=0)
    threads: int = Field(default=1, ge=1, le=256)
    cuda: CudaSetting = "auto"
    worker_memory_bytes: int | None = Field(default=None, ge=0)
    lease_seconds: float = Field(default=10.0, gt=0)
    heartbeat_seconds: float = Field(default=1.0, gt=0)
    checkpoint_seconds: float = Field(default=60.0, ge=0)
    sweep_seconds: float = Field(default=600.0, gt=0)
    orphan_seconds: float = Field(default=24 * 3600.0, ge=0)
    keep_orphans_seconds: float = Field(default=7 * 24 * 3600.0, ge=0)
    upload_idle_seconds: float = Field(default=7 * 24 * 3600.0, gt=0)
    keep_deleted_seconds: float = Field(default=24 * 3600.0, ge=0)
    max_open_uploads: int = Field(default=100, ge=1)
    max_upload_streams: int = Field(default=64, ge=1)
    max_project_upload_streams: int = Field(default=0, ge=0)
    upload_stream_idle_seconds: float = Field(default=300.0, gt=0)
    max_watches: int = Field(default=1000, ge=1)
    max_project_watches: int = Field(default=0, ge=0)
    max_project_bytes: int = Field(default=1 << 40, ge=1)
    max_columns: int = Field(default=4096, ge=1)
    max_row_bytes: int = Field(default=16 << 20, ge=1024)
    max_text_bytes: int = Field(default=64 << 10, ge=1)
    max_decompressed_bytes: int = Field(default=64 << 30, ge=1)
    max_row_group_bytes: int = Field(default=1 << 30, ge=1 << 20)
    segment_bytes: int = Field(default=8 * 1024 * 1024, ge=1)
    segment_seconds: float = Field(default=1.0, gt=0)
    max_message_bytes: int = Field(default=4 * 1024 * 1024, ge=64 * 1024)
    grace_seconds: float = Field(default=10.0, ge=0)
    max_connection_age_seconds: float = Field(default=900.0, ge=0)
    signing_key: str = ""
    failpoint: str = ""

    @field_validator("data_store", "model_store")
    @classmethod
    def _shared(cls, url: str) -> str:
        if url.startswith("memory:"):
            raise ValueError("jobs run in processes of their own, which do not see this one's memory")
        return url

    @model_validator(mode="after")
    def _beats_in_time(self) -> Self:
        if 2 * self.heartbeat_seconds > self.lease_seconds:
            raise ValueError("heartbeat_seconds must be at most half of lease_seconds: one beat may be lost")
        return self

    @property
    def registry_url(self) -> str:
        """The registry, the embedded default filled in."""
        return self.registry or f"sqlite:///{self.home.absolute()}/registry"

    @property
    def data_store_url(self) -> str:
        """The store of data, the embedded default filled in."""
        return self.data_store or f"file://{self.home.absolute()}/data"

    @property
    def model_store_url(self) -> str:
        """The store of models, the embedded default filled in."""
        return self.model_store or f"file://{self.home.absolute()}/models"

    @property
    def worker_memory(self) -> int:
        """Bytes of memory that a worker may take; 0 for no limit."""
        if self.worker_memory_bytes is not None:
            return self.worker_memory_bytes
        return default_worker_memory(self.workers, machine_memory())

    def for_worker(self) -> dict[str, Any]:
        """Return the settings as JSON values that a worker reads in whatever folder it runs: defaults are filled in."""
        filled = {
            "home": self.home.absolute(),
            "registry": self.registry_url,
            "data_store": self.data_store_url,
            "model_store": self.model_store_url,
            "worker_memory_bytes": self.worker_memory,
        }
        return self.model_copy(update=filled).model_dump(mode="json")

    @property
    def ingest_limits(self) -> IngestLimits:
        """What an upload may ask of the machine that reads it."""
        return IngestLimits(
            columns=self.max_columns,
            row_bytes=self.max_row_bytes,
            text_bytes=self.max_text_bytes,
            decompressed_bytes=self.max_decompressed_bytes,
            row_group_bytes=self.max_row_group_bytes,
        )

    @property
    def scratch(self) -> Path:
        """Root of the folders of temporary files, one a worker of this machine."""
        return self.home.absolute() / "scratch"


def worker_environment() -> dict[str, str]:
    """Return the environment of a worker: that of this process, OpenMP threads sleep while they wait, and BLAS has one.

    Threads that spin make a step several times slower on a busy machine; who wants them sets ``OMP_WAIT_POLICY``. What
    NumPy's BLAS rounds depends on its threads, of which a fit's fingerprint knows nothing; torch's are the job's.
    Arrow's own allocator reserves a gigabyte at once, which would count for the memory that a worker may take.
    """
    return {
        "OMP_WAIT_POLICY": "PASSIVE",
        "OPENBLAS_NUM_THREADS": "1",
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        **os.environ,
    }
