"""ModelService: the same on trainer and sampler."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.message import Message

from rowmint.errors import DataLossError
from rowmint.names import ModelName, ModelVersionRef, ProjectName
from rowmint.objects import ObjectStore
from rowmint.registry import ModelLedger, ModelRecord, ModelVersionRecord, VersionState
from rowmint.rpc.caller import sees_unpublished
from rowmint.rpc.converters import schema_to_proto, timestamp
from rowmint.rpc.message_page import MessagePage
from rowmint.rpc.project_threads import ProjectThreads
from rowmint.rpc.server import Service
from rowmint.security.signing import Signature
from rowmint.synthesizer.interface import ConditionSupport, Mechanism, Unit
from rowmint.v1 import model_pb2, model_service_pb2, model_service_pb2_grpc

_STATES = {
    VersionState.STAGED: model_pb2.MODEL_VERSION_STATE_STAGED,
    VersionState.PUBLISHED: model_pb2.MODEL_VERSION_STATE_PUBLISHED,
    VersionState.REJECTED: model_pb2.MODEL_VERSION_STATE_REJECTED,
}
_UNITS = {Unit.ROW: model_pb2.GENERATION_UNIT_ROW, Unit.SEQUENCE: model_pb2.GENERATION_UNIT_SEQUENCE}
_CONDITIONS = {
    ConditionSupport.REJECTION: model_pb2.CONDITION_SUPPORT_REJECTION,
    ConditionSupport.EXACT: model_pb2.CONDITION_SUPPORT_EXACT,
}
_MECHANISMS = {
    Mechanism.DP_SGD: model_pb2.PRIVACY_MECHANISM_DP_SGD,
    Mechanism.NOISY_MARGINALS: model_pb2.PRIVACY_MECHANISM_NOISY_MARGINALS,
}

_SIGNATURE_BYTES = 2048  # about what the signature of a version takes; mostly there is one, or none


def optional(message: Message, field: str) -> Any:
    """Return the value of an `optional` field, or None where it is unset."""
    return getattr(message, field) if message.HasField(field) else None


def model_to_proto(record: ModelRecord) -> model_pb2.Model:
    """Return the message of a model."""
    latest = record.latest
    return model_pb2.Model(
        name=str(record.name),
        latest_version="" if latest is None else f"{record.name}/versions/{latest}",
        aliases=dict(record.aliases),
        create_time=timestamp(record.create_time),
    )


def capabilities_to_proto(declared: Mapping[str, Any] | None) -> model_pb2.Capabilities | None:
    """Return the message of what a manifest declares under ``capabilities``; None where it declares nothing.

    A value that this code does not know, written by newer code, becomes the enum's unspecified value.
    """
    if declared is None:
        return None
    return model_pb2.Capabilities(
        unit=_UNITS.get(declared["unit"], model_pb2.GENERATION_UNIT_UNSPECIFIED),
        conditions=_CONDITIONS.get(declared["conditions"], model_pb2.CONDITION_SUPPORT_UNSPECIFIED),
        likelihood=declared["likelihood"],
        privacy=[_MECHANISMS.get(one, model_pb2.PRIVACY_MECHANISM_UNSPECIFIED) for one in declared["privacy"]],
    )


def model_version_to_proto(
    record: ModelVersionRecord, signatures: Iterable[Signature] = (), manifest: bytes = b""
) -> model_pb2.ModelVersion:
    """Return the message of a version, with the manifest's text where it is given."""
    return model_pb2.ModelVersion(
        name=str(record.name),
        model_digest=record.model_digest,
        manifest_digest=record.manifest_digest,
        family=record.family,
        schema=schema_to_proto(record.schema),
        training_job=record.training_job,
        dataset_digest=record.dataset_digest,
        training_rows=record.training_rows,
        size_bytes=record.manifest_size + record.weights_size,
        manifest_json=manifest.decode(),
        create_time=timestamp(record.create_time),
        version=record.name.version,
        signatures=map(_signature, signatures),
        state=_STATES[record.state],
        rejection_reason=record.rejection_reason,
        capabilities=capabilities_to_proto(record.capabilities),
    )


def _signature(signature: Signature) -> model_pb2.ModelSignature:
    return model_pb2.ModelSignature(key_id=signature.key_id, bundle_json=signature.bundle_json)


def signed_version_to_proto(
    ledger: ModelLedger, record: ModelVersionRecord, manifest: bytes = b""
) -> model_pb2.ModelVersion:
    """Return the message of a version with the signatures that the ledger has of it.

    Raises:
        UnavailableError: The registry cannot be reached.
    """
    version = record.name.version
    return model_version_to_proto(record, ledger.signatures(record.name.parent, [version])[version], manifest)


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """Reads models. Versions that are staged or rejected are shown to callers with role trainer or admin only.

    Args:
        ledger: Models and versions.
        store: The models' store.
        threads: Threads for look-ups in the registry.
        max_page_bytes: Size of a page's messages.
    """

    def __init__(self, ledger: ModelLedger, store: ObjectStore, threads: ProjectThreads, max_page_bytes: int) -> None:
        self._ledger = ledger
        self._store = store
        self._threads = threads
        self._max_page_bytes = max_page_bytes

    async def GetModel(self, request: model_service_pb2.GetModelRequest, context: Any) -> model_pb2.Model:
        """Read one model."""
        name = ModelName.parse(request.name)
        return model_to_proto(await self._threads.run(name.project, self._ledger.get, name))

    async def ListModels(
        self, request: model_service_pb2.ListModelsRequest, context: Any
    ) -> model_service_pb2.ListModelsResponse:
        """List a project's models."""
        project = ProjectName.parse(request.parent).project
        return await self._threads.run(project, self._list, project, request)

    def _list(self, project: str, request: model_service_pb2.ListModelsRequest) -> model_service_pb2.ListModelsResponse:
        listed = MessagePage(model_to_proto, self._max_page_bytes)
        page = self._ledger.list(project, optional(request, "page_size"), request.page_token, listed.fits)
        return model_service_pb2.ListModelsResponse(models=listed.messages, next_page_token=page.next_page_token)

    async def GetModelVersion(
        self, request: model_service_pb2.GetModelVersionRequest, context: Any
    ) -> model_pb2.ModelVersion:
        """Read one version, manifest included."""
        ref = ModelVersionRef.parse(request.name)
        project = ref.model.project
        return await self._threads.run(project, self._read_version, ref, unpublished=sees_unpublished(project))

    def _read_version(self, ref: ModelVersionRef, *, unpublished: bool) -> model_pb2.ModelVersion:
        record = self._ledger.resolve(ref, unpublished=unpublished)
        manifest = self._store.get(record.manifest_key)
        if hashlib.sha256(manifest).digest() != record.manifest_sha256:
            raise DataLossError(
                f"the stored manifest of {record.name} is damaged; restore it or delete the version",
                metadata={"name": str(record.name)},
            )
        return signed_version_to_proto(self._ledger, record, manifest)

    async def ListModelVersions(
        self, request: model_service_pb2.ListModelVersionsRequest, context: Any
    ) -> model_service_pb2.ListModelVersionsResponse:
        """List a model's versions."""
        name = ModelName.parse(request.parent, "parent")
        unpublished = sees_unpublished(name.project)
        return await self._threads.run(name.project, self._list_versions, name, request, unpublished=unpublished)

    def _list_versions(
        self, name: ModelName, request: model_service_pb2.ListModelVersionsRequest, *, unpublished: bool
    ) -> model_service_pb2.ListModelVersionsResponse:
        size = optional(request, "page_size")
        listed = MessagePage(model_version_to_proto, self._max_page_bytes, _SIGNATURE_BYTES)
        page = self._ledger.list_versions(name, size, request.page_token, listed.fits, unpublished=unpublished)
        signatures = self._ledger.signatures(name, [message.version for message in listed.messages])
        for message in listed.messages:
            message.signatures.extend(map(_signature, signatures[message.version]))
        return model_service_pb2.ListModelVersionsResponse(
            model_versions=listed.messages, next_page_token=page.next_page_token
        )


def model_service(ledger: ModelLedger, store: ObjectStore, threads: ProjectThreads, max_page_bytes: int) -> Service:
    """Return the service, ready to join a server; arguments as of `ModelServicer`."""
    servicer = ModelServicer(ledger, store, threads, max_page_bytes)
    return Service(
        "rowmint.v1.ModelService",
        lambda server: model_service_pb2_grpc.add_ModelServiceServicer_to_server(servicer, server),
    )
