"""The ledger of models: immutable versions and the aliases that point at them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, Table, delete, insert, inspect, select, update

from rowmint.errors import (
    CancelledError,
    FencedError,
    InvalidFieldError,
    ResourceNotFoundError,
    WrongStateError,
)
from rowmint.names import LATEST, ModelName, ModelVersionName, ModelVersionRef, validate_id
from rowmint.registry.engine import (
    DatabaseNow,
    garbage_keys,
    insert_if_absent,
    note_garbage,
    reading,
    remove_garbage,
    writing,
)
from rowmint.registry.job_rows import JobState, end_job, lock_job
from rowmint.registry.paging import Page, PageRequest, instant
from rowmint.registry.signatures import read_signatures, write_signature
from rowmint.registry.tables import (
    deleted_versions,
    jobs,
    model_aliases,
    model_versions,
    models,
    models_garbage,
    version_signatures,
)
from rowmint.schema import TableSchema
from rowmint.security.signing import Signature


@dataclass(frozen=True)
class NewVersion:
    """What a version is published with. Both objects are stored already, under keys of the publishing attempt's own.

    Attributes:
        training_job: Name of the job, "projects/{project}/trainingJobs/{job}".
        manifest_key: Object of manifest.json; with its size in bytes and SHA-256.
        manifest_size: Bytes.
        manifest_sha256: 32 bytes.
        weights_key: Object of weights.safetensors; with its size in bytes and SHA-256.
        weights_size: Bytes.
        weights_sha256: 32 bytes.
        model_digest: Digest of all that rows depend on, 32 bytes.
        manifest_digest: Digest of the whole manifest, 32 bytes.
        family: Family of synthesizer.
        dataset_digest: SHA-256 of the dataset, 32 bytes.
        training_rows: Rows it was fitted to.
        schema: Shape of the rows it makes.
    """

    training_job: str
    manifest_key: str
    manifest_size: int
    manifest_sha256: bytes
    weights_key: str
    weights_size: int
    weights_sha256: bytes
    model_digest: bytes
    manifest_digest: bytes
    family: str
    dataset_digest: bytes
    training_rows: int
    schema: TableSchema


@dataclass(frozen=True)
class ModelVersionRecord(NewVersion):
    """A published version; nothing of it ever changes.

    Attributes:
        name: Its name.
        job_uid: The job that made it.
        create_time: When it was published.
    """

    name: ModelVersionName
    job_uid: str
    create_time: datetime


@dataclass(frozen=True)
class ModelRecord:
    """A model as it was when read.

    Attributes:
        name: Its name.
        aliases: Aliases and the version number each points at; ``latest`` is among them while there is a version.
        create_time: When it was created.
    """

    name: ModelName
    aliases: Mapping[str, int]
    create_time: datetime

    @property
    def latest(self) -> int | None:
        """Number of the newest version, or None where all are deleted."""
        return self.aliases.get(LATEST)


class ModelLedger:
    """Models, one transaction a call. Safe for any number of threads and processes.

    Reading needs the schema `rowmint_models` only. Every method raises `UnavailableError`, with the seconds after which
    to try again, where the database cannot be used or is not there yet.

    Args:
        engine: An engine of both schemas, or of `rowmint_models` alone for a reader.
        new_uid: Gives 32 hex digits, never the same twice.
    """

    def __init__(self, engine: Engine, new_uid: Callable[[], str]) -> None:
        self._engine = engine
        self._new_uid = new_uid

    def publish(
        self,
        job_uid: str,
        epoch: int,
        model: ModelName,
        version: NewVersion,
        *,
        signatures: Sequence[Signature] = (),
    ) -> ModelVersionRecord:
        """Publish a job's version under the next number, move ``latest`` to it and end the job, as one step.

        ***At most one attempt publishes a job.*** Repeating a call whose answer was lost returns the version it
        published.

        Args:
            job_uid: The job; the caller is at work on it.
            epoch: The caller's epoch.
            model: The model; made if it does not exist.
            version: What is published.
            signatures: Who vouches for it; there as soon as the version is.

        Raises:
            CancelledError: A cancel was committed before.
            FencedError: A newer attempt has taken over, or the job has ended.
        """
        with writing(self._engine) as connection:
            repeated = _published(connection, job_uid)
            if repeated is not None:
                if repeated.manifest_key != version.manifest_key:
                    raise FencedError(f"job {job_uid} has been published by another attempt; stop and write nothing")
                self._mend(connection, job_uid, repeated.name.version)
                return repeated
            job = lock_job(connection, job_uid, epoch)
            if job.state != JobState.RUNNING or job.cancel_requested:
                raise CancelledError(f"{version.training_job} was cancelled before it published")
            row = self._model_for_update(connection, model)
            number = row.last_version + 1
            connection.execute(
                insert(model_versions).values(
                    model_uid=row.uid,
                    version=number,
                    job_uid=job_uid,
                    create_time=DatabaseNow(),
                    **{
                        field: getattr(version, field) for field in NewVersion.__dataclass_fields__ if field != "schema"
                    },
                    schema=version.schema.to_json(),
                )
            )
            for signature in signatures:
                write_signature(connection, row.uid, number, signature)
            connection.execute(update(models).where(models.c.uid == row.uid).values(last_version=number))
            _point(connection, row.uid, LATEST, number)
            end_job(connection, job_uid, JobState.SUCCEEDED, version=number)
            published = _published(connection, job_uid)
        if published is None:
            raise FencedError(f"job {job_uid} was deleted while it published")
        return published

    def _mend(self, connection: Connection, job_uid: str, number: int) -> None:
        """End a job whose version a crash has published without it."""
        state = connection.execute(select(jobs.c.state).where(jobs.c.uid == job_uid).with_for_update()).scalar_one()
        if not JobState(state).ended:
            end_job(connection, job_uid, JobState.SUCCEEDED, version=number)

    def _model_for_update(self, connection: Connection, model: ModelName) -> Row[Any]:
        insert_if_absent(
            connection,
            models,
            {
                "uid": self._new_uid(),
                "project": model.project,
                "model_id": model.model,
                "last_version": 0,
                "create_time": DatabaseNow(),
            },
        )
        return _row(connection, model, lock=True)

    def get(self, name: ModelName) -> ModelRecord:
        """Return a model.

        Raises:
            ResourceNotFoundError: There is none of this name.
        """
        with reading(self._engine) as connection:
            row = _row(connection, name)
            return _record(row, _aliases(connection, [row.uid])[row.uid])

    def list(self, project: str, page_size: int | None = None, page_token: str = "") -> Page[ModelRecord]:
        """Return a page of a project's models by name.

        Raises:
            InvalidFieldError: `page_size` or `page_token` is wrong.
        """
        request = PageRequest.parse(f"models:{project}", page_size, page_token, (str,))
        query = select(models).where(models.c.project == project)
        if request.after is not None:
            query = query.where(models.c.model_id > request.after[0])
        query = query.order_by(models.c.model_id).limit(request.size + 1)
        with reading(self._engine) as connection:
            rows = connection.execute(query).all()
            aliases = _aliases(connection, [row.uid for row in rows])
        return request.page([((row.model_id,), _record(row, aliases[row.uid])) for row in rows])

    def resolve(self, ref: ModelVersionRef, *, deleted: bool = False) -> ModelVersionRecord:
        """Return the version that a number, an alias or a model digest stands for now; of equal digests the newest.

        Args:
            ref: The version.
            deleted: Whether a number may stand for a version that is deleted but not purged yet.

        Raises:
            ResourceNotFoundError: There is no such model, alias or version; the message says which.
        """
        with reading(self._engine) as connection:
            row = _row(connection, ref.model)
            query = _versions().where(model_versions.c.model_uid == row.uid)
            number = ref.version
            if ref.alias is not None:
                aliases = _aliases(connection, [row.uid])[row.uid]
                if ref.alias not in aliases:
                    known = ", ".join(sorted(aliases)) or "none"
                    raise ResourceNotFoundError(
                        f"{ref.model} has no alias {ref.alias!r}; its aliases: {known}", metadata={"name": str(ref)}
                    )
                number = aliases[ref.alias]
            if ref.digest is not None:
                query = query.where(model_versions.c.model_digest == ref.digest)
            else:
                query = query.where(model_versions.c.version == number)
            found = connection.execute(query.order_by(model_versions.c.version.desc()).limit(1)).first()
            if found is None and ref.version is not None and deleted:
                found = _deleted(connection, row.uid, ref.version)
        if found is None:
            raise ResourceNotFoundError(f"there is no {ref}", metadata={"name": str(ref)})
        return _version_record(found)

    def list_versions(
        self, name: ModelName, page_size: int | None = None, page_token: str = ""
    ) -> Page[ModelVersionRecord]:
        """Return a page of a model's versions, newest first.

        Raises:
            InvalidFieldError: `page_size` or `page_token` is wrong.
            ResourceNotFoundError: There is no such model.
        """
        request = PageRequest.parse(f"versions:{name}", page_size, page_token, (int,))
        with reading(self._engine) as connection:
            query = _versions().where(model_versions.c.model_uid == _row(connection, name).uid)
            if request.after is not None:
                query = query.where(model_versions.c.version < request.after[0])
            rows = connection.execute(query.order_by(model_versions.c.version.desc()).limit(request.size + 1)).all()
        return request.page([((row.version,), _version_record(row)) for row in rows])

    def set_alias(self, name: ModelName, alias: str, version: int | None) -> ModelRecord:
        """Point an alias at a version, or remove it where `version` is None; removing what is not there is harmless.

        Raises:
            InvalidFieldError: The alias is malformed or ``latest``, which only publishing moves.
            ResourceNotFoundError: There is no such model or version.
        """
        validate_id(alias, "alias")
        if alias == LATEST:
            raise InvalidFieldError("alias", f"{LATEST!r} is moved by publishing only")
        with writing(self._engine) as connection:
            row = _row(connection, name, lock=True)
            if version is None:
                at = (model_aliases.c.model_uid == row.uid) & (model_aliases.c.alias == alias)
                connection.execute(delete(model_aliases).where(at))
            else:
                _require_version(connection, row.uid, ModelVersionName(name.project, name.model, version))
                _point(connection, row.uid, alias, version)
            return _record(row, _aliases(connection, [row.uid])[row.uid])

    def delete_version(self, name: ModelVersionName, keep_seconds: float = 0.0) -> None:
        """Delete a version; ``latest`` moves to the newest left. Its number is not given again.

        Its files stay for a while, so that streams which have begun can end and a mistake can be undone.

        Args:
            name: The version.
            keep_seconds: How long until `purge` takes it.

        Raises:
            ResourceNotFoundError: There is no such version.
            WrongStateError: An alias other than ``latest`` points at it.
        """
        with writing(self._engine) as connection:
            row = _row(connection, name.parent, lock=True)
            _require_version(connection, row.uid, name)
            aliases = _aliases(connection, [row.uid])[row.uid]
            pointing = sorted(alias for alias, at in aliases.items() if at == name.version and alias != LATEST)
            if pointing:
                raise WrongStateError(
                    f"alias {pointing[0]!r} points at {name}; move or remove it first",
                    metadata={"aliases": ", ".join(pointing)},
                )
            at = _at(model_versions, row.uid, name.version)
            found = connection.execute(select(model_versions).where(at)).one()._asdict()
            times = {"delete_time": DatabaseNow(), "purge_time": DatabaseNow() + round(keep_seconds * 1_000_000)}
            connection.execute(delete(model_versions).where(at))
            connection.execute(insert(deleted_versions).values({**found, **times}))
            _point_latest(connection, row.uid)

    def undelete_version(self, name: ModelVersionName) -> ModelVersionRecord:
        """Bring a deleted version back as it was; harmless where it is not deleted.

        Raises:
            ResourceNotFoundError: There is no such version, or it is purged already.
        """
        with writing(self._engine) as connection:
            row = _row(connection, name.parent, lock=True)
            found = _deleted(connection, row.uid, name.version)
            if found is not None:
                columns = {column.name: getattr(found, column.name) for column in model_versions.c}
                connection.execute(delete(deleted_versions).where(_at(deleted_versions, row.uid, name.version)))
                connection.execute(insert(model_versions).values(columns))
                _point_latest(connection, row.uid)
            _require_version(connection, row.uid, name)
        return self.resolve(ModelVersionRef(name.parent, version=name.version))

    def sign(self, name: ModelVersionName, signature: Signature) -> None:
        """Add a signature to a version, in place of an older one by the same key; harmless where it is there.

        Raises:
            ResourceNotFoundError: There is no such version.
        """
        with writing(self._engine) as connection:
            row = _row(connection, name.parent, lock=True)
            _require_version(connection, row.uid, name)
            write_signature(connection, row.uid, name.version, signature)

    def signatures(
        self, model: ModelName, versions: Iterable[int], *, needed: bool = False
    ) -> Mapping[int, tuple[Signature, ...]]:
        """Return the signatures of versions of a model by number; whether they are any good is not looked at.

        Args:
            model: The model.
            versions: The numbers; one may be deleted but not purged yet, and one that never was has none.
            needed: Whether it is an error that the registry is of a time without any; else there are none then.

        Raises:
            UnavailableError: It is, and they are needed.
        """
        with reading(self._engine) as connection:
            return read_signatures(connection, model, versions, needed=needed)

    def purge(self, limit: int = 1000) -> int:
        """Forget deleted versions whose time is up and return how many; their files are garbage from now on."""
        due = deleted_versions.c.purge_time <= DatabaseNow()
        with reading(self._engine) as connection:
            if connection.execute(select(deleted_versions.c.version).where(due).limit(1)).first() is None:
                return 0
        with writing(self._engine) as connection:
            query = select(deleted_versions).where(due).limit(limit).with_for_update(skip_locked=True)
            rows = connection.execute(query).all()
            for row in rows:
                note_garbage(connection, models_garbage, (row.manifest_key, row.weights_key))
                for table in (version_signatures, deleted_versions):
                    connection.execute(delete(table).where(_at(table, row.model_uid, row.version)))
            return len(rows)

    def garbage(self, limit: int = 1000) -> tuple[str, ...]:
        """Return keys of objects in the models' store that nothing needs any more; delete them, then `forget`."""
        return garbage_keys(self._engine, models_garbage, limit)

    def forget(self, keys: Iterable[str]) -> None:
        """Strike deleted objects off the list of garbage."""
        remove_garbage(self._engine, models_garbage, keys)


def _versions(table: Table = model_versions) -> Any:
    joined = table.join(models, models.c.uid == table.c.model_uid)
    return select(table, models.c.project, models.c.model_id).select_from(joined)


def _at(table: Table, model_uid: str, version: int) -> ColumnElement[bool]:
    return (table.c.model_uid == model_uid) & (table.c.version == version)


def _deleted(connection: Connection, model_uid: str, version: int) -> Row[Any] | None:
    """Return a deleted version that is not purged; None also where the registry is of a time without any."""
    if not _has_deleted(connection):
        return None
    found: Row[Any] | None = connection.execute(
        _versions(deleted_versions).where(_at(deleted_versions, model_uid, version))
    ).one_or_none()
    return found


def _has_deleted(connection: Connection) -> bool:
    """Say whether the registry has the table of deleted versions: a sampler may be newer than it."""
    return bool(inspect(connection).has_table(deleted_versions.name, schema=deleted_versions.schema))


def _point_latest(connection: Connection, model_uid: str) -> None:
    """Move ``latest`` to the newest version that is left, or remove it."""
    newest = connection.execute(
        select(model_versions.c.version)
        .where(model_versions.c.model_uid == model_uid)
        .order_by(model_versions.c.version.desc())
        .limit(1)
    ).scalar_one_or_none()
    if newest is not None:
        _point(connection, model_uid, LATEST, newest)
    else:
        connection.execute(delete(model_aliases).where(model_aliases.c.model_uid == model_uid))


def _published(connection: Connection, job_uid: str) -> ModelVersionRecord | None:
    row = connection.execute(_versions().where(model_versions.c.job_uid == job_uid)).one_or_none()
    return None if row is None else _version_record(row)


def _row(connection: Connection, name: ModelName, *, lock: bool = False) -> Row[Any]:
    query = select(models).where(models.c.project == name.project, models.c.model_id == name.model)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise ResourceNotFoundError(f"there is no {name}", metadata={"name": str(name)})
    return row


def _require_version(connection: Connection, model_uid: str, name: ModelVersionName) -> None:
    at = _at(model_versions, model_uid, name.version)
    if connection.execute(select(model_versions.c.version).where(at)).first() is None:
        raise ResourceNotFoundError(f"there is no {name}", metadata={"name": str(name)})


def _point(connection: Connection, model_uid: str, alias: str, version: int) -> None:
    at = (model_aliases.c.model_uid == model_uid) & (model_aliases.c.alias == alias)
    if connection.execute(update(model_aliases).where(at).values(version=version)).rowcount == 0:
        connection.execute(insert(model_aliases).values(model_uid=model_uid, alias=alias, version=version))


def _aliases(connection: Connection, model_uids: list[str]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {uid: {} for uid in model_uids}
    query = select(model_aliases).where(model_aliases.c.model_uid.in_(model_uids)).order_by(model_aliases.c.alias)
    for row in connection.execute(query):
        found[row.model_uid][row.alias] = row.version
    return found


def _record(row: Row[Any], aliases: Mapping[str, int]) -> ModelRecord:
    return ModelRecord(ModelName(row.project, row.model_id), aliases, instant(row.create_time))


def _version_record(row: Row[Any]) -> ModelVersionRecord:
    return ModelVersionRecord(
        training_job=row.training_job,
        manifest_key=row.manifest_key,
        manifest_size=row.manifest_size,
        manifest_sha256=row.manifest_sha256,
        weights_key=row.weights_key,
        weights_size=row.weights_size,
        weights_sha256=row.weights_sha256,
        model_digest=row.model_digest,
        manifest_digest=row.manifest_digest,
        family=row.family,
        dataset_digest=row.dataset_digest,
        training_rows=row.training_rows,
        schema=TableSchema.from_json(row.schema),
        name=ModelVersionName(row.project, row.model_id, row.version),
        job_uid=row.job_uid,
        create_time=instant(row.create_time),
    )
