"""The registry's tables, as SQLAlchemy Core sees them; `rowmint.migrations` makes them.

Instants are whole microseconds since 1970-01-01T00:00:00Z by the database's clock; digests are 32 raw bytes.
"""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

DATA = "rowmint_data"
MODELS = "rowmint_models"
SCHEMAS = (DATA, MODELS)

metadata = MetaData()

_JSON = JSON(none_as_null=True)

datasets = Table(
    "datasets",
    metadata,
    Column("uid", String(32), primary_key=True),
    Column("project", String(63), nullable=False),
    Column("dataset_id", String(63), nullable=False),
    Column("state", String(16), nullable=False),
    # Quoted: to PostgreSQL, FORMAT before JSON is a keyword.
    Column("format", _JSON, quote=True, nullable=False),
    Column("overrides", _JSON, nullable=False),
    Column("primary_key", String(256), nullable=False),
    Column("request_id", String(128)),
    Column("request_digest", LargeBinary(32)),
    Column("writer_epoch", BigInteger, nullable=False),
    Column("segment_count", BigInteger, nullable=False),
    Column("committed_size", BigInteger, nullable=False),
    Column("total_size", BigInteger),
    Column("sha256", LargeBinary(32)),
    Column("row_count", BigInteger),
    Column("schema", _JSON),
    Column("sdv_metadata", _JSON),
    Column("canonical_key", String(512)),
    Column("canonical_size", BigInteger),
    Column("canonical_sha256", LargeBinary(32)),
    Column("profile", _JSON),
    Column("errors", _JSON, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("update_time", BigInteger, nullable=False),
    UniqueConstraint("project", "dataset_id", name="uq_datasets_name"),
    UniqueConstraint("project", "request_id", name="uq_datasets_request"),
    Index("ix_datasets_newest", "project", "create_time", "uid"),
    schema=DATA,
)

segments = Table(
    "segments",
    metadata,
    Column("dataset_uid", String(32), ForeignKey(f"{DATA}.datasets.uid", ondelete="CASCADE"), primary_key=True),
    Column("segment_index", BigInteger, primary_key=True, autoincrement=False),
    Column("segment_offset", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", LargeBinary(32), nullable=False),
    Column("object_key", String(512), nullable=False),
    schema=DATA,
)

jobs = Table(
    "jobs",
    metadata,
    Column("uid", String(32), primary_key=True),
    Column("project", String(63), nullable=False),
    Column("job_id", String(63), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    # `phase`, `dataset_name`, `model_name` and `model_version` repeat what `phase_name`, `inputs` and `outputs` hold,
    # for code that was started before these were added; it leaves them empty.
    Column("phase", String(16), nullable=False),
    Column("phase_name", String(32)),
    Column("config", _JSON, nullable=False),
    Column("inputs", _JSON),
    Column("outputs", _JSON),
    # No foreign keys: a job is kept as history after its dataset is deleted.
    Column("parent_uid", String(32)),
    Column("dataset_uid", String(32), nullable=False),
    Column("dataset_name", String(256), nullable=False),
    Column("model_name", String(256), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("holder", String(256), nullable=False),
    Column("lease", BigInteger, nullable=False),
    Column("lease_until", BigInteger),
    Column("cancel_requested", Boolean, nullable=False),
    Column("error", _JSON),
    Column("event_count", BigInteger, nullable=False),
    Column("request_id", String(128)),
    Column("request_digest", LargeBinary(32)),
    Column("create_time", BigInteger, nullable=False),
    Column("start_time", BigInteger),
    Column("end_time", BigInteger),
    Column("model_version", BigInteger),
    # From where the next attempt resumes: key, size, sha256 (hex) and step; none before the first and after the end.
    Column("checkpoint", _JSON),
    # The span that created the job, as W3C Trace Context writes it; what works on the job belongs to its trace.
    Column("trace_parent", String(55)),
    UniqueConstraint("project", "kind", "job_id", name="uq_jobs_name"),
    UniqueConstraint("project", "kind", "request_id", name="uq_jobs_request"),
    Index("ix_jobs_newest", "project", "kind", "create_time", "uid"),
    Index("ix_jobs_work", "state", "create_time"),
    Index("ix_jobs_dataset", "dataset_uid"),
    Index("ix_jobs_parent", "parent_uid", "create_time", "uid"),
    schema=DATA,
)

# When a job of each project was last claimed: a number that grows with every claim of the kind.
job_turns = Table(
    "job_turns",
    metadata,
    Column("kind", String(16), primary_key=True),
    Column("project", String(63), primary_key=True),
    Column("turn", BigInteger, nullable=False),
    schema=DATA,
)

job_events = Table(
    "job_events",
    metadata,
    Column("job_uid", String(32), ForeignKey(f"{DATA}.jobs.uid", ondelete="CASCADE"), primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("time", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("phase", String(16), nullable=False),
    Column("phase_name", String(32)),
    Column("payload", _JSON, nullable=False),
    schema=DATA,
)

data_garbage = Table("garbage", metadata, Column("object_key", String(512), primary_key=True), schema=DATA)

# Datasets that are deleted: what was made for them may go, which is not so of datasets that are merely not known.
deleted_datasets = Table(
    "deleted_datasets",
    metadata,
    Column("uid", String(32), primary_key=True),
    Column("delete_time", BigInteger, nullable=False),
    schema=DATA,
)

# Attempts, by what the keys of their objects say of them, that another history of this registry has made, from before
# it was restored: they are over, but what they made may be needed.
lost_attempts = Table(
    "lost_attempts",
    metadata,
    Column("maker", String(16), primary_key=True),
    Column("uid", String(32), primary_key=True),
    Column("first_epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("last_epoch", BigInteger, nullable=False),
    schema=DATA,
)


def _identity(schema: str) -> Table:
    return Table(
        "registry_identity",
        metadata,
        Column("registry_uid", String(32), primary_key=True),
        Column("generation", BigInteger, nullable=False),
        schema=schema,
    )


# Of one row, or of none before the registry has claimed its stores.
data_identity = _identity(DATA)
models_identity = _identity(MODELS)

models = Table(
    "models",
    metadata,
    Column("uid", String(32), primary_key=True),
    Column("project", String(63), nullable=False),
    Column("model_id", String(63), nullable=False),
    # Numbers are not given twice, even where a version is deleted.
    Column("last_version", BigInteger, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    UniqueConstraint("project", "model_id", name="uq_models_name"),
    schema=MODELS,
)


def _version_columns() -> list[Column[Any]]:
    return [
        Column("model_uid", String(32), ForeignKey(f"{MODELS}.models.uid"), primary_key=True),
        Column("version", BigInteger, primary_key=True, autoincrement=False),
        Column("job_uid", String(32), nullable=False),
        Column("training_job", String(256), nullable=False),
        Column("manifest_key", String(512), nullable=False),
        Column("manifest_size", BigInteger, nullable=False),
        Column("manifest_sha256", LargeBinary(32), nullable=False),
        Column("weights_key", String(512), nullable=False),
        Column("weights_size", BigInteger, nullable=False),
        Column("weights_sha256", LargeBinary(32), nullable=False),
        Column("model_digest", LargeBinary(32), nullable=False),
        Column("manifest_digest", LargeBinary(32), nullable=False),
        Column("family", String(63), nullable=False),
        Column("dataset_digest", LargeBinary(32), nullable=False),
        Column("training_rows", BigInteger, nullable=False),
        Column("schema", _JSON, nullable=False),
        Column("create_time", BigInteger, nullable=False),
        # What the family offers, as the manifest declares it; none where the version is older than that.
        Column("capabilities", _JSON),
    ]


model_versions = Table(
    "model_versions",
    metadata,
    *_version_columns(),
    UniqueConstraint("job_uid", name="uq_model_versions_job"),
    Index("ix_model_versions_digest", "model_uid", "model_digest"),
    schema=MODELS,
)

# A table of its own, so that readers which know nothing of deleted versions never see one.
deleted_versions = Table(
    "deleted_versions",
    metadata,
    *_version_columns(),
    Column("delete_time", BigInteger, nullable=False),
    Column("purge_time", BigInteger, nullable=False),
    UniqueConstraint("job_uid", name="uq_deleted_versions_job"),
    Index("ix_deleted_versions_purge", "purge_time"),
    schema=MODELS,
)

# A table of its own, so that readers which know nothing of such versions never see one. Those that are deleted and not
# purged stay in it: in `deleted_versions` older code would find them, and publish what it brings back.
staged_versions = Table(
    "staged_versions",
    metadata,
    *_version_columns(),
    Column("state", String(16), nullable=False),
    Column("rejection_reason", Text, nullable=False),
    Column("decide_time", BigInteger),
    Column("delete_time", BigInteger),
    Column("purge_time", BigInteger),
    UniqueConstraint("job_uid", name="uq_staged_versions_job"),
    Index("ix_staged_versions_purge", "purge_time"),
    schema=MODELS,
)

model_aliases = Table(
    "model_aliases",
    metadata,
    Column("model_uid", String(32), ForeignKey(f"{MODELS}.models.uid"), primary_key=True),
    Column("alias", String(63), primary_key=True),
    Column("version", BigInteger, nullable=False),
    schema=MODELS,
)

# Of versions that are deleted, too, until they are purged.
version_signatures = Table(
    "version_signatures",
    metadata,
    Column("model_uid", String(32), ForeignKey(f"{MODELS}.models.uid"), primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("key_id", String(64), primary_key=True),
    Column("bundle", Text, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    schema=MODELS,
)

models_garbage = Table("garbage", metadata, Column("object_key", String(512), primary_key=True), schema=MODELS)
