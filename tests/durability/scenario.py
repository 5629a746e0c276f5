"""A scenario of a dataset and its models, from the first byte to the end of both; and what it must not lose."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
from sqlalchemy import update

from rowmint.artifact import read_model
from rowmint.errors import DataLossError, ResourceNotFoundError
from rowmint.names import DatasetName, ModelName, ModelVersionName, TrainingJobName
from rowmint.objects import LocalDirectoryStore
from rowmint.registry import (
    DatasetRecord,
    DatasetState,
    JobKind,
    JobRecord,
    ModelVersionRecord,
    Registry,
    migrate,
    open_registry,
)
from rowmint.registry.engine import writing
from rowmint.registry.tables import DATA, MODELS, jobs
from rowmint.synthesizer import choose_kernel
from tests.crash.storage import objects
from tests.durability.order import STORES, referred
from tests.durability.recorder import Event, Recorder, Reported, copy_databases
from tests.golden.make import artifact
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.segments import read_segment
from trainer_service.datasets.upload import UploadService, Writer
from trainer_service.garbage import OrphanRules, Sweeper, sweep
from trainer_service.jobs.attempts import Attempt
from trainer_service.jobs.checkpoints import JobCheckpoints
from trainer_service.jobs.runners import train as training
from trainer_service.jobs.runners.ingest import IngestRunner
from trainer_service.jobs.services import JobServices
from trainer_service.jobs.stores import Stores
from trainer_service.store_claims import claim_stores

CSV = b"id,city\n" + b"".join(b"%d,%s\n" % (index, (b"Oslo", b"Rome")[index % 2]) for index in range(12))
SEGMENT = 40
NAME = DatasetName("p", "d")
MODEL = ModelName("p", "m")
VERSIONS = (1, 2)
_BEAT = 60.0
_LONG = 86_400.0


@dataclass(frozen=True)
class Storage:
    """The embedded default below one folder: registry, data and models."""

    home: Path
    registry: Registry
    stores: Stores

    @classmethod
    def open(cls, home: Path) -> "Storage":
        """Open what is in a folder."""
        registry = open_registry(f"sqlite:///{home}/registry")
        migrate(registry.engine)
        stores = Stores(LocalDirectoryStore(home / "data"), LocalDirectoryStore(home / "models"))
        return cls(home, registry, stores)

    def claim(self) -> None:
        """Claim the stores, as a trainer does before it serves.

        Raises:
            WrongStateError: They are not the registry's.
        """
        claim_stores(self.registry, self.stores)

    def sweep(self) -> None:
        """Sweep once, as a trainer does when it starts and now and then."""
        stores, scratch = self.stores, self.home.parent / "trainer-scratch"
        Sweeper(
            self.registry,
            stores,
            scratch,
            seconds=_BEAT,
            upload_idle_seconds=_LONG,
            orphans=OrphanRules(0.0, 0.0),
        ).sweep()

    def upload(self) -> UploadService:
        return UploadService(self.registry.datasets, self.stores.data, segment_bytes=SEGMENT)


@dataclass(frozen=True)
class Outcome:
    """A scenario that has ended.

    Attributes:
        home: The folder it took place in.
        start: The registry as it was before, as a snapshot.
        trace: What happened.
    """

    home: Path
    start: Path
    trace: list[Event]


@contextmanager
def recorded(folder: Path) -> Iterator[tuple[Storage, Recorder]]:
    """Open a registry and stores in a folder of its own below `folder`, and record what is done in it."""
    home = folder / "home"
    home.mkdir()
    storage = Storage.open(home)
    try:
        copy_databases(home / "registry", folder / "snapshots" / "start")
        with Recorder(home) as recorder:
            recorder.watch(storage.registry, home / "registry", folder / "snapshots")
            storage.claim()
            yield storage, recorder
    finally:
        storage.registry.close()


def run_scenario(folder: Path) -> Outcome:
    """Run the whole scenario below a folder."""
    scratch = folder / "scratch"
    scratch.mkdir()
    with recorded(folder) as (storage, recorder):
        run_steps(storage, recorder, scratch)
    return Outcome(folder / "home", folder / "snapshots" / "start", recorder.trace)


def run_steps(storage: Storage, recorder: Recorder, scratch: Path) -> None:
    """Run the whole scenario; every answer is reported to the recorder, every intent to delete too."""
    upload(storage, recorder)
    ingest(storage, scratch)
    recorder.report("ready")
    for number in VERSIONS:
        create_job(storage, number)
        publish(storage, claimed(storage, JobKind.TRAIN))
        recorder.report("published", number)
    delete_version(storage, recorder, VERSIONS[0])
    delete_dataset(storage, recorder)


def upload(storage: Storage, recorder: Recorder) -> None:
    """Upload the table by two streams: the first breaks off midway."""
    service = storage.upload()
    service.create("p", "d", data_format={"type": "csv"}, primary_key="id")
    recorder.report("created")
    first = service.open(NAME)
    middle = 2 * SEGMENT + 7
    append(first, CSV[:middle], recorder)
    recorder.report("appended", first.close())
    second = service.open(NAME)
    append(second, CSV[second.committed_size :], recorder)
    second.finish(len(CSV), hashlib.sha256(CSV).digest())
    recorder.report("finished")


def append(writer: Writer, data: bytes, recorder: Recorder | None = None) -> None:
    """Append bytes in messages that do not fit the segments."""
    start, size = writer.committed_size, 15
    for offset in range(0, len(data), size):
        message = data[offset : offset + size]
        committed = writer.append(start + offset, message, google_crc32c.value(message))
        if recorder is not None:
            recorder.report("appended", committed)


def claimed(storage: Storage, kind: JobKind) -> JobRecord:
    job = storage.registry.jobs.claim("me", 600, (kind,))
    assert job is not None
    return job


def ingest(storage: Storage, scratch: Path) -> None:
    job = claimed(storage, JobKind.INGEST)
    services = JobServices(storage.registry, storage.stores, scratch, IngestLimits())
    IngestRunner().run(Attempt(storage.registry, job, _BEAT), services)


def create_job(storage: Storage, number: int) -> None:
    dataset = storage.registry.datasets.get(NAME)
    inputs = {"dataset": str(NAME), "model": str(MODEL)}
    storage.registry.jobs.create(JobKind.TRAIN, "p", f"j{number}", inputs=inputs, config={}, dataset_uid=dataset.uid)


def publish(storage: Storage, job: JobRecord) -> None:
    """Keep two checkpoints of a job, then publish what it has fitted."""
    dataset = storage.registry.datasets.get_by_uid(job.dataset_uid)
    attempt = Attempt(storage.registry, job, _BEAT)
    checkpoints = JobCheckpoints(storage.registry, storage.stores.data, attempt, 0)
    for step in (1, 2):
        checkpoints.save(step, b"all that further steps depend on" * step)
    services = JobServices(storage.registry, storage.stores, storage.home, IngestLimits())
    verified = training.verify(attempt, training.FittedVersion(dataset, artifact("independent")))
    training.publish(attempt, services, verified)


def delete_version(storage: Storage, recorder: Recorder, number: int) -> None:
    recorder.report("deleting version", number)
    storage.registry.models.delete_version(ModelVersionName("p", "m", number))
    storage.sweep()
    recorder.report("deleted version", number)


def delete_dataset(storage: Storage, recorder: Recorder) -> None:
    recorder.report("deleting dataset")
    sweep(storage.registry.datasets, storage.stores.data, storage.registry.datasets.delete(NAME))
    recorder.report("deleted dataset")


def losses(storage: Storage, reported: Iterable[Reported]) -> list[str]:
    """Return what is not as the registry says or as it was acknowledged; nothing where all is well."""
    said: dict[str, list[Any]] = {}
    for one in reported:
        said.setdefault(one.what, []).append(one.value)
    return [*_dataset_losses(storage, said), *_version_losses(storage, said), *_checkpoint_losses(storage)]


def _dataset_losses(storage: Storage, said: dict[str, list[Any]]) -> list[str]:
    try:
        dataset = storage.registry.datasets.get(NAME)
    except ResourceNotFoundError:
        if "created" in said and "deleting dataset" not in said:
            return ["the dataset is gone"]
        left = list(objects(storage.stores.data)) if "deleted dataset" in said else []
        return [f"{key} is back though it was deleted" for key in left]
    if "deleted dataset" in said:
        return ["the dataset is back though it was deleted"]
    found = _stored_losses(storage, dataset)
    if dataset.committed_size < max(said.get("appended", [0])):
        found.append(f"{dataset.committed_size} bytes are left of {max(said['appended'])}")
    if "finished" in said and dataset.sha256 != hashlib.sha256(CSV).digest():
        found.append("the upload's end is lost")
    if "ready" in said and dataset.state is not DatasetState.READY:
        found.append(f"the dataset is {dataset.state} again")
    return found


def _stored_losses(storage: Storage, dataset: DatasetRecord) -> list[str]:
    try:
        if dataset.state is DatasetState.READY:
            assert dataset.canonical_key is not None
            table = storage.stores.data.get(dataset.canonical_key)
            whole = (len(table), hashlib.sha256(table).digest()) == (dataset.canonical_size, dataset.canonical_sha256)
            return [] if whole else [f"{dataset.canonical_key} is damaged"]
        segments = storage.registry.datasets.segments(dataset.uid)
        data = b"".join(read_segment(storage.stores.data, segment) for segment in segments)
    except DataLossError as error:
        return [error.message]
    return [] if data == CSV[: dataset.committed_size] else ["the bytes are not those that were sent"]


def _version_losses(storage: Storage, said: dict[str, list[Any]]) -> list[str]:
    visible = _visible_versions(storage)
    kept = set(said.get("published", [])) - set(said.get("deleting version", []))
    found = [f"version {number} is lost" for number in sorted(kept - visible.keys())]
    returned = sorted(visible.keys() & set(said.get("deleted version", [])))
    found += [f"version {number} is back though it was deleted" for number in returned]
    for version in visible.values():
        try:
            manifest = storage.stores.models.get(version.manifest_key)
            weights = storage.stores.models.get(version.weights_key)
            read_model(manifest, weights, choose_kernel("numpy"), version.manifest_digest)
        except DataLossError as error:
            found.append(error.message)
    return found


def _checkpoint_losses(storage: Storage) -> list[str]:
    found = []
    for number in VERSIONS:
        try:
            kept = storage.registry.jobs.get(TrainingJobName("p", f"j{number}")).checkpoint
            if kept is None:
                continue
            data = storage.stores.data.get(kept.object_key)
        except ResourceNotFoundError:
            continue
        except DataLossError as error:
            found.append(error.message)
            continue
        if (len(data), hashlib.sha256(data).digest()) != (kept.size, kept.sha256):
            found.append(f"{kept.object_key} is damaged")
    return found


def _visible_versions(storage: Storage) -> dict[int, ModelVersionRecord]:
    try:
        return {version.name.version: version for version in storage.registry.models.list_versions(MODEL).items}
    except ResourceNotFoundError:
        return {}


def go_on(storage: Storage, scratch: Path) -> None:
    """Start again after a crash, as a trainer does, and bring what was begun to its end: upload, ingest, publishing."""
    storage.sweep()
    expire_leases(storage)
    try:
        dataset = storage.registry.datasets.get(NAME)
    except ResourceNotFoundError:
        return
    if dataset.state is DatasetState.UPLOADING:
        writer = storage.upload().open(NAME)
        append(writer, CSV[writer.committed_size :])
        dataset = writer.finish(len(CSV), hashlib.sha256(CSV).digest())
    if dataset.state is DatasetState.INGESTING:
        ingest(storage, scratch)
    while (job := storage.registry.jobs.claim("me", 600, (JobKind.TRAIN,))) is not None:
        publish(storage, job)
    storage.sweep()


def left_over(storage: Storage) -> list[Path]:
    """Return the stored files that the registry does not refer to."""
    known = referred(storage.home / "registry")
    stored = [STORES[DATA] / key for key in objects(storage.stores.data)]
    stored += [STORES[MODELS] / key for key in objects(storage.stores.models)]
    return [path for path in stored if path not in known]


def expire_leases(storage: Storage) -> None:
    """Let every lease run out, as time would."""
    with writing(storage.registry.engine) as connection:
        connection.execute(update(jobs).where(jobs.c.lease_until.is_not(None)).values(lease_until=1))
