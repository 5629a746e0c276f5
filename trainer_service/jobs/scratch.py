"""Scratch: a worker's folder of temporary files, which no crash leaves behind for good.

A worker makes its own folder and holds a lock on it for as long as its process lives. A folder that is not locked was
left by a worker that was killed, rows of data among it, and is removed: by the trainer that finds its worker dead, by
each worker that starts on the same machine, and by a trainer that starts there.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from rowmint.objects.files import make_folder, private_opener

_LOCK = ".lock"
_PREFIX = "worker-"


class ScratchFolder:
    """A folder for the files of one command; as a context, it is removed at the end.

    Attributes:
        path: The folder; empty at first but for its lock.

    Args:
        root: Folder that the workers of a machine share; made if it does not exist.
    """

    def __init__(self, root: Path) -> None:
        with _root(root):
            _remove_unlocked(root)
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
            self._lock = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove it, with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def remove_abandoned(root: Path) -> None:
    """Remove the folders below `root` that dead workers have left; those of living ones stay."""
    with _root(root):
        _remove_unlocked(root)


@contextlib.contextmanager
def _root(root: Path) -> Iterator[None]:
    """Hold the root's lock: a folder just made must not be taken for one left behind."""
    make_folder(root)
    with open(root / _LOCK, "a", opener=private_opener) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove_unlocked(root: Path) -> None:
    # Nothing else below the root is ours: a home may be set to a folder that has a `scratch` of its own.
    for folder in root.glob(f"{_PREFIX}*"):
        if folder.is_symlink() or not folder.is_dir():
            continue
        if not (folder / _LOCK).exists():
            # A worker that was killed before it had its lock has written nothing.
            with contextlib.suppress(OSError):
                folder.rmdir()
            continue
        with contextlib.suppress(BlockingIOError, FileNotFoundError), (folder / _LOCK).open("a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
