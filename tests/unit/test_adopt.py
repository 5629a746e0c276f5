"""A registry that was restored: what is lost is said, nothing else is lost, and the work goes on."""

import hashlib
import json
import sys

import google_crc32c
import pytest

from rowmint.errors import DataLossError, ResourceNotFoundError, UnavailableError, WrongStateError
from rowmint.names import DatasetName, ModelName, ModelVersionName
from rowmint.objects import LocalDirectoryStore
from rowmint.registry import DatasetState, JobKind, JobState, Part, migrate, open_registry
from rowmint.registry.engine import writing
from rowmint.registry.tables import jobs
from rowmint.store_marks import read_marks
from tests.conformance.registries import copy_registry, expire
from tests.golden.make import artifact
from trainer_service import adopt, backup
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.upload import UploadService
from trainer_service.garbage import OrphanRules, Sweeper
from trainer_service.jobs.attempts import Attempt
from trainer_service.jobs.runners import train as training
from trainer_service.jobs.runners.ingest import IngestRunner
from trainer_service.jobs.services import JobServices
from trainer_service.jobs.stores import Stores
from trainer_service.store_claims import claim_stores, mark_progress

CSV = b"id,city\n" + b"".join(b"%d,%s\n" % (index, (b"Oslo", b"Rome")[index % 2]) for index in range(12))
NAME = DatasetName("p", "d")
MODEL = ModelName("p", "m")


class Home:
    """The embedded default in a folder, without processes."""

    def __init__(self, folder):
        self.folder = folder
        self.registry = open_registry(f"sqlite:///{folder}/registry")
        migrate(self.registry.engine)
        self.stores = Stores(LocalDirectoryStore(folder / "data"), LocalDirectoryStore(folder / "models"))

    def claim(self):
        claim_stores(self.registry, self.stores)

    def sweep(self):
        """Sweep as a trainer does that keeps nothing aside."""
        rules = OrphanRules(0.0, 0.0)
        scratch = self.folder / "scratch"
        Sweeper(self.registry, self.stores, scratch, seconds=1, upload_idle_seconds=60, orphans=rules).sweep()

    def writer(self):
        return UploadService(self.registry.datasets, self.stores.data, segment_bytes=40).open(NAME)

    def upload(self):
        """Upload the rest of the table."""
        writer = self.writer()
        offset = writer.committed_size
        while offset < len(CSV):
            data = CSV[offset : offset + 40]
            writer.append(offset, data, google_crc32c.value(data))
            offset += len(data)
        writer.finish(len(CSV), hashlib.sha256(CSV).digest())

    def claimed(self, kind):
        job = self.registry.jobs.claim("w", 60, (kind,))
        assert job is not None
        return Attempt(self.registry, job, 60.0)

    def services(self):
        scratch = self.folder / "worker"
        scratch.mkdir(exist_ok=True)
        return JobServices(self.registry, self.stores, scratch, IngestLimits())

    def ingest(self):
        IngestRunner().run(self.claimed(JobKind.INGEST), self.services())

    def create_job(self, name):
        dataset = self.registry.datasets.get(NAME)
        inputs = {"dataset": str(NAME), "model": str(MODEL)}
        self.registry.jobs.create(JobKind.TRAIN, "p", name, inputs=inputs, config={}, dataset_uid=dataset.uid)

    def publish(self, family):
        """Publish a model by the job that is next."""
        attempt = self.claimed(JobKind.TRAIN)
        fitted = training.FittedVersion(self.registry.datasets.get(NAME), artifact(family))
        return training.publish(attempt, self.services(), training.verify(attempt, fitted))

    def objects(self):
        return [{key: store.get(key) for key in store.list("")} for store in (self.stores.data, self.stores.models)]

    def survey(self):
        return adopt.survey(self.registry, self.stores)

    def restore(self, backup):
        """Put the registry of a backup in the place of this one."""
        self.registry.close()
        for path in (self.folder / "registry").iterdir():
            path.unlink()
        for name in ("data.db", "models.db"):
            (self.folder / "registry" / name).write_bytes((backup / name).read_bytes())
        self.registry = open_registry(f"sqlite:///{self.folder}/registry")


@pytest.fixture
def home(tmp_path):
    found = Home(tmp_path / "home")
    found.claim()
    yield found
    found.registry.close()


@pytest.fixture
def with_model(home):
    """A home with a dataset and one version."""
    home.registry.datasets.create("p", "d", data_format={"type": "csv"}, primary_key="id")
    home.upload()
    home.ingest()
    home.create_job("j1")
    home.publish("independent")
    return home


def test_what_is_lost_is_said_and_nothing_else_is_lost(with_model, tmp_path):
    home = with_model
    copy_registry(tmp_path / "home" / "registry", tmp_path / "backup")
    home.create_job("j2")
    second = home.publish("ctgan")
    home.stores.data.delete(home.registry.datasets.get(NAME).canonical_key)
    before = home.objects()
    home.restore(tmp_path / "backup")
    with pytest.raises(WrongStateError, match="the registry is older than the data store"):
        home.claim()
    found = home.survey()
    assert found.lost == (str(NAME),)
    size = second.manifest_size + second.weights_size
    assert found.unknown == (adopt.Unknown("projects/p/models/m", 2, size),)
    assert home.objects() == before
    adopt.adopt(home.registry, home.stores, found)
    home.claim()
    home.sweep()
    for stored, earlier in zip(home.objects(), before, strict=True):
        assert {key for key in earlier if not key.startswith("_rowmint/")} <= stored.keys()
    assert home.registry.models.get(MODEL).latest == 1


def test_work_that_was_under_way_goes_on_though_later_attempts_have_left_objects(home, tmp_path):
    home.registry.datasets.create("p", "d", data_format={"type": "csv"}, primary_key="id")
    copy_registry(tmp_path / "home" / "registry", tmp_path / "backup")
    for _ in range(3):  # three writers, each of which commits a segment of its own
        writer = home.writer()
        offset = writer.committed_size
        writer.append(offset, CSV[offset : offset + 40], google_crc32c.value(CSV[offset : offset + 40]))
    mark_progress(home.registry, home.stores, *Part)
    home.restore(tmp_path / "backup")
    home.claim()  # so early that the mark is not ahead
    adopt.adopt(home.registry, home.stores, home.survey())
    home.upload()
    home.ingest()
    assert home.registry.datasets.get(NAME).state is DatasetState.READY
    copy_registry(tmp_path / "home" / "registry", tmp_path / "ready")
    home.create_job("j")
    copy_registry(tmp_path / "home" / "registry", tmp_path / "created")
    first = home.publish("independent")
    home.restore(tmp_path / "created")
    found = home.survey()
    assert [one.what for one in found.unknown] == ["projects/p/models/m", "uploads"]
    adopt.adopt(home.registry, home.stores, found)
    home.claim()
    second = home.publish("ctgan")  # other bytes: under the same key they would be refused
    assert second.manifest_key != first.manifest_key
    home.sweep()
    assert {first.weights_key, second.weights_key} <= set(home.stores.models.list(""))
    assert home.registry.jobs.get_by_uid(second.job_uid).state is JobState.SUCCEEDED


def test_a_job_is_tried_again_where_an_unknown_attempt_has_left_its_keys(with_model, tmp_path):
    home = with_model
    home.create_job("j2")
    copy_registry(tmp_path / "home" / "registry", tmp_path / "backup")
    home.publish("independent")
    home.restore(tmp_path / "backup")
    with pytest.raises(UnavailableError, match="the next attempt has other keys"):
        home.publish("ctgan")
    with writing(home.registry.engine) as connection:
        (job,) = connection.execute(jobs.select().where(jobs.c.job_id == "j2")).all()
    expire(home.registry, job.uid)
    assert home.publish("ctgan").name.version == 2


def test_an_upload_is_resumed_where_an_unknown_writer_has_left_its_keys(home, tmp_path):
    home.registry.datasets.create("p", "d", data_format={"type": "csv"}, primary_key="id")
    copy_registry(tmp_path / "home" / "registry", tmp_path / "backup")
    home.writer().append(0, CSV[:44], google_crc32c.value(CSV[:44]))
    home.restore(tmp_path / "backup")
    with pytest.raises(UnavailableError, match="resume with a new stream"):
        home.upload()
    home.upload()
    home.ingest()
    assert home.registry.datasets.get(NAME).state is DatasetState.READY


def test_a_registry_that_workers_use_is_not_adopted(with_model):
    with_model.create_job("j2")
    attempt = with_model.claimed(JobKind.TRAIN)
    with pytest.raises(WrongStateError, match="workers hold 1 jobs: stop every trainer"):
        with_model.survey()
    expire(with_model.registry, attempt.job.uid)
    with_model.survey()


def test_stores_of_another_registry_are_adopted_whole(with_model, tmp_path):
    other = Home(tmp_path / "other")
    mixed = Stores(with_model.stores.data, with_model.stores.models)
    with pytest.raises(WrongStateError, match="this one has never claimed a store"):
        claim_stores(other.registry, mixed)
    found = adopt.survey(other.registry, mixed)
    assert (found.lost, [one.what for one in found.unknown]) == ((), ["projects/p/models/m", "tables"])
    for _ in range(2):  # again, as where it was killed
        adopt.adopt(other.registry, mixed, found)
    claim_stores(other.registry, mixed)
    assert {mark.identity.uid for part in Part for mark in read_marks(mixed.of(part))} == {
        other.registry.identity.read(Part.DATA).uid
    }
    with pytest.raises(WrongStateError, match="belongs to the registry"):
        with_model.sweep()
    other.registry.close()


def test_an_adoption_that_was_broken_off_is_refused_at_the_start_and_can_be_repeated(with_model, tmp_path, monkeypatch):
    other = Home(tmp_path / "other")
    mixed = Stores(with_model.stores.data, with_model.stores.models)

    def away(*_):
        raise UnavailableError("the store is away", retry_after=1.0)

    with monkeypatch.context() as broken:
        broken.setattr(adopt, "write_mark", away)
        with pytest.raises(UnavailableError):
            adopt.adopt(other.registry, mixed, adopt.survey(other.registry, mixed))
    with pytest.raises(WrongStateError, match="belongs to the registry"):
        claim_stores(other.registry, mixed)
    adopt.adopt(other.registry, mixed, adopt.survey(other.registry, mixed))
    claim_stores(other.registry, mixed)
    other.registry.close()


@pytest.mark.parametrize("part", Part)
def test_an_object_of_what_the_registry_knows_is_reported_by_its_owner(with_model, part):
    (version,) = with_model.registry.models.list_versions(MODEL).items
    dataset = with_model.registry.datasets.get(NAME)
    with_model.stores.of(part).delete(dataset.canonical_key if part is Part.DATA else version.weights_key)
    assert with_model.survey().lost == (str(NAME if part is Part.DATA else version.name),)


def run(module, monkeypatch, capsys, *arguments, home):
    monkeypatch.setenv("ROWMINT_HOME", str(home))
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    module.main()
    return capsys.readouterr().out


def test_the_command_changes_nothing_unless_it_is_confirmed(with_model, monkeypatch, capsys):
    home = with_model
    before = home.objects()
    identity = home.registry.identity.read(Part.DATA)
    out = run(adopt, monkeypatch, capsys, home=home.folder)
    assert out.splitlines()[-1] == "nothing was changed; add --yes to adopt the stores"
    assert (home.objects(), home.registry.identity.read(Part.DATA)) == (before, identity)
    found = json.loads(run(adopt, monkeypatch, capsys, "--json", "--yes", home=home.folder))
    assert (found["lost"], found["unknown"], found["adopted"]) == ([], [], True)
    assert found["parts"]["data"]["registry"] == {"uid": identity.uid, "generation": identity.generation}
    assert home.registry.identity.read(Part.DATA).generation == identity.generation + 1


def test_the_command_makes_no_registry(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="adopt: the registry does not exist yet"):
        run(adopt, monkeypatch, capsys, home=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_backup_is_a_home_with_all_that_its_registry_names(with_model, tmp_path, monkeypatch, capsys):
    home, target = with_model, tmp_path / "backup"
    assert run(backup, monkeypatch, capsys, target, home=home.folder) == "backed up: 3 new objects\n"
    home.create_job("j2")
    home.publish("ctgan")
    assert run(backup, monkeypatch, capsys, target, home=home.folder) == "backed up: 2 new objects\n"
    visible = [path for path in (target, *target.glob("*/"), *target.rglob("*.*")) if path.stat().st_mode & 0o077]
    assert [path for path in visible if path.is_file() or path.parent in {target, target.parent}] == []
    restored = Home(target)
    restored.claim()
    restored.sweep()
    assert restored.survey().lost == ()
    assert restored.registry.models.list_versions(MODEL).items == home.registry.models.list_versions(MODEL).items
    for store, copy in zip(home.objects(), restored.objects(), strict=True):
        assert {key: data for key, data in copy.items() if not key.startswith("_rowmint/")} == {
            key: data for key, data in store.items() if not key.startswith("_rowmint/")
        }
    restored.registry.close()


def test_a_backup_holds_what_its_registry_names_whatever_is_deleted_meanwhile(with_model, tmp_path, monkeypatch):
    home, copied = with_model, []
    real = backup._copy_objects

    def copy(source, target):
        if not copied:
            home.registry.datasets.delete(NAME)
            home.sweep()
        copied.append(source)
        return real(source, target)

    monkeypatch.setattr(backup, "_copy_objects", copy)
    stores = {part: home.stores.of(part) for part in Part}
    backup.back_up(home.folder / "registry", stores, tmp_path / "backup")
    restored = Home(tmp_path / "backup")
    assert restored.survey().lost == ()
    with pytest.raises(ResourceNotFoundError):
        restored.registry.datasets.get(NAME)
    assert restored.registry.models.list_versions(MODEL).items[0].name == ModelVersionName("p", "m", 1)
    restored.registry.close()


def test_a_backup_of_what_is_damaged_holds_the_rest_and_says_so(with_model, tmp_path):
    home = with_model
    home.stores.data.delete(home.registry.datasets.get(NAME).canonical_key)
    stores = {part: home.stores.of(part) for part in Part}
    with pytest.raises(DataLossError, match=r"the copy holds all but 1 objects, .* datasets/.*/table-1.parquet"):
        backup.back_up(home.folder / "registry", stores, tmp_path / "backup")
    restored = Home(tmp_path / "backup")
    assert restored.survey().lost == (str(NAME),)
    restored.registry.close()


@pytest.mark.parametrize("folder", ["", "registry", "data/projects"])
def test_a_backup_is_not_made_over_or_within_what_it_copies(with_model, monkeypatch, capsys, folder):
    before = with_model.objects()
    with pytest.raises(SystemExit, match="is where services keep what is copied"):
        run(backup, monkeypatch, capsys, with_model.folder / folder, home=with_model.folder)
    assert with_model.objects() == before
    with_model.create_job("j2")  # in what is still the registry of the folder
    again = open_registry(f"sqlite:///{with_model.folder}/registry")
    assert len(again.jobs.list(JobKind.TRAIN, "p").items) == 2
    again.close()


@pytest.mark.parametrize("other", ["another", "missing part", "older", "unclaimed"])
def test_a_backup_is_not_replaced_by_one_of_another_registry_or_an_older_one(with_model, tmp_path, other):
    home, target = with_model, tmp_path / "backup"
    stores = {part: home.stores.of(part) for part in Part}
    copy_registry(home.folder / "registry", tmp_path / "older")
    home.create_job("j2")
    home.publish("ctgan")
    backup.back_up(home.folder / "registry", stores, target)
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    replaced = tmp_path / "older"
    if other != "older":
        found = Home(tmp_path / "another")
        if other != "unclaimed":
            found.claim()
        found.registry.close()
        replaced = tmp_path / "another" / "registry"
    if other == "missing part":
        home.registry.close()
        (home.folder / "registry" / "models.db").replace(tmp_path / "lost.db")
        (replaced / "models.db").replace(home.folder / "registry" / "models.db")
        replaced = home.folder / "registry"
    with pytest.raises(WrongStateError, match="keep that backup, and choose another folder"):
        backup.back_up(replaced, stores, target)
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before


def test_a_backup_that_is_broken_off_leaves_the_earlier_one_whole(with_model, tmp_path, monkeypatch):
    home, target = with_model, tmp_path / "backup"
    stores = {part: home.stores.of(part) for part in Part}
    backup.back_up(home.folder / "registry", stores, target)
    home.create_job("j2")
    home.publish("ctgan")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(backup, "_copy_objects", killed)
        with pytest.raises(KeyboardInterrupt):
            backup.back_up(home.folder / "registry", stores, target)
    restored = Home(target)
    assert restored.survey().lost == ()
    assert [version.name.version for version in restored.registry.models.list_versions(MODEL).items] == [1]
    restored.registry.close()
    assert backup.back_up(home.folder / "registry", stores, target) == 2


def test_two_backups_are_not_made_in_one_folder_at_once(with_model, tmp_path, monkeypatch):
    home, target, refused = with_model, tmp_path / "backup", []
    stores = {part: home.stores.of(part) for part in Part}
    real = backup._copy_objects

    def copy(source, copied):
        with pytest.raises(WrongStateError, match="another backup is being made in the folder"):
            backup.back_up(home.folder / "registry", stores, target)
        refused.append(source)
        return real(source, copied)

    monkeypatch.setattr(backup, "_copy_objects", copy)
    assert backup.back_up(home.folder / "registry", stores, target) == 3
    assert len(refused) == 2


def test_a_home_that_is_not_there_is_not_backed_up(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit, match=r"backup: .*data\.db: unable to open database file; is ROWMINT_HOME"):
        run(backup, monkeypatch, capsys, tmp_path / "backup", home=tmp_path / "home")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ROWMINT_REGISTRY", "postgresql+psycopg://host/rowmint", "use pg_dump"),
        ("ROWMINT_DATA_STORE", "s3://bucket/data", "then the bucket"),
    ],
)
def test_what_has_a_tool_of_its_own_is_not_backed_up(with_model, tmp_path, monkeypatch, capsys, *, name, value, said):
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=f"backup: .*{said}"):
        run(backup, monkeypatch, capsys, tmp_path / "backup", home=with_model.folder)
    assert not (tmp_path / "backup").exists()
