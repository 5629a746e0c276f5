"""Disks that are full or refuse every write: acknowledged bytes are kept, and all continues when there is room."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import google_crc32c
import grpc
import pytest

from rowmint.client import Client, RetryPolicy, RowmintCallError
from rowmint.v1 import dataset_pb2, schema_pb2, training_job_pb2
from rowmint.v1.dataset_service_pb2 import FinishWrite, WriteDatasetRequest
from rowmint.v1.dataset_service_pb2_grpc import DatasetServiceStub
from tests.acceptance.processes import ServiceProcess, Services, children_of, customers_csv
from tests.acceptance.refusals import Refusal, refused
from tests.faults.small_disks import SmallDisks
from tests.waiting import wait_until

MIB = 1 << 20
SEGMENT = 256 * 1024
PAGE = 4096
SMALL = {
    "family": "ctgan",
    "batch_size": 100,
    "generator_dim": [16],
    "discriminator_dim": [16],
    "threads": 1,
    "seed": 4,
    "epochs": 150,
}
IMPATIENT = RetryPolicy(attempts=1, unary_attempts=1)


@dataclass
class Site:
    """A trainer whose registry, stores and scratch lie on small disks, and a model fitted while there was room.

    Attributes:
        services: Starts more of them.
        trainer: The trainer.
        disks: Its disks.
        client: A client of it.
        table: A READY dataset.
        digest: Digest of the model that `SMALL` gives.
    """

    services: Services
    trainer: ServiceProcess
    disks: SmallDisks
    client: Client
    table: dataset_pb2.Dataset
    digest: bytes

    def said(self, words: str, about: str) -> bool:
        """Say whether a line of the trainer's log holds both."""
        return any(words in line and about in line for line in self.trainer.log.read_text().splitlines())

    def model_digest(self, job: training_job_pb2.TrainingJob) -> bytes:
        return self.client.get_version(job.model_version).model_digest


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("small")
    disks = SmallDisks(home, {"data": 24 * MIB, "models": 8 * MIB, "registry": 8 * MIB, "scratch": 16 * MIB})
    services = Services(home)
    settings = {
        "ROWMINT_LEASE_SECONDS": "2",
        "ROWMINT_HEARTBEAT_SECONDS": "0.3",
        "ROWMINT_SEGMENT_BYTES": str(SEGMENT),
        "ROWMINT_CHECKPOINT_SECONDS": "0.1",
        "ROWMINT_MAX_OPEN_UPLOADS": "100000",
    }
    try:
        trainer = services.start("trainer_service", settings, disks.interpreter)
        disks.entered_by(trainer.pid)
        # The trainer serves models too.
        with Client(trainer.address, trainer.address) as client:
            table = client.upload(customers_csv(400), "table", format="csv", primary_key="customer")
            fitted = client.wait_job(client.train(table, "roomy", **SMALL))
            digest = client.get_version(fitted.model_version).model_digest
            yield Site(services, trainer, disks, client, table, digest)
    finally:
        services.close()


def wait_until_idle(site: Site) -> None:
    """Wait until the trainer has no worker but the spare one.

    The worker of an ended job still deletes objects, and holds removed files until it exits: on a disk that a test has
    filled meanwhile, that makes room.
    """
    wait_until(lambda: len(children_of(site.trainer.pid)) <= 1, "the end of the workers of ended jobs")


@pytest.fixture(autouse=True)
def _idle(site: Site) -> None:
    wait_until_idle(site)


@pytest.fixture(scope="module")
def large() -> bytes:
    """A table of three MiB and few rows."""
    lines = (f"{number},{hashlib.sha256(str(number).encode()).hexdigest() * 32}\n" for number in range(1_500))
    return f"number,text\n{''.join(lines)}".encode()


def write(address: str, name: str, data: bytes, start: int = 0) -> dataset_pb2.Dataset:
    """Make one call that sends a dataset's bytes from `start` to the end."""

    def messages() -> Iterator[WriteDatasetRequest]:
        for offset in range(start, len(data), SEGMENT // 4):
            piece = data[offset : offset + SEGMENT // 4]
            crc = google_crc32c.value(piece)
            yield WriteDatasetRequest(name=name, write_offset=offset, data=piece, crc32c=crc)
        end = FinishWrite(total_size=len(data), sha256=hashlib.sha256(data).digest())
        yield WriteDatasetRequest(name=name, write_offset=len(data), finish_write=end)

    with grpc.insecure_channel(address) as channel:
        return DatasetServiceStub(channel).WriteDataset(messages()).dataset


def refused_write(address: str, name: str, data: bytes) -> Refusal:
    return refused(write, address, name, data)


def wait_until_fitting(site: Site, job: training_job_pb2.TrainingJob) -> None:
    for event in site.client.watch(job):
        if event.HasField("progress") and event.progress.epoch:
            return


def test_an_upload_that_fills_the_disk_is_resumed_at_the_acknowledged_bytes(site: Site, large: bytes) -> None:
    client, address = site.client, site.trainer.address
    name = client.create_dataset("large").name
    with site.disks.full("data", left=MIB):
        refusal = refused_write(address, name, large)
        assert refusal.kind == ("UNAVAILABLE", "UNAVAILABLE")
        assert "No space left on device" in refusal.message
        kept = client.get_dataset("large").committed_size
        assert 0 < kept < len(large)
        assert kept % SEGMENT == 0
        # Again without room: nothing is lost, nothing is written.
        assert refused(write, address, name, large, kept).kind == ("UNAVAILABLE", "UNAVAILABLE")
        assert client.get_dataset("large").committed_size == kept
    # The trainer hashes the stored bytes: what was acknowledged is there still.
    assert write(address, name, large, kept).committed_size == len(large)
    assert client.wait_dataset("large", 60).row_count == 1_500
    client.delete_dataset("large")


def test_the_client_waits_for_room_and_finishes_its_upload(site: Site, large: bytes) -> None:
    room = site.disks.full("data", left=MIB)
    room.__enter__()
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            room.__exit__(None, None, None)

    with Client(site.trainer.address, retry=RetryPolicy(attempts=8, first_delay=0.01, sleep=sleep)) as client:
        dataset = client.upload(large, "patient", format="csv", wait=False)
    assert pauses[:3] == [1.0, 1.0, 1.0]
    assert site.client.wait_dataset(dataset.name, 60).row_count == 1_500
    site.client.delete_dataset("patient")


def test_a_fit_continues_without_checkpoints_on_a_full_disk(site: Site) -> None:
    job = site.client.train(site.table, "uncheckpointed", **SMALL)
    wait_until_fitting(site, job)
    with site.disks.full("data"):
        wait_until(lambda: site.said("a checkpoint could not be kept", job.name), "a checkpoint without room")
        done = site.client.wait_job(job)
    assert site.model_digest(done) == site.digest
    assert [event.attempt for event in site.client.watch(job)][-1] == 1


def test_a_model_that_cannot_be_published_is_published_when_there_is_room(site: Site) -> None:
    with site.disks.full("models"):
        job = site.client.train(site.table, "unpublished", family="independent", seed=1)
        wait_until(lambda: site.said("broken off, to be tried again", job.name), "the publishing broken off")
        assert site.said("No space left on device", job.name)
        assert site.client.get_job(job).state == training_job_pb2.JOB_STATE_RUNNING
    assert site.client.wait_job(job).model_version == "projects/default/models/unpublished/versions/1"
    assert [version.version for version in site.client.list_versions("unpublished")] == [1]


def test_a_full_registry_refuses_what_is_new_and_answers_the_rest(site: Site) -> None:
    job = site.client.train(site.table, "unregistered", **SMALL)
    wait_until_fitting(site, job)
    padding = [schema_pb2.ColumnSpec(name=f"column-{index}") for index in range(100)]
    with site.disks.full("registry"), Client(site.trainer.address, retry=IMPATIENT) as client:
        # A log that was longer before has room in it: only what makes it longer meets the full disk.
        def create_many() -> None:
            for _ in range(2_000):
                client.create_dataset(columns=padding)

        with pytest.raises(RowmintCallError, match="the registry cannot be used now") as raised:
            create_many()
        assert (raised.value.code, raised.value.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
        assert client.get_dataset("table") == site.table
    done = site.client.wait_job(job)
    assert site.model_digest(done) == site.digest
    assert site.client.create_dataset("roomy").name == "projects/default/datasets/roomy"


def test_an_ingest_without_room_for_its_scratch_is_done_when_there_is(site: Site, large: bytes) -> None:
    with site.disks.full("scratch"):
        dataset = site.client.upload(large, "scratched", format="csv", wait=False)
        wait_until(lambda: site.said("broken off, to be tried again", "ingest"), "the ingest broken off")
    assert site.client.wait_dataset(dataset.name, 60).row_count == 1_500
    site.client.delete_dataset(dataset.name)


def test_a_fit_without_room_for_its_scratch_is_done_when_there_is(site: Site) -> None:
    with site.disks.full("scratch"):
        job = site.client.train(site.table, "unscratched", family="independent", seed=1)
        wait_until(lambda: site.said("broken off, to be tried again", job.name), "the fit broken off")
    assert site.client.wait_job(job).model_version == "projects/default/models/unscratched/versions/1"


def test_a_fit_without_room_for_its_codes_is_done_when_there_is(site: Site) -> None:
    """Codes lie in files mapped into memory: a full disk must not end the worker by SIGBUS."""
    dataset = site.client.upload(customers_csv(4_000), "encoded", format="csv", primary_key="customer")
    wait_until_idle(site)
    largest = max(file.stat().st_size for file in site.disks.folder("data").rglob("table-*.parquet"))
    # Room for the table, and for a few of the dozens of pages that its codes need.
    with site.disks.full("scratch", left=largest + 4 * PAGE):
        job = site.client.train(dataset, "unencoded", family="independent", seed=1)
        wait_until(lambda: site.said("broken off, to be tried again", job.name), "the fit broken off")
        assert site.said("the disk of the trainer's temporary files is full", job.name)
    assert site.client.wait_job(job).model_version == "projects/default/models/unencoded/versions/1"
    assert not site.said("worker died", job.name)
    site.client.delete_dataset(dataset.name)


def test_read_only_stores_refuse_writes_and_give_what_they_hold(site: Site, large: bytes) -> None:
    client, address = site.client, site.trainer.address
    name = client.create_dataset("refused").name
    first = client.train(site.table, "readonly", family="independent", seed=1)
    version = client.wait_job(first).model_version
    with site.disks.read_only("data", "models"):
        refusal = refused_write(address, name, large)
        assert refusal.kind == ("UNAVAILABLE", "UNAVAILABLE")
        assert "Read-only file system" in refusal.message
        assert client.get_dataset("refused").committed_size == 0
        assert client.get_dataset("table") == site.table
        # A sampler that has loaded nothing yet: all that it needs can be read.
        sampler = site.services.start("sampler_service", {}, site.disks.interpreter_beside)
        with Client(address, sampler.address) as reader:
            before = b"".join(reader.sample(version, 20_000, seed=1, format="csv").chunks())
        # Last: it may be attempted three times only, and the services here are slow to start on a busy machine.
        job = client.train(site.table, "readonly", family="independent", seed=2)
        wait_until(lambda: site.said("broken off, to be tried again", job.name), "the publishing broken off")
    assert write(address, name, large).committed_size == len(large)
    assert client.wait_dataset("refused", 60).row_count == 1_500
    assert client.wait_job(job).model_version.endswith("/versions/2")
    with Client(address, sampler.address) as reader:
        assert b"".join(reader.sample(version, 20_000, seed=1, format="csv").chunks()) == before
    assert sampler.terminate() == 0
    client.delete_dataset("refused")
