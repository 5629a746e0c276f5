"""Copies registry and stores of the embedded form while services run: ``python -m trainer_service.backup FOLDER``.

The copy holds every object that its registry names. It is a home: a trainer that is started on it, or on a copy of it,
serves what was there.
"""

import argparse
import contextlib
import fcntl
import os
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from rowmint.errors import DataLossError, InvalidFieldError, UnavailableError, WrongStateError
from rowmint.objects import LocalDirectoryStore, open_store
from rowmint.objects.files import make_folder, sync_directory
from rowmint.registry import Identity, Part, open_registry
from rowmint.rpc.process import one_line_errors
from rowmint.store_marks import RESERVED
from trainer_service.settings import TrainerSettings

_ROUNDS = 10
# The models' file is committed first: of a version that is published meanwhile, the copy may have an unfinished job,
# which the next claim ends, but never a finished job without its version.
_FILES = ("data.db", "models.db")


def back_up(registry: Path, stores: dict[Part, LocalDirectoryStore], target: Path) -> int:
    """Copy a registry and its stores to the folder `target`, and return how many objects are new there.

    An earlier backup in `target` is brought up to date: objects never change, and those that are there stay. Its
    registry is replaced last, so that whatever ends this early leaves a backup that is complete, or none.

    Args:
        registry: Folder of the registry's files.
        stores: The store of each part.
        target: The folder; made if it does not exist.

    Raises:
        DataLossError: The registry names objects that are missing; all others are copied.
        InvalidFieldError: The copy would be in what is copied.
        UnavailableError: Registry or store cannot be read or written.
        WrongStateError: `target` holds a backup of another registry, or of a later state of this one, or is being
            written.
    """
    _require_apart((registry, *(store.root for store in stores.values())), target)
    copy = target / "registry"
    make_folder(copy)
    with _alone(copy):
        for name in _FILES:
            _require_successor(registry / name, copy / name)
        return _bring_up_to_date(registry, stores, target)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder: of two backups, one would put in place what the other has only begun."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WrongStateError("another backup is being made in the folder; wait for its end") from error
        yield
    finally:
        os.close(file)


def _bring_up_to_date(registry: Path, stores: Mapping[Part, LocalDirectoryStore], target: Path) -> int:
    """See `back_up`; the registry is copied to a folder of its own until all that it names is there."""
    copy, new = target / "registry", target / "registry" / ".new"
    make_folder(new)
    copies = {part: LocalDirectoryStore(target / part) for part in Part}
    count = 0
    # An object that the copied registry names may be deleted before it is copied; a later registry names it no more.
    missing: set[str] = set()
    for _ in range(_ROUNDS):
        before = missing
        for name in _FILES:
            _copy_database(registry / name, new / name)
        count += sum(_copy_objects(stores[part], copies[part]) for part in Part)
        missing = set(_missing(new, copies))
        if not missing or missing == before:
            break
    for name in reversed(_FILES):  # of two states of a registry, the models' part may be the later one
        for log in ("-wal", "-shm"):  # of a copy that was served
            (copy / f"{name}{log}").unlink(missing_ok=True)
        (new / name).replace(copy / name)
        sync_directory(copy)
    new.rmdir()
    if missing:
        raise DataLossError(
            f"the copy holds all but {len(missing)} objects, which are missing from the stores too:"
            f" {', '.join(sorted(missing))}"
        )
    return count


def _require_apart(sources: Iterable[Path], target: Path) -> None:
    """Refuse a copy that would replace what is copied, or be copied itself."""
    folders = [(target / name).resolve() for name in ("registry", *Part)]
    for source in (path.resolve() for path in sources):
        if any(folder.is_relative_to(source) or source.is_relative_to(folder) for folder in folders):
            raise InvalidFieldError("folder", f"{str(target)!r} is where services keep what is copied; choose another")


def _require_successor(source: Path, copy: Path) -> None:
    """Refuse to replace the copy of a file of the registry by that of another registry, or of an earlier state."""
    if not copy.exists() or (replaced := _identity(copy)) is None:
        return
    found = _identity(source)
    if found is None or found.uid != replaced.uid or found.generation < replaced.generation:
        raise WrongStateError(
            f"the folder holds a backup of the registry {replaced.uid}, generation {replaced.generation}, and"
            f" {source.name} is now of {'none' if found is None else f'{found.uid}, generation {found.generation}'}:"
            " keep that backup, and choose another folder"
        )


def _identity(file: Path) -> Identity | None:
    """Return the identity of a part of a registry; None where it has claimed no store, or is from before identities."""
    with _opened(file, "ro") as found:
        if not found.execute("SELECT 1 FROM sqlite_master WHERE name = 'registry_identity'").fetchone():
            return None
        row = found.execute("SELECT registry_uid, generation FROM registry_identity").fetchone()
    return None if row is None else Identity(*row)


@contextlib.contextmanager
def _opened(file: Path, mode: str) -> Iterator[sqlite3.Connection]:
    try:
        with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode={mode}", uri=True)) as found:
            yield found
    except sqlite3.Error as error:
        raise UnavailableError(f"{file}: {error}; is ROWMINT_HOME or ROWMINT_REGISTRY right?") from error


def _copy_database(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with _opened(source, "rw") as found, _opened(target, "rw") as copy:
        found.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
    with target.open("rb") as file:
        os.fsync(file.fileno())


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


def _missing(folder: Path, copies: dict[Part, LocalDirectoryStore]) -> Iterator[str]:
    registry = open_registry(f"sqlite:///{folder}", read_only=True)
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
