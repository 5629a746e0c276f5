"""Creates the tables of `rowmint_data`."""

import sqlalchemy as sa
from alembic import op

revision = "data_0001"
down_revision = None

_SCHEMA = "rowmint_data"


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "datasets",
        sa.Column("uid", sa.String(32), primary_key=True),
        sa.Column("project", sa.String(63), nullable=False),
        sa.Column("dataset_id", sa.String(63), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("format", sa.JSON(), quote=True, nullable=False),
        sa.Column("overrides", sa.JSON(), nullable=False),
        sa.Column("primary_key", sa.String(256), nullable=False),
        sa.Column("request_id", sa.String(128)),
        sa.Column("request_digest", sa.LargeBinary(32)),
        sa.Column("writer_epoch", sa.BigInteger(), nullable=False),
        sa.Column("segment_count", sa.BigInteger(), nullable=False),
        sa.Column("committed_size", sa.BigInteger(), nullable=False),
        sa.Column("total_size", sa.BigInteger()),
        sa.Column("sha256", sa.LargeBinary(32)),
        sa.Column("row_count", sa.BigInteger()),
        sa.Column("schema", sa.JSON()),
        sa.Column("sdv_metadata", sa.JSON()),
        sa.Column("canonical_key", sa.String(512)),
        sa.Column("canonical_size", sa.BigInteger()),
        sa.Column("canonical_sha256", sa.LargeBinary(32)),
        sa.Column("profile", sa.JSON()),
        sa.Column("errors", sa.JSON(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.UniqueConstraint("project", "dataset_id", name="uq_datasets_name"),
        sa.UniqueConstraint("project", "request_id", name="uq_datasets_request"),
        schema=_SCHEMA,
    )
    op.create_index("ix_datasets_newest", "datasets", ["project", "create_time", "uid"], schema=_SCHEMA)
    op.create_table(
        "garbage",
        sa.Column("object_key", sa.String(512), primary_key=True),
        schema=_SCHEMA,
    )
    op.create_table(
        "jobs",
        sa.Column("uid", sa.String(32), primary_key=True),
        sa.Column("project", sa.String(63), nullable=False),
        sa.Column("job_id", sa.String(63), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("dataset_uid", sa.String(32), nullable=False),
        sa.Column("dataset_name", sa.String(256), nullable=False),
        sa.Column("model_name", sa.String(256), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("holder", sa.String(256), nullable=False),
        sa.Column("lease", sa.BigInteger(), nullable=False),
        sa.Column("lease_until", sa.BigInteger()),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("error", sa.JSON()),
        sa.Column("event_count", sa.BigInteger(), nullable=False),
        sa.Column("request_id", sa.String(128)),
        sa.Column("request_digest", sa.LargeBinary(32)),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("start_time", sa.BigInteger()),
        sa.Column("end_time", sa.BigInteger()),
        sa.Column("model_version", sa.BigInteger()),
        sa.UniqueConstraint("project", "kind", "job_id", name="uq_jobs_name"),
        sa.UniqueConstraint("project", "kind", "request_id", name="uq_jobs_request"),
        schema=_SCHEMA,
    )
    op.create_index("ix_jobs_dataset", "jobs", ["dataset_uid"], schema=_SCHEMA)
    op.create_index("ix_jobs_newest", "jobs", ["project", "kind", "create_time", "uid"], schema=_SCHEMA)
    op.create_index("ix_jobs_work", "jobs", ["state", "create_time"], schema=_SCHEMA)
    op.create_table(
        "job_events",
        sa.Column("job_uid", sa.String(32), sa.ForeignKey(f"{_SCHEMA}.jobs.uid", ondelete="CASCADE"), primary_key=True),
        sa.Column("sequence", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        schema=_SCHEMA,
    )
    op.create_table(
        "segments",
        sa.Column(
            "dataset_uid", sa.String(32), sa.ForeignKey(f"{_SCHEMA}.datasets.uid", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("segment_index", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("segment_offset", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("object_key", sa.String(512), nullable=False),
        schema=_SCHEMA,
    )


def downgrade() -> None:
    """Drop every table."""
    for table in ("job_events", "segments", "jobs", "garbage", "datasets"):
        op.drop_table(table, schema=_SCHEMA)
