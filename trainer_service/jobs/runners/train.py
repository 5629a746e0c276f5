"""A training job: from a READY dataset to a published version."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rowmint.artifact import Artifact, read_manifest, read_model
from rowmint.errors import CancelledError, FencedError, WrongStateError
from rowmint.failpoints import reach
from rowmint.names import ModelName
from rowmint.registry import DatasetRecord, JobPhase, NewVersion, Registry
from rowmint.sampling.plan import compile_plan
from rowmint.sampling.rows import RowSource
from rowmint.schema import TableSchema
from rowmint.security.signing import Statement
from rowmint.synthesizer import choose_kernel
from trainer_service.config import from_json
from trainer_service.fitting.monitoring.progress import FitEvent
from trainer_service.garbage import sweep_orphans
from trainer_service.jobs.attempts import Attempt
from trainer_service.jobs.checkpoints import JobCheckpoints
from trainer_service.jobs.runners.ingest import fetch_verified
from trainer_service.jobs.stores import Stores
from trainer_service.object_keys import version_keys
from trainer_service.signer import KeySource


def run_training(
    registry: Registry,
    stores: Stores,
    attempt: Attempt,
    scratch: Path,
    *,
    checkpoint_seconds: float = 60.0,
    key: KeySource | None = None,
) -> None:
    """Carry out a training job: afterwards a version is published and the job has SUCCEEDED.

    Args:
        registry: Where dataset, job and models are.
        stores: Where the bytes are.
        attempt: The attempt; asked at every step whether to stop.
        scratch: An empty folder.
        checkpoint_seconds: Pause between two checkpoints.
        key: Gives the key that the version is signed with; None: it is not.

    Raises:
        RowmintError: The attempt ended otherwise; the job is not ended yet.
    """
    # Imported here: an ingest must not wait for torch.
    from trainer_service.fitting.engine import fit  # noqa: PLC0415

    job = attempt.job
    ledger = registry.jobs
    phase = JobPhase.UNSPECIFIED

    def report(event: FitEvent) -> None:
        nonlocal phase
        payload = _payload(event)
        entered = JobPhase[event.phase.name]
        if entered is not phase:
            phase = entered
            attempt.enter(entered.lower())
            attempt.patiently(lambda again: ledger.set_phase(job.uid, job.epoch, entered, payload, again=again))
        else:
            attempt.patiently(lambda again: ledger.append_event(job.uid, job.epoch, payload, again=again))

    attempt.enter("fetching")
    dataset, schema, table = _table(registry, stores, job.dataset_uid, scratch)
    config = from_json(job.config)
    artifact = fit(
        table,
        schema,
        config,
        dataset.sha256 or b"",
        scratch,
        report=report,
        cancelled=attempt.stopped,
        checkpoints=JobCheckpoints(registry, stores.data, attempt, checkpoint_seconds),
    )
    if attempt.stopped():
        raise CancelledError(f"{job.name} was cancelled")
    if phase is not JobPhase.PUBLISHING:
        attempt.enter("publishing")
        attempt.patiently(lambda again: ledger.set_phase(job.uid, job.epoch, JobPhase.PUBLISHING, {}, again=again))
    _publish(registry, stores, attempt, dataset, artifact, key=key)


def run_estimate(
    registry: Registry, stores: Stores, dataset_uid: str, config: dict[str, Any], scratch: Path
) -> dict[str, Any]:
    """Return what a job would cost, as JSON values: the fields of `rowmint.v1.TrainingEstimate`."""
    from trainer_service.fitting.engine import estimate  # noqa: PLC0415

    _, schema, table = _table(registry, stores, dataset_uid, scratch)
    return asdict(estimate(table, schema, from_json(config), scratch))


def _table(registry: Registry, stores: Stores, uid: str, scratch: Path) -> tuple[DatasetRecord, TableSchema, Path]:
    """Return a READY dataset, its schema, and its table, fetched into `scratch`."""
    dataset = registry.datasets.get_by_uid(uid)
    if dataset.schema is None or dataset.canonical_key is None or dataset.canonical_sha256 is None:
        raise WrongStateError(f"{dataset.name} is {dataset.state}, not READY", metadata={"state": dataset.state})
    table = scratch / "table.parquet"
    fetch_verified(stores.data, dataset.canonical_key, dataset.canonical_sha256, table)
    return dataset, dataset.schema, table


def _publish(
    registry: Registry,
    stores: Stores,
    attempt: Attempt,
    dataset: DatasetRecord,
    artifact: Artifact,
    *,
    key: KeySource | None = None,
) -> None:
    """Store the files under keys of this attempt's own, then make the version visible: objects first, row last."""
    job = attempt.job
    manifest = _verified(artifact)
    model = ModelName.parse(job.model, "model")
    manifest_key, weights_key = version_keys(model, job.uid, job.epoch)
    attempt.patiently(lambda _: stores.models.put(weights_key, artifact.weights))
    reach("publish.weights.stored")
    attempt.patiently(lambda _: stores.models.put(manifest_key, artifact.manifest))
    reach("publish.manifest.stored")
    version = NewVersion(
        training_job=str(job.name),
        manifest_key=manifest_key,
        manifest_size=len(artifact.manifest),
        manifest_sha256=artifact.manifest_digest,
        weights_key=weights_key,
        weights_size=len(artifact.weights),
        weights_sha256=artifact.weights_digest,
        model_digest=artifact.model_digest,
        manifest_digest=artifact.manifest_digest,
        family=manifest["generator"]["family"],
        dataset_digest=dataset.sha256 or b"",
        training_rows=manifest["training"]["rows"],
        schema=TableSchema.from_json(manifest["generator"]["schema"]),
        capabilities=manifest.get("capabilities"),
    )
    statement = Statement(model, artifact.manifest_digest, artifact.weights_digest)
    signatures = () if key is None else (key().sign(statement),)
    try:
        attempt.patiently(lambda _: registry.models.publish(job.uid, job.epoch, model, version, signatures=signatures))
    except (CancelledError, FencedError):
        # Overtaken at the last moment: the files are nobody's, and are not to lie about until the next sweep.
        sweep_orphans(registry, stores.models, [manifest_key, weights_key])
        raise
    reach("publish.committed")


def _verified(artifact: Artifact) -> dict[str, Any]:
    """Load the model as a sampler would and draw from it, so that nothing is published that cannot be sampled."""
    model = read_model(artifact.manifest, artifact.weights, choose_kernel("numpy"), artifact.manifest_digest)
    plan = compile_plan(model.digest, model.synthesizer, ())
    RowSource(model, plan, 0, model.schema.names).block(0, 1)
    return read_manifest(artifact.manifest, artifact.manifest_digest)


def _payload(event: FitEvent) -> dict[str, Any]:
    payload: dict[str, Any] = {}
    if event.message:
        payload["message"] = event.message
    if event.losses:  # an epoch has ended
        payload["progress"] = {
            "epoch": event.epoch,
            "epochs": event.epochs,
            "losses": dict(event.losses),
            "rows_per_second": event.rows_per_second,
            "eta_seconds": event.eta_seconds,
        }
        if event.probe:
            payload["progress"]["probe"] = dict(event.probe)
    return payload
