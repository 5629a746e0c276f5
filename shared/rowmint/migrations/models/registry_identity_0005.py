"""Gives the registry an identity."""

import sqlalchemy as sa
from alembic import op

revision = "models_0005"
down_revision = "models_0004"

_SCHEMA = "rowmint_models"


def upgrade() -> None:
    """Make the table; it is empty until a trainer has seen whose stores it is going to serve."""
    op.create_table(
        "registry_identity",
        sa.Column("registry_uid", sa.String(32), primary_key=True),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        schema=_SCHEMA,
    )


def downgrade() -> None:
    """Drop it: stores stay marked, and a trainer that upgrades the registry again is to adopt them."""
    op.drop_table("registry_identity", schema=_SCHEMA)
