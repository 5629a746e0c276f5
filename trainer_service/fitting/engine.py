"""Fitting from end to end: a canonical table in, a model's files out.

It uses torch's global generator and thread count: a process runs one fit at a time.
"""

import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from rowmint.artifact import Artifact, FittedModel, write_model
from rowmint.errors import CancelledError
from rowmint.failpoints import reach
from rowmint.schema import TableSchema
from trainer_service.config import (
    IndependentConfig,
    TrainingConfig,
    effective_schema,
    to_json,
    validate,
    validate_against,
)
from trainer_service.fitting.checkpoint import Checkpoints, NoCheckpoints, Origin, UnusableError, restore, write
from trainer_service.fitting.encoding.encode import encode_table
from trainer_service.fitting.encoding.table import Holdout, Table
from trainer_service.fitting.estimate import Clock, estimate
from trainer_service.fitting.families import choose_device, make_fitter
from trainer_service.fitting.loop import History, make_watch, run
from trainer_service.fitting.monitoring.progress import Cancelled, FitEvent, Phase, Report

__all__ = ["estimate", "fit"]

LICENCE = (
    "Trained with the ctgan package, which is under BUSL-1.1: in-house use is free, a commercial synthetic-data service"
    " for third parties is not."
)


def fit(
    table: Path,
    schema: TableSchema,
    config: TrainingConfig,
    dataset_digest: bytes,
    scratch: Path,
    *,
    report: Report,
    cancelled: Cancelled,
    checkpoints: Checkpoints | None = None,
    clock: Clock = time.monotonic,
) -> Artifact:
    """Fit a model and return its files; go on from a checkpoint where there is one.

    Args:
        table: The dataset's canonical Parquet file.
        schema: The dataset's schema; every column has a type.
        config: The training configuration.
        dataset_digest: SHA-256 of the dataset, 32 bytes.
        scratch: Folder for files of codes, as large as the table; exists. The caller removes it.
        report: Called with each event: at the start of a phase, and at the end of an epoch.
        cancelled: Asked at every step and every batch read.
        checkpoints: Where they are kept; None for nowhere.
        clock: Seconds; for rates and durations only, no weight depends on it.

    Raises:
        CancelledError: `cancelled` said so.
        ColumnNotFoundError: The configuration names a column that does not exist.
        InvalidFieldError: The configuration is impossible, by itself, for this dataset or on this machine.
        TrainingFailedError: A column cannot be learned, or the losses are no numbers any more.
    """
    started = clock()
    validate(config)
    rows = Table(table, (), Holdout.none()).row_count
    validate_against(config, schema, rows)
    device = choose_device(config)
    effective = effective_schema(config, schema).modelled()
    holdout = Holdout.of(dataset_digest, config.holdout_fraction)
    report(FitEvent(Phase.ENCODING, message=f"encoding {rows:,} rows of {len(effective.columns)} columns"))
    reach("encode.began")
    encoded = encode_table(Table(table, effective.columns, holdout), config, scratch, cancelled)
    reach("encode.ended")
    fitter = make_fitter(encoded, config, device, scratch)
    watch = make_watch(encoded, config)
    checkpoints = NoCheckpoints() if checkpoints is None else checkpoints
    origin = Origin.of(encoded, _fingerprint(config))
    begun = f"fitting {config.family_name} to {encoded.rows:,} rows, {encoded.width} wide"
    history = History()
    saved = checkpoints.load()
    if saved is not None:
        try:
            history = restore(saved, fitter, watch, origin)
            begun = f"going on after {history.steps:,} steps"
        except UnusableError as error:
            # Half of it may be restored already.
            fitter, watch = make_fitter(encoded, config, device, scratch), make_watch(encoded, config)
            begun = f"beginning anew, as the checkpoint is of no use: {error}"
    report(FitEvent(Phase.FITTING, history.epochs, fitter.epochs, message=begun))

    def pause(history: History) -> None:
        if checkpoints.due():
            checkpoints.save(history.steps, write(fitter, history, watch, origin))

    history = run(fitter, report, cancelled, clock, watch, history=history, pause=pause)
    if cancelled():
        raise CancelledError("the fit was cancelled")
    report(FitEvent(Phase.VERIFYING, history.epochs, fitter.epochs, message="exporting the generator"))
    network = fitter.export()
    learned = TableSchema(tuple(column.spec for column in encoded.fitted), effective.primary_key)
    generator = FittedModel(
        config.family_name, learned, [column.codec for column in encoded.fitted], network.body, network.arrays
    )
    training: dict[str, Any] = {
        "family": config.family_name,
        "config": to_json(config),
        "seed": str(config.seed),
        "rows": encoded.rows,
        "holdout": {"fraction": config.holdout_fraction, "key": holdout.key.hex()},
        "epochs": history.epochs,
        "published_epoch": history.published_epoch,
        "ended": history.ended,
        "probes": history.probes,
        "export": dict(network.choices),
        "steps_per_epoch": fitter.steps_per_epoch,
        "parameters": fitter.parameters,
        "loss_history": history.losses,
        "final_losses": {name: values[-1] for name, values in history.losses.items()},
        "duration_seconds": round(clock() - started, 3),
        "resumed_steps": history.resumed_steps,
        "reproducible": history.reproducible,
        "fingerprint": dict(origin.fingerprint),
    }
    provenance = {
        "training": training,
        "dataset": {"sha256": dataset_digest.hex(), "rows": rows},
        "privacy": {"mode": "none"},
        "licence": LICENCE,
        "created_by": {"python": platform.python_version(), "numpy": metadata.version("numpy"), **_own_version()},
    }
    return write_model(generator, provenance)


def _fingerprint(config: TrainingConfig) -> dict[str, Any]:
    """Return what the weights depend on beside data, configuration and seed."""
    found = {"device": str(config.device), "threads": config.threads}
    if isinstance(config.family, IndependentConfig):
        return found  # it counts; torch, which takes seconds to import, has no part in that
    import torch  # noqa: PLC0415 - only where networks are fitted.

    return {
        **found,
        "torch": torch.__version__,
        "ctgan": metadata.version("ctgan"),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "matmul": torch.get_float32_matmul_precision(),
    }


def _own_version() -> dict[str, str]:
    try:
        return {"rowmint": metadata.version("rowmint")}
    except metadata.PackageNotFoundError:  # run from a source tree
        return {}
