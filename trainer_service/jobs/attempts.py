"""One attempt at a job: its lease, and whether the work is to stop."""

import threading
from typing import Self

import structlog

from rowmint.errors import FencedError, UnavailableError
from rowmint.registry import JobRecord, Registry

_log = structlog.get_logger(__name__)


class Attempt:
    """One attempt at a job; as a context, it renews the lease from a thread of its own.

    Args:
        registry: Where the lease is kept.
        job: The job as it was claimed.
        heartbeat_seconds: Pause between two renewals.
    """

    def __init__(self, registry: Registry, job: JobRecord, heartbeat_seconds: float) -> None:
        self.job = job
        self._registry = registry
        self._heartbeat_seconds = heartbeat_seconds
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
        """Whether the process was asked to end; the job is to be given back."""
        return self._shutdown.is_set()

    @property
    def fenced(self) -> bool:
        """Whether another attempt has taken over; nothing is to be written any more."""
        return self._fenced.is_set()

    def stopped(self) -> bool:
        """Say whether the work is to stop: cancelled, fenced or shutting down. Cheap; asked at every step."""
        return self._cancel.is_set() or self._shutdown.is_set() or self._fenced.is_set()

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
            except Exception:  # noqa: BLE001 - the same, whatever it was: without its heart the work would be lost for certain
                _log.exception("heartbeat failed")
