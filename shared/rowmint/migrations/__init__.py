"""Migrations of the registry: one folder of Alembic revisions per schema, run by `rowmint.registry.migrate`."""
