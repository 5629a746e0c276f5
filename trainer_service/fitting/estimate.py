"""What a fit would cost: codecs from a bounded sample of rows, and a few real steps, timed."""

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rowmint.errors import RowmintError
from rowmint.schema import TableSchema
from trainer_service.config import TrainingConfig, effective_schema, encoding_options, validate, validate_against
from trainer_service.fitting.context import Clock, FitContext
from trainer_service.fitting.device import prepare_device
from trainer_service.fitting.encoding.encoded_table import encode_table
from trainer_service.fitting.encoding.table import BATCH_ROWS, Holdout, Table
from trainer_service.fitting.families import Family
from trainer_service.fitting.families.auto.config import AutoConfig
from trainer_service.fitting.families.hyperparameters import FitSize
from trainer_service.fitting.fitter import IterativeFitter
from trainer_service.fitting.monitoring.progress import Estimate
from trainer_service.fitting.options import ExportOptions

SAMPLE_ROWS = 20_000
_PARTS = 8
_WARM_UP = 3
_STEPS = 20
_BASE_BYTES = 450 << 20  # Python, torch, ctgan and what they import, which a worker has whatever it fits
_CELL_BYTES = 64  # of a batch in the passes over the table, and of what is counted of it
_COMPARED_ROWS = 100_000  # a fitter looks at so many before its first step, at most about


def estimate(
    table: Path,
    schema: TableSchema,
    config: TrainingConfig,
    scratch: Path,
    *,
    clock: Clock = time.monotonic,
    export: ExportOptions | None = None,
) -> Estimate:
    """Estimate what `engine.fit` would cost, within a factor of two.

    A family that takes steps is timed by some of them, of as many rows as the whole table's would have. The cost of any
    other is what it takes on the sample, scaled by the number of rows. A choice among families costs what those
    candidates do that fit into the time given.

    Args:
        table: The dataset's canonical Parquet file.
        schema: The dataset's schema.
        config: The training configuration.
        scratch: Folder for temporary files; exists. The caller removes it.
        clock: Seconds.
        export: How the network becomes exact integers; None for the defaults.

    Raises:
        ColumnNotFoundError: The configuration names a column that does not exist.
        InvalidFieldError: The configuration is impossible.
        TrainingFailedError: A column cannot be learned.
    """
    validate(config)
    rows = Table(table, (), Holdout.none()).row_count
    validate_against(config, schema, rows)
    if isinstance(config.family, AutoConfig):
        fraction = config.compared_fraction(rows)

        def estimate_one(family: Family, folder: Path) -> Estimate:
            return estimate(table, schema, config.candidate(family, fraction), folder, clock=clock, export=export)

        return _estimate_choice(config.families, config.family.seconds, scratch, estimate_one)
    family = config.declaration
    context = FitContext(scratch, config.seed, config.device, config.threads, clock=clock)
    prepare_device(family, context)
    effective = effective_schema(config, schema).modelled()
    sample = scratch / "sample.parquet"
    sampled = _write_sample(table, effective.names, sample)
    begun = clock()
    reading = Table(sample, effective.columns, Holdout.none())
    encoded = encode_table(reading, encoding_options(config), scratch, context.cancelled)
    encoding = (clock() - begun) * rows / sampled
    training_rows = int(rows * (1 - config.holdout_fraction))
    columns = len(encoded.codecs)
    settled = config.family.settled(training_rows, columns)
    family.load_fitter()  # before the clock: a worker has the imports ready
    begun = clock()
    fitter = family.make_fitter(encoded, settled, context)
    making = clock() - begun
    steps, seconds, fitting = settled.steps_per_epoch(training_rows), 0.0, 0.0
    rows_per_step, seen_rows = 0, training_rows
    if isinstance(fitter, IterativeFitter):
        seconds, rows_per_step = _seconds_per_step(fitter, clock), fitter.rows_per_step
        fitting = fitter.epochs * steps * seconds * (1 + config.family.trials(training_rows, columns))
        seen_rows = min(training_rows, _COMPARED_ROWS)
    begun = clock()
    fitter.export(ExportOptions() if export is None else export)
    exporting = clock() - begun
    memory = _BASE_BYTES + min(rows, BATCH_ROWS) * len(effective.columns) * _CELL_BYTES
    memory += settled.fitting_bytes(FitSize(fitter.parameters, rows_per_step, encoded.width, columns))
    return Estimate(
        encoded_width=encoded.width,
        steps_per_epoch=steps,
        seconds_per_epoch=steps * seconds,
        total_seconds=encoding + making * seen_rows / sampled + fitting + exporting,
        peak_memory_bytes=memory,
    )


def _estimate_choice(
    families: Sequence[Family], seconds: int, scratch: Path, estimate_one: Callable[[Family, Path], Estimate]
) -> Estimate:
    """Sum the estimates of the candidates that a choice would fit: the first, and those that fit into what is left."""
    found: list[Estimate] = []
    failures: list[RowmintError] = []
    for family in families:
        folder = scratch / family.name
        folder.mkdir()
        try:
            one = estimate_one(family, folder)
        except RowmintError as error:  # it would fail in the job, too, which goes by the others
            failures.append(error)
            continue
        finally:
            shutil.rmtree(folder)
        if not found or one.total_seconds <= seconds - sum(before.total_seconds for before in found):
            found.append(one)
    if not found:
        raise failures[0]
    return Estimate(
        encoded_width=max(one.encoded_width for one in found),
        steps_per_epoch=0,
        seconds_per_epoch=0.0,
        total_seconds=sum(one.total_seconds for one in found),
        peak_memory_bytes=max(one.peak_memory_bytes for one in found),
    )


def _seconds_per_step(fitter: IterativeFitter, clock: Clock) -> float:
    for number in range(_WARM_UP):
        fitter.step(number)
    begun = clock()
    for number in range(_WARM_UP, _WARM_UP + _STEPS):
        fitter.step(number)
    return (clock() - begun) / _STEPS


def _write_sample(table: Path, names: tuple[str, ...], sample: Path) -> int:
    """Write up to `SAMPLE_ROWS` rows from up to eight places of the table; return how many."""
    with pq.ParquetFile(table) as file:
        groups = file.num_row_groups
        chosen = (
            sorted({index * groups // _PARTS for index in range(_PARTS)}) if groups > _PARTS else list(range(groups))
        )
        share = SAMPLE_ROWS // max(1, len(chosen))
        parts = []
        for group in chosen:
            batch = next(file.iter_batches(batch_size=share, row_groups=[group], columns=list(names)), None)
            if batch is not None:
                parts.append(batch)
    made = pa.Table.from_batches(parts)
    pq.write_table(made, sample)
    return max(1, int(made.num_rows))
