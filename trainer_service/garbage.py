"""Objects that nothing needs any more: deleted at once where that is known, else when the trainer sweeps."""

import itertools
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from rowmint.errors import DataLossError, ResourceExistsError, UnavailableError, WrongStateError
from rowmint.failpoints import reach
from rowmint.objects import ObjectStore
from rowmint.registry import GarbageLedger, Part, Registry, newer_schemas
from rowmint.store_marks import ASIDE, RESERVED
from trainer_service import metrics
from trainer_service.jobs.scratch import remove_abandoned
from trainer_service.jobs.stores import Stores
from trainer_service.object_keys import aside_key, kept_aside
from trainer_service.store_claims import known_keys, renew_claims

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
        _delete(store, key)
    ledger.forget(keys)
    reach("sweep.forgotten")


def sweep_own(registry: Registry, store: ObjectStore, keys: Iterable[str]) -> None:
    """Delete those of the objects `keys`, which the caller's attempt has just made, that are known to be of no use.

    Raises:
        UnavailableError: Registry or store cannot be used now.
    """
    for batch in known_keys(keys):
        found = registry.orphans.sort(batch)
        for key in (*found.ended, *found.deleted):
            _delete(store, key)


def _delete(store: ObjectStore, key: str) -> None:
    store.delete(key)
    metrics.garbage_deleted(1)
    reach("sweep.object.deleted")


@dataclass(frozen=True)
class OrphanRules:
    """What is done with an object whose attempt has ended and that no row names.

    Attributes:
        seconds: Age below which it is left alone.
        keep_seconds: How long it is kept aside before it is deleted; 0: it is deleted at once.
    """

    seconds: float
    keep_seconds: float


def sweep_orphans(registry: Registry, store: ObjectStore, rules: OrphanRules) -> int:
    """Put aside or delete the objects of a store that nothing needs, and return how many have makers not known.

    What the registry names, what an attempt at work or one that is not known has made, and what is none of ours, stays.
    What was made for a dataset that is deleted is deleted at once.

    Raises:
        UnavailableError: Registry or store cannot be used now.
    """
    now = registry.orphans.now()
    unknown = aside = deleted = 0
    entries = (entry for entry in store.entries("") if not entry.key.startswith(RESERVED))
    while batch := {entry.key: entry for entry in itertools.islice(entries, _AT_ONCE)}:
        for keys in known_keys(batch):
            found = registry.orphans.sort(keys)
            unknown += len(found.unknown)
            old = [key for key in found.ended if now - batch[key].modified >= timedelta(seconds=rules.seconds)]
            gone = found.deleted if rules.keep_seconds else (*found.deleted, *old)
            for key in gone:
                _delete(store, key)
            deleted += len(gone)
            for key in old if rules.keep_seconds else ():
                aside += _put_aside(store, key, now)
    if aside or deleted:
        _log.info("swept what ended attempts had left", aside=aside, deleted=deleted)
    _sweep_aside(registry, store, rules, now)
    return unknown


def _put_aside(store: ObjectStore, key: str, now: datetime) -> bool:
    try:
        store.move(key, aside_key(key, now))
    except DataLossError:  # another trainer has swept it at the same moment
        return False
    metrics.orphan_aside()
    reach("sweep.object.aside")
    return True


def _sweep_aside(registry: Registry, store: ObjectStore, rules: OrphanRules, now: datetime) -> None:
    """Delete what was kept aside for long enough, and put back what is needed after all, as by a restored registry."""
    entries = iter(store.list(ASIDE))
    while batch := list(itertools.islice(entries, _AT_ONCE)):
        held = {key: kept for key in batch if (kept := kept_aside(key)) is not None}
        for made in known_keys(key for key, _ in held.values()):
            found = registry.orphans.sort(made)
            for aside, (key, since) in held.items():
                over = key in found.ended and now - since >= timedelta(seconds=rules.keep_seconds)
                if over or key in found.deleted:
                    _delete(store, aside)
                elif key in found.named:
                    _put_back(store, aside, key)


def _put_back(store: ObjectStore, aside: str, key: str) -> None:
    try:
        store.move(aside, key)
    except ResourceExistsError:  # what is named is there: this one was made in another history of the registry
        return
    except DataLossError:  # as in `_put_aside`
        return
    _log.warning("an object kept aside is needed and was put back", key=key)


class Sweeper:
    """Cleans up now and then, from a thread of its own: any number of trainers may, at the same time.

    It fails uploads that were abandoned, purges versions deleted long enough ago, removes the temporary files of dead
    workers, and deletes every object that nothing needs: those on the ledgers' lists at once, and those that no row
    names and none ever will after they were kept aside. Stores that do not belong to the registry are left as they are;
    of a registry that a newer release has changed, only the lists are swept, as it may name objects elsewhere.

    Args:
        registry: Where rows are.
        stores: Where objects are; `claim_stores` has claimed them.
        scratch: Root of the folders of temporary files of this machine's workers.
        seconds: Pause between two sweeps.
        upload_idle_seconds: After so long without a byte an upload is abandoned.
        orphans: What is done with what no row names.
    """

    def __init__(
        self,
        registry: Registry,
        stores: Stores,
        scratch: Path,
        *,
        seconds: float,
        upload_idle_seconds: float,
        orphans: OrphanRules,
    ) -> None:
        self._registry = registry
        self._stores = stores
        self._scratch = scratch
        self._seconds = seconds
        self._upload_idle_seconds = upload_idle_seconds
        self._orphans = orphans
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
            WrongStateError: A store does not belong to the registry; nothing is swept.
        """
        try:
            remove_abandoned(self._scratch)
        except OSError as error:
            _log.warning("temporary files are left for the next sweep", error=str(error))
        registry, stores = self._registry, self._stores
        renew_claims(registry, stores)
        registry.datasets.expire(self._upload_idle_seconds)
        while registry.models.purge():
            pass
        sweep_listed(registry.datasets, stores.data)
        sweep_listed(registry.models, stores.models)
        newer = newer_schemas(registry.engine)
        if newer:
            _log.warning("the registry is newer than this release; only listed garbage is deleted", schemas=newer)
            return
        for part in Part:
            stores.of(part).remove_abandoned()
            unknown = sweep_orphans(registry, stores.of(part), self._orphans)
            metrics.unknown_objects(part, unknown)
            if unknown:
                _log.warning("objects of unknown makers are left", store=part, objects=unknown)

    def _run(self) -> None:
        while not self._done.is_set():
            try:
                self.sweep()
                metrics.store_refused(refused=False)
            except UnavailableError as error:
                _log.warning("garbage is left for the next sweep", error=error.message)
            except WrongStateError as error:
                metrics.store_refused(refused=True)
                _log.error("the store belongs to another or a newer registry; nothing is swept", error=error.message)
            except Exception:  # noqa: BLE001 - a fault met once must not end all sweeping for good
                _log.exception("the sweep failed")
            self._done.wait(self._seconds)
