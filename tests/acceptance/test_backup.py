"""Backup and restore as docs/deployment.md describes them: its own commands, while services run and train."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rowmint.client import Client
from tests.acceptance.processes import Services, customers_csv, refused_start
from tests.docs.pages import blocks
from tests.waiting import wait_until

FAST = {
    "ROWMINT_WORKERS": "2",
    "ROWMINT_LEASE_SECONDS": "2",
    "ROWMINT_HEARTBEAT_SECONDS": "0.3",
    "ROWMINT_CHECKPOINT_SECONDS": "0",
}
LONG = 3_000  # epochs: longer than the rest of the test


def run(script: str, folder: Path) -> str:
    """Run a block of a page in the folder that holds the home `.rowmint`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ROWMINT_")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(home: Path) -> dict[str, bytes]:
    """Return every object of both stores but the marks."""
    files = (path for name in ("data", "models") for path in (home / name).rglob("*") if path.is_file())
    return {str(path.relative_to(home)): path.read_bytes() for path in files if "_rowmint" not in path.parts}


def rows(client: Client, version: str) -> bytes:
    with client.sample(version, 50, seed=7) as stream:
        return b"".join(stream.chunks())


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".rowmint").mkdir()
    return tmp_path / ".rowmint"


@pytest.fixture
def started(home: Path) -> Iterator[Services]:
    services = Services(home)
    yield services
    services.close()


def test_what_is_restored_is_what_was_backed_up_and_what_came_later_is_said_and_kept(
    started: Services, home: Path, tmp_path: Path
) -> None:
    (backup,), (restore,), (restore_all,) = blocks("backup"), blocks("restore"), blocks("restore-all")
    with Client(started.trainer(**FAST).address, started.sampler().address) as client:
        client.upload(customers_csv(200), "customers", format="csv", primary_key="customer")
        client.wait_job(client.train("customers", "people", family="independent", seed=1).name)
        first = rows(client, "people/versions/1")
        long = client.train("customers", "long", family="tvae", epochs=LONG, batch_size=100, seed=2)
        wait_until(lambda: client.get_job(long.name).progress.epoch > 0, "an epoch")
        assert "backed up: " in run(backup, tmp_path)
        client.wait_job(client.train("customers", "people", family="independent", seed=3).name)
        later = rows(client, "people/versions/2")
    started.close()
    before = objects(home)

    putting_back, adopting = restore.split("python -m trainer_service.adopt\n", 1)
    run(putting_back, tmp_path)
    said = refused_start(home, "-m", "trainer_service")
    assert "the registry is older than the data store" in said
    wait_until(lambda: _adopts(tmp_path), "the end of the lease that the backup holds")
    lines = run("python -m trainer_service.adopt\n" + adopting, tmp_path).splitlines()
    assert "in the registry, without its bytes in a store: nothing" in lines
    assert [line for line in lines if "projects/default/models/people: 2 objects" in line]
    assert lines[-1] == "adopted; start the trainer"

    with Client(started.trainer(**FAST).address, started.sampler().address) as client:
        assert [version.name.rpartition("/")[2] for version in client.list_versions("people")] == ["1"]
        assert rows(client, "people/versions/1") == first
        wait_until(lambda: client.get_job(long.name).attempt > 1, "the resumption of the job")
        client.cancel_job(long.name)
        again = client.wait_job(client.train("customers", "people", family="independent", seed=3).name)
        assert again.model_version == "projects/default/models/people/versions/2"
        assert rows(client, again.model_version) == later
    started.close()
    versions = {key: data for key, data in before.items() if key.startswith("models/")}
    assert versions.items() <= objects(home).items()

    run(restore_all, tmp_path)
    with Client(started.trainer(**FAST).address, started.sampler().address) as client:
        assert rows(client, "people/versions/1") == first


def _adopts(folder: Path) -> bool:
    command = [sys.executable, "-m", "trainer_service.adopt"]
    return subprocess.run(command, cwd=folder, capture_output=True, timeout=60, check=False).returncode == 0
