"""The upload streams that are open: bounded in number, and the newest of each dataset. For one event loop."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rowmint.names import DatasetName
from trainer_service.open_calls import Bound, OpenCalls


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
        self._calls = OpenCalls(
            "upload streams",
            Bound(limits.process, "ROWMINT_MAX_UPLOAD_STREAMS", "uploads"),
            Bound(limits.project, "ROWMINT_MAX_PROJECT_UPLOAD_STREAMS", "project_uploads"),
            shed,
        )
        self.of_project = self._calls.of_project
        self._newest: dict[DatasetName, tuple[int, asyncio.Event]] = {}

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count a stream for as long as the context lasts.

        Raises:
            LimitError: As many are open as may be.
        """
        with self._calls.counted():
            try:
                yield
            finally:
                if self._calls.open == 1:
                    self._on_idle()

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
