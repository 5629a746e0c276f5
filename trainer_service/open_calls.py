"""Long calls of one kind that are open, bounded in number. For one event loop."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rowmint.errors import LimitError

_RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class Bound:
    """How many calls may be open.

    Attributes:
        most: Their number; 0 for no bound.
        setting: The setting that raises it.
        reason: What a refused call is counted as, one of `metrics.SHED_REASONS`.
    """

    most: int
    setting: str
    reason: str


class OpenCalls:
    """Counts open calls.

    Args:
        what: What they are, such as ``upload streams``.
        process: Bound of this trainer.
        project: Bound of each project.
        shed: Called with the reason whenever a call is refused.
    """

    def __init__(self, what: str, process: Bound, project: Bound, shed: Callable[[str], None]) -> None:
        self._what = what
        self._process = process
        self._project = project
        self._shed = shed
        self._projects: Counter[str] = Counter()
        self.open = 0
        """How many are open."""

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count a call for as long as the context lasts.

        Raises:
            LimitError: As many are open as may be.
        """
        self._require_room("this trainer", self.open, self._process)
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1

    @contextmanager
    def of_project(self, project: str) -> Iterator[None]:
        """Count a call for its project, for as long as the context lasts.

        Raises:
            LimitError: The project has as many as it may.
        """
        self._require_room(f"projects/{project}", self._projects[project], self._project)
        self._projects[project] += 1
        try:
            yield
        finally:
            self._projects[project] -= 1
            if not self._projects[project]:
                del self._projects[project]

    def _require_room(self, who: str, held: int, bound: Bound) -> None:
        if not 0 < bound.most <= held:
            return
        self._shed(bound.reason)
        raise LimitError(
            f"{who} has as many open {self._what} as it may ({bound.most}); retry in a second, or raise"
            f" {bound.setting}",
            metadata={"limit": str(bound.most), "setting": bound.setting},
            retry_after=_RETRY_SECONDS,
        )
