"""The audit log: who called what, and whether they were let through; nothing is answered before it is kept."""

import asyncio
import hashlib
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from rowmint.errors import RowmintError, UnavailableError
from rowmint.security.audit_chain import Head, bounded
from rowmint.security.audit_file import GROUP, AuditFile, file_stem
from rowmint.security.decisions import AuditEntry

_log = structlog.get_logger(__name__)

_RETRY_SECONDS = 1.0
_MAX_WAITING = 10_000
# Records between two heads that the log tells.
_TELL_EVERY = 1_000


@dataclass(frozen=True)
class _Waiting:
    """An entry that is not kept yet, and who waits for it."""

    values: Mapping[str, str]
    future: asyncio.Future[None]
    loop: asyncio.AbstractEventLoop


class AuditLog:
    """Keeps decisions in a file of this process. Any number of event loops and tasks may share it.

    `rowmint.security.audit_chain` says what is in the file. A thread writes; whoever waits while it does shares the
    next write. The service's own log is told the head of the chain every thousand records and at the end: so that it
    exists elsewhere, and a file that was cut can be told from one that was not.

    Args:
        folder: Where the file lies; made, for its owner only, where it is not there.
        service: ``trainer`` or ``sampler``; part of the file's name.
        host: Name of this machine, likewise.
        clock: Gives the time, aware of its zone.

    Raises:
        DataLossError: The end of the file was changed since it was written.
        UnavailableError: The folder or the file cannot be opened.
    """

    def __init__(self, folder: Path, service: str, host: str, clock: Callable[[], datetime]) -> None:
        self._folder = folder
        self._stem = file_stem(service, host)
        self._clock = clock
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = AuditFile(folder, self._stem)
        except OSError as error:
            raise UnavailableError(
                f"the audit log cannot be opened: {error.strerror}; ROWMINT_AUDIT_LOG must name a folder that this"
                " process may write to"
            ) from error
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._failing = False
        self._told = self._file.head
        self._thread = threading.Thread(target=self._write_all, name="audit", daemon=True)
        self._thread.start()

    @property
    def head(self) -> Head:
        """The last record that is kept."""
        return self._file.head

    async def record(self, entry: AuditEntry) -> None:
        """Return once an entry is kept for good.

        It is kept even where the task that waits is cancelled.

        Raises:
            UnavailableError: It cannot be, or not now; what it is about must not be done.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._changed:
            if self._closing or len(self._waiting) >= _MAX_WAITING:
                raise _unavailable()
            # Within the lock: later records do not tell earlier times.
            self._waiting.append(_Waiting(_told(entry, self._clock()), future, loop))
            self._changed.notify()
        await future

    def close(self) -> None:
        """Write what waits, tell the head, and give the file back. Entries that come later are refused."""
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._tell_head()
        self._file.close()

    def _write_all(self) -> None:
        while group := self._next():
            error: RowmintError | None = None
            try:
                self._write([waiting.values for waiting in group])
            except Exception as failure:  # noqa: BLE001 - the edge of a thread, which must not die
                self._tell_failure(failure)
                error = _unavailable()
            _answer(group, error)

    def _next(self) -> list[_Waiting]:
        """Wait for entries and return some; none once the log is closed and all are written."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            return [self._waiting.popleft() for _ in range(min(GROUP, len(self._waiting)))]

    def _write(self, records: Sequence[Mapping[str, str]]) -> None:
        if self._file.moved():
            self._begin_anew()
        if self._file.changed():
            _log.error("the audit log was changed by somebody else", file=self._file.name, **_head(self._file.head))
        self._file.append(records)
        if self._failing:
            self._failing = False
            _log.info("the audit log can be written again", file=self._file.name)
        if self._file.head.sequence - self._told.sequence >= _TELL_EVERY:
            self._tell_head()

    def _begin_anew(self) -> None:
        """Go on in another file: somebody has moved this one away, as one does whose disk is full of them."""
        new = AuditFile(self._folder, self._stem)
        _log.warning("the audit log was moved; another is begun", file=self._file.name, **_head(self._file.head))
        self._file.close()
        self._file, self._told = new, new.head

    def _tell_head(self) -> None:
        self._told = self._file.head
        _log.info("audit log", file=self._file.name, **_head(self._told))

    def _tell_failure(self, failure: Exception) -> None:
        """Tell once why nothing can be kept: calls without number may be refused for it."""
        if self._failing:
            return
        self._failing = True
        if isinstance(failure, OSError):
            _log.error("the audit log cannot be written: calls are refused", why=failure.strerror)
        else:
            _log.error("the audit log cannot be written: calls are refused", exc_info=failure)


def _told(entry: AuditEntry, time: datetime) -> Mapping[str, str]:
    """Return what a record tells of an entry."""
    resource = entry.resource.encode("utf-8", "surrogatepass")
    return {
        "time": f"{time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z",
        "who": bounded(entry.who),
        "method": bounded(entry.method),
        "resource": hashlib.sha256(resource).hexdigest() if resource else "",
        "decision": entry.decision,
        "reason": bounded(entry.reason),
        "request_id": bounded(entry.request_id),
    }


def _head(head: Head) -> dict[str, int | str]:
    return {"sequence": head.sequence, "hash": head.hash}


def _unavailable() -> UnavailableError:
    return UnavailableError(
        "the audit log cannot be written, and what it does not tell is not done; try again, and if that does not help,"
        " whoever runs the service finds the cause in its log",
        retry_after=_RETRY_SECONDS,
    )


def _answer(group: Sequence[_Waiting], error: RowmintError | None) -> None:
    """Tell those who wait that their entries are kept, or that they are not."""
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for waiting in group:
        by_loop.setdefault(waiting.loop, []).append(waiting.future)
    for loop, futures in by_loop.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(_settle, futures, error)


def _settle(futures: Sequence[asyncio.Future[None]], error: RowmintError | None) -> None:
    for future in futures:
        if future.done():  # cancelled
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(_unavailable())
