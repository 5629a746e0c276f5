"""Small tables with every kind of column, as canonical Parquet, for tests that fit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rowmint.artifact import Artifact, Model, read_model
from rowmint.sampling.plan import compile_plan
from rowmint.sampling.rows import RowSource
from rowmint.schema import Cell, ColumnKind, ColumnSpec, DataType, Domain, TableSchema
from rowmint.schema.arrays import column_cells
from rowmint.synthesizer import choose_kernel
from trainer_service.config import TrainingConfig, effective_schema, encoding_options
from trainer_service.fitting import ExportOptions
from trainer_service.fitting.context import Checkpoints
from trainer_service.fitting.encoding.encoded_table import EncodedTable, encode_table
from trainer_service.fitting.encoding.table import Holdout, Table
from trainer_service.fitting.engine import fit
from trainer_service.fitting.families import FAMILIES as EVERY_FAMILY
from trainer_service.fitting.families.circuit.config import CircuitConfig
from trainer_service.fitting.families.ctgan.config import CtganConfig
from trainer_service.fitting.families.tvae.config import TvaeConfig
from trainer_service.fitting.monitoring.progress import FitEvent

ROWS = 300
DIGEST = bytes(range(32))

CTGAN = CtganConfig(
    epochs=1, batch_size=60, generator_dim=(16,), discriminator_dim=(16,), embedding_dim=8, pac=5, generator_lr=1e-3
)
TVAE = TvaeConfig(epochs=2, batch_size=60, compress_dims=(16,), decompress_dims=(16,), embedding_dim=8)
CIRCUIT = CircuitConfig(epochs=2, batch_size=60, states=8, components=2, max_bins=4)
_SMALL = {type(config): config for config in (CTGAN, TVAE, CIRCUIT)}
FAMILIES = {family.name: _SMALL.get(family.config, family.config()) for family in EVERY_FAMILY}
"""A small configuration of every family; the defaults where nothing smaller is needed."""
ITERATIVE = tuple(family.name for family in EVERY_FAMILY if family.iterative)
NETWORKS = tuple(family.name for family in EVERY_FAMILY if family.networks)
SMALL_EXPORT = ExportOptions(calibration_rows=512, temperatures=(1.0, 0.6), temperature_rows=256)
"""Enough wherever a test does not measure what an export chooses."""

ARROW = {
    DataType.BOOL: pa.bool_(),
    DataType.INT64: pa.int64(),
    DataType.DOUBLE: pa.float64(),
    DataType.DECIMAL: pa.decimal128(18, 2),
    DataType.STRING: pa.string(),
    DataType.DATE: pa.date32(),
    DataType.TIMESTAMP: pa.timestamp("us"),
}


def column(name: str, kind: ColumnKind, data_type: DataType, **domain: Any) -> ColumnSpec:
    return ColumnSpec(name, kind, data_type, Domain(**domain))


@dataclass(frozen=True)
class TableToFit:
    """A table's cells by column, and its schema."""

    cells: dict[str, list[Cell]]
    schema: TableSchema

    def write(self, path: Path) -> Path:
        arrays = {}
        for spec in self.schema.columns:
            kind = pa.timestamp("us", "UTC") if spec.time_zone else ARROW[spec.data_type or DataType.STRING]
            arrays[spec.name] = pa.array(self.cells[spec.name], kind)
        pq.write_table(pa.table(arrays), path, row_group_size=128)
        return path

    def only(self, *names: str) -> "TableToFit":
        return TableToFit({name: self.cells[name] for name in names}, self.schema.project(names))


def some_missing(cells: Sequence[Cell], every: int) -> list[Cell]:
    return [None if index % every == 0 else cell for index, cell in enumerate(cells)]


def full_table(rows: int = ROWS) -> TableToFit:
    """A column of every kind and type, with and without missing cells; the columns depend on each other."""
    random = np.random.Generator(np.random.Philox(5))
    group = random.choice(4, rows, p=[0.55, 0.3, 0.12, 0.03])
    age = np.clip(np.rint(random.normal(30 + 8 * group, 6)), 18, 90).astype(int)
    price = np.round(random.lognormal(2 + 0.3 * group, 0.5), 2)
    noise = random.normal(0, 1, rows) * 1.2345
    start = datetime(2013, 1, 1)  # noqa: DTZ001
    hours = random.integers(0, 24 * 365, rows)
    gain = np.where(random.random(rows) < 0.8, 0, random.integers(1, 50_000, rows))
    cells: dict[str, list[Cell]] = {
        "key": list(range(1, rows + 1)),
        "city": [("Oslo", "Paris", "Rome", "")[code] for code in group],
        "state": some_missing([("good", "bad")[code % 2] for code in group], 5),
        "grade": [int(code) * 10 for code in group],
        "paid": some_missing([bool(code % 2) for code in group], 7),
        "age": age.tolist(),
        "gain": some_missing(gain.tolist(), 9),
        "price": price.tolist(),
        "noise": some_missing(noise.tolist(), 11),
        "cost": [Decimal(int(value * 100)).scaleb(-2) for value in price],
        "day": [date(2020, 1, 1) + timedelta(days=int(value) % 300) for value in hours],
        "seen": [start + timedelta(hours=int(value)) for value in hours],
        "instant": some_missing([start.replace(tzinfo=UTC) + timedelta(minutes=int(value)) for value in hours], 13),
        "same": [7] * rows,
        "word": ["only"] * rows,
        "void": [None] * rows,
        "nothing": [None] * rows,
        "noted": [f"note {index}" for index in range(rows)],
    }
    kind, kinds = DataType, ColumnKind
    schema = TableSchema(
        (
            column("key", kinds.ID, kind.INT64),
            column("city", kinds.CATEGORICAL, kind.STRING),
            column("state", kinds.CATEGORICAL, kind.STRING, nullable=True),
            column("grade", kinds.CATEGORICAL, kind.INT64),
            column("paid", kinds.BOOLEAN, kind.BOOL, nullable=True),
            column("age", kinds.NUMERICAL, kind.INT64),
            column("gain", kinds.NUMERICAL, kind.INT64, nullable=True),
            column("price", kinds.NUMERICAL, kind.DOUBLE, decimals=2),
            column("noise", kinds.NUMERICAL, kind.DOUBLE, nullable=True),
            column("cost", kinds.NUMERICAL, kind.DECIMAL, decimals=2),
            column("day", kinds.DATETIME, kind.DATE),
            column("seen", kinds.DATETIME, kind.TIMESTAMP),
            replace(column("instant", kinds.DATETIME, kind.TIMESTAMP, nullable=True), time_zone="Europe/Oslo"),
            column("same", kinds.NUMERICAL, kind.INT64),
            column("word", kinds.CATEGORICAL, kind.STRING),
            column("void", kinds.NUMERICAL, kind.DOUBLE, nullable=True),
            column("nothing", kinds.CATEGORICAL, kind.STRING, nullable=True),
            column("noted", kinds.IGNORED, kind.STRING),
        ),
        primary_key="key",
    )
    return TableToFit(cells, schema)


def fit_table(
    table: TableToFit,
    config: TrainingConfig,
    folder: Path,
    report: Callable[[FitEvent], None] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
    *,
    checkpoints: Checkpoints | None = None,
    export: ExportOptions = SMALL_EXPORT,
) -> Artifact:
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    path = table.write(folder / "table.parquet")
    return fit(
        path,
        table.schema,
        config,
        DIGEST,
        scratch,
        report=report,
        cancelled=cancelled,
        checkpoints=checkpoints,
        export=export,
    )


def encode_rows(table: TableToFit, config: TrainingConfig, folder: Path, **options: Any) -> EncodedTable:
    """Return the table as a fit with `config` sees it, but for `options`; its files in `folder`."""
    columns = effective_schema(config, table.schema).modelled().columns
    holdout = Holdout.of(DIGEST, config.holdout_fraction)
    read = Table(table.write(folder / "t.parquet"), columns, holdout)
    return encode_table(read, replace(encoding_options(config), **options), folder, lambda: False)


def load(artifact: Artifact, kernel: str = "numpy") -> Model:
    return read_model(artifact.manifest, artifact.weights, choose_kernel(kernel), artifact.manifest_digest)


def sample(model: Model, rows: int, seed: int = 3) -> dict[str, list[Cell]]:
    """Return unconditional rows by column, ids left out."""
    names = [name for name in model.schema.names if name not in model.identities]
    plan = compile_plan(model.digest, model.synthesizer, ())
    source = RowSource(model, plan, seed, names)
    found: dict[str, list[Cell]] = {name: [] for name in names}
    for number in range(-(-rows // plan.block_size)):
        block = source.block(number, plan.block_size)
        for name in names:
            found[name] += column_cells(block.columns[name], model.schema.column(name))
    return {name: cells[:rows] for name, cells in found.items()}
