"""Records of models and versions, as the ledger gives them out."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from rowmint.names import LATEST, ModelName, ModelVersionName
from rowmint.schema import TableSchema


class VersionState(StrEnum):
    """Whether a version is served; the names of `rowmint.v1.ModelVersionState`."""

    STAGED = "STAGED"
    PUBLISHED = "PUBLISHED"
    REJECTED = "REJECTED"


@dataclass(frozen=True)
class NewVersion:
    """What a version is published with. Both objects are stored already, under keys of the publishing attempt's own.

    Attributes:
        training_job: Name of the job, "projects/{project}/trainingJobs/{job}".
        manifest_key: Object of manifest.json; with its size in bytes and SHA-256.
        manifest_size: Bytes.
        manifest_sha256: 32 bytes.
        weights_key: Object of weights.safetensors; with its size in bytes and SHA-256.
        weights_size: Bytes.
        weights_sha256: 32 bytes.
        model_digest: Digest of all that rows depend on, 32 bytes.
        manifest_digest: Digest of the whole manifest, 32 bytes.
        family: Family of synthesizer.
        dataset_digest: SHA-256 of the dataset, 32 bytes.
        training_rows: Rows it was fitted to.
        schema: Shape of the rows it makes.
        capabilities: What its family offers, as the manifest declares it: JSON values such as ``{"unit": "row",
            "conditions": "rejection", "likelihood": false, "privacy": []}``; None where the manifest declares nothing.
    """

    training_job: str
    manifest_key: str
    manifest_size: int
    manifest_sha256: bytes
    weights_key: str
    weights_size: int
    weights_sha256: bytes
    model_digest: bytes
    manifest_digest: bytes
    family: str
    dataset_digest: bytes
    training_rows: int
    schema: TableSchema
    capabilities: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class ModelVersionRecord(NewVersion):
    """A version as it was when read; nothing of it ever changes but its state.

    Attributes:
        name: Its name.
        job_uid: The job that made it.
        create_time: When it was stored: published, or staged.
        state: Whether it is served.
        rejection_reason: Why it was rejected; empty otherwise.
        decide_time: When it was rejected; None otherwise.
    """

    name: ModelVersionName
    job_uid: str
    create_time: datetime
    state: VersionState = VersionState.PUBLISHED
    rejection_reason: str = ""
    decide_time: datetime | None = None


@dataclass(frozen=True)
class ModelRecord:
    """A model as it was when read.

    Attributes:
        name: Its name.
        aliases: Aliases and the version number each points at; ``latest`` is among them while a version is published.
        create_time: When it was created.
    """

    name: ModelName
    aliases: Mapping[str, int]
    create_time: datetime

    @property
    def latest(self) -> int | None:
        """Number of the newest published version, or None where there is none."""
        return self.aliases.get(LATEST)
