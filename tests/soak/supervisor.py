"""The processes of the soak: each that ends is started again, a service at the same port."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.acceptance.processes import children_of
from tests.faults.process_figures import anonymous_bytes

_POLL_SECONDS = 0.05
_START_SECONDS = 120.0
_END_SECONDS = 60.0


@dataclass
class Kept:
    """One process that is kept alive.

    Attributes:
        kind: ``trainer``, ``sampler``, ``undisturbed`` or ``client``.
        name: Its name.
        arguments: Of Python.
        environment: Its settings.
        address: Where it serves; empty where it does not.
        process: What runs now.
        up: Whether it serves.
        starts: How often it was started.
        sent_signal: The last signal it was sent, None for none.
        since: When it was started, or sent the signal.
    """

    kind: str
    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    process: subprocess.Popen[bytes] | None = None
    up: bool = False
    starts: int = 0
    sent_signal: signal.Signals | None = None
    since: float = 0.0

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        assert self.process is not None
        return self.process.pid

    @property
    def may_be_killed(self) -> bool:
        """Whether it is up, and not ending already."""
        return self.up and self.sent_signal is None


class ProcessSupervisor:
    """Starts processes and keeps them alive, from a thread of its own, until it is closed.

    Args:
        home: Working folder, and folder of logs.

    Attributes:
        kept: The processes.
        wrong: Failures that no kill explains.
    """

    def __init__(self, home: Path) -> None:
        self.kept: list[Kept] = []
        self.wrong: list[str] = []
        self._home = home
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._clients_end = False
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._thread.start()

    def add(self, *kept: Kept) -> None:
        """Start processes, and keep them alive from then on."""
        with self._lock:
            for one in kept:
                self._start(one)
                self.kept.append(one)

    def of(self, *kinds: str) -> list[Kept]:
        """Return the processes of some kinds."""
        return [one for one in self.kept if one.kind in kinds]

    def wait_until_up(self, given_up: threading.Event | None = None) -> None:
        """Wait until all serve, or something is wrong.

        Args:
            given_up: Set when the wait is given up; None for never.
        """
        end = time.monotonic() + _START_SECONDS + _END_SECONDS
        known = len(self.wrong)
        while not all(one.may_be_killed for one in self.kept if one.address) and time.monotonic() < end:
            if len(self.wrong) > known or (given_up is not None and given_up.is_set()):
                return
            time.sleep(_POLL_SECONDS)

    def kill(self, one: Kept, number: signal.Signals, pid: int | None = None) -> bool:
        """Send a signal to a process, or to a child of it; return whether it could be sent."""
        with self._lock:
            if not one.may_be_killed:
                return False
            try:
                os.kill(one.pid if pid is None else pid, number)
            except ProcessLookupError:
                return False
            if pid is None:
                one.sent_signal, one.since = number, time.monotonic()
            return True

    def let_clients_end(self, seconds: float) -> None:
        """Wait until clients have ended by themselves; others are started again."""
        with self._lock:
            self._clients_end = True
        end = time.monotonic() + seconds
        while any(one.process is not None for one in self.of("client")):
            if time.monotonic() > end:
                left = ", ".join(one.name for one in self.of("client") if one.process is not None)
                self.wrong.append(f"still at work after {seconds:g} s: {left}; see their logs and task logs")
                return
            time.sleep(_POLL_SECONDS)

    def memory(self) -> dict[str, int]:
        """Return the anonymous resident bytes of each service, its workers not counted."""
        found = {}
        for one in self.of("trainer", "sampler", "undisturbed"):
            with contextlib.suppress(OSError, AssertionError):
                found[one.name] = anonymous_bytes(one.pid)
        return found

    def starts(self) -> Counter[str]:
        """Return how often each was started."""
        return Counter({one.name: one.starts for one in self.kept})

    def close(self) -> None:
        """End all processes, in good order where they respond."""
        self._done.set()
        self._thread.join()
        running = [one.process for one in self.kept if one.process is not None]
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, one: Kept) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ROWMINT_")}
        with (self._home / f"{one.name}.log").open("ab") as output:
            one.process = subprocess.Popen(
                [sys.executable, *one.arguments],
                env={**clean, **one.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._home,
            )
        one.starts += 1
        one.up, one.sent_signal, one.since = not one.address, None, time.monotonic()

    def _watch(self) -> None:
        while not self._done.wait(_POLL_SECONDS):
            for one in list(self.kept):
                if not one.up and one.process is not None and _serves(one.address):
                    one.up = True
                with self._lock:
                    self._look(one)

    def _look(self, one: Kept) -> None:
        """Start a process again where it has ended, and note a failure that no kill explains."""
        if one.process is None:
            return
        code = one.process.poll()
        waited = time.monotonic() - one.since
        if code is None:
            if one.sent_signal is not None and waited > _END_SECONDS:
                self.wrong.append(f"{one.name} has not ended {_END_SECONDS:g} s after {one.sent_signal.name}")
                one.process.kill()
            elif not one.up and waited > _START_SECONDS:
                self.wrong.append(f"{one.name} does not serve {_START_SECONDS:g} s after its start; see its log")
                one.since = time.monotonic()
            return
        if one.kind == "client" and code == 0 and self._clients_end:
            one.process = None
            return
        # A service that is terminated ends in good order; a client handles no signal.
        expected = {None: (), signal.SIGKILL: (-signal.SIGKILL,), signal.SIGTERM: (0, -signal.SIGTERM)}
        if code not in expected[one.sent_signal] or (one.address and code == -signal.SIGTERM):
            self.wrong.append(
                f"{one.name} ended with exit code {code} after {one.sent_signal}; see {self._home}/{one.name}.log"
            )
        self._start(one)


def workers_of(trainer: Kept) -> list[int]:
    """Return the workers of a trainer, the oldest first: that one is at work, unless there is no work."""
    return children_of(trainer.pid)


def _serves(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
