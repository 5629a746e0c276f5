"""Objects that nothing needs any more: deleted at once where that is known, else when the trainer sweeps."""

import itertools
import threading
from collections.abc import Iterable
from pathlib import Path

import structlog

from rowmint.errors import UnavailableError
from rowmint.failpoints import reach
from rowmint.objects import ObjectStore
from rowmint.registry import GarbageLedger, Registry
from trainer_service import metrics
from trainer_service.jobs.scratch import remove_abandoned
from trainer_service.object_keys import attempt_of

_log = structlog.get_logger(__name__)

_AT_ONCE = 1000


def sweep(ledger: GarbageLedger, store: ObjectStore, keys: tuple[str, ...]) -> None:
    """Delete the objects `keys` and remove them from the ledger's list; deleting what is gone is harmless.

    What cannot be deleted now stays on the list, and only the log says so, as no caller waits for it.
    """
    try:
        for start in range(0, len(keys), _AT_ONCE):
            _sweep(ledger, store, keys[start : start + _AT_ONCE])
    except UnavailableError as error:
        _log.warning("garbage is left for the next sweep", error=error.message)


def sweep_listed(ledger: GarbageLedger, store: ObjectStore) -> None:
    """Delete everything on the ledger's list.

    Raises:
        UnavailableError: Something cannot be deleted now; it stays on the list.
    """
    while keys := ledger.garbage():
        _sweep(ledger, store, keys)


def _sweep(ledger: GarbageLedger, store: ObjectStore, keys: tuple[str, ...]) -> None:
    for key in keys:
        store.delete(key)
        metrics.garbage_deleted(1)
        reach("sweep.object.deleted")
    ledger.forget(keys)
    reach("sweep.forgotten")


def sweep_orphans(registry: Registry, store: ObjectStore, keys: Iterable[str]) -> int:
    """Delete those objects among `keys` that an attempt left behind when it ended, and return how many.

    Whatever is named by the registry, or made by an attempt that is at work, or whose key is none of ours, stays.

    Raises:
        UnavailableError: Registry or store cannot be used now.
    """
    made = {key: attempt for key in keys if (attempt := attempt_of(key)) is not None}
    left = registry.orphans.unneeded(made)
    for key in left:
        store.delete(key)
        metrics.garbage_deleted(1)
        reach("sweep.object.deleted")
    return len(left)


class Sweeper:
    """Cleans up now and then, from a thread of its own: any number of trainers may, at the same time.

    It fails uploads that were abandoned, purges versions deleted long enough ago, removes the temporary files of dead
    workers, and deletes every object that nothing needs: those on the ledgers' lists, and those that no row names and
    none ever will.

    Args:
        registry: Where rows are.
        data: The data store.
        models: The models' store.
        scratch: Root of the folders of temporary files of this machine's workers.
        seconds: Pause between two sweeps.
        upload_idle_seconds: After so long without a byte an upload is abandoned.
    """

    def __init__(
        self,
        registry: Registry,
        data: ObjectStore,
        models: ObjectStore,
        scratch: Path,
        *,
        seconds: float,
        upload_idle_seconds: float,
    ) -> None:
        self._registry = registry
        self._data = data
        self._models = models
        self._scratch = scratch
        self._seconds = seconds
        self._upload_idle_seconds = upload_idle_seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        """Sweep now, and from then on after every pause."""
        self._thread.start()

    def close(self) -> None:
        """Sweep no more; what is at work is left to end with the process, as it may wait for a store."""
        self._done.set()

    def sweep(self) -> None:
        """Sweep once.

        Raises:
            UnavailableError: Registry or store cannot be used now; the next sweep continues.
        """
        try:
            remove_abandoned(self._scratch)
        except OSError as error:
            _log.warning("temporary files are left for the next sweep", error=str(error))
        self._registry.datasets.expire(self._upload_idle_seconds)
        while self._registry.models.purge():
            pass
        sweep_listed(self._registry.datasets, self._data)
        sweep_listed(self._registry.models, self._models)
        for store in (self._data, self._models):
            store.remove_abandoned()
            keys = store.list("")
            while batch := list(itertools.islice(keys, _AT_ONCE)):
                found = sweep_orphans(self._registry, store, batch)
                if found:
                    _log.info("swept what ended attempts had left", objects=found)

    def _run(self) -> None:
        while not self._done.is_set():
            try:
                self.sweep()
            except UnavailableError as error:
                _log.warning("garbage is left for the next sweep", error=error.message)
            except Exception:  # noqa: BLE001 - a fault met once must not end all sweeping for good
                _log.exception("the sweep failed")
            self._done.wait(self._seconds)
