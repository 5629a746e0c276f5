"""All families on the Adult table, beside SDV: `python -m tests.benchmarks.engine` (set `ROWMINT_BENCH_DATA`).

Everything goes through the services, as users have it: upload, train, sample over gRPC, the client on the same cores.
SDV's figures are taken once a machine (`sdv_baseline`). Results are kept in `.benchmarks/engine.json`; `report` writes
`docs/benchmarks.md` from them. A run of some families replaces their results and leaves the others'.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from rowmint.client import Client
from rowmint.v1 import dataset_pb2, training_job_pb2
from tests.acceptance.processes import Services
from tests.benchmarks import adult, judging, known_rows, rates, report
from tests.benchmarks.memory import PeakMemory, descendants, resident_bytes
from tests.benchmarks.sdv_baseline import KEPT, PEERS, baseline, machine

FAMILIES = ("circuit", "tvae", "ctgan", "independent")
QUICK: dict[str, dict[str, object]] = {
    "circuit": {"epochs": 2},
    "tvae": {"epochs": 10},
    "ctgan": {"epochs": 10},
    "independent": {},
}
SEEDED = ("circuit", "tvae", "ctgan")  # a fit of the others is the same with every seed


def median_of(measure: Callable[[], float], times: int = 3) -> float:
    return statistics.median(measure() for _ in range(times))


def upload(client: Client, table: adult.Adult) -> dataset_pb2.Dataset:
    # `?` is a category, and nothing is missing.
    form = dataset_pb2.DataFormat(csv=dataset_pb2.CsvFormat(null_values=["\\N"]))
    with table.path.open("rb") as file:
        return client.upload(file, format=form)


def fit(client: Client, dataset: dataset_pb2.Dataset, family: str, seed: int, **settings: object) -> dict[str, Any]:
    """Train with default hyper-parameters; return the version and how long what took, in seconds."""
    job = client.train(dataset, f"bench-{family}", family=family, seed=seed, **settings)
    first_step = first_epoch = None
    for event in client.watch(job):
        at = event.time.ToMicroseconds() / 1e6
        if first_step is None and event.phase == training_job_pb2.JOB_PHASE_FITTING:
            first_step = at
        if first_epoch is None and event.HasField("progress"):
            first_epoch = at
    job = client.get_job(job.name)
    created, started, ended = (
        stamp.ToMicroseconds() / 1e6 for stamp in (job.create_time, job.start_time, job.end_time)
    )
    if first_step is None or not job.model_version:
        raise RuntimeError(f"{job.name} did not succeed: {job.error.message}")
    return {
        "version": job.model_version,
        "fit_seconds": ended - started,
        "first_step_seconds": first_step - started,
        "first_epoch_seconds": None if first_epoch is None else first_epoch - created,
    }


def judged(client: Client, run: dict[str, Any], table: adult.Adult) -> dict[str, Any]:
    """Return a fit with what its rows are worth, and what its version does with rows that it is given."""
    version = client.get_version(run["version"])
    rows = client.sample(version, len(table.train), seed=0).to_table().to_pandas()
    rows = pd.DataFrame({name: rows[name].astype(kind) for name, kind in table.train.dtypes.items()})
    return {
        **run,
        **adult.quality(table.train, rows),
        **adult.usefulness(rows, table.test),
        **judging.c2st(table.test, rows),
        **judging.closeness(table.train, table.test, rows),
        "completion_rate": known_rows.completion_rate(client, version, table.test),
        **(known_rows.scores(client, version, table.test) if version.capabilities.likelihood else {}),
    }


def startup(services: Services, version: str) -> float:
    """Seconds from starting a sampler process to its first row, the store warm."""
    began = time.perf_counter()
    sampler = services.sampler()
    with Client(services.started[0].address, sampler.address) as client:
        next(iter(client.sample(version, 1, seed=1)))
    seconds = time.perf_counter() - began
    sampler.terminate()
    return seconds


def resident(services: Services, client: Client, dataset: dataset_pb2.Dataset, models: int) -> dict[str, float]:
    """Megabytes (RssAnon + RssShmem) of a sampler that has loaded no model, and so many."""
    sampler = services.sampler()
    bare = sum(resident_bytes(pid) for pid in descendants(sampler.pid))
    with Client(services.started[0].address, sampler.address) as sampling:
        for number in range(models):
            version = fit(client, dataset, PEERS[number % 2], 100 + number, epochs=1)["version"]
            next(iter(sampling.sample(version, 5_000, seed=1)))
    full = sum(resident_bytes(pid) for pid in descendants(sampler.pid))
    sampler.terminate()
    return {"bare": bare / 1e6, "models": models, "full": full / 1e6}


def large(services: Services, client: Client, table: adult.Adult, rows: int) -> dict[str, float]:
    """Peak megabytes of all trainer processes while `rows` rows are fitted for one epoch."""
    header, body = table.path.read_bytes().split(b"\n", 1)
    times = -(-rows // len(table.train))
    with tempfile.TemporaryFile() as file:
        file.write(header + b"\n")
        for _ in range(times):
            file.write(body if body.endswith(b"\n") else body + b"\n")
        file.seek(0)
        dataset = client.upload(file, format="csv")
    with PeakMemory(services.started[0].pid) as memory:
        found = fit(client, dataset, "tvae", 1, epochs=1, batch_size=5_000)
        fit(client, dataset, "ctgan", 1, epochs=1, batch_size=5_000)
    return {"rows": dataset.row_count, "peak": memory.peak / 1e6, "first_step_seconds": found["first_step_seconds"]}


def measure(
    families: Sequence[str], seeds: int, large_rows: int, found: dict[str, Any], *, quick: bool, fits_only: bool
) -> None:
    """Add what families do to `found`; where all are measured, what the services take, and what SDV does, too."""
    table = adult.load()
    found["real"] = {
        **adult.quality(table.train, table.train.sample(len(table.train), replace=True, random_state=1)),
        **adult.usefulness(table.train, table.test),
        **judging.c2st(table.test, table.train.sample(len(table.test), random_state=1)),
    }
    found["shares"] = {name: rates.share(table.train, where) for name, (where, _) in rates.WHERE.items()}
    whole = not (quick or fits_only) and set(families) == set(FAMILIES)
    with tempfile.TemporaryDirectory() as folder:
        services = Services(Path(folder))
        try:
            trainer, sampler = services.trainer(), services.sampler()
            with Client(trainer.address, sampler.address) as client:
                dataset = upload(client, table)
                for family in families:
                    settings = QUICK[family] if quick else {}
                    runs = []
                    for seed in range(1, 1 + (seeds if family in SEEDED else 1)):
                        runs.append(judged(client, fit(client, dataset, family, seed, **settings), table))
                        print(family, runs[-1], flush=True)
                    found["fits"][family] = runs
                    found["rates"].pop(family, None)
                    if fits_only:
                        continue
                    found["rates"][family] = rates.rates(client, client.get_version(runs[0]["version"]))
                    print(family, found["rates"][family], flush=True)
                if whole:
                    version = found["fits"]["ctgan"][0]["version"]
                    found["startup_seconds"] = median_of(lambda: startup(services, version))
                    found["resident"] = resident(services, client, dataset, 20)
                    print(found["startup_seconds"], found["resident"], flush=True)
                    found["large"] = large(services, client, table, large_rows)
                    print(found["large"], flush=True)
        finally:
            services.close()
    if whole:
        found["sdv"] = {family: baseline(family, table.path) for family in PEERS}


def kept(path: Path) -> dict[str, Any]:
    """Return the results of earlier runs on this machine; none where it, or a version, has changed."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found if found.get("machine") == machine() else {"machine": machine(), "fits": {}, "rates": {}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a few epochs, one seed, nothing written")
    parser.add_argument("--fits-only", action="store_true", help="no rows a second, which take longest")
    parser.add_argument("--large-rows", type=int, default=5_000_000)
    parser.add_argument("--only-report", action="store_true")
    arguments = parser.parse_args()
    path = KEPT / "engine.json"
    if arguments.only_report:
        report.write(json.loads(path.read_text()))
        return
    found = kept(path)
    seeds = 1 if arguments.quick else arguments.seeds
    measure(
        arguments.families,
        seeds,
        arguments.large_rows,
        found,
        quick=arguments.quick,
        fits_only=arguments.fits_only,
    )
    if arguments.quick:
        return
    found["fits"] = {family: found["fits"][family] for family in FAMILIES if family in found["fits"]}
    KEPT.mkdir(exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
    report.write(found)


if __name__ == "__main__":
    main()
