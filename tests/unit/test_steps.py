"""Work in steps gives what it gives at once, and leaves room for others between two steps."""

import asyncio
import itertools
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import pytest

from rowmint.steps import TURN_SECONDS, checked, finish, finish_in_turns
from tests.waiting import PATIENCE


class RecordingExecutor(Executor):
    """Does each task at once, and counts them."""

    def __init__(self):
        self.tasks = 0
        self.on_third = lambda: None

    def submit(self, work, /, *arguments, **named):
        self.tasks += 1
        if self.tasks == 3:
            self.on_third()
        future = Future()
        try:
            future.set_result(work(*arguments, **named))
        except Exception as error:  # noqa: BLE001 - the caller that waits gets it
            future.set_exception(error)
        return future


def summed(count):
    total = 0
    for number in range(count):
        total += number
        yield
    return total


def failing():
    yield
    raise ValueError("no further")


def ticking(seconds):
    """Return a clock that moves on by `seconds` whenever it is read."""
    return (reading * seconds for reading in itertools.count()).__next__


@pytest.mark.parametrize("count", [0, 1, 7])
@pytest.mark.parametrize(("steps", "seconds"), [(1, TURN_SECONDS), (2, TURN_SECONDS / 2), (8, 0.0)])
def test_a_task_takes_as_many_steps_as_a_turn_has_time_for(count, steps, seconds):
    executor = RecordingExecutor()
    actual = asyncio.run(finish_in_turns(summed(count), executor, ticking(seconds)))
    assert actual == finish(summed(count)) == sum(range(count))
    assert executor.tasks == -(-(count + 1) // steps)


def test_a_check_comes_before_each_step_and_may_end_the_work():
    checks = []
    assert finish(checked(summed(3), lambda: checks.append(None))) == 3
    assert len(checks) == 4

    def refuse():
        raise ValueError("no further")

    with pytest.raises(ValueError, match="no further"):
        finish(checked(summed(3), refuse))


def test_an_error_ends_the_work():
    executor = RecordingExecutor()
    with pytest.raises(ValueError, match="no further"):
        asyncio.run(finish_in_turns(failing(), executor, ticking(TURN_SECONDS)))
    assert executor.tasks == 2
    with pytest.raises(ValueError, match="no further"):
        finish(failing())


def test_a_caller_that_is_cancelled_ends_it_with_the_step_that_is_being_done():
    executor = RecordingExecutor()

    async def cancelled():
        work = asyncio.create_task(finish_in_turns(summed(1000), executor, ticking(TURN_SECONDS)))
        executor.on_third = work.cancel
        await asyncio.gather(work, return_exceptions=True)
        return work.cancelled()

    assert asyncio.run(cancelled())
    assert executor.tasks == 3


def test_a_turn_that_no_caller_waits_for_takes_no_further_step():
    taken, begun, cancelled = [], threading.Event(), threading.Event()

    def held():
        while True:
            taken.append(None)
            begun.set()
            cancelled.wait(PATIENCE)
            yield

    async def scenario(executor):
        work = asyncio.create_task(finish_in_turns(held(), executor, lambda: 0.0))
        await asyncio.to_thread(begun.wait, PATIENCE)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        cancelled.set()

    with ThreadPoolExecutor(1) as executor:
        asyncio.run(scenario(executor))
    assert len(taken) == 1
