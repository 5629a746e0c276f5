"""One attempt at a job: its lease, how its end is written down, and that an overtaken one leaves nothing."""

import hashlib
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import google_crc32c
import pytest

from rowmint.artifact import write_model
from rowmint.errors import (
    CancelledError,
    DataLossError,
    FencedError,
    Reason,
    TrainingFailedError,
    UnavailableError,
)
from rowmint.names import DatasetName
from rowmint.objects import MemoryStore
from rowmint.registry import (
    CanonicalTable,
    DatasetState,
    JobKind,
    JobRecord,
    JobState,
    Registry,
    VersionState,
    migrate,
    open_registry,
)
from rowmint.registry.tables import jobs
from rowmint.schema import ColumnSpec, Domain, TableSchema
from rowmint.synthesizer.interface import Capabilities, Mechanism
from tests.golden.make import artifact, generator
from tests.waiting import PATIENCE
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.upload import UploadService
from trainer_service.jobs import worker
from trainer_service.jobs.attempts import Attempt
from trainer_service.jobs.runners import RUNNERS
from trainer_service.jobs.runners import train as training
from trainer_service.jobs.runners.ingest import IngestRunner
from trainer_service.jobs.services import JobServices
from trainer_service.jobs.stores import Stores

INGEST = IngestRunner()
CSV = b"id,city\n1,Oslo\n2,Rome\n3,Oslo\n"
BEAT = 0.01


class Store(MemoryStore):
    """A store that does something else just after it has stored an object."""

    def __init__(self) -> None:
        super().__init__()
        self.then = lambda: None

    def put(self, key: str, data: bytes) -> None:
        super().put(key, data)
        self.then()


@pytest.fixture
def registry(tmp_path):
    registry = open_registry(f"sqlite:///{tmp_path}/registry")
    migrate(registry.engine)
    yield registry
    registry.close()


@pytest.fixture
def stores():
    return Stores(Store(), Store())


def services(registry: Registry, stores: Stores, folder: Path) -> JobServices:
    return JobServices(registry, stores, folder, IngestLimits())


def upload(registry: Registry, stores: Stores, overrides: tuple[ColumnSpec, ...] = ()) -> JobRecord:
    """Upload a small table; return its ingest job, claimed."""
    service = UploadService(registry.datasets, stores.data)
    service.create("p", "d", data_format={"type": "csv"}, overrides=overrides, primary_key="id")
    writer = service.open(DatasetName("p", "d"))
    writer.append(0, CSV, google_crc32c.value(CSV))
    writer.finish(len(CSV), hashlib.sha256(CSV).digest())
    return claimed(registry, JobKind.INGEST)


def claimed(registry: Registry, kind: JobKind, lease_seconds: float = 60.0) -> JobRecord:
    job = registry.jobs.claim("me", lease_seconds, (kind,))
    assert job is not None
    return job


def train(registry: Registry, stores: Stores, *, staged: bool = False) -> JobRecord:
    """Return a training job on a READY dataset, claimed."""
    job = upload(registry, stores)
    table = CanonicalTable(TableSchema((ColumnSpec("city"),)), {}, 3, "table", 1, b"\0" * 32, {})
    registry.datasets.mark_ready(job.dataset_uid, job.uid, job.epoch, table)
    inputs = {"dataset": "projects/p/datasets/d", "model": "projects/p/models/m", "staged": staged}
    registry.jobs.create(JobKind.TRAIN, "p", "j", inputs=inputs, config={}, dataset_uid=job.dataset_uid)
    return claimed(registry, JobKind.TRAIN)


def test_an_ingest_makes_a_dataset_ready_and_drops_its_raw_bytes(registry, stores, tmp_path):
    job = upload(registry, stores)
    INGEST.run(Attempt(registry, job, BEAT), services(registry, stores, tmp_path))
    dataset = registry.datasets.get_by_uid(job.dataset_uid)
    assert (dataset.state, dataset.row_count) == (DatasetState.READY, 3)
    assert list(stores.data.list("")) == [dataset.canonical_key]
    assert registry.datasets.garbage() == ()
    events = registry.jobs.events_after(job.uid, 0)
    assert [event.phase for event in events] == ["", "", *INGEST.phases, ""]


def test_a_phase_is_one_value_wherever_it_is_seen(registry, stores):
    job = train(registry, stores)
    seen: list[str] = []
    attempt = Attempt(registry, job, BEAT, on_phase=seen.append)
    assert attempt.phase == ""
    attempt.enter("fetching")
    attempt.enter("fitting", {"message": "fitting"})
    attempt.report({"message": "still fitting"})
    assert (attempt.phase, seen) == ("fitting", ["fetching", "fitting"])
    assert registry.jobs.get_by_uid(job.uid).phase == "fitting"
    assert [(event.phase, event.payload) for event in registry.jobs.events_after(job.uid, job.event_count)] == [
        ("fetching", {}),
        ("fitting", {"message": "fitting"}),
        ("fitting", {"message": "still fitting"}),
    ]


def test_every_kind_has_a_runner_whose_phases_fit_the_registry():
    assert set(RUNNERS) == set(JobKind)
    for kind, runner in RUNNERS.items():
        assert runner.kind is kind
        assert len(set(runner.phases)) == len(runner.phases) > 0
        assert all(0 < len(phase) <= jobs.c.phase_name.type.length for phase in runner.phases)


@pytest.mark.parametrize("damage", ["weights", "manifest"])
def test_a_model_that_cannot_be_sampled_is_not_published(registry, stores, damage):
    job = train(registry, stores)
    attempt = Attempt(registry, job, BEAT)
    dataset = registry.datasets.get_by_uid(job.dataset_uid)
    fitted = training.FittedVersion(dataset, replace(artifact("independent"), **{damage: b"{}"}))
    with pytest.raises(DataLossError):
        training.verify(attempt, fitted)
    assert registry.jobs.get_by_uid(job.uid).phase == "verifying"


@pytest.mark.parametrize("state", [VersionState.STAGED, VersionState.PUBLISHED])
def test_a_version_is_staged_or_published_as_its_job_says_with_what_its_manifest_declares(
    registry, stores, tmp_path, state
):
    declared = Capabilities(privacy=frozenset({Mechanism.DP_SGD})).to_json()
    made = write_model(generator("independent"), {"training": {"rows": 3}, "capabilities": declared})
    job = train(registry, stores, staged=state is VersionState.STAGED)
    attempt = Attempt(registry, job, BEAT)
    verified = training.verify(attempt, training.FittedVersion(registry.datasets.get_by_uid(job.dataset_uid), made))
    version = training.publish(attempt, services(registry, stores, tmp_path), verified)
    assert (version.state, version.capabilities, version.training_rows) == (state, declared, 3)
    assert stores.models.get(version.manifest_key) == made.manifest
    ended = registry.jobs.get_by_uid(job.uid)
    assert (ended.state, ended.model_version) == (JobState.SUCCEEDED, 1)
    assert registry.models.get(version.name.parent).latest == (1 if state is VersionState.PUBLISHED else None)


def test_a_dataset_deleted_while_it_is_stored_leaves_no_object(registry, stores, tmp_path):
    job = upload(registry, stores)
    stores.data.then = lambda: [stores.data.delete(key) for key in registry.datasets.delete(DatasetName("p", "d"))]
    with pytest.raises(FencedError):
        INGEST.run(Attempt(registry, job, BEAT), services(registry, stores, tmp_path))
    assert list(stores.data.list("")) == []
    assert registry.jobs.get_by_uid(job.uid).state is JobState.CANCELLED


@pytest.mark.parametrize(
    ("override", "reason", "column"),
    [
        (ColumnSpec("citty"), Reason.COLUMN_NOT_FOUND, "citty"),
        (ColumnSpec("city", domain=Domain(decimals=1)), Reason.INVALID_FIELD, ""),
        (ColumnSpec("city", domain=Domain(categories=("Oslo",))), Reason.INVALID_DATA, "city"),
    ],
)
def test_what_does_not_fit_fails_dataset_and_job(registry, stores, tmp_path, *, override, reason, column):
    job = upload(registry, stores, (override,))
    INGEST.run(Attempt(registry, job, BEAT), services(registry, stores, tmp_path))
    dataset, job = registry.datasets.get_by_uid(job.dataset_uid), registry.jobs.get_by_uid(job.uid)
    assert dataset.state is DatasetState.FAILED
    assert [problem.column for problem in dataset.errors] == [column]
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.reason == reason
    assert job.error.message == dataset.errors[0].message


@pytest.mark.parametrize("how", ["cancelled", "overtaken"])
def test_an_attempt_overtaken_as_it_publishes_leaves_no_object(registry, stores, how, tmp_path, monkeypatch):
    job = train(registry, stores)
    if how == "cancelled":
        stores.models.then = lambda: registry.jobs.cancel_request(job.name)
    else:
        registry.jobs.release(job.uid, job.epoch)
    dataset = registry.datasets.get_by_uid(job.dataset_uid)
    attempt = Attempt(registry, job, BEAT)
    monkeypatch.setattr(attempt, "enter", lambda _: None)  # the registry may take its phase before it is overtaken
    verified = training.verify(attempt, training.FittedVersion(dataset, artifact("independent")))
    with pytest.raises(CancelledError if how == "cancelled" else FencedError):
        training.publish(attempt, services(registry, stores, tmp_path), verified)
    assert list(stores.models.list("")) == []
    state = JobState.CANCELLING if how == "cancelled" else JobState.PENDING
    assert registry.jobs.get_by_uid(job.uid).state is state


@pytest.mark.parametrize(
    ("error", "attempt", "state", "reason"),
    [
        (TrainingFailedError("a loss is nan"), 1, JobState.FAILED, "TRAINING_FAILED"),
        (DataLossError("an object is missing"), 1, JobState.FAILED, "DATA_LOSS"),
        (ZeroDivisionError("a secret"), 1, JobState.FAILED, "INTERNAL"),
        (FencedError("overtaken"), 1, JobState.RUNNING, None),
        # A store that is away for a while ends no job but at the last attempt.
        (UnavailableError("the store is away"), 1, JobState.RUNNING, None),
        (UnavailableError("the store is away"), 3, JobState.FAILED, "UNAVAILABLE"),
    ],
)
def test_how_an_attempt_ended_is_written_down(registry, stores, *, error, attempt, state, reason):
    job = train(registry, stores)
    known = JobRecord(**{**vars(job), "attempt": attempt})
    worker._end_badly(registry, Attempt(registry, known, BEAT), error)
    found = registry.jobs.get_by_uid(job.uid)
    assert found.state is state
    assert (None if found.error is None else found.error.reason) == reason
    assert "secret" not in str(found.error)


def test_an_attempt_that_shuts_down_gives_its_job_back(registry, stores):
    job = train(registry, stores)
    attempt = Attempt(registry, job, BEAT)
    attempt.shut_down()
    assert attempt.stopped()
    worker._end_badly(registry, attempt, CancelledError("stopped"))
    found = registry.jobs.get_by_uid(job.uid)
    assert (found.state, found.max_attempts) == (JobState.PENDING, job.max_attempts + 1)


def test_an_attempt_notices_a_cancel_and_a_successor(registry, stores):
    job = train(registry, stores)
    with Attempt(registry, job, BEAT) as attempt:
        assert not attempt.stopped()
        registry.jobs.cancel_request(job.name)
        assert attempt._cancel.wait(PATIENCE)
        assert attempt.stopped()
        assert not attempt.fenced
        registry.jobs.finish_cancelled(job.uid, job.epoch)
        assert attempt._fenced.wait(PATIENCE)
        assert attempt.fenced


def test_heartbeats_continue_after_one_fails():
    beaten = threading.Semaphore(0)
    errors = iter([UnavailableError("away"), ZeroDivisionError()])

    def heartbeat(uid: str, epoch: int) -> bool:
        beaten.release()
        error = next(errors, None)
        if error is not None:
            raise error
        return False

    registry = SimpleNamespace(jobs=SimpleNamespace(heartbeat=heartbeat))
    with Attempt(registry, SimpleNamespace(uid="u", epoch=1), BEAT) as attempt:
        for _ in range(4):
            assert beaten.acquire(timeout=PATIENCE)
        assert not attempt.stopped()


def test_an_unavailable_service_is_awaited_within_the_limit():
    calls: list[bool] = []

    def call(again: bool) -> str:
        calls.append(again)
        if len(calls) < 3:
            raise UnavailableError("away")
        return "done"

    job = SimpleNamespace(uid="u", epoch=1, name="j")
    assert Attempt(None, job, BEAT, PATIENCE).patiently(call) == "done"
    assert calls == [False, True, True]
    calls.clear()
    with pytest.raises(UnavailableError):
        Attempt(None, job, BEAT).patiently(call)
    assert calls == [False]


def test_a_stop_ends_every_wait():
    attempt = Attempt(None, SimpleNamespace(uid="u", epoch=1, name="j"), BEAT, PATIENCE)

    def call(again: bool) -> None:
        attempt.shut_down()
        raise UnavailableError("away")

    with pytest.raises(UnavailableError):
        attempt.patiently(call)
