"""A wall clock that is wrong, for a process and all that it starts."""

from pathlib import Path

_SITECUSTOMIZE = '''\
"""Shifts this process's wall clock; Python imports it before anything else."""

import datetime
import time

_SHIFT = {seconds}
_time, _time_ns, _datetime = time.time, time.time_ns, datetime.datetime
time.time = lambda: _time() + _SHIFT
time.time_ns = lambda: _time_ns() + _SHIFT * 10**9


class datetime_class(_datetime):
    @classmethod
    def now(cls, tz=None):
        return _datetime.now(tz) + datetime.timedelta(seconds=_SHIFT)

    @classmethod
    def utcnow(cls):
        return _datetime.now(datetime.timezone.utc).replace(tzinfo=None) + datetime.timedelta(seconds=_SHIFT)


datetime_class.__name__ = datetime_class.__qualname__ = "datetime"
datetime.datetime = datetime_class
'''


def wrong_clock(folder: Path, hours: int) -> dict[str, str]:
    """Return the environment of a process whose wall clock is wrong by `hours`; `folder` is made."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE.format(seconds=hours * 3600))
    return {"PYTHONPATH": str(folder)}
