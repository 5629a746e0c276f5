"""The order of writes: what must have been done to an object before anything may refer to it."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from rowmint.registry.tables import DATA, MODELS
from tests.durability.recorder import (
    DATABASES,
    Created,
    Event,
    Linked,
    MadeDirectory,
    Renamed,
    SyncedDirectory,
    SyncedFile,
    Unlinked,
    Wrote,
)

STORES = {DATA: Path("data"), MODELS: Path("models")}
"""Folder of the store that a schema's keys are in."""

_KEYS = {
    DATA: {
        "segment": "SELECT object_key FROM segments",
        "table": "SELECT canonical_key FROM datasets WHERE canonical_key IS NOT NULL",
        "checkpoint": "SELECT json_extract(checkpoint, '$.key') FROM jobs WHERE checkpoint IS NOT NULL",
    },
    MODELS: {
        kind: " UNION ".join(f"SELECT {kind}_key FROM {table}_versions" for table in ("model", "staged", "deleted"))
        for kind in ("manifest", "weights")
    },
}


def referred(snapshot: Path) -> dict[Path, str]:
    """Return the files that a state of the registry refers to, and what each is."""
    return {
        STORES[schema] / key: kind
        for schema, queries in _KEYS.items()
        for kind, query in queries.items()
        for (key,) in rows(snapshot, schema, query)
    }


def garbage(snapshot: Path) -> set[Path]:
    """Return the files that a state of the registry has on its lists of garbage."""
    query = "SELECT object_key FROM garbage"
    return {STORES[schema] / key for schema in STORES for (key,) in rows(snapshot, schema, query)}


def rows(snapshot: Path, schema: str, query: str) -> list[tuple[Any, ...]]:
    """Return what a query finds in one of the files of a state of the registry."""
    with closing(sqlite3.connect(snapshot / DATABASES[schema])) as connection:
        return connection.execute(query).fetchall()


def missing_before(trace: Sequence[Event], path: Path) -> list[str]:
    """Return what was not done, or not in time, for a file and its name to survive a crash after `trace`.

    The bytes are to be written and synced under another name, then named, then the directory synced that holds the
    name, as well as the parent of each directory that was made.
    """
    named = [index for index, event in enumerate(trace) if isinstance(event, Linked | Renamed) and event.path == path]
    if not named:
        return [f"{path} was not given its name by a link or rename"]
    naming = trace[named[-1]]
    assert isinstance(naming, Linked | Renamed)
    file = next(event.file for event in trace if isinstance(event, Created) and event.path == naming.source)
    written = [index for index, event in enumerate(trace) if isinstance(event, Wrote) and event.file == file]
    synced = [index for index, event in enumerate(trace) if event == SyncedFile(file)]
    found = []
    if not written:
        found.append(f"{path} was not written")
    elif not synced or synced[-1] < written[-1]:
        found.append(f"{path} was not synced after it was written")
    elif synced[-1] > named[-1]:
        found.append(f"{path} was named before it was synced")
    if not _done_after(trace, SyncedDirectory(path.parent), named[-1]):
        found.append(f"{path.parent} was not synced after {path} was named")
    made = {event.path: index for index, event in enumerate(trace) if isinstance(event, MadeDirectory)}
    found += [
        f"{directory.parent} was not synced after {directory} was made"
        for directory in path.parents
        if directory in made and not _done_after(trace, SyncedDirectory(directory.parent), made[directory])
    ]
    return found


def missing_after(trace: Sequence[Event], path: Path) -> list[str]:
    """Return what was not done for a file to stay away after `trace`."""
    taken = [index for index, event in enumerate(trace) if event == Unlinked(path)]
    if not taken:
        return [f"{path} was not removed"]
    if not _done_after(trace, SyncedDirectory(path.parent), taken[-1]):
        return [f"{path.parent} was not synced after {path} was removed"]
    return []


def _done_after(trace: Sequence[Event], event: Event, index: int) -> bool:
    return event in trace[index + 1 :]
