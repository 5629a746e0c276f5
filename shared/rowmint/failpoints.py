"""Named places where a process can be told to die: what happens there is what its tests are about.

A service that is told nothing passes them by at the price of one comparison. What is told, `arm` says.
"""

import os
import signal
import threading
from collections import Counter
from pathlib import Path

from rowmint.errors import InvalidFieldError

FAILPOINTS = frozenset(
    {
        "upload.segment.stored",
        "upload.segment.committed",
        "upload.finished",
        "ingest.types.joined",
        "ingest.table.stored",
        "ingest.ready",
        "encode.began",
        "encode.ended",
        "fit.step",
        "fit.epoch",
        "checkpoint.stored",
        "checkpoint.committed",
        "publish.weights.stored",
        "publish.manifest.stored",
        "publish.committed",
        "alias.moved",
        "delete.committed",
        "sweep.object.deleted",
        "sweep.forgotten",
    }
)
"""Every name there is; each is reached in one place of the code."""


class _Armed:
    """One place at which this process dies, once among all processes that are told the same."""

    def __init__(self, name: str, hit: int, folder: Path) -> None:
        self._name = name
        self._hit = hit
        self._marker = folder / f"{name}@{hit}"
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def reach(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1
            if name != self._name or self._counts[name] != self._hit:
                return
        try:
            self._marker.touch(exist_ok=False)
        except FileExistsError:  # another process has died here before
            return
        os.kill(os.getpid(), signal.SIGKILL)


_armed: _Armed | None = None


def arm(told: str) -> None:
    """Let this process die at a place, as by ``kill -9``.

    Args:
        told: ``name@hit:folder``: die when `name` is reached for the hit-th time, from 1, in one process, and leave the
            file ``name@hit`` in `folder`, which must exist; where that is there already, nothing happens. Empty:
            nowhere.

    Raises:
        InvalidFieldError: It is malformed, or there is no such place.
    """
    global _armed  # noqa: PLW0603 - the places are all over the code, and a process has but one life
    if not told:
        _armed = None
        return
    place, _, folder = told.partition(":")
    name, _, hit = place.partition("@")
    if name not in FAILPOINTS or not hit.isdigit() or not int(hit) or not Path(folder).is_dir():
        raise InvalidFieldError(
            "failpoint", f"{told!r} must be name@hit:folder; names are {', '.join(sorted(FAILPOINTS))}"
        )
    _armed = _Armed(name, int(hit), Path(folder))


def reach(name: str) -> None:
    """Note that `name`, one of `FAILPOINTS`, is reached; the process may not survive it."""
    if _armed is not None:
        _armed.reach(name)
