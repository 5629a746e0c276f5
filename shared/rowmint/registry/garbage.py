"""The list of garbage that a ledger keeps: objects that none of its rows needs any more, until they are deleted."""

from collections.abc import Iterable

from sqlalchemy import Engine, Table, delete, select

from rowmint.registry.engine import reading, writing


class GarbageLedger:
    """A ledger with a list of garbage. Safe for any number of threads and processes.

    Args:
        engine: An engine of the list's schema.
        garbage: The table of the list.
    """

    def __init__(self, engine: Engine, garbage: Table) -> None:
        self._engine = engine
        self._garbage = garbage

    def garbage(self, limit: int = 1000) -> tuple[str, ...]:
        """Return keys of objects that nothing needs any more; delete them, then `forget`."""
        with reading(self._engine) as connection:
            return tuple(connection.execute(select(self._garbage.c.object_key).limit(limit)).scalars())

    def forget(self, keys: Iterable[str]) -> None:
        """Remove deleted objects from the list."""
        with writing(self._engine) as connection:
            connection.execute(delete(self._garbage).where(self._garbage.c.object_key.in_(list(keys))))
