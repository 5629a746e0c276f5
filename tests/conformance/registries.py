"""Registries that tests of every one of them run on, and records to put into them."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from rowmint.names import ModelName
from rowmint.registry import (
    CanonicalTable,
    JobKind,
    NewVersion,
    Registry,
    SegmentRecord,
    migrate,
    open_registry,
)
from rowmint.registry.engine import writing
from rowmint.registry.tables import jobs
from rowmint.schema import ColumnKind, ColumnSpec, DataType, Domain, TableSchema

SCHEMA = TableSchema((ColumnSpec("a", ColumnKind.NUMERICAL, DataType.INT64, Domain(minimum=1, maximum=2)),))
TABLE = CanonicalTable(SCHEMA, {"tables": {}}, 7, "canonical/1", 100, b"c" * 32, {"rows": 7})
MODEL = ModelName("p", "m")
INGEST, TRAIN = (JobKind.INGEST,), (JobKind.TRAIN,)


def new_version(key="v", digest=b"d" * 32):
    return NewVersion(
        training_job="projects/p/trainingJobs/j",
        manifest_key=f"{key}/manifest.json",
        manifest_size=10,
        manifest_sha256=b"m" * 32,
        weights_key=f"{key}/weights.safetensors",
        weights_size=20,
        weights_sha256=b"w" * 32,
        model_digest=digest,
        manifest_digest=b"n" * 32,
        family="ctgan",
        dataset_digest=b"s" * 32,
        training_rows=7,
        schema=SCHEMA,
    )


def segment(index, offset, size=10):
    return SegmentRecord(index, offset, size, bytes(32), f"raw/{index}-{offset}")


def uploaded(registry, dataset_id="d"):
    """A dataset of one segment that waits for ingest."""
    record = registry.datasets.create("p", dataset_id, data_format={"csv": {}})
    epoch = registry.datasets.take_writer(record.name).writer_epoch
    registry.datasets.commit_segment(record.uid, epoch, segment(0, 0))
    return registry.datasets.finish_upload(record.uid, epoch, 10, b"s" * 32)


def ready(registry, dataset_id="d"):
    record = uploaded(registry, dataset_id)
    job = registry.jobs.claim("w", 60, INGEST)
    registry.datasets.mark_ready(record.uid, job.uid, job.epoch, TABLE)
    return registry.datasets.get(record.name)


def train(registry, job_id="j", dataset=None, **more):
    dataset = dataset or ready(registry, f"of-{job_id}")
    return registry.jobs.create(
        JobKind.TRAIN,
        more.pop("project", "p"),
        job_id,
        inputs={"dataset": str(dataset.name), "model": str(MODEL)},
        config={"x": 1},
        dataset_uid=dataset.uid,
        **more,
    )


def publish(registry, key="v", digest=b"d" * 32):
    train(registry, f"j-{key}")
    job = registry.jobs.claim("w", 60, TRAIN)
    return registry.models.publish(job.uid, job.epoch, MODEL, new_version(key, digest))


def copy_registry(source: Path, target: Path) -> None:
    """Copy a registry of SQLite files as it is now, as a backup does."""
    target.mkdir()
    for name in ("data.db", "models.db"):
        with (
            contextlib.closing(sqlite3.connect(source / name)) as found,
            contextlib.closing(sqlite3.connect(target / name)) as copy,
        ):
            found.backup(copy)


def expire(registry, uid):
    with writing(registry.engine) as connection:
        connection.execute(update(jobs).where(jobs.c.uid == uid).values(lease_until=1))


class RegistrySuite:
    """What every registry keeps to; a subclass gives the places.

    Its fixture `empty_url` names one without a registry, `url` one whose registry is migrated and empty.
    """

    @pytest.fixture
    def empty_url(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    def url(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    def registry(self, url) -> Iterator[Registry]:
        registry = open_registry(url)
        yield registry
        registry.close()


class OnSqlite:
    """Gives a suite registries in folders of SQLite files."""

    @pytest.fixture
    def empty_url(self, tmp_path):
        return f"sqlite:///{tmp_path}/registry"

    @pytest.fixture
    def url(self, empty_url):
        registry = open_registry(empty_url)
        migrate(registry.engine)
        registry.close()
        return empty_url


class OnPostgres:
    """Gives a suite registries in databases of a PostgreSQL server."""

    @pytest.fixture
    def empty_url(self, postgres_url):
        return postgres_url

    @pytest.fixture
    def url(self, migrated_postgres_url):
        return migrated_postgres_url
