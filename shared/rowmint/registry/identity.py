"""Which registry this is, and how far it has come: what tells a store's own registry from others and from older ones.

Each schema keeps both for itself, as each may be lost or restored without the other. The generation only ever grows: it
is a point in the history of one registry, and a registry that was restored from a backup is at an earlier one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, Engine, Table, delete, func, insert, inspect, select, update

from rowmint.registry.engine import reading, writing
from rowmint.registry.tables import MODELS, data_identity, models_identity


class Part(StrEnum):
    """A schema of the registry, and with it the store that holds its objects."""

    DATA = "data"
    MODELS = "models"


@dataclass(frozen=True)
class Identity:
    """A part of a registry at a point in its history.

    Attributes:
        uid: The registry, 32 hex digits; the same in both parts.
        generation: How far the part has come, from 1.
    """

    uid: str
    generation: int


_TABLES: Mapping[Part, Table] = {Part.MODELS: models_identity, Part.DATA: data_identity}


class IdentityLedger:
    """The identity of a registry. Safe for any number of threads and processes.

    Every method raises `UnavailableError` if the database cannot be used.

    Args:
        engine: An engine of both schemas.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def read(self, part: Part) -> Identity | None:
        """Return the identity of a part; None where it has claimed no store yet."""
        with reading(self._engine) as connection:
            return _read(connection, part)

    def advance(self) -> Mapping[Part, Identity | None]:
        """Bring both parts one generation further, and return where they are; a part without identity stays so."""
        with writing(self._engine) as connection:
            # In the order in which the files are committed; see `rowmint.registry.engine`.
            for part in (Part.MODELS, Part.DATA):
                advance_generation(connection, part)
            return {part: _read(connection, part) for part in Part}

    def claim(self, new_uid: str) -> Mapping[Part, Identity]:
        """Give every part that has no identity that of the other, or `new_uid`, and return them. Idempotent.

        Of processes that do so at once all get the same.
        """
        with writing(self._engine) as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended("rowmint:identity", 0))))
            found = {part: _read(connection, part) for part in (Part.MODELS, Part.DATA)}
            uid = next((one.uid for one in found.values() if one is not None), new_uid)
            assign_identity(connection, {part: Identity(uid, 1) for part, one in found.items() if one is None})
            return {part: one or Identity(uid, 1) for part, one in found.items()}


def advance_generation(connection: Connection, part: Part) -> None:
    """Bring a part one generation further, in the caller's transaction: what it commits is newer than any backup."""
    table = _TABLES[part]
    connection.execute(update(table).values(generation=table.c.generation + 1))


def assign_identity(connection: Connection, identities: Mapping[Part, Identity]) -> None:
    """Replace the identities of parts, in the caller's transaction."""
    for part, identity in identities.items():
        connection.execute(delete(_TABLES[part]))
        connection.execute(insert(_TABLES[part]).values(registry_uid=identity.uid, generation=identity.generation))


def read_models_identity(engine: Engine) -> Identity | None:
    """Return the identity of the models' part, for a reader of it alone; None also where the schema is older.

    Raises:
        UnavailableError: The registry cannot be reached.
    """
    with reading(engine) as connection:
        known = inspect(connection).has_table(models_identity.name, schema=MODELS)
        return _read(connection, Part.MODELS) if known else None


def _read(connection: Connection, part: Part) -> Identity | None:
    row = connection.execute(select(_TABLES[part])).one_or_none()
    return None if row is None else Identity(row.registry_uid, row.generation)
