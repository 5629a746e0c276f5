"""Objects that no row names: what an attempt stored before it died, or before another overtook it.

An object is stored before the row that makes it count, so a key that no row names may be about to get one. Each key is
therefore made by an *attempt*, a number that only ever grows, and is an orphan only once that attempt has ended: from
then on no row can come to name it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Column, Connection, Engine, and_, select, union_all

from rowmint.registry.dataset_records import DatasetState
from rowmint.registry.engine import reading
from rowmint.registry.job_rows import CheckpointRecord, JobKind, JobState
from rowmint.registry.tables import datasets, deleted_versions, jobs, model_versions, segments, staged_versions


class Maker(StrEnum):
    """What kind of attempt made an object."""

    WRITER = "writer"
    INGEST = "ingest"
    JOB = "job"


@dataclass(frozen=True)
class AttemptRef:
    """One attempt.

    Attributes:
        maker: Its kind.
        uid: Of the dataset for a writer and an ingest, of the job for a job.
        epoch: Its number: the writer's epoch, or the job's.
    """

    maker: Maker
    uid: str
    epoch: int


class OrphanLedger:
    """Finds the objects that nothing needs. Safe for any number of threads and processes.

    Args:
        engine: An engine of both schemas.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def unneeded(self, keys: Mapping[str, AttemptRef]) -> tuple[str, ...]:
        """Return the keys whose attempt has ended and which no row names; none of them will ever be named.

        Args:
            keys: Keys of stored objects, each with the attempt that made it.

        Raises:
            UnavailableError: The database cannot be used.
        """
        # First which attempts have ended, then which keys are named: an attempt writes its last row before it ends.
        with reading(self._engine) as connection:
            ended = {attempt for attempt in set(keys.values()) if _has_ended(connection, attempt)}
        left = [key for key, attempt in keys.items() if attempt in ended]
        with reading(self._engine) as connection:
            named = _named(connection, left, [keys[key].uid for key in left])
        return tuple(key for key in left if key not in named)


def _has_ended(connection: Connection, attempt: AttemptRef) -> bool:
    if attempt.maker is Maker.WRITER:
        query = select(datasets.c.state, datasets.c.writer_epoch).where(datasets.c.uid == attempt.uid)
        row = connection.execute(query).one_or_none()
        return row is None or row.state != DatasetState.UPLOADING or row.writer_epoch > attempt.epoch
    at = jobs.c.uid == attempt.uid
    if attempt.maker is Maker.INGEST:
        at = and_(jobs.c.dataset_uid == attempt.uid, jobs.c.kind == JobKind.INGEST)
    job = connection.execute(select(jobs.c.state, jobs.c.epoch).where(at)).one_or_none()
    # An attempt whose cancel is committed no longer publishes or saves a checkpoint.
    return job is None or JobState(job.state).ended or job.state == JobState.CANCELLING or job.epoch > attempt.epoch


def _named(connection: Connection, keys: list[str], uids: Iterable[str]) -> set[str]:
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
    found = union_all(*(select(column).where(column.in_(keys)) for column in columns))
    named = set(connection.execute(found).scalars())
    # Code older than checkpoints leaves one with a job that it ends.
    unfinished = [state for state in JobState if not state.ended]
    kept = select(jobs.c.checkpoint).where(
        jobs.c.uid.in_(sorted(set(uids))), jobs.c.checkpoint.is_not(None), jobs.c.state.in_(unfinished)
    )
    named.update(CheckpointRecord.from_json(found).object_key for found in connection.execute(kept).scalars())
    return named
