"""The engine beside SDV on the Adult table: `python -m tests.benchmarks.engine` (set `ROWMINT_BENCH_DATA`).

Everything goes through the services, as users have it: upload, train, sample over gRPC, the client on the same cores.
SDV's figures are taken once a machine (`sdv_baseline`). Results are kept in `.benchmarks/engine.json`; `report` writes
`docs/benchmarks.md` from them.
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
from tests.benchmarks import adult, report
from tests.benchmarks.memory import PeakMemory, descendants, resident_bytes
from tests.benchmarks.sdv_baseline import CONDITIONS, KEPT, baseline, machine

FAMILIES = ("ctgan", "tvae")
WHERE: dict[str, tuple[dict[str, object], int]] = {
    **{name: (values, 20_000) for name, (values, _) in CONDITIONS.items()},
    # 10 % of the rows by age, 10 % by race.
    "range_and_category": ({"age": (55, None), "race": "Black"}, 20_000),
}
LONG = 500_000
REUSE = (1, 64)  # conditional streams are measured with independent rows, and with candidates reused


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
    if first_step is None or first_epoch is None or not job.model_version:
        raise RuntimeError(f"{job.name} did not succeed: {job.error.message}")
    return {
        "version": job.model_version,
        "fit_seconds": ended - started,
        "first_step_seconds": first_step - started,
        "first_epoch_seconds": first_epoch - created,
    }


def quality(client: Client, version: str, table: adult.Adult) -> dict[str, float]:
    rows = client.sample(version, len(table.train), seed=0).to_table().to_pandas()
    rows = pd.DataFrame({name: rows[name].astype(kind) for name, kind in table.train.dtypes.items()})
    return {**adult.quality(table.train, rows), **adult.usefulness(rows, table.test)}


def rate(client: Client, version: str, rows: int, where: object, seed: int, *, max_reuse: int = 1) -> tuple[float, int]:
    """Return rows a second, and the distinct candidates that the rows rest on."""
    began = time.perf_counter()
    delivered = 0
    with client.sample(version, rows, where=where, seed=seed, max_reuse=max_reuse) as stream:
        for batch in stream:
            delivered += len(batch)
    seconds = time.perf_counter() - began
    if delivered != rows:
        raise RuntimeError(f"{delivered} of {rows} rows were delivered")
    return rows / seconds, stream.distinct_candidates


def median_rate(
    client: Client, version: str, rows: int, where: object, *, max_reuse: int = 1, seeds: Sequence[int] = (1, 2, 3)
) -> dict[str, Any]:
    """Return the median of streams of different seeds, and what their rows rest on."""
    runs = [rate(client, version, rows, where, seed, max_reuse=max_reuse) for seed in seeds]
    distinct = max(candidates for _, candidates in runs)
    return {
        "rows": rows,
        "max_reuse": max_reuse,
        "rate": statistics.median(run for run, _ in runs),
        "distinct": distinct,
    }


def rates(client: Client, version: str) -> dict[str, Any]:
    """Rows a second: of all rows, and under each condition by length and reuse."""
    rate(client, version, 50_000, None, 0)
    found: dict[str, Any] = {"all": median_rate(client, version, LONG, None)["rate"]}
    for name, (where, rows) in WHERE.items():
        rate(client, version, 10, where, 0)
        found[name] = [median_rate(client, version, 200, where)]
        for max_reuse in REUSE:
            found[name].append(median_rate(client, version, rows, where, max_reuse=max_reuse))
            found[name].append(median_rate(client, version, LONG, where, max_reuse=max_reuse, seeds=(4,)))
    return found


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
            version = fit(client, dataset, FAMILIES[number % 2], 100 + number, epochs=1)["version"]
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="ten epochs, one seed, nothing written")
    parser.add_argument("--large-rows", type=int, default=5_000_000)
    parser.add_argument("--only-report", action="store_true")
    arguments = parser.parse_args()
    path = KEPT / "engine.json"
    if arguments.only_report:
        report.write(json.loads(path.read_text()))
        return
    table = adult.load()
    found: dict[str, Any] = {"machine": machine(), "fits": {}, "rates": {}}
    settings: dict[str, object] = {"epochs": 10} if arguments.quick else {}
    with tempfile.TemporaryDirectory() as folder:
        services = Services(Path(folder))
        try:
            trainer, sampler = services.trainer(), services.sampler()
            with Client(trainer.address, sampler.address) as client:
                dataset = upload(client, table)
                for family in FAMILIES:
                    runs = []
                    for seed in range(1, 1 + (1 if arguments.quick else arguments.seeds)):
                        run = fit(client, dataset, family, seed, **settings)
                        runs.append({**run, **quality(client, run["version"], table)})
                        print(family, runs[-1], flush=True)
                    found["fits"][family] = runs
                    found["rates"][family] = rates(client, runs[0]["version"])
                    print(family, found["rates"][family], flush=True)
                if arguments.quick:
                    return
                version = found["fits"]["ctgan"][0]["version"]
                found["startup_seconds"] = median_of(lambda: startup(services, version))
                found["resident"] = resident(services, client, dataset, 20)
                print(found["startup_seconds"], found["resident"], flush=True)
                found["large"] = large(services, client, table, arguments.large_rows)
                print(found["large"], flush=True)
        finally:
            services.close()
    found["sdv"] = {family: baseline(family, table.path) for family in FAMILIES}
    KEPT.mkdir(exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
    report.write(found)


if __name__ == "__main__":
    main()
