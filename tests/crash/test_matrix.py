"""Each place at several of its passings, on both back ends, and the trainer with all its workers at any moment.

Run by `make test-full`; a table of what was killed is printed at the end.
"""

import random
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from sqlalchemy import select

from rowmint.failpoints import FAILPOINTS
from rowmint.registry.engine import reading
from rowmint.registry.job_rows import JobState
from rowmint.registry.tables import jobs
from tests.crash.conftest import REPORT
from tests.crash.scenario import Outcome, run_scenario
from tests.crash.storage import Inside, Storage
from tests.crash.supervisor import Kill, Supervisor
from tests.postgres_server import PostgresServer
from tests.swift_server import SwiftServer

pytestmark = [pytest.mark.full, pytest.mark.timeout(3_600)]

BACK_ENDS = ("embedded", "remote")


def twice(place: str, section: str = "") -> tuple[Kill, Kill]:
    """The attempt that follows dies at the same place: what is passed once in a process is passed a second time."""
    return Kill(place, 1, section), Kill(place, 1, section)


# The fit has 4 epochs of 6 steps, with probes after the second and the last; a step is counted from where the attempt
# began, so the first kill of a fit in each scenario is the one that is exactly where it says. A job without progress in
# three attempts has failed: no more than two die before its first checkpoint.
SCENARIOS: dict[str, tuple[Kill, ...]] = {
    "first passings": (
        Kill("upload.segment.stored"),
        Kill("upload.segment.committed"),
        Kill("upload.finished"),
        Kill("ingest.verified"),
        Kill("ingest.types.joined"),
        Kill("encode.began"),
        Kill("checkpoint.stored"),
        Kill("fit.step"),
        Kill("fit.epoch"),
        Kill("publish.weights.stored"),
        Kill("alias.moved"),
        Kill("delete.committed"),
        Kill("sweep.object.deleted", section="delete"),
    ),
    "second passings": (
        Kill("upload.segment.stored", 2),
        Kill("upload.segment.committed", 2),
        *twice("ingest.types.joined"),
        Kill("encode.ended"),
        Kill("checkpoint.committed"),
        Kill("fit.step", 2),
        Kill("fit.epoch", 2),
        Kill("publish.manifest.stored"),
        Kill("alias.moved", 2),
        Kill("sweep.object.deleted", 2, "delete"),
    ),
    "late segments, end of an epoch": (
        Kill("upload.segment.stored", 7),
        Kill("upload.segment.committed", 3),
        *twice("ingest.table.stored"),
        Kill("fit.step", 6),
        Kill("checkpoint.stored", 2),
        Kill("checkpoint.committed", 2),
        *twice("publish.weights.stored"),
        *twice("sweep.object.aside"),
        *twice("alias.moved", "moved"),
        Kill("sweep.forgotten", 1, "delete"),
    ),
    "begin of an epoch, the second job": (
        Kill("upload.segment.committed", 7),
        Kill("ingest.ready"),
        Kill("fit.step", 7),
        Kill("fit.step", 2),
        *twice("publish.manifest.stored"),
        Kill("encode.began", 1, "second"),
        Kill("encode.ended"),
        Kill("publish.committed"),
        Kill("sweep.object.deleted", 1, "end"),
    ),
    "before a probe, raw segments swept": (
        Kill("sweep.object.deleted", 5),
        *twice("encode.began"),
        Kill("fit.step", 12),
        Kill("fit.epoch", 2),
        Kill("publish.committed"),
        Kill("publish.weights.stored", 1, "second"),
        Kill("delete.committed"),
        Kill("sweep.forgotten", 1, "end"),
    ),
    "after a probe, the list of garbage": (
        Kill("sweep.forgotten"),
        *twice("encode.ended"),
        Kill("fit.step", 13),
        Kill("checkpoint.committed", 9),
        Kill("publish.manifest.stored", 1, "second"),
    ),
    "the last step": (
        Kill("fit.step", 24),
        Kill("fit.step"),
        Kill("publish.weights.stored"),
        Kill("publish.committed", 1, "second"),
    ),
    "the last epoch": (
        Kill("fit.epoch", 4),
        Kill("publish.manifest.stored"),
        Kill("publish.weights.stored"),
    ),
    "late checkpoints": (
        Kill("mark.written"),
        Kill("checkpoint.stored", 9),
        Kill("sweep.object.deleted", 3),
        Kill("sweep.forgotten", 2),
    ),
}
SEEDS = (1,)
RANDOM_KILLS = 10
"""In each of a back end's scenarios: 20 in all."""


@dataclass(frozen=True)
class Case:
    """A scenario, or a number of kills at random, on a back end."""

    back_end: str
    name: str
    kills: tuple[Kill, ...] = ()
    seed: int | None = None

    def __str__(self) -> str:
        return f"{self.back_end}, {self.name}"


CASES = [
    *(Case(back_end, name, kills) for back_end in BACK_ENDS for name, kills in SCENARIOS.items()),
    *(Case(back_end, f"at random, seed {seed}", seed=seed) for back_end in BACK_ENDS for seed in SEEDS),
]


def kill_at_random(seed: int) -> Callable[[Supervisor, Inside], None]:
    """Return what kills a trainer and its workers some seconds after each other."""

    def disturb(supervisor: Supervisor, inside: Inside) -> None:
        draw = random.Random(seed)
        for _ in range(RANDOM_KILLS):
            pause = draw.uniform(0.3, 5.0)
            # A job whose last attempt dies has failed, as it should.
            while not supervisor.over.wait(pause) and _last_attempt(inside):
                pause = 0.1
            if supervisor.over.is_set():
                return
            supervisor.kill()

    return disturb


def _last_attempt(inside: Inside) -> bool:
    at_work = select(jobs.c.uid).where(jobs.c.state == JobState.RUNNING, jobs.c.attempt >= jobs.c.max_attempts)
    with reading(inside.registry.engine) as connection:
        return connection.execute(at_work).first() is not None


@pytest.fixture(scope="session")
def outcomes(
    scenarios: ThreadPoolExecutor,
    undisturbed: Future[Outcome],
    postgres: PostgresServer,
    swift: SwiftServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[Case, Future[Outcome]]:
    """Every case, under way."""

    def storage(case: Case) -> Storage:
        home = tmp_path_factory.mktemp("matrix")
        if case.back_end == "embedded":
            return Storage(home)
        return Storage(home, postgres.create_database(), swift.create_bucket(), swift.options)

    def run(case: Case, where: Storage) -> Outcome:
        return run_scenario(where, case.kills, None if case.seed is None else kill_at_random(case.seed))

    return {case: scenarios.submit(run, case, storage(case)) for case in CASES}


def test_every_place_is_in_the_matrix() -> None:
    assert {kill.place for kills in SCENARIOS.values() for kill in kills} == FAILPOINTS


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nothing_is_lost_whatever_is_killed(
    case: Case, outcomes: dict[Case, Future[Outcome]], undisturbed: Future[Outcome], request: pytest.FixtureRequest
) -> None:
    report = request.config.stash.setdefault(REPORT, [])
    try:
        found = outcomes[case].result()
    except BaseException:
        report.append((case.name, case.back_end, "", "", "", "", "FAILED"))
        raise
    held = found.facts == undisturbed.result().facts
    result = "as undisturbed" if held else "FAILED"
    if case.seed is not None:
        killed = f"trainer and workers, {found.starts - 1} times"
        report.append((case.name, case.back_end, "any", "", killed, f"{found.seconds:.0f} in all", result))
    for number, death in enumerate(found.deaths, 1):
        kill = death.kill
        seconds = f"{death.seconds:.1f} of {found.seconds:.0f}"
        report.append(
            (case.name, case.back_end, f"{number:2} {kill.place}", str(kill.hit), death.died or "-", seconds, result)
        )
    assert [death.kill for death in found.deaths if not death.died] == []
    if case.seed is not None:
        assert found.starts == 1 + RANDOM_KILLS
    assert undisturbed.result().facts == found.facts
