"""An ingest job reads the upload back before it makes a table of it."""

import hashlib
from pathlib import Path

import google_crc32c
import pytest

from rowmint.errors import CancelledError, DataLossError
from rowmint.names import DatasetName
from rowmint.objects import MemoryStore
from rowmint.registry import CheckpointRecord, DatasetState, JobKind, JobRecord, Registry, migrate, open_registry
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.upload import UploadService
from trainer_service.jobs.attempts import Attempt
from trainer_service.jobs.runners import ingest
from trainer_service.jobs.runners.ingest import IngestRunner
from trainer_service.jobs.services import JobServices
from trainer_service.jobs.stores import Stores

CSV = b"id,city\n1,Oslo\n2,Rome\n3,Oslo\n"
CUT = 10
NAME = DatasetName("p", "d")


class CountingStore(MemoryStore):
    """A store that notes which objects are read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def get(self, key: str) -> bytes:
        self.read.append(key)
        return super().get(key)


@pytest.fixture
def registry(tmp_path):
    registry = open_registry(f"sqlite:///{tmp_path}/registry")
    migrate(registry.engine)
    yield registry
    registry.close()


@pytest.fixture
def store():
    return CountingStore()


def uploaded(registry: Registry, store: MemoryStore, digest: bytes) -> JobRecord:
    """Upload a table in two streams, so that only the job can compare its digest; return the job, claimed."""
    service = UploadService(registry.datasets, store)
    service.create("p", "d", data_format={"type": "csv"})
    for start, end in ((0, CUT), (CUT, len(CSV))):
        writer = service.open(NAME)
        writer.append(start, CSV[start:end], google_crc32c.value(CSV[start:end]))
        if end == len(CSV):
            writer.finish(len(CSV), digest)
        writer.close()
    job = registry.jobs.claim("me", 60.0, (JobKind.INGEST,))
    assert job is not None
    return job


def run(registry: Registry, store: MemoryStore, job: JobRecord, folder: Path, attempt: Attempt | None = None) -> None:
    services = JobServices(registry, Stores(store, MemoryStore()), folder, IngestLimits())
    IngestRunner().run(attempt or Attempt(registry, job, 1.0), services)


def test_bytes_of_another_digest_fail_the_dataset(registry, store, tmp_path):
    job = uploaded(registry, store, b"x" * 32)
    run(registry, store, job, tmp_path)
    dataset = registry.datasets.get(NAME)
    ended = registry.jobs.get_by_uid(job.uid)
    actual = hashlib.sha256(CSV).hexdigest()
    message = (
        f"the stored bytes have SHA-256 {actual}, but finish_write says {'78' * 32}; compare it with"
        " the file's, delete the dataset and upload the file again"
    )
    assert (dataset.state, [problem.message for problem in dataset.errors]) == (DatasetState.FAILED, [message])
    assert ended.error is not None
    assert (ended.error.reason, ended.error.message) == ("DIGEST_MISMATCH", message)
    assert [event.phase for event in registry.jobs.events_after(job.uid, 0)][2:] == ["verifying", ""]


def test_a_damaged_segment_is_found_before_any_is_parsed(registry, store, tmp_path):
    job = uploaded(registry, store, hashlib.sha256(CSV).digest())
    last = registry.datasets.segments(job.dataset_uid)[-1].object_key
    store.delete(last)
    store.put(last, b"!" * (len(CSV) - CUT))
    with pytest.raises(DataLossError, match="segment 1 at byte 10"):
        run(registry, store, job, tmp_path)
    assert registry.jobs.get_by_uid(job.uid).phase == "verifying"


def test_a_stop_ends_the_verification(registry, store, tmp_path):
    job = uploaded(registry, store, hashlib.sha256(CSV).digest())
    attempt = Attempt(registry, job, 1.0)
    attempt.shut_down()
    with pytest.raises(CancelledError, match="verification"):
        run(registry, store, job, tmp_path, attempt)
    assert store.read == []


@pytest.mark.parametrize("resumed", [False, True])
def test_an_attempt_that_resumes_does_not_verify_again(registry, store, tmp_path, monkeypatch, resumed):
    verified = []
    monkeypatch.setattr(ingest, "verify_upload", lambda *arguments: verified.append(arguments[2]))
    digest = hashlib.sha256(CSV).digest()
    job = uploaded(registry, store, digest)
    if resumed:
        body = b"{}"  # Types that cannot be used: the first pass is made again.
        store.put("checkpoint", body)
        record = CheckpointRecord("checkpoint", len(body), hashlib.sha256(body).digest(), 1)
        registry.jobs.save_checkpoint(job.uid, job.epoch, record)
        job = registry.jobs.get_by_uid(job.uid)
    run(registry, store, job, tmp_path)
    assert registry.datasets.get(NAME).state is DatasetState.READY
    assert verified == ([] if resumed else [digest])
