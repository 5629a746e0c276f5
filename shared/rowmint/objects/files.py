"""Local files that are there whole or not at all, whatever happens while they are written."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkstemp

COPY_BYTES = 1 << 20
"""Bytes held at once while an object is copied."""
_PART = ".part-"


def write_all(file: int, data: bytes) -> None:
    """Write all of `data` to an open file descriptor."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def copy_file(source: Path, file: int) -> None:
    """Write all of the file `source` to an open file descriptor."""
    with source.open("rb") as stored:
        while chunk := stored.read(COPY_BYTES):
            write_all(file, chunk)


def sync_directory(path: Path) -> None:
    """Make the names of a directory's files survive a crash."""
    file = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextmanager
def _temporary(target: Path, write: Callable[[int], None]) -> Iterator[Path]:
    """Yield a new synced file beside `target`, written by `write`; it is gone afterwards unless it was renamed."""
    file, part = _held(target.parent)
    try:
        write(file)
        os.fsync(file)
        yield part
    finally:
        part.unlink(missing_ok=True)
        os.close(file)


def _held(folder: Path) -> tuple[int, Path]:
    """Return a new file, open, and locked for as long as it is: what nobody holds was left by one who died."""
    while True:
        file, name = mkstemp(prefix=_PART, dir=folder)
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file).st_nlink:
            return file, Path(name)
        os.close(file)  # removed before it was locked


def remove_abandoned(root: Path) -> int:
    """Remove files that processes which have died left half-written; return how many.

    Any number of processes may write meanwhile, and remove, too.
    """
    found = 0
    for directory, _, names in os.walk(root):
        for name in names:
            if name.startswith(_PART):
                found += _remove_unheld(Path(directory, name))
    return found


def _remove_unheld(part: Path) -> bool:
    with suppress(BlockingIOError, FileNotFoundError), part.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        part.unlink()
        return True
    return False


def create(target: Path, write: Callable[[int], None]) -> bool:
    """Write `target` unless it exists by then; return whether it was written."""
    with _temporary(target, write) as part:
        try:
            # A link, unlike a rename, cannot replace what another process has put there meanwhile.
            os.link(part, target)
        except FileExistsError:
            return False
    sync_directory(target.parent)
    return True


def replace(target: Path, write: Callable[[int], None]) -> None:
    """Write `target`, in place of what it held; where `write` fails it is left as it was."""
    with _temporary(target, write) as part:
        part.replace(target)
    sync_directory(target.parent)


def same_files(left: Path, right: Path) -> bool:
    """Say whether two files hold the same bytes."""
    if left.stat().st_size != right.stat().st_size:
        return False
    with left.open("rb") as one, right.open("rb") as other:
        while chunk := one.read(COPY_BYTES):
            if chunk != other.read(COPY_BYTES):
                return False
    return True
