"""Objects that nothing needs any more: deleted now, or, where a crash came between, at the next start."""

from collections.abc import Iterable
from typing import Protocol

from rowmint.objects import ObjectStore


class Ledger(Protocol):
    """A ledger with a list of garbage."""

    def garbage(self, limit: int = 1000) -> tuple[str, ...]:
        """Return keys of objects that nothing needs any more."""
        ...

    def forget(self, keys: Iterable[str]) -> None:
        """Strike deleted objects off the list."""
        ...


def sweep(ledger: Ledger, store: ObjectStore, keys: tuple[str, ...]) -> None:
    """Delete the objects `keys` and strike them off the ledger's list; deleting what is gone is harmless."""
    for key in keys:
        store.delete(key)
    ledger.forget(keys)


def sweep_all(ledger: Ledger, store: ObjectStore) -> None:
    """Delete everything on the ledger's list."""
    while keys := ledger.garbage():
        sweep(ledger, store, keys)
