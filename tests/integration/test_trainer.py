"""One real trainer: what it refuses, repeats, lists and streams, and what becomes of a job when the trainer ends."""

import contextlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread
from typing import Any
from uuid import uuid4

import grpc
import pandas as pd
import pyarrow as pa
import pytest
from google.protobuf.json_format import ParseDict
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rowmint.client import Client
from rowmint.errors import InvalidDataError, ResourceNotFoundError
from rowmint.names import TrainingJobName
from rowmint.registry import JobRecord, JobState, open_registry
from rowmint.v1 import (
    dataset_pb2,
    dataset_service_pb2,
    dataset_service_pb2_grpc,
    schema_pb2,
    training_job_pb2,
    training_service_pb2,
    training_service_pb2_grpc,
)
from tests.acceptance.processes import ServiceProcess, Services, children_of, customers_csv, working_child
from tests.acceptance.refusals import Refusal, refused
from tests.waiting import wait_until

pytestmark = pytest.mark.system

PARENT = "projects/default"
# A crashed worker is detected soon, and a busy machine is not taken for a crashed worker.
LEASE = {"ROWMINT_LEASE_SECONDS": "2", "ROWMINT_HEARTBEAT_SECONDS": "0.2"}
LONG = {
    "family": "ctgan",
    "epochs": 200,
    "batch_size": 100,
    "generator_dim": [32],
    "discriminator_dim": [32],
    "threads": 1,
    "seed": 5,
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    found = Services(tmp_path_factory.mktemp("home"))
    found.trainer(**LEASE)
    yield found
    found.close()


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    found = Services(tmp_path)
    yield found
    found.close()


@pytest.fixture(scope="module")
def client(shared: Services) -> Iterator[Client]:
    with client_of(shared.started[0]) as found:
        yield found


@pytest.fixture(scope="module")
def channel(shared: Services) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(shared.started[0].address) as found:
        yield found


@pytest.fixture(scope="module")
def datasets(channel: grpc.Channel) -> dataset_service_pb2_grpc.DatasetServiceStub:
    return dataset_service_pb2_grpc.DatasetServiceStub(channel)


@pytest.fixture(scope="module")
def training(channel: grpc.Channel) -> training_service_pb2_grpc.TrainingServiceStub:
    return training_service_pb2_grpc.TrainingServiceStub(channel)


@pytest.fixture(scope="module")
def dataset(client: Client) -> dataset_pb2.Dataset:
    return client.upload(customers_csv(300), "customers", format="csv", primary_key="customer")


def client_of(trainer: ServiceProcess) -> Client:
    return Client(trainer.address, trainer.address)


def dataset_request(**fields: Any) -> dataset_service_pb2.CreateDatasetRequest:
    body = {"parent": PARENT, "dataset": {"format": {"csv": {}}}, **fields}
    return ParseDict(body, dataset_service_pb2.CreateDatasetRequest())


def job_request(dataset: str, config: dict[str, Any] | None = None, **fields: Any):
    job = {"dataset": dataset, "model": f"{PARENT}/models/m", "config": config or {"independent": {}}}
    body = {"parent": PARENT, "training_job": job, **fields}
    return ParseDict(body, training_service_pb2.CreateTrainingJobRequest())


@pytest.mark.parametrize(
    ("column", "at", "message"),
    [
        (schema_pb2.ColumnSpec(name="plann"), "plann", "there is no column 'plann'; did you mean 'plan'"),
        (
            schema_pb2.ColumnSpec(name="city", domain=schema_pb2.ColumnDomain(decimals=2)),
            "",
            "column 'city': decimals are declared",
        ),
    ],
)
def test_a_declaration_that_does_not_fit_fails_the_dataset(client: Client, column, at, message):
    with pytest.raises(InvalidDataError, match=r"plann|city"):
        client.upload(customers_csv(20), f"undeclared-{column.name}", format="csv", columns=[column])
    found = client.get_dataset(f"undeclared-{column.name}")
    assert found.state == dataset_pb2.DATASET_STATE_FAILED
    (problem,) = found.errors
    assert problem.column == at
    assert message in problem.message


def test_a_table_is_the_same_from_every_kind_of_source(client: Client, tmp_path: Path):
    frame = pd.DataFrame({"city": ["Oslo", "Lima", "Köln"] * 4, "n": [number * 7 % 5 for number in range(12)]})
    frame.to_csv(tmp_path / "a.csv.gz", sep=";", index=False, encoding="utf-8-sig")
    with pa.output_stream(tmp_path / "a.json.zst", compression="zstd") as file:
        file.write(frame.to_json().encode())
    frame.to_feather(tmp_path / "a.feather", compression="lz4")
    frame.to_excel(tmp_path / "a.xlsx", index=False)
    sources: list[Any] = [frame, *(tmp_path / name for name in ("a.csv.gz", "a.json.zst", "a.feather", "a.xlsx"))]
    policy = dataset_pb2.INFINITE_POLICY_MISSING
    found = [client.upload(source, no_primary_key=True, infinite=policy) for source in sources]
    columns = [(schema_pb2.COLUMN_KIND_CATEGORICAL, "city"), (schema_pb2.COLUMN_KIND_NUMERICAL, "n")]
    for dataset in found:
        assert [(column.kind, column.name) for column in dataset.schema.columns] == columns
        assert (dataset.row_count, dataset.no_primary_key) == (12, True)
        assert dataset.infinite == policy
    assert [dataset.dialect.delimiter for dataset in found] == ["", ";", "", "", ""]
    assert [[notice.code for notice in dataset.notices] for dataset in found] == [[], ["DIALECT"], ["DIALECT"], [], []]


def test_a_table_is_uploaded_once(client: Client):
    data = customers_csv(40)
    found: list[dataset_pb2.DatasetState] = []

    def upload(source: bytes, **options: Any) -> dataset_pb2.Dataset:
        return client.upload_once(source, "once", format="csv", on_found=lambda one: found.append(one.state), **options)

    first = upload(data, primary_key="customer")
    assert upload(data, primary_key="customer") == first
    assert found == [dataset_pb2.DATASET_STATE_READY]
    assert upload(data, no_primary_key=True).name != first.name
    for _ in range(2):
        with pytest.raises(InvalidDataError, match=r"projects/.*/datasets/once-"):
            upload(b"a,b\n1,2,3\n")
    assert found[1:] == [dataset_pb2.DATASET_STATE_FAILED]


def test_a_table_uploaded_by_two_at_once_is_one_dataset(client: Client):
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: client.upload_once(customers_csv(30_000), "both", format="csv"), range(2)))
    assert [one.state for one in both] == [dataset_pb2.DATASET_STATE_READY] * 2
    assert both[0].name == both[1].name


def test_a_dataset_may_be_deleted_while_it_is_read(client: Client, shared: Services):
    data = customers_csv(5_000)
    for _ in range(3):
        gone = client.upload(data, format="csv", wait=False)
        client.delete_dataset(gone.name)
    # What is uploaded after them is done after them.
    client.delete_dataset(client.upload(data, format="csv", primary_key="customer").name)
    registry = open_registry(f"sqlite:///{shared.home}/registry", read_only=True)

    def left() -> set[str]:
        """Return the datasets that are gone and still have an object."""
        folders = (file.relative_to(shared.home / "data" / "datasets").parts[0] for file in objects())
        return {uid for uid in folders if not known(uid)}

    def objects() -> list[Path]:
        return [path for path in (shared.home / "data" / "datasets").rglob("*") if path.is_file()]

    def known(uid: str) -> bool:
        try:
            return bool(registry.datasets.get_by_uid(uid))
        except ResourceNotFoundError:
            return False

    wait_until(lambda: not left(), "the end of all objects of deleted datasets")
    registry.close()


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"ctgan": {"epochs": 0}}, "ctgan.epochs"),
        ({"ctgan": {"batch_size": 105, "pac": 5}}, "ctgan.batch_size"),
        ({"independent": {}, "device": 77}, "device"),
        ({"independent": {}, "column_overrides": [{"column": "city", "kind": 99}]}, "column_overrides[0].kind"),
        (
            {"independent": {}, "column_overrides": [{"column": "city", "high_cardinality": 99}]},
            "column_overrides[0].high_cardinality",
        ),
        ({"seed": "1"}, "family"),
    ],
)
def test_a_wrong_field_of_the_configuration_is_named(training, dataset, config, field):
    for only in (False, True):
        said = refused(training.CreateTrainingJob, job_request(dataset.name, config, validate_only=only))
        assert said.kind == ("INVALID_ARGUMENT", "INVALID_FIELD")
        assert said.fields == [f"training_job.config.{field}"]


def test_an_unknown_kind_of_column_is_named(datasets):
    wrong = {"format": {"csv": {}}, "column_overrides": [{"name": "a", "kind": 99}]}
    said = refused(datasets.CreateDataset, dataset_request(dataset=wrong))
    assert said.fields == ["dataset.column_overrides[0].kind"]


def test_validating_creates_nothing(training, dataset, client: Client):
    before = [job.name for job in client.list_jobs()], [model.name for model in client.list_models()]
    answer = training.CreateTrainingJob(
        job_request(dataset.name, training_job_id="only-validated", validate_only=True, request_id=str(uuid4()))
    )
    assert answer.training_job.name == ""
    assert answer.training_job.config.HasField("seed")
    assert answer.estimate.encoded_width > 0
    assert ([job.name for job in client.list_jobs()], [model.name for model in client.list_models()]) == before


def test_a_repeated_request_creates_one_dataset(datasets):
    request = dataset_request(request_id=str(uuid4()))
    made = datasets.CreateDataset(request)
    assert datasets.CreateDataset(request) == made
    request.dataset.primary_key = "a"
    assert refused(datasets.CreateDataset, request).reason == "REQUEST_ID_REUSED"


def test_an_ended_job_is_watched_and_requested_again(training, client: Client):
    ready = client.upload(customers_csv(50), format="csv", primary_key="customer")
    request = job_request(ready.name, request_id=str(uuid4()))
    made = training.CreateTrainingJob(request).training_job

    def watch(**fields: int) -> list[training_job_pb2.TrainingEvent]:
        request = training_service_pb2.WatchTrainingJobRequest(name=made.name, **fields)
        return list(training.WatchTrainingJob(request, timeout=60))

    live = watch()
    assert [event.sequence for event in live] == list(range(1, len(live) + 1))
    assert live[-1].state == training_job_pb2.JOB_STATE_SUCCEEDED
    assert watch() == live
    assert watch(after_sequence=2) == live[2:]
    assert watch(after_sequence=len(live)) == []
    assert watch(after_sequence=10**12) == []
    wrong = training_service_pb2.WatchTrainingJobRequest(name=made.name, after_sequence=-1)
    assert refused(lambda: list(training.WatchTrainingJob(wrong))).fields == ["after_sequence"]

    # The same request has the same answer also where it would be refused by now.
    client.delete_dataset(ready.name)
    again = training.CreateTrainingJob(request).training_job
    assert (again.name, again.config, again.model_version) == (made.name, made.config, live[-1].model_version)
    request.training_job.config.threads = made.config.threads
    assert refused(training.CreateTrainingJob, request).reason == "REQUEST_ID_REUSED"


def test_lists_come_in_pages(training, datasets, dataset):
    parent = "projects/paged"
    names = [
        datasets.CreateDataset(dataset_request(parent=parent, dataset_id=f"d{number}")).name for number in range(5)
    ]
    found, token, sizes = [], "", []
    while True:
        request = dataset_service_pb2.ListDatasetsRequest(parent=parent, page_size=2, page_token=token)
        page = datasets.ListDatasets(request)
        found += [one.name for one in page.datasets]
        sizes.append(len(page.datasets))
        token = page.next_page_token
        if not token:
            break
    assert (found, sizes) == (names[::-1], [2, 2, 1])
    for wrong in ({"page_size": 0}, {"page_size": 1001}, {"page_token": "next"}):
        request = dataset_service_pb2.ListDatasetsRequest(parent=parent, **wrong)
        assert refused(datasets.ListDatasets, request).fields == list(wrong)

    made = [training.CreateTrainingJob(job_request(dataset.name)).training_job.name for _ in range(2)]
    request = training_service_pb2.ListTrainingJobsRequest(parent=PARENT, page_size=1)
    first = training.ListTrainingJobs(request)
    request.page_token = first.next_page_token
    assert [job.name for page in (first, training.ListTrainingJobs(request)) for job in page.training_jobs] == made[
        ::-1
    ]
    # A token of one list is none of another.
    request = dataset_service_pb2.ListDatasetsRequest(parent=parent, page_token=first.next_page_token)
    assert refused(datasets.ListDatasets, request).fields == ["page_token"]
    for name in made:
        with contextlib.suppress(grpc.RpcError):  # it may have ended
            training.CancelTrainingJob(training_service_pb2.CancelTrainingJobRequest(name=name))


def test_health_can_be_watched(channel: grpc.Channel):
    for service in ("", "rowmint.v1.TrainingService"):
        request = health_pb2.HealthCheckRequest(service=service)
        call = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=10)
        assert next(call).status == health_pb2.HealthCheckResponse.SERVING
        call.cancel()


def job_of(services: Services, name: str) -> JobRecord:
    registry = open_registry(f"sqlite:///{services.home}/registry", read_only=True)
    try:
        return registry.jobs.get(TrainingJobName.parse(name))
    finally:
        registry.close()


def progress_of(trainer: ServiceProcess, name: str, attempt: int) -> int:
    """Wait until an attempt has ended an epoch; return the worker that did."""
    with client_of(trainer) as client:
        for event in client.watch(name):
            if event.HasField("progress") and event.attempt == attempt:
                return working_child(trainer.pid)
    raise AssertionError("the job has ended")


def gone(children: list[int]) -> bool:
    return not any(Path(f"/proc/{child}").exists() for child in children)


def test_a_job_outlives_a_terminated_and_a_killed_trainer(services: Services):
    trainer = services.trainer(**LEASE, ROWMINT_GRACE_SECONDS="60")
    with client_of(trainer) as client:
        dataset = client.upload(customers_csv(300), "customers", format="csv", primary_key="customer")
        # Not at its end before it was interrupted twice.
        name = client.train(dataset, "long", **LONG).name
    progress_of(trainer, name, attempt=1)
    children = children_of(trainer.pid)
    said: list[Refusal] = []

    def watch() -> None:
        with grpc.insecure_channel(trainer.address) as channel:
            stub = training_service_pb2_grpc.TrainingServiceStub(channel)
            call = stub.WatchTrainingJob(training_service_pb2.WatchTrainingJobRequest(name=name))
            next(call)
            watching.set()
            said.append(refused(lambda: list(call)))

    watching = Event()
    watcher = Thread(target=watch)
    watcher.start()
    assert watching.wait(30)
    # Well within the grace: a stream that would last as long as the job does not delay it.
    assert trainer.terminate() == 0
    watcher.join(30)
    assert said[0].kind == ("UNAVAILABLE", "UNAVAILABLE")
    assert gone(children)
    given_back = job_of(services, name)
    assert (given_back.state, given_back.attempt, given_back.holder) == (JobState.PENDING, 1, "")
    assert [path.name for path in (services.home / "scratch").iterdir()] == [".lock"]

    trainer = services.trainer(**LEASE)
    worker = progress_of(trainer, name, attempt=2)
    children = children_of(trainer.pid)
    assert worker in children
    trainer.kill()
    wait_until(lambda: gone(children), "the workers' end")
    assert job_of(services, name).state == JobState.RUNNING
    assert len(list((services.home / "scratch").glob("worker-*"))) == 1

    trainer = services.trainer(**LEASE)
    with client_of(trainer) as client:
        events = list(client.watch(name))
        assert [version.version for version in client.list_versions("long")] == [1]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert (events[-1].state, events[-1].attempt) == (training_job_pb2.JOB_STATE_SUCCEEDED, 3)
    assert "given back by a worker that shut down" in [event.message for event in events]
    assert trainer.terminate() == 0
    assert [path.name for path in (services.home / "scratch").iterdir()] == [".lock"]


AUTO = {"family": "auto", "families": ["independent", "tvae"], "threads": 1, "seed": 5}


def messages_of(trainer: ServiceProcess, name: str, attempt: int, until: str) -> list[str]:
    """Return the messages of an attempt up to one that begins with `until`."""
    found = []
    with client_of(trainer) as client:
        for event in client.watch(name):
            if event.attempt == attempt:
                found.append(event.message)
                if event.message.startswith(until):
                    return found
    raise AssertionError(f"the job has ended without {until!r}")


def test_a_choice_among_families_outlives_a_killed_trainer_and_keeps_what_is_done(services: Services):
    trainer = services.trainer(**LEASE)
    with client_of(trainer) as client:
        dataset = client.upload(customers_csv(1500), "customers", format="csv", primary_key="customer")
        name = client.train(dataset, "best", **AUTO).name
    assert "independent (1 of 2): exporting the model" in messages_of(trainer, name, 1, "tvae (2 of 2): fitting")
    children = children_of(trainer.pid)
    trainer.kill()
    wait_until(lambda: gone(children), "the workers' end")

    trainer = services.trainer(**LEASE)
    messages = messages_of(trainer, name, 2, "tvae (2 of 2): exporting")
    assert "resumed: independent had been done" in messages
    assert not any(message.startswith("independent (1 of 2)") for message in messages)
    with client_of(trainer) as client:
        job = client.wait_job(name)
        version = client.get_version(job.model_version)
        assert job.config.WhichOneof("family") == "auto"
    training = json.loads(version.manifest_json)["training"]
    assert [(one["family"], one["outcome"]) for one in training["auto"]["candidates"]] == [
        ("independent", "fitted"),
        ("tvae", "fitted"),
    ]
    assert version.family == training["family"] == training["auto"]["chosen"]
    assert trainer.terminate() == 0


def test_a_choice_among_families_is_cancelled(shared: Services, client: Client, dataset: dataset_pb2.Dataset):
    # Enough candidates' epochs that it does not end before it is cancelled.
    name = client.train(dataset, "cancelled", **{**AUTO, "families": ["independent", "ctgan", "tvae"]}).name
    messages_of(shared.started[0], name, 1, "independent fitted")
    client.cancel_job(name)
    assert list(client.watch(name))[-1].state == training_job_pb2.JOB_STATE_CANCELLED
    assert client.get_job(name).model_version == ""
