"""The registry's history: one folder of Alembic revisions a schema, run by `rowmint.registry.migrate`."""
