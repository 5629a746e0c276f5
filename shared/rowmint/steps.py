"""Work in steps: a generator that yields after each step and returns its result, so that others may take turns."""

import asyncio
import time
from collections.abc import Callable, Generator
from concurrent.futures import Executor
from typing import Generic, TypeVar

T = TypeVar("T")

Steps = Generator[None, None, T]
"""Work that yields after each step of some milliseconds, and returns a `T`. For one caller at a time."""

TURN_SECONDS = 0.01
"""How long steps are done one after the other before others take their turn."""


def finish(steps: Steps[T]) -> T:
    """Do all the work at once and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


def checked(steps: Steps[T], check: Callable[[], None]) -> Steps[T]:
    """Do the work, with a `check` before each step; an error that it raises ends the work."""
    while True:
        check()
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        yield


async def finish_in_turns(steps: Steps[T], executor: Executor, clock: Callable[[], float] = time.monotonic) -> T:
    """Do the work on `executor`, in tasks of some steps, and return its result.

    A task ends with the step after which it has taken `TURN_SECONDS`. A caller that is cancelled ends the work with the
    step that is being done.

    Args:
        steps: The work.
        executor: Does the tasks.
        clock: Seconds; monotonic.
    """
    loop, turns = asyncio.get_running_loop(), _Turns(steps, clock)
    try:
        while not (found := await loop.run_in_executor(executor, turns.take)):
            pass
        return found[0]
    finally:
        turns.over = True


class _Turns(Generic[T]):
    """Work that is done turn by turn.

    Attributes:
        over: Whether no further step is wanted; set on any thread.
    """

    def __init__(self, steps: Steps[T], clock: Callable[[], float]) -> None:
        self.over = False
        self._steps = steps
        self._clock = clock

    def take(self) -> tuple[T] | None:
        """Do some steps; return the result once there is one, in a tuple."""
        end = self._clock() + TURN_SECONDS
        try:
            next(self._steps)
            while not self.over and self._clock() < end:
                next(self._steps)
        except StopIteration as last:
            return (last.value,)
        return None
