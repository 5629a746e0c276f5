"""Bad uploads: each is refused by a typed error, and nothing half-done is to be seen afterwards."""

import hashlib
import io
import uuid

import google_crc32c
import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rowmint.client import Client
from rowmint.errors import InvalidDataError
from rowmint.v1 import dataset_pb2, dataset_service_pb2, schema_pb2, value_pb2
from rowmint.v1.dataset_service_pb2_grpc import DatasetServiceStub
from tests.acceptance.processes import Services
from tests.acceptance.refusals import refused

PROJECT = "projects/bad-uploads"
DATA = b"age,city\n31,Oslo\n32,Lima\n33,Oslo\n"
SIZE = len(DATA)
CSV = dataset_pb2.DataFormat(csv=dataset_pb2.CsvFormat())

INVALID = ("INVALID_ARGUMENT", "INVALID_FIELD")

Message = dataset_service_pb2.WriteDatasetRequest
Column = schema_pb2.ColumnSpec
Domain = schema_pb2.ColumnDomain
Value = value_pb2.Value


@pytest.fixture(scope="module")
def client(shared_services: Services):
    with Client(shared_services.started[0].address, project="bad-uploads") as found:
        yield found


@pytest.fixture(scope="module")
def stub(shared_services: Services):
    with grpc.insecure_channel(shared_services.started[0].address) as channel:
        yield DatasetServiceStub(channel)


def part(start, stop, **wrong) -> Message:
    """Return the message that carries these bytes of DATA."""
    data = DATA[start:stop]
    return Message(**{"write_offset": start, "data": data, "crc32c": google_crc32c.value(data), **wrong})


def finish(offset=SIZE, **wrong) -> Message:
    end = {"total_size": SIZE, "sha256": hashlib.sha256(DATA).digest(), **wrong}
    return Message(write_offset=offset, finish_write=dataset_service_pb2.FinishWrite(**end))


def send(stub, name, *messages) -> dataset_pb2.Dataset:
    """Send the messages in one stream; the first one gets the dataset's name."""
    first = Message()
    first.CopyFrom(messages[0])
    first.name = name
    return stub.WriteDataset(iter([first, *messages[1:]])).dataset


def whole(data) -> list[Message]:
    return [
        Message(data=data, crc32c=google_crc32c.value(data)),
        finish(len(data), total_size=len(data), sha256=hashlib.sha256(data).digest()),
    ]


@pytest.mark.parametrize(
    ("messages", "kind", "words", "fields", "committed"),
    [
        ([part(0, 9), part(11, SIZE)], ("OUT_OF_RANGE", "WRITE_OFFSET"), "11 leaves a gap: 9 was expected", [], 9),
        ([part(0, 9), part(5, SIZE)], ("OUT_OF_RANGE", "WRITE_OFFSET"), "5 leaves an overlap: 9 was expected", [], 9),
        ([part(3, 9)], ("OUT_OF_RANGE", "WRITE_OFFSET"), "3 leaves a gap: 0 was expected", [], 0),
        ([part(0, 9, write_offset=-1)], ("OUT_OF_RANGE", "WRITE_OFFSET"), "write_offset -1", [], 0),
        ([part(0, SIZE), finish(9)], ("OUT_OF_RANGE", "WRITE_OFFSET"), f"9 leaves an overlap: {SIZE} was", [], SIZE),
        ([part(0, 9), part(9, SIZE, crc32c=7)], ("DATA_LOSS", "CHECKSUM"), "the message at byte 9", [], 9),
        ([part(0, 9), part(9, SIZE, crc32c=None)], INVALID, "required", ["crc32c"], 9),
        (
            [part(0, 9), Message(write_offset=9, data=bytes(2**21 + 1), crc32c=0)],
            INVALID,
            "at most 2097152",
            ["data"],
            9,
        ),
        ([part(0, 9), part(9, SIZE, name=f"{PROJECT}/datasets/other")], INVALID, "changed from", ["name"], 9),
        ([part(0, SIZE), finish(sha256=bytes(32))], ("DATA_LOSS", "DIGEST_MISMATCH"), "00000000", [], SIZE),
        ([part(0, SIZE), finish(total_size=99)], ("DATA_LOSS", "DIGEST_MISMATCH"), "total_size is 99", [], SIZE),
        ([part(0, 9), finish(9)], ("DATA_LOSS", "DIGEST_MISMATCH"), "9 bytes are stored; send the missing", [], 9),
        ([part(0, SIZE), finish(sha256=b"short")], INVALID, "must have 32", ["finish_write.sha256"], SIZE),
        ([part(0, SIZE), finish(total_size=-1)], INVALID, "is -1", ["finish_write.total_size"], SIZE),
        ([part(0, 9), finish(9), part(9, SIZE)], INVALID, "is not the last one", ["finish_write"], 9),
    ],
)
def test_a_broken_stream_keeps_its_valid_prefix_and_is_resumed(
    client, stub, *, messages, kind, words, fields, committed
):
    name = client.create_dataset(format="csv").name
    refusal = refused(send, stub, name, *messages)
    assert refusal.kind == kind
    assert words in refusal.message
    assert refusal.fields == fields
    if not fields:
        assert refusal.metadata["committed_size"] == str(committed)
    found = client.get_dataset(name)
    assert (found.state, found.committed_size) == (dataset_pb2.DATASET_STATE_UPLOADING, committed)
    assert not found.HasField("schema")
    assert send(stub, name, part(committed, SIZE)).committed_size == SIZE


def test_a_stream_needs_a_message_and_a_dataset(client, stub):
    empty = refused(stub.WriteDataset, iter([]))
    assert empty.kind == ("INVALID_ARGUMENT", "EMPTY_STREAM")
    assert "no message" in empty.message
    for name, kind, fields in (
        ("", INVALID, ["name"]),
        ("flights", INVALID, ["name"]),
        (f"{PROJECT}/datasets/none", ("NOT_FOUND", "RESOURCE_NOT_FOUND"), []),
    ):
        refusal = refused(send, stub, name, part(0, SIZE))
        assert (refusal.kind, refusal.fields) == (kind, fields)
    assert refusal.metadata == {"name": f"{PROJECT}/datasets/none"}


def test_an_upload_corrected_after_every_refusal_becomes_ready(client, stub):
    with pytest.raises(InvalidDataError, match="line 3"):
        client.upload(b"a,b\n1,2\n3\n", "corrected", format="csv")
    client.delete_dataset("corrected")
    name = client.create_dataset("corrected", format="csv").name
    refused(send, stub, name, part(0, 9), part(11, SIZE))
    refused(send, stub, name, part(9, SIZE), finish(total_size=99))
    send(stub, name, finish())
    ready = client.wait_dataset(name)
    assert (ready.row_count, ready.committed_size, ready.sha256) == (3, SIZE, hashlib.sha256(DATA).digest())
    more = refused(send, stub, name, part(0, 9, write_offset=SIZE))
    assert more.kind == ("FAILED_PRECONDITION", "WRONG_STATE")
    assert more.metadata == {"state": "READY"}
    other = refused(send, stub, name, finish(total_size=SIZE - 1))
    assert other.kind == ("DATA_LOSS", "DIGEST_MISMATCH")
    assert f"{name} was already finished" in other.message
    assert send(stub, name, finish()) == ready == client.get_dataset(name)


def test_a_resumed_upload_of_other_bytes_fails_as_it_is_read_back(client, stub):
    name = client.create_dataset("mixed", format="csv").name
    send(stub, name, part(0, 9))
    accepted = send(stub, name, part(9, SIZE), finish(sha256=bytes(32)))
    assert accepted.state in (dataset_pb2.DATASET_STATE_INGESTING, dataset_pb2.DATASET_STATE_FAILED)
    with pytest.raises(InvalidDataError, match=f"have SHA-256 {hashlib.sha256(DATA).hexdigest()}, but finish_write"):
        client.wait_dataset(name)
    client.delete_dataset(name)


def parquet(**columns) -> bytes:
    target = io.BytesIO()
    pq.write_table(pa.table(columns), target)
    return target.getvalue()


@pytest.mark.parametrize(
    ("form", "data", "line", "row", "column", "words"),
    [
        ("csv", b"a,b\n1,2\n3\n4,5,6\n", 3, 2, "", "has 1 fields, the header has 2"),
        ("csv", b"a,b,a\n1,2,3\n", 1, 0, "a", "columns 1 and 3 have the same name"),
        ("csv", b"a,,c\n1,2,3\n", 1, 0, "", "column 2 has no name"),
        ("csv", b"a,b\n1,x\n2,caf\xe9\n", 3, 0, "", "not utf-8; declare the file's encoding"),
        ("csv", b"a,b\n", 0, 0, "", "has no rows"),
        ("csv", b"1.5,x\n2.5,y\n", 1, 0, "", "--no-header"),
        ("csv", b"Report\na;b\n1;2\n", 1, 0, "", "--skip-rows 1"),
        ("feather", b"ARROW1" + bytes(20), 0, 0, "", "the Arrow file is not complete"),
        ("parquet", parquet(a=[1], n=[[1, 2]]), 0, 0, "n", "is of type list"),
        ("parquet", parquet(a=list(range(1000)))[:900], 0, 0, "", "not a complete Parquet file"),
        ("json", b'{"a":1}\n{"a":\n', 2, 0, "", "is not a JSON object"),
    ],
)
def test_bytes_that_are_not_a_table_fail_with_the_place(client, stub, *, form, data, line, row, column, words):
    name = client.create_dataset(format=form).name
    send(stub, name, *whole(data))
    with pytest.raises(InvalidDataError, match=words) as caught:
        client.wait_dataset(name)
    first = caught.value.problems[0]
    assert (first.line, first.row, first.column) == (line, row, column)
    failed = client.get_dataset(name)
    assert (failed.state, failed.row_count) == (dataset_pb2.DATASET_STATE_FAILED, 0)
    assert not failed.HasField("schema")
    refusal = refused(send, stub, name, part(0, 9, write_offset=len(data)))
    assert (refusal.kind, refusal.metadata) == (("FAILED_PRECONDITION", "WRONG_STATE"), {"state": "FAILED"})
    client.delete_dataset(name)


@pytest.mark.parametrize(
    ("declared", "line", "column", "words"),
    [
        ({"columns": [Column(name="ctiy", kind=schema_pb2.COLUMN_KIND_ID)]}, 0, "ctiy", "did you mean 'city'"),
        ({"primary_key": "city"}, 4, "city", "repeats the primary key of row 1"),
    ],
)
def test_data_that_break_a_declaration_fail_with_the_place(client, stub, *, declared, line, column, words):
    name = client.create_dataset("declared", format="csv", **declared).name
    send(stub, name, part(0, SIZE), finish())
    with pytest.raises(InvalidDataError, match=words) as caught:
        client.wait_dataset(name)
    assert [(problem.line, problem.column) for problem in caught.value.problems] == [(line, column)]
    client.delete_dataset(name)


def csv(**wrong) -> dataset_pb2.Dataset:
    return dataset_pb2.Dataset(format=dataset_pb2.DataFormat(csv=dataset_pb2.CsvFormat(**wrong)))


def declares(**wrong) -> dataset_pb2.Dataset:
    fine = Column(name="b")
    return dataset_pb2.Dataset(format=CSV, column_overrides=[fine, Column(**{"name": "a", **wrong})])


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"parent": ""}, "parent"),
        ({"parent": "projects/Upper"}, "parent"),
        ({"dataset_id": "9lives"}, "dataset_id"),
        ({"dataset_id": "x" * 64}, "dataset_id"),
        ({"request_id": "once"}, "request_id"),
        ({"dataset": None}, "dataset.format"),
        ({"dataset": dataset_pb2.Dataset(format=dataset_pb2.DataFormat())}, "dataset.format"),
        ({"dataset": csv(delimiter="ab")}, "dataset.format.csv.delimiter"),
        ({"dataset": csv(delimiter="\0")}, "dataset.format.csv.delimiter"),
        ({"dataset": csv(delimiter=",", quote=",")}, "dataset.format.csv.quote"),
        ({"dataset": csv(comment="#####")}, "dataset.format.csv.comment"),
        ({"dataset": csv(skip_rows=-1)}, "dataset.format.csv.skip_rows"),
        ({"dataset": csv(decimal=",", group_separator=",")}, "dataset.format.csv.group_separator"),
        ({"dataset": dataset_pb2.Dataset(format=CSV, primary_key="a", no_primary_key=True)}, "dataset.no_primary_key"),
        ({"dataset": csv(encoding="ebcdic")}, "dataset.format.csv.encoding"),
        ({"dataset": declares(name="")}, "dataset.column_overrides[1].name"),
        ({"dataset": declares(name="b")}, "dataset.column_overrides[1].name"),
        ({"dataset": declares(kind=99)}, "dataset.column_overrides[1].kind"),
        ({"dataset": declares(kind=1, data_type=5)}, "dataset.column_overrides[1].kind"),
        ({"dataset": declares(id_pattern="[", kind=5)}, "dataset.column_overrides[1].id_pattern"),
        ({"dataset": declares(datetime_format="%Q")}, "dataset.column_overrides[1].datetime_format"),
        ({"dataset": declares(domain=Domain(decimals=20))}, "dataset.column_overrides[1].domain.decimals"),
        (
            {"dataset": declares(domain=Domain(minimum=Value(int64_value=3), maximum=Value(int64_value=1)))},
            "dataset.column_overrides[1].domain.minimum",
        ),
        ({"dataset": declares(domain=Domain(minimum=Value()))}, "dataset.column_overrides[1].domain.minimum"),
        (
            # An instant that cannot be converted to UTC.
            {"dataset": declares(domain=Domain(minimum=Value(timestamp_value="0001-01-01T00:00:00+14:00")))},
            "dataset.column_overrides[1].domain.minimum",
        ),
        (
            {"dataset": declares(domain=Domain(categories=[Value(decimal_value="1e3")]))},
            "dataset.column_overrides[1].domain.categories[0]",
        ),
        (
            {"dataset": dataset_pb2.Dataset(format=CSV, column_overrides=[Column(name="a", kind=1)], primary_key="a")},
            "dataset.primary_key",
        ),
    ],
)
def test_a_dataset_that_cannot_be_is_not_created(stub, wrong, field):
    requested = dataset_service_pb2.CreateDatasetRequest(
        **{"parent": "projects/bad-creations", "dataset": dataset_pb2.Dataset(format=CSV), **wrong}
    )
    refusal = refused(stub.CreateDataset, requested)
    assert refusal.kind == INVALID
    assert refusal.fields == [field]
    assert refusal.message.startswith(f"{field}: ")
    assert not stub.ListDatasets(dataset_service_pb2.ListDatasetsRequest(parent="projects/bad-creations")).datasets


def test_a_repeated_request_has_the_same_answer_and_another_body_is_refused(client, stub):
    request_id = str(uuid.uuid4())
    requested = dataset_service_pb2.CreateDatasetRequest(
        parent=PROJECT, dataset=dataset_pb2.Dataset(format=CSV), request_id=request_id
    )
    created = stub.CreateDataset(requested)
    assert stub.CreateDataset(requested) == created
    before = [dataset.name for dataset in client.list_datasets()]
    requested.dataset.primary_key = "age"
    refusal = refused(stub.CreateDataset, requested)
    assert refusal.kind == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")
    assert request_id in refusal.message
    taken = dataset_service_pb2.CreateDatasetRequest(
        parent=PROJECT, dataset_id=created.name.rsplit("/", 1)[1], dataset=dataset_pb2.Dataset(format=CSV)
    )
    exists = refused(stub.CreateDataset, taken)
    assert exists.kind == ("ALREADY_EXISTS", "RESOURCE_EXISTS")
    assert exists.metadata == {"name": created.name}
    assert [dataset.name for dataset in client.list_datasets()] == before
    assert stub.GetDataset(dataset_service_pb2.GetDatasetRequest(name=created.name)) == created


@pytest.mark.parametrize(
    "name", ["", "flights", "projects/p/datasets/", "projects/p/datasets/a/b", "projects/p/models/m"]
)
def test_a_malformed_name_is_refused_with_the_expected_form(stub, name):
    for refusal in (
        refused(stub.GetDataset, dataset_service_pb2.GetDatasetRequest(name=name)),
        refused(stub.DeleteDataset, dataset_service_pb2.DeleteDatasetRequest(name=name)),
    ):
        assert (refusal.kind, refusal.fields) == (INVALID, ["name"])
        assert "projects/{project}/datasets/{dataset}" in refusal.message


def test_a_dataset_that_is_not_there(stub):
    name = f"{PROJECT}/datasets/none"
    for refusal in (
        refused(stub.GetDataset, dataset_service_pb2.GetDatasetRequest(name=name)),
        refused(stub.DeleteDataset, dataset_service_pb2.DeleteDatasetRequest(name=name)),
    ):
        assert (refusal.kind, refusal.metadata) == (("NOT_FOUND", "RESOURCE_NOT_FOUND"), {"name": name})


def test_pages_that_cannot_be(client, stub):
    client.create_dataset(format="csv")
    client.create_dataset(format="csv")
    first = stub.ListDatasets(dataset_service_pb2.ListDatasetsRequest(parent=PROJECT, page_size=1))
    for wrong, field in (
        ({"page_size": 0}, "page_size"),
        ({"page_size": 1001}, "page_size"),
        ({"page_token": "?"}, "page_token"),
        ({"page_token": first.next_page_token, "parent": "projects/other"}, "page_token"),
        ({"parent": ""}, "parent"),
    ):
        request = dataset_service_pb2.ListDatasetsRequest(**{"parent": PROJECT, **wrong})
        refusal = refused(stub.ListDatasets, request)
        assert (refusal.kind, refusal.fields) == (INVALID, [field])
