"""Objects that nothing needs any more: deleted now, or, where a crash came between, at the next start."""

from collections.abc import Iterable
from typing import Protocol

import structlog

from rowmint.errors import UnavailableError
from rowmint.objects import ObjectStore

_log = structlog.get_logger(__name__)

_AT_ONCE = 1000


class Ledger(Protocol):
    """A ledger with a list of garbage."""

    def garbage(self, limit: int = 1000) -> tuple[str, ...]:
        """Return keys of objects that nothing needs any more."""
        ...

    def forget(self, keys: Iterable[str]) -> None:
        """Strike deleted objects off the list."""
        ...


def sweep(ledger: Ledger, store: ObjectStore, keys: tuple[str, ...]) -> None:
    """Delete the objects `keys` and strike them off the ledger's list; deleting what is gone is harmless.

    What cannot be deleted now stays on the list: nobody waits for it, so nobody is told but the log.
    """
    try:
        for start in range(0, len(keys), _AT_ONCE):
            _sweep(ledger, store, keys[start : start + _AT_ONCE])
    except UnavailableError as error:
        _log.warning("garbage is left for the next start", error=error.message)


def sweep_all(ledger: Ledger, store: ObjectStore) -> None:
    """Delete everything on the ledger's list; what cannot be deleted now stays on it."""
    try:
        while keys := ledger.garbage():
            _sweep(ledger, store, keys)
    except UnavailableError as error:
        _log.warning("garbage is left for the next start", error=error.message)


def _sweep(ledger: Ledger, store: ObjectStore, keys: tuple[str, ...]) -> None:
    for key in keys:
        store.delete(key)
    ledger.forget(keys)
