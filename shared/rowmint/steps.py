"""Work in steps: a generator that yields after each step and returns its result, so that others may take turns."""

import asyncio
from collections.abc import Generator
from concurrent.futures import Executor
from typing import TypeVar

T = TypeVar("T")

Steps = Generator[None, None, T]
"""Work that yields after each step of some milliseconds, and returns a `T`. For one caller at a time."""


def finish(steps: Steps[T]) -> T:
    """Do all the work at once and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


async def finish_in_turns(steps: Steps[T], executor: Executor) -> T:
    """Do the work on `executor`, each step a task of its own, and return its result.

    A caller that is cancelled ends it with the step that is being done.
    """
    loop = asyncio.get_running_loop()
    while not (found := await loop.run_in_executor(executor, _step, steps)):
        pass
    return found[0]


def _step(steps: Steps[T]) -> tuple[T] | None:
    """Do a step; return the result once there is one, in a tuple."""
    try:
        next(steps)
    except StopIteration as end:
        return (end.value,)
    return None
