"""Fitting from end to end: a canonical table in, a model's files out.

It uses torch's global generator and thread count: a process runs one fit at a time.
"""

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from rowmint.artifact import Artifact, FittedModel, write_model
from rowmint.errors import CancelledError
from rowmint.failpoints import reach
from rowmint.schema import TableSchema
from trainer_service.config import (
    TrainingConfig,
    effective_schema,
    encoding_options,
    to_json,
    validate,
    validate_against,
)
from trainer_service.fitting.checkpoint import CheckpointFingerprint, UnusableError, restore, write
from trainer_service.fitting.context import Checkpoints, Clock, FitContext, NoCheckpoints
from trainer_service.fitting.device import machine_fingerprint, prepare_device
from trainer_service.fitting.encoding.encoded_table import EncodedTable, encode_table
from trainer_service.fitting.encoding.table import Holdout, Table
from trainer_service.fitting.estimate import estimate
from trainer_service.fitting.families.auto.config import AutoConfig
from trainer_service.fitting.fitter import FittedNetwork, Fitter, IterativeFitter
from trainer_service.fitting.loop import History, run
from trainer_service.fitting.monitoring.monitor import TrainingMonitor, make_monitor
from trainer_service.fitting.monitoring.progress import Cancelled, FitEvent, Phase, Report
from trainer_service.fitting.options import ExportOptions

__all__ = ["estimate", "fit"]


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
    export: ExportOptions | None = None,
) -> Artifact:
    """Fit a model and return its files; resume from a checkpoint where there is one.

    Args:
        table: The dataset's canonical Parquet file.
        schema: The dataset's schema; every column has a type.
        config: The training configuration.
        dataset_digest: SHA-256 of the dataset, 32 bytes.
        scratch: Folder for files of codes, as large as the table; exists. The caller removes it.
        report: Called with each event: at the start of a phase, and at the end of an epoch.
        cancelled: Called at every step and every batch read; true to end the fit.
        checkpoints: Where they are kept; None for nowhere.
        clock: Seconds; for rates and durations only, no weight depends on it.
        export: How the network becomes exact integers; None for the defaults.

    Raises:
        CancelledError: `cancelled` was true.
        ColumnNotFoundError: The configuration names a column that does not exist.
        InvalidFieldError: The configuration is impossible, by itself, for this dataset or on this machine.
        TrainingFailedError: A column cannot be learned, or the fit diverged.
    """
    context = FitContext(
        scratch,
        config.seed,
        config.device,
        config.threads,
        report,
        cancelled,
        NoCheckpoints() if checkpoints is None else checkpoints,
        clock,
    )

    def fit_family(config: TrainingConfig, context: FitContext) -> Artifact:
        return _fit_family(table, schema, config, dataset_digest, context, export=export)

    if not isinstance(config.family, AutoConfig):
        return fit_family(config, context)
    from trainer_service.fitting.auto import AutoFit  # noqa: PLC0415 - no other fit needs what judges candidates

    validate(config)
    whole = Table(table, (), Holdout.none())
    validate_against(config, schema, whole.row_count)
    columns = effective_schema(config, schema).modelled().columns

    def estimate_family(config: TrainingConfig, folder: Path) -> float:
        return estimate(table, schema, config, folder, clock=clock, export=export).total_seconds

    return AutoFit(
        replace(whole, columns=columns), config, dataset_digest, context, fit=fit_family, estimate=estimate_family
    ).run()


def _fit_family(
    table: Path,
    schema: TableSchema,
    config: TrainingConfig,
    dataset_digest: bytes,
    context: FitContext,
    *,
    export: ExportOptions | None,
) -> Artifact:
    """Fit a model of one family; arguments and errors as of `fit`."""
    clock, report, cancelled, scratch = context.clock, context.on_event, context.cancelled, context.scratch
    started = clock()
    validate(config)
    rows = Table(table, (), Holdout.none()).row_count
    validate_against(config, schema, rows)
    family = config.declaration
    prepare_device(family, context)
    effective = effective_schema(config, schema).modelled()
    holdout = Holdout.of(dataset_digest, config.holdout_fraction)
    report(FitEvent(Phase.ENCODING, message=f"encoding {rows:,} rows of {len(effective.columns)} columns"))
    reach("encode.began")
    encoded = encode_table(Table(table, effective.columns, holdout), encoding_options(config), scratch, cancelled)
    reach("encode.ended")
    machine = machine_fingerprint(family, context)
    fitted = _fitted(config, encoded, context, machine)
    if cancelled():
        raise CancelledError("the fit was cancelled")
    epochs = fitted.fitter.epochs if isinstance(fitted.fitter, IterativeFitter) else 0
    report(FitEvent(Phase.VERIFYING, fitted.history.epochs, epochs, message="exporting the model"))

    def between(message: str) -> None:
        if cancelled():
            raise CancelledError("the fit was cancelled")
        if message:
            report(FitEvent(Phase.VERIFYING, fitted.history.epochs, epochs, message=message))

    network = fitted.fitter.export(ExportOptions() if export is None else export, between)
    learned = TableSchema(tuple(column.spec for column in encoded.fitted), effective.primary_key)
    codecs = [column.codec for column in encoded.fitted]
    model = FittedModel(family.synthesizer.name, learned, codecs, network.body, network.arrays)
    provenance: dict[str, Any] = {
        "capabilities": family.capabilities.to_json(),
        "training": {
            **_training(config, encoded, fitted, network),
            "holdout": {"fraction": config.holdout_fraction, "key": holdout.key.hex()},
            "duration_seconds": round(clock() - started, 3),
            "fingerprint": dict(machine),
        },
        "dataset": {"sha256": dataset_digest.hex(), "rows": rows},
        "privacy": {"mode": "none"},
        "created_by": {"python": platform.python_version(), "numpy": metadata.version("numpy"), **_own_version()},
    }
    if family.licence:
        provenance["licence"] = family.licence
    return write_model(model, provenance)


@dataclass(frozen=True)
class _Fitted:
    """A fit that has come to its end, before export."""

    fitter: Fitter
    history: History


def _fitted(config: TrainingConfig, table: EncodedTable, context: FitContext, machine: Mapping[str, Any]) -> _Fitted:
    """Fit a family to its training rows, by steps where it takes steps."""
    family = config.declaration
    begun = f"fitting {family.name} to {table.rows:,} rows, {table.width} wide"
    if not family.iterative:
        context.on_event(FitEvent(Phase.FITTING, message=begun))
        return _Fitted(family.make_fitter(table, config.family, context), History())
    fitter, monitor = _make(config, table, context)
    fingerprint = CheckpointFingerprint.of(table, machine)
    history = History()
    saved = context.checkpoints.load()
    if saved is not None:
        try:
            history = restore(saved, fitter, monitor, fingerprint)
            begun = f"resumed after {history.steps:,} steps"
        except UnusableError as error:
            # Half of it may be restored already.
            fitter, monitor = _make(config, table, context)
            begun = f"begun again: the checkpoint cannot be used, as {error}"
    context.on_event(FitEvent(Phase.FITTING, history.epochs, fitter.epochs, message=begun))

    def pause(history: History) -> None:
        if context.checkpoints.due():
            context.checkpoints.save(history.steps, write(fitter, history, monitor, fingerprint))

    return _Fitted(fitter, run(fitter, context, monitor, history=history, pause=pause))


def _make(config: TrainingConfig, table: EncodedTable, context: FitContext) -> tuple[IterativeFitter, TrainingMonitor]:
    fitter = config.declaration.make_fitter(table, config.family, context)
    if not isinstance(fitter, IterativeFitter):
        raise TypeError(f"family {config.family_name} is declared as iterative; {type(fitter).__name__} takes no steps")
    monitor = make_monitor(
        table,
        seed=config.seed,
        probe_epochs=config.probe_epochs,
        patience=config.patience,
        keep_best=config.keep_best,
    )
    return fitter, monitor


def _training(config: TrainingConfig, table: EncodedTable, fitted: _Fitted, network: FittedNetwork) -> dict[str, Any]:
    """Return what the manifest says of the fit, as JSON values."""
    fitter, history = fitted.fitter, fitted.history
    return {
        "family": config.family_name,
        "config": to_json(config),
        "seed": str(config.seed),
        "rows": table.rows,
        "epochs": history.epochs,
        "published_epoch": history.published_epoch,
        "ended": history.ended,
        "probes": history.probes,
        "export": dict(network.choices),
        "steps_per_epoch": fitter.steps_per_epoch if isinstance(fitter, IterativeFitter) else 0,
        "parameters": fitter.parameters,
        "loss_history": history.losses,
        "final_losses": {name: values[-1] for name, values in history.losses.items()},
        "resumed_steps": history.resumed_steps,
        "reproducible": history.reproducible,
    }


def _own_version() -> dict[str, str]:
    try:
        return {"rowmint": metadata.version("rowmint")}
    except metadata.PackageNotFoundError:  # run from a source tree
        return {}
