"""Local files that are there whole or not at all, whatever happens while they are written."""

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import mkstemp

COPY_BYTES = 1 << 20
"""Bytes held at once while an object is copied."""


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


def _temporary(target: Path, write: Callable[[int], None]) -> Path:
    """Return a new synced file beside `target`, written by `write`; nothing is left behind where that fails."""
    file, name = mkstemp(prefix=".part-", dir=target.parent)
    try:
        try:
            write(file)
            os.fsync(file)
        finally:
            os.close(file)
    except BaseException:
        Path(name).unlink()
        raise
    return Path(name)


def create(target: Path, write: Callable[[int], None]) -> bool:
    """Write `target` unless it exists by then; return whether it was written."""
    part = _temporary(target, write)
    try:
        # A link, unlike a rename, cannot replace what another process has put there meanwhile.
        os.link(part, target)
    except FileExistsError:
        return False
    finally:
        part.unlink()
    sync_directory(target.parent)
    return True


def replace(target: Path, write: Callable[[int], None]) -> None:
    """Write `target`, in place of what it held; where `write` fails it is left as it was."""
    _temporary(target, write).replace(target)
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
