"""Adds versions that are staged or rejected, and what the family of each version offers."""

import sqlalchemy as sa
from alembic import op

revision = "models_0004"
down_revision = "models_0003"

_SCHEMA = "rowmint_models"


def upgrade() -> None:
    """Make the table and the columns; to code that knows nothing of them, what is in them does not exist."""
    # First, and in the order in which a publication locks tables: a foreign key to `models` locks that one.
    for table in ("model_versions", "deleted_versions"):
        op.add_column(table, sa.Column("capabilities", sa.JSON()), schema=_SCHEMA)
    op.create_table(
        "staged_versions",
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
        sa.Column("capabilities", sa.JSON()),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("rejection_reason", sa.Text(), nullable=False),
        sa.Column("decide_time", sa.BigInteger()),
        sa.Column("delete_time", sa.BigInteger()),
        sa.Column("purge_time", sa.BigInteger()),
        sa.UniqueConstraint("job_uid", name="uq_staged_versions_job"),
        schema=_SCHEMA,
    )
    op.create_index("ix_staged_versions_purge", "staged_versions", ["purge_time"], schema=_SCHEMA)


def downgrade() -> None:
    """Drop them: versions that are not published are lost, and their objects are left, as of makers not known."""
    for table in ("deleted_versions", "model_versions"):
        op.drop_column(table, "capabilities", schema=_SCHEMA)
    op.drop_table("staged_versions", schema=_SCHEMA)
