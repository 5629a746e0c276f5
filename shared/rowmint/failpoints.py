"""Failpoints: named places in the code at which tests can kill the process.

A failpoint that is not armed costs one comparison. `arm` defines the syntax of the setting.
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
        "ingest.verified",
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
        "mark.written",
        "sweep.object.aside",
        "sweep.object.deleted",
        "sweep.forgotten",
    }
)
"""All names; each is reached at one place in the code."""


class _ArmedFailpoint:
    """A failpoint at which this process is killed, once among all processes with the same setting."""

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
        except FileExistsError:  # another process was killed here before
            return
        os.kill(os.getpid(), signal.SIGKILL)


_armed: _ArmedFailpoint | None = None


def arm(setting: str) -> None:
    """Arm a failpoint, at which this process is killed with SIGKILL.

    Args:
        setting: ``name@hit:folder``: when `name` is reached for the hit-th time, from 1, in this process, create the
            file ``name@hit`` in `folder`, which must exist, and kill the process; do nothing if the file already
            exists. Empty: disarm.

    Raises:
        InvalidFieldError: It is malformed, or there is no such failpoint.
    """
    global _armed  # noqa: PLW0603 - failpoints are all over the code, and apply to the whole process
    if not setting:
        _armed = None
        return
    place, _, folder = setting.partition(":")
    name, _, hit = place.partition("@")
    if name not in FAILPOINTS or not hit.isdigit() or not int(hit) or not Path(folder).is_dir():
        raise InvalidFieldError(
            "failpoint", f"{setting!r} must be name@hit:folder; names are {', '.join(sorted(FAILPOINTS))}"
        )
    _armed = _ArmedFailpoint(name, int(hit), Path(folder))


def reach(name: str) -> None:
    """Mark the failpoint `name`, one of `FAILPOINTS`, as reached; does not return if it is armed and due."""
    if _armed is not None:
        _armed.reach(name)
