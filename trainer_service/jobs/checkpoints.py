"""Where a job's checkpoints are kept: an object of the data store, and the row of the job that names it."""

import hashlib
import time
from collections.abc import Callable

import structlog

from rowmint.errors import DataLossError, ResourceExistsError, UnavailableError
from rowmint.failpoints import reach
from rowmint.objects import ObjectStore
from rowmint.registry import CheckpointRecord, Registry
from trainer_service.garbage import sweep
from trainer_service.jobs.attempts import Attempt
from trainer_service.object_keys import checkpoint_key

_log = structlog.get_logger(__name__)


class JobCheckpoints:
    """The checkpoints of one attempt at a job. One thread uses it.

    The object is stored first, under a key of this attempt's own, then the job's row names it; only then is the one
    before deleted. A job therefore always has its newest complete checkpoint, or none.

    Args:
        registry: Where the job is.
        store: The data store.
        attempt: The attempt.
        seconds: Pause between two checkpoints; 0 for one before every step.
        clock: Seconds that never run backwards.
    """

    def __init__(
        self,
        registry: Registry,
        store: ObjectStore,
        attempt: Attempt,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._store = store
        self._attempt = attempt
        self._seconds = seconds
        self._clock = clock
        self._newest = attempt.job.checkpoint
        self._last = clock()
        self._saved_last = False

    def load(self) -> bytes | None:
        """Return the newest checkpoint of the job; None where there is none, or where it is damaged.

        Raises:
            UnavailableError: The store cannot be read now.
        """
        record = self._newest
        if record is None:
            return None
        try:
            data = self._store.get(record.object_key)
        except DataLossError as error:
            _log.warning("a checkpoint is lost", job=str(self._attempt.job.name), error=error.message)
            return None
        if len(data) != record.size or hashlib.sha256(data).digest() != record.sha256:
            _log.warning("a checkpoint is damaged", job=str(self._attempt.job.name), key=record.object_key)
            return None
        return data

    def due(self) -> bool:
        """Say whether one is to be written now: the pause is over, or the process is about to end."""
        if self._attempt.shutting_down and not self._saved_last:
            self._saved_last = True
            return True
        return self._clock() - self._last >= self._seconds

    def save(self, step: int, data: bytes) -> None:
        """Keep a checkpoint; where registry or store cannot be used now, the work continues until the next is due.

        Raises:
            CancelledError: The job is cancelled.
            FencedError: Another attempt has taken over.
        """
        job = self._attempt.job
        record = CheckpointRecord(
            checkpoint_key(job.uid, job.epoch, step), len(data), hashlib.sha256(data).digest(), step
        )
        self._last = self._clock()
        if record == self._newest:
            return
        try:
            self._store.put(record.object_key, data)
            reach("checkpoint.stored")
            self._registry.jobs.save_checkpoint(job.uid, job.epoch, record)
        except (UnavailableError, ResourceExistsError) as error:
            # A key is taken where the registry was restored from a backup and knows nothing of an earlier attempt.
            _log.warning("a checkpoint could not be kept", job=str(job.name), step=step, error=error.message)
            return
        reach("checkpoint.committed")
        earlier, self._newest = self._newest, record
        if earlier is not None:
            sweep(self._registry.datasets, self._store, (earlier.object_key,))
