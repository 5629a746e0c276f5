"""Work in steps gives what it gives at once, and leaves room for others between two steps."""

import asyncio
from concurrent.futures import Executor, Future

import pytest

from rowmint.steps import finish, finish_in_turns


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


@pytest.mark.parametrize("count", [0, 1, 7])
def test_each_step_is_a_task_of_its_own(count):
    executor = RecordingExecutor()
    assert asyncio.run(finish_in_turns(summed(count), executor)) == finish(summed(count)) == sum(range(count))
    assert executor.tasks == count + 1


def test_an_error_ends_the_work():
    executor = RecordingExecutor()
    with pytest.raises(ValueError, match="no further"):
        asyncio.run(finish_in_turns(failing(), executor))
    assert executor.tasks == 2
    with pytest.raises(ValueError, match="no further"):
        finish(failing())


def test_a_caller_that_is_cancelled_ends_it_with_the_step_that_is_being_done():
    executor = RecordingExecutor()

    async def cancelled():
        work = asyncio.create_task(finish_in_turns(summed(1000), executor))
        executor.on_third = work.cancel
        await asyncio.gather(work, return_exceptions=True)
        return work.cancelled()

    assert asyncio.run(cancelled())
    assert executor.tasks == 3
