"""Atomic and durable writing of local files, which their owner can read, and a group where one is named.

What the umask is makes no difference.
"""

import fcntl
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkstemp

COPY_BYTES = 1 << 20
"""Chunk size for copying, bytes."""
_PART = ".part-"
# What `mkstemp` makes of the prefix; a file of another name is not ours.
_PART_NAME = re.compile(re.escape(_PART) + r"[a-z0-9_]{8}")


@dataclass(frozen=True)
class FileAccess:
    """Who may read files and folders beside their owner, who alone may write them.

    Attributes:
        group: Id of a group that may read; None: no other user may.
    """

    group: int | None = None

    @property
    def file_mode(self) -> int:
        """Permissions of a file."""
        return 0o600 if self.group is None else 0o640

    @property
    def folder_mode(self) -> int:
        """Permissions of a folder; a group's is inherited by what others than this code make in it."""
        return 0o700 if self.group is None else 0o2750

    def apply(self, path: int | Path, mode: int) -> None:
        """Give a file or folder, by path or descriptor, the group and `mode`; what is right already stays untouched.

        Raises:
            OSError: It is not this process' own, or the process is not in the group.
        """
        found = os.stat(path)  # noqa: PTH116 - a path or a descriptor
        if self.group is not None and found.st_gid != self.group:
            os.chown(path, -1, self.group)
            found = os.stat(path)  # noqa: PTH116 - as above
        if stat.S_IMODE(found.st_mode) != mode:
            os.chmod(path, mode)  # noqa: PTH101 - as above


PRIVATE = FileAccess()
"""The owner alone."""


def private_opener(path: str, flags: int) -> int:
    """Open a file that only its owner can read: an opener for `open`."""
    file = os.open(path, flags, PRIVATE.file_mode)
    PRIVATE.apply(file, PRIVATE.file_mode)
    return file


def make_folder(path: Path, access: FileAccess = PRIVATE) -> None:
    """Make a folder and those above it where they are missing, each durably; one that is there stays as it is.

    Raises:
        OSError: It cannot be made.
    """
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        with suppress(FileExistsError):
            folder.mkdir(access.folder_mode & 0o777)
            access.apply(folder, access.folder_mode)
        sync_directory(folder.parent)


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
def _temporary(target: Path, write: Callable[[int], None], access: FileAccess) -> Iterator[Path]:
    """Yield a new synced file beside `target`, written by `write`; it is removed at the end unless it was renamed."""
    file, part = _locked_file(target.parent)
    try:
        access.apply(file, access.file_mode)
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
            if _PART_NAME.fullmatch(name):
                found += _remove_unlocked(Path(directory, name))
    return found


def _remove_unlocked(part: Path) -> bool:
    with suppress(BlockingIOError, FileNotFoundError):
        if not stat.S_ISREG(part.lstat().st_mode):
            return False
        with part.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()
        return True
    return False


def create(target: Path, write: Callable[[int], None], access: FileAccess = PRIVATE) -> bool:
    """Write `target` unless it already exists; return whether it was written."""
    with _temporary(target, write, access) as part:
        try:
            # Unlike a rename, a link cannot replace a file that another process has created meanwhile.
            os.link(part, target)
        except FileExistsError:
            return False
    sync_directory(target.parent)
    return True


def replace(target: Path, write: Callable[[int], None]) -> None:
    """Replace `target` atomically; if `write` fails, it is left unchanged."""
    with _temporary(target, write, PRIVATE) as part:
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
