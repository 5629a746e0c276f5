"""What a disk holds after power was lost: only what was synced is certain.

A file's bytes are safe up to its last sync. A name, given or taken, is safe once its directory was synced after it; a
directory is a name in its parent. Everything later may have reached the disk or not, each piece by itself.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.durability.recorder import (
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

Luck = Callable[[], bool]
"""Says of one thing that was not synced whether it has reached the disk."""

DIRECTORY = 0
"""Stands for a directory where else a file's number stands."""


def nothing() -> bool:
    """No thing has."""
    return False


def everything() -> bool:
    """Each thing has."""
    return True


def chance(seed: int) -> Luck:
    """Each thing has or has not, by a fair coin."""
    random = Random(seed)
    return lambda: random.random() < 0.5


@dataclass
class _File:
    data: bytes = b""
    synced: bytes = b""


@dataclass
class _Directory:
    # What each change makes of names: a file's number, DIRECTORY, or None for a name that is gone.
    names: dict[str, int] = field(default_factory=dict)
    synced: dict[str, int] = field(default_factory=dict)
    pending: list[dict[str, int | None]] = field(default_factory=list)

    def change(self, **names: int | None) -> None:
        self.pending.append(names)
        _apply(self.names, names)

    def sync(self) -> None:
        self.synced, self.pending = dict(self.names), []


def _apply(names: dict[str, int], change: dict[str, int | None]) -> None:
    for name, file in change.items():
        if file is None:
            names.pop(name, None)
        else:
            names[name] = file


class Disk:
    """A folder's files as a trace of events leaves them, on the disk and in the memory of the machine before it.

    Args:
        trace: The events; what is no change of files is passed over.
    """

    def __init__(self, trace: Iterable[Event] = ()) -> None:
        self._files: dict[int, _File] = {}
        self._directories: dict[Path, _Directory] = {Path(): _Directory()}
        for event in trace:
            self.apply(event)

    def apply(self, event: Event) -> None:
        """Carry out one more event."""
        match event:
            case MadeDirectory(path):
                self._parent(path).change(**{path.name: DIRECTORY})
                self._directories[path] = _Directory()
            case Created(file, path):
                self._files[file] = _File()
                self._parent(path).change(**{path.name: file})
            case Wrote(file, data):
                self._files[file].data += data
            case SyncedFile(file):
                self._files[file].synced = self._files[file].data
            case SyncedDirectory(path):
                self._directories[path].sync()
            case Linked(source, path):
                self._parent(path).change(**{path.name: self._parent(source).names[source.name]})
            case Renamed(source, path):
                assert source.parent == path.parent, "a file that moves to another directory is not modelled"
                self._parent(path).change(**{path.name: self._parent(source).names[source.name], source.name: None})
            case Unlinked(path):
                self._parent(path).change(**{path.name: None})

    def _parent(self, path: Path) -> _Directory:
        return self._directories[path.parent]

    def after_power_loss(self, luck: Luck) -> dict[Path, bytes]:
        """Return the files there are once the machine has started again; without hidden ones, which are never read."""
        contents: dict[int, bytes] = {}
        for number, file in self._files.items():
            lost = file.data[len(file.synced) :]
            # Of bytes that were not synced any part may be there; half of them stands for that.
            kept = len(lost) if luck() else (len(lost) // 2 if luck() else 0)
            contents[number] = file.synced + lost[:kept]
        found: dict[Path, bytes] = {}
        waiting = [Path()]
        while waiting:
            directory = waiting.pop()
            entry = self._directories[directory]
            names = dict(entry.synced)
            for change in entry.pending:
                if luck():
                    _apply(names, change)
            for name, file in names.items():
                if file == DIRECTORY:
                    waiting.append(directory / name)
                elif not name.startswith("."):
                    found[directory / name] = contents[file]
        return found

    def without_loss(self) -> dict[Path, bytes]:
        """Return the files there are while the machine is up, hidden ones included."""
        return {
            path / name: self._files[file].data
            for path, directory in self._directories.items()
            for name, file in directory.names.items()
            if file != DIRECTORY
        }


def read_files(root: Path) -> dict[Path, bytes]:
    """Return the files that are really in a folder, by their paths in it."""
    return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def write_files(files: dict[Path, bytes], root: Path) -> None:
    """Write what `Disk.after_power_loss` returned into a folder."""
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
