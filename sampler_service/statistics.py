"""What this process has done for each model version since it started; for GetModelStatistics and the metrics."""

import asyncio
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from rowmint.errors import Reason, RowmintError
from rowmint.names import ModelName, ModelVersionName, ModelVersionRef
from rowmint.observability.tracing import annotate
from rowmint.registry import ModelRecord, ModelVersionRecord
from rowmint.rpc.project_threads import ProjectThreads
from rowmint.sampling.stream import BlockDone
from sampler_service import metrics

COMPLETED = "completed"
"""Stands for the row format of calls of CompleteRows in the metrics."""
SCORED = "scored"
"""Stands for the row format of calls of ScoreRows in the metrics."""

# What is not the caller's fault.
_FAULTS = (Reason.INTERNAL, Reason.DATA_LOSS, Reason.UNAVAILABLE)

_VERSIONS = 4096  # as many are remembered, those served last


@dataclass
class VersionStatistics:
    """What was done for one version.

    Attributes:
        name: The version.
        begun: Streams begun.
        ended: Streams ended, by outcome, one of `metrics.OUTCOMES`.
        rows: Rows delivered.
        candidates: Candidates drawn.
        accepted: Candidates that satisfied the conditions.
        blocks: Blocks computed.
        block_seconds: What they took together.
        first_rows: Calls that have sent a row.
        first_row_seconds: From their begins to their first messages with rows, together.
        slowest_first_row: The longest of these, seconds.
        served_at: When a stream last began, seconds since 1970 by this machine's clock; None where none has.
        loaded_bytes: Bytes the model takes while it is loaded; 0 where it is not loaded now.
    """

    name: ModelVersionName
    begun: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    candidates: int = 0
    accepted: int = 0
    blocks: int = 0
    block_seconds: float = 0.0
    first_rows: int = 0
    first_row_seconds: float = 0.0
    slowest_first_row: float = 0.0
    served_at: float | None = None
    loaded_bytes: int = 0


class Models(Protocol):
    """Finds models and versions, as `rowmint.registry.ModelLedger` does. Thread-safe."""

    def get(self, name: ModelName) -> ModelRecord:
        """Return a model.

        Raises:
            ResourceNotFoundError: There is none of this name.
        """
        ...

    def resolve(self, ref: ModelVersionRef, *, deleted: bool = False, unpublished: bool = False) -> ModelVersionRecord:
        """Return the version that a reference stands for now.

        A version that is deleted, or that is staged or rejected, is found by its number and if requested only.

        Raises:
            ResourceNotFoundError: There is none.
        """
        ...

    def unpublished(self, name: ModelName) -> frozenset[int]:
        """Return the numbers of a model's versions that are staged or rejected.

        Raises:
            ResourceNotFoundError: There is none of this name.
        """
        ...


class StreamTally:
    """Counts what one stream does. For its event loop.

    Attributes:
        outcome: How the stream ends by itself: ``complete``, ``drained`` or ``max_duration``; set once nothing but its
            summary is left to be sent, so that a client which leaves as soon as it has that has not cancelled.
        rows: Rows delivered.
    """

    def __init__(
        self,
        statistics: "Statistics",
        version: ModelVersionName,
        row_format: str,
        began: float,
        clock: Callable[[], float],
    ) -> None:
        self._statistics = statistics
        self._version = version
        self._row_format = row_format
        self._began = began
        self._clock = clock
        self._first = True
        self.outcome = ""
        self.rows = 0

    def requested(self) -> None:
        """Note that rows are requested only now: the time that the client took is not latency."""
        if self._first:
            self._began = self._clock()

    def ready(self, rows: int) -> None:
        """Note that a message of so many rows is ready to be sent."""
        if rows and self._first:
            self._first = False
            seconds = self._clock() - self._began
            metrics.first_row(self._row_format, seconds)
            self._statistics.count_first_row(self._version, seconds)

    def sent(self, rows: int) -> None:
        """Count rows that were handed to gRPC."""
        self.rows += rows
        metrics.rows_sent(self._version.project, self._row_format, rows)
        self._statistics.count_rows(self._version, rows)


class Statistics:
    """Counts by version. Safe to use from any thread.

    Args:
        models: Where models are looked up.
        loaded_bytes: Returns how many bytes a version takes that is loaded now, else 0.
        clock: Seconds; monotonic.
        now: Seconds since 1970 by this machine's clock; it is reported, and decides nothing.
        lookups: Threads for look-ups in the registry.
        sees_unpublished: Says whether the caller that is being served may know of versions of a project, by its id,
            that are staged or rejected; called in the task of the call.

    Attributes:
        started_at: When this was made, likewise.
    """

    def __init__(
        self,
        models: Models,
        loaded_bytes: Callable[[ModelVersionName], int],
        *,
        clock: Callable[[], float],
        now: Callable[[], float],
        lookups: ProjectThreads,
        sees_unpublished: Callable[[str], bool] = lambda _project: False,
    ) -> None:
        self._sees_unpublished = sees_unpublished
        self._models = models
        self._loaded_bytes = loaded_bytes
        self._clock = clock
        self._now = now
        self._lookups = lookups
        self._turn = threading.Lock()
        self._versions: OrderedDict[ModelVersionName, VersionStatistics] = OrderedDict()
        self.started_at = now()

    @contextmanager
    def stream(self, version: ModelVersionName, row_format: str, began: float) -> Iterator[StreamTally]:
        """Count a stream, from its header to its end, whatever that is.

        Args:
            version: The version it is made from.
            row_format: How its rows are written, for the metrics.
            began: When its call began, by the monotonic clock.
        """
        metrics.stream_begun()
        annotate({"rowmint.model_version": str(version)})
        with self._turn:
            found = self._of(version)
            found.begun += 1
            found.served_at = self._now()
        tally = StreamTally(self, version, row_format, began, self._clock)
        outcome = "failed"
        try:
            yield tally
            outcome = tally.outcome
        except (asyncio.CancelledError, GeneratorExit):
            outcome = tally.outcome or "cancelled"
            raise
        except RowmintError as error:
            if error.reason not in _FAULTS:
                outcome = "refused"
            raise
        finally:
            metrics.stream_ended(outcome)
            annotate({"rowmint.rows": tally.rows, "rowmint.outcome": outcome})
            with self._turn:
                self._of(version).ended[outcome] += 1

    def count_block(self, version: ModelVersionName, done: BlockDone) -> None:
        """Count a block that was computed."""
        metrics.block(done.waited, done.took)
        metrics.candidates(done.candidates, done.accepted)
        with self._turn:
            found = self._of(version)
            found.blocks += 1
            found.block_seconds += done.took
            found.candidates += done.candidates
            found.accepted += done.accepted

    def count_first_row(self, version: ModelVersionName, seconds: float) -> None:
        """Note how long a call took to its first row."""
        with self._turn:
            found = self._of(version)
            found.first_rows += 1
            found.first_row_seconds += seconds
            found.slowest_first_row = max(found.slowest_first_row, seconds)

    def count_rows(self, version: ModelVersionName, rows: int) -> None:
        """Count rows delivered."""
        with self._turn:
            self._of(version).rows += rows

    async def read(self, name: str) -> list[VersionStatistics]:
        """Return what was done for a model, by version, or for one version of it, zeros included.

        Versions that are staged or rejected are left out for callers who may not see them.

        Args:
            name: A model's name, for all its versions served here; or a reference to one version.

        Raises:
            InvalidFieldError: It is not a name.
            ResourceNotFoundError: There is no such model or version.
        """
        if "@" in name or "/versions/" in name:
            ref = ModelVersionRef.parse(name)
            unpublished = self._sees_unpublished(ref.model.project)
            find = partial(self._models.resolve, ref, deleted=True, unpublished=unpublished)
            version = (await self._lookups.run(ref.model.project, find)).name
            with self._turn:
                return [self._copy(self._versions.get(version) or VersionStatistics(version))]
        model = ModelName.parse(name)
        await self._lookups.run(model.project, self._models.get, model)
        hidden = frozenset[int]()
        if not self._sees_unpublished(model.project):
            hidden = await self._lookups.run(model.project, self._models.unpublished, model)
        with self._turn:
            found = [self._copy(one) for one in self._versions.values() if one.name.parent == model]
        return sorted((one for one in found if one.name.version not in hidden), key=lambda one: one.name.version)

    def _of(self, version: ModelVersionName) -> VersionStatistics:
        found = self._versions.get(version)
        if found is None:
            found = self._versions[version] = VersionStatistics(version)
            if len(self._versions) > _VERSIONS:
                self._versions.popitem(last=False)
        else:
            self._versions.move_to_end(version)
        return found

    def _copy(self, found: VersionStatistics) -> VersionStatistics:
        return replace(found, ended=Counter(found.ended), loaded_bytes=self._loaded_bytes(found.name))
