"""Adds checkpoints of jobs."""

import sqlalchemy as sa
from alembic import op

revision = "data_0002"
down_revision = "data_0001"

_SCHEMA = "rowmint_data"


def upgrade() -> None:
    """Add the column, which is nullable, as older releases do not set it."""
    op.add_column("jobs", sa.Column("checkpoint", sa.JSON()), schema=_SCHEMA)


def downgrade() -> None:
    """Drop the column: further attempts of jobs start from the beginning."""
    op.drop_column("jobs", "checkpoint", schema=_SCHEMA)
