"""Atomic and durable writing of local files."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkstemp

COPY_BYTES = 1 << 20
"""Chunk size for copying, bytes."""
_PART = ".part-"


def write_all(file: int, data: bytes | memoryview) -> None:
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
    """Make changes of a directory's entries durable."""
    file = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextmanager
def _temporary(target: Path, write: Callable[[int], None]) -> Iterator[Path]:
    """Yield a new synced file beside `target`, written by `write`; it is removed at the end unless it was renamed."""
    file, part = _locked_file(target.parent)
    try:
        write(file)
        os.fsync(file)
        yield part
    finally:
        part.unlink(missing_ok=True)
        os.close(file)


def _locked_file(folder: Path) -> tuple[int, Path]:
    """Create a file that is locked while it is open; without the lock, it is a leftover of a process that died."""
    while True:
        file, name = mkstemp(prefix=_PART, dir=folder)
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file).st_nlink:
            return file, Path(name)
        os.close(file)  # another process removed it before it was locked


def remove_abandoned(root: Path) -> int:
    """Remove temporary files left by processes that died; return their number.

    Other processes may write and remove files concurrently.
    """
    found = 0
    for directory, _, names in os.walk(root):
        for name in names:
            if name.startswith(_PART):
                found += _remove_unlocked(Path(directory, name))
    return found


def _remove_unlocked(part: Path) -> bool:
    with suppress(BlockingIOError, FileNotFoundError), part.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        part.unlink()
        return True
    return False


def create(target: Path, write: Callable[[int], None]) -> bool:
    """Write `target` unless it already exists; return whether it was written."""
    with _temporary(target, write) as part:
        try:
            # Unlike a rename, a link cannot replace a file that another process has created meanwhile.
            os.link(part, target)
        except FileExistsError:
            return False
    sync_directory(target.parent)
    return True


def replace(target: Path, write: Callable[[int], None]) -> None:
    """Replace `target` atomically; if `write` fails, it is left unchanged."""
    with _temporary(target, write) as part:
        part.replace(target)
    sync_directory(target.parent)


def same_files(left: Path, right: Path) -> bool:
    """Return whether two files have the same contents."""
    if left.stat().st_size != right.stat().st_size:
        return False
    with left.open("rb") as one, right.open("rb") as other:
        while chunk := one.read(COPY_BYTES):
            if chunk != other.read(COPY_BYTES):
                return False
    return True
