"""Creates the tables of `rowmint_models`."""

import sqlalchemy as sa
from alembic import op

revision = "models_0001"
down_revision = None

_SCHEMA = "rowmint_models"


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "garbage",
        sa.Column("object_key", sa.String(512), primary_key=True),
        schema=_SCHEMA,
    )
    op.create_table(
        "models",
        sa.Column("uid", sa.String(32), primary_key=True),
        sa.Column("project", sa.String(63), nullable=False),
        sa.Column("model_id", sa.String(63), nullable=False),
        sa.Column("last_version", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.UniqueConstraint("project", "model_id", name="uq_models_name"),
        schema=_SCHEMA,
    )
    op.create_table(
        "model_aliases",
        sa.Column("model_uid", sa.String(32), sa.ForeignKey(f"{_SCHEMA}.models.uid"), primary_key=True),
        sa.Column("alias", sa.String(63), primary_key=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        schema=_SCHEMA,
    )
    op.create_table(
        "model_versions",
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
        sa.UniqueConstraint("job_uid", name="uq_model_versions_job"),
        schema=_SCHEMA,
    )
    op.create_index("ix_model_versions_digest", "model_versions", ["model_uid", "model_digest"], schema=_SCHEMA)


def downgrade() -> None:
    """Drop every table."""
    for table in ("model_versions", "model_aliases", "models", "garbage"):
        op.drop_table(table, schema=_SCHEMA)
