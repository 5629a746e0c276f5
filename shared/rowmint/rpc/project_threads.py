"""Threads for blocking work of one kind, such as look-ups in the registry, shared between projects."""

import asyncio
import contextlib
import contextvars
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class _Turns:
    """The turns of one project.

    Attributes:
        free: Held by each call that is in a thread.
        users: Calls that wait for a turn or have one.
    """

    free: asyncio.Semaphore
    users: int = 0


class ProjectThreads:
    """Runs blocking calls in threads, of which each project has a bounded number at once. For one event loop.

    A project whose calls hang, or that makes thousands at once, waits for its own: the other threads are for others.

    Args:
        executor: The threads; the caller closes them.
        per_project: Calls of a project at once, 1 or more.
    """

    def __init__(self, executor: Executor, per_project: int) -> None:
        self._executor = executor
        self._per_project = per_project
        self._turns: dict[str, _Turns] = {}

    async def run(self, project: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `call` returns; it sees the context variables of the caller.

        A cancelled caller does not wait, but the thread counts for its project until it is done.

        Args:
            project: Id of the project that it is for.
            call: Called in a thread, with the other arguments.
            args: Positional arguments.
            kwargs: Keyword arguments.
        """
        loop = asyncio.get_running_loop()
        turns = self._turns.setdefault(project, _Turns(asyncio.Semaphore(self._per_project)))
        turns.users += 1
        try:
            await turns.free.acquire()
        except BaseException:
            self._leave(project, turns)
            raise
        context = contextvars.copy_context()
        try:
            work = self._executor.submit(partial(context.run, call, *args, **kwargs))
        except BaseException:
            self._release(project, turns)
            raise

        def done(_: object) -> None:
            # A loop that has ended has no more turns to give.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._release, project, turns)

        work.add_done_callback(done)
        return await asyncio.wrap_future(work)

    def _release(self, project: str, turns: _Turns) -> None:
        turns.free.release()
        self._leave(project, turns)

    def _leave(self, project: str, turns: _Turns) -> None:
        turns.users -= 1
        if not turns.users:
            self._turns.pop(project, None)
