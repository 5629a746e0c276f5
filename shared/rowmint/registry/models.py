"""The ledger of models: their versions and the aliases that point at them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, Select, Table, delete, insert, inspect, select, update

from rowmint.errors import (
    CancelledError,
    FencedError,
    InvalidFieldError,
    ResourceNotFoundError,
    WrongStateError,
)
from rowmint.names import LATEST, ModelName, ModelVersionName, ModelVersionRef, validate_id
from rowmint.registry.engine import DatabaseNow, insert_if_absent, reading, writing
from rowmint.registry.garbage import GarbageLedger
from rowmint.registry.identity import Part, advance_generation
from rowmint.registry.job_rows import JobState, end_job, lock_job
from rowmint.registry.model_records import ModelRecord, ModelVersionRecord, NewVersion, VersionState
from rowmint.registry.paging import FEW_ROWS, Page, PageRequest, every, instant
from rowmint.registry.signatures import read_signatures, write_signature
from rowmint.registry.tables import (
    deleted_versions,
    jobs,
    model_aliases,
    model_versions,
    models,
    models_garbage,
    staged_versions,
)
from rowmint.registry.version_rows import (
    any_due,
    at,
    insert_version,
    mark_deleted,
    mark_rejected,
    publish_staged,
    purge_due,
    read_version,
    require_published,
    select_versions,
    unmark_deleted,
    version_record,
)
from rowmint.security.signing import Signature


class ModelLedger(GarbageLedger):
    """Models, one transaction a call. Safe for any number of threads and processes.

    Reading needs the schema `rowmint_models` only. Every method raises `UnavailableError`, with the seconds after which
    to try again, where the database cannot be used or is not there yet.

    Args:
        engine: An engine of both schemas, or of `rowmint_models` alone for a reader.
        new_uid: Returns 32 hex digits, never the same twice.
    """

    def __init__(self, engine: Engine, new_uid: Callable[[], str]) -> None:
        super().__init__(engine, models_garbage)
        self._new_uid = new_uid
        self._known: set[str] = set()

    def publish(
        self,
        job_uid: str,
        epoch: int,
        model: ModelName,
        version: NewVersion,
        *,
        signatures: Sequence[Signature] = (),
        staged: bool = False,
    ) -> ModelVersionRecord:
        """Store a job's version under the next number and end the job, as one step.

        ``latest`` moves to it, unless it is staged: then it waits for `promote` or `reject`.

        ***At most one attempt publishes a job.*** Repeating a call whose answer was lost returns the version it
        made, as it is now.

        Args:
            job_uid: The job; the caller has claimed it.
            epoch: The caller's epoch.
            model: The model; made if it does not exist.
            version: What is published.
            signatures: Signatures of it; there as soon as the version is.
            staged: Whether the version is staged rather than published.

        Raises:
            CancelledError: A cancel was committed before.
            FencedError: A newer attempt has taken over, or the job has ended, or its version was deleted.
        """
        with writing(self._engine) as connection:
            repeated = _made_by(connection, job_uid)
            if repeated is not None:
                if repeated.manifest_key != version.manifest_key:
                    raise FencedError(f"job {job_uid} has been published by another attempt; stop and write nothing")
                self._end_published(connection, job_uid, repeated.name.version)
                return repeated
            job = lock_job(connection, job_uid, epoch)
            if job.state != JobState.RUNNING or job.cancel_requested:
                raise CancelledError(f"{version.training_job} was cancelled before it published")
            row = self._model_for_update(connection, model)
            number = row.last_version + 1
            insert_version(connection, row.uid, number, job_uid, version, staged=staged)
            for signature in signatures:
                write_signature(connection, row.uid, number, signature)
            connection.execute(update(models).where(models.c.uid == row.uid).values(last_version=number))
            if not staged:
                _point(connection, row.uid, LATEST, number)
            end_job(connection, job_uid, JobState.SUCCEEDED, outputs={"model_version": number})
            for part in (Part.MODELS, Part.DATA):
                advance_generation(connection, part)
            return read_version(connection, row.uid, ModelVersionName(model.project, model.model, number))

    def _end_published(self, connection: Connection, job_uid: str, number: int) -> None:
        """End a job whose version a crash has stored without it."""
        state = connection.execute(select(jobs.c.state).where(jobs.c.uid == job_uid).with_for_update()).scalar_one()
        if not JobState(state).ended:
            end_job(connection, job_uid, JobState.SUCCEEDED, outputs={"model_version": number})

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

    def promote(self, name: ModelVersionName) -> ModelVersionRecord:
        """Publish a staged version; ``latest`` moves to it unless a newer one is published. Idempotent.

        Of a promotion and a rejection at the same moment, one happens and the other is refused.

        Raises:
            ResourceNotFoundError: There is no such version, or it is deleted.
            WrongStateError: It was rejected.
        """
        with writing(self._engine) as connection:
            row = _row(connection, name.parent, lock=True)
            found = read_version(connection, row.uid, name)
            if found.state is VersionState.REJECTED:
                raise WrongStateError(
                    f"{name} was rejected, which is final ({found.rejection_reason}); train another version",
                    metadata={"state": found.state},
                )
            if found.state is VersionState.STAGED:
                publish_staged(connection, row.uid, name.version)
                _point_latest(connection, row.uid)
            return read_version(connection, row.uid, name)

    def reject(self, name: ModelVersionName, reason: str) -> ModelVersionRecord:
        """Reject a staged version; this is final. Idempotent: the first reason is kept.

        Args:
            name: The version.
            reason: Why, for people to read.

        Raises:
            ResourceNotFoundError: There is no such version, or it is deleted.
            WrongStateError: It is published.
        """
        with writing(self._engine) as connection:
            row = _row(connection, name.parent, lock=True)
            found = read_version(connection, row.uid, name)
            if found.state is VersionState.PUBLISHED:
                raise WrongStateError(
                    f"{name} is published and cannot be rejected any more; delete it", metadata={"state": found.state}
                )
            if found.state is VersionState.STAGED:
                mark_rejected(connection, row.uid, name.version, reason)
            return read_version(connection, row.uid, name)

    def get(self, name: ModelName) -> ModelRecord:
        """Return a model.

        Raises:
            ResourceNotFoundError: There is none of this name.
        """
        with reading(self._engine) as connection:
            row = _row(connection, name)
            return _record(row, _aliases(connection, [row.uid])[row.uid])

    def list(
        self,
        project: str,
        page_size: int | None = None,
        page_token: str = "",
        fits: Callable[[ModelRecord], bool] = every,
    ) -> Page[ModelRecord]:
        """Return a page of a project's models by name; `fits` as of `PageRequest.page`.

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
        return request.page((((row.model_id,), _record(row, aliases[row.uid])) for row in rows), fits)

    def resolve(self, ref: ModelVersionRef, *, deleted: bool = False, unpublished: bool = False) -> ModelVersionRecord:
        """Return the version that a number, an alias or a model digest stands for now; of equal digests the newest.

        Args:
            ref: The version.
            deleted: Whether a number may stand for a version that is deleted but not purged yet.
            unpublished: Whether a number may stand for a version that is staged or rejected.

        Raises:
            ResourceNotFoundError: There is no such model, alias or version; the message says which.
        """
        with reading(self._engine) as connection:
            row = _row(connection, ref.model)
            number = ref.version
            if ref.alias is not None:
                aliases = _aliases(connection, [row.uid])[row.uid]
                if ref.alias not in aliases:
                    known = ", ".join(sorted(aliases)) or "none"
                    raise ResourceNotFoundError(
                        f"{ref.model} has no alias {ref.alias!r}; its aliases: {known}", metadata={"name": str(ref)}
                    )
                number = aliases[ref.alias]
            by_number = ref.version is not None
            query = self._versions(
                connection,
                lambda table: (
                    at(table, row.uid, number)
                    if number is not None
                    else (table.c.model_uid == row.uid) & (table.c.model_digest == ref.digest)
                ),
                deleted=deleted and by_number,
                unpublished=unpublished and by_number,
            )
            found = connection.execute(query.limit(1)).first()
        if found is None:
            raise ResourceNotFoundError(f"there is no {ref}", metadata={"name": str(ref)})
        return version_record(found)

    def list_versions(
        self,
        name: ModelName,
        page_size: int | None = None,
        page_token: str = "",
        fits: Callable[[ModelVersionRecord], bool] = every,
        *,
        unpublished: bool = False,
    ) -> Page[ModelVersionRecord]:
        """Return a page of a model's versions, newest first.

        Args:
            name: The model.
            page_size: At most so many, 1 to 1,000.
            page_token: `next_page_token` of the page before; empty for the first.
            fits: As of `PageRequest.page`.
            unpublished: Whether staged and rejected versions are listed too.

        Raises:
            InvalidFieldError: `page_size` or `page_token` is wrong.
            ResourceNotFoundError: There is no such model.
        """
        request = PageRequest.parse(f"versions:{name}", page_size, page_token, (int,))

        def where(table: Table) -> ColumnElement[bool]:
            own: ColumnElement[bool] = table.c.model_uid == uid
            return own if request.after is None else own & (table.c.version < request.after[0])

        with reading(self._engine) as connection:
            uid = _row(connection, name).uid
            query = self._versions(connection, where, unpublished=unpublished).limit(request.size + 1)
            with connection.execute(query, execution_options=FEW_ROWS) as rows:
                return request.page((((row.version,), version_record(row)) for row in rows), fits)

    def unpublished(self, name: ModelName) -> frozenset[int]:
        """Return the numbers of a model's versions that are staged or rejected, deleted or not.

        Raises:
            ResourceNotFoundError: There is no such model.
        """
        with reading(self._engine) as connection:
            uid = _row(connection, name).uid
            if not self._has(connection, staged_versions):
                return frozenset()
            query = select(staged_versions.c.version).where(staged_versions.c.model_uid == uid)
            return frozenset(connection.execute(query).scalars())

    def _versions(
        self,
        connection: Connection,
        where: Callable[[Table], ColumnElement[bool]],
        *,
        deleted: bool = False,
        unpublished: bool = False,
    ) -> Select[Any]:
        """Return a query for versions that fits the registry, which may be older than a reader's code."""
        newest = self._has(connection, staged_versions)
        return select_versions(
            where,
            unpublished=unpublished and newest,
            deleted=deleted and (newest or self._has(connection, deleted_versions)),
            capabilities=newest,
        )

    def _has(self, connection: Connection, table: Table) -> bool:
        """Return whether the registry has a table; one that it has, it keeps."""
        if table.name not in self._known and inspect(connection).has_table(table.name, schema=table.schema):
            self._known.add(table.name)
        return table.name in self._known

    def set_alias(self, name: ModelName, alias: str, version: int | None) -> ModelRecord:
        """Point an alias at a version, or remove it where `version` is None; removing an absent alias changes nothing.

        Raises:
            InvalidFieldError: The alias is malformed or ``latest``, which only publishing moves.
            ResourceNotFoundError: There is no such model or version.
            WrongStateError: The version is staged or rejected.
        """
        validate_id(alias, "alias")
        if alias == LATEST:
            raise InvalidFieldError("alias", f"{LATEST!r} is moved by publishing only")
        with writing(self._engine) as connection:
            row = _row(connection, name, lock=True)
            if version is None:
                own = (model_aliases.c.model_uid == row.uid) & (model_aliases.c.alias == alias)
                connection.execute(delete(model_aliases).where(own))
            else:
                require_published(connection, row.uid, ModelVersionName(name.project, name.model, version))
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
            found = read_version(connection, row.uid, name)
            aliases = _aliases(connection, [row.uid])[row.uid]
            pointing = sorted(alias for alias, number in aliases.items() if number == name.version and alias != LATEST)
            if pointing:
                raise WrongStateError(
                    f"alias {pointing[0]!r} points at {name}; move or remove it first",
                    metadata={"aliases": ", ".join(pointing)},
                )
            mark_deleted(connection, row.uid, found, keep_seconds)
            _point_latest(connection, row.uid)

    def undelete_version(self, name: ModelVersionName) -> ModelVersionRecord:
        """Restore a deleted version as it was; a version that is not deleted stays as it is.

        Raises:
            ResourceNotFoundError: There is no such version, or it is purged already.
        """
        with writing(self._engine) as connection:
            row = _row(connection, name.parent, lock=True)
            unmark_deleted(connection, row.uid, name.version)
            _point_latest(connection, row.uid)
            return read_version(connection, row.uid, name)

    def sign(self, name: ModelVersionName, signature: Signature) -> None:
        """Add a signature to a version, in place of an older one by the same key. Idempotent.

        Raises:
            ResourceNotFoundError: There is no such version.
        """
        with writing(self._engine) as connection:
            row = _row(connection, name.parent, lock=True)
            read_version(connection, row.uid, name)
            write_signature(connection, row.uid, name.version, signature)

    def signatures(
        self, model: ModelName, versions: Iterable[int], *, needed: bool = False
    ) -> Mapping[int, tuple[Signature, ...]]:
        """Return the signatures of versions of a model by number, unverified.

        Args:
            model: The model.
            versions: The numbers; one may be deleted but not purged yet, and one that never was has none.
            needed: Whether it is an error that the registry is older than signatures; otherwise there are none then.

        Raises:
            UnavailableError: It is, and they are needed.
        """
        with reading(self._engine) as connection:
            return read_signatures(connection, model, versions, needed=needed)

    def purge(self, limit: int = 1000) -> int:
        """Forget deleted versions whose time is up and return how many; their files are garbage from now on."""
        with reading(self._engine) as connection:
            if not any_due(connection):
                return 0
        with writing(self._engine) as connection:
            return purge_due(connection, limit)


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


def _made_by(connection: Connection, job_uid: str) -> ModelVersionRecord | None:
    """Return the version that a job has made, or None.

    Raises:
        FencedError: It is deleted.
    """

    def find(*, deleted: bool) -> Row[Any] | None:
        query = select_versions(lambda table: table.c.job_uid == job_uid, unpublished=True, deleted=deleted)
        return connection.execute(query).one_or_none()

    if find(deleted=True) is None:
        return None
    found = find(deleted=False)
    if found is None:
        raise FencedError(f"the version that job {job_uid} has published was deleted; stop and write nothing")
    return version_record(found)


def _row(connection: Connection, name: ModelName, *, lock: bool = False) -> Row[Any]:
    query = select(models).where(models.c.project == name.project, models.c.model_id == name.model)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise ResourceNotFoundError(f"there is no {name}", metadata={"name": str(name)})
    return row


def _point(connection: Connection, model_uid: str, alias: str, version: int) -> None:
    own = (model_aliases.c.model_uid == model_uid) & (model_aliases.c.alias == alias)
    if connection.execute(update(model_aliases).where(own).values(version=version)).rowcount == 0:
        connection.execute(insert(model_aliases).values(model_uid=model_uid, alias=alias, version=version))


def _aliases(connection: Connection, model_uids: list[str]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {uid: {} for uid in model_uids}
    query = select(model_aliases).where(model_aliases.c.model_uid.in_(model_uids)).order_by(model_aliases.c.alias)
    for row in connection.execute(query):
        found[row.model_uid][row.alias] = row.version
    return found


def _record(row: Row[Any], aliases: Mapping[str, int]) -> ModelRecord:
    return ModelRecord(ModelName(row.project, row.model_id), aliases, instant(row.create_time))
