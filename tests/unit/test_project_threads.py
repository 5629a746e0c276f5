"""Threads for blocking calls: no project has all of them, and a call counts until its thread is done."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import pytest

from rowmint.rpc.project_threads import ProjectThreads
from tests.waiting import PATIENCE

CALLER: ContextVar[str] = ContextVar("CALLER")


class Gate:
    """A call that waits in its thread until the gate opens."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.opened = threading.Event()

    def call(self, answer: int) -> int:
        self.entered.release()
        assert self.opened.wait(PATIENCE)
        return answer

    async def wait_entered(self) -> None:
        """Wait until one more call is in its thread."""
        assert await asyncio.get_running_loop().run_in_executor(None, self.entered.acquire, True, PATIENCE)


def run(test: Callable[[ProjectThreads], Coroutine[Any, Any, None]], threads: int = 3, per_project: int = 2) -> None:
    with ThreadPoolExecutor(threads) as executor:
        asyncio.run(test(ProjectThreads(executor, per_project)))


def test_a_project_that_hangs_leaves_threads_for_others():
    async def test(pool: ProjectThreads) -> None:
        gate = Gate()
        held = [asyncio.create_task(pool.run("busy", gate.call, number)) for number in range(10)]
        await gate.wait_entered()
        await gate.wait_entered()
        assert await pool.run("other", str, 5) == "5"
        assert not gate.entered.acquire(blocking=False)  # the third of the project waits for a turn, not for a thread
        gate.opened.set()
        assert await asyncio.gather(*held) == list(range(10))
        assert pool._turns == {}

    run(test)


def test_a_cancelled_call_counts_until_its_thread_is_done():
    async def test(pool: ProjectThreads) -> None:
        first, second = Gate(), Gate()
        cancelled = asyncio.create_task(pool.run("p", first.call, 1))
        await first.wait_entered()
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        waiting = asyncio.create_task(pool.run("p", second.call, 2))
        assert await pool.run("other", str, 5) == "5"
        assert not second.entered.acquire(blocking=False)
        given_up = asyncio.create_task(pool.run("p", second.call, 3))
        await asyncio.sleep(0)
        given_up.cancel()
        first.opened.set()
        await second.wait_entered()
        second.opened.set()
        assert await waiting == 2
        assert pool._turns == {}

    run(test, threads=2, per_project=1)


def test_a_call_that_fails_gives_its_turn_back():
    async def test(pool: ProjectThreads) -> None:
        for _ in range(3):
            with pytest.raises(ValueError, match="'x'"):
                await pool.run("p", int, "x")
        assert await pool.run("p", int, "ff", base=16) == 255

    run(test, per_project=1)


def test_a_call_sees_the_context_of_its_caller():
    async def test(pool: ProjectThreads) -> None:
        CALLER.set("me")
        assert await pool.run("p", CALLER.get) == "me"

    run(test)
