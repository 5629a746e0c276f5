"""A family that exists in tests only, from end to end by real processes: no file of the product is changed for it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rowmint.client import Client
from tests.acceptance.processes import ROOT, Services, customers_csv

PATHS = os.pathsep.join(map(str, (ROOT / "tests" / "families" / "startup", ROOT)))


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory):
    found = Services(tmp_path_factory.mktemp("home"))
    try:
        found.trainer(PYTHONPATH=PATHS)
        found.sampler(PYTHONPATH=PATHS)
        yield found
    finally:
        found.close()


def rowmint(services: Services, *arguments: str) -> str:
    """Return what the command prints, run as a process in which the family was added."""
    trainer, sampler = services.started
    done = subprocess.run(
        [sys.executable, "-m", "rowmint.cli", "--trainer", trainer.address, "--sampler", sampler.address, *arguments],
        env={**os.environ, "PYTHONPATH": PATHS},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_family_that_was_added_is_estimated_trained_sampled_and_completed(services: Services, tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    table.write_bytes(customers_csv(1_000))
    assert "--share" in rowmint(services, "train", "--help")
    own = ("--family", "exemplars", "--batch-size", "100", "--share", "0.5", "--distinct", "--strides", "1,2")
    estimate = json.loads(rowmint(services, "train", str(table), *own, "--estimate", "--json"))
    assert estimate["steps_per_epoch"] in (10, "10")
    job = json.loads(rowmint(services, "train", str(table), *own, "--epochs", "3", "--json"))
    config = job["config"]["exemplars"]
    assert config == {"epochs": 3, "batch_size": 100, "share": 0.5, "distinct": True, "strides": [1, 2]}
    trainer, sampler = services.started
    # A client that knows nothing of the family gets its rows all the same.
    with Client(trainer.address, sampler.address) as client:
        version = job["model_version"]
        assert client.get_version(version).family == "exemplars"
        with client.sample(version, 500, where={"city": "Lima", "plan": "pro"}, seed=3) as stream:
            made = stream.to_table()
        assert (made.num_rows, stream.acceptance) == (500, 1.0)
        assert set(made["city"].to_pylist()) == {"Lima"}
        (row,) = client.complete_rows(version, [{"city": "Oslo"}], seed=4)
        assert row["city"] == "Oslo"
