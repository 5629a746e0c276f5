"""The trainer's metrics, in one place. Labels hold names of projects, jobs and closed sets, never a value of a cell.

They count for the process: a process that serves is one trainer. A worker has its own, which are not scraped: what it
counts, its answer brings to the trainer.
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from rowmint.errors import RowmintError
from rowmint.observability.metrics import CallMetrics
from rowmint.registry import JobKind, JobLedger, JobName, JobState

_log = structlog.get_logger(__name__)

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

CALLS = CallMetrics(REGISTRY)

# A tenth of a second to a day: the ingest of a small file, and a fit of many epochs.
_PHASES = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 10800.0, 43200.0, 86400.0)

_PHASE = Histogram(
    "rowmint_job_phase_seconds",
    "Seconds that a phase of a job took here.",
    ["kind", "phase", "outcome"],
    registry=REGISTRY,
    buckets=_PHASES,
)
_JOBS_ENDED = Counter(
    "rowmint_jobs_ended",
    "Jobs ended by an attempt that ran here, or without one as they were to be claimed here.",
    ["kind", "state"],
    registry=REGISTRY,
)
_UPLOAD_BYTES = Counter("rowmint_upload_bytes", "Bytes of uploads committed.", ["project"], registry=REGISTRY)
_UPLOADS_OPEN = Gauge("rowmint_uploads_open", "Uploads being received.", registry=REGISTRY)
_SHED = Counter("rowmint_trainer_shed", "Calls refused because too much is at work.", ["reason"], registry=REGISTRY)
_GARBAGE = Counter("rowmint_garbage_objects_deleted", "Objects deleted that nothing needed.", registry=REGISTRY)
_ASIDE = Counter("rowmint_orphans_aside", "Objects kept aside that nothing needed.", registry=REGISTRY)
_UNKNOWN = Gauge(
    "rowmint_unknown_objects",
    "Objects left at the last sweep whose makers the registry does not know.",
    ["store"],
    registry=REGISTRY,
)
_REFUSED = Gauge(
    "rowmint_store_refused",
    "1 where the last sweep found that a store does not belong to the registry, else 0.",
    registry=REGISTRY,
)

SHED_REASONS = ("calls", "uploads", "project_uploads", "watches", "project_watches")
for _reason in SHED_REASONS:
    _SHED.labels(_reason)

PHASE_OUTCOMES = ("done", "failed", "cancelled", "died", "stopped")

_OUTCOMES = {JobState.SUCCEEDED: "done", JobState.FAILED: "failed", JobState.CANCELLED: "cancelled"}


def declare_phases(phases: Mapping[JobKind, tuple[str, ...]]) -> None:
    """Let what alerts look at be there from the start: a counter that begins with its first event shows no increase.

    Args:
        phases: The phases that a job of each kind may be at.
    """
    for kind, of_kind in phases.items():
        for phase in of_kind:
            _PHASE.labels(kind, phase, "died")
        for state in JobState:
            if state.ended:
                _JOBS_ENDED.labels(kind, state)


class AttemptMetrics:
    """Measures one attempt at a job, as its trainer learns of it from the worker. For one thread.

    Each phase counts with its seconds and its outcome, one of `PHASE_OUTCOMES`: ``done``; or how the attempt ended in
    it: ``failed``, ``cancelled``, ``died`` where its worker did, and ``stopped`` where it is to be tried again or was
    overtaken.

    Args:
        kind: What the job does.
        clock: Seconds; monotonic.
    """

    def __init__(self, kind: JobKind, clock: Callable[[], float]) -> None:
        self._kind = kind
        self._clock = clock
        self._phase = ""
        self._since = 0.0

    def on_phase(self, phase: str) -> None:
        """Note that a phase begins, and with it that the one before is done."""
        self._leave("done")
        self._phase, self._since = phase, self._clock()

    def on_end(self, answer: Mapping[str, Any]) -> None:
        """Note a worker's answer, empty where it died: the state of the job, and how many objects it has deleted."""
        state = answer.get("state")
        if state:
            job_ended(self._kind, state)
        garbage_deleted(answer.get("garbage", 0))
        self._leave(_OUTCOMES[JobState(state)] if state else "stopped" if answer else "died")

    def _leave(self, outcome: str) -> None:
        if self._phase:
            _PHASE.labels(self._kind, self._phase, outcome).observe(self._clock() - self._since)
        self._phase = ""


def job_ended(kind: str, state: str) -> None:
    """Count a job ended, in the state it has now."""
    _JOBS_ENDED.labels(kind, state).inc()


def uploaded(project: str, count: int) -> None:
    """Count bytes of an upload that are committed."""
    _UPLOAD_BYTES.labels(project).inc(count)


def upload_open() -> AbstractContextManager[object]:
    """Count an upload as being received for as long as the context lasts."""
    return _UPLOADS_OPEN.track_inprogress()


def shed(reason: str) -> None:
    """Count a call refused because too much is at work, for one of `SHED_REASONS`."""
    _SHED.labels(reason).inc()


def garbage_deleted(objects: int) -> None:
    """Count objects deleted that nothing needed."""
    _GARBAGE.inc(objects)


def orphan_aside() -> None:
    """Count an object kept aside that nothing needed."""
    _ASIDE.inc()


def unknown_objects(store: str, objects: int) -> None:
    """Show how many objects of a store have makers that the registry does not know."""
    _UNKNOWN.labels(store).set(objects)


def store_refused(*, refused: bool) -> None:
    """Show whether a store was found not to belong to the registry."""
    _REFUSED.set(refused)


def garbage_count() -> int:
    """Return how many objects `garbage_deleted` has counted in this process."""
    return int(next(sample.value for family in _GARBAGE.collect() for sample in family.samples))


class JobCollector(Collector):
    """Shows jobs as the registry had them a moment before, whichever trainer they are at; nothing while it is away.

    The registry is read by a thread of its own: a scrape never waits for it, even where it hangs.

    Args:
        ledger: The jobs.
        pause_seconds: Pause between two looks.
        keep_seconds: How long an answer is shown.
        clock: Seconds; monotonic.
    """

    def __init__(
        self,
        ledger: JobLedger,
        *,
        pause_seconds: float = 5.0,
        keep_seconds: float = 20.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._pause_seconds = pause_seconds
        self._keep_seconds = keep_seconds
        self._clock = clock
        # Replaced as one: when the registry was read, and what it answered.
        self._known: tuple[float, tuple[Metric, ...]] = (-float("inf"), ())
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="job-figures", daemon=True)

    def start(self) -> None:
        """Look now, and from then on after every pause."""
        self._thread.start()

    def close(self) -> None:
        """Look no more; what is at work is left to end with the process, as it may wait for the registry."""
        self._done.set()

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without values."""
        return _job_metrics({}, {})

    def collect(self) -> Iterable[Metric]:
        """Return the metrics as they were last read; none where that is too long ago."""
        read_at, found = self._known
        return found if self._clock() - read_at < self._keep_seconds else ()

    def refresh(self) -> None:
        """Read them once.

        Raises:
            RowmintError: The registry cannot be used; what is known stays until it is too old.
        """
        read_at = self._clock()
        self._known = read_at, _job_metrics(self._ledger.census(), self._ledger.lease_ages())

    def _run(self) -> None:
        while not self._done.is_set():
            try:
                self.refresh()
            except RowmintError as error:
                _log.warning("jobs could not be counted", error=error.message)
            except Exception:  # noqa: BLE001 - a fault met once must not end all counting for good
                _log.exception("jobs could not be counted")
            self._done.wait(self._pause_seconds)


def _job_metrics(census: Mapping[tuple[JobKind, JobState], int], ages: Mapping[JobName, float]) -> tuple[Metric, ...]:
    jobs = GaugeMetricFamily("rowmint_jobs", "Jobs in the registry.", labels=["kind", "state"])
    for kind, state in itertools.product(JobKind, JobState):
        jobs.add_metric([kind, state], census.get((kind, state), 0))
    leases = GaugeMetricFamily(
        "rowmint_job_lease_age_seconds",
        "Seconds since the last heartbeat that succeeded of a job that a trainer holds, by the registry's clock.",
        labels=["job"],
    )
    for name, seconds in ages.items():
        leases.add_metric([str(name)], seconds)
    return jobs, leases
