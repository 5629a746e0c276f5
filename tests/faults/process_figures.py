"""What Linux says of a process: its own memory, and whether any of its threads has something to do."""

import contextlib
import re
from pathlib import Path

from tests.waiting import PATIENCE, wait_until

_LOOKS = 25
"""Looks in a row at which every thread must be asleep: between two hands a task may be in neither."""
_ASLEEP = frozenset("SI")


def anonymous_bytes(pid: int) -> int:
    """Return the resident bytes that are the process's own: no file lies behind them."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^RssAnon:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None, status
    return int(found[1]) * 1024


def wait_until_idle(pid: int, what: str, seconds: float = PATIENCE) -> None:
    """Wait until every thread of a process waits for something.

    The kernel says so: a thread that could run and gets no processor, as on a busy machine, is not asleep.
    """
    looks = 0

    def idle() -> bool:
        nonlocal looks
        looks = looks + 1 if _states(pid) <= _ASLEEP else 0
        return looks >= _LOOKS

    wait_until(idle, what, seconds)


def _states(pid: int) -> set[str]:
    """Return the states that the threads of a process are in, as `man 5 proc` has them."""
    found = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            found.add((task / "stat").read_text().rpartition(")")[2].split()[0])
    return found
