"""Models and versions: read, name, delete."""

from collections.abc import Iterator

from rowmint.client.connection import Calls
from rowmint.v1 import model_admin_service_pb2, model_pb2, model_service_pb2
from rowmint.v1.model_admin_service_pb2_grpc import ModelAdminServiceStub
from rowmint.v1.model_service_pb2_grpc import ModelServiceStub


class ModelCalls(Calls):
    """The part of the client that is about models. Reading asks the sampler, changing the trainer."""

    def get_model(self, model: str) -> model_pb2.Model:
        """Read one model by name or id."""
        request = model_service_pb2.GetModelRequest(name=self._full_name(model, "models"))
        return self._connection.call_sampler(lambda channel: ModelServiceStub(channel).GetModel, request)

    def list_models(self) -> Iterator[model_pb2.Model]:
        """Yield the project's models by name."""
        token = ""
        while True:
            request = model_service_pb2.ListModelsRequest(parent=self.project, page_token=token)
            page = self._connection.call_sampler(lambda channel: ModelServiceStub(channel).ListModels, request)
            yield from page.models
            token = page.next_page_token
            if not token:
                return

    def get_version(self, version: str) -> model_pb2.ModelVersion:
        """Read one version.

        Args:
            version: Its name; or a model, by name or id, bare for its latest version or with `@alias` or
                `@sha256:digest`.
        """
        name = self._full_name(version, "models")
        bare = "@" not in name and "/versions/" not in name
        request = model_service_pb2.GetModelVersionRequest(name=f"{name}@latest" if bare else name)
        return self._connection.call_sampler(lambda channel: ModelServiceStub(channel).GetModelVersion, request)

    def list_versions(self, model: str) -> Iterator[model_pb2.ModelVersion]:
        """Yield a model's versions, newest first, without their manifests."""
        parent = self._full_name(model, "models")
        token = ""
        while True:
            request = model_service_pb2.ListModelVersionsRequest(parent=parent, page_token=token)
            page = self._connection.call_sampler(lambda channel: ModelServiceStub(channel).ListModelVersions, request)
            yield from page.model_versions
            token = page.next_page_token
            if not token:
                return

    def set_alias(self, model: str, alias: str, version: int | None) -> model_pb2.Model:
        """Point an alias at a version, or remove it.

        Args:
            model: The model's name or id.
            alias: The alias; not `latest`, which publishing moves.
            version: The version number; None removes the alias.
        """
        request = model_admin_service_pb2.SetModelAliasRequest(
            model=self._full_name(model, "models"), alias=alias, version=version
        )
        return self._connection.call_trainer(lambda channel: ModelAdminServiceStub(channel).SetModelAlias, request)

    def delete_version(self, version: str) -> None:
        """Delete a version, named by number; refused while an alias other than `latest` points at it.

        Streams that have begun go on, and `undelete_version` brings it back until it is purged.
        """
        request = model_admin_service_pb2.DeleteModelVersionRequest(name=self._full_name(version, "models"))
        self._connection.delete_on_trainer(lambda channel: ModelAdminServiceStub(channel).DeleteModelVersion, request)

    def undelete_version(self, version: str) -> model_pb2.ModelVersion:
        """Bring a deleted version back, named by number; harmless where it is not deleted."""
        request = model_admin_service_pb2.UndeleteModelVersionRequest(name=self._full_name(version, "models"))
        return self._connection.call_trainer(
            lambda channel: ModelAdminServiceStub(channel).UndeleteModelVersion, request
        )
