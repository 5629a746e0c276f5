"""Gives jobs the trace that they belong to."""

import sqlalchemy as sa
from alembic import op

revision = "data_0003"
down_revision = "data_0002"

_SCHEMA = "rowmint_data"


def upgrade() -> None:
    """Add the column; code that knows nothing of it leaves it empty."""
    op.add_column("jobs", sa.Column("trace_parent", sa.String(55)), schema=_SCHEMA)


def downgrade() -> None:
    """Drop it: what works on jobs that are there begins traces of its own."""
    op.drop_column("jobs", "trace_parent", schema=_SCHEMA)
