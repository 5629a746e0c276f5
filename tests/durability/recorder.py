"""What a process does to a folder's files and to a registry, in order.

The calls are watched in the module `os`, which is where `pathlib` and `tempfile` make them. A write that went another
way shows where the files that the trace describes (`tests.durability.disk`) are compared with those that are there.
"""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest
from sqlalchemy import Connection, event

from rowmint.registry import Registry
from rowmint.registry.tables import DATA, MODELS

DATABASES = {MODELS: "models.db", DATA: "data.db"}
"""The registry's files, in the order in which a transaction over both commits them."""


@dataclass(frozen=True)
class MadeDirectory:
    path: Path


@dataclass(frozen=True)
class Created:
    """A new, empty file: its number, and its first name."""

    file: int
    path: Path


@dataclass(frozen=True)
class Wrote:
    """Bytes at the end of a file."""

    file: int
    data: bytes


@dataclass(frozen=True)
class SyncedFile:
    file: int


@dataclass(frozen=True)
class SyncedDirectory:
    path: Path


@dataclass(frozen=True)
class Linked:
    source: Path
    path: Path


@dataclass(frozen=True)
class Renamed:
    source: Path
    path: Path


@dataclass(frozen=True)
class Unlinked:
    path: Path


@dataclass(frozen=True)
class Committed:
    """A transaction that wrote: a folder with both of the registry's files as they are after it."""

    snapshot: Path


@dataclass(frozen=True)
class Reported:
    """What the caller of a service has requested, or has been answered."""

    what: str
    value: Any = None


Event = (
    MadeDirectory | Created | Wrote | SyncedFile | SyncedDirectory | Linked | Renamed | Unlinked | Committed | Reported
)


class KilledError(BaseException):
    """Raised out of every call of a killed process: no `except Exception` of the product's catches it."""


class Recorder:
    """Records, while it is entered, what this process does below a folder; paths in the trace are relative to it.

    Args:
        root: The folder; exists. What is in it already counts as safe.
        kill_after: The process counts as killed once it has done so many things: every further call fails.
    """

    def __init__(self, root: Path, *, kill_after: int | None = None) -> None:
        self.root = root
        self.trace: list[Event] = []
        self._kill_after = kill_after
        self._patch = pytest.MonkeyPatch()
        self._real: dict[str, Callable[..., Any]] = {}
        self._files = 0
        self._opened: dict[int, int | Path | None] = {}
        self._writing = False
        self._detach: list[Callable[[], None]] = []

    def __enter__(self) -> Self:
        watched = {
            "open": self._open,
            "close": self._close,
            "write": self._write,
            "fsync": self._sync,
            "fdatasync": self._sync,
            "mkdir": self._make_directory,
            "link": self._link,
            "rename": self._rename,
            "replace": self._rename,
            "unlink": self._unlink,
            "remove": self._unlink,
        }
        for name, watching in watched.items():
            self._real[name] = getattr(os, name)
            self._patch.setattr(os, name, watching)
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()
        for detach in self._detach:
            detach()
        # Only a killed process has left any.
        for descriptor in self._opened:
            self._real["close"](descriptor)

    def report(self, what: str, value: Any = None) -> None:
        """Note what was requested or answered."""
        self.trace.append(Reported(what, value))

    def watch(self, registry: Registry, folder: Path, snapshots: Path) -> None:
        """Record the commits of a registry on SQLite, until this recorder is left.

        Args:
            registry: The registry.
            folder: Where its files are.
            snapshots: Where copies of them go.
        """
        dialect = registry.engine.dialect
        commit = dialect.do_commit

        def committing(connection: Connection) -> None:
            self._writing = bool(connection.get_execution_options().get("rowmint_write"))

        def do_commit(connection: Any) -> None:
            commit(connection)
            # SQLAlchemy's own event comes before the commit; what is safe is safe only after it.
            if self._writing:
                snapshot = snapshots / f"{len(self.trace):05d}"
                copy_databases(folder, snapshot)
                self.trace.append(Committed(snapshot))

        event.listen(registry.engine, "commit", committing)
        self._patch.setattr(dialect, "do_commit", do_commit)
        self._detach.append(lambda: event.remove(registry.engine, "commit", committing))

    def restart(self) -> None:
        """Let another process take the place of the one that was killed; the machine stays up."""
        self._kill_after = None
        for descriptor in list(self._opened):
            self._close(descriptor)

    def _inside(self, path: Any) -> Path | None:
        """Return a path relative to the root, or None for one elsewhere; a killed process gets no answer."""
        if self._kill_after is not None and len(self.trace) >= self._kill_after:
            raise KilledError
        found = Path(os.path.abspath(os.fsdecode(path)))  # noqa: PTH100 - links are not to be followed
        return found.relative_to(self.root) if found.is_relative_to(self.root) else None

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        inside = None if dir_fd is not None else self._inside(path)
        descriptor: int = self._real["open"](path, flags, mode, dir_fd=dir_fd)
        if inside is None:
            return descriptor
        if (self.root / inside).is_dir():
            self._opened[descriptor] = inside
        elif flags & os.O_CREAT:
            assert flags & os.O_EXCL, f"{inside} is opened in a way that this recorder does not know"
            self._files += 1
            self._opened[descriptor] = self._files
            self.trace.append(Created(self._files, inside))
        else:
            assert not flags & (os.O_WRONLY | os.O_RDWR), f"{inside} is changed in place"
            self._opened[descriptor] = None
        return descriptor

    def _close(self, descriptor: int) -> None:
        if descriptor in self._opened:
            self._inside(self.root)
            del self._opened[descriptor]
        self._real["close"](descriptor)

    def _write(self, descriptor: int, data: bytes) -> int:
        file = self._opened.get(descriptor)
        if not isinstance(file, int):
            return int(self._real["write"](descriptor, data))
        self._inside(self.root)
        written = int(self._real["write"](descriptor, data))
        self.trace.append(Wrote(file, bytes(data[:written])))
        return written

    def _sync(self, descriptor: int) -> None:
        # Recorded rather than done: the disk that loses power is the trace's.
        what = self._opened.get(descriptor)
        if what is None:
            return
        self._inside(self.root)
        self.trace.append(SyncedFile(what) if isinstance(what, int) else SyncedDirectory(what))

    def _make_directory(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        inside = self._inside(path)
        self._real["mkdir"](path, mode, dir_fd=dir_fd)
        if inside is not None:
            self.trace.append(MadeDirectory(inside))

    def _link(self, source: Any, path: Any, **more: Any) -> None:
        name, inside = self._inside(source), self._inside(path)
        self._real["link"](source, path, **more)
        if name is not None and inside is not None:
            self.trace.append(Linked(name, inside))

    def _rename(self, source: Any, path: Any, **more: Any) -> None:
        name, inside = self._inside(source), self._inside(path)
        self._real["rename"](source, path, **more)
        if name is not None and inside is not None:
            self.trace.append(Renamed(name, inside))

    def _unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        inside = None if dir_fd is not None else self._inside(path)
        self._real["unlink"](path, dir_fd=dir_fd)
        if inside is not None:
            self.trace.append(Unlinked(inside))


def copy_databases(folder: Path, target: Path) -> None:
    """Copy the committed state of a registry on SQLite into a new folder."""
    target.mkdir(parents=True)
    for name in DATABASES.values():
        with (
            closing(sqlite3.connect(f"file:{folder / name}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(target / name)) as copy,
        ):
            copy.execute("PRAGMA synchronous = OFF")
            source.backup(copy)
