"""What Linux tells of a process: its own memory, and the processor's time it took."""

import os
import re
import time
from pathlib import Path

from tests.acceptance.processes import wait_until

_TICK = os.sysconf("SC_CLK_TCK")


def anonymous_bytes(pid: int) -> int:
    """Return the resident bytes that are the process's own: no file lies behind them."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^RssAnon:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None, status
    return int(found[1]) * 1024


def processor_seconds(pid: int) -> float:
    """Return the processor's time that the process has used, in user and kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def wait_until_idle(pid: int, what: str, seconds: float = 60.0) -> None:
    """Wait until a process has worked for less than a twentieth of a second of half a second."""
    began, used = time.monotonic(), processor_seconds(pid)

    def idle() -> bool:
        nonlocal began, used
        if time.monotonic() - began < 0.5:
            return False
        before, (began, used) = used, (time.monotonic(), processor_seconds(pid))
        return used - before <= 0.05

    wait_until(idle, what, seconds)
