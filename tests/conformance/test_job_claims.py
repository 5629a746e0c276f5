"""Claims are fair between projects and keep a project's limit, also with many trainers at once; jobs have parts."""

import threading

import pytest
from sqlalchemy import func, insert, select

from rowmint.errors import CancelledError, InvalidFieldError, ResourceNotFoundError, UnavailableError, WrongStateError
from rowmint.registry import JobKind, JobState, Registry, job_claims, migrate, open_registry
from rowmint.registry.engine import reading, writing
from rowmint.registry.job_kinds import RULES, job_name, kind_of
from rowmint.registry.tables import jobs
from tests.conformance.registries import INGEST, TRAIN, expire, ready, train, uploaded


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path):
    if request.param == "postgresql":
        return request.getfixturevalue("migrated_postgres_url")
    found = open_registry(f"sqlite:///{tmp_path}/registry")
    migrate(found.engine)
    found.close()
    return f"sqlite:///{tmp_path}/registry"


@pytest.fixture
def registry(url):
    found = open_registry(url)
    yield found
    found.close()


def claim(registry: Registry, limit: int = 0) -> str | None:
    """Claim a job; return its project and id."""
    job = registry.jobs.claim("w", 60, TRAIN, max_project_jobs=limit)
    return job and f"{job.name.project}/{job.name.job}"


def copies(registry: Registry, uid: str, count: int) -> None:
    """Insert so many jobs that are like one that waits, later than it."""
    with writing(registry.engine) as connection:
        row = dict(connection.execute(select(jobs).where(jobs.c.uid == uid)).mappings().one())
        later = [
            {**row, "uid": f"{number:032x}", "job_id": f"copy-{number}", "create_time": row["create_time"] + number}
            for number in range(1, count + 1)
        ]
        connection.execute(insert(jobs), later)


def test_a_thousand_waiting_jobs_of_a_project_delay_no_other_project(registry):
    dataset = ready(registry)
    first = train(registry, "first", dataset)
    copies(registry, first.uid, 999)
    assert claim(registry) == "p/first"
    train(registry, "late", dataset, project="q")
    assert claim(registry) == "q/late"
    assert claim(registry) == "p/copy-1"


def test_one_worker_serves_projects_in_turn(registry):
    dataset = ready(registry)
    for project in ("p", "q", "r"):
        for job_id in ("a", "b"):
            train(registry, job_id, dataset, project=project)
    seen = []
    while (job := registry.jobs.claim("w", 60, TRAIN)) is not None:
        seen.append(f"{job.name.project}/{job.name.job}")
        registry.jobs.fail(job.uid, job.epoch, "INTERNAL", "done")
    assert seen == ["p/a", "q/a", "r/a", "p/b", "q/b", "r/b"]


def test_the_project_with_the_fewest_running_jobs_is_next(registry):
    dataset = ready(registry)
    for job_id in ("a", "b", "c"):
        train(registry, job_id, dataset)
    assert [claim(registry), claim(registry)] == ["p/a", "p/b"]
    for job_id in ("a", "b", "c"):
        train(registry, job_id, dataset, project="q")
    assert [claim(registry) for _ in range(4)] == ["q/a", "q/b", "p/c", "q/c"]


def test_a_job_whose_worker_died_waits_no_longer_than_its_projects_turn(registry):
    dataset = ready(registry)
    train(registry, "lost", dataset)
    lost = registry.jobs.claim("w", 60, TRAIN)
    expire(registry, lost.uid)
    for job_id in ("a", "b"):
        train(registry, job_id, dataset, project="q")
    job = registry.jobs.claim("w", 60, TRAIN)
    assert job.name.project == "q"
    registry.jobs.fail(job.uid, job.epoch, "INTERNAL", "done")
    assert claim(registry) == "p/lost"


def test_a_project_has_no_more_running_jobs_than_allowed(registry):
    dataset = ready(registry)
    for job_id in ("a", "b", "c", "d"):
        train(registry, job_id, dataset)
    train(registry, "a", dataset, project="q")
    assert [claim(registry, 2) for _ in range(4)] == ["p/a", "q/a", "p/b", None]
    # One being cancelled has its worker still.
    cancelled = registry.jobs.cancel_request(registry.jobs.list(JobKind.TRAIN, "p").items[-1].name)
    assert (cancelled.name.job, cancelled.state, claim(registry, 2)) == ("a", JobState.CANCELLING, None)
    registry.jobs.finish_cancelled(cancelled.uid, cancelled.epoch)
    assert [claim(registry, 2), claim(registry, 2)] == ["p/c", None]
    assert claim(registry, 0) == "p/d"


def test_an_expired_lease_counts_until_its_job_is_taken_over(registry):
    dataset = ready(registry)
    train(registry, "a", dataset)
    train(registry, "b", dataset)
    lost = registry.jobs.claim("w", 60, TRAIN, max_project_jobs=1)
    expire(registry, lost.uid)
    assert [claim(registry, 1), claim(registry, 1)] == ["p/a", None]
    # Its worker was alive: with another job beside it, there would be two now.
    taken = registry.jobs.get_by_uid(lost.uid)
    expire(registry, lost.uid)
    registry.jobs.heartbeat(taken.uid, taken.epoch)
    assert claim(registry, 1) is None


def test_each_kind_is_counted_for_itself(registry):
    train(registry, "a", ready(registry))
    uploaded(registry, "e")
    assert claim(registry, 1) == "p/a"
    assert registry.jobs.claim("w", 60, INGEST, max_project_jobs=1) is not None


@pytest.mark.parametrize("limit", [1, 3])
def test_claimers_at_once_keep_the_limit_together(registry, url, limit):
    dataset = ready(registry)
    for project in ("p", "q"):
        for number in range(7):
            train(registry, f"j{number}", dataset, project=project)
    most: list[int] = []
    claimed: list[str] = []
    start = threading.Barrier(6)

    def work() -> None:
        own = open_registry(url)
        start.wait(30)
        for _ in range(4):
            job = own.jobs.claim("w", 60, TRAIN, max_project_jobs=limit)
            with reading(own.engine) as connection:
                at_work = select(func.count()).where(jobs.c.state == JobState.RUNNING).group_by(jobs.c.project)
                most.extend(connection.execute(at_work).scalars())
            if job is not None:
                claimed.append(job.uid)
                own.jobs.fail(job.uid, job.epoch, "INTERNAL", "done")
        own.close()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) <= limit
    assert len(claimed) == len(set(claimed)) > 0


def test_a_claim_that_does_not_end_holds_up_no_other_for_good(migrated_postgres_url, monkeypatch):
    monkeypatch.setattr(job_claims, "_CLAIM_MILLISECONDS", 50)
    registry = open_registry(migrated_postgres_url)
    train(registry, "a", ready(registry))
    with writing(registry.engine) as connection:
        job_claims.serialize_claims(connection)
        with pytest.raises(UnavailableError):
            claim(registry)
    assert claim(registry) == "p/a"
    registry.close()


def test_every_kind_has_rules_and_names_of_its_own():
    assert set(RULES) == set(JobKind)
    for kind in JobKind:
        assert kind_of(job_name(kind, "p", "j")) is kind
    assert len({str(job_name(kind, "p", "j")) for kind in JobKind}) == len(JobKind)


# jobs that are part of others


def test_parts_are_listed_by_their_parent(registry):
    dataset = ready(registry)
    study, other = train(registry, "study", dataset), train(registry, "other", dataset)
    trials = [train(registry, f"trial-{number}", dataset, parent=study.uid) for number in range(3)]
    assert {trial.parent_uid for trial in trials} == {study.uid}
    page = registry.jobs.children(study.uid, 2)
    rest = registry.jobs.children(study.uid, 2, page.next_page_token)
    assert sorted(job.uid for job in (*page.items, *rest.items)) == sorted(trial.uid for trial in trials)
    assert registry.jobs.children(other.uid).items == ()
    with pytest.raises(InvalidFieldError, match="page_token"):
        registry.jobs.children(other.uid, 2, page.next_page_token)


def test_a_cancel_reaches_all_parts_and_their_parts(registry):
    dataset = ready(registry)
    study = train(registry, "study", dataset)
    assert claim(registry) == "p/study"
    running = train(registry, "running", dataset, parent=study.uid)
    assert claim(registry) == "p/running"
    within = train(registry, "within", dataset, parent=running.uid)
    failed = train(registry, "failed", dataset, parent=study.uid)
    other = train(registry, "other", dataset)
    assert claim(registry) == "p/within"
    job = registry.jobs.claim("w", 60, TRAIN)
    assert job.uid == failed.uid
    registry.jobs.fail(job.uid, job.epoch, "INTERNAL", "done")
    waiting = train(registry, "waiting", dataset, parent=study.uid)
    registry.jobs.cancel_request(study.name)
    made = (study, running, within, failed, waiting, other)
    assert [registry.jobs.get_by_uid(job.uid).state for job in made] == [
        JobState.CANCELLING,
        JobState.CANCELLING,
        JobState.CANCELLING,
        JobState.FAILED,
        JobState.CANCELLED,
        JobState.PENDING,
    ]
    assert registry.jobs.heartbeat(running.uid, 1) is True
    with pytest.raises(CancelledError, match="trainingJobs/study"):
        train(registry, "late", dataset, parent=study.uid)


def test_a_part_needs_a_parent_that_has_not_ended(registry):
    dataset = ready(registry)
    study = train(registry, "study", dataset)
    job = registry.jobs.claim("w", 60, TRAIN)
    registry.jobs.fail(job.uid, job.epoch, "INTERNAL", "done")
    with pytest.raises(WrongStateError, match="FAILED"):
        train(registry, "late", dataset, parent=study.uid)
    with pytest.raises(ResourceNotFoundError):
        train(registry, "orphan", dataset, parent="0" * 32)
    assert [job.name.job for job in registry.jobs.list(JobKind.TRAIN, "p").items] == ["study"]


def test_what_a_job_works_on_and_has_made_is_kept(registry):
    dataset = ready(registry)
    inputs = {"dataset": str(dataset.name), "model": "projects/p/models/m", "staged": True, "other": [1, None]}
    made = registry.jobs.create(JobKind.TRAIN, "p", inputs=inputs, config={}, dataset_uid=dataset.uid)
    found = registry.jobs.get_by_uid(made.uid)
    assert (found.inputs, found.outputs) == (inputs, {})
    assert (found.dataset, found.model, found.staged, found.model_version) == (
        str(dataset.name),
        "projects/p/models/m",
        True,
        None,
    )


def test_a_job_may_read_no_dataset(registry):
    made = registry.jobs.create(JobKind.TRAIN, "p", inputs={}, config={})
    assert (made.dataset_uid, made.dataset, made.model, made.staged) == ("", "", "", False)
    assert registry.jobs.claim("w", 60, TRAIN).uid == made.uid
