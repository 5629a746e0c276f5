"""Samplers under load, direct and through Envoy: `python -m tests.benchmarks.serving` writes docs/benchmarks.md.

One sampler thread a replica, so that more replicas can use more cores; the load comes from a process on the same cores.
Everything lives in a network of its own (see `tests.proxied.network`), Envoy with the file of `deploy/`.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select

from rowmint.registry import open_registry
from rowmint.registry.tables import model_versions, models
from tests.benchmarks.page import PAGE, put
from tests.benchmarks.sdv_baseline import machine
from tests.faults.golden_home import golden_version, publish_golden
from tests.proxied.deployment import Deployment

REPLICAS = (1, 2, 4)
STREAMS = (1, 4, 16, 64)
FAMILY = "ctgan"
OTHER = f"projects/other/models/{FAMILY}/versions/1"
MANY = 32


def publish_for_another(home: Path) -> None:
    """Put a golden model into a second project, too."""
    registry = open_registry(f"sqlite:///{home}/registry")
    with registry.engine.begin() as connection:
        model = connection.execute(select(models).where(models.c.uid == FAMILY)).mappings().one()
        version = (
            connection.execute(select(model_versions).where(model_versions.c.model_uid == FAMILY)).mappings().one()
        )
        connection.execute(insert(models).values({**model, "uid": "other", "project": "other"}))
        connection.execute(insert(model_versions).values({**version, "model_uid": "other", "job_uid": "other"}))
    registry.close()


class Bench:
    """Replicas, Envoy before them, and load on both."""

    def __init__(self, home: Path, folder: Path, replicas: int, seconds: float) -> None:
        self._folder = folder
        self._seconds = seconds
        self.deployment = Deployment(home, folder)
        self._count = 0
        for _ in range(replicas):
            self.deployment.sampler(ROWMINT_THREADS="1", ROWMINT_MAX_STREAMS="256")
        self.direct = "ipv4:" + ",".join(f"127.0.0.{2 + number}:7402" for number in range(replicas))
        self.deployment.start_envoy()
        self.proxied = "ipv4:127.0.0.1:7400"

    def load(self, target: str, **streams: int) -> dict[str, dict[str, float]]:
        """Return what `load` printed; `streams` are by family, or `other` for the second project's."""
        self._count += 1
        out = self._folder / f"load-{self._count}.json"
        names = {"other": OTHER, FAMILY: golden_version(FAMILY)}
        requested = [f"{names[name]}={many}" for name, many in streams.items()]
        command = [sys.executable, "-m", "tests.benchmarks.load", target, str(self._seconds), *requested]
        done = self.deployment.run(["env", f"PYTHONPATH={PAGE.parents[1]}", *command], out)
        if done.wait(120):
            raise RuntimeError(out.read_text()[-2000:])
        found = json.loads(out.read_text().splitlines()[-1])
        return {name: found[names[name]] for name in streams}


def measured(seconds: float) -> dict[str, Any]:
    cells, fairness = [], {}
    with tempfile.TemporaryDirectory() as name:
        home = Path(name) / "home"
        publish_golden(home)
        publish_for_another(home)
        for replicas in REPLICAS:
            folder = Path(name) / f"replicas-{replicas}"
            folder.mkdir()
            bench = Bench(home, folder, replicas, seconds)
            try:
                for streams in STREAMS:
                    ways = {
                        way: bench.load(getattr(bench, way), ctgan=streams)[FAMILY] for way in ("direct", "proxied")
                    }
                    cells.append({"replicas": replicas, "streams": streams, **ways})
                    print(replicas, streams, ways, flush=True)
                if replicas == 1:
                    fairness = {
                        "alone": bench.load(bench.direct, other=1)["other"],
                        "both": bench.load(bench.direct, ctgan=MANY, other=1),
                    }
                    print(fairness, flush=True)
            finally:
                bench.deployment.close()
    return {"machine": machine(), "cells": cells, "fairness": fairness, "seconds": seconds}


def lines(found: dict[str, Any]) -> list[str]:
    about = found["machine"]
    heads = ["replicas", "streams", "direct, rows/s", "p50, p99 to first row, ms"]
    heads += ["Envoy, rows/s", "p50, p99, ms", "Envoy / direct"]
    text = [
        (
            f"Machine: {about['processor']}, {about['cores']} cores, which replicas, Envoy and the load share. Golden"
            f" model `{FAMILY}`, streams of 20,000 rows, Arrow; {found['seconds']:g} s a cell; one run."
        ),
        "",
        f"| {' | '.join(heads)} |",
        "|---|---|---|---|---|---|---|",
    ]
    for cell in found["cells"]:
        reported = [f"{cell['replicas']}", f"{cell['streams']}"]
        for way in ("direct", "proxied"):
            one = cell[way]
            # First rows are not reported where no stream was requested once it was warm.
            first = f"{one['p50']:.0f}, {one['p99']:.0f}" if one["streams"] else "-"
            reported += [f"{one['rows_per_second']:,.0f}", first]
        ratio = cell["proxied"]["rows_per_second"] / cell["direct"]["rows_per_second"]
        text.append(f"| {' | '.join(reported)} | {ratio:.2f} |")
    failed = sum(cell[way]["failed"] for cell in found["cells"] for way in ("direct", "proxied"))
    alone, both = found["fairness"]["alone"], found["fairness"]["both"]
    text += ["", f"Failed calls in all of these: {failed:.0f}.", ""]
    text.append(
        f"Fairness, one replica: a project with 1 stream gets {alone['rows_per_second']:,.0f} rows/s alone, and"
        f" {both['other']['rows_per_second']:,.0f} beside a project with {MANY} streams, which together get"
        f" {both[FAMILY]['rows_per_second']:,.0f}."
    )
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="measured in each cell")
    parser.add_argument("--print-only", action="store_true", help="leave docs/benchmarks.md as it is")
    given = parser.parse_args()
    text = lines(measured(given.seconds))
    print("\n".join(text))
    if not given.print_only:
        put("serving", text)


if __name__ == "__main__":
    main()
