"""Models in every registry: publishing, versions, aliases and deletion."""

import threading

import pytest
from sqlalchemy import event, update

from rowmint.errors import (
    FencedError,
    InvalidFieldError,
    ResourceNotFoundError,
    WrongStateError,
)
from rowmint.names import ModelName, ModelVersionName, ModelVersionRef, TrainingJobName
from rowmint.registry import (
    JobState,
    open_registry,
)
from rowmint.registry.engine import writing
from rowmint.registry.tables import jobs
from tests.conformance.registries import (
    MODEL,
    SCHEMA,
    TRAIN,
    OnPostgres,
    OnSqlite,
    RegistrySuite,
    new_version,
    publish,
    train,
)


class ModelSuite(RegistrySuite):
    """What every registry holds of models."""

    def test_publishing(self, registry):
        made = train(registry)
        job = registry.jobs.claim("w", 60, TRAIN)
        version = registry.models.publish(job.uid, job.epoch, MODEL, new_version())
        assert version.name == ModelVersionName("p", "m", 1)
        assert (version.job_uid, version.schema, version.weights_sha256) == (made.uid, SCHEMA, b"w" * 32)
        ended = registry.jobs.get(made.name)
        assert (ended.state, ended.model_version, ended.holder) == (JobState.SUCCEEDED, 1, "")
        last = registry.jobs.events_after(made.uid, 0)[-1]
        assert (last.state, last.payload) == (JobState.SUCCEEDED, {"model_version": 1})
        assert registry.models.get(MODEL).aliases == {"latest": 1}

    def test_a_job_publishes_once(self, registry):
        made = train(registry)
        job = registry.jobs.claim("w", 60, TRAIN)
        version = registry.models.publish(job.uid, job.epoch, MODEL, new_version("one"))
        assert registry.models.publish(job.uid, job.epoch, MODEL, new_version("one")) == version
        with pytest.raises(FencedError):
            registry.models.publish(job.uid, job.epoch + 1, MODEL, new_version("two"))
        assert len(registry.models.list_versions(MODEL).items) == 1
        assert registry.jobs.get(made.name).event_count == 3

    def test_a_version_whose_job_a_crash_left_open_ends_it(self, registry):
        # Of two SQLite files, the models' is committed first: this is what a crash in between leaves.
        for end in ("claim", "cancel", "publish"):
            version = publish(registry, end)
            with writing(registry.engine) as connection:
                connection.execute(
                    update(jobs)
                    .where(jobs.c.uid == version.job_uid)
                    .values(state=JobState.RUNNING, epoch=1, lease_until=1, model_version=None)
                )
            if end == "claim":
                assert registry.jobs.claim("x", 60, TRAIN) is None
            elif end == "cancel":
                with pytest.raises(WrongStateError):
                    registry.jobs.cancel_request(TrainingJobName("p", f"j-{end}"))
            else:
                assert registry.models.publish(version.job_uid, 1, MODEL, new_version(end)) == version
            job = registry.jobs.get_by_uid(version.job_uid)
            assert (job.state, job.model_version) == (JobState.SUCCEEDED, version.name.version)

    def test_versions_count_from_one_and_resolve(self, registry):
        made = [publish(registry, f"v{index}", bytes([index % 2]) * 32) for index in range(3)]
        assert [version.name.version for version in made] == [1, 2, 3]
        registry.models.set_alias(MODEL, "stable", 2)
        for ref, expected in (
            (ModelVersionRef(MODEL, version=1), made[0]),
            (ModelVersionRef(MODEL, alias="latest"), made[2]),
            (ModelVersionRef(MODEL, alias="stable"), made[1]),
            (ModelVersionRef(MODEL, digest=bytes(32)), made[2]),
            (ModelVersionRef(MODEL, digest=b"\x01" * 32), made[1]),
        ):
            assert registry.models.resolve(ref) == expected
        for ref, words in (
            (ModelVersionRef(MODEL, version=4), "versions/4"),
            (ModelVersionRef(MODEL, alias="best"), "latest, stable"),
            (ModelVersionRef(MODEL, digest=b"x" * 32), "@sha256:7878"),
            (ModelVersionRef(ModelName("p", "none"), version=1), "models/none"),
            (ModelVersionRef(ModelName("q", "m"), version=1), "projects/q"),
        ):
            with pytest.raises(ResourceNotFoundError, match=words):
                registry.models.resolve(ref)
        page = registry.models.list_versions(MODEL, 2)
        rest = registry.models.list_versions(MODEL, 2, page.next_page_token)
        assert (*page.items, *rest.items) == tuple(reversed(made))

    def test_aliases(self, registry):
        publish(registry)
        assert registry.models.set_alias(MODEL, "a", 1).aliases == {"a": 1, "latest": 1}
        assert registry.models.set_alias(MODEL, "a", 1).aliases == {"a": 1, "latest": 1}
        assert registry.models.set_alias(MODEL, "a", None).aliases == {"latest": 1}
        assert registry.models.set_alias(MODEL, "a", None).aliases == {"latest": 1}
        with pytest.raises(InvalidFieldError, match="alias"):
            registry.models.set_alias(MODEL, "latest", 1)
        with pytest.raises(InvalidFieldError, match="alias"):
            registry.models.set_alias(MODEL, "Not An Id", 1)
        with pytest.raises(ResourceNotFoundError, match="versions/2"):
            registry.models.set_alias(MODEL, "a", 2)

    def test_deleting_versions(self, registry):
        for index in (1, 2):
            publish(registry, f"v{index}")
        registry.models.set_alias(MODEL, "stable", 2)
        second = ModelVersionName("p", "m", 2)
        with pytest.raises(WrongStateError, match="'stable'"):
            registry.models.delete_version(second)
        registry.models.set_alias(MODEL, "stable", None)
        registry.models.delete_version(second)
        assert registry.models.purge() == 1
        assert set(registry.models.garbage()) == {"v2/manifest.json", "v2/weights.safetensors"}
        assert registry.models.get(MODEL).latest == 1
        assert set(registry.models.garbage()) == {"v2/manifest.json", "v2/weights.safetensors"}
        registry.models.forget(registry.models.garbage())
        assert registry.models.garbage() == ()
        with pytest.raises(ResourceNotFoundError):
            registry.models.delete_version(second)
        assert publish(registry, "v3").name.version == 3
        registry.models.delete_version(ModelVersionName("p", "m", 3))
        registry.models.delete_version(ModelVersionName("p", "m", 1))
        assert registry.models.get(MODEL).latest is None
        with pytest.raises(ResourceNotFoundError, match="latest"):
            registry.models.resolve(ModelVersionRef(MODEL, alias="latest"))

    def test_latest_is_resolved_while_the_version_it_points_at_is_deleted(self, registry, url):
        for index in (1, 2):
            publish(registry, f"v{index}")
        other = open_registry(url)
        deleted = []

        @event.listens_for(registry.engine, "after_cursor_execute")
        def after(connection, cursor, statement, *_):
            if "model_aliases" in statement and not deleted:
                deleted.append(ModelVersionName("p", "m", 2))
                other.models.delete_version(deleted[0], 3600)

        latest = ModelVersionRef(MODEL, alias="latest")
        # As it was when the read began, and as it is afterwards.
        assert [registry.models.resolve(latest).name.version for _ in range(2)] == [2, 1]
        other.close()

    def test_models_are_listed_by_name_in_pages(self, registry):
        for index, model in enumerate(("b", "c", "a")):
            train(registry, f"j{index}")
            job = registry.jobs.claim("w", 60, TRAIN)
            registry.models.publish(job.uid, job.epoch, ModelName("p", model), new_version(model))
        page = registry.models.list("p", 2)
        rest = registry.models.list("p", 2, page.next_page_token)
        assert [record.name.model for record in (*page.items, *rest.items)] == ["a", "b", "c"]
        assert page.items[0].aliases == {"latest": 1}

    def test_racing_publishers_give_one_version(self, registry):
        train(registry)
        job = registry.jobs.claim("w", 60, TRAIN)
        results = []

        def work(key):
            try:
                results.append(registry.models.publish(job.uid, job.epoch, MODEL, new_version(key)).manifest_key)
            except FencedError:
                results.append(None)

        threads = [threading.Thread(target=work, args=(f"k{index}",)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len([result for result in results if result]) == 1
        assert len(registry.models.list_versions(MODEL).items) == 1


class TestSqlite(OnSqlite, ModelSuite):
    """On SQLite."""


class TestPostgres(OnPostgres, ModelSuite):
    """On PostgreSQL."""
