"""A wall clock that is wrong, for a process and all that it starts."""

from pathlib import Path

# The class `datetime.datetime` stays as it is: pandas cannot be imported where it is another.
_SITECUSTOMIZE = '''\
"""Shifts this process's wall clock; Python imports it before anything else."""

import time

_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + {seconds}
time.time_ns = lambda: _time_ns() + {seconds} * 10**9
'''


def wrong_clock(folder: Path, hours: int) -> dict[str, str]:
    """Return the environment of a process whose wall clock is wrong by `hours`; `folder` is made."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE.format(seconds=hours * 3600))
    return {"PYTHONPATH": str(folder)}
