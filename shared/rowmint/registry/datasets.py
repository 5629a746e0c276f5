"""The ledger of datasets and of the segments of their uploads."""

from collections.abc import Callable, Collection, Iterable, Mapping
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
from rowmint.registry.identity import Part, advance_generation
from rowmint.registry.job_rows import JobKind, JobState, end_job, insert_job, lock_job, unfinished_jobs
from rowmint.registry.paging import FEW_ROWS, Page, PageRequest, every
from rowmint.registry.requests import earlier_row
from rowmint.registry.tables import data_garbage, datasets, deleted_datasets, jobs, segments
from rowmint.schema import ColumnSpec


class DatasetLedger(GarbageLedger):
    """Datasets, one transaction per call. Safe for any number of threads and processes.

    Every method raises `UnavailableError` if the database cannot be used.

    Args:
        engine: An engine of both schemas.
        new_uid: Returns a new unique id, 32 hex digits.
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
        former_digests: Collection[bytes] = (),
        max_open: int | None = None,
    ) -> DatasetRecord:
        """Create a dataset in state UPLOADING, or return the one that the same request created before.

        Args:
            project: Its project.
            dataset_id: Last part of its name; empty: one is generated.
            data_format: Format of the bytes, JSON values.
            overrides: Declared columns, validated.
            primary_key: Declared primary key, or empty.
            request_id: Idempotency key of the call, or empty.
            request_digest: SHA-256 of the request's body; equal exactly for equal bodies.
            former_digests: What earlier releases kept as the digest of an equal body.
            max_open: Maximum number of UPLOADING datasets of the project; None for no limit.

        Raises:
            LimitError: The project has as many UPLOADING datasets as allowed.
            RequestIdReusedError: The request_id was used with a different body.
            ResourceExistsError: A dataset with this name exists.
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
                _enforce_open_limit(connection, project, max_open)
                return dataset_record(_row(connection, name))
            own = datasets.c.project == project
            earlier = earlier_row(connection, datasets, own, request_id, {request_digest, *former_digests})
            if earlier is not None:
                return dataset_record(earlier)
            raise ResourceExistsError(f"{name} exists; choose another dataset_id", metadata={"name": str(name)})

    def get(self, name: DatasetName) -> DatasetRecord:
        """Return a dataset.

        Raises:
            ResourceNotFoundError: There is no dataset with this name.
        """
        with reading(self._engine) as connection:
            return dataset_record(_row(connection, name))

    def get_by_uid(self, uid: str) -> DatasetRecord:
        """Return a dataset.

        Raises:
            ResourceNotFoundError: There is no dataset with this uid, for example because it was deleted.
        """
        with reading(self._engine) as connection:
            return dataset_record(_row_by_uid(connection, uid))

    def list(
        self,
        project: str,
        page_size: int | None = None,
        page_token: str = "",
        fits: Callable[[DatasetRecord], bool] = every,
    ) -> Page[DatasetRecord]:
        """Return a page of a project's datasets, newest first; `fits` as of `PageRequest.page`.

        Raises:
            InvalidFieldError: `page_size` or `page_token` is invalid.
        """
        request = PageRequest.parse(f"datasets:{project}", page_size, page_token, (int, str))
        key = tuple_(datasets.c.create_time, datasets.c.uid)
        query = select(datasets).where(datasets.c.project == project)
        if request.after is not None:
            query = query.where(key < tuple_(*request.after))
        query = query.order_by(datasets.c.create_time.desc(), datasets.c.uid.desc()).limit(request.size + 1)
        with reading(self._engine) as connection, connection.execute(query, execution_options=FEW_ROWS) as rows:
            return request.page((((row.create_time, row.uid), dataset_record(row)) for row in rows), fits)

    def segments(self, uid: str) -> tuple[SegmentRecord, ...]:
        """Return the committed segments of a dataset in order."""
        query = select(segments).where(segments.c.dataset_uid == uid).order_by(segments.c.segment_index)
        with reading(self._engine) as connection:
            return tuple(
                SegmentRecord(row.segment_index, row.segment_offset, row.size, row.sha256, row.object_key)
                for row in connection.execute(query)
            )

    def take_writer(self, name: DatasetName) -> DatasetRecord:
        """Make the caller the only writer of a dataset, identified by the record's `writer_epoch`.

        A dataset that is not UPLOADING cannot be written to and is returned unchanged.

        Raises:
            ResourceNotFoundError: There is no dataset with this name.
        """
        with writing(self._engine) as connection:
            row = _row(connection, name, lock=True)
            if row.state == DatasetState.UPLOADING:
                statement = update(datasets).where(datasets.c.uid == row.uid)
                connection.execute(statement.values(writer_epoch=row.writer_epoch + 1, update_time=DatabaseNow()))
                row = _row_by_uid(connection, row.uid)
            return dataset_record(row)

    def commit_segment(self, uid: str, epoch: int, segment: SegmentRecord, max_bytes: int | None = None) -> int:
        """Commit a stored segment that follows the last one, and return the new committed size in bytes.

        Args:
            uid: The dataset.
            epoch: The writer's epoch.
            segment: The stored segment.
            max_bytes: Maximum total bytes of the project's datasets, including the segment; None for no limit.

        Raises:
            FencedError: A newer writer has taken over, the upload is finished, or the dataset was deleted.
            LimitError: The project would exceed its limit.
        """
        with writing(self._engine) as connection:
            row = _writable(connection, uid, epoch)
            if (segment.index, segment.offset) != (row.segment_count, row.committed_size):
                raise FencedError(
                    f"segment {segment.index} at byte {segment.offset} does not follow the last one committed",
                    metadata={"committed_size": str(row.committed_size)},
                )
            _enforce_byte_limit(connection, row.project, segment.size, max_bytes)
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
        """Finish the upload and create the ingest job, in one transaction. Idempotent for the same size and digest.

        Raises:
            DigestMismatchError: `total_size` is not the committed size, or the upload was finished with other values.
            FencedError: A newer writer has taken over, or the dataset was deleted.
        """
        with writing(self._engine) as connection:
            row = connection.execute(select(datasets).where(datasets.c.uid == uid).with_for_update()).one_or_none()
            if row is not None and row.state != DatasetState.UPLOADING:
                if (row.total_size, row.sha256) != (total_size, sha256):
                    raise DigestMismatchError("the upload was already finished with a different size or SHA-256")
                return dataset_record(row)
            row = _writable(connection, uid, epoch)
            if row.committed_size != total_size:
                raise DigestMismatchError(
                    f"total_size is {total_size}, but {row.committed_size} bytes are stored; send the missing bytes, or"
                    " delete the dataset and upload it again",
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
        """Set the dataset READY and end its ingest job, in one transaction.

        Returns:
            Keys of the segments' objects, which are garbage from now on (see `garbage`).

        Raises:
            FencedError: A newer attempt has taken over, or the dataset was deleted.
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
            advance_generation(connection, Part.DATA)
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
        """Set the dataset FAILED with the first 100 problems and end its ingest job, in one transaction.

        Raises:
            FencedError: A newer attempt has taken over.
        """
        found = list(problems)[:100]
        with writing(self._engine) as connection:
            lock_job(connection, job_uid, epoch)
            fail_dataset(connection, uid, found)
            message = found[0].message if found else "the data cannot be read as a table"
            end_job(connection, job_uid, JobState.FAILED, error={"reason": reason, "message": message})

    def delete(self, name: DatasetName) -> tuple[str, ...]:
        """Delete a dataset; a running ingest job of it is cancelled.

        Returns:
            Keys of its objects, which are garbage from now on (see `garbage`).

        Raises:
            ResourceNotFoundError: There is no dataset with this name.
            WrongStateError: A job that reads it has not ended.
        """
        with writing(self._engine) as connection:
            # Jobs are locked before the dataset, in the same order as in every other transaction.
            uid = _row(connection, name).uid
            ingest = select(jobs).where(jobs.c.dataset_uid == uid, jobs.c.kind == JobKind.INGEST).with_for_update()
            unfinished = [job for job in connection.execute(ingest) if not JobState(job.state).ended]
            row = _row(connection, name, lock=True)
            if unfinished_jobs(connection, row.uid):
                raise WrongStateError(
                    f"a job uses {name}; cancel it or wait for its end", metadata={"state": row.state}
                )
            for job in unfinished:
                end_job(connection, job.uid, JobState.CANCELLED)
            keys = _drop_segments(connection, row.uid)
            if row.canonical_key is not None:
                note_garbage(connection, data_garbage, [row.canonical_key])
                keys = (*keys, row.canonical_key)
            connection.execute(delete(datasets).where(datasets.c.uid == row.uid))
            connection.execute(insert(deleted_datasets).values(uid=row.uid, delete_time=DatabaseNow()))
            return keys

    def expire(self, idle_seconds: float) -> int:
        """Fail uploads without writes for `idle_seconds`; return their number. Their bytes become garbage.

        Writers that are still open are fenced.
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
                    f"the upload was abandoned: {row.committed_size} bytes were received, then none for"
                    f" {idle_seconds:g} s; delete the dataset and upload it again"
                )
                fail_dataset(connection, row.uid, [DataProblem(message)])
                statement = update(datasets).where(datasets.c.uid == row.uid)
                connection.execute(statement.values(segment_count=0, committed_size=0))
            return len(rows)


def fail_dataset(connection: Connection, uid: str, problems: Iterable[DataProblem]) -> None:
    """Set a dataset FAILED, in the caller's transaction."""
    errors = [
        {"message": problem.message, "line": problem.line, "row": problem.row, "column": problem.column}
        for problem in problems
    ]
    _set_state(connection, uid, DatasetState.FAILED, errors=errors)


def require_ready(connection: Connection, uid: str) -> None:
    """Lock a dataset against deletion, in the caller's transaction.

    Raises:
        ResourceNotFoundError: There is no dataset with this uid.
        WrongStateError: It is not READY.
    """
    row = connection.execute(select(datasets).where(datasets.c.uid == uid).with_for_update(read=True)).one_or_none()
    if row is None:
        raise ResourceNotFoundError(f"dataset {uid} was deleted")
    if row.state != DatasetState.READY:
        raise WrongStateError(
            f"{DatasetName(row.project, row.dataset_id)} is {row.state}, but a job requires it to be READY",
            metadata={"state": row.state},
        )


def _enforce_open_limit(connection: Connection, project: str, limit: int | None) -> None:
    """Refuse a dataset that was just inserted if its project now has too many in state UPLOADING."""
    if limit is None:
        return
    if connection.dialect.name == "postgresql":
        # Serialises concurrent calls, which would not see each other's inserts.
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"rowmint:open:{project}", 0))))
    waiting = and_(datasets.c.project == project, datasets.c.state == DatasetState.UPLOADING)
    found = connection.execute(select(func.count()).select_from(datasets).where(waiting)).scalar_one()
    if found > limit:
        raise LimitError(
            f"{ProjectName(project)} already has {limit} unfinished uploads, the maximum; finish one or delete its"
            " dataset, or raise ROWMINT_MAX_OPEN_UPLOADS",
            metadata={"limit": str(limit), "setting": "ROWMINT_MAX_OPEN_UPLOADS"},
        )


def _enforce_byte_limit(connection: Connection, project: str, size: int, limit: int | None) -> None:
    """Refuse bytes beyond a project's limit. Each concurrent writer may exceed it by one segment."""
    if limit is None:
        return
    # Uploaded bytes count until the dataset is READY, then the size of the table.
    stored = case((datasets.c.state == DatasetState.READY, datasets.c.canonical_size), else_=datasets.c.committed_size)
    total = select(func.coalesce(func.sum(stored), 0)).where(datasets.c.project == project)
    found = connection.execute(total).scalar_one()
    if int(found) + size > limit:
        raise LimitError(
            f"{ProjectName(project)} has {found} bytes of datasets; {size} more would exceed its limit of {limit};"
            " delete datasets, or raise ROWMINT_MAX_PROJECT_BYTES",
            metadata={"limit": str(limit), "setting": "ROWMINT_MAX_PROJECT_BYTES"},
        )


def _set_state(connection: Connection, uid: str, state: DatasetState, **values: Any) -> None:
    statement = update(datasets).where(datasets.c.uid == uid)
    connection.execute(statement.values(state=state, update_time=DatabaseNow(), **values))


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
            f"the writer with epoch {epoch} was replaced by a newer stream, or the upload has ended; read the dataset"
            " and resume at its committed_size",
            metadata={"epoch": str(epoch)},
        )
    return row
