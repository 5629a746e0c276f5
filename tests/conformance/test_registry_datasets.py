"""Datasets in every registry: creating, listing, uploading, ingesting and deleting them."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from rowmint.errors import (
    DataProblem,
    DigestMismatchError,
    FencedError,
    InvalidFieldError,
    RequestIdReusedError,
    ResourceExistsError,
    ResourceNotFoundError,
    WrongStateError,
)
from rowmint.names import DatasetName
from rowmint.registry import (
    DatasetState,
    JobKind,
    JobState,
)
from rowmint.schema import ColumnKind, ColumnSpec, DataType, Domain
from tests.conformance.registries import (
    INGEST,
    SCHEMA,
    TABLE,
    OnPostgres,
    OnSqlite,
    RegistrySuite,
    expire,
    ready,
    segment,
    train,
    uploaded,
)


class DatasetSuite(RegistrySuite):
    """What every registry holds of datasets."""

    def test_a_dataset_is_created_with_what_was_declared(self, registry):
        overrides = (
            ColumnSpec("n", ColumnKind.NUMERICAL, None, Domain(minimum=0, maximum=2.5, decimals=0)),
            ColumnSpec("c", None, None, Domain(categories=("x", 1, True, None, Decimal("1.50")), nullable=False)),
            ColumnSpec("t", ColumnKind.DATETIME, None, Domain(minimum=date(2020, 1, 1)), "%d/%m/%Y"),
            ColumnSpec("z", None, DataType.TIMESTAMP, Domain(maximum=datetime(2020, 1, 1, tzinfo=UTC))),
        )
        record = registry.datasets.create("p", "d", data_format={"csv": {"a": 1}}, overrides=overrides, primary_key="k")
        later = registry.datasets.create("p", "later", data_format={})
        assert record == registry.datasets.get(DatasetName("p", "d"))
        assert record == registry.datasets.get_by_uid(record.uid)
        assert record.overrides == overrides
        assert (record.state, record.committed_size, record.format) == (DatasetState.UPLOADING, 0, {"csv": {"a": 1}})
        assert datetime(2026, 1, 1, tzinfo=UTC) < record.create_time <= later.create_time

    def test_an_id_is_made_where_none_is_given(self, registry):
        names = {registry.datasets.create("p", "", data_format={}).name for _ in range(3)}
        assert len(names) == 3
        assert all(DatasetName.parse(str(name)) == name for name in names)

    def test_a_repeated_request_gives_the_same_dataset(self, registry):
        def create(digest=b"1" * 32, dataset_id="", project="p"):
            return registry.datasets.create(project, dataset_id, data_format={}, request_id="r", request_digest=digest)

        assert create() == create()
        with pytest.raises(RequestIdReusedError, match="'r'"):
            create(digest=b"2" * 32)
        assert create(project="q").name.project == "q"

    def test_a_request_of_an_earlier_release_is_recognised(self, registry):
        named = {"data_format": {}, "request_id": "r"}
        made = registry.datasets.create("p", "", **named, request_digest=b"1" * 32)
        digests = {"request_digest": b"2" * 32, "former_digests": (b"0" * 32, b"1" * 32)}
        assert registry.datasets.create("p", "", **named, **digests) == made
        with pytest.raises(RequestIdReusedError, match="'r'"):
            registry.datasets.create("p", "", **named, request_digest=b"2" * 32, former_digests=(b"0" * 32,))

    def test_a_dataset_name_is_taken_once(self, registry):
        registry.datasets.create("p", "d", data_format={})
        with pytest.raises(ResourceExistsError, match="projects/p/datasets/d"):
            registry.datasets.create("p", "d", data_format={}, request_id="other", request_digest=b"")
        with pytest.raises(ResourceNotFoundError, match="projects/p/datasets/e"):
            registry.datasets.get(DatasetName("p", "e"))

    def test_datasets_are_listed_newest_first_in_pages(self, registry):
        made = [registry.datasets.create("p", f"d{index}", data_format={}) for index in range(5)]
        registry.datasets.create("q", "other", data_format={})
        seen, token = [], ""
        while True:
            page = registry.datasets.list("p", 2, token)
            seen += page.items
            token = page.next_page_token
            if not token:
                break
        assert sorted(seen, key=lambda record: record.uid) == sorted(made, key=lambda record: record.uid)
        assert [record.create_time for record in seen] == sorted((r.create_time for r in made), reverse=True)

    def test_a_page_ends_before_what_does_not_fit(self, registry):
        for index in range(5):
            registry.datasets.create("p", f"d{index}", data_format={})
        records = registry.datasets.list("p").items
        pages, token = [], ""
        while not pages or token:
            fit = iter([False, True, False])  # the first is on its page, whether it fits or not
            page = registry.datasets.list("p", 3, token, lambda _, fit=fit: next(fit))
            pages.append(page.items)
            token = page.next_page_token
        assert pages == [records[:2], records[2:4], records[4:]]

    @pytest.mark.parametrize("token", ["x", "!!", "W10=", "WyJkYXRhc2V0czpwIiwgInQiLCAidSJd", "e30=", "é"])
    def test_a_bad_page_is_refused(self, registry, token):
        with pytest.raises(InvalidFieldError, match="page_token"):
            registry.datasets.list("p", 1, token)
        for size in (0, -1, 1001):
            with pytest.raises(InvalidFieldError, match="page_size"):
                registry.datasets.list("p", size)

    def test_a_token_of_another_list_is_refused(self, registry):
        for index in range(2):
            registry.datasets.create("p", f"d{index}", data_format={})
        token = registry.datasets.list("p", 1).next_page_token
        with pytest.raises(InvalidFieldError, match="page_token"):
            registry.datasets.list("q", 1, token)
        with pytest.raises(InvalidFieldError, match="page_token"):
            registry.jobs.list(JobKind.TRAIN, "p", 1, token)

    def test_segments_follow_each_other(self, registry):
        record = registry.datasets.create("p", "d", data_format={})
        epoch = registry.datasets.take_writer(record.name).writer_epoch
        assert registry.datasets.commit_segment(record.uid, epoch, segment(0, 0)) == 10
        assert registry.datasets.commit_segment(record.uid, epoch, segment(1, 10, 5)) == 15
        for wrong in (segment(1, 10), segment(2, 14), segment(2, 16), segment(3, 15)):
            with pytest.raises(FencedError):
                registry.datasets.commit_segment(record.uid, epoch, wrong)
        assert registry.datasets.segments(record.uid) == (segment(0, 0), segment(1, 10, 5))
        assert registry.datasets.get(record.name).committed_size == 15

    def test_the_newest_writer_fences_the_older(self, registry):
        record = registry.datasets.create("p", "d", data_format={})
        old = registry.datasets.take_writer(record.name).writer_epoch
        new = registry.datasets.take_writer(record.name).writer_epoch
        assert new == old + 1
        with pytest.raises(FencedError, match="committed_size"):
            registry.datasets.commit_segment(record.uid, old, segment(0, 0))
        with pytest.raises(FencedError):
            registry.datasets.finish_upload(record.uid, old, 0, bytes(32))
        assert registry.datasets.commit_segment(record.uid, new, segment(0, 0)) == 10

    def test_finishing_hands_the_dataset_to_ingest_once(self, registry):
        record = uploaded(registry)
        assert record.state is DatasetState.INGESTING
        assert registry.datasets.finish_upload(record.uid, 1, 10, b"s" * 32) == record
        with pytest.raises(DigestMismatchError):
            registry.datasets.finish_upload(record.uid, 1, 10, b"t" * 32)
        with pytest.raises(FencedError):
            registry.datasets.commit_segment(record.uid, 1, segment(1, 10))
        assert registry.datasets.take_writer(record.name) == record
        job = registry.jobs.claim("w", 60, (JobKind.INGEST, JobKind.TRAIN))
        assert (job.kind, job.dataset_uid, job.dataset) == (JobKind.INGEST, record.uid, str(record.name))
        assert registry.jobs.claim("w", 60, INGEST) is None
        assert registry.jobs.list(JobKind.TRAIN, "p").items == ()

    def test_a_wrong_total_size_leaves_the_upload_open(self, registry):
        record = registry.datasets.create("p", "d", data_format={})
        epoch = registry.datasets.take_writer(record.name).writer_epoch
        with pytest.raises(DigestMismatchError, match="total_size is 3, but 0 bytes"):
            registry.datasets.finish_upload(record.uid, epoch, 3, bytes(32))
        assert registry.datasets.get(record.name).state is DatasetState.UPLOADING

    def test_ready_records_the_table_and_frees_the_segments(self, registry):
        record = uploaded(registry)
        job = registry.jobs.claim("w", 60, INGEST)
        assert registry.datasets.mark_ready(record.uid, job.uid, job.epoch, TABLE) == ("raw/0-0",)
        found = registry.datasets.get(record.name)
        assert (found.state, found.schema, found.row_count) == (DatasetState.READY, SCHEMA, 7)
        assert (found.canonical_key, found.canonical_size, found.canonical_sha256) == ("canonical/1", 100, b"c" * 32)
        assert (found.profile, found.sdv_metadata, found.errors) == ({"rows": 7}, {"tables": {}}, ())
        assert registry.datasets.segments(record.uid) == ()
        assert registry.jobs.get_by_uid(job.uid).state is JobState.SUCCEEDED
        assert registry.datasets.garbage() == ("raw/0-0",)
        registry.datasets.forget(["raw/0-0", "never"])
        assert registry.datasets.garbage() == ()
        with pytest.raises(FencedError):
            registry.datasets.mark_ready(record.uid, job.uid, job.epoch, TABLE)

    def test_a_failed_dataset_keeps_the_first_hundred_problems(self, registry):
        record = uploaded(registry)
        job = registry.jobs.claim("w", 60, INGEST)
        problems = [DataProblem(f"wrong {index}", index, index, "c") for index in range(150)]
        registry.datasets.mark_failed(record.uid, job.uid, job.epoch, problems)
        found = registry.datasets.get(record.name)
        assert (found.state, found.errors) == (DatasetState.FAILED, tuple(problems[:100]))
        assert registry.jobs.get_by_uid(job.uid).error.message == "wrong 0"

    def test_an_overtaken_ingest_changes_nothing(self, registry):
        record = uploaded(registry)
        old = registry.jobs.claim("w", 60, INGEST)
        expire(registry, old.uid)
        new = registry.jobs.claim("x", 60, INGEST)
        with pytest.raises(FencedError):
            registry.datasets.mark_ready(record.uid, old.uid, old.epoch, TABLE)
        with pytest.raises(FencedError):
            registry.datasets.mark_failed(record.uid, old.uid, old.epoch, [DataProblem("x")])
        assert registry.datasets.get(record.name).state is DatasetState.INGESTING
        registry.datasets.mark_ready(record.uid, new.uid, new.epoch, TABLE)

    def test_delete_returns_every_object(self, registry):
        record = registry.datasets.create("p", "d", data_format={})
        epoch = registry.datasets.take_writer(record.name).writer_epoch
        registry.datasets.commit_segment(record.uid, epoch, segment(0, 0))
        assert registry.datasets.delete(record.name) == ("raw/0-0",)
        with pytest.raises(ResourceNotFoundError):
            registry.datasets.get(record.name)
        with pytest.raises(ResourceNotFoundError):
            registry.datasets.delete(record.name)
        with pytest.raises(FencedError):
            registry.datasets.commit_segment(record.uid, epoch, segment(1, 10))
        finished = ready(registry, "e")
        assert registry.datasets.delete(finished.name) == ("canonical/1",)
        assert set(registry.datasets.garbage()) == {"raw/0-0", "canonical/1"}

    def test_delete_waits_for_training_but_overtakes_ingest(self, registry):
        dataset = ready(registry)
        job = train(registry, dataset=dataset)
        with pytest.raises(WrongStateError, match="cancel it"):
            registry.datasets.delete(dataset.name)
        registry.jobs.cancel_request(job.name)
        registry.datasets.delete(dataset.name)
        other = uploaded(registry, "e")
        ingest = registry.jobs.claim("w", 60, INGEST)
        registry.datasets.delete(other.name)
        with pytest.raises(FencedError):
            registry.jobs.heartbeat(ingest.uid, ingest.epoch)


class TestSqlite(OnSqlite, DatasetSuite):
    """On SQLite."""


class TestPostgres(OnPostgres, DatasetSuite):
    """On PostgreSQL."""
