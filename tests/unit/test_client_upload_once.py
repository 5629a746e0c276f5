"""Uploads that are made once: what is there already is used, resumed, waited for, or replaced."""

import hashlib

import grpc
import pyarrow as pa
import pytest

from rowmint.client import Client, RetryPolicy, RowmintCallError, synthesize
from rowmint.client.table_ids import id_from_contents
from rowmint.errors import InvalidDataError, InvalidFieldError
from rowmint.names import validate_id
from rowmint.v1 import dataset_pb2, schema_pb2
from tests.unit.fake_failures import Cut, refuse
from tests.unit.fake_services import services
from tests.unit.fake_trainer import FakeTrainer
from tests.unit.one_way import OneWay

MIB = 1024 * 1024
BYTES = bytes(range(256)) * 4096 * 3 + b"tail"
READY = dataset_pb2.DATASET_STATE_READY
UPLOADING = dataset_pb2.DATASET_STATE_UPLOADING
INGESTING = dataset_pb2.DATASET_STATE_INGESTING
FAILED = dataset_pb2.DATASET_STATE_FAILED


def client_of(found):
    return Client(found.trainer_address, found.sampler_address, retry=RetryPolicy(sleep=found.waits.append))


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "customers.csv"
    made.write_bytes(BYTES)
    return made


def expected_name(contents=BYTES):
    csv = dataset_pb2.Dataset(format=dataset_pb2.DataFormat(csv=dataset_pb2.CsvFormat()))
    made = id_from_contents("customers.csv", csv, hashlib.sha256(contents).digest())
    return f"projects/default/datasets/{made}"


def upload(trainer, path, **options):
    """Upload a file and return the dataset, the state of what was found, and how long was waited."""
    states = []
    with services(trainer) as found, client_of(found) as client:
        dataset = client.upload_once(path, on_found=lambda one: states.append(one.state), **options)
        return dataset, states, found.waits


def left_over(trainer, state, stored=0):
    """Leave a dataset of the file's id in the trainer."""
    name = expected_name()
    trainer.stored[name] = BYTES[:stored]
    trainer.datasets[name] = dataset_pb2.Dataset(name=name, state=state, committed_size=stored)
    return name


def test_a_file_that_was_uploaded_is_used_again(path):
    trainer = FakeTrainer()
    first, states, _ = upload(trainer, path)
    assert (first.name, first.state, states) == (expected_name(), READY, [])
    assert trainer.stored[first.name] == BYTES
    again, states, _ = upload(trainer, path)
    assert (again.name, states) == (first.name, [READY])
    assert trainer.writes == [0]


def test_what_is_read_otherwise_is_another_dataset(path, tmp_path):
    column = schema_pb2.ColumnSpec(name="a", kind=schema_pb2.COLUMN_KIND_ID)
    semicolon = dataset_pb2.DataFormat(csv=dataset_pb2.CsvFormat(delimiter=";"))
    ways = [
        {},
        {"format": semicolon},
        {"columns": [column]},
        {"primary_key": "a"},
        {"no_primary_key": True},
        {"infinite": dataset_pb2.INFINITE_POLICY_MISSING},
        {"name": "clients"},
    ]
    trainer = FakeTrainer()
    names = {upload(trainer, path, **way)[0].name for way in ways}
    path.write_bytes(BYTES + b"\n")
    names.add(upload(trainer, path)[0].name)
    assert len(names) == len(ways) + 1
    assert sorted(trainer.datasets) == sorted(names)


@pytest.mark.parametrize("stored", [0, MIB + 17, len(BYTES)])
def test_an_upload_that_broke_off_is_resumed(path, stored):
    trainer = FakeTrainer()
    name = left_over(trainer, UPLOADING, stored)
    dataset, states, _ = upload(trainer, path)
    assert (dataset.name, dataset.state, states) == (name, READY, [UPLOADING])
    assert trainer.stored[name] == BYTES
    assert trainer.writes == [stored]


def test_a_table_that_is_being_read_is_waited_for(path):
    trainer = FakeTrainer()
    name = left_over(trainer, INGESTING, len(BYTES))
    dataset, states, _ = upload(trainer, path)
    assert (dataset.name, dataset.state, states) == (name, READY, [INGESTING])
    assert trainer.writes == []


def test_an_upload_that_failed_is_made_again(path):
    trainer = FakeTrainer()
    name = left_over(trainer, FAILED, len(BYTES))
    dataset, states, _ = upload(trainer, path)
    assert (dataset.name, dataset.state, states) == (name, READY, [FAILED])
    assert trainer.deleted == [name]
    assert trainer.stored[name] == BYTES


def test_a_dataset_of_this_id_with_other_bytes_is_not_used(path):
    trainer = FakeTrainer()
    name = left_over(trainer, READY)
    trainer.datasets[name].sha256 = bytes(32)
    with pytest.raises(InvalidFieldError, match=r"is not what projects/default/datasets/customers-.* was made of"):
        upload(trainer, path)
    assert trainer.deleted == []


class Overtaken(FakeTrainer):
    """Another client takes the first writer's place, and writes `pieces` while it is looked at, one a look."""

    def __init__(self, pieces):
        super().__init__([Cut(1, "refuse", grpc.StatusCode.ABORTED, "FENCED")])
        self.pieces = list(pieces)

    def GetDataset(self, request, context):  # noqa: N802
        dataset = self.datasets.get(request.name)
        if dataset is not None and dataset.state == UPLOADING and self.pieces:
            self.stored[request.name] += self.pieces.pop(0)
            dataset.committed_size = len(self.stored[request.name])
            if self.stored[request.name] == BYTES:
                dataset.sha256, dataset.state = hashlib.sha256(BYTES).digest(), INGESTING
        return super().GetDataset(request, context)


def test_of_two_that_race_the_one_overtaken_waits_for_the_other(path):
    trainer = Overtaken([BYTES[MIB:][:MIB], BYTES[2 * MIB :]])
    dataset, states, _ = upload(trainer, path)
    assert (dataset.state, states) == (READY, [READY])
    assert trainer.writes == [0]


def test_one_overtaken_by_an_upload_that_stands_still_resumes_it(path):
    trainer = Overtaken([BYTES[MIB:][:MIB]])
    dataset, states, waits = upload(trainer, path)
    assert (dataset.state, states) == (READY, [UPLOADING])
    assert trainer.writes == [0, 2 * MIB]
    assert waits.count(1.0) >= 30


class Vanishing(FakeTrainer):
    """The first dataset that exists is deleted before it is read; `vanished` says so."""

    vanished = False

    def GetDataset(self, request, context):  # noqa: N802
        if not self.vanished:
            self.vanished = True
            self.datasets.pop(request.name)
        return super().GetDataset(request, context)


def test_a_dataset_that_is_deleted_meanwhile_is_created(path):
    trainer = Vanishing()
    name = left_over(trainer, FAILED)
    dataset, states, _ = upload(trainer, path)
    assert (dataset.name, dataset.state, states) == (name, READY, [])
    assert trainer.deleted == []


class Contradicting(FakeTrainer):
    """Says of every dataset both that there is one and that there is none."""

    def CreateDataset(self, request, context):  # noqa: N802
        self.created.append(request)
        refuse(context, grpc.StatusCode.ALREADY_EXISTS, "RESOURCE_EXISTS", "there is one")


def test_races_without_end_are_given_up(path):
    trainer = Contradicting()
    with pytest.raises(RowmintCallError, match=r"there is no .*RESOURCE_NOT_FOUND"):
        upload(trainer, path)
    assert len(trainer.created) == RetryPolicy().attempts


def test_what_can_be_read_only_once_gets_an_id_of_the_service():
    trainer = FakeTrainer()
    assert upload(trainer, OneWay(BYTES), format="csv")[0].name == "projects/default/datasets/made"
    assert trainer.stored["projects/default/datasets/made"] == BYTES


def test_what_has_no_name_needs_one():
    with pytest.raises(InvalidFieldError, match="name: is required where the table comes from no file"):
        upload(FakeTrainer(), BYTES, format="csv")
    trainer = FakeTrainer()
    assert upload(trainer, BYTES, name="customers", format="csv")[0].name == expected_name()


def test_a_compressed_file_is_what_it_contains(path, tmp_path):
    other = tmp_path / "zipped" / "customers.csv.gz"
    other.parent.mkdir()
    with pa.output_stream(str(other), compression="gzip") as file:
        file.write(BYTES)
    trainer = FakeTrainer()
    assert upload(trainer, path)[0].name == upload(trainer, other)[0].name
    assert trainer.writes == [0]


def test_the_bytes_in_all_are_known_once_they_were_read(tmp_path):
    path = tmp_path / "customers.csv.gz"
    with pa.output_stream(str(path), compression="gzip") as file:
        file.write(BYTES)
    sent = []
    upload(FakeTrainer(), path, progress=lambda done, total: sent.append((done, total)))
    assert sent[-1] == (len(BYTES), len(BYTES))


def test_an_id_of_contents_is_never_too_long():
    made = id_from_contents("a/" + "very-" * 30 + ".csv", dataset_pb2.Dataset(), bytes(32))
    assert validate_id(made, "id") == made
    assert id_from_contents("__.csv", dataset_pb2.Dataset(), bytes(32)).startswith("data-")


def test_synthesize_uploads_a_file_or_a_table_once(path):
    table = pa.table({"origin": ["JFK"], "dep_delay": [5]})
    trainer = FakeTrainer()
    with services(trainer) as found, client_of(found) as client:
        for _ in range(2):
            synthesize(path, 5, client=client)
            synthesize(table, 5, model="delays", client=client)
    assert sorted(name.split("/")[3].rpartition("-")[0] for name in trainer.datasets) == ["customers", "delays"]
    assert trainer.writes == [0, 0]


def test_an_error_of_the_data_names_dataset_and_file(path):
    trainer = FakeTrainer()
    trainer.errors = [dataset_pb2.DataError(line=7, message="has 3 fields, the header 4")]
    with pytest.raises(InvalidDataError) as caught:
        upload(trainer, path)
    assert caught.value.message == f"{path} ({expected_name()}): line 7: has 3 fields, the header 4"
    assert caught.value.metadata == {
        "line": "7", "row": "0", "column": "", "dataset": expected_name(), "file": str(path)
    }  # fmt: skip
