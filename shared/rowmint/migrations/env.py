"""Alembic's environment: runs the revisions of one schema on the connection and transaction it is given."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table_schema=context.config.attributes["schema"],
    # SQLite's DDL is transactional as long as the driver starts no transactions of its own, and ours does not.
    transactional_ddl=True,
)
context.run_migrations()
