"""A registry or store that is restarted, killed, stopped or frozen under load: nothing is lost, and all recovers."""

import hashlib
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import grpc
import pytest

from rowmint.client import Client, RowmintCallError
from rowmint.names import DatasetName, TrainingJobName
from rowmint.registry import DatasetState
from rowmint.v1 import training_job_pb2 as pb
from tests.acceptance.processes import Services, children_of
from tests.crash.scenario import CSV, patient_client, training_config
from tests.crash.storage import Storage
from tests.faults.gated_source import GatedSource
from tests.faults.raw_streams import opened, retry_delays
from tests.postgres_server import PostgresServer
from tests.swift_server import SwiftServer
from tests.waiting import wait_until

DIGEST = hashlib.sha256(CSV).digest()


@pytest.fixture
def storage(tmp_path, postgres, swift) -> Storage:
    return Storage(tmp_path, postgres.create_database(), swift.create_bucket(), swift.options)


def rows(client: Client, version: str) -> bytes:
    with client.sample(version, 500, seed=7, format="csv") as stream:
        return b"".join(stream.chunks())


def publish(client: Client, model: str, family: str = "independent") -> str:
    job = client.train("customers", model, family=family, seed=1, threads=1)
    return str(client.wait_job(job.name, 120).model_version)


def restart(server: PostgresServer | SwiftServer) -> None:
    server.restart()


def kill(server: PostgresServer | SwiftServer) -> None:
    server.kill()
    server.start()


@pytest.mark.usefixtures("small_messages")
@pytest.mark.parametrize(
    ("what", "how"), [pytest.param("registry", restart, marks=pytest.mark.full), ("registry", kill), ("store", kill)]
)
def test_an_upload_a_fit_and_streams_outlive_it(
    storage: Storage,
    services: Services,
    postgres: PostgresServer,
    swift: SwiftServer,
    *,
    how: Callable[..., None],
    what: str,
) -> None:
    # A lease that outlasts the outage: what is at work goes on, rather than being taken up again.
    settings = {"ROWMINT_LEASE_SECONDS": "30", "ROWMINT_CHECKPOINT_SECONDS": "0.5"}
    trainer = services.start("trainer_service", storage.trainer(**settings))
    sampler = services.start("sampler_service", storage.sampler())
    config = training_config()
    config.ctgan.epochs = 80
    source = GatedSource(CSV, len(CSV) // 2)
    with (
        ThreadPoolExecutor(2) as threads,
        storage.open() as inside,
        patient_client(trainer.address, sampler.address) as client,
        patient_client(trainer.address, sampler.address) as other,
    ):
        client.upload(CSV, "customers", format="csv", primary_key="customer")
        version = publish(client, "ready")
        expected = rows(client, version)
        uploading = threads.submit(other.upload, source, "second", format="csv", primary_key="customer")
        job = client.train("customers", "fitted", config)

        def under_way() -> bool:
            fit = inside.registry.jobs.get(TrainingJobName.parse(job.name))
            upload = [one for one in inside.registry.datasets.list("default").items if one.name.dataset == "second"]
            return fit.checkpoint is not None and bool(upload) and upload[0].committed_size > 0

        wait_until(under_way, "an upload and a fit")
        with client.sample(version, 60_000, seed=7, format="csv", message_bytes=16 * 1024) as stream:
            chunks = stream.chunks()
            begun = next(chunks)
            how(postgres if what == "registry" else swift)
            data = begun + b"".join(chunks)
        source.open()
        dataset = uploading.result(120)
        ended = client.wait_job(job.name, 240)
        assert ended.state == pb.JOB_STATE_SUCCEEDED
        assert (dataset.row_count, dataset.sha256) == (3_000, DIGEST)
        assert inside.registry.datasets.get(DatasetName("default", "second")).state is DatasetState.READY
        assert data.startswith(expected[: len(expected) // 2])
        assert len(data.splitlines()) == 60_001
        assert rows(client, version) == expected
        training = inside.registry.jobs.get(TrainingJobName.parse(job.name))
        events = list(client.watch(job.name, timeout=60))
        assert [event.sequence for event in events] == list(range(1, training.event_count + 1))
        inside.settle()


@contextmanager
def frozen(postgres: PostgresServer) -> Iterator[None]:
    """Let the server stand still: it takes connections, and answers nothing."""
    assert postgres.process is not None
    pids = [postgres.process.pid, *children_of(postgres.process.pid)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@contextmanager
def down(server: PostgresServer | SwiftServer) -> Iterator[None]:
    server.stop()
    try:
        yield
    finally:
        server.start()


@pytest.mark.parametrize("what", ["registry down", "registry frozen", "store down"])
def test_loaded_models_are_served_and_calls_for_others_are_retried_later(
    storage: Storage, services: Services, postgres: PostgresServer, swift: SwiftServer, what: str
) -> None:
    away = {"registry down": lambda: down(postgres), "registry frozen": lambda: frozen(postgres)}
    outage = away.get(what, lambda: down(swift))
    trainer = services.start("trainer_service", storage.trainer(ROWMINT_SWEEP_SECONDS="3600"))
    sampler = services.start("sampler_service", storage.sampler())
    with patient_client(trainer.address, sampler.address) as client:
        client.upload(CSV, "customers", format="csv", primary_key="customer")
        loaded, unseen = publish(client, "loaded"), publish(client, "unseen")
        expected = {name: rows(client, name) for name in (loaded, "loaded@latest")}
        request = client.sample_request(client.get_version(unseen), 10, seed=1)
    trainer.terminate()
    with outage(), Client("127.0.0.1:1", sampler.address) as client:
        for name, data in expected.items():
            assert rows(client, f"projects/default/models/{name}" if "/" not in name else name) == data
        with opened(sampler.address, request) as call:
            with pytest.raises(grpc.RpcError) as raised:
                next(call)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
            assert retry_delays(call) == (1.0, "1000")
    with patient_client(trainer.address, sampler.address) as client:
        assert len(b"".join(client.sample_stream(request).chunks())) > 0
        assert rows(client, loaded) == expected[loaded]


def test_while_the_registry_is_down_the_trainer_says_when_to_come_back(
    storage: Storage, services: Services, postgres: PostgresServer
) -> None:
    trainer = services.start("trainer_service", storage.trainer())
    impatient = replace(Client(trainer.address)._connection.retry, unary_attempts=1)
    with down(postgres), Client(trainer.address, retry=impatient) as client:
        with pytest.raises(RowmintCallError) as raised:
            client.create_dataset("d")
        assert (raised.value.reason, raised.value.retry_after) == ("UNAVAILABLE", 1.0)
        assert postgres.password not in raised.value.message
    with patient_client(trainer.address) as client:
        assert client.upload(CSV, "d", format="csv").row_count == 3_000
