"""Hostile bytes are read in a process of its own, with little memory: what goes wrong there is seen, and ends there.

A case is a function without arguments that raises where something is not as it must be. The child runs cases by module
and name, and answers each with what was raised and how much memory reading took at most.
"""

import ctypes
import gc
import importlib
import json
import os
import resource
import select
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]
MEMORY = 300 << 20
"""Bytes that a case may take beyond what is held when it begins."""
SECONDS = 60.0
_NOTE_BYTES = 4096

Cases = Mapping[str, Callable[[], None]]


@dataclass(frozen=True)
class Report:
    """How a case went.

    Attributes:
        failure: What was raised, as a traceback; or how the process ended; empty where all was as it must be.
        growth: Bytes that reading took at most, beside what was there before.
    """

    failure: str
    growth: int


class Growth:
    """The largest growth of this process's memory while something was `measured`."""

    def __init__(self) -> None:
        self.largest = 0

    @contextmanager
    def measured(self) -> Iterator[None]:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins again
        before = _status("VmRSS")
        try:
            yield
        finally:
            self.largest = max(self.largest, _status("VmHWM") - before)


GROWTH = Growth()


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    return _status("VmRSS")


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) << 10
    raise KeyError(name)


def note(text: str) -> None:
    """Write down what is about to be read: all that is left of it should the process die."""
    os.pwrite(int(os.environ["HOSTILE_NOTE"]), text[:_NOTE_BYTES].ljust(_NOTE_BYTES).encode(), 0)


class Confined:
    """Runs cases of one module in a child, and in a new one after a child has crashed.

    Args:
        module: Name of the module whose `CASES` they are.
        folder: A folder of its own.
    """

    def __init__(self, module: str, folder: Path) -> None:
        self._module = module
        self._note_path = folder / "note"
        self._scratch = folder / "scratch"
        self._scratch.mkdir(parents=True)
        self._child: subprocess.Popen[str] | None = None

    def run(self, name: str) -> Report:
        """Run a case and return how it went."""
        if self._child is None:
            self._child = self._start()
            ready = self._answer(self._child)
            if ready != "ready":
                return Report(f"the process could not begin: {ready or self._ended()}", 0)
        _input(self._child).write(name + "\n")
        _input(self._child).flush()
        answer = self._answer(self._child)
        return Report(**json.loads(answer)) if answer else Report(self._ended(), 0)

    def _start(self) -> "subprocess.Popen[str]":
        with self._note_path.open("w+b") as notes:
            environment = {
                **os.environ,
                "HOSTILE_NOTE": str(notes.fileno()),
                "HOSTILE_SCRATCH": str(self._scratch),
                # The pools of Arrow's own allocators hold memory back, which would blur what is measured.
                "ARROW_DEFAULT_MEMORY_POOL": "system",
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
            }
            return subprocess.Popen(
                [sys.executable, "-X", "faulthandler", "-m", "tests.hostile.confined", self._module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                env=environment,
                pass_fds=[notes.fileno()],
            )

    def _answer(self, child: "subprocess.Popen[str]") -> str:
        output = child.stdout
        if output is None or not select.select([output], [], [], SECONDS)[0]:
            return ""
        return output.readline().strip()

    def _ended(self) -> str:
        code = self.close()
        how = "did not end in time" if code is None else f"ended with {code}"
        return f"the process {how} at: {self._note_path.read_text(encoding='utf-8').strip()}"

    def close(self) -> int | None:
        """End the child; return how it had ended by itself, or None."""
        child, self._child = self._child, None
        if child is None:
            return None
        _input(child).close()
        try:
            code = child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            code = None
        if child.stdout is not None:
            child.stdout.close()
        return code


def _input(child: "subprocess.Popen[str]") -> IO[str]:
    if child.stdin is None:
        raise ValueError("the child has no input")
    return child.stdin


def trim() -> None:
    """Give back what the case before has freed, so that growth is that of one case."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def main(module: str) -> None:
    """Run the cases named on standard input."""
    cases: Cases = importlib.import_module(module).CASES
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print("ready", flush=True)  # noqa: T201 - the answer
    for line in sys.stdin:
        name = line.rstrip("\n")
        note(name)
        trim()
        # From what is held now: what the cases before have torn holes into is not this one's growth.
        resource.setrlimit(resource.RLIMIT_DATA, (_status("VmData") + MEMORY, resource.RLIM_INFINITY))
        GROWTH.largest, failure = 0, ""
        try:
            cases[name]()
        except BaseException:  # noqa: BLE001 - whatever it is, it is what the test is about
            failure = traceback.format_exc()
        print(json.dumps({"failure": failure, "growth": GROWTH.largest}), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    # By its own name: what the cases measure with must be what is read here.
    importlib.import_module("tests.hostile.confined").main(sys.argv[1])
