"""Rows a second through gRPC, by condition and format, and what a row far out costs; ratios within one run."""

import time

import pyarrow as pa
import pytest

from rowmint.client import Client
from tests.acceptance.processes import Services, customers_csv

pytestmark = pytest.mark.timeout(1800)

COLUMNS = ["city", "plan", "age", "income"]
FAR = 10**12 // 4096 * 4096  # both begin a block
REQUESTED = [
    ("all rows", 500_000, None),
    ("one category, 5 %", 50_000, {"city": "Lima"}),
    ("two categories", 20_000, {"city": "Lima", "plan": "plus"}),
    ("range and category", 20_000, {"city": "Oslo", "age": (45, None)}),
]

FIVE = {"city": "Lisbon", "plan": ["basic", "plus"], "age": (18, 60), "rich": "no", "active": True}


def drain(
    client: Client, version: str, rows: int, where: object, form: str, *, start: int = 0, max_reuse: int = 1
) -> tuple[float, int]:
    """Return the seconds it takes, and the distinct candidates that the rows rest on."""
    began = time.perf_counter()
    # The keys of this table are too few to number rows far out: they are left out.
    columns = [] if start == 0 else COLUMNS
    stream = client.sample(
        version, rows, where=where, seed=1, format=form, start_row=start, columns=columns, max_reuse=max_reuse
    )
    for _ in stream.chunks():
        pass
    return time.perf_counter() - began, stream.distinct_candidates


@pytest.mark.parametrize("family", ["circuit", "ctgan", "tvae", "independent"])
def test_rows_per_second(services: Services, family: str) -> None:
    trainer, sampler = services.trainer(), services.sampler()
    settings = {} if family == "independent" else {"epochs": 3, "seed": 1}
    with Client(trainer.address, sampler.address) as client:
        dataset = client.upload(customers_csv(5_000), "bench", format="csv", primary_key="customer")
        version = client.wait_job(client.train(dataset, "bench", family=family, **settings)).model_version
        drain(client, version, 10_000, None, "arrow")
        whole = 0.0
        print(f"\n{family}: through gRPC, client on the same cores, pyarrow {pa.__version__}")
        print(f"{'what':34}{'max reuse':>10}{'rows/s':>12}{'ratio':>8}{'distinct candidates':>21}")
        for what, rows, where in REQUESTED:
            drain(client, version, 10, where, "arrow")  # the plan is compiled once
            for max_reuse in (1, 64) if where else (1,):
                seconds, distinct = drain(client, version, rows, where, "arrow", max_reuse=max_reuse)
                whole = rows / seconds if whole == 0.0 else whole
                print(f"{what:34}{max_reuse:10}{rows / seconds:12,.0f}{rows / seconds / whole:8.2f}{distinct:21,}")
        for form in ("csv", "ndjson"):
            rate = 200_000 / drain(client, version, 200_000, None, form)[0]
            print(f"{'all rows as ' + form:44}{rate:12,.0f}{rate / whole:8.2f}")
        firsts = sorted(drain(client, version, 1, FIVE, "arrow")[0] for _ in range(50))
        print(f"{'one row, five conditions: p50, ms':44}{firsts[25] * 1e3:12.1f}")
        near = min(drain(client, version, 4096 + 100, None, "arrow", start=4096)[0] for _ in range(5))
        far = min(drain(client, version, FAR + 100, None, "arrow", start=FAR)[0] for _ in range(5))
        print(f"{'100 rows at 10^12, time against 4096':34}{'':12}{far / near:8.2f}")
