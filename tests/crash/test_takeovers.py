"""Jobs whose worker dies: taken over by another trainer, given up after bounded retries, cancelled meanwhile."""

from collections.abc import Iterator

import pytest

from rowmint.client import Client
from rowmint.names import TrainingJobName
from rowmint.registry import JobRecord, JobState
from rowmint.v1 import training_job_pb2 as pb
from tests.acceptance.processes import Services, children_of, kill_all
from tests.crash.event_log import check_log
from tests.crash.scenario import CSV, Outcome, patient_client, training_config
from tests.crash.storage import Inside, Storage
from tests.waiting import wait_until


# Over PostgreSQL, tests/faults/test_wrong_clocks.py has a takeover in every run.
@pytest.fixture(params=["embedded", pytest.param("postgresql", marks=pytest.mark.full)])
def storage(request: pytest.FixtureRequest, tmp_path) -> Storage:
    registry = "" if request.param == "embedded" else request.getfixturevalue("migrated_postgres_url")
    return Storage(tmp_path, registry)


@pytest.fixture
def inside(storage: Storage) -> Iterator[Inside]:
    with storage.open() as found:
        yield found


@pytest.fixture
def services(storage: Storage) -> Iterator[Services]:
    found = Services(storage.home)
    yield found
    found.close()


def job_of(inside: Inside, name: str) -> JobRecord:
    return inside.registry.jobs.get(TrainingJobName.parse(name))


def uploaded(client: Client) -> None:
    client.upload(CSV, "customers", format="csv", primary_key="customer")


def test_another_trainer_takes_over_the_jobs_of_a_killed_one(storage, inside, services, undisturbed):
    first = services.start("trainer_service", storage.trainer())
    second = services.start("trainer_service", storage.trainer())
    sampler = services.start("sampler_service", storage.sampler())
    by_pid = {str(trainer.pid): trainer for trainer in (first, second)}
    with patient_client(second.address, sampler.address) as client:
        uploaded(client)
        job = client.train("customers", "people", training_config())

        def begun() -> bool:
            found = job_of(inside, job.name)
            return found.checkpoint is not None and found.checkpoint.step > 1 and found.holder != ""

        wait_until(begun, "a checkpoint")
        found = job_of(inside, job.name)
        holder = by_pid.pop(found.holder.rpartition(":")[2])
        holder.kill_with_children()
        (survivor,) = by_pid.values()
    with patient_client(survivor.address, sampler.address) as client:
        ended = client.wait_job(job.name, 240)
        events = list(client.watch(job.name, timeout=60))
        version = client.get_version(ended.model_version)
    outcome: Outcome = undisturbed.result()
    assert version.model_digest.hex() == outcome.facts.first.digest
    check_log(events, outcome.facts.first.training)
    assert job_of(inside, job.name).attempt == found.attempt + 1


def test_a_job_without_progress_fails_and_the_trainer_continues(storage, inside, services, tmp_path):
    # Each attempt is killed as soon as it is at work, before its first checkpoint.
    trainer = services.start("trainer_service", storage.trainer(ROWMINT_CHECKPOINT_SECONDS="3600"))
    config = training_config()
    config.ctgan.epochs = 2_000
    with patient_client(trainer.address, trainer.address) as client:
        uploaded(client)
        job = client.train("customers", "poisoned", config)
        for attempt in (1, 2, 3):

            def at_work(attempt: int = attempt) -> bool:
                found = job_of(inside, job.name)
                return found.attempt == attempt and found.phase == "fitting"

            wait_until(at_work, f"attempt {attempt}")
            kill_all(children_of(trainer.pid))
        wait_until(lambda: job_of(inside, job.name).state.ended, "the job's end")
        found = client.get_job(job.name)
        assert found.state == pb.JOB_STATE_FAILED
        assert found.error.reason == "INTERNAL"
        assert found.error.message.startswith(
            "the worker died in 3 attempts, the last 3 of them without getting further"
        )
        other = client.wait_job(client.train("customers", "fine", family="independent", seed=1, threads=1).name, 120)
        assert other.state == pb.JOB_STATE_SUCCEEDED
    inside.settle()


def test_a_cancel_committed_while_the_worker_is_dead_wins(storage, inside, services):
    # The lease outlives the test: no trainer takes the job up before the cancel is committed.
    trainer = services.start("trainer_service", storage.trainer(ROWMINT_LEASE_SECONDS="6"))
    config = training_config()
    config.ctgan.epochs = 2_000
    with patient_client(trainer.address, trainer.address) as client:
        uploaded(client)
        job = client.train("customers", "people", config)
        wait_until(lambda: job_of(inside, job.name).checkpoint is not None, "a checkpoint")
        kill_all(children_of(trainer.pid))
        assert client.cancel_job(job.name).state == pb.JOB_STATE_CANCELLING
        wait_until(lambda: job_of(inside, job.name).state.ended, "the job's end")
        found = job_of(inside, job.name)
        assert (found.state, found.attempt, found.checkpoint) == (JobState.CANCELLED, 1, None)
        assert list(client.list_models()) == []
    inside.settle()
