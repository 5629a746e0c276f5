"""What the registry knows of a dataset, of a segment of its bytes and of its finished table."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Row

from rowmint.errors import DataProblem
from rowmint.names import DatasetName
from rowmint.registry.declared import declared_from_json
from rowmint.registry.paging import instant
from rowmint.schema import ColumnSpec, TableSchema


class DatasetState(StrEnum):
    """Where a dataset stands; the names of `rowmint.v1.DatasetState`."""

    UPLOADING = "UPLOADING"
    INGESTING = "INGESTING"
    READY = "READY"
    FAILED = "FAILED"


@dataclass(frozen=True)
class DatasetRecord:
    """One dataset as it was when read.

    Attributes:
        uid: What its objects and jobs are keyed by; a name may be used again, a uid is not.
        name: Its name.
        state: Where it stands.
        format: How the bytes are to be read, JSON values; the registry does not look inside.
        overrides: Declared columns.
        primary_key: Declared primary key, or empty.
        writer_epoch: Epoch of the newest writer; 0 before the first.
        segment_count: Segments committed.
        committed_size: Bytes committed.
        total_size: Bytes of the whole upload, once finished.
        sha256: SHA-256 of the whole upload, once finished.
        row_count: Rows of the finished table.
        schema: Shape of the finished table.
        sdv_metadata: The same in SDV's JSON form.
        canonical_key: Object that holds the finished table; with its size in bytes and SHA-256.
        profile: What is known of the columns, JSON values.
        errors: What is wrong with the data.
        create_time: When it was created.
        update_time: When it last changed state.
    """

    uid: str
    name: DatasetName
    state: DatasetState
    format: Mapping[str, Any]
    overrides: tuple[ColumnSpec, ...]
    primary_key: str
    writer_epoch: int
    segment_count: int
    committed_size: int
    total_size: int | None
    sha256: bytes | None
    row_count: int | None
    schema: TableSchema | None
    sdv_metadata: Mapping[str, Any] | None
    canonical_key: str | None
    canonical_size: int | None
    canonical_sha256: bytes | None
    profile: Mapping[str, Any] | None
    errors: tuple[DataProblem, ...]
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True)
class SegmentRecord:
    """One committed stretch of an upload.

    Attributes:
        index: Its number, from 0.
        offset: Its first byte within the upload.
        size: Bytes, at least 1.
        sha256: SHA-256 of its bytes.
        object_key: Object that holds it.
    """

    index: int
    offset: int
    size: int
    sha256: bytes
    object_key: str


@dataclass(frozen=True)
class CanonicalTable:
    """What ingest found.

    Attributes:
        schema: The table's shape.
        sdv_metadata: The same in SDV's JSON form.
        row_count: Rows.
        object_key: Object that holds the table; with its size in bytes and SHA-256.
        size: Bytes of the object.
        sha256: SHA-256 of the object.
        profile: What is known of the columns, JSON values.
    """

    schema: TableSchema
    sdv_metadata: Mapping[str, Any]
    row_count: int
    object_key: str
    size: int
    sha256: bytes
    profile: Mapping[str, Any]


def dataset_record(row: Row[Any]) -> DatasetRecord:
    """Return the record of a row of the table `datasets`."""
    return DatasetRecord(
        uid=row.uid,
        name=DatasetName(row.project, row.dataset_id),
        state=DatasetState(row.state),
        format=row.format,
        overrides=tuple(declared_from_json(body) for body in row.overrides),
        primary_key=row.primary_key,
        writer_epoch=row.writer_epoch,
        segment_count=row.segment_count,
        committed_size=row.committed_size,
        total_size=row.total_size,
        sha256=row.sha256,
        row_count=row.row_count,
        schema=None if row.schema is None else TableSchema.from_json(row.schema),
        sdv_metadata=row.sdv_metadata,
        canonical_key=row.canonical_key,
        canonical_size=row.canonical_size,
        canonical_sha256=row.canonical_sha256,
        profile=row.profile,
        errors=tuple(DataProblem(**body) for body in row.errors),
        create_time=instant(row.create_time),
        update_time=instant(row.update_time),
    )
