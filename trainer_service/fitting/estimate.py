"""What a fit would cost: codecs from a bounded sample of rows, and a few real steps, timed."""

import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rowmint.schema import TableSchema
from trainer_service.config import TrainingConfig, effective_schema, encoding_options, validate, validate_against
from trainer_service.fitting.context import Clock, FitContext
from trainer_service.fitting.device import prepare_device
from trainer_service.fitting.encoding.encoded_table import encode_table
from trainer_service.fitting.encoding.table import Holdout, Table
from trainer_service.fitting.fitter import IterativeFitter
from trainer_service.fitting.monitoring.progress import Estimate
from trainer_service.fitting.options import ExportOptions

SAMPLE_ROWS = 20_000
_PARTS = 8
_WARM_UP = 3
_STEPS = 20
_BASE_BYTES = 450 << 20  # Python, torch, ctgan and what they import
_COPIES = 6  # of each weight: itself, gradient, two moments, average, workspace
_TENSORS = 40  # of a batch's width alive at once, forward and backward
_READ_BYTES = 96  # a cell of a batch in the passes over the table
_SAMPLE_BYTES = 16


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

    A family that takes steps is timed by some of them. The cost of any other is what it takes on the sample, scaled by
    the number of rows.

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
    training_rows = rows * (1 - config.holdout_fraction)
    cells = 65_536 * len(effective.columns)
    memory = _BASE_BYTES + min(rows, 65_536) * len(effective.columns) * _READ_BYTES + cells * _SAMPLE_BYTES
    family.load_fitter()  # before the clock: a worker has the imports ready
    begun = clock()
    fitter = family.make_fitter(encoded, config.family, context)
    making = clock() - begun
    memory += fitter.parameters * 4 * _COPIES
    steps, seconds, epochs = config.family.steps_per_epoch(int(training_rows)), 0.0, 0
    if isinstance(fitter, IterativeFitter):
        seconds, epochs = _seconds_per_step(fitter, clock), fitter.epochs
        memory += fitter.rows_per_step * encoded.width * 4 * _TENSORS
        making = 0.0  # the same for any number of rows, and next to nothing
    begun = clock()
    fitter.export(ExportOptions() if export is None else export)
    exporting = clock() - begun
    return Estimate(
        encoded_width=encoded.width,
        steps_per_epoch=steps,
        seconds_per_epoch=steps * seconds,
        total_seconds=encoding + making * training_rows / sampled + epochs * steps * seconds + exporting,
        peak_memory_bytes=int(memory),
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
