"""The registry's schemas: what every migration keeps, and code of one version on the schema of another."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, Table, inspect, select, text, update

from rowmint.errors import InvalidFieldError, ResourceNotFoundError, UnavailableError
from rowmint.names import DatasetName, ModelName, ModelVersionName, ModelVersionRef, TrainingJobName
from rowmint.registry import (
    CheckpointRecord,
    JobKind,
    JobState,
    NewVersion,
    Registry,
    migrate,
    open_models_registry,
    open_registry,
)
from rowmint.registry.engine import reading, writing
from rowmint.registry.tables import DATA, MODELS, SCHEMAS, jobs, metadata
from tests.golden.old_code import scenario

OLD = {DATA: "data_0001", MODELS: "models_0001"}
NOTHING = {DATA: "base", MODELS: "base"}
# Made by the first revisions.
OLD_TABLES = {
    DATA: ["datasets", "garbage", "job_events", "jobs", "segments"],
    MODELS: ["garbage", "model_aliases", "model_versions", "models"],
}
TRAIN = (JobKind.TRAIN,)


class OldCode:
    """A process of the old code, which takes commands."""

    def __init__(self, errors: Path) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self.errors = errors
        with errors.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, scenario.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                env={**clean, "PYTHONPATH": str(scenario.ARCHIVE)},
            )

    def __call__(self, action: str, url: str, project: str) -> dict:
        """Have it act (see the scenario), and return what it then sees."""
        with contextlib.suppress(BrokenPipeError):  # it has ended, and its errors say why
            self.process.stdin.write(json.dumps([action, url, project]) + "\n")
            self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, self.errors.read_text()
        return json.loads(answer)

    def close(self) -> None:
        self.process.communicate()
        assert (self.process.returncode, self.errors.read_text()) == (0, "")


@pytest.fixture(scope="module")
def old_code(tmp_path_factory):
    process = OldCode(tmp_path_factory.mktemp("old") / "errors")
    yield process
    process.close()


def known_to(old, new):
    """Return what the new code sees, without the fields that the old code does not know."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return {key: known_to(old[key], value) for key, value in new.items() if key in old}
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [known_to(*pair) for pair in zip(old, new, strict=True)]
    return new


def tables(engine) -> dict[str, list[str]]:
    with reading(engine) as connection:
        found = inspect(connection)
        return {
            schema: sorted(name for name in found.get_table_names(schema=schema) if name != "alembic_version")
            for schema in SCHEMAS
        }


def revisions(engine) -> dict[str, str]:
    with reading(engine) as connection:
        return {
            schema: connection.execute(text(f"SELECT version_num FROM {schema}.alembic_version")).scalar_one_or_none()
            for schema in SCHEMAS
        }


def old_rows(engine) -> dict[str, list[dict]]:
    """Return every row of the tables that the first revisions made, with the columns that it has now."""
    found = {}
    with reading(engine) as connection:
        for schema, names in OLD_TABLES.items():
            for name in names:
                table = Table(name, MetaData(), schema=schema, autoload_with=connection, resolve_fks=False)
                rows = [dict(row) for row in connection.execute(select(table)).mappings()]
                found[f"{schema}.{name}"] = sorted(rows, key=repr)
    return found


def without_new_columns(rows: dict[str, list[dict]], old: dict[str, list[dict]]) -> dict[str, list[dict]]:
    columns = {name: list(found[0]) for name, found in old.items()}
    return {
        name: sorted(({column: row[column] for column in columns[name]} for row in found), key=repr)
        for name, found in rows.items()
    }


def stage(registry, project, uid, epoch):
    """Stage a version of the model by an attempt at a job."""
    model = ModelName(project, "m")
    stable = registry.models.resolve(ModelVersionRef(model, alias="stable"))
    facts = {field.name: getattr(stable, field.name) for field in fields(NewVersion)}
    version = NewVersion(**facts | {"manifest_key": f"{project}/staged", "capabilities": {"unit": "row"}})
    return registry.models.publish(uid, epoch, model, version, staged=True)


def migrate_in_processes(url, count) -> list[str]:
    """Migrate in so many processes at the same moment; return their errors."""
    command = [sys.executable, Path(__file__).with_name("migrating.py"), url, str(count)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=120)
    return json.loads(done.stdout)


class MigrationsSuite:
    """What holds on every database; a subclass gives the fixture `url`, of a place without a registry."""

    @pytest.fixture
    def url(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    def empty(self, url) -> Iterator[Registry]:
        registry = open_registry(url)
        yield registry
        registry.close()

    @pytest.fixture
    def newest(self, empty):
        """A registry at the newest revisions."""
        migrate(empty.engine)
        return empty

    @pytest.fixture
    def oldest(self, newest):
        """An empty registry at the first revisions."""
        migrate(newest.engine, revisions=OLD)
        return newest

    def differences(self, engine) -> list:
        """Return how the database differs from what the code takes it for."""
        with reading(engine) as connection:
            context = MigrationContext.configure(
                connection,
                opts={
                    "include_schemas": True,
                    "include_name": lambda name, kind, _: (
                        (kind != "schema" or name in SCHEMAS) and name != "alembic_version"
                    ),
                },
            )
            return compare_metadata(context, metadata)

    def test_the_newest_revisions_make_the_tables(self, newest):
        assert self.differences(newest.engine) == []

    def test_the_way_back_and_forth_makes_the_same_tables(self, newest):
        top = revisions(newest.engine)
        assert set(top) == set(SCHEMAS)
        migrate(newest.engine, revisions=OLD)
        assert (tables(newest.engine), revisions(newest.engine)) == (OLD_TABLES, OLD)
        migrate(newest.engine, revisions=NOTHING)
        assert tables(newest.engine) == {DATA: [], MODELS: []}
        assert revisions(newest.engine) == {DATA: None, MODELS: None}
        migrate(newest.engine, revisions=OLD)
        assert (tables(newest.engine), revisions(newest.engine)) == (OLD_TABLES, OLD)
        migrate(newest.engine)
        assert (self.differences(newest.engine), revisions(newest.engine)) == ([], top)
        scenario.write(newest, "p")

    def test_going_up_and_down_keeps_every_row(self, oldest, url, old_code):
        seen = old_code("write", url, "p")
        before = old_rows(oldest.engine)
        assert [name for name, rows in before.items() if not rows] == []
        migrate(oldest.engine)
        assert without_new_columns(old_rows(oldest.engine), before) == before
        assert known_to(seen, scenario.read(oldest, "p")) == seen
        migrate(oldest.engine, revisions=OLD)
        assert old_rows(oldest.engine) == before

    def test_a_downgrade_removes_only_what_is_new(self, newest, url, old_code):
        scenario.write(newest, "p")
        job = newest.jobs.get(TrainingJobName("p", "released"))
        newest.jobs.save_checkpoint(job.uid, job.epoch, CheckpointRecord("p/checkpoint", 5, b"k" * 32, 7))
        with writing(newest.engine) as connection:
            connection.execute(update(jobs).where(jobs.c.uid == job.uid).values(trace_parent="00-" + "1" * 52))
        newest.models.delete_version(ModelVersionName("p", "m", 3), keep_seconds=scenario.HOUR)
        stage(newest, "p", job.uid, job.epoch)
        migrate(newest.engine, revisions=OLD)
        seen = old_code("read", url, "p")
        assert seen["resolved"]["alias latest"] == seen["resolved"]["version 1"]
        migrate(newest.engine)
        assert known_to(seen, scenario.read(newest, "p")) == seen
        found = newest.jobs.get(job.name)
        assert (found.checkpoint, found.trace_parent) == (None, None)
        for number in (3, 4):
            with pytest.raises(ResourceNotFoundError):
                newest.models.undelete_version(ModelVersionName("p", "m", number))

    def test_an_unknown_revision_is_refused_and_changes_nothing(self, newest):
        top = revisions(newest.engine)
        with pytest.raises(InvalidFieldError, match=r"'data_0000'; known: base, .*data_0001"):
            migrate(newest.engine, revisions={DATA: "data_0000"})
        assert revisions(newest.engine) == top

    def test_a_schema_that_is_newer_than_the_code_is_left_alone(self, newest):
        later = {DATA: "data_9999", MODELS: "models_9999"}
        scenario.write(newest, "p")
        seen = scenario.read(newest, "p")
        with writing(newest.engine) as connection:
            for schema, revision in later.items():
                connection.execute(text(f"UPDATE {schema}.alembic_version SET version_num = '{revision}'"))
        migrate(newest.engine)
        migrate(newest.engine, revisions=OLD)
        assert revisions(newest.engine) == later
        assert scenario.read(newest, "p") == seen

    def test_one_schema_may_be_ahead_of_the_other(self, newest):
        # What a crash between the two transactions of a migration leaves.
        top = revisions(newest.engine)
        for ahead in SCHEMAS:
            migrate(newest.engine, revisions={**OLD, ahead: top[ahead]})
            assert revisions(newest.engine) == {**OLD, ahead: top[ahead]}
            migrate(newest.engine)
            assert revisions(newest.engine) == top

    def test_eight_processes_migrate_nothing_to_the_newest_at_once(self, empty, url):
        assert migrate_in_processes(url, 8) == []
        assert self.differences(empty.engine) == []
        scenario.write(empty, "p")

    def test_eight_processes_migrate_an_old_registry_at_once(self, oldest, url, old_code):
        seen = old_code("write", url, "p")
        assert migrate_in_processes(url, 8) == []
        assert self.differences(oldest.engine) == []
        assert known_to(seen, scenario.read(oldest, "p")) == seen

    # old code on the newest schema: processes that were started before the database was migrated

    def test_old_and_new_code_see_the_same_whichever_wrote_it(self, newest, url, old_code):
        by_old = old_code("write", url, "p")
        assert [version["name"]["version"] for version in by_old["versions"]["m"]] == [3, 1]
        assert known_to(by_old, scenario.read(newest, "p")) == by_old
        scenario.write(newest, "q")
        assert newest.models.purge() == 1
        by_new = old_code("read", url, "q")
        assert [version["name"]["version"] for version in by_new["versions"]["m"]] == [3, 1]
        assert known_to(by_new, scenario.read(newest, "q")) == by_new
        assert known_to(by_old, scenario.read(newest, "p")) == by_old

    def test_old_code_never_sees_a_deleted_version(self, newest, url, old_code):
        scenario.write(newest, "p")
        newest.models.delete_version(ModelVersionName("p", "m", 3), keep_seconds=scenario.HOUR)
        seen = old_code("read", url, "p")
        assert seen["resolved"]["version 3"] == "not found"
        assert seen["resolved"]["digest 3"] == "not found"
        assert seen["resolved"]["alias latest"] == seen["resolved"]["version 1"]
        newest.models.undelete_version(ModelVersionName("p", "m", 3))
        after = old_code("read", url, "p")
        assert after["resolved"]["alias latest"] == after["resolved"]["version 3"] != "not found"

    def test_old_code_sees_a_staged_version_once_it_is_promoted_and_never_before(self, newest, url, old_code):
        scenario.write(newest, "p")
        job = newest.jobs.get(TrainingJobName("p", "released"))
        before = old_code("read", url, "p")
        staged = stage(newest, "p", job.uid, job.epoch)
        seen = old_code("read", url, "p")
        parts = ("models", "versions", "resolved", "models garbage")
        assert {part: seen[part] for part in parts} == {part: before[part] for part in parts}
        for change in (
            lambda: newest.models.delete_version(staged.name, scenario.HOUR),
            lambda: newest.models.undelete_version(staged.name),
        ):
            change()
            assert old_code("read", url, "p") == seen
        newest.models.promote(staged.name)
        after = old_code("read", url, "p")
        assert [version["name"]["version"] for version in after["versions"]["m"]] == [4, 3, 1]
        assert after["resolved"]["alias latest"] == after["resolved"]["version 4"] != "not found"

    def test_old_code_never_sees_a_rejected_version_and_gives_its_number_to_no_other(self, newest, url, old_code):
        scenario.write(newest, "p")
        job = newest.jobs.get(TrainingJobName("p", "released"))
        rejected = stage(newest, "p", job.uid, job.epoch)
        newest.models.reject(rejected.name, "too far from the data")
        dataset = newest.datasets.get(DatasetName("p", "ready"))
        inputs = {"dataset": str(dataset.name), "model": "projects/p/models/m"}
        newest.jobs.create(JobKind.TRAIN, "p", "next", inputs=inputs, config={}, dataset_uid=dataset.uid)
        seen = old_code("finish", url, "p")
        assert [version["name"]["version"] for version in seen["versions"]["m"]] == [5, 3, 1]
        kept = newest.models.list_versions(ModelName("p", "m"), unpublished=True).items
        assert [version.name.version for version in kept] == [5, 4, 3, 1]

    def test_old_code_takes_up_a_job_that_has_a_checkpoint(self, newest, url, old_code):
        scenario.write(newest, "p")
        job = newest.jobs.get(TrainingJobName("p", "released"))
        newest.jobs.save_checkpoint(job.uid, job.epoch, CheckpointRecord("p/checkpoint", 5, b"k" * 32, 7))
        with writing(newest.engine) as connection:
            connection.execute(update(jobs).where(jobs.c.uid == job.uid).values(lease_until=1))
        seen = old_code("finish", url, "p")
        ended = newest.jobs.get(job.name)
        assert (ended.state, ended.epoch, ended.model_version) == (JobState.SUCCEEDED, job.epoch + 1, 4)
        assert newest.models.get(ModelName("p", "m")).latest == 4
        assert known_to(seen, scenario.read(newest, "p")) == seen

    def test_old_code_reads_a_job_at_a_phase_it_does_not_know(self, newest, url, old_code):
        scenario.write(newest, "p")
        job = newest.jobs.get(TrainingJobName("p", "released"))
        shown = {"fetching": "UNSPECIFIED", "encoding": "ENCODING", "verifying": "UNSPECIFIED"}
        for phase in shown:
            newest.jobs.set_phase(job.uid, job.epoch, phase)
        seen = old_code("read", url, "p")
        assert [event["phase"] for event in seen["events"]["released"][-3:]] == list(shown.values())
        found = newest.jobs.get(job.name)
        assert (found.phase, found.dataset, found.model) == (
            "verifying",
            "projects/p/datasets/ready",
            "projects/p/models/m",
        )
        assert [event.phase for event in newest.jobs.events_after(job.uid, 0)[-3:]] == list(shown)

    def test_what_old_code_wrote_to_a_job_of_today_is_read(self, newest, url, old_code):
        scenario.write(newest, "p")
        job = newest.jobs.get(TrainingJobName("p", "released"))
        newest.jobs.set_phase(job.uid, job.epoch, "verifying")
        with writing(newest.engine) as connection:
            connection.execute(update(jobs).where(jobs.c.uid == job.uid).values(lease_until=1))
        old_code("finish", url, "p")
        ended = newest.jobs.get(job.name)
        assert (ended.phase, ended.outputs, ended.inputs) == ("", {"model_version": 4}, job.inputs)
        phases = [event.phase for event in newest.jobs.events_after(job.uid, job.event_count + 1)]
        assert phases == ["", "fitting", "fitting", ""]

    # new code on the oldest schema: a sampler that was updated before the trainer

    def test_a_new_reader_reads_the_models_of_an_old_schema(self, oldest, url, old_code):
        seen = old_code("write", url, "p")
        reader = open_models_registry(url)
        found = scenario.read_models(reader.models, "p")
        assert known_to(seen, found) == {part: seen[part] for part in found}
        model = ModelName("p", "m")
        published = reader.models.list_versions(model).items
        assert reader.models.list_versions(model, unpublished=True).items == published
        assert reader.models.resolve(ModelVersionRef(model, version=1), unpublished=True) == published[-1]
        assert reader.models.unpublished(model) == frozenset()
        stable = reader.models.resolve(ModelVersionRef(ModelName("p", "m"), version=1), deleted=True)
        assert stable == reader.models.resolve(ModelVersionRef(ModelName("p", "m"), alias="stable"))
        with pytest.raises(ResourceNotFoundError):
            reader.models.resolve(ModelVersionRef(ModelName("p", "m"), version=2), deleted=True)
        reader.close()

    def test_a_new_trainer_that_has_not_migrated_says_so_and_changes_nothing(self, oldest, url, old_code):
        seen = old_code("write", url, "p")
        running = next(job for job in seen["jobs"] if job["name"]["job"] == "released")
        uid, epoch = running["uid"], running["epoch"]
        name, model = TrainingJobName("p", "released"), ModelName("p", "m")
        dataset = seen["datasets"][-1]["uid"]
        for call in (
            lambda: oldest.jobs.list(JobKind.TRAIN, "p"),
            lambda: oldest.jobs.get(name),
            lambda: oldest.jobs.get_by_uid(uid),
            lambda: oldest.jobs.create(
                JobKind.TRAIN, "p", "j", inputs={"model": str(model)}, config={}, dataset_uid=dataset
            ),
            lambda: oldest.jobs.claim("w", 60, TRAIN),
            lambda: oldest.jobs.heartbeat(uid, epoch),
            lambda: oldest.jobs.append_event(uid, epoch, {}),
            lambda: oldest.jobs.set_phase(uid, epoch, "fitting"),
            lambda: oldest.jobs.save_checkpoint(uid, epoch, CheckpointRecord("k", 1, bytes(32), 1)),
            lambda: oldest.jobs.release(uid, epoch),
            lambda: oldest.jobs.cancel_request(name),
            lambda: oldest.datasets.delete(DatasetName("p", "ready")),
            lambda: oldest.models.delete_version(ModelVersionName("p", "m", 3)),
            lambda: oldest.models.promote(ModelVersionName("p", "m", 3)),
            lambda: oldest.models.reject(ModelVersionName("p", "m", 3), "why"),
            oldest.models.purge,
        ):
            with pytest.raises(UnavailableError, match="start") as caught:
                call()
            assert "trainer" in str(caught.value)
        assert old_code("read", url, "p") == seen


class TestSqlite(MigrationsSuite):
    @pytest.fixture
    def url(self, tmp_path):
        return f"sqlite:///{tmp_path}/registry"

    def differences(self, engine):
        # SQLite does not report foreign keys of attached files with their schema.
        return [
            change
            for change in super().differences(engine)
            if not (isinstance(change, tuple) and change[0] in ("add_fk", "remove_fk"))
        ]


class TestPostgres(MigrationsSuite):
    @pytest.fixture
    def url(self, postgres_url):
        return postgres_url
