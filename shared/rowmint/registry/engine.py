"""Engines and transactions; handles the differences between SQLite and PostgreSQL.

On SQLite each schema is a file of its own, attached under the schema's name. A transaction over both files commits file
by file, models first: a crash in between can leave a published version whose job is still unfinished, never a finished
job without its version. `JobLedger.claim` repairs the former.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import BigInteger, Connection, Engine, Table, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import QueuePool
from sqlalchemy.sql.functions import FunctionElement

from rowmint.errors import DataLossError, InvalidFieldError, RowmintError, UnavailableError
from rowmint.registry.sqlite_files import READ_SECONDS, FileConnection, file_connections
from rowmint.registry.tables import DATA, MODELS

_log = structlog.get_logger(__name__)

_RETRY_SECONDS = 1.0
_WRITE = "rowmint_write"
# Made by later revisions than the first: where only they are missing, the registry is there but older.
_LATER_TABLES = (
    "deleted_versions",
    "staged_versions",
    "version_signatures",
    "job_turns",
    "registry_identity",
    "deleted_datasets",
    "lost_attempts",
)


class DatabaseNow(FunctionElement[int]):
    """The database's clock: microseconds since 1970-01-01T00:00:00Z, UTC.

    On PostgreSQL it is the time of the statement, not of the transaction, which may have waited for a lock.
    """

    type = BigInteger()
    inherit_cache = True
    name = "rowmint_now"


@compiles(DatabaseNow, "sqlite")
def _now_sqlite(*_: Any, **__: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000000.0 AS INTEGER)"


@compiles(DatabaseNow, "postgresql")
def _now_postgresql(*_: Any, **__: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)"


def connect(url: str, field: str, *, schemas: tuple[str, ...], models_url: str = "", read_only: bool = False) -> Engine:
    """Create an engine; nothing is opened before the first transaction.

    Args:
        url: ``sqlite:///directory`` (with the files ``data.db`` and ``models.db``), ``sqlite:///file.db`` (for a single
            schema), or a ``postgresql+psycopg://`` URL.
        field: Name of the setting, for errors.
        schemas: The schemas to use.
        models_url: URL of `rowmint_models`, if different; on PostgreSQL it must be the same database.
        read_only: Whether writes are refused.

    Raises:
        InvalidFieldError: A URL is invalid.
    """
    parsed = _parse(url, field)
    if parsed.get_backend_name() == "postgresql":
        if models_url and _address(_parse(models_url, "models_registry_url")) != _address(parsed):
            raise InvalidFieldError(
                "models_registry_url", "must name the same PostgreSQL database as the data registry"
            )
        limit = f"-c statement_timeout={round(READ_SECONDS * 1000)}"
        options = f"-c default_transaction_read_only=on {limit}" if read_only else ""
        engine = create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,
            connect_args={
                "options": options,
                "connect_timeout": 10,
                # A connection to an unreachable server is closed within half a minute.
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "keepalives_count": 3,
                "tcp_user_timeout": 20_000,
            },
        )
        return _with_events(engine, read_only=read_only)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        raise InvalidFieldError(field, f"{parsed.drivername!r} must be sqlite (with a path) or postgresql+psycopg")
    files = {schema: _sqlite_file(parsed, schema) for schema in schemas}
    if models_url and MODELS in files:
        other = _parse(models_url, "models_registry_url")
        if other.get_backend_name() != "sqlite" or not other.database:
            raise InvalidFieldError("models_registry_url", "must be a SQLite URL, as the data registry is SQLite")
        files[MODELS] = _sqlite_file(other, MODELS)
    if len(set(files.values())) != len(files):
        raise InvalidFieldError(field, "names one file for two schemas; give a directory instead")
    connections = file_connections(files, read_only=read_only)
    engine = create_engine("sqlite+pysqlite://", creator=connections, poolclass=QueuePool, pool_size=8)
    return _with_events(engine, read_only=read_only)


def _parse(url: str, field: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError) as error:
        # The URL is not quoted, as it may contain a password.
        raise InvalidFieldError(field, "is not a database URL") from error


def _address(url: URL) -> tuple[str | None, int, str | None]:
    return url.host, url.port or 5432, url.database


def _sqlite_file(url: URL, schema: str) -> Path:
    path = Path(url.database or "").absolute()
    return path if path.suffix == ".db" else path / f"{schema.removeprefix('rowmint_')}.db"


def _with_events(engine: Engine, *, read_only: bool) -> Engine:
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            # With a plain BEGIN, an update after a read fails if another writer has committed in between.
            write = connection.get_execution_options().get(_WRITE, False) and not read_only
            connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Open a read transaction, which sees one consistent state of each schema of the registry.

    Raises:
        UnavailableError: The registry cannot be reached, or does not exist yet.
        DataLossError: Its file is corrupt.
    """
    with _domain_errors(), engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            # By default each statement has a snapshot of its own: an alias read by one could point at a version that
            # is gone for the next.
            connection.execution_options(isolation_level="REPEATABLE READ")
        opened: object = connection.connection.dbapi_connection
        try:
            with connection.begin():
                yield connection
        finally:
            if isinstance(opened, FileConnection) and opened.at_rest:
                _end_rest(connection, opened)


def _end_rest(connection: Connection, opened: FileConnection) -> None:
    """Close a connection to files that were read at rest, which may be written from now on.

    Raises:
        UnavailableError: They were written while they were read.
    """
    current = opened.is_current
    connection.invalidate()
    if not current:
        raise UnavailableError("a trainer opened the registry while it was read; retry", retry_after=_RETRY_SECONDS)


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Open a write transaction, with the write lock from the start on SQLite. An exception rolls it back.

    Raises:
        UnavailableError: The registry cannot be reached or written, or does not exist yet.
        DataLossError: Its file is corrupt.
    """
    with _domain_errors(), engine.connect().execution_options(**{_WRITE: True}) as connection, connection.begin():
        yield connection


@contextmanager
def _domain_errors() -> Iterator[None]:
    try:
        yield
    except RowmintError:
        raise
    except DBAPIError as error:
        text_of = str(error.orig)
        if "malformed" in text_of or "not a database" in text_of:
            raise DataLossError(
                "the registry's file is corrupt; restore it from a backup", metadata={"part": "registry"}
            ) from error
        state = getattr(error.orig, "sqlstate", None)
        # 42P01 and 3F000: no such table or schema; class 40: serialisation; 08, 53, 57: connection and server.
        absent = "no such table" in text_of or state in ("42P01", "3F000")
        older = absent and any(name in text_of for name in _LATER_TABLES)
        unknown = any(words in text_of for words in ("no such column", "has no column named"))
        if older or unknown or state == "42703":
            raise UnavailableError(
                "the registry's schema is older than this release; start the trainer, which migrates it",
                retry_after=_RETRY_SECONDS,
            ) from error
        if absent or "unable to open" in text_of:
            raise UnavailableError(
                "the registry does not exist yet; start the trainer, which creates it", retry_after=_RETRY_SECONDS
            ) from error
        busy = any(words in text_of for words in ("locked", "disk I/O error", "disk is full", "readonly"))
        if busy or error.connection_invalidated or (state or "")[:2] in ("08", "25", "40", "53", "55", "57"):
            raise UnavailableError("the registry cannot be used now; retry", retry_after=_RETRY_SECONDS) from error
        if state is None and type(error.orig).__name__ == "OperationalError":
            raise UnavailableError("the registry cannot be reached now; retry", retry_after=_RETRY_SECONDS) from error
        raise
    except (SQLAlchemyError, OSError) as error:
        if isinstance(error, OSError) or "QueuePool limit" in str(error):
            raise UnavailableError("the registry cannot be reached now; retry", retry_after=_RETRY_SECONDS) from error
        raise


def insert_if_absent(connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:
    """Insert a row unless one of its unique keys exists; return whether it was inserted."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(table).values(**values).on_conflict_do_nothing()
    return connection.execute(statement.returning(*table.primary_key.columns)).first() is not None


def note_garbage(connection: Connection, table: Table, keys: Sequence[str]) -> None:
    """Add object keys to a table of garbage, except those that it already contains."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    if keys:
        statement = dialect.insert(table).on_conflict_do_nothing()
        connection.execute(statement, [{"object_key": key} for key in keys])


def migrate(engine: Engine, revisions: Mapping[str, str] | None = None) -> None:
    """Migrate both schemas to a revision, creating them if needed. Idempotent.

    Any number of processes may do so concurrently. Each schema has its own history and its own transaction, so that a
    crash in between leaves no schema incomplete. A schema that is newer than this code is not changed, as revisions
    only add to it.

    Args:
        engine: An engine of both schemas.
        revisions: Target revision by schema, such as ``{"rowmint_data": "data_0001"}``, or ``base`` for none; a newer
            schema is downgraded to it. Default: the newest revision of each.

    Raises:
        InvalidFieldError: There is no such revision.
        UnavailableError: The database cannot be reached or written.
    """
    targets = dict.fromkeys((MODELS, DATA), "head") if revisions is None else revisions
    for schema, revision in targets.items():
        with writing(engine) as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(7265773109)"))
                connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {schema}"))
            _migrate(connection, schema, revision)


def newer_schemas(engine: Engine) -> tuple[str, ...]:
    """Return the schemas at a revision that this release does not know: they may have tables that it does not know.

    Raises:
        UnavailableError: The database cannot be reached.
    """
    found = []
    for schema in (MODELS, DATA):
        with reading(engine) as connection:
            _, current, known = _history(connection, schema)
            if current is not None and current not in known:
                found.append(schema)
    return tuple(found)


def _history(connection: Connection, schema: str) -> tuple[Any, str | None, list[str]]:
    """Return Alembic's configuration for a schema, its current revision, and those known here, newest first."""
    # Imported here, as it takes a quarter of a second and samplers and workers never migrate.
    from alembic.config import Config  # noqa: PLC0415
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", "rowmint:migrations")
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", f"rowmint:migrations/{schema.removeprefix('rowmint_')}")
    config.attributes["connection"] = connection
    config.attributes["schema"] = schema
    known = [found.revision for found in ScriptDirectory.from_config(config).walk_revisions()]
    context = MigrationContext.configure(connection, opts={"version_table_schema": schema})
    return config, context.get_current_revision(), known


def _migrate(connection: Connection, schema: str, revision: str) -> None:
    from alembic import command  # noqa: PLC0415 - as in `_history`

    config, current, known = _history(connection, schema)
    if revision not in (*known, "head", "base"):
        raise InvalidFieldError("revision", f"{schema} has no revision {revision!r}; known: base, {', '.join(known)}")
    if current is not None and current not in known:
        _log.warning("the registry is newer than this release; it is not migrated", schema=schema, revision=current)
        return
    target = known[0] if revision == "head" else revision
    backwards = current is not None and (target == "base" or known.index(target) > known.index(current))
    (command.downgrade if backwards else command.upgrade)(config, target)
