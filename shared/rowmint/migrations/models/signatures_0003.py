"""Adds the signatures of versions."""

import sqlalchemy as sa
from alembic import op

revision = "models_0003"
down_revision = "models_0002"

_SCHEMA = "rowmint_models"


def upgrade() -> None:
    """Create the table; to older releases, no version is signed."""
    op.create_table(
        "version_signatures",
        sa.Column("model_uid", sa.String(32), sa.ForeignKey(f"{_SCHEMA}.models.uid"), primary_key=True),
        sa.Column("version", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("key_id", sa.String(64), primary_key=True),
        sa.Column("bundle", sa.Text(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        schema=_SCHEMA,
    )


def downgrade() -> None:
    """Drop the table: samplers that require signatures serve no version until it is signed again."""
    op.drop_table("version_signatures", schema=_SCHEMA)
