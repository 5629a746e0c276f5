"""The pool: which worker gets which job, and what becomes of a job whose worker or trainer ends."""

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rowmint.errors import FencedError, UnavailableError
from rowmint.names import TrainingJobName
from rowmint.registry import JobKind, JobRecord, JobState
from tests.acceptance.processes import children_of
from tests.waiting import PATIENCE
from trainer_service.jobs import pool
from trainer_service.jobs.backends.subprocesses import SubprocessBackend
from trainer_service.jobs.pool import MAX_WAITING_ESTIMATES, WorkerPool

READY = "import json, os, signal, sys, time; print('{\"ready\": true}', flush=True)\n"
READS = READY + "body = json.loads(input()); open(os.environ['MARK'] + str(os.getpid()), 'w').close()\n"
ECHO = READS + "print(json.dumps({'pid': os.getpid(), **body}), flush=True)\n"
# Works until its trainer is gone, or SIGTERM; the second is deaf to that.
WORKS = READS + "sys.stdin.read()\n"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + WORKS


class Ledger:
    """Jobs that wait, in memory; notes what is given back."""

    def __init__(self, *jobs: JobRecord) -> None:
        self.waiting = list(jobs)
        self.claims = 0
        self.released: list[tuple[str, int]] = []
        self.lock = threading.Lock()

    def claim(
        self,
        holder: str,
        lease_seconds: float,
        kinds: tuple[JobKind, ...],
        *,
        max_project_jobs: int,
        ended: Callable[[JobKind, JobState], None],
    ) -> JobRecord | None:
        assert max_project_jobs == 7
        with self.lock:
            self.claims += 1
            found = next((job for job in self.waiting if job.kind in kinds), None)
            if found is not None:
                self.waiting.remove(found)
            return found

    def release(self, uid: str, epoch: int) -> None:
        self.released.append((uid, epoch))


def job(uid: str, kind: JobKind = JobKind.TRAIN) -> JobRecord:
    return JobRecord(
        uid=uid,
        name=TrainingJobName("p", uid),
        kind=kind,
        state=JobState.RUNNING,
        phase="",
        config={},
        inputs={},
        outputs={},
        dataset_uid="",
        epoch=1,
        attempt=1,
        max_attempts=3,
        holder="",
        lease_until=None,
        cancel_requested=False,
        error=None,
        event_count=1,
        create_time=datetime(2024, 1, 1, tzinfo=UTC),
        start_time=None,
        end_time=None,
    )


@pytest.fixture
def make(monkeypatch, tmp_path):
    """Give a function that makes a pool over a ledger, its workers running a script."""

    def made(ledger: Ledger, script: str, workers: int = 1, idle: float = 0.01, stop: float = 0.3) -> WorkerPool:
        monkeypatch.setattr(pool, "_IDLE_SECONDS", idle)
        environment = {**os.environ, "MARK": str(tmp_path / "mark-")}
        return WorkerPool(
            ledger,
            SubprocessBackend(environment, tmp_path / "scratch", (sys.executable, "-c", script)),
            {"home": "h"},
            workers=workers,
            max_project_jobs=7,
            holder="me",
            lease_seconds=1.0,
            stop_seconds=stop,
        )

    return made


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE):
            await test()

    asyncio.run(bounded())


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; `run` sets the bound."""
    while not condition():  # noqa: ASYNC110 - files and processes set no event
        await asyncio.sleep(0.005)


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def new_children(others: Iterable[int] = ()) -> set[int]:
    """Return the children of this process, which may have some of other tests' by now."""
    return set(children_of(os.getpid())) - set(others)


def marks(folder: Path) -> list[int]:
    return [int(mark.name.removeprefix("mark-")) for mark in folder.glob("mark-*")]


def test_two_commands_never_meet_in_one_worker(make):
    async def test() -> None:
        one = make(Ledger(), ECHO)
        serving = asyncio.create_task(one.run())
        first, second = await asyncio.gather(one._take_worker(), one._take_worker())
        assert first.pid != second.pid
        answers = await asyncio.gather(one._command(first, {"do": "a"}), one._command(second, {"do": "b"}))
        assert [(answer["pid"], answer["do"]) for answer in answers] == [
            (first.pid, "a"),
            (second.pid, "b"),
        ]
        assert answers[0]["settings"] == {"home": "h"}
        await one.close()
        await serving

    run(test)


def test_a_job_is_run_once_and_not_given_back(make, tmp_path):
    async def test() -> None:
        ledger = Ledger(job("a"), job("b"), job("c", JobKind.INGEST))
        one = make(ledger, ECHO)
        serving = asyncio.create_task(one.run())
        await until(lambda: len(marks(tmp_path)) == 3 and not one._busy)
        await one.close()
        await serving
        assert ledger.released == []

    run(test)


def test_an_ingest_does_not_wait_for_a_fit(make, tmp_path):
    async def test() -> None:
        ledger = Ledger(job("fit"), job("later"), job("upload", JobKind.INGEST))
        one = make(ledger, WORKS)
        serving = asyncio.create_task(one.run())
        await until(lambda: len(marks(tmp_path)) == 2)
        assert [waiting.uid for waiting in ledger.waiting] == ["later"]
        await one.close()
        await serving

    run(test)


@pytest.mark.parametrize("script", [WORKS, DEAF])
def test_closing_ends_the_workers_and_gives_their_jobs_back(make, tmp_path, script):
    async def test() -> None:
        ledger = Ledger(job("a"), job("b"))
        one = make(ledger, script)
        serving = asyncio.create_task(one.run())
        await until(lambda: bool(marks(tmp_path)))
        await one.close()
        await serving
        assert ledger.released == [("a", 1)]
        assert [waiting.uid for waiting in ledger.waiting] == ["b"], "nothing is claimed any more"
        assert not alive(marks(tmp_path)[0])
        assert one._spare._starting is None
        with pytest.raises(UnavailableError, match="shutting down"):
            await one.estimate({})
        await one.close()

    run(test)


def test_killing_waits_for_no_worker(make, tmp_path):
    async def test() -> None:
        ledger = Ledger(job("a"))
        one = make(ledger, DEAF, stop=10 * PATIENCE)
        serving = asyncio.create_task(one.run())
        await until(lambda: bool(marks(tmp_path)))
        closing = asyncio.create_task(one.close())
        await asyncio.sleep(0)
        one.kill()
        await closing
        await serving
        assert ledger.released == [("a", 1)]
        assert not alive(marks(tmp_path)[0])

    run(test)


def test_a_job_claimed_while_closing_is_given_back(make):
    class Slow(Ledger):
        requested = threading.Event()
        answer = threading.Event()

        def claim(self, holder, lease_seconds, kinds, **more):
            if JobKind.INGEST in kinds:
                return None
            self.requested.set()
            self.answer.wait(PATIENCE)
            return super().claim(holder, lease_seconds, kinds, **more)

    async def test() -> None:
        ledger = Slow(job("a"))
        one = make(ledger, ECHO)
        serving = asyncio.create_task(one.run())
        await until(ledger.requested.is_set)
        await one.close()
        ledger.answer.set()
        await serving
        assert ledger.released == [("a", 1)]

    run(test)


def test_a_job_its_worker_has_ended_may_be_given_back_again(make, tmp_path):
    class Ended(Ledger):
        def release(self, uid, epoch):
            super().release(uid, epoch)
            raise FencedError("ended already")

    async def test() -> None:
        ledger = Ended(job("a"))
        one = make(ledger, WORKS)
        serving = asyncio.create_task(one.run())
        await until(lambda: bool(marks(tmp_path)))
        await one.close()
        await serving
        assert ledger.released == [("a", 1)]

    run(test)


def test_the_job_of_a_killed_worker_keeps_its_lease(make, tmp_path):
    async def test() -> None:
        ledger = Ledger(job("a"))
        one = make(ledger, WORKS)
        serving = asyncio.create_task(one.run())
        await until(lambda: bool(marks(tmp_path)))
        os.kill(marks(tmp_path)[0], 9)
        await until(lambda: not one._busy)
        ledger.waiting.append(job("b"))
        await until(lambda: len(marks(tmp_path)) == 2)
        assert ledger.released == []
        await one.close()
        await serving

    run(test)


def test_where_no_worker_can_start_jobs_lose_nothing_and_the_machine_rests(make, monkeypatch):
    pauses = []
    until_event = pool._until

    async def noted(event: asyncio.Event, seconds: float) -> None:
        if event is one._closing:
            pauses.append(seconds)
        await until_event(event, 0.001)

    ledger = Ledger(job("a"))
    one = make(ledger, "raise SystemExit(7)", idle=10.0)
    monkeypatch.setattr(pool, "_until", noted)

    async def test() -> None:
        serving = asyncio.create_task(one.run())
        await until(lambda: len(pauses) >= 4)
        with pytest.raises(UnavailableError, match="exit code 7"):
            await one.estimate({})
        await one.close()
        await serving

    run(test)
    # One in turn for each kind of job.
    assert pauses[:4] == [10.0, 10.0, 20.0, 20.0]
    assert (ledger.claims, ledger.released) == (0, [])


def test_no_job_is_claimed_before_a_worker_is_ready(make, tmp_path):
    gate = tmp_path / "gate"
    waits = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.005)\n"
    ledger = Ledger(job("a"))
    others = new_children()

    async def test() -> None:
        one = make(ledger, waits + WORKS)
        serving = asyncio.create_task(one.run())
        await until(lambda: bool(new_children(others)))
        one.wake()
        await asyncio.to_thread(lambda: None)
        assert ledger.claims == 0
        gate.touch()
        await until(lambda: bool(marks(tmp_path)))
        await one.close()
        await serving

    run(test)
    assert ledger.released == [("a", 1)]


def test_an_estimate_does_not_take_the_worker_of_a_job_that_is_being_claimed(make, tmp_path):
    class Slow(Ledger):
        begun = threading.Event()
        proceed = threading.Event()

        def claim(self, holder, lease_seconds, kinds, **more):
            found = super().claim(holder, lease_seconds, kinds, **more)
            if found is not None:
                self.begun.set()
                assert self.proceed.wait(PATIENCE)
            return found

    async def test() -> None:
        ledger = Slow(job("a"))
        one = make(ledger, WORKS)
        serving = asyncio.create_task(one.run())
        await until(ledger.begun.is_set)
        spare = one._spare._starting
        estimating = asyncio.create_task(one.estimate({"do": "estimate"}))
        await asyncio.sleep(0)
        assert one._spare._starting is spare
        ledger.proceed.set()
        await until(lambda: len(marks(tmp_path)) == 2)
        await one.close()
        await serving
        with pytest.raises(UnavailableError, match="died"):
            await estimating
        assert ledger.released == [("a", 1)]

    run(test)


def test_a_worker_that_died_while_it_waited_is_replaced_before_a_job_is_claimed(make, tmp_path):
    ledger = Ledger()
    others = new_children()

    async def test() -> None:
        one = make(ledger, WORKS)
        serving = asyncio.create_task(one.run())
        await until(lambda: ledger.claims > 2)
        (idle,) = new_children(others)
        os.kill(idle, 9)
        await until(lambda: bool(new_children(others) - {idle}))
        ledger.waiting.append(job("a"))
        await until(lambda: bool(marks(tmp_path)))
        assert ledger.released == []
        await one.close()
        await serving

    run(test)


def test_a_fault_of_the_registry_does_not_end_the_work(make, tmp_path):
    class Faulty(Ledger):
        def claim(self, holder, lease_seconds, kinds, **more):
            found = super().claim(holder, lease_seconds, kinds, **more)
            if self.claims <= 2:
                raise UnavailableError("away")
            if self.claims <= 6:
                raise ZeroDivisionError
            return found

    async def test() -> None:
        ledger = Faulty()
        one = make(ledger, WORKS)
        serving = asyncio.create_task(one.run())
        await until(lambda: ledger.claims > 6)
        ledger.waiting.append(job("a"))
        await until(lambda: bool(marks(tmp_path)))
        await one.close()
        await serving

    run(test)


def test_a_wake_up_is_not_lost(make, tmp_path):
    async def test() -> None:
        ledger = Ledger()
        one = make(ledger, WORKS, idle=PATIENCE)
        serving = asyncio.create_task(one.run())
        await until(lambda: ledger.claims == 2)
        ledger.waiting.append(job("a"))
        one.wake()
        await until(lambda: bool(marks(tmp_path)))
        await one.close()
        await serving

    run(test)


def test_so_many_estimates_wait_and_no_more(make, tmp_path):
    async def test() -> None:
        one = make(Ledger(), WORKS)
        made = [asyncio.create_task(one.estimate({"do": "estimate"})) for _ in range(1 + MAX_WAITING_ESTIMATES)]
        await until(lambda: bool(marks(tmp_path)))
        with pytest.raises(UnavailableError, match="8 wait already"):
            await one.estimate({"do": "estimate"})
        made[-1].cancel()
        await asyncio.gather(made[-1], return_exceptions=True)
        another = asyncio.create_task(one.estimate({"do": "estimate"}))
        await asyncio.sleep(0)
        assert not another.done()
        for task in (*made, another):
            task.cancel()
        await asyncio.gather(*made, another, return_exceptions=True)
        await one.close()

    run(test)


def test_an_estimate_that_is_cancelled_ends_its_worker(make, tmp_path):
    async def test() -> None:
        one = make(Ledger(), WORKS)
        requested = asyncio.create_task(one.estimate({"do": "estimate"}))
        await until(lambda: bool(marks(tmp_path)))
        waiting = asyncio.create_task(one.estimate({"do": "estimate"}))
        requested.cancel()
        await asyncio.gather(requested, return_exceptions=True)
        assert not alive(marks(tmp_path)[0])
        await until(lambda: len(marks(tmp_path)) == 2)
        os.kill(next(filter(alive, marks(tmp_path))), 9)
        with pytest.raises(UnavailableError, match="died"):
            await waiting
        await one.close()

    run(test)
