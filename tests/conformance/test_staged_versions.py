"""Versions that wait to be promoted or rejected: a decision is final, and ordinary reads never find them."""

import shutil
import threading
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import update

from rowmint.errors import CancelledError, FencedError, ResourceNotFoundError, UnavailableError, WrongStateError
from rowmint.names import ModelVersionName, ModelVersionRef, TrainingJobName
from rowmint.registry import AttemptRef, JobState, Maker, VersionState, migrate, open_models_registry, open_registry
from rowmint.registry.engine import writing
from rowmint.registry.tables import jobs, staged_versions
from rowmint.security.signing import Signature
from tests.conformance.registries import MODEL, TRAIN, new_version, publish, train

FIRST, SECOND, THIRD = (ModelVersionName("p", "m", number) for number in (1, 2, 3))
CAPABILITIES = {"unit": "row", "conditions": "rejection", "likelihood": False, "privacy": []}
SIGNATURE = Signature("1" * 64, '{"of": 1}')


@pytest.fixture(scope="module")
def migrated(tmp_path_factory):
    """A folder with an empty registry, to be copied."""
    folder = tmp_path_factory.mktemp("migrated") / "registry"
    registry = open_registry(f"sqlite:///{folder}")
    migrate(registry.engine)
    registry.close()
    return folder


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path, migrated):
    if request.param == "postgresql":
        return request.getfixturevalue("migrated_postgres_url")
    shutil.copytree(migrated, tmp_path / "registry")
    return f"sqlite:///{tmp_path}/registry"


@pytest.fixture
def registry(url):
    found = open_registry(url)
    yield found
    found.close()


def stage(registry, key="v", digest=b"d" * 32, **more):
    train(registry, f"j-{key}")
    job = registry.jobs.claim("w", 60, TRAIN)
    return registry.models.publish(job.uid, job.epoch, MODEL, new_version(key, digest), staged=True, **more)


def by_number(registry, name, **more):
    return registry.models.resolve(ModelVersionRef(name.parent, version=name.version), **more)


def listed(registry, **more):
    return [(one.name.version, one.state.value) for one in registry.models.list_versions(MODEL, **more).items]


# staging


def test_a_staged_version_has_its_number_and_ends_its_job_and_latest_stays(registry):
    publish(registry, "a")
    staged = stage(registry, "b")
    assert (staged.name, staged.state, staged.rejection_reason, staged.decide_time) == (
        SECOND,
        VersionState.STAGED,
        "",
        None,
    )
    job = registry.jobs.get(TrainingJobName("p", "j-b"))
    assert (job.state, job.model_version) == (JobState.SUCCEEDED, 2)
    assert registry.models.get(MODEL).aliases == {"latest": 1}
    assert publish(registry, "c").name == THIRD


def test_of_a_model_without_published_versions_nothing_is_latest(registry):
    stage(registry)
    assert (registry.models.get(MODEL).aliases, registry.models.get(MODEL).latest) == ({}, None)
    with pytest.raises(ResourceNotFoundError, match="latest"):
        registry.models.resolve(ModelVersionRef(MODEL, alias="latest"), unpublished=True)


def test_it_is_found_on_request_and_by_its_number_only(registry):
    published, staged = publish(registry, "a", b"a" * 32), stage(registry, "b", b"b" * 32)
    assert listed(registry) == [(1, "PUBLISHED")]
    assert listed(registry, unpublished=True) == [(2, "STAGED"), (1, "PUBLISHED")]
    assert by_number(registry, SECOND, unpublished=True) == staged
    assert by_number(registry, FIRST, unpublished=True) == published
    for call in (
        lambda: by_number(registry, SECOND),
        lambda: by_number(registry, SECOND, deleted=True),
        lambda: registry.models.resolve(ModelVersionRef(MODEL, digest=b"b" * 32), unpublished=True),
    ):
        with pytest.raises(ResourceNotFoundError):
            call()
    assert registry.models.unpublished(MODEL) == {2}


def test_pages_of_all_states(registry):
    for number, make in enumerate((publish, stage, publish, stage, stage)):
        make(registry, f"v{number}")
    registry.models.reject(ModelVersionName("p", "m", 4), "why")
    seen, token = [], ""
    while True:
        page = registry.models.list_versions(MODEL, 2, token, unpublished=True)
        seen += [(one.name.version, one.state.value) for one in page.items]
        token = page.next_page_token
        if not token:
            break
    assert seen == [(5, "STAGED"), (4, "REJECTED"), (3, "PUBLISHED"), (2, "STAGED"), (1, "PUBLISHED")]


def test_a_job_makes_one_version_staged_or_not(registry):
    train(registry)
    job = registry.jobs.claim("w", 60, TRAIN)
    staged = registry.models.publish(job.uid, job.epoch, MODEL, new_version("one"), staged=True)
    assert registry.models.publish(job.uid, job.epoch, MODEL, new_version("one"), staged=True) == staged
    with pytest.raises(FencedError):
        registry.models.publish(job.uid, job.epoch + 1, MODEL, new_version("two"), staged=True)
    promoted = registry.models.promote(FIRST)
    assert registry.models.publish(job.uid, job.epoch, MODEL, new_version("one"), staged=True) == promoted
    assert listed(registry, unpublished=True) == [(1, "PUBLISHED")]


def test_a_cancel_that_was_committed_wins(registry):
    train(registry)
    job = registry.jobs.claim("w", 60, TRAIN)
    registry.jobs.cancel_request(job.name)
    with pytest.raises(CancelledError):
        registry.models.publish(job.uid, job.epoch, MODEL, new_version(), staged=True)


def reopen(registry, version):
    """Leave the job as a crash between SQLite's two files does: with a version, and unfinished."""
    with writing(registry.engine) as connection:
        connection.execute(
            update(jobs)
            .where(jobs.c.uid == version.job_uid)
            .values(state=JobState.RUNNING, epoch=1, lease_until=1, model_version=None)
        )


@pytest.mark.parametrize("end", ["claim", "cancel", "publish"])
def test_a_staged_version_whose_job_a_crash_left_open_ends_it(registry, end):
    for number, fate in enumerate(("staged", "promoted", "rejected", "deleted"), start=1):
        version = stage(registry, fate)
        reopen(registry, version)
        if fate == "promoted":
            registry.models.promote(version.name)
        elif fate == "rejected":
            registry.models.reject(version.name, "why")
        elif fate == "deleted":
            registry.models.delete_version(version.name, 3600)
        again = partial(registry.models.publish, version.job_uid, 1, MODEL, new_version(fate), staged=True)
        if end == "cancel":
            with pytest.raises(WrongStateError):
                registry.jobs.cancel_request(TrainingJobName("p", f"j-{fate}"))
        elif end == "publish" and fate == "deleted":
            with pytest.raises(FencedError, match="was deleted"):
                again()
            assert registry.jobs.claim("x", 60, TRAIN) is None
        elif end == "publish":
            assert again().name == version.name
        else:
            assert registry.jobs.claim("x", 60, TRAIN) is None
        job = registry.jobs.get_by_uid(version.job_uid)
        assert (job.state, job.model_version) == (JobState.SUCCEEDED, number)


# promoting


def test_a_promoted_version_is_as_if_it_had_been_published(registry):
    staged = stage(registry, digest=b"b" * 32)
    promoted = registry.models.promote(FIRST)
    assert promoted == replace(staged, state=VersionState.PUBLISHED)
    assert registry.models.get(MODEL).aliases == {"latest": 1}
    for ref in (
        ModelVersionRef(MODEL, version=1),
        ModelVersionRef(MODEL, alias="latest"),
        ModelVersionRef(MODEL, digest=b"b" * 32),
    ):
        assert registry.models.resolve(ref) == promoted
    assert registry.models.promote(FIRST) == promoted
    assert registry.models.unpublished(MODEL) == frozenset()
    assert registry.models.set_alias(MODEL, "best", 1).aliases == {"best": 1, "latest": 1}


def test_latest_stays_at_a_newer_version_that_is_published(registry):
    stage(registry, "a")
    publish(registry, "b")
    stage(registry, "c")
    registry.models.promote(FIRST)
    assert registry.models.get(MODEL).latest == 2
    registry.models.promote(THIRD)
    assert registry.models.get(MODEL).latest == 3


def test_a_promoted_version_cannot_be_rejected(registry):
    stage(registry)
    promoted = registry.models.promote(FIRST)
    with pytest.raises(WrongStateError, match="published and cannot be rejected") as caught:
        registry.models.reject(FIRST, "why")
    assert caught.value.metadata == {"state": "PUBLISHED"}
    assert by_number(registry, FIRST) == promoted


# rejecting


def test_a_rejected_version_keeps_its_first_reason(registry):
    staged = stage(registry)
    rejected = registry.models.reject(FIRST, "rows repeat the training data")
    assert rejected == replace(
        staged,
        state=VersionState.REJECTED,
        rejection_reason="rows repeat the training data",
        decide_time=rejected.decide_time,
    )
    assert timedelta() <= rejected.decide_time - rejected.create_time < timedelta(minutes=5)
    assert registry.models.reject(FIRST, "another reason") == rejected
    assert listed(registry) == []
    assert registry.models.unpublished(MODEL) == {1}


def test_a_rejected_version_cannot_be_promoted(registry):
    stage(registry)
    rejected = registry.models.reject(FIRST, "too far from the data")
    with pytest.raises(WrongStateError, match=r"rejected, which is final \(too far from the data\)") as caught:
        registry.models.promote(FIRST)
    assert caught.value.metadata == {"state": "REJECTED"}
    assert by_number(registry, FIRST, unpublished=True) == rejected


def decide(registry, url, calls):
    """Make calls from threads of their own, each with a registry of its own; return what came of each."""
    barrier, results = threading.Barrier(len(calls)), [None] * len(calls)

    def work(number, call):
        own = open_registry(url)
        barrier.wait(60)
        try:
            results[number] = call(own.models).state.value
        except WrongStateError:
            results[number] = "refused"
        own.close()

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_of_promotions_and_rejections_at_the_same_moment_one_kind_happens(registry, url):
    for number in range(1, 5):
        stage(registry, f"v{number}")
        name = ModelVersionName("p", "m", number)
        found = decide(
            registry,
            url,
            [
                lambda models, name=name: models.promote(name),
                lambda models, name=name: models.reject(name, "why"),
                lambda models, name=name: models.promote(name),
                lambda models, name=name: models.reject(name, "why"),
            ],
        )
        promoted = found == ["PUBLISHED", "refused", "PUBLISHED", "refused"]
        assert promoted or found == ["refused", "REJECTED", "refused", "REJECTED"]
        kept = by_number(registry, name, unpublished=True).state
        assert kept is (VersionState.PUBLISHED if promoted else VersionState.REJECTED)
        published = [version for version, _ in listed(registry)]
        assert registry.models.get(MODEL).latest == max(published, default=None)


@pytest.mark.parametrize("call", ["promote", "reject"])
def test_what_is_not_there_is_not_decided(registry, call):
    stage(registry, "a")
    publish(registry, "b")
    registry.models.delete_version(FIRST, 3600)
    registry.models.delete_version(SECOND, 3600)
    more = ("why",) if call == "reject" else ()
    for name in (FIRST, SECOND, THIRD, ModelVersionName("p", "n", 1), ModelVersionName("q", "m", 1)):
        with pytest.raises(ResourceNotFoundError):
            getattr(registry.models, call)(name, *more)
    assert registry.models.undelete_version(FIRST).state is VersionState.STAGED


# aliases and signatures


def test_no_alias_points_at_what_is_not_published(registry):
    stage(registry, "a")
    stage(registry, "b")
    registry.models.reject(SECOND, "why")
    for number, words in ((1, "staged; promote it first"), (2, "rejected and is never served")):
        with pytest.raises(WrongStateError, match=words):
            registry.models.set_alias(MODEL, "best", number)
    assert registry.models.get(MODEL).aliases == {}


def test_a_staged_version_is_signed_and_stays_signed_when_it_is_promoted(registry):
    stage(registry, "a", signatures=(SIGNATURE,))
    stage(registry, "b")
    registry.models.sign(SECOND, SIGNATURE)
    signed = {1: (SIGNATURE,), 2: (SIGNATURE,)}
    assert registry.models.signatures(MODEL, [1, 2]) == signed
    registry.models.promote(FIRST)
    assert registry.models.signatures(MODEL, [1, 2]) == signed


# deleting


@pytest.mark.parametrize("state", [VersionState.STAGED, VersionState.REJECTED])
def test_a_restored_version_has_the_state_it_had(registry, state):
    version = stage(registry)
    if state is VersionState.REJECTED:
        version = registry.models.reject(FIRST, "why")
    registry.models.delete_version(FIRST, 3600)
    assert listed(registry, unpublished=True) == []
    with pytest.raises(ResourceNotFoundError):
        by_number(registry, FIRST, unpublished=True)
    assert by_number(registry, FIRST, unpublished=True, deleted=True) == version
    for call in (registry.models.delete_version, lambda name: registry.models.sign(name, SIGNATURE)):
        with pytest.raises(ResourceNotFoundError):
            call(FIRST)
    assert (registry.models.purge(), registry.models.garbage()) == (0, ())
    assert registry.models.undelete_version(FIRST) == version
    assert registry.models.undelete_version(FIRST) == version
    assert listed(registry, unpublished=True) == [(1, state.value)]


@pytest.mark.parametrize("state", [VersionState.STAGED, VersionState.REJECTED])
def test_a_deleted_version_is_purged_when_its_time_is_up(registry, state):
    stage(registry, "a", signatures=(SIGNATURE,))
    if state is VersionState.REJECTED:
        registry.models.reject(FIRST, "why")
    registry.models.delete_version(FIRST, 1800)
    with writing(registry.engine) as connection:
        connection.execute(update(staged_versions).values(purge_time=staged_versions.c.purge_time - 3_600_000_000))
    assert (registry.models.purge(), registry.models.purge()) == (1, 0)
    assert set(registry.models.garbage()) == {"a/manifest.json", "a/weights.safetensors"}
    assert registry.models.signatures(MODEL, [1]) == {1: ()}
    with pytest.raises(ResourceNotFoundError):
        registry.models.undelete_version(FIRST)
    assert stage(registry, "b").name == SECOND


def test_at_most_so_many_are_purged_at_once(registry):
    for key in "abc":
        stage(registry, key)
    publish(registry, "d")
    for number in range(1, 5):
        registry.models.delete_version(ModelVersionName("p", "m", number))
    assert [registry.models.purge(2) for _ in range(3)] == [2, 2, 0]


def test_objects_of_staged_and_rejected_versions_are_not_orphans(registry):
    made = {}
    for key in "abc":
        version = stage(registry, key)
        attempt = AttemptRef(Maker.VERSION, version.job_uid, 1)
        made |= {version.manifest_key: attempt, version.weights_key: attempt}
    registry.models.reject(SECOND, "why")
    registry.models.delete_version(THIRD, 3600)
    assert registry.orphans.sort(made).named == tuple(made)
    registry.models.promote(FIRST)
    assert registry.orphans.sort(made).named == tuple(made)


# capabilities


def test_what_a_manifest_declares_stays_with_the_version(registry):
    declared = replace(new_version("a"), capabilities=CAPABILITIES)
    for number, staged in ((1, True), (2, False)):
        train(registry, f"j{number}")
        job = registry.jobs.claim("w", 60, TRAIN)
        version = replace(declared, manifest_key=f"{number}")
        made = registry.models.publish(job.uid, job.epoch, MODEL, version, staged=staged)
        assert made.capabilities == CAPABILITIES
    registry.models.promote(FIRST)
    for name in (FIRST, SECOND):
        registry.models.delete_version(name, 3600)
        registry.models.undelete_version(name)
        assert by_number(registry, name).capabilities == CAPABILITIES
    assert publish(registry, "b").capabilities is None


# readers


def test_a_reader_sees_staged_versions_and_cannot_decide(registry, url):
    staged = stage(registry)
    reader = open_models_registry(url)
    assert by_number(reader, FIRST, unpublished=True) == staged
    for call in (lambda: reader.models.promote(FIRST), lambda: reader.models.reject(FIRST, "why")):
        with pytest.raises(UnavailableError):
            call()
    registry.models.promote(FIRST)
    assert by_number(reader, FIRST).state is VersionState.PUBLISHED
    reader.close()
