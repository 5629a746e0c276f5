"""Objects that no row names: what an attempt stored before it died, or before another overtook it.

An object is stored before the row that makes it count, so a key that no row names may be about to get one. Each key is
therefore made by an *attempt*, a number that only ever grows, and is an orphan only once that attempt is known to have
ended: from then on no row can come to name it.

***Unknown is not garbage.*** That the registry has no record of an attempt says nothing about its objects: the registry
may be another, or older than the store, or a part of it may be missing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Column, Connection, Engine, and_, select, union_all

from rowmint.registry.dataset_records import DatasetState
from rowmint.registry.engine import DatabaseNow, reading
from rowmint.registry.job_rows import CheckpointRecord, JobKind, JobState
from rowmint.registry.paging import instant
from rowmint.registry.tables import (
    datasets,
    deleted_datasets,
    deleted_versions,
    jobs,
    lost_attempts,
    model_versions,
    segments,
    staged_versions,
)


class Maker(StrEnum):
    """What kind of attempt made an object."""

    WRITER = "writer"
    INGEST = "ingest"
    JOB = "job"
    VERSION = "version"


@dataclass(frozen=True)
class AttemptRef:
    """One attempt.

    Attributes:
        maker: What it made: a segment of an upload, a table, a checkpoint of a job, or a file of a job's version.
        uid: Of the dataset for a writer and an ingest, of the job otherwise.
        epoch: Its number: the writer's epoch, or the job's.
    """

    maker: Maker
    uid: str
    epoch: int


@dataclass(frozen=True)
class LostAttempts:
    """Attempts that another history of the registry has made, from before it was restored.

    Attributes:
        maker: See `AttemptRef`; VERSION for all of a job's.
        uid: See `AttemptRef`.
        first: The first epoch.
        last: The last one.
    """

    maker: Maker
    uid: str
    first: int
    last: int

    def __contains__(self, attempt: AttemptRef) -> bool:
        maker = Maker.VERSION if attempt.maker is Maker.JOB else attempt.maker
        return (maker, attempt.uid) == (self.maker, self.uid) and self.first <= attempt.epoch <= self.last


@dataclass(frozen=True)
class SortedKeys:
    """Keys of objects, by what is known of them. An object of an attempt at work is in none, unless it is named.

    Attributes:
        named: A row names them.
        ended: Their attempt has ended, and no row names them or ever will.
        deleted: Likewise, and what they were made for is deleted: nothing of it may stay.
        unknown: The registry does not know their attempt, or knows that they were named once.
    """

    named: tuple[str, ...]
    ended: tuple[str, ...]
    deleted: tuple[str, ...]
    unknown: tuple[str, ...]


class _State(StrEnum):
    """What is known of an attempt."""

    AT_WORK = "at work"
    ENDED = "ended"
    DELETED = "deleted"
    UNKNOWN = "unknown"


class OrphanLedger:
    """Finds the objects that nothing needs. Safe for any number of threads and processes.

    Args:
        engine: An engine of both schemas.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def now(self) -> datetime:
        """Return the time by the registry's clock.

        Raises:
            UnavailableError: The database cannot be used.
        """
        with reading(self._engine) as connection:
            return instant(connection.execute(select(DatabaseNow())).scalar_one())

    def sort(self, keys: Mapping[str, AttemptRef]) -> SortedKeys:
        """Say what is known of objects.

        Args:
            keys: Keys of stored objects, each with the attempt that made it.

        Raises:
            UnavailableError: The database cannot be used.
        """
        # First which attempts have ended, then which keys are named: an attempt writes its last row before it ends.
        with reading(self._engine) as connection:
            lost = _lost(connection, keys.values())
            states = {attempt: _state_of(connection, attempt, lost) for attempt in set(keys.values())}
        with reading(self._engine) as connection:
            named = _named(connection, keys)
        left = {key: states[attempt] for key, attempt in keys.items() if key not in named}

        def those(state: _State) -> tuple[str, ...]:
            return tuple(key for key, found in left.items() if found is state)

        return SortedKeys(
            tuple(key for key in keys if key in named),
            those(_State.ENDED),
            those(_State.DELETED),
            those(_State.UNKNOWN),
        )


def _lost(connection: Connection, attempts: Iterable[AttemptRef]) -> tuple[LostAttempts, ...]:
    of_these = lost_attempts.c.uid.in_(sorted({attempt.uid for attempt in attempts}))
    rows = connection.execute(select(lost_attempts).where(of_these))
    return tuple(LostAttempts(Maker(row.maker), row.uid, row.first_epoch, row.last_epoch) for row in rows)


def _state_of(connection: Connection, attempt: AttemptRef, lost: Iterable[LostAttempts]) -> _State:
    state = (_state_of_writer if attempt.maker is Maker.WRITER else _state_of_job)(connection, attempt)
    if state is _State.DELETED or not any(attempt in span for span in lost):
        return state
    return _State.UNKNOWN


def _state_of_writer(connection: Connection, attempt: AttemptRef) -> _State:
    query = select(datasets.c.state, datasets.c.writer_epoch).where(datasets.c.uid == attempt.uid)
    row = connection.execute(query).one_or_none()
    if row is None:
        return _absent(connection, attempt.uid)
    if attempt.epoch > row.writer_epoch:
        return _State.UNKNOWN
    over = row.state != DatasetState.UPLOADING or row.writer_epoch > attempt.epoch
    return _State.ENDED if over else _State.AT_WORK


def _state_of_job(connection: Connection, attempt: AttemptRef) -> _State:
    at = jobs.c.uid == attempt.uid
    if attempt.maker is Maker.INGEST:
        at = and_(jobs.c.dataset_uid == attempt.uid, jobs.c.kind == JobKind.INGEST)
    query = (
        select(jobs.c.state, jobs.c.epoch, deleted_datasets.c.uid.label("deleted"))
        .select_from(jobs.outerjoin(deleted_datasets, deleted_datasets.c.uid == jobs.c.dataset_uid))
        .where(at)
    )
    job = connection.execute(query).one_or_none()
    if job is None:
        return _absent(connection, attempt.uid)
    # A version outlives its dataset; whatever else was made of one is gone with it.
    if job.deleted is not None and attempt.maker is not Maker.VERSION:
        return _State.DELETED
    if attempt.epoch > job.epoch:
        return _State.UNKNOWN
    if attempt.maker is Maker.VERSION and job.state == JobState.SUCCEEDED and job.epoch == attempt.epoch:
        # What a job has published is deleted by way of the list of garbage alone. Where no row names it, rows are gone.
        return _State.UNKNOWN
    # An attempt whose cancel is committed no longer publishes or saves a checkpoint.
    over = JobState(job.state).ended or job.state == JobState.CANCELLING or job.epoch > attempt.epoch
    return _State.ENDED if over else _State.AT_WORK


def _absent(connection: Connection, uid: str) -> _State:
    query = select(deleted_datasets.c.uid).where(deleted_datasets.c.uid == uid)
    return _State.UNKNOWN if connection.execute(query).first() is None else _State.DELETED


def _named(connection: Connection, keys: Mapping[str, AttemptRef]) -> set[str]:
    columns: list[Column[str]] = [
        segments.c.object_key,
        datasets.c.canonical_key,
        model_versions.c.manifest_key,
        model_versions.c.weights_key,
        deleted_versions.c.manifest_key,
        deleted_versions.c.weights_key,
        staged_versions.c.manifest_key,
        staged_versions.c.weights_key,
    ]
    # One statement, and so one state of the tables: a version that moves from one to another is in one of them.
    found = union_all(*(select(column).where(column.in_(list(keys))) for column in columns))
    named = set(connection.execute(found).scalars())
    # Code older than checkpoints leaves one with a job that it ends.
    unfinished = [state for state in JobState if not state.ended]
    uids = sorted({attempt.uid for attempt in keys.values()})
    kept = select(jobs.c.checkpoint).where(
        jobs.c.uid.in_(uids), jobs.c.checkpoint.is_not(None), jobs.c.state.in_(unfinished)
    )
    kept_keys = {CheckpointRecord.from_json(found).object_key for found in connection.execute(kept).scalars()}
    return named | (kept_keys & keys.keys())
