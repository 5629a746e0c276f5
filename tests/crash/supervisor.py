"""Keeps a trainer alive: starts it again at the same address whenever it has died, with the next place to die at."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.acceptance.processes import children_of, free_port, kill_all
from tests.waiting import PATIENCE, wait_until

_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Kill:
    """One kill.

    Attributes:
        place: A name of `rowmint.failpoints.FAILPOINTS`.
        hit: At which of its passings in one process, from 1.
        section: The scenario's section from which on the place is armed; empty: once the kills before have happened.
    """

    place: str
    hit: int = 1
    section: str = ""

    def __str__(self) -> str:
        return f"{self.place}@{self.hit}"


@dataclass(frozen=True)
class Death:
    """What a kill came to.

    Attributes:
        kill: The kill.
        died: What died: ``trainer`` with its workers, ``worker``, or ``worker, trainer``; empty while nothing has.
        seconds: Seconds from its arming to the death.
    """

    kill: Kill
    died: str = ""
    seconds: float = 0.0


class Supervisor:
    """One trainer, started again whenever it has died; it dies at the places of `kills`, one after another.

    Used by one thread. The places of `kills` are armed in turn: the next one once the last has happened and the
    scenario has come to its section. A worker that dies takes its trainer with it where another kill waits to be armed;
    otherwise the trainer lives on and has to do with it.

    Args:
        home: Folder for the log and the markers.
        environment: Settings of the trainer beside its address and the place to die at.
        kills: Places to die at, in the order of the scenario.
    """

    def __init__(self, home: Path, environment: Mapping[str, str], kills: Sequence[Kill] = ()) -> None:
        self.port = free_port()
        self.deaths = [Death(kill) for kill in kills]
        self.starts = 0
        self.failures: list[str] = []
        self.log = home / "trainer.log"
        self.over = threading.Event()
        """Set when the scenario is over: other threads must not kill the trainer any more."""
        self._home = home
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._next = 0
        self._armed = False
        self._armed_at = 0.0
        self._sections: set[str] = {""}
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the trainer, and keep it alive from then on."""
        with self._lock:
            self._start()
        self._thread.start()

    def section(self, name: str) -> None:
        """Note that the scenario has come to a section; the trainer is killed where a kill has waited for it."""
        with self._lock:
            self._sections.add(name)
            if not self._armed and self._due():
                self._kill()

    def kill(self) -> None:
        """Kill the trainer and its workers as they are; they are started again."""
        with self._lock:
            self._kill()

    def close(self) -> None:
        """End the trainer for good, in good order where it responds."""
        self.over.set()
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._kill()

    def _marker(self) -> Path:
        """Return what the place that is armed leaves behind: a folder for each kill, as one may be listed twice."""
        return self._folder() / str(self.deaths[self._next].kill)

    def _folder(self) -> Path:
        return self._home / "markers" / str(self._next)

    def _due(self) -> bool:
        return self._next < len(self.deaths) and self.deaths[self._next].kill.section in self._sections

    def _start(self) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ROWMINT_")}
        settings = {**self._environment, "ROWMINT_LISTEN": self.address}
        if self._due():
            self._folder().mkdir(parents=True, exist_ok=True)
            settings["ROWMINT_FAILPOINT"] = f"{self.deaths[self._next].kill}:{self._folder()}"
            self._armed, self._armed_at = True, time.monotonic()
        self.starts += 1
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "trainer_service"],
                env={**clean, **settings},
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._home,
            )

    def _watch(self) -> None:
        while not self._done.wait(_POLL_SECONDS):
            with self._lock:
                self._look()

    def _look(self) -> None:
        """Note what has died, and start the trainer where it has."""
        assert self._process is not None
        code = self._process.poll()
        if self._armed and self._marker().exists():
            # Who left the marker is about to die: whether that is the trainer shows at once.
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(0.25)
            died = "worker" if code is None else "trainer"
            seconds, number = time.monotonic() - self._armed_at, self._next
            self._next += 1
            self._armed = False
            if code is None and self._due():
                self._kill()
                code, died = self._process.returncode, "worker, trainer"
            self.deaths[number] = replace(self.deaths[number], died=died, seconds=seconds)
        if code is None:
            return
        if code != -signal.SIGKILL:
            self.failures.append(f"the trainer ended by itself with exit code {code}; see {self.log}")
        self._start()

    def _kill(self) -> None:
        assert self._process is not None
        workers = children_of(self._process.pid)
        self._process.kill()
        self._process.wait()
        kill_all(workers)
        wait_until(lambda: not any(map(_runs, workers)), "the workers' end")


def _runs(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
