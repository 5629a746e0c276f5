"""Large tables: what a fit takes beside what was estimated before it: `python -m tests.benchmarks.scale`.

The tables are made up, as Parquet: hidden groups of rows decide what each column tends to, which also hangs on the
column before. Fits go through the trainer, with default hyper-parameters; memory is that of all its processes.
"""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rowmint.client import Client
from tests.acceptance.processes import Services
from tests.benchmarks.engine import fit
from tests.benchmarks.memory import PeakMemory
from tests.benchmarks.page import put
from tests.benchmarks.sdv_baseline import KEPT, machine

_GROUPS = 12
_PART = 100_000  # rows made at once
_CATEGORIES = (2, 9, 5, 16, 40, 7)  # of the categorical columns, in turn


@dataclass(frozen=True)
class Shape:
    """Rows and columns of a table; of three columns one holds categories, one whole numbers and one amounts."""

    rows: int
    columns: int

    @property
    def name(self) -> str:
        return f"{self.rows:,} x {self.columns}"


SHAPES = {"long": Shape(5_000_000, 15), "small": Shape(7_000, 55), "wide": Shape(20_000, 500)}


def write(shape: Shape, path: Path) -> None:
    """Write a table; it is a function of its shape."""
    draws = np.random.default_rng(shape.columns)
    means = draws.normal(size=(shape.columns, _GROUPS))
    with pq.ParquetWriter(path, _part(shape, means, 1, draws).schema) as file:
        for start in range(0, shape.rows, _PART):
            file.write_table(_part(shape, means, min(_PART, shape.rows - start), draws))


def _part(shape: Shape, means: NDArray[np.float64], rows: int, draws: np.random.Generator) -> pa.Table:
    group = draws.integers(0, _GROUPS, rows)
    latent = draws.normal(size=rows)
    columns: dict[str, pa.Array] = {}
    for index in range(shape.columns):
        latent = 0.6 * latent + means[index][group] + 0.8 * draws.normal(size=rows)
        if index % 3 == 0:
            many = _CATEGORIES[index // 3 % len(_CATEGORIES)]
            codes = np.clip((latent + 2.5) / 5 * many, 0, many - 1).astype(np.int32)
            cells = pa.DictionaryArray.from_arrays(codes, [f"c{code}" for code in range(many)]).cast(pa.string())
        elif index % 3 == 1:
            cells = pa.array(np.round(40 + 12 * latent).astype(np.int64))
        else:
            cells = pa.array(np.round(np.exp(4 + 0.7 * latent), 2))
        columns[f"column_{index}"] = cells
    return pa.table(columns)


def measure(shape: Shape, folder: Path) -> dict[str, Any]:
    """Upload a table, estimate its fit, and fit it; seconds and bytes."""
    path = folder / "table.parquet"
    write(shape, path)
    services = Services(folder)
    try:
        trainer = services.trainer()
        with Client(trainer.address) as client:
            dataset = client.upload(path)
            began = time.perf_counter()
            estimate = client.estimate(dataset, "scale", family="circuit", seed=1)
            estimating = time.perf_counter() - began
            with PeakMemory(trainer.pid) as memory:
                run = fit(client, dataset, "circuit", 1)
    finally:
        services.close()
    return {
        "fit_seconds": run["fit_seconds"],
        "estimated_seconds": estimate.total_seconds,
        "estimating_seconds": estimating,
        "peak_bytes": memory.peak,
        "estimated_bytes": estimate.peak_memory_bytes,
    }


def lines(found: dict[str, Any]) -> list[str]:
    about = found["machine"]
    text = [
        f"Machine: {about['processor']}, {about['cores']} cores; `circuit`, one fit each.",
        "",
        "| rows x columns | fit, s | estimated | estimated / fit | to estimate, s | peak memory, MB | estimated |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in found["tables"].items():
        text.append(
            f"| {SHAPES[name].name} | {one['fit_seconds']:.0f} | {one['estimated_seconds']:.0f}"
            f" | {one['estimated_seconds'] / one['fit_seconds']:.2f} | {one['estimating_seconds']:.1f}"
            f" | {one['peak_bytes'] / 1e6:,.0f} | {one['estimated_bytes'] / 1e6:,.0f} |"
        )
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    arguments = parser.parse_args()
    path = KEPT / "scale.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    if found.get("machine") != machine():
        found = {"machine": machine(), "tables": {}}
    KEPT.mkdir(exist_ok=True)
    for name in arguments.tables:
        with tempfile.TemporaryDirectory() as folder:
            found["tables"][name] = measure(SHAPES[name], Path(folder))
        print(SHAPES[name].name, found["tables"][name], flush=True)
        path.write_text(json.dumps(found, indent=1) + "\n")
        put("scale", lines(found))


if __name__ == "__main__":
    main()
