"""Gives jobs inputs, outputs, a parent and phases of any name, and each project its turn in claiming."""

import sqlalchemy as sa
from alembic import op

revision = "data_0004"
down_revision = "data_0003"

_SCHEMA = "rowmint_data"


def upgrade() -> None:
    """Add the columns and the table; code that knows nothing of them leaves them empty."""
    op.add_column("jobs", sa.Column("inputs", sa.JSON()), schema=_SCHEMA)
    op.add_column("jobs", sa.Column("outputs", sa.JSON()), schema=_SCHEMA)
    op.add_column("jobs", sa.Column("parent_uid", sa.String(32)), schema=_SCHEMA)
    op.add_column("jobs", sa.Column("phase_name", sa.String(32)), schema=_SCHEMA)
    op.add_column("job_events", sa.Column("phase_name", sa.String(32)), schema=_SCHEMA)
    op.create_index("ix_jobs_parent", "jobs", ["parent_uid", "create_time", "uid"], schema=_SCHEMA)
    op.create_table(
        "job_turns",
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("project", sa.String(63), primary_key=True),
        sa.Column("turn", sa.BigInteger(), nullable=False),
        schema=_SCHEMA,
    )


def downgrade() -> None:
    """Drop them: what old code reads is in the columns it knows."""
    op.drop_table("job_turns", schema=_SCHEMA)
    op.drop_index("ix_jobs_parent", "jobs", schema=_SCHEMA)
    op.drop_column("job_events", "phase_name", schema=_SCHEMA)
    for column in ("phase_name", "parent_uid", "outputs", "inputs"):
        op.drop_column("jobs", column, schema=_SCHEMA)
