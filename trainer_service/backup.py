"""Copies registry and stores of the embedded form while services run: ``python -m trainer_service.backup FOLDER``.

The copy holds every object that its registry names. It is a home: a trainer that is started on it, or on a copy of it,
serves what was there.
"""

import argparse
import contextlib
import os
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

from rowmint.errors import DataLossError, InvalidFieldError, UnavailableError
from rowmint.objects import LocalDirectoryStore, open_store
from rowmint.objects.files import sync_directory
from rowmint.registry import Part, open_registry
from rowmint.rpc.process import one_line_errors
from rowmint.store_marks import RESERVED
from trainer_service.settings import TrainerSettings

_PRIVATE = 0o700
_ROUNDS = 10
# The models' file is committed first: of a version that is published meanwhile, the copy may have an unfinished job,
# which the next claim ends, but never a finished job without its version.
_FILES = ("data.db", "models.db")


def back_up(registry: Path, stores: dict[Part, LocalDirectoryStore], target: Path) -> int:
    """Copy a registry and its stores to the folder `target`, and return how many objects are new there.

    An earlier backup in `target` is brought up to date: objects never change, and those that are there stay.

    Args:
        registry: Folder of the registry's files.
        stores: The store of each part.
        target: The folder; made if it does not exist.

    Raises:
        DataLossError: The registry names objects that are missing; all others are copied.
        UnavailableError: A store cannot be read or written.
    """
    copies = {part: LocalDirectoryStore(target / part) for part in Part}
    count = 0
    for folder in (target, target / "registry", *(target / part for part in Part)):
        folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        folder.chmod(_PRIVATE)
    # An object that the copied registry names may be deleted before it is copied; a later registry names it no more.
    missing: set[str] = set()
    for _ in range(_ROUNDS):
        before = missing
        for name in _FILES:
            _copy_database(registry / name, target / "registry" / name)
        count += sum(_copy_objects(stores[part], copies[part]) for part in Part)
        missing = set(_missing(target, copies))
        if not missing:
            return count
        if missing == before:
            break
    raise DataLossError(
        f"the copy holds all but {len(missing)} objects, which are missing from the stores too:"
        f" {', '.join(sorted(missing))}"
    )


def _copy_database(source: Path, target: Path) -> None:
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with (
        contextlib.closing(sqlite3.connect(f"{source.as_uri()}?mode=rw", uri=True)) as found,
        contextlib.closing(sqlite3.connect(part)) as copy,
    ):
        found.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
    with part.open("rb") as file:
        os.fsync(file.fileno())
    for log in ("-wal", "-shm"):  # of a copy that was served
        target.with_name(target.name + log).unlink(missing_ok=True)
    part.replace(target)
    sync_directory(target.parent)


def _copy_objects(source: LocalDirectoryStore, target: LocalDirectoryStore) -> int:
    there = {entry.key: entry.size for entry in target.entries("")}
    count = 0
    for entry in source.entries(""):
        # Marks stay with their store: the copy's registry may be a little older. What is kept aside is not needed.
        if entry.key.startswith(RESERVED) or there.get(entry.key) == entry.size:
            continue
        path = source.root / entry.key
        try:
            target.put_file(entry.key, path)
        except UnavailableError:
            if path.exists():
                raise
            continue  # deleted meanwhile
        count += 1
    return count


def _missing(target: Path, copies: dict[Part, LocalDirectoryStore]) -> Iterator[str]:
    registry = open_registry(f"sqlite:///{target / 'registry'}", read_only=True)
    try:
        there = {part: set(copy.list("")) for part, copy in copies.items()}
        yield from (one.key for one in registry.adoption.named() if one.key not in there[one.part])
    finally:
        registry.close()


def main() -> None:
    """Back up what the settings name."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer_service.backup",
        description="Copies a registry of SQLite files and the folders of its stores while services run. Settings are"
        " read from the environment, as the trainer does. See Backups in docs/deployment.md.",
    )
    parser.add_argument("folder", type=Path, help="folder of the copy; one that is there already is brought up to date")
    folder = parser.parse_args().folder.absolute()
    with one_line_errors("backup"):
        settings = TrainerSettings()
        if not settings.registry_url.startswith("sqlite:"):
            raise InvalidFieldError("registry", "is not of SQLite files: use pg_dump, then copy the stores' buckets")
        stores = {}
        for part, url in ((Part.DATA, settings.data_store_url), (Part.MODELS, settings.model_store_url)):
            store = open_store(url, settings.store_options)
            if not isinstance(store, LocalDirectoryStore):
                raise InvalidFieldError(f"{part}_store", "is no folder: copy the registry's files, then the bucket")
            stores[part] = store
        count = back_up(Path(settings.registry_url.removeprefix("sqlite:///")).absolute(), stores, folder)
        sys.stdout.write(f"backed up: {count} new objects\n")


if __name__ == "__main__":
    main()
