"""The audit log: callers, methods and authorization decisions, stored durably before a call is handled."""

import asyncio
import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from rowmint.errors import RowmintError, UnavailableError
from rowmint.security.audit_chain import Head, sanitised
from rowmint.security.audit_file import GROUP, AuditFile, file_stem
from rowmint.security.audit_head import CONTINUE_METHOD, HEAD_EVENT, MOVED_EVENT, START_METHOD
from rowmint.security.decisions import ALLOWED, AuditEntry

_log = structlog.get_logger(__name__)

_RETRY_SECONDS = 1.0
_MAX_PENDING = 10_000
# Records, and seconds with records, between two heads that are reported.
_HEAD_INTERVAL = 1_000
_HEAD_SECONDS = 60.0


@dataclass(frozen=True)
class _Pending:
    """An entry that is not yet written, and the future that is resolved once it is."""

    values: Mapping[str, str]
    future: asyncio.Future[None]
    loop: asyncio.AbstractEventLoop


class HeadSchedule:
    """When the head of a chain is reported again: at the first record after a start, each minute, every thousand."""

    def __init__(self) -> None:
        self._sequence = 0
        self._time = 0.0
        self._at_start = True

    def reported(self, sequence: int, now: float, *, at_start: bool) -> None:
        """Note a report.

        Args:
            sequence: Number of the record that was reported.
            now: Seconds of a monotonic clock.
            at_start: Whether it is the record that begins a start.
        """
        self._sequence, self._time, self._at_start = sequence, now, at_start

    def due(self, sequence: int, now: float) -> bool:
        """Return whether the last record has to be reported.

        Args:
            sequence: Its number.
            now: Seconds of the monotonic clock.
        """
        records = sequence - self._sequence
        return records >= _HEAD_INTERVAL or (records > 0 and (self._at_start or now >= self._time + _HEAD_SECONDS))

    def seconds_left(self, sequence: int, now: float) -> float:
        """Return the seconds until the schedule is to be consulted again; a minute where there is nothing to report."""
        return max(0.0, self._time + _HEAD_SECONDS - now) if sequence > self._sequence else _HEAD_SECONDS


class AuditLog:
    """Writes decisions to a file of this process. Any number of event loops and tasks may share it.

    `rowmint.security.audit_chain` defines the file's format. A thread writes; entries that arrive during a write are
    written together by the next one (group commit). The first record says that the service was started, with the
    number of that start. The head of the chain is reported in the file's head file and in the service's own log, as
    `HeadSchedule` has it and on closing, so that a truncated file is found: by the next start, and by verification.

    Args:
        folder: Folder of the file; created, accessible only to its owner, if it does not exist.
        service: ``trainer`` or ``sampler``; part of the file's name.
        host: Name of this machine, likewise.
        clock: Returns the current time, aware of its zone.

    Raises:
        DataLossError: The end of the file was modified or removed since it was written.
        UnavailableError: The folder or the file cannot be opened or written.
    """

    def __init__(self, folder: Path, service: str, host: str, clock: Callable[[], datetime]) -> None:
        self._folder = folder
        self._service = service
        self._stem = file_stem(service, host)
        self._clock = clock
        self._schedule = HeadSchedule()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = self._opened(START_METHOD)
        except OSError as error:
            raise UnavailableError(
                f"the audit log cannot be opened: {error.strerror}; set ROWMINT_AUDIT_LOG to a folder that this"
                " process can write to"
            ) from error
        self._pending: deque[_Pending] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._failing = False
        self._report_head(at_start=True)
        self._thread = threading.Thread(target=self._write_all, name="audit", daemon=True)
        self._thread.start()

    @property
    def head(self) -> Head:
        """The last record written."""
        return self._file.head

    async def record(self, entry: AuditEntry) -> None:
        """Write an entry; return once it is durable.

        The entry is written even if the awaiting task is cancelled.

        Raises:
            UnavailableError: It cannot be written; the call must be rejected.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._changed:
            if self._closing or len(self._pending) >= _MAX_PENDING:
                raise _unavailable()
            # The time is taken under the lock, so that it never decreases from record to record.
            self._pending.append(_Pending(_record_values(entry, self._clock()), future, loop))
            self._changed.notify()
        await future

    def close(self) -> None:
        """Write pending entries, report the head, and close the file. Later entries are refused."""
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._follow_moved_file()
        self._report_head()
        self._file.close()

    def _write_all(self) -> None:
        while True:
            group = self._next_group()
            if group:
                error: RowmintError | None = None
                try:
                    self._write([pending.values for pending in group])
                except Exception as failure:  # noqa: BLE001 - the thread must survive any failure
                    self._report_failure(failure)
                    error = _unavailable()
                _resolve(group, error)
            elif self._closing:
                return
            else:
                self._follow_moved_file()
                self._report_due_head()

    def _next_group(self) -> list[_Pending]:
        """Wait for entries and return up to `GROUP` of them.

        None once the log is closed and all are written, and where a head may be due.
        """
        with self._changed:
            seconds = self._schedule.seconds_left(self._file.head.sequence, time.monotonic())
            self._changed.wait_for(lambda: self._pending or self._closing, seconds)
            return [self._pending.popleft() for _ in range(min(GROUP, len(self._pending)))]

    def _write(self, records: Sequence[Mapping[str, str]]) -> None:
        if self._file.moved():
            self._start_new_file()
        if self._file.changed():
            _log.error("the audit log was modified by another process", file=self._file.name, **_head(self._file.head))
        self._file.append(records)
        if self._failing:
            self._failing = False
            _log.info("the audit log can be written again", file=self._file.name)
        self._report_due_head()

    def _follow_moved_file(self) -> None:
        """Continue in a new file, though there is nothing to write: a head file is not left alone for long."""
        try:
            if self._file.moved():
                self._start_new_file()
        except Exception as failure:  # noqa: BLE001 - the thread must survive any failure
            self._report_failure(failure)

    def _start_new_file(self) -> None:
        """Continue in a new file after the current one was moved away, for example by log rotation."""
        new = self._opened(CONTINUE_METHOD, self._file)
        _log.warning(MOVED_EVENT, file=self._file.name, **_head(self._file.head))
        self._file.close()
        self._file = new
        self._report_head(at_start=True)

    def _opened(self, method: str, before: AuditFile | None = None) -> AuditFile:
        """Return a file to which the record of a start has been written; `before` is the one that was moved away."""
        file = AuditFile(self._folder, self._stem, None if before is None else before.path)
        try:
            if file.head.sequence and not file.has_head_file:
                _log.warning(
                    "the audit log has no head file: a release before wrote it, or it was removed", file=file.name
                )
            # First, so that this start has its number however soon it ends.
            file.write_head(_text(self._clock()), begun=False)
            reason = "" if before is None else str(before.head)
            entry = AuditEntry(f"service:{self._service}", method, "", ALLOWED, reason, f"start-{file.start}")
            file.append([_record_values(entry, self._clock())])
        except BaseException:
            file.close()
            raise
        return file

    def _report_due_head(self) -> None:
        if self._schedule.due(self._file.head.sequence, time.monotonic()):
            self._report_head()

    def _report_head(self, *, at_start: bool = False) -> None:
        """Report the last record in the head file and in the service's log; the log has it, if the file cannot."""
        head = self._file.head
        self._schedule.reported(head.sequence, time.monotonic(), at_start=at_start)
        _log.info(HEAD_EVENT, file=self._file.name, start=self._file.start, **_head(head))
        try:
            self._file.write_head(_text(self._clock()))
        except OSError as failure:
            _log.error("the head file of the audit log cannot be written", error=failure.strerror)

    def _report_failure(self, failure: Exception) -> None:
        """Log the first of consecutive failures only, as every call is refused while they last."""
        if self._failing:
            return
        self._failing = True
        if isinstance(failure, OSError):
            _log.error("the audit log cannot be written: calls are refused", error=failure.strerror)
        elif isinstance(failure, RowmintError):
            _log.error("the audit log cannot be written: calls are refused", error=failure.message)
        else:
            _log.error("the audit log cannot be written: calls are refused", exc_info=failure)


def _record_values(entry: AuditEntry, when: datetime) -> Mapping[str, str]:
    """Return the fields of an entry's record."""
    resource = entry.resource.encode("utf-8", "surrogatepass")
    return {
        "time": _text(when),
        "who": sanitised(entry.caller),
        "method": sanitised(entry.method),
        "resource": hashlib.sha256(resource).hexdigest() if resource else "",
        "decision": entry.decision,
        "reason": sanitised(entry.reason),
        "request_id": sanitised(entry.request_id),
    }


def _text(when: datetime) -> str:
    return f"{when.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def _head(head: Head) -> dict[str, int | str]:
    return {"sequence": head.sequence, "hash": head.hash}


def _unavailable() -> UnavailableError:
    return UnavailableError(
        "the audit log cannot be written, so the call was not handled; retry it, and if the error persists, ask the"
        " operator to look for the cause in the service's log",
        retry_after=_RETRY_SECONDS,
    )


def _resolve(group: Sequence[_Pending], error: RowmintError | None) -> None:
    """Resolve the futures of written entries, or fail them with an error."""
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for pending in group:
        by_loop.setdefault(pending.loop, []).append(pending.future)
    for loop, futures in by_loop.items():
        with suppress(RuntimeError):  # the loop is closed: its futures are no longer awaited
            loop.call_soon_threadsafe(_set_outcome, futures, error)


def _set_outcome(futures: Sequence[asyncio.Future[None]], error: RowmintError | None) -> None:
    for future in futures:
        if future.done():  # cancelled
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(_unavailable())
