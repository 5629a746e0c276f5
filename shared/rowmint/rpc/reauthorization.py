"""Streaming calls are ended once their caller may not make them any more."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self


class CallGuard:
    """Checks a running call again and again, and ends it at the first refusal.

    A context manager around the whole call, entered in the call's task; the checks run in a task of their own. What
    the call awaits within `interruptible` is cancelled by a refusal, as `asyncio.timeout` cancels it, so that a call
    that waits for its client or for events ends, too. Elsewhere, as while a response is written, a refusal waits for
    the next `interruptible`.

    Args:
        check: Raises where the caller may not make the call any more.
        pause: Returns when the next check is due.
    """

    def __init__(self, check: Callable[[], Awaitable[None]], pause: Callable[[], Awaitable[None]]) -> None:
        self._check = check
        self._pause = pause
        self._refusal: Exception | None = None
        self._waiting: asyncio.Task[object] | None = None
        self._interrupted = False

    def __enter__(self) -> Self:
        self._checks = asyncio.create_task(self._check_again())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._checks.cancel()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Raise the refusal here, whether it came before or comes meanwhile.

        Raises:
            UnauthenticatedError, PermissionDeniedError, UnavailableError: What the check raised.
        """
        if self._refusal is not None:
            raise self._refusal
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call is served in a task")
        cancelled_before = task.cancelling()
        self._waiting = task
        try:
            yield
        finally:
            self._waiting = None
            # Cancelled by others as well, it ends as cancelled.
            if self._interrupted and task.uncancel() <= cancelled_before and self._refusal is not None:
                raise self._refusal

    async def _check_again(self) -> None:
        while self._refusal is None:
            await self._pause()
            try:
                await self._check()
            except Exception as error:  # noqa: BLE001 - raised in the task of the call
                self._refusal = error
        if self._waiting is not None:
            self._interrupted = True
            self._waiting.cancel()
