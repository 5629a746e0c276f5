"""What a registry that was restored needs before it may be used with stores that are ahead of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Row, Table, and_, func, insert, select, update

from rowmint.names import DatasetName, ModelVersionName
from rowmint.registry.dataset_records import DatasetState
from rowmint.registry.engine import DatabaseNow, reading, writing
from rowmint.registry.identity import Identity, Part, assign_identity
from rowmint.registry.job_rows import JobKind, JobState
from rowmint.registry.orphans import Maker
from rowmint.registry.tables import (
    datasets,
    deleted_versions,
    jobs,
    lost_attempts,
    model_versions,
    models,
    segments,
    staged_versions,
)


@dataclass(frozen=True)
class NamedObject:
    """An object that a row names.

    Attributes:
        part: Whose store it is in.
        owner: Name of the dataset or of the version that it belongs to.
        key: Its key.
    """

    part: Part
    owner: str
    key: str


@dataclass(frozen=True)
class AttemptSpan:
    """The attempts of one uid, up to the last one that has left an object.

    Attributes:
        maker: WRITER and INGEST of a dataset, VERSION of a job of any kind.
        uid: Of the dataset or the job.
        last: The greatest epoch in the keys of its objects.
    """

    maker: Maker
    uid: str
    last: int


class AdoptionLedger:
    """Reads and changes a registry that no service uses. Every method raises `UnavailableError` if it cannot be used.

    Args:
        engine: An engine of both schemas.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def named(self) -> tuple[NamedObject, ...]:
        """Return every object that a dataset or version has, in order of owners; checkpoints are not among them."""
        owner = datasets.c.project, datasets.c.dataset_id
        tables = select(*owner, datasets.c.canonical_key.label("key")).where(datasets.c.canonical_key.is_not(None))
        raw = select(*owner, segments.c.object_key.label("key")).join(
            segments, segments.c.dataset_uid == datasets.c.uid
        )
        with reading(self._engine) as connection:
            found = [
                NamedObject(Part.DATA, str(DatasetName(row.project, row.dataset_id)), row.key)
                for query in (tables, raw)
                for row in connection.execute(query)
            ]
            for table in (model_versions, staged_versions, deleted_versions):
                for row in connection.execute(_versions(table)):
                    name = str(ModelVersionName(row.project, row.model_id, row.version))
                    found += [NamedObject(Part.MODELS, name, key) for key in (row.manifest_key, row.weights_key)]
        return tuple(sorted(found, key=lambda one: (one.owner, one.key)))

    def leased(self) -> int:
        """Return how many jobs have a worker whose lease has not run out."""
        alive = jobs.c.lease_until >= DatabaseNow()
        with reading(self._engine) as connection:
            return int(connection.execute(select(func.count()).select_from(jobs).where(alive)).scalar_one())

    def adopt(self, spans: Iterable[AttemptSpan], identities: Mapping[Part, Identity]) -> None:
        """Give the registry identities, and let later attempts be later than any that the stores know, in one step.

        What such attempts have left stays: the registry does not know what became of it.

        Args:
            spans: The attempts that the stores know.
            identities: The new identity of each part.
        """
        with writing(self._engine) as connection:
            for span in spans:
                _outdo(connection, span)
            assign_identity(connection, identities)


def _versions(table: Table) -> Any:
    query = select(models.c.project, models.c.model_id, table.c.version, table.c.manifest_key, table.c.weights_key)
    return query.join(table, table.c.model_uid == models.c.uid)


def _outdo(connection: Connection, span: AttemptSpan) -> None:
    """Let the next attempt be later than `span`, where there may be a next one; note those that are lost."""
    if span.maker is Maker.WRITER:
        column, at = datasets.c.writer_epoch, datasets.c.uid == span.uid
        unended = datasets.c.state == DatasetState.UPLOADING
    else:
        column, at = jobs.c.epoch, jobs.c.uid == span.uid
        if span.maker is Maker.INGEST:
            at = and_(jobs.c.dataset_uid == span.uid, jobs.c.kind == JobKind.INGEST)
        unended = jobs.c.state.in_([state for state in JobState if not state.ended])
    found: Row[Any] | None = connection.execute(select(column.label("epoch")).where(at, unended)).one_or_none()
    if found is None or span.last < found.epoch:
        return
    connection.execute(update(column.table).where(at).values({column: span.last}))
    first = max(found.epoch, 1)
    same = and_(
        lost_attempts.c.maker == span.maker, lost_attempts.c.uid == span.uid, lost_attempts.c.first_epoch == first
    )
    if connection.execute(update(lost_attempts).where(same).values(last_epoch=span.last)).rowcount == 0:
        values = {"maker": span.maker, "uid": span.uid, "first_epoch": first, "last_epoch": span.last}
        connection.execute(insert(lost_attempts).values(values))
