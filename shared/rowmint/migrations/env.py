"""Alembic's environment: runs the revisions of one schema on the given connection, in its transaction."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table_schema=context.config.attributes["schema"],
    # SQLite's DDL is transactional as long as the driver starts no transactions of its own, which it does not here.
    transactional_ddl=True,
)
context.run_migrations()
