"""Adds the trace context of jobs."""

import sqlalchemy as sa
from alembic import op

revision = "data_0003"
down_revision = "data_0002"

_SCHEMA = "rowmint_data"


def upgrade() -> None:
    """Add the column, which is nullable, as older releases do not set it."""
    op.add_column("jobs", sa.Column("trace_parent", sa.String(55)), schema=_SCHEMA)


def downgrade() -> None:
    """Drop the column: workers start new traces for existing jobs."""
    op.drop_column("jobs", "trace_parent", schema=_SCHEMA)
