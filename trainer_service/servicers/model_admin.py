"""ModelAdminService."""

import asyncio
from typing import Any

from google.protobuf import empty_pb2

from rowmint.names import ModelName, ModelVersionName
from rowmint.objects import ObjectStore
from rowmint.registry import ModelLedger
from rowmint.rpc.models import model_to_proto, optional
from rowmint.v1 import model_admin_service_pb2, model_admin_service_pb2_grpc, model_pb2
from trainer_service.garbage import sweep


class ModelAdminServicer(model_admin_service_pb2_grpc.ModelAdminServiceServicer):
    """Moves aliases and deletes versions.

    Args:
        ledger: Models and versions.
        store: The models' store.
    """

    def __init__(self, ledger: ModelLedger, store: ObjectStore) -> None:
        self._ledger = ledger
        self._store = store

    async def SetModelAlias(
        self, request: model_admin_service_pb2.SetModelAliasRequest, context: Any
    ) -> model_pb2.Model:
        """Point an alias at a version, or remove it."""
        name = ModelName.parse(request.model, "model")
        version = optional(request, "version")
        return model_to_proto(await asyncio.to_thread(self._ledger.set_alias, name, request.alias, version))

    async def DeleteModelVersion(
        self, request: model_admin_service_pb2.DeleteModelVersionRequest, context: Any
    ) -> empty_pb2.Empty:
        """Delete a version and its objects."""
        await asyncio.to_thread(self._delete, ModelVersionName.parse(request.name))
        return empty_pb2.Empty()

    def _delete(self, name: ModelVersionName) -> None:
        sweep(self._ledger, self._store, self._ledger.delete_version(name))
