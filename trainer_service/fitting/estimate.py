"""What a fit would cost: codecs from a bounded sample of rows, and a few real steps, timed."""

import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rowmint.schema import TableSchema
from trainer_service.config import IndependentConfig, TrainingConfig, effective_schema, validate, validate_against
from trainer_service.fitting.encoding.encode import encode_table
from trainer_service.fitting.encoding.table import Holdout, Table
from trainer_service.fitting.families import choose_device, make_fitter
from trainer_service.fitting.monitoring.progress import Estimate

Clock = Callable[[], float]

SAMPLE_ROWS = 20_000
_PARTS = 8
_WARM_UP = 3
_STEPS = 20
_BASE_BYTES = 450 << 20  # Python, torch, ctgan and what they import
_COPIES = 6  # of each weight: itself, gradient, two moments, average, work space
_TENSORS = 40  # of a batch's width alive at once, forward and backward
_READ_BYTES = 96  # a cell of a batch in the passes over the table
_SAMPLE_BYTES = 16


def estimate(
    table: Path, schema: TableSchema, config: TrainingConfig, scratch: Path, clock: Clock = time.monotonic
) -> Estimate:
    """Estimate what `engine.fit` would cost, within a factor of two.

    Args:
        table: The dataset's canonical Parquet file.
        schema: The dataset's schema.
        config: The training configuration.
        scratch: Folder for temporary files; exists. The caller removes it.
        clock: Seconds.

    Raises:
        ColumnNotFoundError: The configuration names a column that does not exist.
        InvalidFieldError: The configuration is impossible.
        TrainingFailedError: A column cannot be learned.
    """
    validate(config)
    rows = Table(table, (), Holdout.none()).row_count
    validate_against(config, schema, rows)
    device = choose_device(config)
    effective = effective_schema(config, schema).modelled()
    sample = scratch / "sample.parquet"
    sampled = _write_sample(table, effective.names, sample)
    begun = clock()
    encoded = encode_table(Table(sample, effective.columns, Holdout.none()), config, scratch, lambda: False)
    encoding = (clock() - begun) * rows / sampled
    training_rows = rows * (1 - config.holdout_fraction)
    cells = 65_536 * len(effective.columns)
    memory = _BASE_BYTES + min(rows, 65_536) * len(effective.columns) * _READ_BYTES + cells * _SAMPLE_BYTES
    if isinstance(config.family, IndependentConfig):
        return Estimate(encoded.width, 0, 0.0, encoding, int(memory))
    fitter = make_fitter(encoded, config, device, scratch)
    for number in range(_WARM_UP):
        fitter.step(number)
    begun = clock()
    for number in range(_WARM_UP, _WARM_UP + _STEPS):
        fitter.step(number)
    seconds = (clock() - begun) / _STEPS
    begun = clock()
    fitter.export()
    exporting = clock() - begun
    steps = max(1, int(training_rows // config.family.batch_size))
    memory += fitter.parameters * 4 * _COPIES + fitter.rows_per_step * encoded.width * 4 * _TENSORS
    return Estimate(
        encoded_width=encoded.width,
        steps_per_epoch=steps,
        seconds_per_epoch=steps * seconds,
        total_seconds=encoding + fitter.epochs * steps * seconds + exporting,
        peak_memory_bytes=int(memory),
    )


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
