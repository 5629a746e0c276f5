"""Scratch: folders of temporary files, one a job, that no crash leaves behind for good.

A trainer has a folder of its own, locked for as long as its process lives. Whatever it finds unlocked beside it when it
starts was left by one that was killed, rows of data among it, and is removed.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_LOCK = ".lock"


class Scratch:
    """A trainer's folder of scratch folders. Thread-safe.

    Args:
        root: Folder that the trainers of one home share; made if it does not exist.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        # Held while folders are made and removed: a folder just made must not be taken for one left behind.
        with (root / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _remove_abandoned(root)
            self._folder = Path(tempfile.mkdtemp(prefix="trainer-", dir=root))
            self._lock = os.open(self._folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def make(self) -> Path:
        """Return a new empty folder."""
        return Path(tempfile.mkdtemp(prefix="job-", dir=self._folder))

    @staticmethod
    def remove(folder: Path) -> None:
        """Remove a folder that `make` gave, with all that is in it."""
        shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Remove everything."""
        self.remove(self._folder)
        os.close(self._lock)


def _remove_abandoned(root: Path) -> None:
    for folder in root.iterdir():
        if not folder.is_dir():
            continue
        with contextlib.suppress(BlockingIOError, FileNotFoundError), (folder / _LOCK).open("a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
