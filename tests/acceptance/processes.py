"""Services as real processes, on loopback, ended by pid."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rowmint.client.credentials import PLAIN, Credentials
from tests.waiting import PATIENCE, wait_until

ROOT = Path(__file__).parents[2]


_PORTS = range(15_000, 32_000)
_given: set[int] = set()


def free_port(following: int = 0) -> int:
    """Return a port that is free, as so many after it are, and stays so before its service is up and while it is down.

    No port is given twice, and tests that run side by side draw from parts of their own. All lie below the range that
    outgoing connections are given: one that looks for a service which is down may even be given the very port it looks
    at, and meet itself.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    size = len(_PORTS) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    part = _PORTS[worker * size : (worker + 1) * size]
    draw = random.SystemRandom()
    for _ in range(1_000):
        first = draw.choice(part[: size - following])
        ports = range(first, first + following + 1)
        if _given.isdisjoint(ports) and all(map(_may_be_bound, ports)):
            _given.update(ports)
            return first
    raise OSError(f"no port from {part[0]} to {part[-1]} is free")


def _may_be_bound(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@dataclass
class ServiceProcess:
    """One service as a process."""

    module: str
    port: int
    log: Path
    process: subprocess.Popen[bytes]
    credentials: Credentials = PLAIN

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    def serving(self) -> bool:
        if self.process.poll() is not None:
            pytest.fail(f"{self.module} ended with {self.process.returncode}:\n{self.log.read_text()[-4000:]}")
        with self.credentials.channel(self.address, self.address, ()) as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1)
            except grpc.RpcError:
                return False
        return answer.status == health_pb2.HealthCheckResponse.SERVING

    def wait_until_draining(self) -> None:
        wait_until(lambda: b"draining" in self.log.read_bytes(), "draining")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def kill_with_children(self) -> None:
        children = children_of(self.pid)
        self.kill()
        kill_all(children)

    def terminate(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


def _unset() -> dict[str, str]:
    """Return the environment in which no service's settings are set."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ROWMINT_")}


def refused_start(home: Path, *command: str, **environment: str) -> str:
    """Start a service that cannot run, and return what it says of that: it ends with 1, and no traceback.

    `command` is what Python is started with.
    """
    done = subprocess.run(
        [sys.executable, *command],
        env={**_unset(), "ROWMINT_HOME": str(home), "ROWMINT_LISTEN": "127.0.0.1:0", **environment},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@dataclass
class Services:
    """Starts services over one home folder and ends them all; what is to see that they serve shows its credentials."""

    home: Path
    started: list[ServiceProcess] = field(default_factory=list)
    credentials: Credentials = PLAIN

    def start(
        self,
        module: str,
        environment: Mapping[str, str] | None = None,
        python: str = sys.executable,
        port: int | None = None,
    ) -> ServiceProcess:
        port = free_port() if port is None else port
        log = self.home / f"{module}-{port}.log"
        settings = {"ROWMINT_HOME": str(self.home), "ROWMINT_LISTEN": f"127.0.0.1:{port}"}
        with log.open("ab") as output:
            process = subprocess.Popen(
                [python, "-m", module],
                env={**_unset(), **settings, **(environment or {})},
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.home,
            )
        service = ServiceProcess(module, port, log, process, self.credentials)
        self.started.append(service)
        wait_until(service.serving, f"{module} serving")
        return service

    def trainer(self, **environment: str) -> ServiceProcess:
        return self.start("trainer_service", environment)

    def sampler(self, **environment: str) -> ServiceProcess:
        return self.start("sampler_service", environment)

    def close(self) -> None:
        for service in self.started:
            if service.process.poll() is None:
                service.process.send_signal(signal.SIGTERM)
        for service in self.started:
            try:
                service.process.wait(15)
            except subprocess.TimeoutExpired:
                service.kill()


def children_of(pid: int) -> list[int]:
    """Return a process's children; none where it is gone."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def kill_all(pids: Iterable[int]) -> None:
    """Kill processes; one that is gone is none to kill."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def working_child(pid: int) -> int:
    """Return the worker that a job was given to: one that waits for a job has not opened the registry."""
    (child,) = (child for child in children_of(pid) if "data.db" in _open_files(child))
    return child


def _open_files(pid: int) -> set[str]:
    names = set()
    with contextlib.suppress(FileNotFoundError):
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                names.add(file.readlink().name)
    return names


CUSTOMERS_HEADER = "customer,city,plan,age,income,bonus,joined,active,note,rich"


def customers_csv(rows: int, seed: int = 7) -> bytes:
    """A table with every kind of column and known dependencies: `rich` says whether income is high for the city."""
    draw = random.Random(seed)
    cities = ["Lisbon", "Oslo", "Quito", "Hanoi", "Accra", "Lima"]
    base = {city: 20_000 + 9_000 * index for index, city in enumerate(cities)}
    lines = [CUSTOMERS_HEADER]
    for number in range(rows):
        city = draw.choices(cities, [30, 25, 20, 12, 8, 5])[0]
        plan = draw.choices(["basic", "plus", "pro"], [6, 3, 1 + cities.index(city)])[0]
        age = min(90, max(18, int(draw.gauss(35 + 4 * cities.index(city), 9))))
        income = round(max(8_000.0, draw.gauss(base[city] + 300 * age, 5_000)), 2)
        bonus = "" if draw.random() < 0.1 else ("0" if draw.random() < 0.6 else str(draw.randrange(100, 5_000, 50)))
        day = f"20{draw.randrange(15, 24)}-{draw.randrange(1, 13):02}-{draw.randrange(1, 29):02}"
        joined = f"{day}T08:{draw.randrange(60):02}:00"
        active = "true" if draw.random() < 0.7 else "false"
        note = f"n{int(draw.paretovariate(1.1)) % 700}"
        rich = "yes" if income > 45_000 + 8_000 * draw.random() else "no"
        lines.append(f"{100_000 + number},{city},{plan},{age},{income},{bonus},{joined},{active},{note},{rich}")
    return ("\n".join(lines) + "\n").encode()
