"""Where the time of the sampler's core goes, and of a training step: `python -m tests.benchmarks.core`.

No service, no network, one thread: blocks of all columns of Adult, rows under conditions with and without reuse of
candidates, and steps of either family. A few epochs do, as the shape of the networks alone decides the time.
"""

import cProfile
import pstats
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rowmint.artifact import Model, read_model
from rowmint.conditions import AnyOf, Predicate, canonical
from rowmint.sampling.limits import MAX_REUSE
from rowmint.sampling.plan import compile_plan
from rowmint.sampling.rows import RowSource
from rowmint.schema import ColumnKind, ColumnSpec, DataType, TableSchema
from rowmint.synthesizer import choose_kernel
from tests.benchmarks import adult
from tests.benchmarks.sdv_baseline import CONDITIONS
from trainer_service.config import TrainingConfig, encoding_options
from trainer_service.fitting import FitContext
from trainer_service.fitting.device import prepare_device
from trainer_service.fitting.encoding.encoded_table import encode_table
from trainer_service.fitting.encoding.table import Holdout, Table
from trainer_service.fitting.engine import fit
from trainer_service.fitting.families.ctgan.config import CtganConfig
from trainer_service.fitting.families.tvae.config import TvaeConfig

BLOCKS = 40
STEPS = 200
INDEPENDENT_ROWS = 4_096
MOST_ROWS = 500_000
PARTS = {
    "integer products, rounding included (onnxruntime)": ("run_with_iobinding",),
    "look-ups: exp, tanh, noise codes": ("'take'",),
    "random words (Philox)": ("rng.py", "random_raw"),
    "categorical draws": ("layout.py",),
    "decoding": ("codecs",),
}


def schema_of(table: pa.Table) -> TableSchema:
    return TableSchema(
        tuple(
            ColumnSpec(field.name, ColumnKind.NUMERICAL, DataType.INT64)
            if pa.types.is_integer(field.type)
            else ColumnSpec(field.name, ColumnKind.CATEGORICAL, DataType.STRING)
            for field in table.schema
        ),
        "",
    )


def sampling(folder: Path, path: Path, schema: TableSchema, config: TrainingConfig) -> None:
    """Print rows a second of one thread, and what share of the time each part takes."""
    artifact = fit(path, schema, config, bytes(32), folder, report=lambda _: None, cancelled=lambda: False)
    model = read_model(artifact.manifest, artifact.weights, choose_kernel())
    plan = compile_plan(model.digest, model.synthesizer, ())
    source = RowSource(model, plan, 1, model.schema.names)
    source.block(0, plan.block_size)
    began = time.perf_counter()
    for number in range(1, BLOCKS):
        source.block(number, plan.block_size)
    print(f"\n{config.family_name}: {BLOCKS * plan.block_size / (time.perf_counter() - began):,.0f} rows/s, one thread")
    profile = cProfile.Profile()
    profile.enable()
    for number in range(1, BLOCKS):
        source.block(number, plan.block_size)
    profile.disable()
    times = {f"{place[0]} {place[2]}": entry[2] for place, entry in pstats.Stats(profile).stats.items()}  # type: ignore[attr-defined]
    total = sum(times.values())
    for part, marks in PARTS.items():
        own = {name for name in times if any(mark in name for mark in marks)}
        print(f"  {part:52}{sum(times.pop(name) for name in own) / total:6.0%}")
    print(f"  {'all else':52}{sum(times.values()) / total:6.0%}")
    conditional(model)


def conditional(model: Model) -> None:
    """Print rows a second of one thread's own time under each condition, independent and reused."""
    print(f"  {'condition':22}{'acceptance':>11}{'max reuse':>10}{'rows/s':>10}{'rows':>9}{'distinct candidates':>21}")
    for name, (values, _) in CONDITIONS.items():
        where = canonical([Predicate(column, AnyOf((value,))) for column, value in values.items()], model.schema)
        compiled = compile_plan(model.digest, model.synthesizer, where)
        for max_reuse in (1, MAX_REUSE):
            plan = compiled.allowing(max_reuse)
            # A whole period, so that each candidate serves as often as it may.
            rows = min(plan.pools.period, MOST_ROWS) if plan.reuse > 1 else INDEPENDENT_ROWS
            source = RowSource(model, plan, 1, model.schema.names)
            began = time.thread_time()
            for number in range(-(-rows // plan.block_size)):
                source.block(number, min(plan.block_size, rows - number * plan.block_size))
            rate, distinct = rows / (time.thread_time() - began), plan.pools.distinct(0, rows)
            print(f"  {name:22}{plan.acceptance:11.2%}{max_reuse:10}{rate:10,.0f}{rows:9,}{distinct:21,}")


def training(folder: Path, path: Path, schema: TableSchema, config: TrainingConfig) -> None:
    """Print milliseconds a step."""
    table = Table(path, schema.columns, Holdout.none())
    encoded = encode_table(table, encoding_options(config), folder, lambda: False)
    context = FitContext(folder, config.seed)
    prepare_device(config.declaration, context)
    fitter = config.declaration.make_fitter(encoded, config.family, context)
    for number in range(20):
        fitter.step(number)
    began = time.perf_counter()
    for number in range(20, 20 + STEPS):
        fitter.step(number)
    print(
        f"{config.family_name}: {(time.perf_counter() - began) / STEPS * 1e3:.1f} ms a step, {encoded.width} wide,"
        f" threads {config.threads}"
    )


def main() -> None:
    table = pa.Table.from_pandas(adult.load().train, preserve_index=False)
    schema = schema_of(table)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "adult.parquet"
        pq.write_table(table, path)
        for threads in (1, 2):
            for family in (CtganConfig(), TvaeConfig()):
                training(folder, path, schema, TrainingConfig(family, seed=1, threads=threads))
        for family in (CtganConfig(epochs=3), TvaeConfig(epochs=3)):
            sampling(folder, path, schema, TrainingConfig(family, seed=1))


if __name__ == "__main__":
    main()
