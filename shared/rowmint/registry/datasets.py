"""The ledger of datasets and of the segments that hold their bytes."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, Engine, Row, and_, case, delete, func, insert, select, tuple_, update

from rowmint.errors import (
    DataProblem,
    DigestMismatchError,
    FencedError,
    LimitError,
    Reason,
    ResourceExistsError,
    ResourceNotFoundError,
    WrongStateError,
)
from rowmint.names import DatasetName, ProjectName
from rowmint.registry.dataset_records import CanonicalTable, DatasetRecord, DatasetState, SegmentRecord, dataset_record
from rowmint.registry.declared import declared_to_json
from rowmint.registry.engine import DatabaseNow, insert_if_absent, note_garbage, reading, writing
from rowmint.registry.garbage import GarbageLedger
from rowmint.registry.job_rows import JobKind, JobState, end_job, insert_job, lock_job, unfinished_jobs
from rowmint.registry.paging import Page, PageRequest
from rowmint.registry.requests import earlier_row
from rowmint.registry.tables import data_garbage, datasets, jobs, segments
from rowmint.schema import ColumnSpec


class DatasetLedger(GarbageLedger):
    """Datasets, one transaction a call. Safe for any number of threads and processes.

    Every method raises `UnavailableError` where the database cannot be used.

    Args:
        engine: An engine of both schemas.
        new_uid: Gives 32 hex digits, never the same twice.
    """

    def __init__(self, engine: Engine, new_uid: Callable[[], str]) -> None:
        super().__init__(engine, data_garbage)
        self._new_uid = new_uid

    def create(
        self,
        project: str,
        dataset_id: str,
        *,
        data_format: Mapping[str, Any],
        overrides: tuple[ColumnSpec, ...] = (),
        primary_key: str = "",
        request_id: str = "",
        request_digest: bytes = b"",
        max_open: int | None = None,
    ) -> DatasetRecord:
        """Create a dataset that waits for its bytes, or return the one that the same request created before.

        Args:
            project: Its project.
            dataset_id: Last part of its name; empty: one is made.
            data_format: How the bytes are to be read, JSON values.
            overrides: Declared columns, checked already.
            primary_key: Declared primary key, or empty.
            request_id: What makes a repeated call harmless, or empty.
            request_digest: SHA-256 of the request's body; equal exactly for equal bodies.
            max_open: How many datasets of the project may wait for their bytes at once; None for any number.

        Raises:
            LimitError: There are as many as allowed.
            RequestIdReusedError: The request_id was used with another body.
            ResourceExistsError: There is a dataset of this name.
        """
        uid = self._new_uid()
        name = DatasetName(project, dataset_id or f"dataset-{uid[:12]}")
        with writing(self._engine) as connection:
            inserted = insert_if_absent(
                connection,
                datasets,
                {
                    "uid": uid,
                    "project": project,
                    "dataset_id": name.dataset,
                    "state": DatasetState.UPLOADING,
                    "format": dict(data_format),
                    "overrides": [declared_to_json(column) for column in overrides],
                    "primary_key": primary_key,
                    "request_id": request_id or None,
                    "request_digest": request_digest if request_id else None,
                    "writer_epoch": 0,
                    "segment_count": 0,
                    "committed_size": 0,
                    "errors": [],
                    "create_time": DatabaseNow(),
                    "update_time": DatabaseNow(),
                },
            )
            if inserted:
                _require_few_open(connection, project, max_open)
                return dataset_record(_row(connection, name))
            own = datasets.c.project == project
            earlier = earlier_row(connection, datasets, own, request_id, request_digest)
            if earlier is not None:
                return dataset_record(earlier)
            raise ResourceExistsError(f"{name} exists; choose another dataset_id", metadata={"name": str(name)})

    def get(self, name: DatasetName) -> DatasetRecord:
        """Return a dataset.

        Raises:
            ResourceNotFoundError: There is none of this name.
        """
        with reading(self._engine) as connection:
            return dataset_record(_row(connection, name))

    def get_by_uid(self, uid: str) -> DatasetRecord:
        """Return a dataset.

        Raises:
            ResourceNotFoundError: There is none of this uid, for example since it was deleted.
        """
        with reading(self._engine) as connection:
            return dataset_record(_row_by_uid(connection, uid))

    def list(self, project: str, page_size: int | None = None, page_token: str = "") -> Page[DatasetRecord]:
        """Return a page of a project's datasets, newest first.

        Raises:
            InvalidFieldError: `page_size` or `page_token` is wrong.
        """
        request = PageRequest.parse(f"datasets:{project}", page_size, page_token, (int, str))
        key = tuple_(datasets.c.create_time, datasets.c.uid)
        query = select(datasets).where(datasets.c.project == project)
        if request.after is not None:
            query = query.where(key < tuple_(*request.after))
        query = query.order_by(datasets.c.create_time.desc(), datasets.c.uid.desc()).limit(request.size + 1)
        with reading(self._engine) as connection:
            return request.page(
                [((row.create_time, row.uid), dataset_record(row)) for row in connection.execute(query)]
            )

    def segments(self, uid: str) -> tuple[SegmentRecord, ...]:
        """Return the committed segments of a dataset in order."""
        query = select(segments).where(segments.c.dataset_uid == uid).order_by(segments.c.segment_index)
        with reading(self._engine) as connection:
            return tuple(
                SegmentRecord(row.segment_index, row.segment_offset, row.size, row.sha256, row.object_key)
                for row in connection.execute(query)
            )

    def take_writer(self, name: DatasetName) -> DatasetRecord:
        """Make the caller the dataset's only writer; the record's `writer_epoch` is what it writes with.

        A dataset that is not UPLOADING is returned unchanged: nothing can be written to it.

        Raises:
            ResourceNotFoundError: There is none of this name.
        """
        with writing(self._engine) as connection:
            row = _row(connection, name, lock=True)
            if row.state == DatasetState.UPLOADING:
                taken = update(datasets).where(datasets.c.uid == row.uid)
                connection.execute(taken.values(writer_epoch=row.writer_epoch + 1, update_time=DatabaseNow()))
                row = _row_by_uid(connection, row.uid)
            return dataset_record(row)

    def commit_segment(self, uid: str, epoch: int, segment: SegmentRecord, max_bytes: int | None = None) -> int:
        """Commit a stored segment that follows the last one, and return the new committed size in bytes.

        Args:
            uid: The dataset.
            epoch: The writer's epoch.
            segment: What is stored.
            max_bytes: Bytes that the project's datasets may have together, the segment included; None for any number.

        Raises:
            FencedError: A newer writer has taken over, or the upload is finished or gone.
            LimitError: The project would have too many bytes.
        """
        with writing(self._engine) as connection:
            row = _writable(connection, uid, epoch)
            if (segment.index, segment.offset) != (row.segment_count, row.committed_size):
                raise FencedError(
                    f"segment {segment.index} at byte {segment.offset} does not follow the last one committed",
                    metadata={"committed_size": str(row.committed_size)},
                )
            _require_room(connection, row.project, segment.size, max_bytes)
            connection.execute(
                insert(segments).values(
                    dataset_uid=uid,
                    segment_index=segment.index,
                    segment_offset=segment.offset,
                    size=segment.size,
                    sha256=segment.sha256,
                    object_key=segment.object_key,
                )
            )
            committed = segment.offset + segment.size
            connection.execute(
                update(datasets)
                .where(datasets.c.uid == uid)
                .values(segment_count=segment.index + 1, committed_size=committed, update_time=DatabaseNow())
            )
            return committed

    def finish_upload(self, uid: str, epoch: int, total_size: int, sha256: bytes) -> DatasetRecord:
        """End the upload and hand the dataset to ingest, as one step. Ending it twice the same way is harmless.

        Raises:
            DigestMismatchError: `total_size` is not what is committed, or the upload was ended another way before.
            FencedError: A newer writer has taken over, or the dataset is gone.
        """
        with writing(self._engine) as connection:
            row = connection.execute(select(datasets).where(datasets.c.uid == uid).with_for_update()).one_or_none()
            if row is not None and row.state != DatasetState.UPLOADING:
                if (row.total_size, row.sha256) != (total_size, sha256):
                    raise DigestMismatchError("the upload was finished before with another size or SHA-256")
                return dataset_record(row)
            row = _writable(connection, uid, epoch)
            if row.committed_size != total_size:
                raise DigestMismatchError(
                    f"total_size {total_size} was said, {row.committed_size} bytes are stored",
                    metadata={"committed_size": str(row.committed_size)},
                )
            _set_state(connection, uid, DatasetState.INGESTING, total_size=total_size, sha256=sha256)
            insert_job(
                connection,
                {
                    "uid": self._new_uid(),
                    "project": row.project,
                    "job_id": f"ingest-{uid}",
                    "kind": JobKind.INGEST,
                    "config": {},
                    "inputs": {"dataset": str(DatasetName(row.project, row.dataset_id))},
                    "dataset_uid": uid,
                },
            )
            return dataset_record(_row_by_uid(connection, uid))

    def mark_ready(self, uid: str, job_uid: str, epoch: int, table: CanonicalTable) -> tuple[str, ...]:
        """Make the dataset READY and end its ingest job, as one step.

        Returns:
            Keys of the raw segments' objects, which are garbage from now on (see `garbage`).

        Raises:
            FencedError: A newer attempt has taken over, or the dataset is gone.
        """
        with writing(self._engine) as connection:
            lock_job(connection, job_uid, epoch)
            keys = _drop_segments(connection, uid)
            _set_state(
                connection,
                uid,
                DatasetState.READY,
                row_count=table.row_count,
                schema=table.schema.to_json(),
                sdv_metadata=dict(table.sdv_metadata),
                canonical_key=table.object_key,
                canonical_size=table.size,
                canonical_sha256=table.sha256,
                profile=dict(table.profile),
            )
            end_job(connection, job_uid, JobState.SUCCEEDED)
            return keys

    def mark_failed(
        self,
        uid: str,
        job_uid: str,
        epoch: int,
        problems: Iterable[DataProblem],
        *,
        reason: Reason = Reason.INVALID_DATA,
    ) -> None:
        """Make the dataset FAILED with the first 100 problems and end its ingest job, as one step.

        Raises:
            FencedError: A newer attempt has taken over.
        """
        found = list(problems)[:100]
        with writing(self._engine) as connection:
            lock_job(connection, job_uid, epoch)
            fail_dataset(connection, uid, found)
            message = found[0].message if found else "the data cannot be read"
            end_job(connection, job_uid, JobState.FAILED, error={"reason": reason, "message": message})

    def delete(self, name: DatasetName) -> tuple[str, ...]:
        """Delete a dataset; an ingest that is at work on it is overtaken.

        Returns:
            Keys of its objects, which are garbage from now on (see `garbage`).

        Raises:
            ResourceNotFoundError: There is none of this name.
            WrongStateError: A job that reads it has not ended.
        """
        with writing(self._engine) as connection:
            # Jobs before the dataset: the order in which every other transaction locks them.
            uid = _row(connection, name).uid
            ingest = select(jobs).where(jobs.c.dataset_uid == uid, jobs.c.kind == JobKind.INGEST).with_for_update()
            unfinished = [job for job in connection.execute(ingest) if not JobState(job.state).ended]
            row = _row(connection, name, lock=True)
            if unfinished_jobs(connection, row.uid):
                raise WrongStateError(
                    f"a job works on {name}; cancel it or wait for its end", metadata={"state": row.state}
                )
            for job in unfinished:
                end_job(connection, job.uid, JobState.CANCELLED)
            keys = _drop_segments(connection, row.uid)
            if row.canonical_key is not None:
                note_garbage(connection, data_garbage, [row.canonical_key])
                keys = (*keys, row.canonical_key)
            connection.execute(delete(datasets).where(datasets.c.uid == row.uid))
            return keys

    def expire(self, idle_seconds: float) -> int:
        """Fail uploads that have received nothing for so long and return how many; their bytes are garbage then.

        A writer that is still open is fenced.
        """
        limit = DatabaseNow() - round(idle_seconds * 1_000_000)
        idle = and_(datasets.c.state == DatasetState.UPLOADING, datasets.c.update_time <= limit)
        with reading(self._engine) as connection:
            if connection.execute(select(datasets.c.uid).where(idle).limit(1)).first() is None:
                return 0
        with writing(self._engine) as connection:
            rows = connection.execute(select(datasets).where(idle).with_for_update(skip_locked=True)).all()
            for row in rows:
                _drop_segments(connection, row.uid)
                message = (
                    f"the upload was abandoned: {row.committed_size} bytes came, and then none for {idle_seconds:g} s;"
                    " delete the dataset and upload it again"
                )
                fail_dataset(connection, row.uid, [DataProblem(message)])
                emptied = update(datasets).where(datasets.c.uid == row.uid)
                connection.execute(emptied.values(segment_count=0, committed_size=0))
            return len(rows)


def fail_dataset(connection: Connection, uid: str, problems: Iterable[DataProblem]) -> None:
    """Make a dataset FAILED, in the caller's transaction."""
    errors = [
        {"message": problem.message, "line": problem.line, "row": problem.row, "column": problem.column}
        for problem in problems
    ]
    _set_state(connection, uid, DatasetState.FAILED, errors=errors)


def require_ready(connection: Connection, uid: str) -> None:
    """Lock a dataset against deletion, in the caller's transaction.

    Raises:
        ResourceNotFoundError: There is none of this uid.
        WrongStateError: It is not READY.
    """
    row = connection.execute(select(datasets).where(datasets.c.uid == uid).with_for_update(read=True)).one_or_none()
    if row is None:
        raise ResourceNotFoundError(f"dataset {uid} was deleted")
    if row.state != DatasetState.READY:
        raise WrongStateError(
            f"{DatasetName(row.project, row.dataset_id)} is {row.state}; a job needs it READY",
            metadata={"state": row.state},
        )


def _require_few_open(connection: Connection, project: str, most: int | None) -> None:
    """Refuse a dataset that has just been inserted where there are too many that wait for their bytes."""
    if most is None:
        return
    if connection.dialect.name == "postgresql":
        # Two calls at once would each not see what the other has inserted.
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"rowmint:open:{project}", 0))))
    waiting = and_(datasets.c.project == project, datasets.c.state == DatasetState.UPLOADING)
    found = connection.execute(select(func.count()).select_from(datasets).where(waiting)).scalar_one()
    if found > most:
        raise LimitError(
            f"{ProjectName(project)} has {most} datasets that wait for their bytes already; finish or delete one, or"
            " raise ROWMINT_MAX_OPEN_UPLOADS",
            metadata={"limit": str(most), "setting": "ROWMINT_MAX_OPEN_UPLOADS"},
        )


def _require_room(connection: Connection, project: str, size: int, most: int | None) -> None:
    """Refuse bytes beyond a project's share. Writers at the same moment may each get one segment too many through."""
    if most is None:
        return
    # What is uploaded counts until the table is there, and the table from then on.
    held = case((datasets.c.state == DatasetState.READY, datasets.c.canonical_size), else_=datasets.c.committed_size)
    total = select(func.coalesce(func.sum(held), 0)).where(datasets.c.project == project)
    found = connection.execute(total).scalar_one()
    if int(found) + size > most:
        raise LimitError(
            f"{ProjectName(project)} has {found} bytes of datasets, and {size} more would be over its {most}; delete"
            " datasets, or raise ROWMINT_MAX_PROJECT_BYTES",
            metadata={"limit": str(most), "setting": "ROWMINT_MAX_PROJECT_BYTES"},
        )


def _set_state(connection: Connection, uid: str, state: DatasetState, **values: Any) -> None:
    changed = update(datasets).where(datasets.c.uid == uid)
    connection.execute(changed.values(state=state, update_time=DatabaseNow(), **values))


def _drop_segments(connection: Connection, uid: str) -> tuple[str, ...]:
    query = select(segments.c.object_key).where(segments.c.dataset_uid == uid).order_by(segments.c.segment_index)
    keys = tuple(connection.execute(query).scalars())
    note_garbage(connection, data_garbage, keys)
    connection.execute(delete(segments).where(segments.c.dataset_uid == uid))
    return keys


def _row(connection: Connection, name: DatasetName, *, lock: bool = False) -> Row[Any]:
    query = select(datasets).where(datasets.c.project == name.project, datasets.c.dataset_id == name.dataset)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise ResourceNotFoundError(f"there is no {name}", metadata={"name": str(name)})
    return row


def _row_by_uid(connection: Connection, uid: str) -> Row[Any]:
    row = connection.execute(select(datasets).where(datasets.c.uid == uid)).one_or_none()
    if row is None:
        raise ResourceNotFoundError(f"there is no dataset with uid {uid}; it was deleted")
    return row


def _writable(connection: Connection, uid: str, epoch: int) -> Row[Any]:
    row = connection.execute(select(datasets).where(datasets.c.uid == uid).with_for_update()).one_or_none()
    if row is None or row.state != DatasetState.UPLOADING or row.writer_epoch != epoch:
        raise FencedError(
            f"writer with epoch {epoch} has been overtaken by a newer stream, or the upload has ended; read the dataset"
            " and resume from its committed_size",
            metadata={"epoch": str(epoch)},
        )
    return row
