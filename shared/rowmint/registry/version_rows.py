"""Rows of the tables of versions, within a transaction of the caller's.

A version is a row of one of three tables: of `model_versions` while it is published, of `deleted_versions` if it is
deleted then, of `staged_versions` while it is staged or rejected. Where such a one is deleted it stays there, with a
`delete_time`.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    cast,
    delete,
    insert,
    literal,
    null,
    select,
    union_all,
    update,
)

from rowmint.errors import ResourceNotFoundError, WrongStateError
from rowmint.names import ModelVersionName
from rowmint.registry.engine import DatabaseNow, note_garbage
from rowmint.registry.model_records import ModelVersionRecord, NewVersion, VersionState
from rowmint.registry.paging import instant, optional_instant
from rowmint.registry.tables import (
    deleted_versions,
    model_versions,
    models,
    models_garbage,
    staged_versions,
    version_signatures,
)
from rowmint.schema import TableSchema

_FACTS = tuple(field for field in NewVersion.__dataclass_fields__ if field != "schema")
_STORED = tuple(column.name for column in model_versions.c)


def at(table: Table, model_uid: str, version: int) -> ColumnElement[bool]:
    """Return the condition that a row of a table is about a version."""
    return (table.c.model_uid == model_uid) & (table.c.version == version)


def select_versions(
    where: Callable[[Table], ColumnElement[bool]],
    *,
    unpublished: bool = False,
    deleted: bool = False,
    capabilities: bool = True,
) -> Select[Any]:
    """Return a query for versions, newest first, as rows for `version_record`.

    It is one statement, and so sees one state of the tables: a version that is promoted meanwhile is found once.

    Args:
        where: Gives the condition on a table of versions.
        unpublished: Whether to look among staged and rejected versions too.
        deleted: Whether to look among versions that are deleted but not purged.
        capabilities: Whether the registry has that column: a reader may be newer than the registry.
    """
    tables = [model_versions, *([staged_versions] if unpublished else []), *([deleted_versions] if deleted else [])]
    parts = []
    for table in tables:
        own = [table.c[name] for name in _STORED if capabilities or name != "capabilities"]
        absent = [] if capabilities else [null().label("capabilities")]
        condition = where(table)
        if table is staged_versions:
            decided: list[ColumnElement[Any]] = [table.c.state, table.c.rejection_reason, table.c.decide_time]
            condition = condition if deleted else condition & table.c.delete_time.is_(None)
        else:
            published = literal(str(VersionState.PUBLISHED)).label("state")
            decided = [published, literal("").label("rejection_reason"), cast(null(), BigInteger).label("decide_time")]
        named = select(*own, *absent, *decided, models.c.project, models.c.model_id)
        parts.append(named.join(models, models.c.uid == table.c.model_uid).where(condition))
    found = union_all(*parts).subquery()
    return select(found).order_by(found.c.version.desc())


def version_record(row: Row[Any]) -> ModelVersionRecord:
    """Return the record of a row that `select_versions` finds."""
    return ModelVersionRecord(
        **{field: getattr(row, field) for field in _FACTS},
        schema=TableSchema.from_json(row.schema),
        name=ModelVersionName(row.project, row.model_id, row.version),
        job_uid=row.job_uid,
        create_time=instant(row.create_time),
        state=VersionState(row.state),
        rejection_reason=row.rejection_reason,
        decide_time=optional_instant(row.decide_time),
    )


def read_version(connection: Connection, model_uid: str, name: ModelVersionName) -> ModelVersionRecord:
    """Return a version in whatever state, unless it is deleted.

    Raises:
        ResourceNotFoundError: There is no such version.
    """
    query = select_versions(lambda table: at(table, model_uid, name.version), unpublished=True)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise ResourceNotFoundError(f"there is no {name}", metadata={"name": str(name)})
    return version_record(row)


def require_published(connection: Connection, model_uid: str, name: ModelVersionName) -> None:
    """Return if a version is published.

    Raises:
        ResourceNotFoundError: There is no such version.
        WrongStateError: It is staged or rejected.
    """
    found = read_version(connection, model_uid, name)
    if found.state is VersionState.STAGED:
        raise WrongStateError(f"{name} is staged; promote it first", metadata={"state": found.state})
    if found.state is VersionState.REJECTED:
        raise WrongStateError(
            f"{name} was rejected and is never served; take a published version", metadata={"state": found.state}
        )


def insert_version(
    connection: Connection, model_uid: str, number: int, job_uid: str, version: NewVersion, *, staged: bool
) -> None:
    """Insert a version under a number that no other of its model has had."""
    row = {
        "model_uid": model_uid,
        "version": number,
        "job_uid": job_uid,
        "create_time": DatabaseNow(),
        **{field: getattr(version, field) for field in _FACTS},
        "schema": version.schema.to_json(),
    }
    if staged:
        row |= {"state": VersionState.STAGED, "rejection_reason": ""}
    connection.execute(insert(staged_versions if staged else model_versions).values(row))


def publish_staged(connection: Connection, model_uid: str, version: int) -> None:
    """Move a staged version to the published ones."""
    _move(connection, staged_versions, model_versions, model_uid, version)


def mark_rejected(connection: Connection, model_uid: str, version: int, reason: str) -> None:
    """Reject a staged version."""
    decided = {"state": VersionState.REJECTED, "rejection_reason": reason, "decide_time": DatabaseNow()}
    connection.execute(update(staged_versions).where(at(staged_versions, model_uid, version)).values(decided))


def mark_deleted(connection: Connection, model_uid: str, found: ModelVersionRecord, keep_seconds: float) -> None:
    """Delete a version that is not deleted, to be purged after `keep_seconds`."""
    version = found.name.version
    times = {"delete_time": DatabaseNow(), "purge_time": DatabaseNow() + round(keep_seconds * 1_000_000)}
    if found.state is VersionState.PUBLISHED:
        _move(connection, model_versions, deleted_versions, model_uid, version, **times)
    else:
        connection.execute(update(staged_versions).where(at(staged_versions, model_uid, version)).values(times))


def unmark_deleted(connection: Connection, model_uid: str, version: int) -> None:
    """Restore a deleted version in its former state; a version that is not deleted stays as it is."""
    _move(connection, deleted_versions, model_versions, model_uid, version)
    back = update(staged_versions).where(at(staged_versions, model_uid, version))
    connection.execute(back.values(delete_time=None, purge_time=None))


def any_due(connection: Connection) -> bool:
    """Return whether there is a deleted version whose time is up."""
    due = (select(table.c.version).where(_due(table)).limit(1) for table in (deleted_versions, staged_versions))
    return any(connection.execute(query).first() is not None for query in due)


def purge_due(connection: Connection, limit: int) -> int:
    """Forget at most `limit` deleted versions whose time is up and return how many; their files are garbage."""
    count = 0
    for table in (deleted_versions, staged_versions):
        query = select(table).where(_due(table)).limit(limit - count).with_for_update(skip_locked=True)
        for row in connection.execute(query).all():
            note_garbage(connection, models_garbage, (row.manifest_key, row.weights_key))
            for gone in (version_signatures, table):
                connection.execute(delete(gone).where(at(gone, row.model_uid, row.version)))
            count += 1
    return count


def _due(table: Table) -> ColumnElement[bool]:
    return table.c.purge_time <= DatabaseNow()


def _move(connection: Connection, source: Table, target: Table, model_uid: str, version: int, **more: Any) -> None:
    """Move a version, if it is in `source`, to `target`, with the values `more` of columns that only `target` has."""
    taken = delete(source).where(at(source, model_uid, version)).returning(source)
    found = connection.execute(taken).one_or_none()
    if found is not None:
        kept = {name: getattr(found, name) for name in _STORED}
        connection.execute(insert(target).values({**kept, **more}))
