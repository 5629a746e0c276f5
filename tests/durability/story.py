"""A story of a dataset and its models, from the first byte to the end of both; and what it must not lose."""

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
from tests.durability.order import STORES, referred
from tests.durability.recorder import Event, Recorder, Told, copy_databases
from tests.golden.make import artifact
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.segments import read_segment
from trainer_service.datasets.upload import UploadService, Writer
from trainer_service.garbage import Sweeper, sweep
from trainer_service.jobs.attempts import Attempt
from trainer_service.jobs.checkpoints import JobCheckpoints
from trainer_service.jobs.runners import train as training
from trainer_service.jobs.runners.ingest import IngestRunner
from trainer_service.jobs.services import JobServices
from trainer_service.jobs.stores import Stores

CSV = b"id,city\n" + b"".join(b"%d,%s\n" % (index, (b"Oslo", b"Rome")[index % 2]) for index in range(12))
SEGMENT = 40
NAME = DatasetName("p", "d")
MODEL = ModelName("p", "m")
VERSIONS = (1, 2)
_BEAT = 60.0
_LONG = 86_400.0


@dataclass(frozen=True)
class House:
    """The embedded default below one folder: registry, data and models."""

    home: Path
    registry: Registry
    stores: Stores

    @classmethod
    def open(cls, home: Path) -> "House":
        """Open what is in a folder, as a trainer that starts does."""
        registry = open_registry(f"sqlite:///{home}/registry")
        migrate(registry.engine)
        return cls(home, registry, Stores(LocalDirectoryStore(home / "data"), LocalDirectoryStore(home / "models")))

    def sweep(self) -> None:
        """Sweep once, as a trainer does when it starts and now and then."""
        stores, scratch = self.stores, self.home.parent / "trainer-scratch"
        Sweeper(self.registry, stores.data, stores.models, scratch, seconds=_BEAT, upload_idle_seconds=_LONG).sweep()

    def upload(self) -> UploadService:
        return UploadService(self.registry.datasets, self.stores.data, segment_bytes=SEGMENT)


@dataclass(frozen=True)
class Lived:
    """A story that is over.

    Attributes:
        home: The folder it took place in.
        start: The registry as it was before, as a snapshot.
        trace: What happened.
    """

    home: Path
    start: Path
    trace: list[Event]


@contextmanager
def recorded(folder: Path) -> Iterator[tuple[House, Recorder]]:
    """Open a house in a folder of its own below `folder`, and record what is done in it."""
    home = folder / "home"
    home.mkdir()
    house = House.open(home)
    try:
        copy_databases(home / "registry", folder / "snapshots" / "start")
        with Recorder(home) as recorder:
            recorder.watch(house.registry, home / "registry", folder / "snapshots")
            yield house, recorder
    finally:
        house.registry.close()


def live(folder: Path) -> Lived:
    """Live through the whole story below a folder."""
    scratch = folder / "scratch"
    scratch.mkdir()
    with recorded(folder) as (house, recorder):
        tell_story(house, recorder, scratch)
    return Lived(folder / "home", folder / "snapshots" / "start", recorder.trace)


def tell_story(house: House, recorder: Recorder, scratch: Path) -> None:
    """Live through the whole story; every answer is told to the recorder, every wish to delete too."""
    upload(house, recorder)
    ingest(house, scratch)
    recorder.tell("ready")
    for number in VERSIONS:
        create_job(house, number)
        publish(house, claimed(house, JobKind.TRAIN))
        recorder.tell("published", number)
    delete_version(house, recorder, VERSIONS[0])
    delete_dataset(house, recorder)


def upload(house: House, recorder: Recorder) -> None:
    """Upload the table by two streams: the first breaks off midway."""
    service = house.upload()
    service.create("p", "d", data_format={"type": "csv"}, primary_key="id")
    recorder.tell("created")
    first = service.open(NAME)
    middle = 2 * SEGMENT + 7
    append(first, CSV[:middle], recorder)
    recorder.tell("appended", first.close())
    second = service.open(NAME)
    append(second, CSV[second.committed_size :], recorder)
    second.finish(len(CSV), hashlib.sha256(CSV).digest())
    recorder.tell("finished")


def append(writer: Writer, data: bytes, recorder: Recorder | None = None) -> None:
    """Append bytes in messages that do not fit the segments."""
    start, size = writer.committed_size, 15
    for offset in range(0, len(data), size):
        message = data[offset : offset + size]
        committed = writer.append(start + offset, message, google_crc32c.value(message))
        if recorder is not None:
            recorder.tell("appended", committed)


def claimed(house: House, kind: JobKind) -> JobRecord:
    job = house.registry.jobs.claim("me", 600, (kind,))
    assert job is not None
    return job


def ingest(house: House, scratch: Path) -> None:
    job = claimed(house, JobKind.INGEST)
    services = JobServices(house.registry, house.stores, scratch, IngestLimits())
    IngestRunner().run(Attempt(house.registry, job, _BEAT), services)


def create_job(house: House, number: int) -> None:
    dataset = house.registry.datasets.get(NAME)
    inputs = {"dataset": str(NAME), "model": str(MODEL)}
    house.registry.jobs.create(JobKind.TRAIN, "p", f"j{number}", inputs=inputs, config={}, dataset_uid=dataset.uid)


def publish(house: House, job: JobRecord) -> None:
    """Keep two checkpoints of a job, then publish what it has fitted."""
    dataset = house.registry.datasets.get_by_uid(job.dataset_uid)
    attempt = Attempt(house.registry, job, _BEAT)
    checkpoints = JobCheckpoints(house.registry, house.stores.data, attempt, 0)
    for step in (1, 2):
        checkpoints.save(step, b"all that further steps depend on" * step)
    services = JobServices(house.registry, house.stores, house.home, IngestLimits())
    verified = training.verify(attempt, training.FittedVersion(dataset, artifact("independent")))
    training.publish(attempt, services, verified)


def delete_version(house: House, recorder: Recorder, number: int) -> None:
    recorder.tell("deleting version", number)
    house.registry.models.delete_version(ModelVersionName("p", "m", number))
    house.sweep()
    recorder.tell("deleted version", number)


def delete_dataset(house: House, recorder: Recorder) -> None:
    recorder.tell("deleting dataset")
    sweep(house.registry.datasets, house.stores.data, house.registry.datasets.delete(NAME))
    recorder.tell("deleted dataset")


def losses(house: House, told: Iterable[Told]) -> list[str]:
    """Return what is not as the registry says or as it was told; nothing where all is well."""
    said: dict[str, list[Any]] = {}
    for one in told:
        said.setdefault(one.what, []).append(one.value)
    return [*_dataset_losses(house, said), *_version_losses(house, said), *_checkpoint_losses(house)]


def _dataset_losses(house: House, said: dict[str, list[Any]]) -> list[str]:
    try:
        dataset = house.registry.datasets.get(NAME)
    except ResourceNotFoundError:
        if "created" in said and "deleting dataset" not in said:
            return ["the dataset is gone"]
        left = list(house.stores.data.list("")) if "deleted dataset" in said else []
        return [f"{key} is back though it was deleted" for key in left]
    if "deleted dataset" in said:
        return ["the dataset is back though it was deleted"]
    found = _stored_losses(house, dataset)
    if dataset.committed_size < max(said.get("appended", [0])):
        found.append(f"{dataset.committed_size} bytes are left of {max(said['appended'])}")
    if "finished" in said and dataset.sha256 != hashlib.sha256(CSV).digest():
        found.append("the upload's end is lost")
    if "ready" in said and dataset.state is not DatasetState.READY:
        found.append(f"the dataset is {dataset.state} again")
    return found


def _stored_losses(house: House, dataset: DatasetRecord) -> list[str]:
    try:
        if dataset.state is DatasetState.READY:
            assert dataset.canonical_key is not None
            table = house.stores.data.get(dataset.canonical_key)
            whole = (len(table), hashlib.sha256(table).digest()) == (dataset.canonical_size, dataset.canonical_sha256)
            return [] if whole else [f"{dataset.canonical_key} is damaged"]
        segments = house.registry.datasets.segments(dataset.uid)
        data = b"".join(read_segment(house.stores.data, segment) for segment in segments)
    except DataLossError as error:
        return [error.message]
    return [] if data == CSV[: dataset.committed_size] else ["the bytes are not those that were sent"]


def _version_losses(house: House, said: dict[str, list[Any]]) -> list[str]:
    visible = _visible_versions(house)
    kept = set(said.get("published", [])) - set(said.get("deleting version", []))
    found = [f"version {number} is lost" for number in sorted(kept - visible.keys())]
    returned = sorted(visible.keys() & set(said.get("deleted version", [])))
    found += [f"version {number} is back though it was deleted" for number in returned]
    for version in visible.values():
        try:
            manifest = house.stores.models.get(version.manifest_key)
            weights = house.stores.models.get(version.weights_key)
            read_model(manifest, weights, choose_kernel("numpy"), version.manifest_digest)
        except DataLossError as error:
            found.append(error.message)
    return found


def _checkpoint_losses(house: House) -> list[str]:
    found = []
    for number in VERSIONS:
        try:
            kept = house.registry.jobs.get(TrainingJobName("p", f"j{number}")).checkpoint
            if kept is None:
                continue
            data = house.stores.data.get(kept.object_key)
        except ResourceNotFoundError:
            continue
        except DataLossError as error:
            found.append(error.message)
            continue
        if (len(data), hashlib.sha256(data).digest()) != (kept.size, kept.sha256):
            found.append(f"{kept.object_key} is damaged")
    return found


def _visible_versions(house: House) -> dict[int, ModelVersionRecord]:
    try:
        return {version.name.version: version for version in house.registry.models.list_versions(MODEL).items}
    except ResourceNotFoundError:
        return {}


def go_on(house: House, scratch: Path) -> None:
    """Start again after a crash, as a trainer does, and bring what was begun to its end: upload, ingest, publishing."""
    house.sweep()
    expire_leases(house)
    try:
        dataset = house.registry.datasets.get(NAME)
    except ResourceNotFoundError:
        return
    if dataset.state is DatasetState.UPLOADING:
        writer = house.upload().open(NAME)
        append(writer, CSV[writer.committed_size :])
        dataset = writer.finish(len(CSV), hashlib.sha256(CSV).digest())
    if dataset.state is DatasetState.INGESTING:
        ingest(house, scratch)
    while (job := house.registry.jobs.claim("me", 600, (JobKind.TRAIN,))) is not None:
        publish(house, job)
    house.sweep()


def left_over(house: House) -> list[Path]:
    """Return the stored files that the registry does not refer to."""
    known = referred(house.home / "registry")
    stored = [STORES[DATA] / key for key in house.stores.data.list("")]
    stored += [STORES[MODELS] / key for key in house.stores.models.list("")]
    return [path for path in stored if path not in known]


def expire_leases(house: House) -> None:
    """Let every lease run out, as time would."""
    with writing(house.registry.engine) as connection:
        connection.execute(update(jobs).where(jobs.c.lease_until.is_not(None)).values(lease_until=1))
