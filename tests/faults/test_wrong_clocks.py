"""A trainer whose wall clock is hours off: leases and times go by the database's clock."""

from pathlib import Path

import pytest
from sqlalchemy import func, select

from rowmint.names import TrainingJobName
from rowmint.registry import JobRecord
from rowmint.registry.engine import reading
from rowmint.v1 import training_job_pb2 as pb
from tests.acceptance.processes import ServiceProcess, Services
from tests.crash.scenario import CSV, patient_client, training_config
from tests.crash.storage import Inside, Storage
from tests.faults.wrong_clock import wrong_clock
from tests.waiting import wait_until

LEASE_SECONDS = 4
BEATS = 16
"""Heartbeats of 0.3 s: longer than the lease."""


def holder(job: JobRecord) -> str:
    return job.holder.rpartition(":")[2]


def wait_for_beats(inside: Inside, name: TrainingJobName, trainer: ServiceProcess) -> int:
    """Wait until the lease was renewed several times, by one trainer, of one attempt; return which attempt that is."""
    leases = set()

    def beaten() -> bool:
        job = inside.registry.jobs.get(name)
        assert not job.state.ended, "the fit is too short for this test"
        if holder(job) == str(trainer.pid):
            leases.add((job.attempt, job.lease_until))
        return len(leases) >= BEATS

    wait_until(beaten, f"{BEATS} heartbeats")
    (attempt,) = {attempt for attempt, _ in leases}
    return attempt


def database_seconds(inside: Inside) -> int:
    """Return the time of the database's clock, in whole seconds since 1970."""
    with reading(inside.registry.engine) as connection:
        return int(connection.execute(select(func.floor(func.extract("epoch", func.now())))).scalar_one())


# To a clock that is ahead each lease seems to have run out; to one that is behind, none ever.
@pytest.mark.parametrize("hours", [-7, 7])
def test_wrong_clocks_neither_take_over_a_live_lease_nor_keep_an_expired_one(
    services: Services, tmp_path: Path, migrated_postgres_url: str, hours: int
) -> None:
    storage = Storage(tmp_path, migrated_postgres_url)
    holds, waits = (wrong_clock(tmp_path / "holds", -hours), wrong_clock(tmp_path / "waits", hours))
    # No checkpoint: the fit is not to hurry to its end.
    slow = {"ROWMINT_CHECKPOINT_SECONDS": "3600", "ROWMINT_LEASE_SECONDS": str(LEASE_SECONDS)}
    config = training_config()
    config.ctgan.epochs = 100_000
    holding = services.start("trainer_service", {**storage.trainer(**slow), **holds})
    with storage.open() as inside:
        with patient_client(holding.address) as client:
            begun = database_seconds(inside)
            dataset = client.upload(CSV, "customers", format="csv", primary_key="customer")
            assert begun <= dataset.create_time.seconds <= database_seconds(inside)
            job = client.train("customers", "people", config)
        name = TrainingJobName.parse(job.name)
        wait_until(lambda: holder(inside.registry.jobs.get(name)) == str(holding.pid), "the job's begin")
        waiting = services.start("trainer_service", {**storage.trainer(**slow), **waits})
        attempt = wait_for_beats(inside, name, holding)
        assert inside.registry.jobs.get(name).attempt == attempt
        holding.kill_with_children()
        wait_until(lambda: holder(inside.registry.jobs.get(name)) == str(waiting.pid), "the takeover")
        assert wait_for_beats(inside, name, waiting) == attempt + 1
        with patient_client(waiting.address) as client:
            client.cancel_job(job.name)
            wait_until(lambda: client.get_job(job.name).state == pb.JOB_STATE_CANCELLED, "the job's end")
            ended = client.get_job(job.name)
        times = [ended.create_time.seconds, ended.start_time.seconds, ended.end_time.seconds]
        in_order = [begun, *times, database_seconds(inside)]
        assert sorted(in_order) == in_order
