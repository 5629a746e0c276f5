"""Watchers of jobs: one query for all of them, no event lost or twice, and as many as may be."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowmint.errors import LimitError, UnavailableError
from trainer_service.jobs.notifier import Head, JobNotifier, WatchLimits


class Ledger:
    """Jobs and their events, and how often each was read."""

    def __init__(self, jobs: int) -> None:
        self.events = {f"job-{number}": [0] for number in range(jobs)}
        self.ended: set[str] = set()
        self.looks: list[Sequence[str]] = []
        self.reads: Counter[str] = Counter()
        self.failure: Exception | None = None

    async def look(self, uids: Sequence[str]) -> Mapping[str, Head]:
        self.looks.append(uids)
        if self.failure is not None:
            raise self.failure
        return {uid: self.head(uid) for uid in uids if uid in self.events}

    def head(self, uid: str) -> Head:
        return len(self.events[uid]), uid in self.ended

    def append(self, uid: str, *, ends: bool = False) -> None:
        self.events[uid].append(len(self.events[uid]))
        if ends:
            self.ended.add(uid)

    def after(self, uid: str, seen: int) -> tuple[Head, list[int]]:
        """Read a job, and then its events after some."""
        self.reads[uid] += 1
        return self.head(uid), self.events[uid][seen:]


class Ticks:
    """Pauses between looks that end when the test says so."""

    def __init__(self) -> None:
        self._gate = asyncio.Semaphore(0)
        self._waiting = asyncio.Semaphore(0)

    async def pause(self) -> None:
        self._waiting.release()
        await self._gate.acquire()

    async def looked(self) -> None:
        """Return once a look has been made, and all that it woke has run."""
        await self._waiting.acquire()
        for _ in range(20):
            await asyncio.sleep(0)

    def go(self) -> None:
        self._gate.release()


async def follow(notifier: JobNotifier, ledger: Ledger, uid: str, seen: list[int]) -> None:
    """Watch a job to its end, as the servicer does."""
    with notifier.watched("p", uid) as watch:
        while True:
            head, events = ledger.after(uid, len(seen))
            seen.extend(events)
            if head[1] and len(seen) >= head[0]:
                return
            await watch.wait_beyond(head)


def run(test: Callable[[Ticks], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test(Ticks())

    asyncio.run(bounded())


def notifier_of(ledger: Ledger, pause: Callable[[], Awaitable[None]], **limits: int) -> JobNotifier:
    return JobNotifier(ledger.look, WatchLimits(**limits), lambda _: None, pause)


def test_a_thousand_watchers_of_ten_jobs_cost_one_query_a_look_and_one_read_a_change():
    async def test(ticks: Ticks) -> None:
        ledger = Ledger(10)
        notifier = notifier_of(ledger, ticks.pause)
        seen: list[list[int]] = [[] for _ in range(1000)]
        watchers = [
            asyncio.create_task(follow(notifier, ledger, f"job-{number % 10}", seen[number])) for number in range(1000)
        ]
        await ticks.looked()
        assert (len(ledger.looks), sorted(ledger.looks[0])) == (1, sorted(ledger.events))
        assert ledger.reads.total() == 1000
        for _ in range(3):  # nothing happens: nothing is read
            ticks.go()
            await ticks.looked()
        assert (len(ledger.looks), ledger.reads.total()) == (4, 1000)
        ledger.append("job-3")
        ticks.go()
        await ticks.looked()
        assert (len(ledger.looks), ledger.reads.total()) == (5, 1100)
        for uid in ledger.events:
            ledger.append(uid, ends=True)
        ticks.go()
        await asyncio.gather(*watchers)
        assert [len(one) for one in seen] == [3 if number % 10 == 3 else 2 for number in range(1000)]
        ticks.go()
        await asyncio.sleep(0)
        assert notifier._jobs == {}

    run(test)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["append", "look", "join", "turn", "turn"]), max_size=40))
def test_no_event_is_lost_or_seen_twice(steps):
    async def test(ticks: Ticks) -> None:
        ledger = Ledger(1)
        notifier = notifier_of(ledger, ticks.pause)
        seen: list[list[int]] = []
        watchers: list[asyncio.Task[None]] = []
        for step in ["join", *steps, "join"]:
            match step:
                case "append":
                    ledger.append("job-0")
                case "look":
                    ticks.go()
                case "join":
                    seen.append([])
                    watchers.append(asyncio.create_task(follow(notifier, ledger, "job-0", seen[-1])))
                case _:
                    await asyncio.sleep(0)
        ledger.append("job-0", ends=True)
        for _ in range(3):
            ticks.go()
        await asyncio.gather(*watchers)
        assert seen == [ledger.events["job-0"]] * len(seen)

    run(test)


def test_a_job_that_is_gone_and_a_registry_that_is_away_are_noticed():
    async def test(ticks: Ticks) -> None:
        ledger = Ledger(2)
        notifier = notifier_of(ledger, ticks.pause)
        with notifier.watched("p", "job-0") as gone, notifier.watched("p", "job-1") as away:
            waits = [asyncio.create_task(watch.wait_beyond((1, False))) for watch in (gone, away)]
            await ticks.looked()
            del ledger.events["job-0"]
            ticks.go()
            await ticks.looked()
            assert [wait.done() for wait in waits] == [True, False]
            ledger.failure = UnavailableError("the registry is away", retry_after=1.0)
            ticks.go()
            with pytest.raises(UnavailableError, match="away"):
                await waits[1]
            ledger.failure = None
            ledger.append("job-1")
            again = asyncio.create_task(away.wait_beyond((1, False)))
            ticks.go()
            await again

    run(test)


def test_so_many_watches_are_open_at_once_and_no_more():
    async def test(ticks: Ticks) -> None:
        shed: list[str] = []
        ledger = Ledger(1)
        notifier = JobNotifier(ledger.look, WatchLimits(3, 2), shed.append, ticks.pause)
        with notifier.watched("a", "job-0"), notifier.watched("a", "job-0"):
            with pytest.raises(LimitError, match="ROWMINT_MAX_PROJECT_WATCHES"), notifier.watched("a", "job-0"):
                pass
            with notifier.watched("b", "job-0"):
                with pytest.raises(LimitError) as raised, notifier.watched("c", "job-0"):
                    pass
                assert raised.value.metadata == {"limit": "3", "setting": "ROWMINT_MAX_WATCHES"}
        assert shed == ["project_watches", "watches"]

    run(test)
