"""Threads that are none: what they are to run is run at once, by the caller."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from rowmint.rpc.project_threads import ProjectThreads


class InlineExecutor(Executor):
    """Runs each call as it is submitted."""

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(call(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - it is the caller's to handle
            done.set_exception(error)
        return done


def inline_threads() -> ProjectThreads:
    """Return threads for tests of what they are used for."""
    return ProjectThreads(InlineExecutor(), 4)
