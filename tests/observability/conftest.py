"""A trainer and a sampler that log and export all they can, and the main job done once by the `rowmint` command."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.processes import ServiceProcess, Services, customers_csv
from tests.observability.collector import Collector
from tests.waiting import PATIENCE, wait_until

PROJECT = "watched"
ROWS = 4_000
CITY = "Quito"
REQUESTED = 3_000

Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]
"""Samples by their names, and then their labels."""


def lines(service: ServiceProcess) -> list[dict[str, Any]]:
    """Return the lines of a service's log; each must be an object of JSON."""
    # The last one may be in the writing.
    return [json.loads(line) for line in service.log.read_text().splitlines(keepends=True) if line.endswith("\n")]


def metrics_port(service: ServiceProcess) -> int:
    """Return where a service serves its metrics, as its log says, which it does before it serves calls."""
    (port,) = (line["port"] for line in lines(service) if line["event"] == "serving metrics")
    return port


def scrape(port: int) -> Samples:
    """Return every sample by its name and then its labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
        text = answer.read().decode()
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


@dataclass
class Watched:
    """The services, and what was done with them.

    Attributes:
        services: The trainer and the sampler.
        collector: Where their traces and those of the command go.
        csv: The table that was fitted.
        report: Output of `rowmint sample --json`.
        figures: What each service's metrics said when all that was done and nothing else.
    """

    services: Services
    collector: Collector
    csv: bytes
    report: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Samples] = field(default_factory=dict)

    @property
    def trainer(self) -> ServiceProcess:
        return self.services.started[0]

    @property
    def sampler(self) -> ServiceProcess:
        return self.services.started[1]

    def command(self, *arguments: str, code: int = 0) -> str:
        """Run the `rowmint` command, traced, and return what it printed."""
        done = subprocess.run(
            [str(Path(sys.executable).with_name("rowmint")), *arguments],
            env={
                **os.environ,
                "ROWMINT_TRAINER": self.trainer.address,
                "ROWMINT_SAMPLER": self.sampler.address,
                "ROWMINT_PROJECT": PROJECT,
                "OTEL_EXPORTER_OTLP_ENDPOINT": self.collector.endpoint,
            },
            cwd=self.services.home,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == code, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    services = Services(tmp_path_factory.mktemp("watched"))
    collector = Collector()
    environment = {
        "ROWMINT_METRICS_LISTEN": "127.0.0.1:0",
        "ROWMINT_LOG_FORMAT": "json",
        "ROWMINT_LOG_LEVEL": "debug",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    try:
        services.trainer(**environment)
        services.sampler(**environment, ROWMINT_THREADS="2")
        found = Watched(services, collector, customers_csv(ROWS))
        (services.home / "customers.csv").write_bytes(found.csv)
        found.command(
            *("train", "customers.csv", "--family", "independent", "--primary-key", "customer", "--seed", "5", "--json")
        )
        found.report = json.loads(
            found.command(
                *("sample", "customers", "-n", str(REQUESTED), "--seed", "3", "--where", f"city = {CITY}"),
                *("--format", "csv", "--output", "rows.csv", "--json"),
            )
        )
        # A request whose cell is in no table: what is refused must not be reported either.
        found.command("sample", "customers", "-n", "5", "--where", "city = Samarkand-4711", code=1)
        trainer, sampler = map(metrics_port, services.started)
        # A job has succeeded before its worker has reported it.
        ended = "rowmint_jobs_ended_total"
        wait_until(lambda: sum(scrape(trainer).get(ended, {}).values()) == 2, "the end of both jobs")
        # What the registry says is some seconds old.
        train = (("kind", "train"), ("state", "SUCCEEDED"))
        wait_until(lambda: scrape(trainer).get("rowmint_jobs", {}).get(train) == 1, "the end of the job, as registered")
        wait_until(lambda: scrape(sampler)["rowmint_streams"] == {(): 0}, "the end of every stream")
        found.figures = {"trainer": scrape(trainer), "sampler": scrape(sampler)}
        yield found
    finally:
        services.close()
        collector.close()
