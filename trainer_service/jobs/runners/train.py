"""A training job: from a READY dataset to a version, in three stages: fit, verify, publish."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rowmint.artifact import Artifact, read_manifest, read_model
from rowmint.errors import CancelledError, FencedError
from rowmint.failpoints import reach
from rowmint.names import ModelName
from rowmint.registry import DatasetRecord, JobKind, ModelVersionRecord, NewVersion, Part
from rowmint.sampling.verification import verify_model
from rowmint.schema import TableSchema
from rowmint.security.signing import Statement
from rowmint.synthesizer import choose_kernel
from trainer_service.config import from_json
from trainer_service.fitting.monitoring.progress import FitEvent, Phase
from trainer_service.garbage import sweep_own
from trainer_service.jobs.attempts import Attempt
from trainer_service.jobs.checkpoints import JobCheckpoints
from trainer_service.jobs.runner import JobOutputs
from trainer_service.jobs.services import JobServices
from trainer_service.object_keys import version_keys
from trainer_service.signer import KeySource, open_signing_key
from trainer_service.store_claims import mark_progress
from trainer_service.tables import fetch_table

FETCHING = "fetching"
PUBLISHING = "publishing"


class TrainRunner:
    """Fits models: afterwards there is a version, staged or published."""

    kind = JobKind.TRAIN
    phases = (FETCHING, *Phase, PUBLISHING)

    def run(self, attempt: Attempt, services: JobServices) -> JobOutputs:
        """Fit a model to a dataset, verify it, and make the version; see `JobRunner.run`."""
        services.warmed_up()
        # Read first: a key that cannot be read is to be known before the fit, not after it.
        key = open_signing_key(services.signing_key)
        fitted = fit_model(attempt, services)
        verified = verify(attempt, fitted)
        version = publish(attempt, services, verified, key)
        return {"model_version": version.name.version}


@dataclass(frozen=True)
class FittedVersion:
    """What the first stage makes.

    Attributes:
        dataset: What the model was fitted to.
        artifact: The model's files.
    """

    dataset: DatasetRecord
    artifact: Artifact


@dataclass(frozen=True)
class VerifiedVersion(FittedVersion):
    """What the second stage makes of it.

    Attributes:
        manifest: The manifest as a sampler reads it.
    """

    manifest: Mapping[str, Any]


def fit_model(attempt: Attempt, services: JobServices) -> FittedVersion:
    """Fit a model to the rows of a dataset; afterwards the attempt is at `Phase.VERIFYING`, as its export is.

    Raises:
        CancelledError: The work is to stop.
        RowmintError: It cannot be fitted.
    """
    # Imported here: an ingest must not wait for torch.
    from trainer_service.fitting.engine import fit  # noqa: PLC0415

    job = attempt.job

    def report(event: FitEvent) -> None:
        if event.phase == attempt.phase:
            attempt.report(_payload(event))
        else:
            attempt.enter(event.phase, _payload(event))

    attempt.enter(FETCHING)
    table = fetch_table(services.registry.datasets, services.stores.data, job.dataset_uid, services.scratch)
    artifact = fit(
        table.path,
        table.schema,
        from_json(job.config),
        table.dataset.sha256 or b"",
        services.scratch,
        report=report,
        cancelled=attempt.stopped,
        checkpoints=JobCheckpoints(services.registry, services.stores.data, attempt, services.checkpoint_seconds),
    )
    if attempt.stopped():
        raise CancelledError(f"{job.name} was cancelled")
    return FittedVersion(table.dataset, artifact)


def verify(attempt: Attempt, fitted: FittedVersion) -> VerifiedVersion:
    """Load the model as a sampler does and make a row in every format: what cannot be sampled is not published.

    Raises:
        DataLossError: The files are not those of a model.
    """
    if attempt.phase != Phase.VERIFYING:
        attempt.enter(Phase.VERIFYING)
    artifact = fitted.artifact
    verify_model(read_model(artifact.manifest, artifact.weights, choose_kernel("numpy"), artifact.manifest_digest))
    return VerifiedVersion(fitted.dataset, artifact, read_manifest(artifact.manifest, artifact.manifest_digest))


def publish(
    attempt: Attempt, services: JobServices, verified: VerifiedVersion, key: KeySource | None = None
) -> ModelVersionRecord:
    """Store the files under keys of this attempt's own, then make the version: objects first, row last.

    Args:
        attempt: The attempt.
        services: Where it is stored.
        verified: What is stored.
        key: Gives the key that the version is signed with; None: it is not.

    Raises:
        CancelledError: A cancel was committed before.
        FencedError: Another attempt has taken over.
        UnavailableError: Registry or store were away for too long.
    """
    attempt.enter(PUBLISHING)
    job, artifact, manifest = attempt.job, verified.artifact, verified.manifest
    registry, stores = services.registry, services.stores
    model = ModelName.parse(job.model, "model")
    manifest_key, weights_key = version_keys(model, job.uid, job.epoch)
    attempt.store(lambda: stores.models.put(weights_key, artifact.weights))
    reach("publish.weights.stored")
    attempt.store(lambda: stores.models.put(manifest_key, artifact.manifest))
    reach("publish.manifest.stored")
    new = NewVersion(
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
        dataset_digest=verified.dataset.sha256 or b"",
        training_rows=manifest["training"]["rows"],
        schema=TableSchema.from_json(manifest["generator"]["schema"]),
        capabilities=manifest.get("capabilities"),
    )
    statement = Statement(model, artifact.manifest_digest, artifact.weights_digest)
    signatures = () if key is None else (key().sign(statement),)
    try:
        version = attempt.patiently(
            lambda _: registry.models.publish(job.uid, job.epoch, model, new, signatures=signatures, staged=job.staged)
        )
    except (CancelledError, FencedError):
        # Overtaken at the last moment: no row names the files, which are not to stay until the next sweep.
        sweep_own(registry, stores.models, [manifest_key, weights_key])
        raise
    reach("publish.committed")
    mark_progress(registry, stores, *Part)
    return version


def estimate_training(services: JobServices, dataset_uid: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a job would cost, as JSON values: the fields of `rowmint.v1.TrainingEstimate`.

    Raises:
        RowmintError: The dataset cannot be used, or the configuration is impossible for it.
    """
    services.warmed_up()
    from trainer_service.fitting.engine import estimate  # noqa: PLC0415 - as above

    table = fetch_table(services.registry.datasets, services.stores.data, dataset_uid, services.scratch)
    return asdict(estimate(table.path, table.schema, from_json(config), services.scratch))


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
