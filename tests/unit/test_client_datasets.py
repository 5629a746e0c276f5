"""Uploads: whole, broken, and resumed."""

import hashlib
import io

import grpc
import pytest

from rowmint.client import Client, RetryPolicy, RowmintCallError
from rowmint.client.datasets import data_format
from rowmint.client.upload_source import UploadSource
from rowmint.errors import InvalidDataError, InvalidFieldError, UnavailableError
from rowmint.v1 import dataset_pb2, schema_pb2
from tests.unit.fake_failures import Cut
from tests.unit.fake_services import services
from tests.unit.fake_trainer import FakeTrainer
from tests.unit.one_way import OneWay

BYTES = bytes(range(256)) * 4096 * 5 + b"tail"  # five messages and a bit


def client_of(found):
    return Client(found.trainer_address, found.sampler_address, retry=RetryPolicy(sleep=found.waits.append))


def upload_to(trainer, source=BYTES, **options):
    with services(trainer) as found, client_of(found) as client:
        dataset = client.upload(source, "d", format="csv", **options)
        return found, dataset


def test_a_whole_upload_arrives_and_is_waited_for():
    sent = []
    found, dataset = upload_to(FakeTrainer(), progress=lambda done, total: sent.append((done, total)))
    assert dataset.state == dataset_pb2.DATASET_STATE_READY
    assert found.trainer.stored["projects/default/datasets/d"] == BYTES
    assert sent[-1] == (len(BYTES), len(BYTES))
    assert [done for done, _ in sent] == sorted(done for done, _ in sent)
    assert found.trainer.created[0].request_id


@pytest.mark.parametrize(
    "cut",
    [
        Cut(3),
        Cut(3, code=grpc.StatusCode.UNAVAILABLE),
        Cut(3, "refuse", grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", retry_after=0.5),
        Cut(3, "refuse", grpc.StatusCode.DATA_LOSS, "CHECKSUM"),
    ],
)
def test_a_broken_upload_is_resumed_from_the_committed_bytes(cut):
    found, dataset = upload_to(FakeTrainer([cut]))
    assert dataset.state == dataset_pb2.DATASET_STATE_READY
    assert found.trainer.stored[dataset.name] == BYTES
    assert found.trainer.writes == [0, 3 * 1024 * 1024]
    if cut.retry_after is not None:
        assert found.waits[0] == cut.retry_after


def test_many_breaks_with_progress_are_retried():
    found, dataset = upload_to(FakeTrainer([Cut(1)] * 5))
    assert found.trainer.stored[dataset.name] == BYTES
    assert found.trainer.writes == [index * 1024 * 1024 for index in range(6)]


def test_after_a_wrong_offset_an_upload_is_resumed_at_the_services():
    found, dataset = upload_to(FakeTrainer([Cut(2), Cut(0, "offset")]))
    assert found.trainer.stored[dataset.name] == BYTES
    assert found.trainer.writes == [0, 2 * 1024 * 1024, 2 * 1024 * 1024]


def test_a_lost_answer_is_not_taken_for_a_lost_upload():
    found, dataset = upload_to(FakeTrainer([Cut(99, "lost-answer")]))
    assert dataset.state == dataset_pb2.DATASET_STATE_READY
    assert found.trainer.writes == [0]


def test_breaks_without_progress_end_in_one_error():
    with pytest.raises(RowmintCallError, match="given up after 8 attempts") as caught:
        upload_to(FakeTrainer([Cut(0)] * 20))
    assert "\n" not in str(caught.value)


def test_a_fenced_writer_stops():
    trainer = FakeTrainer([Cut(2, "refuse", grpc.StatusCode.ABORTED, "FENCED")])
    with pytest.raises(RowmintCallError) as caught:
        upload_to(trainer)
    assert caught.value.reason == "FENCED"
    assert trainer.writes == [0]


def test_a_broken_upload_of_a_source_without_seek_is_resumed():
    found, dataset = upload_to(FakeTrainer([Cut(3), Cut(1), Cut(0)]), OneWay(BYTES))
    assert found.trainer.stored[dataset.name] == BYTES
    assert found.trainer.writes == [0, 3 * 1024 * 1024, 4 * 1024 * 1024, 4 * 1024 * 1024]


@pytest.mark.parametrize("make", [bytes, OneWay])
@pytest.mark.parametrize("stored", [1, 1024 * 1024, 3 * 1024 * 1024 + 17, len(BYTES)])
def test_an_upload_that_another_process_left_is_resumed(make, stored):
    trainer = FakeTrainer()
    with services(trainer) as found, client_of(found) as client:
        name = client.create_dataset("d").name
        trainer.stored[name] = BYTES[:stored]
        trainer.datasets[name].committed_size = stored
        dataset = client.resume_upload("d", make(BYTES))
    assert dataset.state == dataset_pb2.DATASET_STATE_READY
    assert trainer.stored[name] == BYTES
    assert trainer.writes == [stored]


def test_a_file_that_is_shorter_than_what_is_stored_is_another_file():
    trainer = FakeTrainer()
    with services(trainer) as found, client_of(found) as client:
        name = client.create_dataset("d").name
        trainer.stored[name] = BYTES
        trainer.datasets[name].committed_size = len(BYTES)
        with pytest.raises(InvalidFieldError, match=f"ends at byte 1000, before byte {len(BYTES)}"):
            client.resume_upload("d", BYTES[:1000])


@pytest.mark.parametrize("make", [io.BytesIO, OneWay])
@pytest.mark.parametrize("first", [0, 100, 2_500_000])
def test_the_digest_is_that_of_all_bytes_wherever_reading_began(make, first):
    source = UploadSource(make(BYTES))
    offset = first
    while data := source.read_at(offset, 700_001):
        assert data == BYTES[offset : offset + len(data)]
        offset += len(data)
    assert offset == len(BYTES)
    assert source.digest() == hashlib.sha256(BYTES).digest()


def test_a_source_without_seek_buffers_a_bounded_number_of_bytes():
    source = UploadSource(OneWay(BYTES), replay_bytes=1000)
    offset = 0
    while data := source.read_at(offset, 300):
        offset += len(data)
    assert sum(map(len, source._window)) < 1300
    assert source.digest() == hashlib.sha256(BYTES).digest()
    kept = b""
    while data := source.read_at(offset - 1000 + len(kept), 77):
        kept += data
    assert kept == BYTES[-1000:]
    assert source.digest() == hashlib.sha256(BYTES).digest()
    with pytest.raises(UnavailableError, match=f"from byte {offset - 5000}; this source cannot seek"):
        source.read_at(offset - 5000, 10)


def test_a_source_that_fails_is_named_as_such():
    class Failing(OneWay):
        def readinto(self, buffer):
            if len(buffer) == 0:
                return 0
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        upload_to(FakeTrainer(), Failing(b""))


def test_an_empty_file_is_for_the_service_to_judge():
    found, dataset = upload_to(FakeTrainer(), b"")
    assert found.trainer.stored[dataset.name] == b""


def test_data_that_is_not_a_table_names_the_place():
    trainer = FakeTrainer()
    trainer.errors = [dataset_pb2.DataError(line=7, message="has 3 fields, the header 4"), dataset_pb2.DataError()]
    with pytest.raises(InvalidDataError) as caught:
        upload_to(trainer)
    problem = "line 7: has 3 fields, the header 4 (and 1 more)"
    assert caught.value.message == f"projects/default/datasets/d: {problem}"
    assert caught.value.metadata["dataset"] == "projects/default/datasets/d"
    assert len(caught.value.problems) == 2


def test_waiting_ends_in_time():
    trainer = FakeTrainer()
    trainer.ingest_polls = 10_000
    with pytest.raises(TimeoutError, match="INGESTING after 0 s"):
        upload_to(trainer, timeout=0)


def test_a_format_is_inferred_from_the_suffix(tmp_path):
    path = tmp_path / "flights.TSV"
    path.write_bytes(b"a\tb\n1\t2\n")
    columns = [schema_pb2.ColumnSpec(name="a", kind=schema_pb2.COLUMN_KIND_ID)]
    with services() as found, client_of(found) as client:
        client.upload(path, columns=columns, primary_key="a", wait=False)
        created = found.trainer.created[0].dataset
    assert created.format.csv.delimiter == "\t"
    assert list(created.column_overrides) == columns
    assert created.primary_key == "a"


@pytest.mark.parametrize(("given", "name"), [("xlsx", ""), (None, "a.sav"), (None, "")])
def test_an_unknown_format_lists_the_known_ones(given, name):
    with pytest.raises(InvalidFieldError, match="choose one of csv, tsv, json"):
        data_format(given, name)


@pytest.mark.parametrize("source", [io.StringIO("a"), 5])
def test_a_source_that_gives_no_bytes_is_refused(source):
    with pytest.raises(InvalidFieldError, match="source"):
        upload_to(FakeTrainer(), source)


def test_datasets_are_listed_read_and_deleted():
    with services() as found, client_of(found) as client:
        client.create_dataset("a")
        client.create_dataset("b")
        assert [one.name for one in client.list_datasets()] == [
            "projects/default/datasets/a",
            "projects/default/datasets/b",
        ]
        assert client.get_dataset("a").name == "projects/default/datasets/a"
        client.delete_dataset("projects/default/datasets/a")
        assert found.trainer.deleted == ["projects/default/datasets/a"]
        with pytest.raises(RowmintCallError, match=r"there is no .*/nope \(RESOURCE_NOT_FOUND\)") as caught:
            client.get_dataset("nope")
    assert caught.value.code is grpc.StatusCode.NOT_FOUND
