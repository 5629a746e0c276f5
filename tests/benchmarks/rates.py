"""Rows a second of one sampler, through gRPC, the client on the same cores: all rows, and under conditions."""

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from rowmint.client import Client
from rowmint.v1 import model_pb2
from tests.benchmarks.sdv_baseline import CONDITIONS

Where = Mapping[str, object]

WHERE: dict[str, tuple[Where, int]] = {
    **{name: (values, 20_000) for name, (values, _) in CONDITIONS.items()},
    # 10 % of the rows by age, 10 % by race.
    "range_and_category": ({"age": (55, None), "race": "Black"}, 20_000),
    "range_and_two_categories": ({"age": (55, None), "race": "Black", "sex": "Female"}, 20_000),
}
LONG = 500_000
REUSE = (1, 64)  # conditional streams are measured with independent rows, and with candidates reused
_STATUS = ("Never-married", "Divorced", "Married-civ-spouse")
NEW: list[Where] = [{"age": (20 + step, 60), "marital-status": _STATUS[step % 3]} for step in range(21)]
"""Conditions that no other part of a benchmark has."""


def share(table: pd.DataFrame, where: Where) -> float:
    """The share of real rows that satisfy conditions: equal values, and ranges from a least number on."""
    kept = pd.Series(data=True, index=table.index)
    for name, value in where.items():
        kept &= table[name] >= value[0] if isinstance(value, tuple) else table[name] == value
    return float(kept.mean())


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


def rates(client: Client, version: model_pb2.ModelVersion) -> dict[str, Any]:
    """Rows a second: of all rows, and under each condition by length and reuse; and seconds to first rows.

    A family that meets conditions exactly draws each row for itself: there is nothing to be reused.
    """
    exact = version.capabilities.conditions == model_pb2.CONDITION_SUPPORT_EXACT
    name = version.name
    rate(client, name, 50_000, None, 0)
    found: dict[str, Any] = {"all": median_rate(client, name, LONG, None)["rate"]}
    found["first_row"] = [first_row(client, version, where) for where in NEW]
    for what, (where, rows) in WHERE.items():
        rate(client, name, 10, where, 0)
        found[what] = [median_rate(client, name, 200, where)]
        for max_reuse in REUSE[:1] if exact else REUSE:
            found[what].append(median_rate(client, name, rows, where, max_reuse=max_reuse))
            found[what].append(median_rate(client, name, LONG, where, max_reuse=max_reuse, seeds=(4,)))
    return found


def first_row(client: Client, version: model_pb2.ModelVersion, where: Where) -> float:
    """Seconds from the request of 20,000 rows to the first batch, under conditions that were not requested before."""
    began = time.perf_counter()
    with client.sample(version, 20_000, where=where, seed=1) as stream:
        next(iter(stream))
        return time.perf_counter() - began
