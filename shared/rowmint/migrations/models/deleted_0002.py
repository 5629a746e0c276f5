"""Adds deleted versions that are not yet purged."""

import sqlalchemy as sa
from alembic import op

revision = "models_0002"
down_revision = "models_0001"

_SCHEMA = "rowmint_models"


def upgrade() -> None:
    """Create the table; to older releases, deleted versions do not exist."""
    op.create_table(
        "deleted_versions",
        sa.Column("model_uid", sa.String(32), sa.ForeignKey(f"{_SCHEMA}.models.uid"), primary_key=True),
        sa.Column("version", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("job_uid", sa.String(32), nullable=False),
        sa.Column("training_job", sa.String(256), nullable=False),
        sa.Column("manifest_key", sa.String(512), nullable=False),
        sa.Column("manifest_size", sa.BigInteger(), nullable=False),
        sa.Column("manifest_sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("weights_key", sa.String(512), nullable=False),
        sa.Column("weights_size", sa.BigInteger(), nullable=False),
        sa.Column("weights_sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("model_digest", sa.LargeBinary(32), nullable=False),
        sa.Column("manifest_digest", sa.LargeBinary(32), nullable=False),
        sa.Column("family", sa.String(63), nullable=False),
        sa.Column("dataset_digest", sa.LargeBinary(32), nullable=False),
        sa.Column("training_rows", sa.BigInteger(), nullable=False),
        sa.Column("schema", sa.JSON(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("delete_time", sa.BigInteger(), nullable=False),
        sa.Column("purge_time", sa.BigInteger(), nullable=False),
        sa.UniqueConstraint("job_uid", name="uq_deleted_versions_job"),
        schema=_SCHEMA,
    )
    op.create_index("ix_deleted_versions_purge", "deleted_versions", ["purge_time"], schema=_SCHEMA)


def downgrade() -> None:
    """Drop the table: deleted versions cannot be restored, and their objects are collected as garbage."""
    op.drop_table("deleted_versions", schema=_SCHEMA)
