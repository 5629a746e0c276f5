"""Uploads: segments, checksums, offsets and writers of the bytes of a dataset."""

import hashlib
import io

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowmint.errors import (
    CancelledError,
    ChecksumError,
    DataLossError,
    DigestMismatchError,
    FencedError,
    InvalidFieldError,
    ResourceNotFoundError,
    UnavailableError,
    WriteOffsetError,
    WrongStateError,
)
from rowmint.names import DatasetName
from rowmint.objects import MemoryStore
from rowmint.registry import DatasetState, SegmentRecord, migrate, open_registry
from rowmint.schema import ColumnKind, ColumnSpec
from tests.manual_clock import ManualClock
from trainer_service.datasets.segments import SegmentReader, verify_upload
from trainer_service.datasets.upload import MESSAGE_BYTES, UploadService

NAME = DatasetName("p", "d")


@pytest.fixture
def registry(tmp_path):
    registry = open_registry(f"sqlite:///{tmp_path}")
    migrate(registry.engine)
    yield registry
    registry.close()


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def service(registry, store, clock):
    service = UploadService(registry.datasets, store, clock=clock, segment_bytes=10)
    service.create("p", "d", data_format={"csv": {}})
    return service


def append(writer, offset, data):
    return writer.append(offset, data, google_crc32c.value(data))


def sha256(data):
    return hashlib.sha256(data).digest()


def stored(service):
    record = service.ledger.get(NAME)
    return SegmentReader(service.store, service.ledger.segments(record.uid)).read()


def test_a_segment_is_committed_by_size(service):
    writer = service.open(NAME)
    assert append(writer, 0, b"12345") == 0
    assert service.ledger.get(NAME).committed_size == 0
    assert append(writer, 5, b"678901") == 11
    assert service.ledger.get(NAME).committed_size == 11
    assert stored(service) == b"12345678901"


def test_a_segment_is_committed_by_age(service, clock):
    writer = service.open(NAME)
    append(writer, 0, b"1")
    clock.now = 0.5
    assert append(writer, 1, b"2") == 0
    clock.now = 1.0
    assert append(writer, 2, b"3") == 3
    append(writer, 3, b"4")
    assert writer.tick() == 3
    clock.now = 2.0
    assert writer.tick() == 4
    assert writer.tick() == 4


def test_the_end_of_a_stream_commits_what_is_buffered(service):
    writer = service.open(NAME)
    append(writer, 0, b"123")
    assert writer.close() == 3
    assert writer.close() == 3
    with pytest.raises(WrongStateError, match="closed"):
        append(writer, 3, b"4")
    resumed = service.open(NAME)
    assert resumed.committed_size == 3
    append(resumed, 3, b"45")
    record = resumed.finish(5, sha256(b"12345"))
    assert (record.state, record.total_size, record.sha256) == (DatasetState.INGESTING, 5, sha256(b"12345"))
    assert stored(service) == b"12345"


@pytest.mark.parametrize(("offset", "kind"), [(4, "a gap"), (2, "an overlap"), (0, "an overlap"), (-1, "an overlap")])
@pytest.mark.parametrize("data", [b"x", b""])
def test_gaps_and_overlaps_are_refused_and_the_prefix_kept(service, offset, kind, data):
    writer = service.open(NAME)
    append(writer, 0, b"123")
    with pytest.raises(WriteOffsetError, match=kind) as caught:
        append(writer, offset, data)
    assert caught.value.metadata["committed_size"] == "3"
    assert stored(service) == b"123"
    with pytest.raises(WrongStateError):
        append(writer, 3, b"4")


def test_a_bad_checksum_is_refused_and_the_prefix_kept(service):
    writer = service.open(NAME)
    append(writer, 0, b"123")
    with pytest.raises(ChecksumError) as caught:
        writer.append(3, b"456", google_crc32c.value(b"457"))
    assert caught.value.metadata == {"committed_size": "3"}
    assert stored(service) == b"123"


def test_data_needs_a_checksum_and_a_bounded_size(service):
    with pytest.raises(InvalidFieldError, match="crc32c"):
        service.open(NAME).append(0, b"x", None)
    with pytest.raises(InvalidFieldError, match="data: has"):
        append(service.open(NAME), 0, bytes(MESSAGE_BYTES + 1))
    assert service.open(NAME).append(0, b"", None) == 0


def test_a_crc_of_zero_is_a_checksum(service):
    data = b"\xab\x9b\xe0\x9b"
    assert google_crc32c.value(data) == 0
    assert service.open(NAME).append(0, data, 0) == 0


def test_the_newest_writer_wins(service, store):
    old = service.open(NAME)
    append(old, 0, b"old")
    new = service.open(NAME)
    append(new, 0, b"new")
    with pytest.raises(FencedError):
        old.close()
    assert list(store.list("")) == []
    new.close()
    assert stored(service) == b"new"
    with pytest.raises(WrongStateError):
        append(old, 3, b"x")


def test_a_wrong_end_leaves_the_bytes_and_the_upload_open(service):
    writer = service.open(NAME)
    append(writer, 0, b"123")
    with pytest.raises(DigestMismatchError, match="total_size is 4, but 3 bytes"):
        writer.finish(4, sha256(b"123"))
    with pytest.raises(DigestMismatchError, match="have SHA-256 a665a4"):
        writer.finish(3, sha256(b"124"))
    for digest in (b"", b"x" * 31):
        with pytest.raises(InvalidFieldError, match=r"finish_write\.sha256"):
            writer.finish(3, digest)
    with pytest.raises(InvalidFieldError, match="total_size"):
        writer.finish(-1, sha256(b""))
    assert service.ledger.get(NAME).state is DatasetState.UPLOADING
    assert writer.finish(3, sha256(b"123")).state is DatasetState.INGESTING


def test_an_ended_upload_may_be_ended_again_but_takes_no_bytes(service):
    writer = service.open(NAME)
    append(writer, 0, b"123")
    writer.finish(3, sha256(b"123"))
    assert writer.finish(3, sha256(b"123")).state is DatasetState.INGESTING
    again = service.open(NAME)
    assert again.finish(3, sha256(b"123")).state is DatasetState.INGESTING
    with pytest.raises(DigestMismatchError):
        again.finish(3, sha256(b"12"))
    with pytest.raises(WrongStateError, match="INGESTING"):
        append(again, 3, b"4")


def test_the_end_reads_nothing_from_the_store(service, store, monkeypatch):
    def refuse(*_):
        raise AssertionError("an object was read")

    monkeypatch.setattr(store, "get", refuse)
    writer = service.open(NAME)
    append(writer, 0, b"1234567890")
    writer.close()
    resumed = service.open(NAME)
    append(resumed, 10, b"1")
    # What another stream sent is not known here: the ingest job reads it back.
    assert resumed.finish(11, sha256(b"something else")).state is DatasetState.INGESTING


def test_an_upload_is_verified_against_its_digest(service, store):
    writer = service.open(NAME)
    append(writer, 0, b"1234567890")
    append(writer, 10, b"abcdefghij")
    segments = service.ledger.segments(service.ledger.get(NAME).uid)
    assert len(segments) == 2
    digest = sha256(b"1234567890abcdefghij")
    verify_upload(store, segments, digest, lambda: False)
    with pytest.raises(DigestMismatchError, match=f"have SHA-256 {digest.hex()}, but finish_write says 78"):
        verify_upload(store, segments, b"x" * 32, lambda: False)
    answers = iter([False, True])
    with pytest.raises(CancelledError):
        verify_upload(store, segments, digest, lambda: next(answers))
    store.delete(segments[1].object_key)
    store.put(segments[1].object_key, b"abcdefghi!")
    with pytest.raises(DataLossError, match="segment 1 at byte 10 is corrupt"):
        verify_upload(store, segments, digest, lambda: False)


def test_a_failed_write_closes_the_writer(service, store, monkeypatch):
    writer = service.open(NAME)
    append(writer, 0, b"123")

    def fail(*_):
        raise UnavailableError("full")

    monkeypatch.setattr(store, "put", fail)
    with pytest.raises(UnavailableError):
        writer.close()
    monkeypatch.undo()
    assert service.open(NAME).committed_size == 0
    with pytest.raises(WrongStateError):
        append(writer, 3, b"4")


def test_what_does_not_exist_is_not_opened(service):
    with pytest.raises(ResourceNotFoundError):
        service.open(DatasetName("p", "none"))


@pytest.mark.parametrize(
    ("column", "field"),
    [
        (ColumnSpec("a", ColumnKind.NUMERICAL, id_pattern="[0-9]"), "dataset.column_overrides[0].id_pattern"),
        (ColumnSpec("a", ColumnKind.ID, id_pattern="[0-9"), "dataset.column_overrides[0].id_pattern"),
        (ColumnSpec("a", datetime_format="%d.%m.%Q"), "dataset.column_overrides[0].datetime_format"),
        (ColumnSpec("a", ColumnKind.CATEGORICAL), "dataset.primary_key"),
    ],
)
def test_contradicting_declarations_are_refused(service, column, field):
    with pytest.raises(InvalidFieldError) as caught:
        service.create("p", "e", data_format={}, overrides=(column,), primary_key="a")
    assert [violation.field for violation in caught.value.violations] == [field]
    with pytest.raises(ResourceNotFoundError):
        service.open(DatasetName("p", "e"))


@given(st.lists(st.binary(min_size=1, max_size=9), max_size=6), st.data())
@settings(max_examples=30, deadline=None)
def test_the_reader_is_a_file(pieces, data):
    store, segments, offset = MemoryStore(), [], 0
    for index, piece in enumerate(pieces):
        store.put(f"s{index}", piece)
        segments.append(SegmentRecord(index, offset, len(piece), sha256(piece), f"s{index}"))
        offset += len(piece)
    whole = b"".join(pieces)
    reader, model = SegmentReader(store, segments), io.BytesIO(whole)
    assert reader.read() == whole
    for _ in range(8):
        position = data.draw(st.integers(0, len(whole) + 2))
        assert reader.seek(position) == model.seek(position)
        size = data.draw(st.integers(-1, len(whole) + 2))
        assert reader.read(size) == model.read(size)
        assert reader.tell() == model.tell()
    assert reader.seek(0, io.SEEK_END) == len(whole)
    with pytest.raises(ValueError, match="cannot seek"):
        reader.seek(-1)


def test_segments_with_a_gap_are_lost_data():
    with pytest.raises(DataLossError, match="begins at byte 5, not at 0"):
        SegmentReader(MemoryStore(), [SegmentRecord(0, 5, 1, bytes(32), "k")])
