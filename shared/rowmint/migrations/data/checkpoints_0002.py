"""Gives jobs a checkpoint."""

import sqlalchemy as sa
from alembic import op

revision = "data_0002"
down_revision = "data_0001"

_SCHEMA = "rowmint_data"


def upgrade() -> None:
    """Add the column; code that knows nothing of it leaves it empty."""
    op.add_column("jobs", sa.Column("checkpoint", sa.JSON()), schema=_SCHEMA)


def downgrade() -> None:
    """Drop it: jobs that are claimed again start from the beginning."""
    op.drop_column("jobs", "checkpoint", schema=_SCHEMA)
