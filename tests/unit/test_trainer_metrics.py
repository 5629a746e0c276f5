"""What a trainer's metrics say of jobs: from its workers, and from the registry."""

import asyncio

import pytest

from rowmint.errors import UnavailableError
from rowmint.names import TrainingJobName
from rowmint.registry import JobKind, JobState
from tests.unit.test_pool import READS, Ledger, job, make, run, scratch, until  # noqa: F401 - fixtures
from trainer_service import metrics
from trainer_service.jobs.course import Course

PHASES = "rowmint_job_phase_seconds"
TELLS = (
    'print(json.dumps({"entered": "fetching"}), flush=True); print(json.dumps({"entered": "fitting"}), flush=True)\n'
)


def value(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(name, labels) or 0.0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("answer", "outcome", "state"),
    [
        ({"done": True, "state": "SUCCEEDED", "garbage": 3}, "done", "SUCCEEDED"),
        ({"done": True, "state": "FAILED"}, "failed", "FAILED"),
        ({"done": True, "state": "CANCELLED"}, "cancelled", "CANCELLED"),
        ({"done": True, "state": ""}, "stopped", None),
        ({"done": True}, "stopped", None),
        ({}, "died", None),
    ],
)
def test_a_phase_has_its_seconds_and_how_the_attempt_ended_in_it(answer, outcome, state):
    def seen() -> list[float]:
        last = {"kind": "train", "phase": "p2", "outcome": outcome}
        return [
            value(f"{PHASES}_sum", kind="train", phase="p1", outcome="done"),
            value(f"{PHASES}_sum", **last),
            value(f"{PHASES}_count", **last),
            value("rowmint_jobs_ended_total", kind="train", state=state or "none"),
            value("rowmint_garbage_objects_deleted_total"),
        ]

    before = seen()
    clock = Clock()
    course = Course(JobKind.TRAIN, clock)
    course.hear({"entered": "p1"})
    clock.now = 2.0
    course.hear({"entered": "p2"})
    clock.now = 5.5
    course.end(answer)
    grown = [now - then for now, then in zip(seen(), before, strict=True)]
    assert grown == [2.0, 3.5, 1.0, 0.0 if state is None else 1.0, answer.get("garbage", 0)]


def test_the_phases_of_a_worker_that_dies_are_measured(make):  # noqa: F811 - the fixture
    labels = {"kind": "train", "phase": "fitting", "outcome": "died"}
    before = value(f"{PHASES}_count", **labels), value(f"{PHASES}_count", **{**labels, "outcome": "done"})
    ledger = Ledger(job("a"))

    async def test() -> None:

        pool = make(ledger, READS + TELLS + "os.kill(os.getpid(), signal.SIGKILL)\n")
        running = asyncio.create_task(pool.run())
        await until(lambda: value(f"{PHASES}_count", **labels) > before[0])
        await pool.close()
        await running

    run(test)
    assert value(f"{PHASES}_count", **labels) == before[0] + 1
    assert value(f"{PHASES}_count", **{**labels, "outcome": "done"}) == before[1]
    assert value(f"{PHASES}_count", kind="train", phase="fetching", outcome="done") >= 1


class Registry:
    """Counts how often it is asked; away where it is told so."""

    def __init__(self) -> None:
        self.asked = 0
        self.away = False

    def census(self):
        self.asked += 1
        if self.away:
            raise UnavailableError("away")
        return {(JobKind.TRAIN, JobState.RUNNING): 2}

    def lease_ages(self, holder):
        assert holder == "me"
        return {TrainingJobName("p", "j"): 0.25}


def collected(collector: metrics.JobCollector) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in collector.collect()
        for sample in family.samples
    }


def test_jobs_are_counted_as_the_registry_has_them_and_not_too_often():
    registry, clock = Registry(), Clock()
    collector = metrics.JobCollector(registry, "me", keep_seconds=1.0, clock=clock)
    assert list(collector.describe()) != []
    assert registry.asked == 0
    found = collected(collector)
    assert found["rowmint_jobs", "train", "RUNNING"] == 2
    assert found["rowmint_jobs", "ingest", "PENDING"] == 0
    assert found["rowmint_job_lease_age_seconds", "projects/p/trainingJobs/j"] == 0.25
    clock.now = 0.9
    assert collected(collector) == found
    assert registry.asked == 1
    clock.now = 1.0
    assert collected(collector) == found
    assert registry.asked == 2


def test_while_the_registry_is_away_no_jobs_are_shown():
    registry, clock = Registry(), Clock()
    collector = metrics.JobCollector(registry, "me", keep_seconds=1.0, clock=clock)
    assert collected(collector)
    registry.away, clock.now = True, 5.0
    assert collected(collector) == {}
    registry.away, clock.now = False, 10.0
    assert collected(collector)
