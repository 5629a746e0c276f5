"""Gives the registry an identity, and remembers whose objects may go and whose are to stay though no row names them."""

import sqlalchemy as sa
from alembic import op

revision = "data_0005"
down_revision = "data_0004"

_SCHEMA = "rowmint_data"


def upgrade() -> None:
    """Make the tables; the identity's is empty until a trainer has seen whose stores it is going to serve."""
    op.create_table(
        "registry_identity",
        sa.Column("registry_uid", sa.String(32), primary_key=True),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        schema=_SCHEMA,
    )
    op.create_table(
        "deleted_datasets",
        sa.Column("uid", sa.String(32), primary_key=True),
        sa.Column("delete_time", sa.BigInteger(), nullable=False),
        schema=_SCHEMA,
    )
    op.create_table(
        "lost_attempts",
        sa.Column("maker", sa.String(16), primary_key=True),
        sa.Column("uid", sa.String(32), primary_key=True),
        sa.Column("first_epoch", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("last_epoch", sa.BigInteger(), nullable=False),
        schema=_SCHEMA,
    )


def downgrade() -> None:
    """Drop them: stores stay marked, and a trainer that upgrades the registry again is to adopt them."""
    for table in ("lost_attempts", "deleted_datasets", "registry_identity"):
        op.drop_table(table, schema=_SCHEMA)
