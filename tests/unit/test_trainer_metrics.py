"""What a trainer's metrics say of jobs: from its workers, and from the registry."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from rowmint.errors import UnavailableError
from rowmint.names import TrainingJobName
from rowmint.registry import JobKind, JobState
from tests.manual_clock import ManualClock
from tests.unit.test_pool import READS, Ledger, job, make, run, until  # noqa: F401 - fixtures
from tests.waiting import PATIENCE
from trainer_service import metrics
from trainer_service.jobs.runners import PHASES as PHASES_OF

PHASES = "rowmint_job_phase_seconds"
REPORTS_PHASES = (
    'print(json.dumps({"phase": "fetching"}), flush=True); print(json.dumps({"phase": "fitting"}), flush=True)\n'
)


def value(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(name, labels) or 0.0


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
    clock = ManualClock()
    measured = metrics.AttemptMetrics(JobKind.TRAIN, clock)
    measured.on_phase("p1")
    clock.now = 2.0
    measured.on_phase("p2")
    clock.now = 5.5
    measured.on_end(answer)
    grown = [now - then for now, then in zip(seen(), before, strict=True)]
    assert grown == [2.0, 3.5, 1.0, 0.0 if state is None else 1.0, answer.get("garbage", 0)]


def test_metrics_of_alerts_exist_before_their_first_event():
    """A series that begins with its first event has no increase."""
    fresh = (
        "from prometheus_client import generate_latest; from trainer_service import metrics;"
        "from trainer_service.jobs.runners import PHASES; metrics.declare_phases(PHASES);"
        "print(generate_latest(metrics.REGISTRY).decode())"
    )
    done = subprocess.run([sys.executable, "-c", fresh], capture_output=True, text=True, timeout=60, check=True)
    shown = set(done.stdout.splitlines())
    died = {
        f'{PHASES}_count{{kind="{kind}",outcome="died",phase="{phase}"}} 0.0'
        for kind, phases in PHASES_OF.items()
        for phase in phases
    }
    ended = {
        f'rowmint_jobs_ended_total{{kind="{kind}",state="{state}"}} 0.0'
        for kind in ("ingest", "train")
        for state in ("SUCCEEDED", "FAILED", "CANCELLED")
    }
    assert len(died | ended) == 9 + 6
    assert died | ended <= shown


def test_a_job_that_is_given_up_is_counted_by_the_trainer_that_claims_it(make):  # noqa: F811 - the fixture
    class GivesUp(Ledger):
        def claim(self, holder, lease_seconds, kinds, *, max_project_jobs, ended):
            if self.waiting and JobKind.TRAIN in kinds:
                self.waiting.clear()
                ended(JobKind.TRAIN, JobState.FAILED)

    labels = {"kind": "train", "state": "FAILED"}
    before = value("rowmint_jobs_ended_total", **labels)

    async def test() -> None:
        pool = make(GivesUp(job("a")), READS)
        running = asyncio.create_task(pool.run())
        await until(lambda: value("rowmint_jobs_ended_total", **labels) == before + 1)
        await pool.close()
        await running

    run(test)


def test_the_phases_of_a_crashed_worker_are_measured(make):  # noqa: F811 - the fixture
    labels = {"kind": "train", "phase": "fitting", "outcome": "died"}
    before = value(f"{PHASES}_count", **labels), value(f"{PHASES}_count", **{**labels, "outcome": "done"})
    ledger = Ledger(job("a"))

    async def test() -> None:

        pool = make(ledger, READS + REPORTS_PHASES + "os.kill(os.getpid(), signal.SIGKILL)\n")
        running = asyncio.create_task(pool.run())
        await until(lambda: value(f"{PHASES}_count", **labels) > before[0])
        await pool.close()
        await running

    run(test)
    assert value(f"{PHASES}_count", **labels) == before[0] + 1
    assert value(f"{PHASES}_count", **{**labels, "outcome": "done"}) == before[1]
    assert value(f"{PHASES}_count", kind="train", phase="fetching", outcome="done") >= 1


class Registry:
    """Counts its readings; away while `away` is set, and hangs while it has no turn."""

    def __init__(self) -> None:
        self.requested = 0
        self.error: Exception | None = None
        self.asking = threading.Event()
        self.turn = threading.Event()
        self.turn.set()

    def census(self):
        self.asking.set()
        assert self.turn.wait(PATIENCE)
        self.requested += 1
        if self.error is not None:
            raise self.error
        return {(JobKind.TRAIN, JobState.RUNNING): 2}

    def lease_ages(self):
        return {TrainingJobName("p", "j"): 0.25}


def collected(collector: metrics.JobCollector) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in collector.collect()
        for sample in family.samples
    }


def wait_until(condition: Callable[[], bool]) -> None:
    async def test() -> None:
        await until(condition)

    run(test)


def test_jobs_are_shown_from_the_last_reading_and_a_scrape_reads_nothing():
    registry, clock = Registry(), ManualClock()
    collector = metrics.JobCollector(registry, keep_seconds=20.0, clock=clock)
    assert list(collector.describe()) != []
    assert collected(collector) == {}
    assert registry.requested == 0
    collector.refresh()
    found = collected(collector)
    assert found["rowmint_jobs", "train", "RUNNING"] == 2
    assert found["rowmint_jobs", "ingest", "PENDING"] == 0
    assert found["rowmint_job_lease_age_seconds", "projects/p/trainingJobs/j"] == 0.25
    clock.now = 19.9
    assert collected(collector) == found
    clock.now = 20.0
    assert collected(collector) == {}
    assert registry.requested == 1


@pytest.mark.parametrize("error", [UnavailableError("away"), ZeroDivisionError()])
def test_after_a_registry_that_was_unavailable_jobs_are_shown_again(error):
    registry, clock = Registry(), ManualClock()
    collector = metrics.JobCollector(registry, pause_seconds=0.001, keep_seconds=20.0, clock=clock)
    collector.start()
    try:
        wait_until(lambda: bool(collected(collector)))
        registry.error = error
        requested = registry.requested
        wait_until(lambda: registry.requested > requested + 2)
        assert collected(collector)
        clock.now = 30.0
        assert collected(collector) == {}
        registry.error = None
        wait_until(lambda: bool(collected(collector)))
    finally:
        collector.close()
    collector._thread.join(PATIENCE)
    assert not collector._thread.is_alive()


def test_a_registry_that_hangs_delays_no_scrape():
    registry, clock = Registry(), ManualClock()
    collector = metrics.JobCollector(registry, pause_seconds=0.001, keep_seconds=20.0, clock=clock)
    collector.refresh()
    registry.asking.clear()
    registry.turn.clear()
    collector.start()
    try:
        assert registry.asking.wait(PATIENCE)
        assert collected(collector)["rowmint_jobs", "train", "RUNNING"] == 2
        clock.now = 20.0
        assert collected(collector) == {}
    finally:
        collector.close()
        registry.turn.set()
    collector._thread.join(PATIENCE)
    assert not collector._thread.is_alive()
