"""Kills, one after another at random moments: target and signal are drawn in rounds of all kinds in random order."""

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from sqlalchemy import select

from rowmint.registry.engine import reading
from rowmint.registry.job_rows import JobState
from rowmint.registry.tables import jobs
from tests.crash.storage import Inside
from tests.soak.supervisor import Kept, ProcessSupervisor, workers_of

KINDS = ("worker", "trainer", "sampler", "client")
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
_PATIENCE_SECONDS = 20.0
_GLANCE_SECONDS = 0.25
_ALONE = 0.75
"""Share of the kills before which everything that was killed runs again."""

T = TypeVar("T")


class Killer:
    """Kills, from a thread of its own, until it is stopped.

    Args:
        supervisor: Whose processes to kill; they are started again.
        inside: The registry: a job whose last attempt dies has failed, as it should, and is spared.
        draw: Random numbers.
        pause: Shortest and longest pause between two kills, seconds.

    Attributes:
        kills: How many were killed, by kind and signal.
    """

    def __init__(
        self, supervisor: ProcessSupervisor, inside: Inside, draw: random.Random, pause: tuple[float, float]
    ) -> None:
        self.kills: Counter[tuple[str, signal.Signals]] = Counter()
        self._supervisor = supervisor
        self._inside = inside
        self._draw = draw
        self._pause = pause
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="killer", daemon=True)

    def start(self) -> None:
        """Kill from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Kill no more; returns when nothing will be killed any more."""
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._kill_on()
        except Exception as error:  # noqa: BLE001 - whatever it was: without kills the soak shows little
            self._supervisor.wrong.append(f"no more was killed: {error!r}")

    def _kill_on(self) -> None:
        blows = _shuffled(self._draw, [(kind, number) for kind in KINDS for number in SIGNALS])
        turns = {kind: _shuffled(self._draw, self._supervisor.of(kind)) for kind in ("trainer", "sampler", "client")}
        while not self._done.wait(self._draw.uniform(*self._pause)):
            # Mostly one at a time, so that a slow machine gets anything done; now and then one more while one is down.
            if self._draw.random() < _ALONE:
                self._supervisor.wait_until_up(self._done)
            kind, number = next(blows)
            one = next(turns["trainer" if kind == "worker" else kind])
            end = time.monotonic() + _PATIENCE_SECONDS
            while not self._done.is_set() and time.monotonic() < end:
                if self._kill(kind, number, one):
                    self.kills[kind, number] += 1
                    break
                self._done.wait(0.1)

    def _kill(self, kind: str, number: signal.Signals, one: Kept) -> bool:
        """Kill, unless more would be lost than is promised to be kept; return whether it was done."""
        if kind in ("worker", "trainer") and self._last_attempt():
            return False
        # A client waits for a replica that is there; where there is none it says so.
        if kind == "sampler":
            if sum(other.may_be_killed for other in self._supervisor.of(kind)) < 2:
                return False
            busy = self._busiest_sampler()
            return busy is not None and self._supervisor.kill(busy, number)
        if one.name.startswith("reader") and not self._has_part(one):
            return False
        if kind != "worker":
            return self._supervisor.kill(one, number)
        workers = workers_of(one)
        return bool(workers) and self._supervisor.kill(one, number, workers[0])

    def _has_part(self, reader: Kept) -> bool:
        """Say whether a reader leaves a part of a stream that another can resume."""
        with contextlib.suppress(FileNotFoundError):
            found = (self._inside.home / "kept").glob(f"{reader.name}-*.progress")
            return any(file.stat().st_size for file in found)
        return False

    def _busiest_sampler(self) -> Kept | None:
        """Return the sampler that has just worked most: it has streams; None where none has worked."""
        up = [one for one in self._supervisor.of("sampler") if one.may_be_killed]
        with contextlib.suppress(FileNotFoundError):
            before = [_processor_seconds(one.pid) for one in up]
            self._done.wait(_GLANCE_SECONDS)
            worked = [_processor_seconds(one.pid) - used for one, used in zip(up, before, strict=True)]
            if max(worked) > _GLANCE_SECONDS / 10:
                return up[worked.index(max(worked))]
        return None

    def _last_attempt(self) -> bool:
        at_work = select(jobs.c.uid).where(
            jobs.c.state.in_([JobState.RUNNING, JobState.CANCELLING]), jobs.c.attempt >= jobs.c.max_attempts
        )
        with reading(self._inside.registry.engine) as connection:
            return connection.execute(at_work).first() is not None


def _processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used, in user mode and in the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _shuffled(draw: random.Random, items: Sequence[T]) -> Iterator[T]:
    """Yield each of some items in a random order, then all again in another."""
    while True:
        yield from draw.sample(items, len(items))
