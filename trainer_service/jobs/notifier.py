"""Tells the watchers of jobs that there is news: one query for all of them, however many there are."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import structlog

from rowmint.errors import RowmintError
from trainer_service.open_calls import Bound, OpenCalls

_log = structlog.get_logger(__name__)

Head = tuple[int, bool]
"""Number of a job's events, and whether it has ended; of one job it only grows."""
_GONE: Head = (2**63, True)


@dataclass(frozen=True)
class WatchLimits:
    """How many watchers may be open at once.

    Attributes:
        process: Of this trainer, 1 or more.
        project: Of one project; 0 for as many as all.
    """

    process: int = 1000
    project: int = 0


@dataclass
class _Watched:
    """A job that is watched.

    Attributes:
        head: What it was at when it was last looked at.
        watchers: How many watch it.
        changed: Set, and replaced, when `head` has grown or the look has failed.
        error: Why the last look failed, or None.
    """

    head: Head = (0, False)
    watchers: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    error: RowmintError | None = None


class Watch:
    """One watcher's view of its job."""

    def __init__(self, job: _Watched) -> None:
        self._job = job

    async def wait_beyond(self, seen: Head) -> None:
        """Return once the job has more events than the watcher has seen, or has ended since.

        Raises:
            UnavailableError: The registry cannot be read.
        """
        while self._job.head <= seen:
            await self._job.changed.wait()
            if self._job.error is not None:
                raise self._job.error


class JobNotifier:
    """Looks at all watched jobs together, as long as there are any. For one event loop.

    Args:
        look: Returns the heads of the jobs of these uids; those that are gone are left out.
        limits: How many watchers there may be.
        shed: Called with the reason whenever a watcher is refused.
        pause: Waits from one look to the next.
    """

    def __init__(
        self,
        look: Callable[[Sequence[str]], Awaitable[Mapping[str, Head]]],
        limits: WatchLimits,
        shed: Callable[[str], None],
        pause: Callable[[], Awaitable[None]],
    ) -> None:
        self._look = look
        self._pause = pause
        self._calls = OpenCalls(
            "watches",
            Bound(limits.process, "ROWMINT_MAX_WATCHES", "watches"),
            Bound(limits.project, "ROWMINT_MAX_PROJECT_WATCHES", "project_watches"),
            shed,
        )
        self._jobs: dict[str, _Watched] = {}
        self._looking: asyncio.Task[None] | None = None

    @contextmanager
    def watched(self, project: str, uid: str) -> Iterator[Watch]:
        """Watch a job for as long as the context lasts.

        Args:
            project: Id of its project.
            uid: The job.

        Raises:
            LimitError: There are as many watchers as there may be.
        """
        with ExitStack() as counted:
            counted.enter_context(self._calls.counted())
            counted.enter_context(self._calls.of_project(project))
            job = self._jobs.setdefault(uid, _Watched())
            job.watchers += 1
            if self._looking is None:
                self._looking = asyncio.create_task(self._look_while_watched())
            try:
                yield Watch(job)
            finally:
                job.watchers -= 1
                if not job.watchers:
                    del self._jobs[uid]

    async def _look_while_watched(self) -> None:
        try:
            while self._jobs:
                await self._look_once(list(self._jobs))
                await self._pause()
        finally:
            self._looking = None

    async def _look_once(self, uids: Sequence[str]) -> None:
        error: RowmintError | None = None
        heads: Mapping[str, Head] = {}
        try:
            heads = await self._look(uids)
        except RowmintError as failed:
            error = failed
        except Exception as failed:  # noqa: BLE001 - a fault met once must not leave watchers waiting for ever
            _log.exception("watched jobs could not be looked at")
            error = RowmintError(f"watched jobs could not be looked at: {type(failed).__name__}")
        for uid in uids:
            job = self._jobs.get(uid)
            if job is None:
                continue
            head = job.head if error is not None else heads.get(uid, _GONE)
            if error is not None or head > job.head:
                job.head, job.error = head, error
                job.changed.set()
                job.changed = asyncio.Event()
