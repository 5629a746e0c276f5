"""ModelAdminService."""

import unicodedata
from typing import Any

from google.protobuf import empty_pb2

from rowmint.errors import InvalidFieldError
from rowmint.failpoints import reach
from rowmint.names import ModelName, ModelVersionName
from rowmint.registry import ModelLedger
from rowmint.rpc.models import model_to_proto, optional, signed_version_to_proto
from rowmint.rpc.project_threads import ProjectThreads
from rowmint.v1 import model_admin_service_pb2, model_admin_service_pb2_grpc, model_pb2
from trainer_service.signer import VersionSigner

MAX_REASON = 1000
"""Characters that a reason of a rejection may have."""


class ModelAdminServicer(model_admin_service_pb2_grpc.ModelAdminServiceServicer):
    """Promotes and rejects staged versions, moves aliases, deletes, restores and signs versions.

    Args:
        ledger: Models and versions.
        keep_seconds: How long a deleted version can be restored.
        signer: Signs versions.
        threads: Threads for what the registry does.
    """

    def __init__(
        self, ledger: ModelLedger, keep_seconds: float, signer: VersionSigner, threads: ProjectThreads
    ) -> None:
        self._ledger = ledger
        self._keep_seconds = keep_seconds
        self._signer = signer
        self._threads = threads

    async def PromoteModelVersion(
        self, request: model_admin_service_pb2.PromoteModelVersionRequest, context: Any
    ) -> model_pb2.ModelVersion:
        """Publish a staged version."""
        name = ModelVersionName.parse(request.name)
        record = await self._threads.run(name.project, self._ledger.promote, name)
        return await self._threads.run(name.project, signed_version_to_proto, self._ledger, record)

    async def RejectModelVersion(
        self, request: model_admin_service_pb2.RejectModelVersionRequest, context: Any
    ) -> model_pb2.ModelVersion:
        """Reject a staged version."""
        name = ModelVersionName.parse(request.name)
        record = await self._threads.run(name.project, self._ledger.reject, name, _reason(request.reason))
        return await self._threads.run(name.project, signed_version_to_proto, self._ledger, record)

    async def SetModelAlias(
        self, request: model_admin_service_pb2.SetModelAliasRequest, context: Any
    ) -> model_pb2.Model:
        """Point an alias at a version, or remove it."""
        name = ModelName.parse(request.model, "model")
        version = optional(request, "version")
        found = await self._threads.run(name.project, self._ledger.set_alias, name, request.alias, version)
        reach("alias.moved")
        return model_to_proto(found)

    async def DeleteModelVersion(
        self, request: model_admin_service_pb2.DeleteModelVersionRequest, context: Any
    ) -> empty_pb2.Empty:
        """Delete a version; its objects are purged later."""
        name = ModelVersionName.parse(request.name)
        await self._threads.run(name.project, self._ledger.delete_version, name, self._keep_seconds)
        reach("delete.committed")
        return empty_pb2.Empty()

    async def UndeleteModelVersion(
        self, request: model_admin_service_pb2.UndeleteModelVersionRequest, context: Any
    ) -> model_pb2.ModelVersion:
        """Restore a deleted version."""
        name = ModelVersionName.parse(request.name)
        record = await self._threads.run(name.project, self._ledger.undelete_version, name)
        return await self._threads.run(name.project, signed_version_to_proto, self._ledger, record)

    async def SignModelVersion(
        self, request: model_admin_service_pb2.SignModelVersionRequest, context: Any
    ) -> model_pb2.ModelVersion:
        """Sign a version."""
        name = ModelVersionName.parse(request.name)
        record = await self._threads.run(name.project, self._signer.sign, name)
        return await self._threads.run(name.project, signed_version_to_proto, self._ledger, record)


def _reason(text: str) -> str:
    """Return the reason of a rejection.

    Raises:
        InvalidFieldError: It is blank or too long, or holds a control character other than tab and line feed.
    """
    if not text.strip():
        raise InvalidFieldError("reason", "is required; say why the version is rejected")
    if len(text) > MAX_REASON:
        raise InvalidFieldError("reason", f"has {len(text):,} characters; at most {MAX_REASON:,}")
    if any(unicodedata.category(character) == "Cc" for character in text if character not in "\t\n"):
        raise InvalidFieldError("reason", "holds a control character; leave it out")
    return text
