"""Every registry is opened, migrated, read by readers of its models, and written by several processes at once."""

import multiprocessing

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import func, select, text, update
from sqlalchemy.engine import make_url

from rowmint.errors import (
    DataLossError,
    InvalidFieldError,
    ResourceNotFoundError,
    UnavailableError,
)
from rowmint.names import ModelVersionRef
from rowmint.registry import (
    migrate,
    open_models_registry,
    open_registry,
)
from rowmint.registry.engine import reading, writing
from rowmint.registry.tables import DATA, MODELS, jobs
from tests.acceptance.processes import ROOT
from tests.conformance.registries import (
    MODEL,
    TRAIN,
    OnPostgres,
    OnSqlite,
    RegistrySuite,
    new_version,
    publish,
    ready,
    train,
)


class AccessSuite(RegistrySuite):
    """How every registry is opened, migrated, read and written by several processes."""

    def test_migrating_again_changes_nothing(self, registry):
        ready(registry)
        migrate(registry.engine)
        assert len(registry.datasets.list("p").items) == 1

    def test_processes_write_side_by_side(self, registry, url):
        train(registry)
        job = registry.jobs.claim("w", 60, TRAIN)
        context = multiprocessing.get_context("spawn")
        workers = [context.Process(target=append_events, args=(url, job.uid, job.epoch, 20)) for _ in range(2)]
        for worker in workers:
            worker.start()
        append_events(url, job.uid, job.epoch, 20)
        for worker in workers:
            worker.join(60)
        assert [worker.exitcode for worker in workers] == [0, 0]
        events = registry.jobs.events_after(job.uid, 0)
        assert [event.sequence for event in events] == list(range(1, 63))

    # readers

    def test_a_reader_sees_what_is_published_while_it_is_open(self, registry, url):
        reader = open_models_registry(url)
        for number in (1, 2):
            version = publish(registry, f"v{number}")
            assert reader.models.get(MODEL).latest == number
            assert reader.models.resolve(ModelVersionRef(MODEL, alias="latest")) == version
        with pytest.raises(UnavailableError):
            reader.models.set_alias(MODEL, "a", 1)
        reader.close()

    def test_a_reader_waits_for_a_registry_that_is_not_there_yet(self, empty_url):
        reader = open_models_registry(empty_url)
        with pytest.raises(UnavailableError, match="does not exist yet") as caught:
            reader.models.get(MODEL)
        assert caught.value.retry_after == 1.0
        writer = open_registry(empty_url)
        with reading(writer.engine), pytest.raises(UnavailableError, match="does not exist yet"):
            reader.models.get(MODEL)
        migrate(writer.engine)
        with pytest.raises(ResourceNotFoundError):
            reader.models.get(MODEL)
        reader.close()
        writer.close()

    def test_a_read_only_registry_refuses_to_write(self, registry, url):
        dataset = ready(registry)
        reader = open_registry(url, read_only=True)
        assert reader.datasets.get(dataset.name) == dataset
        with pytest.raises(UnavailableError):
            reader.datasets.create("p", "x", data_format={})
        reader.close()
        assert [record.name for record in registry.datasets.list("p").items] == [dataset.name]


def append_events(url, uid, epoch, count):
    registry = open_registry(url)
    for _ in range(count):
        registry.jobs.append_event(uid, epoch, {})
        registry.jobs.heartbeat(uid, epoch)
    registry.close()


class TestSqlite(OnSqlite, AccessSuite):
    """On SQLite, whose two schemas are files."""

    def test_each_schema_is_a_file_in_wal_mode(self, registry, tmp_path):
        ready(registry)
        assert {"data.db", "models.db"} <= {path.name for path in (tmp_path / "registry").iterdir()}
        with reading(registry.engine) as connection:
            for schema in (DATA, MODELS):
                assert connection.exec_driver_sql(f"PRAGMA {schema}.journal_mode").scalar() == "wal"
                assert connection.exec_driver_sql(f"PRAGMA {schema}.synchronous").scalar() == 2
            attached = [row[1] for row in connection.exec_driver_sql("PRAGMA database_list")]
        assert attached.index(MODELS) < attached.index(DATA)

    def test_a_reader_of_models_never_opens_the_data(self, registry, tmp_path):
        version = publish(registry)
        (tmp_path / "alone").mkdir()
        for name in ("models.db", "models.db-wal"):
            (tmp_path / "alone" / name).write_bytes((tmp_path / "registry" / name).read_bytes())
        for url in (f"sqlite:///{tmp_path}/alone/models.db", f"sqlite:///{tmp_path}/alone"):
            reader = open_models_registry(url)
            assert reader.models.resolve(ModelVersionRef(MODEL, alias="latest")) == version
            with pytest.raises(UnavailableError):
                reader.models.set_alias(MODEL, "a", 1)
            reader.close()
        assert not (tmp_path / "alone" / "data.db").exists()

    def test_a_reader_makes_nothing_where_no_registry_is(self, tmp_path):
        reader = open_models_registry(f"sqlite:///{tmp_path}/later/models.db")
        with pytest.raises(UnavailableError, match="does not exist yet"):
            reader.models.get(MODEL)
        reader.close()
        assert not (tmp_path / "later").exists()

    def test_models_may_live_elsewhere(self, tmp_path):
        models_url = f"sqlite:///{tmp_path}/m/models.db"
        registry = open_registry(f"sqlite:///{tmp_path}/d", models_url=models_url)
        migrate(registry.engine)
        version = publish(registry)
        reader = open_models_registry(models_url)
        assert reader.models.resolve(ModelVersionRef(MODEL, alias="latest")) == version
        assert sorted(path.name for path in tmp_path.glob("*/*.db")) == ["data.db", "models.db"]
        reader.close()
        registry.close()

    def test_a_damaged_file_is_lost_data(self, tmp_path):
        (tmp_path / "models.db").write_bytes(b"not a database, whatever its name says" * 100)
        reader = open_models_registry(f"sqlite:///{tmp_path}/models.db")
        with pytest.raises(DataLossError, match="backup"):
            reader.models.get(MODEL)
        reader.close()

    def test_a_crash_between_the_migrations_of_two_files_is_repaired(self, tmp_path):
        for made in (MODELS, DATA):
            registry = open_registry(f"sqlite:///{tmp_path}/{made}")
            migrate(registry.engine)
            registry.close()
            (tmp_path / made / f"{made.removeprefix('rowmint_')}.db").unlink()
            registry = open_registry(f"sqlite:///{tmp_path}/{made}")
            migrate(registry.engine)
            publish(registry)
            registry.close()


class TestPostgres(OnPostgres, AccessSuite):
    """On PostgreSQL, whose server can crash and whose roles are limited."""

    def test_the_models_url_may_name_the_same_database(self, registry, url):
        version = publish(registry)
        both = open_registry(url, models_url=url)
        assert both.models.resolve(ModelVersionRef(MODEL, alias="latest")) == version
        both.close()

    def test_a_registry_outlives_a_crash_of_the_server(self, registry, postgres):
        version = publish(registry)
        postgres.kill()
        try:
            for _ in range(2):
                with pytest.raises(UnavailableError) as caught:
                    registry.models.get(MODEL)
                assert (caught.value.retry_after, postgres.password in str(caught.value)) == (1.0, False)
        finally:
            postgres.start()
        assert registry.models.resolve(ModelVersionRef(MODEL, alias="latest")) == version
        assert publish(registry, "after").name.version == 2

    def test_a_transaction_that_is_cut_off_commits_nothing(self, registry, postgres):
        made = train(registry)
        job = registry.jobs.claim("w", 60, TRAIN)

        def change_and_be_cut_off():
            with writing(registry.engine) as connection:
                connection.execute(update(jobs).where(jobs.c.uid == made.uid).values(holder="unknown"))
                backend = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
                postgres.execute(sql.SQL("SELECT pg_terminate_backend({})").format(backend))
                connection.execute(select(func.count()).select_from(jobs))

        with pytest.raises(UnavailableError):
            change_and_be_cut_off()
        assert registry.jobs.get(made.name) == job
        assert registry.jobs.heartbeat(job.uid, job.epoch) is False

    def test_a_wrong_password_is_reported_without_its_text(self, url, postgres):
        wrong = open_registry(postgres.url(make_url(url).database, password="not-the-password"))
        with pytest.raises(UnavailableError) as caught:
            wrong.models.get(MODEL)
        assert "not-the-password" not in str(caught.value)
        wrong.close()

    def test_the_samplers_role_reads_the_models_and_nothing_else(self, postgres):
        postgres.execute(sql.SQL("CREATE DATABASE rowmint"))
        postgres.run_script(
            ROOT / "deploy" / "postgres-init.sql",
            "rowmint",
            {"TRAINER_DATABASE_PASSWORD": "trains", "SAMPLER_DATABASE_PASSWORD": "samples"},
        )
        trainer = open_registry(postgres.url("rowmint", "rowmint_trainer", "trains"))
        migrate(trainer.engine)
        version = publish(trainer)
        sampler_url = postgres.url("rowmint", "rowmint_sampler", "samples")
        sampler = open_models_registry(sampler_url)
        assert sampler.models.resolve(ModelVersionRef(MODEL, alias="latest")) == version
        train(trainer, "staged")
        job = trainer.jobs.claim("w", 60, TRAIN)
        staged = trainer.models.publish(job.uid, job.epoch, MODEL, new_version("staged"), staged=True)
        assert sampler.models.resolve(ModelVersionRef(MODEL, version=2), unpublished=True) == staged
        with pytest.raises(UnavailableError):
            sampler.models.set_alias(MODEL, "a", 1)
        sampler.close()
        with psycopg.connect(sampler_url.replace("+psycopg", "")) as connection:
            for statement, error in (
                (f"SELECT * FROM {DATA}.datasets", psycopg.errors.InsufficientPrivilege),
                (f"DELETE FROM {MODELS}.models", psycopg.errors.ReadOnlySqlTransaction),
                (f"SET TRANSACTION READ WRITE; DELETE FROM {MODELS}.models", psycopg.errors.InsufficientPrivilege),
                ("CREATE TABLE public.t ()", psycopg.errors.ReadOnlySqlTransaction),
            ):
                with pytest.raises(error):
                    connection.execute(statement)
                connection.rollback()
        assert trainer.models.get(MODEL).latest == 1
        trainer.close()
        postgres.drop_database(postgres.url("rowmint"))
        for role in ("rowmint_trainer", "rowmint_sampler"):
            postgres.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://h/d", "sqlite://", "sqlite:///both.db"])
def test_other_urls_are_refused(url):
    with pytest.raises(InvalidFieldError, match="data_registry_url"):
        open_registry(url)


def test_the_models_of_postgresql_are_in_the_same_database():
    with pytest.raises(InvalidFieldError, match="same PostgreSQL database") as caught:
        open_registry("postgresql://u:secret@h/one", models_url="postgresql://u:secret@h/two")
    assert "secret" not in str(caught.value)
