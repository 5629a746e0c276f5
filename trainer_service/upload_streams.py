"""The upload streams that are open: bounded in number, and the newest of each dataset. For one event loop."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rowmint.errors import LimitError
from rowmint.names import DatasetName

_RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class UploadStreamLimits:
    """How many streams may be open at once.

    Attributes:
        process: Of this trainer, 1 or more.
        project: Of one project; 0 for as many as all.
        idle_seconds: Seconds that a stream may go without a message.
    """

    process: int = 64
    project: int = 0
    idle_seconds: float = 300.0


class UploadStreams:
    """Counts open streams, and ends older ones of a dataset once a newer one has its writer.

    Args:
        limits: How many may be open.
        shed: Called with the reason whenever a stream is refused.
        on_idle: Called when the last stream has ended; must not block.
    """

    def __init__(
        self,
        limits: UploadStreamLimits,
        shed: Callable[[str], None] = lambda _: None,
        on_idle: Callable[[], object] = lambda: None,
    ) -> None:
        self.limits = limits
        self._on_idle = on_idle
        self._shed = shed
        self._open = 0
        self._projects: Counter[str] = Counter()
        self._newest: dict[DatasetName, tuple[int, asyncio.Event]] = {}

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count a stream for as long as the context lasts.

        Raises:
            LimitError: As many are open as may be.
        """
        if self._open >= self.limits.process:
            raise self._too_many("this trainer", self.limits.process, "ROWMINT_MAX_UPLOAD_STREAMS", "uploads")
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
            if not self._open:
                self._on_idle()

    @contextmanager
    def of_project(self, project: str) -> Iterator[None]:
        """Count a stream for its project, for as long as the context lasts.

        Raises:
            LimitError: The project has as many as it may.
        """
        most = self.limits.project
        if 0 < most <= self._projects[project]:
            setting = "ROWMINT_MAX_PROJECT_UPLOAD_STREAMS"
            raise self._too_many(f"projects/{project}", most, setting, "project_uploads")
        self._projects[project] += 1
        try:
            yield
        finally:
            self._projects[project] -= 1
            if not self._projects[project]:
                del self._projects[project]

    @contextmanager
    def newest(self, name: DatasetName, epoch: int) -> Iterator[asyncio.Event]:
        """Yield the event that is set once a newer stream of the dataset has its writer; older ones' are set now.

        Args:
            name: The dataset.
            epoch: Number of the stream's writer.
        """
        superseded = asyncio.Event()
        other = self._newest.get(name)
        if other is not None and other[0] > epoch:
            superseded.set()
        else:
            if other is not None:
                other[1].set()
            self._newest[name] = (epoch, superseded)
        try:
            yield superseded
        finally:
            if self._newest.get(name) == (epoch, superseded):
                del self._newest[name]

    def _too_many(self, who: str, limit: int, setting: str, reason: str) -> LimitError:
        self._shed(reason)
        return LimitError(
            f"{who} has as many open upload streams as it may ({limit}); retry in a second, or raise {setting}",
            metadata={"limit": str(limit), "setting": setting},
            retry_after=_RETRY_SECONDS,
        )
