"""Admission: streams, rows in flight and memory at work, bounded for the process, the first two for each project too.

A project past what it may have gets RESOURCE_EXHAUSTED: another replica with the same settings would say the same, and
waiting helps once its own streams have ended. A process past what it can carry gets UNAVAILABLE: another replica may
have room at once. Both say how long to wait. Health checks and reflection are not admitted here.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from rowmint.errors import LimitError, UnavailableError

_RETRY_SECONDS = 1.0
_ELSEWHERE_SECONDS = 0.1  # another replica may have room at once; clients back off further by themselves


@dataclass(frozen=True)
class Allowance:
    """How much may be at work at once; 0 for as much as there is room for.

    Attributes:
        streams: Calls that make rows.
        rows: Rows that are being computed, or wait to be sent. A candidate that rows are completed from is one.
        bytes: Memory that completions and scorings compute in, and of the tables of conditions that streams meet.
    """

    streams: int
    rows: int
    bytes: int = 0


class Admission:
    """Counts what is at work. For one event loop.

    Args:
        process: What this process carries.
        project: What one project may have of it.
        shed: Called with the reason why a call is refused.
    """

    def __init__(self, process: Allowance, project: Allowance, shed: Callable[[str], None] = lambda _: None) -> None:
        self._process = process
        self._project = project
        self._shed = shed
        self._streams: Counter[str] = Counter()
        self._rows: Counter[str] = Counter()
        self.streams = 0
        self.rows = 0
        self.bytes = 0
        self._shared: Counter[int] = Counter()  # calls that hold something together, by its id
        self._draining = False

    def drain(self) -> None:
        """Refuse every call from now on."""
        self._draining = True

    def enter(self, project: str) -> "Ticket":
        """Let a call begin.

        Raises:
            LimitError: The project has as many as it may.
            UnavailableError: The process has as many as it carries, or is draining.
        """
        if self._draining:
            self._shed("draining")
            raise UnavailableError("this sampler is draining; retry at another replica", retry_after=_ELSEWHERE_SECONDS)
        if 0 < self._project.streams <= self._streams[project]:
            raise self._over_quota("streams", project, self._project.streams)
        if 0 < self._process.streams <= self.streams:
            raise self._overloaded("streams", self._process.streams)
        self._streams[project] += 1
        self.streams += 1
        return Ticket(self, project)

    def take_rows(self, project: str, rows: int) -> None:
        """Let a call that has begun hold rows. One alone may hold as many as it needs: it could never begin otherwise.

        Raises:
            LimitError: The project would hold more than it may.
            UnavailableError: The process would hold more than it carries.
        """
        if self._rows[project] and 0 < self._project.rows < self._rows[project] + rows:
            raise self._over_quota("rows", project, self._project.rows)
        if self.rows and 0 < self._process.rows < self.rows + rows:
            raise self._overloaded("rows", self._process.rows)
        self._rows[project] += rows
        self.rows += rows

    def take_bytes(self, held: int, size: int) -> None:
        """Let a call that holds `held` bytes hold `size` more.

        Raises:
            LimitError: It alone would hold more than the process carries.
            UnavailableError: All together would.
        """
        self._take_bytes(held + size, size, "answering these rows", "request fewer candidates, know fewer columns")

    def take_shared(self, what: object, size: int) -> None:
        """Let a call hold something of `size` bytes that others may hold too: it counts once.

        Raises:
            LimitError: It is more than the process carries.
            UnavailableError: The process would hold more than it carries.
        """
        if not self._shared[id(what)]:
            self._take_bytes(size, size, "meeting these conditions", "put conditions or weights on fewer columns")
        self._shared[id(what)] += 1

    def _take_bytes(self, whole: int, size: int, what: str, remedy: str) -> None:
        limit = self._process.bytes
        if 0 < limit < whole:
            raise LimitError(
                f"{what} takes {whole} bytes of memory, more than this sampler has for all calls ({limit}); {remedy},"
                " or raise ROWMINT_MAX_WORK_BYTES",
                metadata={"limit": str(limit), "setting": "ROWMINT_MAX_WORK_BYTES"},
            )
        if 0 < limit < self.bytes + size:
            raise self._overloaded("bytes", limit)
        self.bytes += size

    def leave_shared(self, what: object, size: int) -> None:
        """Let go of what others may hold too; the last to do so gives its bytes back."""
        self._shared[id(what)] -= 1
        if not self._shared[id(what)]:
            del self._shared[id(what)]
            self.bytes -= size

    def leave(self, project: str, rows: int, size: int) -> None:
        """Remove a call, and the rows and bytes it held."""
        self._streams[project] -= 1
        self._rows[project] -= rows
        self.streams -= 1
        self.rows -= rows
        self.bytes -= size
        if not self._streams[project]:
            del self._streams[project], self._rows[project]

    def _over_quota(self, what: str, project: str, limit: int) -> LimitError:
        self._shed(f"project_{what}")
        setting = {"streams": "ROWMINT_MAX_PROJECT_STREAMS", "rows": "ROWMINT_MAX_PROJECT_ROWS_IN_FLIGHT"}[what]
        return LimitError(
            f"projects/{project} has {_HELD[what]} as it may ({limit}) on this sampler; wait until some have ended, or"
            f" raise {setting}",
            metadata={"limit": str(limit), "setting": setting},
            retry_after=_RETRY_SECONDS,
        )

    def _overloaded(self, what: str, limit: int) -> UnavailableError:
        self._shed(f"process_{what}")
        setting = _SETTINGS[what]
        return UnavailableError(
            f"this sampler has {_HELD[what]} as it carries ({limit}); retry at another replica, retry later, or raise"
            f" {setting}",
            metadata={"limit": str(limit), "setting": setting},
            retry_after=_ELSEWHERE_SECONDS,
        )


_HELD = {"streams": "as many streams", "rows": "as many rows in flight", "bytes": "as many bytes at work"}
_SETTINGS = {
    "streams": "ROWMINT_MAX_STREAMS",
    "rows": "ROWMINT_MAX_ROWS_IN_FLIGHT",
    "bytes": "ROWMINT_MAX_WORK_BYTES",
}


class Ticket:
    """A call that has begun; to be given back once.

    Args:
        admission: Where it is counted.
        project: Id of its project.
    """

    def __init__(self, admission: Admission, project: str) -> None:
        self.project = project
        self._admission = admission
        self._rows = 0
        self._bytes = 0
        self._shared: list[tuple[object, int]] = []
        self._open = True

    def hold(self, rows: int) -> None:
        """Hold rows until the ticket is given back; nothing where it has been already.

        Raises:
            LimitError: The project would hold more than it may.
            UnavailableError: The process would hold more than it carries.
        """
        if self._open:
            self._admission.take_rows(self.project, rows)
            self._rows += rows

    def hold_bytes(self, size: int) -> None:
        """Hold memory, `size` bytes in all, until the ticket is given back; nothing where it holds more already.

        Raises:
            LimitError: The call alone would hold more than the process carries.
            UnavailableError: The process would hold more than it carries.
        """
        if self._open and size > self._bytes:
            self._admission.take_bytes(self._bytes, size - self._bytes)
            self._bytes = size

    def hold_shared(self, what: object, size: int) -> None:
        """Hold something of `size` bytes until the ticket is given back; held by several tickets, it counts once.

        Raises:
            LimitError: It is more than the process carries.
            UnavailableError: The process would hold more than it carries.
        """
        if self._open:
            self._admission.take_shared(what, size)
            self._shared.append((what, size))

    def close(self) -> None:
        """Give the ticket back; any number of times."""
        if self._open:
            self._open = False
            for what, size in self._shared:
                self._admission.leave_shared(what, size)
            self._shared.clear()
            self._admission.leave(self.project, self._rows, self._bytes)
