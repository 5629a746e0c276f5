"""Requests made to do harm, to a real trainer and a real sampler: each gets a right answer or a typed refusal.

Thousands of them: every field of every request changed in every way, several at once, requests at random, and bytes
that are no request. After each test both services answer as ever, have not grown, and have logged no fault.
"""

import contextlib
import hashlib
import json
import os
import random
import re
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

import google_crc32c
import grpc
import pyarrow as pa
import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status

from rowmint.client import Client
from rowmint.errors import Reason
from rowmint.rpc.status import CODES, DOMAIN
from rowmint.v1 import (
    condition_pb2,
    dataset_pb2,
    dataset_service_pb2,
    model_admin_service_pb2,
    model_service_pb2,
    sampling_pb2,
    sampling_service_pb2,
    schema_pb2,
    training_job_pb2,
    training_service_pb2,
    value_pb2,
)
from tests.acceptance.processes import ServiceProcess, Services, customers_csv, wait_until, working_child
from tests.acceptance.refusals import refused
from tests.faults.golden_home import golden_version, publish_golden
from tests.faults.process_figures import anonymous_bytes
from tests.golden.make import SCHEMA
from tests.golden.streams import PROJECT
from tests.hostile.messages import LONG, TEXTS, Case, at_random, cut, noise, one_changed, some_changed

DEADLINE = 60.0
"""Seconds after which a call hangs."""
READ = 3
"""Responses of a stream that are read before it is cancelled."""
TRAILERS = 8 * 1024
"""Bytes that a client takes of trailers; an entry has 32 beside its name and value (RFC 9113, section 6.5.2)."""
GROWTH = 150 << 20
NEVER = {Reason.INTERNAL, Reason.UNAVAILABLE, Reason.DATA_LOSS, Reason.FENCED}
"""Reasons of refusals that no request is to blame for: nothing is lost and nobody else writes."""
STREAMS = 16
PARENT = f"projects/{PROJECT}"
MODEL = f"{PARENT}/models/independent"
VERSION = golden_version("independent")
TABLE, OPEN, VICTIM = (f"{PARENT}/datasets/{name}" for name in ("table", "open", "victim"))
LIVE, ENDED = (f"{PARENT}/trainingJobs/{name}" for name in ("live", "ended"))
UPLOAD = b"a,b\n1,2\n3,4\n"

Value = value_pb2.Value
Sample = sampling_pb2.SampleRequest
Complete = sampling_pb2.CompleteRowsRequest
Write = dataset_service_pb2.WriteDatasetRequest


@dataclass(frozen=True)
class Method:
    """A method and where it is offered."""

    path: str
    request: type[Message]
    response: type[Message]
    streams: tuple[bool, bool]

    def call(self, channel: grpc.Channel, bodies: Sequence[bytes]) -> Any:
        """Begin a call with requests that are bytes already, and return its responses."""
        arity = "_".join("stream" if many else "unary" for many in self.streams)
        make = getattr(channel, arity)(self.path, lambda body: body, self.response.FromString)
        request = iter(bodies) if self.streams[0] else bodies[0]
        found = make(request, timeout=DEADLINE)
        return found if self.streams[1] else iter([found])


def _methods() -> dict[str, Method]:
    files = (
        dataset_service_pb2, training_service_pb2, model_admin_service_pb2, model_service_pb2, sampling_service_pb2,
    )  # fmt: skip
    return {
        f"{service.name}.{method.name}": Method(
            f"/{service.full_name}/{method.name}",
            GetMessageClass(method.input_type),
            GetMessageClass(method.output_type),
            (method.client_streaming, method.server_streaming),
        )
        for file in files
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


METHODS = _methods()
AT = [
    (place, name)
    for name in METHODS
    for place in {"ModelService": ("trainer", "sampler"), "SamplingService": ("sampler",)}.get(
        name.partition(".")[0], ("trainer",)
    )
]


def equals(column: str, **value: Any) -> condition_pb2.Predicate:
    return condition_pb2.Predicate(column=column, equals=Value(**value))


def crc(data: bytes) -> int:
    return google_crc32c.value(data)


WHERE = condition_pb2.Where(
    predicates=[
        condition_pb2.Predicate(
            column="age",
            range=condition_pb2.ValueRange(
                minimum=Value(int64_value=1), maximum=Value(int64_value=98), minimum_exclusive=True
            ),
        ),
        equals("city", string_value="Oslo"),
        condition_pb2.Predicate(
            column="grade", any_of=condition_pb2.ValueSet(values=[Value(int64_value=1), Value(int64_value=2)])
        ),
        condition_pb2.Predicate(column="flag", is_null=False),
    ]
)
SAMPLE = Sample(
    model=VERSION, rows=20, start_row=0, end_row=20, where=WHERE, columns=["id", "city", "age", "grade", "flag"],
    seed=7, format=sampling_pb2.ROW_FORMAT_NDJSON, framing=sampling_pb2.FRAMING_FILE, message_bytes=16384,
)  # fmt: skip
CONFIG = Complete(
    config=sampling_pb2.CompleteRowsConfig(model=VERSION, seed=1, start_row=5, tolerance=0.1, candidates=256)
)
ROWS = Complete(
    rows=sampling_pb2.PartialRows(
        rows=[sampling_pb2.PartialRow(known={"city": Value(string_value="Oslo")}), sampling_pb2.PartialRow()]
    )
)
DATASET = dataset_pb2.Dataset(
    format=dataset_pb2.DataFormat(csv=dataset_pb2.CsvFormat(delimiter=",", quote='"', null_values=["NA"])),
    column_overrides=[
        schema_pb2.ColumnSpec(
            name="age",
            kind=schema_pb2.COLUMN_KIND_NUMERICAL,
            data_type=schema_pb2.DATA_TYPE_INT64,
            domain=schema_pb2.ColumnDomain(minimum=Value(int64_value=0), maximum=Value(int64_value=120), nullable=True),
        )
    ],
    primary_key="customer",
)
JOB = training_job_pb2.TrainingJob(
    dataset=TABLE,
    model=f"{PARENT}/models/made",
    config=training_job_pb2.TrainingConfig(
        ctgan=training_job_pb2.CtganConfig(
            epochs=2, batch_size=20, generator_dim=[8], discriminator_dim=[8], embedding_dim=4, pac=2
        ),
        seed=1,
        threads=1,
        column_overrides=[
            training_job_pb2.ColumnOverride(
                column="city", kind=schema_pb2.COLUMN_KIND_CATEGORICAL, max_categories=5, min_category_count=1
            )
        ],
    ),
)
BASES: dict[str, list[Message]] = {
    "DatasetService.CreateDataset": [
        dataset_service_pb2.CreateDatasetRequest(parent=PARENT, dataset_id="new", dataset=DATASET)
    ],
    "DatasetService.WriteDataset": [
        Write(name=OPEN, write_offset=0, data=UPLOAD, crc32c=crc(UPLOAD)),
        Write(
            name=OPEN,
            data=UPLOAD,
            crc32c=crc(UPLOAD),
            finish_write=dataset_service_pb2.FinishWrite(total_size=len(UPLOAD), sha256=b"?" * 32),
        ),
    ],
    "DatasetService.GetDataset": [dataset_service_pb2.GetDatasetRequest(name=TABLE)],
    "DatasetService.ListDatasets": [dataset_service_pb2.ListDatasetsRequest(parent=PARENT, page_size=2)],
    "DatasetService.DeleteDataset": [dataset_service_pb2.DeleteDatasetRequest(name=VICTIM)],
    "TrainingService.CreateTrainingJob": [
        training_service_pb2.CreateTrainingJobRequest(parent=PARENT, training_job=JOB),
        # Refused at last, as the dataset is not READY: an estimate would begin a process.
        training_service_pb2.CreateTrainingJobRequest(
            parent=PARENT,
            training_job=training_job_pb2.TrainingJob(
                dataset=OPEN,
                model=JOB.model,
                config=training_job_pb2.TrainingConfig(independent=training_job_pb2.IndependentConfig()),
            ),
            validate_only=True,
        ),
    ],
    "TrainingService.GetTrainingJob": [training_service_pb2.GetTrainingJobRequest(name=LIVE)],
    "TrainingService.ListTrainingJobs": [training_service_pb2.ListTrainingJobsRequest(parent=PARENT, page_size=2)],
    "TrainingService.CancelTrainingJob": [training_service_pb2.CancelTrainingJobRequest(name=ENDED)],
    "TrainingService.WatchTrainingJob": [
        training_service_pb2.WatchTrainingJobRequest(name=ENDED, after_sequence=0),
        training_service_pb2.WatchTrainingJobRequest(name=ENDED),
    ],
    "ModelAdminService.SetModelAlias": [
        model_admin_service_pb2.SetModelAliasRequest(model=MODEL, alias="best", version=1)
    ],
    "ModelAdminService.DeleteModelVersion": [
        model_admin_service_pb2.DeleteModelVersionRequest(name=golden_version("tvae"))
    ],
    "ModelAdminService.UndeleteModelVersion": [model_admin_service_pb2.UndeleteModelVersionRequest(name=VERSION)],
    "ModelService.GetModel": [model_service_pb2.GetModelRequest(name=MODEL)],
    "ModelService.ListModels": [model_service_pb2.ListModelsRequest(parent=PARENT, page_size=2)],
    "ModelService.GetModelVersion": [model_service_pb2.GetModelVersionRequest(name=VERSION)],
    "ModelService.ListModelVersions": [model_service_pb2.ListModelVersionsRequest(parent=MODEL, page_size=2)],
    "SamplingService.Sample": [SAMPLE],
    "SamplingService.CompleteRows": [CONFIG, ROWS],
    "SamplingService.PlanSample": [sampling_pb2.PlanSampleRequest(sample=SAMPLE, parts=3)],
}
"""Proper requests of every method."""
WORDS: dict[str, Sequence[Any]] = {
    "parent": [PARENT, PARENT, MODEL, "projects/none"],
    "dataset_id": ["new", "", "table"],
    "dataset": [TABLE, OPEN, f"{PARENT}/datasets/none"],
    "training_job_id": ["", "live", "another"],
    "request_id": ["", "123e4567-e89b-42d3-a456-426614174000"],
    "page_size": [1, 2, 1000],
    "page_token": [""],
    "model": [VERSION, MODEL, f"{MODEL}@latest", golden_version("ctgan")],
    "version": [1, 2],
    "alias": ["best", "latest"],
    "primary_key": ["", "customer", "id"],
    "column": ["city", "age", "grade", "flag", "price", "day", "seen", "instant", "tier", "id", "badge", "void"],
    "columns": ["city", "age", "id", "instant", "price", "badge"],
    "known": ["city", "age", "grade", "flag", "price", "day", "seen", "instant", "tier", "id", "badge", "void"],
    "string_value": ["Oslo", "Zürich", "", "N0000000000000,a"],
    "int64_value": [1, 2, 3, 50],
    "double_value": [1.0, 2.5, 50.0],
    "decimal_value": ["0.5", "12.50", "-1.0"],
    "date_value": ["2024-02-29", "2000-01-01"],
    "timestamp_value": ["2013-01-01T05:00:00", "2013-01-01T05:00:00Z"],
    "rows": [10, 100, 5000, 10**15],
    "start_row": [0, 1, 2048],
    "end_row": [10, 100, 2048, 4096],
    "message_bytes": [16384, 1 << 20],
    "expected_model_digest": [b""],
    "expected_plan_digest": [b""],
    "parts": [1, 2, 1024],
    "candidates": [256],
    "tolerance": [0.1, 10.0],
    "write_offset": [0],
    "name": [OPEN],
    "delimiter": [",", ";"],
    "quote": ['"', "'"],
    "encoding": ["utf-8", "latin-1", "utf-16"],
    "batch_size": [20],
    "threads": [1],
    "epochs": [1, 2],
    "seed": [0, 1, 2**64 - 1],
    "device": [0, 1, 2],
    "holdout_fraction": [0.0, 0.1],
    "validate_only": [False],
}
NAMES: dict[str, Sequence[str]] = {
    "DatasetService.GetDataset": [TABLE, OPEN, f"{PARENT}/datasets/none"],
    "DatasetService.DeleteDataset": [VICTIM, f"{PARENT}/datasets/none"],
    "TrainingService": [LIVE, ENDED, f"{PARENT}/trainingJobs/none"],
    "TrainingService.CancelTrainingJob": [ENDED],
    "ModelAdminService": [golden_version("tvae"), f"{MODEL}/versions/2"],
    "ModelService": [MODEL, VERSION, f"{MODEL}@latest", f"{MODEL}@none", f"{PARENT}/models/none"],
}
"""Words for `name`, by method or service."""
SLOW = {"SamplingService.CompleteRows": {"rows.rows"}, "TrainingService.CreateTrainingJob": {"validate_only"}}
"""Fields that are changed in the last base only: an estimate begins a process, thousands of rows are completed."""


@dataclass
class World:
    """The services that all of it is sent to.

    Attributes:
        home: Their folder.
        trainer: The trainer; its only worker is stopped midway in a fit, so that no other job is taken up.
        sampler: The sampler, which serves few streams: one that leaks is missed soon.
        channels: A channel to each.
        sizes: Bytes of each that were its own when it had answered everything once.
        read: Characters of each log that are known already.
    """

    home: Path
    trainer: ServiceProcess
    sampler: ServiceProcess
    channels: dict[str, grpc.Channel]
    sizes: dict[str, int] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)

    def send(self, name: str, request: Message, place: str = "trainer") -> Message:
        """Make a unary call that is to be answered."""
        return next(METHODS[name].call(self.channels[place], [request.SerializeToString()]))

    def responses(self, name: str, *requests: Message) -> list[Any]:
        """Read a stream to its end."""
        place = "sampler" if name.startswith("Sampling") else "trainer"
        return list(METHODS[name].call(self.channels[place], [request.SerializeToString() for request in requests]))

    def write(self, *requests: Message) -> dataset_pb2.Dataset:
        (found,) = self.responses("DatasetService.WriteDataset", *requests)
        return found.dataset

    def create_dataset(self, name: str) -> None:
        """Make a dataset that waits for its bytes, anew where there is one."""
        with contextlib.suppress(grpc.RpcError):
            self.send("DatasetService.DeleteDataset", dataset_service_pb2.DeleteDatasetRequest(name=name))
        request = dataset_service_pb2.CreateDatasetRequest(
            parent=PARENT, dataset_id=name.rpartition("/")[2], dataset=dataset_pb2.Dataset(format=DATASET.format)
        )
        self.send("DatasetService.CreateDataset", request)

    def dataset(self, name: str) -> dataset_pb2.Dataset:
        return self.send("DatasetService.GetDataset", dataset_service_pb2.GetDatasetRequest(name=name))

    def cancel(self, name: str) -> int:
        request = training_service_pb2.CancelTrainingJobRequest(name=name)
        return self.send("TrainingService.CancelTrainingJob", request).state


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("requests")
    publish_golden(home)
    services = Services(home)
    try:
        trainer = services.trainer(ROWMINT_LEASE_SECONDS="600", ROWMINT_HEARTBEAT_SECONDS="1")
        sampler = services.sampler(ROWMINT_MAX_STREAMS=str(STREAMS))
        with Client(trainer.address, sampler.address, PROJECT) as client:
            client.upload(customers_csv(60), "table", format="csv", primary_key="customer")
        channels = {
            "trainer": grpc.insecure_channel(trainer.address),
            "sampler": grpc.insecure_channel(sampler.address),
        }
        found = World(home, trainer, sampler, channels)
        found.create_dataset(VICTIM)
        found.create_dataset(OPEN)
        with stopped_worker(found):
            for place, name in AT:
                for base in BASES[name]:
                    assert tried(found, place, name, Case("base", base.SerializeToString())) == []
            found.sizes = {place: anonymous_bytes(getattr(found, place).pid) for place in channels}
            yield found
        for channel in channels.values():
            channel.close()
    finally:
        services.close()


@contextlib.contextmanager
def stopped_worker(world: World) -> Iterator[None]:
    """Keep the trainer's only worker at a job without end that takes no time; others are PENDING meanwhile."""
    create = "TrainingService.CreateTrainingJob"
    live = training_service_pb2.CreateTrainingJobRequest(parent=PARENT, training_job_id="live", training_job=JOB)
    live.training_job.config.ctgan.epochs = 100_000
    world.send(create, live)
    found: list[int] = []

    def taken_up() -> bool:
        with contextlib.suppress(ValueError):  # no worker has it yet
            found.append(working_child(world.trainer.pid))
        return bool(found)

    wait_until(taken_up, "the beginning of the job")
    (pid,) = found
    wait_until(lambda: _stopped_between_writes(pid, world.home), "a stop between two writes")
    try:
        ended = training_service_pb2.CreateTrainingJobRequest(parent=PARENT, training_job_id="ended", training_job=JOB)
        world.send(create, ended)
        assert world.cancel(ENDED) == training_job_pb2.JOB_STATE_CANCELLED
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _stopped_between_writes(pid: int, home: Path) -> bool:
    """Stop a worker where it keeps nobody from writing; else let it go on."""
    os.kill(pid, signal.SIGSTOP)
    for name in ("data.db", "models.db"):
        with contextlib.closing(sqlite3.connect(home / "registry" / name, timeout=0.1)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                os.kill(pid, signal.SIGCONT)
                return False
    return True


@pytest.fixture(autouse=True)
def unharmed(world: World) -> Iterator[None]:
    """After each test both services give right answers, have not grown, and have logged no fault."""
    yield
    digests = json.loads((Path(__file__).parents[1] / "golden" / "digests.json").read_text())
    inner = {"rows": 9000, "start_row": 2048, "end_row": 4096}
    request = Sample(model=VERSION, seed=2**64 - 1, format=sampling_pb2.ROW_FORMAT_CSV, **inner)
    data = b"".join(response.data.data for response in world.responses("SamplingService.Sample", request))
    assert hashlib.sha256(data).hexdigest() == digests["independent, all, inner, csv"]
    table = world.dataset(TABLE)
    assert (table.row_count, table.sha256) == (60, hashlib.sha256(customers_csv(60)).digest())
    for place, before in world.sizes.items():
        service = getattr(world, place)
        log = service.log.read_text()[world.read.get(place, 0) :]
        world.read[place] = world.read.get(place, 0) + len(log)
        assert not re.search("Traceback|call failed", log), log[-4000:]
        assert anonymous_bytes(service.pid) - before < GROWTH


def tried(world: World, place: str, name: str, case: Case) -> list[str]:
    """Make a call and return what is wrong with its outcome."""
    method = METHODS[name]
    request = _parsed(method.request, case.body)
    if name == "DatasetService.WriteDataset" and world.dataset(OPEN).committed_size:
        world.create_dataset(OPEN)
    bodies = [case.body]
    if name == "SamplingService.CompleteRows" and request is not None:
        bodies = [case.body, ROWS.SerializeToString()]
        if request.WhichOneof("message") == "rows":
            bodies = [CONFIG.SerializeToString(), case.body]
    most = READ
    if request is not None and method.request.DESCRIPTOR.name == "WatchTrainingJobRequest" and request.name == LIVE:
        most = max(0, min(READ, 2 - request.after_sequence))  # it was created and taken up, and no more comes
    responses: list[Any] = []
    try:
        call = method.call(world.channels[place], bodies)
        responses.extend(islice(call, most if method.streams[1] else 1))
        if method.streams[1]:
            call.cancel()
    except grpc.RpcError as error:
        wrong = wrong_refusal(world, method.request.DESCRIPTOR, error, readable=request is not None)
    else:
        wrong = wrong_answer(world, name, request, responses)
    return [f"{case.label}: {wrong}"] if wrong else []


def _parsed(kind: type[Message], body: bytes) -> Any:
    try:
        return kind.FromString(body)
    except DecodeError:
        return None


def wrong_refusal(world: World, request: Descriptor, error: grpc.RpcError, *, readable: bool) -> str:
    """Return what is wrong with a refusal, of a request that is `readable` or not; empty where nothing is."""
    said = f"{error.code()}: {error.details()}"[:500]
    status = rpc_status.from_call(error)
    if status is None:
        return f"says no more than {said}"
    info, violations = ErrorInfo(), []
    for detail in status.details:
        bad = BadRequest()
        if detail.Unpack(bad):
            violations += bad.field_violations
        detail.Unpack(info)
    if info.domain != DOMAIN or info.reason not in set(Reason) - NEVER:
        return f"has reason {info.domain}/{info.reason}: {said}"
    if error.code() is not CODES[Reason(info.reason)]:
        return f"has another code than {info.reason} has: {said}"
    if info.reason == Reason.INVALID_FIELD and bool(violations) is not readable:
        return f"names fields {violations}: {said}"
    strange = [violation.field for violation in violations if not names_a_field(request, violation.field)]
    if strange:
        return f"names fields that {request.name} does not have: {strange}"
    if not status.message or "\n" in status.message or not all(violation.description for violation in violations):
        return f"does not say one line: {status.message!r}"
    if re.search(rf"Traceback|site-packages|File \"|{world.home}|{Path(__file__).parents[2]}", str(status)):
        return f"tells of the inside: {said}"
    entries = [("grpc-message", quote(status.message)), *error.trailing_metadata()]
    size = sum(32 + len(key) + len(value) * (4 / 3 if isinstance(value, bytes) else 1) for key, value in entries)
    return "" if size < TRAILERS else f"has trailers of {size:.0f} bytes"


def names_a_field(message: Descriptor, path: str) -> bool:
    """Tell whether a path is that of a field of a message, such as `where.predicates[1].equals`."""
    match = re.match(r"([a-z0-9_]+)(\[\d+\]|\[(['\"]).*?(?<!\\)\3\])?(?:\.|$)", path)
    if match is None:
        return path.endswith("...")  # a caller's long word in it is cut
    name, index, rest = match[1], match[2], path[match.end() :]
    if name in message.oneofs_by_name:
        return not rest and not index
    found = message.fields_by_name.get(name)
    if found is None:
        return False
    if index and not found.is_repeated:
        # A row is counted from the stream's beginning, over all messages.
        if found.message_type is not sampling_pb2.PartialRows.DESCRIPTOR:
            return False
        found = sampling_pb2.PartialRows.DESCRIPTOR.fields_by_name["rows"]
    return not rest or (found.message_type is not None and names_a_field(found.message_type, rest))


def wrong_answer(world: World, name: str, request: Any, responses: list[Any]) -> str:
    """Return in what an answer is not what the request asked for; and undo what it did."""
    try:
        ANSWERS[name](world, request, responses)
    except AssertionError as error:
        return f"{error} in answer to {str(request)[:500]!r}: {str(responses)[:500]!r}"
    return ""


def _same_name(_: World, request: Any, responses: list[Any]) -> None:
    assert [response.name for response in responses] == [request.name]


def _page(_: World, request: Any, responses: list[Any]) -> None:
    (response,) = responses
    (items,) = (
        (value for found, value in response.ListFields() if found.is_repeated) if response.ListFields() else ([],)
    )
    assert len(items) <= (request.page_size if request.HasField("page_size") else 50)
    assert all(item.name.startswith(f"{request.parent}/") for item in items)


def _created_dataset(world: World, request: Any, responses: list[Any]) -> None:
    (made,) = responses
    asked = request.dataset
    world.send("DatasetService.DeleteDataset", dataset_service_pb2.DeleteDatasetRequest(name=made.name))
    assert made.name.startswith(f"{request.parent}/datasets/{request.dataset_id}")
    assert made.state == dataset_pb2.DATASET_STATE_UPLOADING
    assert made.format.WhichOneof("format") == asked.format.WhichOneof("format")
    for said, value in asked.format.csv.ListFields():
        assert getattr(made.format.csv, said.name) == value
    assert [column.name for column in made.column_overrides] == [column.name for column in asked.column_overrides]
    assert (made.primary_key, made.committed_size, made.row_count) == (asked.primary_key, 0, 0)


def _written(world: World, request: Any, responses: list[Any]) -> None:
    (response,) = responses
    assert response.dataset.name == request.name
    if request.name == OPEN:
        assert response.dataset.committed_size == len(request.data)


def _deleted_dataset(world: World, request: Any, responses: list[Any]) -> None:
    refusal = refused(lambda: world.dataset(request.name))
    world.create_dataset(request.name)
    assert refusal.reason == Reason.RESOURCE_NOT_FOUND


def _created_job(world: World, request: Any, responses: list[Any]) -> None:
    ((made, estimate),) = ((response.training_job, response.estimate) for response in responses)
    asked = request.training_job
    if request.validate_only:
        assert made.name == ""
        assert estimate.peak_memory_bytes > 0
    else:
        cancelled = world.cancel(made.name)
        assert made.name.startswith(f"{request.parent}/trainingJobs/{request.training_job_id}")
        assert cancelled == training_job_pb2.JOB_STATE_CANCELLED
    assert (made.dataset, made.model) == (asked.dataset, asked.model)
    family = asked.config.WhichOneof("family")
    assert made.config.WhichOneof("family") == family
    for ours, theirs in ((made.config, asked.config), (getattr(made.config, family), getattr(asked.config, family))):
        for said, value in theirs.ListFields():
            if said.message_type is None and said.name != "device":
                assert getattr(ours, said.name) == value
    assert len(made.config.column_overrides) == len(asked.config.column_overrides)


def _watched(world: World, request: Any, responses: list[Any]) -> None:
    numbers = [event.sequence for event in responses]
    first = request.after_sequence + 1
    assert numbers == list(range(first, first + len(numbers)))


def _set_alias(world: World, request: Any, responses: list[Any]) -> None:
    (made,) = responses
    if request.HasField("version"):
        unset = model_admin_service_pb2.SetModelAliasRequest(model=request.model, alias=request.alias)
        world.send("ModelAdminService.SetModelAlias", unset)
    assert made.name == request.model
    assert made.aliases.get(request.alias, 0) == request.version


def _deleted_version(world: World, request: Any, responses: list[Any]) -> None:
    undelete = model_admin_service_pb2.UndeleteModelVersionRequest(name=request.name)
    read = model_service_pb2.GetModelVersionRequest(name=request.name)
    refusal = refused(lambda: world.send("ModelService.GetModelVersion", read))
    found = world.send("ModelAdminService.UndeleteModelVersion", undelete)
    assert refusal.reason == Reason.RESOURCE_NOT_FOUND
    assert found.name == request.name


def _read_version(_: World, request: Any, responses: list[Any]) -> None:
    (found,) = responses
    assert found.name.partition("/versions")[0] == re.split("@|/versions", request.name)[0]
    assert hashlib.sha256(found.manifest_json.encode()).digest() == found.manifest_digest


def _header(request: Sample, header: Any) -> None:
    stop = request.end_row if request.HasField("end_row") else request.rows
    assert (header.rows, header.start_row, header.end_row) == (request.rows, request.start_row, stop)
    assert header.seed == request.seed or not request.HasField("seed")
    assert header.model_version.partition("/versions")[0] == re.split("@|/versions", request.model)[0]
    assert [column.name for column in header.schema.columns] == list(request.columns or SCHEMA.names)


def _sampled(_: World, request: Sample, responses: list[Any]) -> None:
    first, *rest = responses
    _header(request, first.header)
    row, data, made = first.header.start_row, b"", 0
    ended = bool(rest) and rest[-1].WhichOneof("message") == "summary"
    for part in (response.data for response in (rest[:-1] if ended else rest)):
        assert (part.first_row, part.crc32c) == (row, crc(part.data))
        row += part.row_count
        made += part.row_count - sum(gap.end_row - gap.start_row for gap in part.missing)
        assert request.allow_partial or not part.missing
        assert all(len(batch.columns) == len(first.header.schema.columns) for batch in part.batches)
        data += part.data
    if ended:
        summary = rest[-1].summary
        assert (summary.complete, summary.rows_delivered) == (True, made)
        assert row == first.header.end_row or request.allow_partial
    if request.format == sampling_pb2.ROW_FORMAT_NDJSON:
        rows = [json.loads(line) for line in data.splitlines()]
        assert len(rows) == made
        assert all(_holds(predicate, found) for predicate in request.where.predicates for found in rows)
    if request.format <= sampling_pb2.ROW_FORMAT_ARROW_STREAM and request.framing != sampling_pb2.FRAMING_CONTINUE:
        assert not data or pa.ipc.open_stream(data).read_all().num_rows == made


def _holds(predicate: condition_pb2.Predicate, row: dict[str, Any]) -> bool:
    """Tell whether a row is as it was asked for, where that is plain: of texts, whole numbers and truth values."""
    if predicate.column not in row or predicate.column not in ("city", "grade", "flag", "age"):
        return True
    cell, test = row[predicate.column], predicate.WhichOneof("test")
    if test == "is_null":
        return (cell is None) is predicate.is_null
    if test == "range":
        low, high = (_cell(getattr(predicate.range, name), end) for name, end in (("minimum", -1e9), ("maximum", 1e9)))
        return low <= cell <= high
    values = [predicate.equals] if test == "equals" else predicate.any_of.values
    return any(_same(cell, value) for value in values)


def _cell(value: Value, default: float) -> float:
    kind = value.WhichOneof("kind")
    return default if kind is None else float(getattr(value, kind))


def _same(cell: Any, value: Value) -> bool:
    kind = value.WhichOneof("kind")
    if kind == "null_value":
        return cell is None
    sent = getattr(value, kind)
    return float(sent) == cell if kind == "decimal_value" else sent == cell


def _planned(_: World, request: Any, responses: list[Any]) -> None:
    (plan,) = responses
    _header(request.sample, plan.header)
    edges = [plan.header.start_row, *(part.end_row for part in plan.parts)]
    assert [part.start_row for part in plan.parts] == edges[:-1]
    assert edges[-1] == plan.header.end_row
    assert 1 <= len(plan.parts) <= (request.parts if request.HasField("parts") else 1)
    assert all(part.expected_plan_digest == plan.header.plan_digest for part in plan.parts)
    assert 0 <= plan.acceptance <= 1


def _completed(_: World, request: Complete, responses: list[Any]) -> None:
    first, *rest = responses
    config = request if request.WhichOneof("message") == "config" else CONFIG
    sent = request if request.WhichOneof("message") == "rows" else ROWS
    names = [column.name for column in first.header.schema.columns]
    assert names == list(SCHEMA.names)
    assert first.header.start_row == config.config.start_row
    done = [row for response in rest for row in response.rows.rows]
    assert [row.row for row in done] == [first.header.start_row + index for index in range(len(done))]
    for row, known in zip(done, sent.rows.rows, strict=False):
        assert len(row.values) == len(names)
        assert all(row.values[names.index(name)] == value for name, value in known.known.items())
    if rest and rest[-1].WhichOneof("message") == "summary":
        assert rest[-1].summary.complete
        assert len(done) == len(sent.rows.rows)


ANSWERS: dict[str, Callable[[World, Any, list[Any]], None]] = {
    "DatasetService.CreateDataset": _created_dataset,
    "DatasetService.WriteDataset": _written,
    "DatasetService.GetDataset": _same_name,
    "DatasetService.ListDatasets": _page,
    "DatasetService.DeleteDataset": _deleted_dataset,
    "TrainingService.CreateTrainingJob": _created_job,
    "TrainingService.GetTrainingJob": _same_name,
    "TrainingService.ListTrainingJobs": _page,
    "TrainingService.CancelTrainingJob": _same_name,
    "TrainingService.WatchTrainingJob": _watched,
    "ModelAdminService.SetModelAlias": _set_alias,
    "ModelAdminService.DeleteModelVersion": _deleted_version,
    "ModelAdminService.UndeleteModelVersion": _same_name,
    "ModelService.GetModel": _same_name,
    "ModelService.ListModels": _page,
    "ModelService.GetModelVersion": _read_version,
    "ModelService.ListModelVersions": _page,
    "SamplingService.Sample": _sampled,
    "SamplingService.CompleteRows": _completed,
    "SamplingService.PlanSample": _planned,
}


def outcomes(world: World, place: str, name: str, cases: Iterable[Case]) -> list[str]:
    return [wrong for case in cases for wrong in tried(world, place, name, case)]


@pytest.mark.parametrize(("place", "name"), AT)
def test_a_request_with_one_field_changed_is_answered_or_refused(world: World, place: str, name: str) -> None:
    for base in BASES[name]:
        spared = () if base is BASES[name][-1] else SLOW.get(name, ())
        assert outcomes(world, place, name, one_changed(base, spared)) == []


@pytest.mark.parametrize(("place", "name"), AT)
def test_requests_at_random_are_answered_or_refused(world: World, place: str, name: str) -> None:
    draw = random.Random(f"{place} {name}")
    words = {**WORDS, "name": NAMES.get(name, NAMES.get(name.partition(".")[0], WORDS["name"]))}
    several = (case for base in BASES[name] for case in some_changed(draw, base, 30, SLOW.get(name, ())))
    assert outcomes(world, place, name, several) == []
    assert outcomes(world, place, name, at_random(draw, METHODS[name].request, words, 50)) == []


@pytest.mark.parametrize(("place", "name"), AT)
def test_bytes_that_are_no_request_harm_nothing(world: World, place: str, name: str) -> None:
    draw = random.Random(f"{place} {name}")
    for base in BASES[name]:
        assert outcomes(world, place, name, cut(base)) == []
        assert outcomes(world, place, name, noise(draw, base, 20)) == []


def test_a_message_above_the_limit_is_not_even_read(world: World) -> None:
    codes = []
    for place, name in AT:
        with pytest.raises(grpc.RpcError) as raised:
            list(METHODS[name].call(world.channels[place], [bytes((4 << 20) + 1)]))
        codes.append(raised.value.code())
    assert codes == [grpc.StatusCode.RESOURCE_EXHAUSTED] * len(AT)


@pytest.mark.parametrize("key", ["\0", "customer\0", "x" * 257])
def test_a_primary_key_that_no_registry_can_keep_is_refused(world: World, key: str) -> None:
    request = dataset_service_pb2.CreateDatasetRequest(
        parent=PARENT, dataset=dataset_pb2.Dataset(format=DATASET.format, primary_key=key)
    )
    refusal = refused(world.send, "DatasetService.CreateDataset", request)
    assert (refusal.reason, refusal.fields) == (INVALID, ["dataset.primary_key"])


def test_every_method_is_tried() -> None:
    assert set(METHODS) == set(BASES) == set(ANSWERS)


PIECES = [UPLOAD[:3], UPLOAD[3:4], UPLOAD[4:9], UPLOAD[9:]]


def piece(number: int, **wrong: Any) -> Write:
    offset = sum(map(len, PIECES[:number]))
    own = {
        "name": "" if number else OPEN,
        "write_offset": offset,
        "data": PIECES[number],
        "crc32c": crc(PIECES[number]),
    }
    return Write(**{**own, **wrong})


def finish(size: int = len(UPLOAD), sha256: bytes = hashlib.sha256(UPLOAD).digest()) -> dict[str, Any]:
    return {"finish_write": dataset_service_pb2.FinishWrite(total_size=size, sha256=sha256)}


NONE = bytes(32)
INVALID = "INVALID_FIELD"
NO_DATA = {"data": b"", "crc32c": None}
BAD_UPLOADS: dict[str, tuple[list[Write], str, list[str], int]] = {
    "nothing at all": ([], "EMPTY_STREAM", [], 0),
    "no name": ([piece(0, name="")], INVALID, ["name"], 0),
    "swapped": ([piece(0), piece(2), piece(1)], "WRITE_OFFSET", [], 3),
    "twice": ([piece(0), piece(1), piece(1)], "WRITE_OFFSET", [], 4),
    "from the middle": ([piece(2, name=OPEN)], "WRITE_OFFSET", [], 0),
    "before the beginning": ([piece(0, write_offset=-1)], "WRITE_OFFSET", [], 0),
    "at the end of numbers": ([piece(0), piece(1, write_offset=2**63 - 1)], "WRITE_OFFSET", [], 3),
    "empty at a wrong place": ([piece(0), piece(1, write_offset=9, **NO_DATA)], "WRITE_OFFSET", [], 3),
    "another name": ([piece(0), piece(1, name=VICTIM)], INVALID, ["name"], 3),
    "no crc": ([piece(0), piece(1, crc32c=None)], INVALID, ["crc32c"], 3),
    "wrong crc": ([piece(0), piece(1, crc32c=1)], "CHECKSUM", [], 3),
    "wrong crc of nothing": ([piece(0), piece(1, data=b"", crc32c=1), piece(2)], "WRITE_OFFSET", [], 3),
    "too large": ([piece(0, data=bytes((2 << 20) + 1))], INVALID, ["data"], 0),
    "finish twice": ([piece(0), piece(1, **finish()), piece(2, **finish())], INVALID, ["finish_write"], 4),
    "more after finish": ([piece(0, **finish()), piece(1)], INVALID, ["finish_write"], 3),
    "finish too early": ([piece(0), piece(1, **finish())], "DIGEST_MISMATCH", [], 4),
    "finish before all": ([piece(0, **NO_DATA, **finish())], "DIGEST_MISMATCH", [], 0),
    "negative size": ([piece(0, **finish(size=-1))], INVALID, ["finish_write.total_size"], 3),
    "short digest": ([piece(0, **finish(sha256=b"x"))], INVALID, ["finish_write.sha256"], 3),
    "empty finish": ([piece(0, finish_write={})], INVALID, ["finish_write.sha256"], 3),
    "to a finished one": ([piece(0, name=TABLE)], "WRONG_STATE", [], 0),
    "to none": ([piece(0, name=f"{PARENT}/datasets/none")], "RESOURCE_NOT_FOUND", [], 0),
}
"""Streams of an upload, the reason of the refusal, the fields it names, and the bytes that are safe then."""


def stored(world: World) -> bytes:
    """Send what is missing of `UPLOAD` and return the digest of what is stored then; the dataset stays UPLOADING."""
    told: list[str] = []

    def sent() -> bool:
        rest = UPLOAD[world.dataset(OPEN).committed_size :]
        last = Write(
            name=OPEN, write_offset=len(UPLOAD) - len(rest), data=rest, crc32c=crc(rest), **finish(sha256=NONE)
        )
        refusal = refused(world.write, last)
        # What was sent before a call was cancelled may still be on its way to the store.
        assert refusal.reason in ("WRITE_OFFSET", "DIGEST_MISMATCH")
        told.extend(refusal.metadata[key] for key in ("sha256",) if key in refusal.metadata)
        return bool(told)

    wait_until(sent, "the end of the upload")
    return bytes.fromhex(told[0])


@pytest.mark.parametrize("case", BAD_UPLOADS)
def test_an_upload_out_of_order_is_refused_and_can_be_gone_on_with(world: World, case: str) -> None:
    messages, reason, fields, committed = BAD_UPLOADS[case]
    world.create_dataset(OPEN)
    refusal = refused(world.write, *messages)
    assert (refusal.reason, refusal.fields) == (reason, fields)
    assert refusal.code == CODES[Reason(reason)].name
    assert world.dataset(OPEN).committed_size == committed
    assert stored(world) == hashlib.sha256(UPLOAD).digest()


@pytest.mark.parametrize("count", range(len(PIECES) + 1))
def test_an_upload_closed_or_cancelled_at_each_place_is_gone_on_with(world: World, count: int) -> None:
    sent = [piece(number) for number in range(count)]
    world.create_dataset(OPEN)
    if sent:
        assert world.write(*sent).committed_size == sum(map(len, PIECES[:count]))
        assert stored(world) == hashlib.sha256(UPLOAD).digest()
    world.create_dataset(OPEN)
    with left_open(world, "DatasetService.WriteDataset", sent):
        # Whether the last messages still arrive nobody knows, but no half of one does.
        places = {sum(map(len, PIECES[:number])) for number in range(count + 1)}
        assert world.dataset(OPEN).committed_size in places
    assert world.dataset(OPEN).committed_size in places
    assert stored(world) == hashlib.sha256(UPLOAD).digest()


def test_an_upload_that_ended_is_ended_again_but_not_otherwise(world: World) -> None:
    world.create_dataset(VICTIM)
    whole = Write(name=VICTIM, data=UPLOAD, crc32c=crc(UPLOAD), **finish())
    again = Write(name=VICTIM, write_offset=len(UPLOAD), **finish())
    sizes = [world.write(message).committed_size for message in (whole, again, again)]
    other = refused(world.write, Write(name=VICTIM, write_offset=len(UPLOAD), **finish(sha256=NONE)))
    more = refused(world.write, Write(name=VICTIM, write_offset=len(UPLOAD), data=b"5", crc32c=crc(b"5")))
    world.create_dataset(VICTIM)
    assert sizes == [len(UPLOAD)] * 3
    assert [other.reason, more.reason] == ["DIGEST_MISMATCH", "WRONG_STATE"]


@contextlib.contextmanager
def left_open(world: World, name: str, requests: Sequence[Message], read: int = 0) -> Iterator[list[Any]]:
    """Send some requests, leave the stream open, read so many responses, and cancel the call afterwards."""
    taken, done = threading.Event(), threading.Event()

    def bodies() -> Iterator[bytes]:
        yield from (request.SerializeToString() for request in requests)
        taken.set()
        done.wait(DEADLINE)

    place = "sampler" if name.startswith("Sampling") else "trainer"
    method = METHODS[name]
    arity = "stream_stream" if method.streams[1] else "stream_unary"
    make = getattr(world.channels[place], arity)(method.path, lambda body: body, method.response.FromString)
    call = make(bodies(), timeout=DEADLINE) if method.streams[1] else make.future(bodies(), timeout=DEADLINE)
    try:
        assert taken.wait(DEADLINE)
        yield list(islice(call, read)) if read else []
    finally:
        call.cancel()
        done.set()


def known_row(column: str, **value: Any) -> Complete:
    return Complete(rows={"rows": [{"known": {column: Value(**value)}}]})


@pytest.mark.parametrize(
    ("messages", "reason", "fields"),
    [
        ([], "EMPTY_STREAM", []),
        ([Complete()], INVALID, ["config"]),
        ([ROWS], INVALID, ["config"]),
        ([ROWS, CONFIG], INVALID, ["config"]),
        ([CONFIG, CONFIG], INVALID, ["rows"]),
        ([CONFIG, ROWS, CONFIG], INVALID, ["rows"]),
        ([CONFIG, ROWS, Complete()], INVALID, ["rows"]),
        ([CONFIG, ROWS, known_row("price", double_value=float("nan"))], INVALID, ["rows[7].known['price']"]),
        ([CONFIG, ROWS, known_row("no\0pe", int64_value=1)], "COLUMN_NOT_FOUND", []),
    ],
)  # fmt: skip
def test_a_completion_out_of_order_is_refused(
    world: World, messages: list[Complete], reason: str, fields: list
) -> None:
    refusal = refused(world.responses, "SamplingService.CompleteRows", *messages)
    assert (refusal.reason, refusal.fields) == (reason, fields)


def test_a_completion_closed_or_cancelled_at_each_place_leaves_no_stream_behind(world: World) -> None:
    name = "SamplingService.CompleteRows"
    whole = world.responses(name, CONFIG, *[ROWS] * 3)
    made = [row for response in whole for row in response.rows.rows]
    assert [row.row for row in made] == list(range(5, 11))
    for count in range(4):
        *parts, last = world.responses(name, CONFIG, *[ROWS] * count)
        assert [row for part in parts for row in part.rows.rows] == made[: 2 * count]
        assert (last.summary.complete, last.summary.rows_delivered) == (True, 2 * count)
    for count in range(5):
        for read in range(count + 1):
            with left_open(world, name, [CONFIG, *[ROWS] * 3][:count], read) as responses:
                assert responses == whole[:read]
    assert_all_streams_free(world)


def test_streams_of_rows_cancelled_at_each_place_leave_none_behind(world: World) -> None:
    request = Sample(model=VERSION, rows=10**6, seed=3, message_bytes=16384, format=sampling_pb2.ROW_FORMAT_CSV)
    method, body = METHODS["SamplingService.Sample"], request.SerializeToString()
    first: list[Any] = []
    for read in [*range(8), *[1] * STREAMS]:
        call = method.call(world.channels["sampler"], [body])
        responses = list(islice(call, read))
        call.cancel()
        first = max(first, responses, key=len)
        assert responses == first[:read]
    assert_all_streams_free(world)


def assert_all_streams_free(world: World) -> None:
    """Wait until the sampler serves as many streams at once as it is to: none that was cancelled is counted still."""
    request = Sample(model=VERSION, rows=10**6, message_bytes=16384).SerializeToString()

    def all_served() -> bool:
        calls = [METHODS["SamplingService.Sample"].call(world.channels["sampler"], [request]) for _ in range(STREAMS)]
        try:
            return [next(call).WhichOneof("message") for call in calls] == ["header"] * STREAMS
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # noqa: PT017 - some streams are ending still
            return False
        finally:
            for call in calls:
                call.cancel()

    wait_until(all_served, "the end of all streams")


@pytest.mark.parametrize(
    ("after", "numbers"), [(None, [1, 2]), (0, [1, 2]), (1, [2]), (2, []), (3, []), (2**31, []), (2**63 - 1, [])]
)
def test_the_events_of_an_ended_job_after_odd_numbers(world: World, after: int | None, numbers: list[int]) -> None:
    request = training_service_pb2.WatchTrainingJobRequest(name=ENDED, after_sequence=after)
    events = world.responses("TrainingService.WatchTrainingJob", request)
    assert [event.sequence for event in events] == numbers


@pytest.mark.parametrize("after", [-1, -(2**63)])
def test_the_events_after_a_number_below_none_are_refused(world: World, after: int) -> None:
    for name in (LIVE, ENDED, ""):
        request = training_service_pb2.WatchTrainingJobRequest(name=name, after_sequence=after)
        refusal = refused(world.responses, "TrainingService.WatchTrainingJob", request)
        assert (refusal.reason, refusal.fields) == (INVALID, ["after_sequence"])


def test_a_live_job_watched_by_many_that_leave_at_each_place(world: World) -> None:
    method = METHODS["TrainingService.WatchTrainingJob"]
    for after, read in [(0, 0), (0, 1), (0, 2), (1, 1), (2, 0), (2**63 - 1, 0)] * 4:
        request = training_service_pb2.WatchTrainingJobRequest(name=LIVE, after_sequence=after)
        call = method.call(world.channels["trainer"], [request.SerializeToString()])
        assert [event.sequence for event in islice(call, read)] == list(range(after + 1, after + 1 + read))
        call.cancel()


@pytest.mark.parametrize("place", ["trainer", "sampler"])
def test_health_is_asked_of_anything(world: World, place: str) -> None:
    path, kind = "/grpc.health.v1.Health/", health_pb2.HealthCheckRequest
    known = {"", "rowmint.v1.ModelService"}
    check = Method(f"{path}Check", kind, health_pb2.HealthCheckResponse, (False, False))
    watch = Method(f"{path}Watch", kind, health_pb2.HealthCheckResponse, (False, True))
    for text in (*known, *TEXTS[1:]):
        bodies = [kind(service=text).SerializeToString()]
        call = watch.call(world.channels[place], bodies)
        expected = "SERVING" if text in known else "SERVICE_UNKNOWN"
        assert health_pb2.HealthCheckResponse.ServingStatus.Name(next(call).status) == expected
        call.cancel()
        if text in known:
            assert next(check.call(world.channels[place], bodies)).status == health_pb2.HealthCheckResponse.SERVING
            continue
        with pytest.raises(grpc.RpcError) as raised:
            check.call(world.channels[place], bodies)
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("place", ["trainer", "sampler"])
def test_reflection_is_asked_of_anything(world: World, place: str) -> None:
    kind = reflection_pb2.ServerReflectionRequest
    path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    method = Method(path, kind, reflection_pb2.ServerReflectionResponse, (True, True))
    proper = [
        kind(list_services=""),
        kind(file_by_filename="rowmint/v1/value.proto"),
        kind(file_containing_symbol="rowmint.v1.ModelService"),
        kind(all_extension_numbers_of_type="rowmint.v1.Value"),
        kind(
            file_containing_extension=reflection_pb2.ExtensionRequest(
                containing_type="rowmint.v1.Value", extension_number=1
            )
        ),
    ]
    asked = [case.body for base in proper for case in one_changed(base) if len(case.body) < LONG]
    answers = list(method.call(world.channels[place], asked))
    assert len(answers) == len(asked)
    assert all(answer.WhichOneof("message_response") for answer in answers)
    (listed,) = method.call(world.channels[place], [proper[0].SerializeToString()])
    assert "rowmint.v1.ModelService" in {service.name for service in listed.list_services_response.service}
