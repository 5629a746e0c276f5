"""Trainer and sampler as different users of one machine, as docs/deployment.md has them: what each may do."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from rowmint.client import Client
from tests.acceptance.processes import ROOT, ServiceProcess, customers_csv, free_port
from tests.waiting import PATIENCE, wait_until

TRAINER, SAMPLER, READERS = 54_321, 54_322, 54_323
PATHS = os.pathsep.join([str(ROOT), str(ROOT / "shared"), sysconfig.get_path("purelib")])


def environment(**more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ROWMINT_", "PYTHON"))}
    return {**clean, "PYTHONPATH": PATHS, "HOME": "/nonexistent", **more}


def as_user(uid: int, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        user=uid,
        group=uid,
        extra_groups=[READERS],
        env=environment(**more),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def python() -> str:
    """An interpreter that other users can run: this one's may be in a folder of root's."""
    assert os.geteuid() == 0, "this test starts services as other users, which only root may do"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in filter(None, (sys.executable, shutil.which(version, path="/usr/bin:/usr/local/bin"))):
        try:
            if as_user(SAMPLER, candidate, "-c", "import rowmint, grpc, numpy").returncode == 0:
                return candidate
        except PermissionError:
            continue
    pytest.fail("there is no interpreter that other users can run")


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as found:
        place = Path(found)
        place.chmod(0o711)
        (place / "home").mkdir(mode=0o700)
        os.chown(place / "home", TRAINER, TRAINER)
        yield place / "home"


class Users:
    """Starts services as users, and ends them all."""

    def __init__(self, home: Path, python: str) -> None:
        self.home = home
        self.python = python
        self.started: list[ServiceProcess] = []

    def start(self, module: str, uid: int, **more: str) -> ServiceProcess:
        port = free_port()
        log = self.home.parent / f"{module}-{port}.log"
        settings: Mapping[str, str] = {"ROWMINT_HOME": str(self.home), "ROWMINT_LISTEN": f"127.0.0.1:{port}"}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [self.python, "-m", module],
                user=uid,
                group=uid,
                extra_groups=[READERS],
                env=environment(**settings, **more),
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
            )
        service = ServiceProcess(module, port, log, process)
        self.started.append(service)
        wait_until(service.serving, f"{module} serving")
        return service

    def trainer(self) -> ServiceProcess:
        return self.start("trainer_service", TRAINER, ROWMINT_MODELS_GROUP=str(READERS))

    def sampler(self) -> ServiceProcess:
        return self.start("sampler_service", SAMPLER)

    def close(self) -> None:
        for service in self.started:
            if service.process.poll() is None:
                service.process.send_signal(signal.SIGTERM)
        for service in self.started:
            service.process.wait(PATIENCE)


@pytest.fixture
def users(home: Path, python: str) -> Iterator[Users]:
    found = Users(home, python)
    yield found
    found.close()


def rows(client: Client, model: str) -> bytes:
    with client.sample(model, 40, seed=3) as stream:
        return b"".join(stream.chunks())


def train(client: Client) -> None:
    client.wait_job(client.train("customers", "people", family="independent", seed=1).name)


def test_a_sampler_of_another_user_serves_models_and_sees_no_data(users: Users, home: Path) -> None:
    trainer, sampler = users.trainer(), users.sampler()
    with Client(trainer.address, sampler.address) as client:
        client.upload(customers_csv(60), "customers", format="csv", primary_key="customer")
        train(client)
        first = rows(client, "people")
    (weights,) = home.glob("models/default/people/*/weights.safetensors")
    (table,) = home.glob("data/datasets/*/table-1.parquet")
    refused = {
        "data.db is read": ("cat", home / "registry" / "data.db"),
        "data is listed": ("ls", home / "data"),
        "a table is read": ("cat", table),
        "temporary files are listed": ("ls", home / "scratch"),
        "the home is listed": ("ls", home),
        "a model is changed": ("truncate", "-s", "0", weights),
        "a model is deleted": ("rm", "-f", weights),
        "a model is added": ("touch", home / "models" / "more"),
        "the registry is changed": ("truncate", "-s", "0", home / "registry" / "models.db"),
        "the registry is replaced": ("mv", home / "registry" / "models.db", home / "registry" / "other.db"),
    }
    allowed = [what for what, command in refused.items() if as_user(SAMPLER, *map(str, command)).returncode == 0]
    assert allowed == []
    assert as_user(SAMPLER, "cat", str(home / "registry" / "models.db")).returncode == 0

    # With no trainer there is nothing that the sampler could write its part of a log to.
    assert (sampler.terminate(), trainer.terminate()) == (0, 0)
    sampler = users.sampler()
    with Client("127.0.0.1:1", sampler.address) as client:
        assert rows(client, "people/versions/1") == first
    trainer = users.trainer()
    with Client(trainer.address, sampler.address) as client:
        train(client)
        assert client.get_model("people").aliases["latest"] == 2
        assert rows(client, "people") == rows(client, "people/versions/2")
        assert rows(client, "people/versions/1") == first
