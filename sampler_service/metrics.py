"""The sampler's metrics, in one place. Labels hold names of projects and of closed sets, never a value of a cell.

They count for the process, which has one sampler.
"""

import asyncio
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

from rowmint.observability.environment import multiprocess_folder
from rowmint.observability.metrics import CallMetrics

REGISTRY = CollectorRegistry()

_SHARED = bool(multiprocess_folder())
if not _SHARED:
    # Several processes have neither one memory nor one start time.
    ProcessCollector(registry=REGISTRY)

# 1 ms to a minute: a warm model answers within a few of the first, one that is loaded from far takes the last.
_LATENCIES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_TASKS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

CALLS = CallMetrics(REGISTRY)

_FIRST_ROW = Histogram(
    "rowmint_first_row_seconds",
    "Seconds from a call's start to its first message with rows.",
    ["row_format"],
    registry=REGISTRY,
    buckets=_LATENCIES,
)
_ROWS_SENT = Counter("rowmint_rows_sent", "Rows handed to gRPC.", ["project", "row_format"], registry=REGISTRY)
_CANDIDATES = Counter("rowmint_candidates", "Candidates drawn.", registry=REGISTRY)
_ACCEPTED = Counter("rowmint_candidates_accepted", "Candidates that satisfied the conditions.", registry=REGISTRY)
_BLOCK = Histogram("rowmint_block_seconds", "Seconds that computing a block took.", registry=REGISTRY, buckets=_TASKS)
_BLOCK_WAIT = Histogram(
    "rowmint_block_wait_seconds", "Seconds that a block waited for a thread.", registry=REGISTRY, buckets=_TASKS
)
_SHED = Counter("rowmint_shed", "Calls refused because too much is at work.", ["reason"], registry=REGISTRY)
_BEGUN = Counter("rowmint_streams_begun", "Streams of rows begun.", registry=REGISTRY)
_ENDED = Counter("rowmint_streams_ended", "Streams of rows ended.", ["outcome"], registry=REGISTRY)
_CACHE_HITS = Counter("rowmint_model_cache_hits", "Requested models that were loaded already.", registry=REGISTRY)
_CACHE_MISSES = Counter("rowmint_model_cache_misses", "Requested models that had to be loaded.", registry=REGISTRY)
_CACHE_EVICTIONS = Counter("rowmint_model_cache_evictions", "Models evicted for others.", registry=REGISTRY)
_MODEL_LOAD = Histogram(
    "rowmint_model_load_seconds", "Seconds that loading a model took.", registry=REGISTRY, buckets=_LATENCIES
)


def _gauge(name: str, text: str, *, summed: bool = True) -> Gauge:
    return Gauge(name, text, registry=REGISTRY, multiprocess_mode="livesum" if summed else "livemax")


_LIVE = {
    "queue_blocks": _gauge("rowmint_queue_blocks", "Blocks that wait for a thread."),
    "running_blocks": _gauge("rowmint_running_blocks", "Blocks being computed."),
    "streams": _gauge("rowmint_streams", "Streams of rows being served."),
    "rows_in_flight": _gauge("rowmint_rows_in_flight", "Rows being computed, or waiting to be sent."),
    "utilization": _gauge(
        "rowmint_utilization", "How busy the threads are, as reported to balancers; 1 is fully.", summed=False
    ),
    "model_cache_bytes": _gauge("rowmint_model_cache_bytes", "Memory of the models kept loaded, bytes."),
}
_READ: dict[str, Callable[[], float]] = {}

SHED_REASONS = (
    "project_streams",
    "project_rows",
    "process_streams",
    "process_rows",
    "process_bytes",
    "draining",
    "calls",
)
OUTCOMES = ("complete", "drained", "max_duration", "cancelled", "refused", "failed")

for _reason in SHED_REASONS:
    _SHED.labels(_reason)
for _outcome in OUTCOMES:
    _ENDED.labels(_outcome)


def shed(reason: str) -> None:
    """Count a call refused because too much is at work, for one of `SHED_REASONS`."""
    _SHED.labels(reason).inc()


def stream_begun() -> None:
    """Count a stream of rows begun."""
    _BEGUN.inc()


def stream_ended(outcome: str) -> None:
    """Count a stream of rows ended, in one of `OUTCOMES`."""
    _ENDED.labels(outcome).inc()


def rows_sent(project: str, row_format: str, rows: int) -> None:
    """Count rows handed to gRPC."""
    _ROWS_SENT.labels(project, row_format).inc(rows)


def first_row(row_format: str, seconds: float) -> None:
    """Note how long a call took to its first message with rows, seconds."""
    _FIRST_ROW.labels(row_format).observe(seconds)


def block(waited: float, took: float) -> None:
    """Note how long a block waited for a thread and how long it took, seconds."""
    _BLOCK_WAIT.observe(waited)
    _BLOCK.observe(took)


def candidates(drawn: int, accepted: int) -> None:
    """Count candidates drawn and those that satisfied the conditions."""
    _CANDIDATES.inc(drawn)
    _ACCEPTED.inc(accepted)


def cache_hit() -> None:
    """Count a requested model that was loaded, or being loaded."""
    _CACHE_HITS.inc()


def cache_miss() -> None:
    """Count a model that had to be loaded."""
    _CACHE_MISSES.inc()


def cache_evicted() -> None:
    """Count a model evicted for others."""
    _CACHE_EVICTIONS.inc()


def model_loaded(seconds: float) -> None:
    """Note how long a model took to be loaded, seconds."""
    _MODEL_LOAD.observe(seconds)


def show(**live: Callable[[], float]) -> None:
    """Show live values: `queue_blocks`, `running_blocks`, `streams`, `rows_in_flight`, `utilization` and
    `model_cache_bytes`, each a function that returns it, from any thread.
    """  # noqa: D205 - the names are the summary
    for name, read in live.items():
        _READ[name] = read
        if not _SHARED:
            _LIVE[name].set_function(read)


async def keep_fresh(seconds: float = 1.0) -> None:
    """Where processes share their metrics, write the live values down now and then, until cancelled.

    A function cannot be called from another process. Where there is one process, return at once.
    """
    while _SHARED:
        for name, read in _READ.items():
            _LIVE[name].set(read())
        await asyncio.sleep(seconds)
