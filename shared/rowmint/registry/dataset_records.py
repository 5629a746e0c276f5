"""Records of the registry: datasets, segments of uploads, and canonical tables."""

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
    """State of a dataset; the names of `rowmint.v1.DatasetState`."""

    UPLOADING = "UPLOADING"
    INGESTING = "INGESTING"
    READY = "READY"
    FAILED = "FAILED"


@dataclass(frozen=True)
class DatasetRecord:
    """A dataset as it was when read.

    Attributes:
        uid: Unique id, the key of its objects and jobs; unlike a name it is never reused.
        name: Its name.
        state: Its state.
        format: Format of the bytes, JSON values that the registry does not interpret.
        overrides: Declared columns.
        primary_key: Declared primary key, or empty.
        writer_epoch: Epoch of the newest writer; 0 before the first.
        segment_count: Number of committed segments.
        committed_size: Committed bytes.
        total_size: Bytes of the whole upload, once finished.
        sha256: SHA-256 of the whole upload, once finished.
        row_count: Number of rows of the table, once READY.
        schema: Schema of the table, once READY.
        sdv_metadata: The schema in SDV's JSON form.
        canonical_key: Key of the object with the canonical table, once READY.
        canonical_size: Size of this object, bytes.
        canonical_sha256: SHA-256 of this object.
        profile: Profiles of the columns, JSON values.
        errors: Problems of the data.
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
    """A committed segment of an upload.

    Attributes:
        index: Its number, from 0.
        offset: Offset of its first byte in the upload.
        size: Size in bytes, at least 1.
        sha256: SHA-256 of its bytes.
        object_key: Key of the object that contains it.
    """

    index: int
    offset: int
    size: int
    sha256: bytes
    object_key: str


@dataclass(frozen=True)
class CanonicalTable:
    """The result of an ingest job: a table in Rowmint's own format.

    Attributes:
        schema: Schema of the table.
        sdv_metadata: The schema in SDV's JSON form.
        row_count: Number of rows.
        object_key: Key of the object that contains the table.
        size: Size of the object, bytes.
        sha256: SHA-256 of the object.
        profile: Profiles of the columns, JSON values.
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
