"""A history that any version of the registry's code can write, and what it then sees.

``python scenario.py``, with an old package first on the path, reads commands, one a line: ``["write", URL, PROJECT]``
writes the history, ``finish`` publishes the only job that waits, ``read`` changes nothing. It answers each with what
that code then sees, as JSON on a line. The tests import it too, and so see the same with the code of today.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date
from pathlib import Path
from typing import Any

import rowmint
import rowmint.registry as registry_package
from rowmint.errors import DataProblem, Reason, ResourceNotFoundError
from rowmint.names import ModelName, ModelVersionName, ModelVersionRef
from rowmint.registry import (
    CanonicalTable,
    JobKind,
    ModelLedger,
    NewVersion,
    Registry,
    SegmentRecord,
    open_registry,
)
from rowmint.schema import ColumnKind, ColumnSpec, DataType, Domain, TableSchema

# What the code of today calls otherwise than the oldest.
OLD = hasattr(registry_package, "JobPhase")
FITTING = registry_package.JobPhase.FITTING if OLD else "fitting"

ARCHIVE = Path(__file__).parent / "registry_0001.zip"
HOUR = 3600.0
SCHEMA = TableSchema(
    (
        ColumnSpec("n", ColumnKind.NUMERICAL, DataType.INT64, Domain(minimum=1, maximum=2)),
        ColumnSpec("d", ColumnKind.DATETIME, DataType.DATE, Domain(minimum=date(2020, 1, 1)), "%d/%m/%Y"),
    )
)
OVERRIDE = ColumnSpec("c", None, None, Domain(categories=("x", 1, None), nullable=False))


def digest(project: str, number: int) -> bytes:
    """Return the model digest of a model's version in the history."""
    return f"{project} {number}".encode().ljust(32, b".")


def write(registry: Registry, project: str) -> None:
    """Write the history: afterwards every table has rows of the project. No job of another project may be waiting."""
    dataset = _ready(registry, project)
    _uploaded(registry, project, "broken")
    job = registry.jobs.claim("w", HOUR, (JobKind.INGEST,))
    registry.datasets.mark_failed(job.dataset_uid, job.uid, job.epoch, [DataProblem("no number", 3, 2, "n")])
    gone = _upload(registry, project, "gone")
    registry.datasets.delete(gone.name)
    registry.datasets.forget([f"{project}/gone/0"])
    _upload(registry, project, "open")

    for number in (1, 2, 3):
        _train(registry, project, dataset, f"published-{number}")
        _publish(registry, project, number)
    model = ModelName(project, "m")
    registry.models.set_alias(model, "stable", 1)
    registry.models.delete_version(ModelVersionName(project, "m", 2))

    _train(registry, project, dataset, "failed")
    job = registry.jobs.claim("w", HOUR, (JobKind.TRAIN,))
    registry.jobs.fail(job.uid, job.epoch, Reason.TRAINING_FAILED, "loss is infinite")
    registry.jobs.cancel_request(_train(registry, project, dataset, "cancelled").name)
    _train(registry, project, dataset, "released")
    job = registry.jobs.claim("w", HOUR, (JobKind.TRAIN,))
    registry.jobs.release(job.uid, job.epoch)
    registry.jobs.claim("x", HOUR, (JobKind.TRAIN,))


def read(registry: Registry, project: str) -> dict[str, Any]:
    """Return all that the code sees of a project, JSON values."""
    datasets = registry.datasets.list(project).items
    jobs = (registry.jobs.list(project) if OLD else registry.jobs.list(JobKind.TRAIN, project)).items
    return {
        "datasets": plain(datasets),
        "segments": {record.name.dataset: plain(registry.datasets.segments(record.uid)) for record in datasets},
        "jobs": [_as_old(record) for record in jobs],
        "events": {
            record.name.job: [_as_old(event) for event in registry.jobs.events_after(record.uid, 0)] for record in jobs
        },
        "data garbage": sorted(key for key in registry.datasets.garbage() if key.startswith(f"{project}/")),
        **read_models(registry.models, project),
    }


def read_models(models: ModelLedger, project: str) -> dict[str, Any]:
    """Return all that the code sees of a project's models, JSON values."""
    found = models.list(project).items
    model = ModelName(project, "m")
    refs = {
        **{f"version {number}": ModelVersionRef(model, version=number) for number in (1, 2, 3, 4)},
        **{f"alias {alias}": ModelVersionRef(model, alias=alias) for alias in ("latest", "stable", "none")},
        **{f"digest {number}": ModelVersionRef(model, digest=digest(project, number)) for number in (1, 2, 3, 4)},
    }
    return {
        "models": plain(found),
        "versions": {record.name.model: plain(models.list_versions(record.name).items) for record in found},
        "resolved": {name: _resolved(models, ref) for name, ref in refs.items()},
        "models garbage": sorted(key for key in models.garbage() if key.startswith(f"{project}/")),
    }


def plain(value: Any) -> Any:
    """Return a record, or anything in one, as JSON values."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, bytes):
        return value.hex()
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def _as_old(record: Any) -> dict[str, Any]:
    """Return a job or an event with the fields that the oldest code gives it, and what is new beside them."""
    known = {name: getattr(record, name) for name in ("dataset", "model", "model_version") if hasattr(record, name)}
    found = {**plain(record), **plain(known)}
    return {**found, "phase": (found["phase"] or "unspecified").upper()}


def _resolved(models: ModelLedger, ref: ModelVersionRef) -> Any:
    try:
        return plain(models.resolve(ref))
    except ResourceNotFoundError:
        return "not found"


def _upload(registry: Registry, project: str, dataset_id: str) -> Any:
    record = registry.datasets.create(
        project,
        dataset_id,
        data_format={"csv": {"delimiter": ";"}},
        overrides=(OVERRIDE,),
        request_id=f"upload {dataset_id}",
        request_digest=b"u" * 32,
    )
    registry.datasets.take_writer(record.name)
    epoch = registry.datasets.take_writer(record.name).writer_epoch
    segment = SegmentRecord(0, 0, 10, b"s" * 32, f"{project}/{dataset_id}/0")
    registry.datasets.commit_segment(record.uid, epoch, segment)
    return registry.datasets.get(record.name)


def _uploaded(registry: Registry, project: str, dataset_id: str) -> Any:
    record = _upload(registry, project, dataset_id)
    return registry.datasets.finish_upload(record.uid, record.writer_epoch, 10, b"a" * 32)


def _ready(registry: Registry, project: str) -> Any:
    record = _uploaded(registry, project, "ready")
    job = registry.jobs.claim("w", HOUR, (JobKind.INGEST,))
    table = CanonicalTable(SCHEMA, {"tables": {}}, 7, f"{project}/ready/table", 100, b"c" * 32, {"rows": 7})
    registry.datasets.mark_ready(record.uid, job.uid, job.epoch, table)
    return record


def _train(registry: Registry, project: str, dataset: Any, job_id: str) -> Any:
    named = {"dataset": str(dataset.name), "model": f"projects/{project}/models/m"}
    kind, inputs = ((), named) if OLD else ((JobKind.TRAIN,), {"inputs": named})
    return registry.jobs.create(
        *kind,
        project,
        job_id,
        config={"family": "ctgan", "epochs": 3},
        dataset_uid=dataset.uid,
        **inputs,
        request_id=f"train {job_id}",
        request_digest=b"t" * 32,
    )


def _publish(registry: Registry, project: str, number: int) -> None:
    job = registry.jobs.claim("w", HOUR, (JobKind.TRAIN,))
    registry.jobs.set_phase(job.uid, job.epoch, FITTING)
    registry.jobs.append_event(job.uid, job.epoch, {"progress": {"epoch": 1, "loss": 0.1}})
    registry.jobs.heartbeat(job.uid, job.epoch)
    version = NewVersion(
        training_job=str(job.name),
        manifest_key=f"{project}/{number}/manifest.json",
        manifest_size=10,
        manifest_sha256=b"m" * 32,
        weights_key=f"{project}/{number}/weights.safetensors",
        weights_size=20,
        weights_sha256=b"w" * 32,
        model_digest=digest(project, number),
        manifest_digest=b"n" * 32,
        family="ctgan",
        dataset_digest=b"s" * 32,
        training_rows=7,
        schema=SCHEMA,
    )
    registry.models.publish(job.uid, job.epoch, ModelName(project, "m"), version)


def main() -> None:
    """Serve as old code until there are no more commands."""
    if not Path(rowmint.__file__).is_relative_to(ARCHIVE):
        raise RuntimeError(f"{rowmint.__file__} is not the old code; put {ARCHIVE} first on the path")
    for line in sys.stdin:
        action, url, project = json.loads(line)
        registry = open_registry(url)
        if action == "write":
            write(registry, project)
        elif action == "finish":
            _publish(registry, project, 4)
        sys.stdout.write(json.dumps(read(registry, project)) + "\n")
        sys.stdout.flush()
        registry.close()


if __name__ == "__main__":
    main()
