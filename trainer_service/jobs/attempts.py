"""One attempt at a job: its lease, and whether the work is to stop."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar

import structlog

from rowmint.errors import FencedError, ResourceExistsError, UnavailableError
from rowmint.registry import JobRecord, Registry

_log = structlog.get_logger(__name__)

T = TypeVar("T")

_PAUSE_SECONDS = 0.2


class Attempt:
    """One attempt at a job; as a context, it renews the lease from a thread of its own.

    Args:
        registry: Where the lease is kept.
        job: The job as it was claimed.
        heartbeat_seconds: Pause between two renewals.
        patience_seconds: How long a registry or store that is away is waited for: no longer than the lease lasts.
        on_phase: Called with each phase that the work enters.
    """

    def __init__(
        self,
        registry: Registry,
        job: JobRecord,
        heartbeat_seconds: float,
        patience_seconds: float = 0.0,
        *,
        on_phase: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.job = job
        self._on_phase = on_phase
        self._phase = ""
        self._registry = registry
        self._heartbeat_seconds = heartbeat_seconds
        self._patience_seconds = patience_seconds
        self._cancel = threading.Event()
        self._shutdown = threading.Event()
        self._fenced = threading.Event()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def shutting_down(self) -> bool:
        """Whether the process is to end; the job is to be given back."""
        return self._shutdown.is_set()

    @property
    def fenced(self) -> bool:
        """Whether another attempt has taken over; nothing is to be written any more."""
        return self._fenced.is_set()

    @property
    def phase(self) -> str:
        """What the work is at; empty before its first phase."""
        return self._phase

    def enter(self, phase: str, payload: Mapping[str, Any] | None = None) -> None:
        """Say what the work is at from now on: in the registry, as an event, and to who measures how long it takes.

        Args:
            phase: One of the runner's phases.
            payload: What else the event reports, JSON values.

        Raises:
            FencedError: Another attempt has taken over.
            UnavailableError: The registry was away for too long, or the work is to stop.
        """
        self._phase = phase
        self._on_phase(phase)
        job, body = self.job, payload or {}
        self.patiently(lambda again: self._registry.jobs.set_phase(job.uid, job.epoch, phase, body, again=again))

    def report(self, payload: Mapping[str, Any]) -> None:
        """Append an event of the phase that the work is at; arguments and errors as of `enter`."""
        job = self.job
        self.patiently(lambda again: self._registry.jobs.append_event(job.uid, job.epoch, payload, again=again))

    def stopped(self) -> bool:
        """Say whether the work is to stop: cancelled, fenced or shutting down. Cheap enough for every step."""
        return self._cancel.is_set() or self._shutdown.is_set() or self._fenced.is_set()

    def patiently(self, call: Callable[[bool], T]) -> T:
        """Return what `call` returns; while registry or store are away call again, until patience ends.

        Args:
            call: Called with whether it was called before: what it does may be done already, though it failed.

        Raises:
            UnavailableError: They were away for too long, or the work is to stop.
        """
        end = time.monotonic() + self._patience_seconds
        again = False
        while True:
            try:
                return call(again)
            except UnavailableError as error:
                if self.stopped() or time.monotonic() >= end:
                    raise
                if not again:
                    _log.warning("registry or store is away; waiting", job=str(self.job.name), error=error.message)
            again = True
            self._shutdown.wait(_PAUSE_SECONDS)

    def store(self, put: Callable[[], None]) -> None:
        """Store an object under a key that holds this attempt's epoch, as `patiently` does.

        Raises:
            UnavailableError: As of `patiently`; or the key is taken, by an attempt that this registry knows nothing of
                because it was restored from a backup: the next attempt has keys of its own.
        """
        try:
            self.patiently(lambda _: put())
        except ResourceExistsError as error:
            raise UnavailableError(f"{error.message}; the next attempt has other keys", retry_after=1.0) from error

    def shut_down(self) -> None:
        """Ask the work to stop, so that the job can be given back."""
        self._shutdown.set()

    def _beat(self) -> None:
        while not self._done.wait(self._heartbeat_seconds):
            try:
                if self._registry.jobs.heartbeat(self.job.uid, self.job.epoch):
                    self._cancel.set()
            except FencedError:
                self._fenced.set()
                return
            except UnavailableError as error:
                # The lease may outlive a short outage; if it does not, the next beat is fenced.
                _log.warning("heartbeat failed", error=error.message)
            except Exception:  # noqa: BLE001 - the same, whatever it was: without a heartbeat the work would be lost for certain
                _log.exception("heartbeat failed")
