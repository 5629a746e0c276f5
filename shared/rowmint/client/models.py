"""Models and versions: read, verify, promote, reject, name, sign, delete."""

import hashlib
import json
from collections.abc import Iterator

from rowmint.client.connection import Calls, pages
from rowmint.errors import DataLossError
from rowmint.names import ModelVersionName, ModelVersionRef
from rowmint.security.signing import Signature, Statement, TrustedKeys
from rowmint.v1 import model_admin_service_pb2, model_pb2, model_service_pb2
from rowmint.v1.model_admin_service_pb2_grpc import ModelAdminServiceStub
from rowmint.v1.model_service_pb2_grpc import ModelServiceStub


class ModelCalls(Calls):
    """The part of the client that is about models. Reads call the sampler, changes the trainer."""

    def get_model(self, model: str) -> model_pb2.Model:
        """Read one model by name or id."""
        request = model_service_pb2.GetModelRequest(name=self._full_name(model, "models"))
        return self._connection.call_sampler(lambda channel: ModelServiceStub(channel).GetModel, request)

    def list_models(self) -> Iterator[model_pb2.Model]:
        """Yield the project's models by name."""

        def page(token: str) -> model_service_pb2.ListModelsResponse:
            request = model_service_pb2.ListModelsRequest(parent=self.project, page_token=token)
            return self._connection.call_sampler(lambda channel: ModelServiceStub(channel).ListModels, request)

        for one in pages(page):
            yield from one.models

    def get_version(self, version: str) -> model_pb2.ModelVersion:
        """Read one version.

        Args:
            version: Its name; or a model, by name or id, bare for its latest version or with `@alias` or
                `@sha256:digest`.
        """
        request = model_service_pb2.GetModelVersionRequest(name=self._version_name(version))
        return self._connection.call_sampler(lambda channel: ModelServiceStub(channel).GetModelVersion, request)

    def verify_version(self, version: str, trusted_keys: bytes) -> str:
        """Read one version and return the name of a trusted key that has signed it.

        Neither service is trusted: what is verified is the manifest that it returns, under the model's name that was
        requested. The weights are verified when they are loaded, against the digest in the manifest.

        Args:
            version: As for `get_version`.
            trusted_keys: Ed25519 public keys, PEM, one after the other.

        Returns:
            The SHA-256 of the key's DER form, 64 hex digits.

        Raises:
            UntrustedModelError: No trusted key has.
            DataLossError: The service returns something else than a manifest, or the manifest of another version.
            InvalidFieldError: `trusted_keys` holds something else.
        """
        keys = TrustedKeys.parse(trusted_keys)
        found = self.get_version(version)
        manifest = found.manifest_json.encode()
        try:
            body = json.loads(manifest)
            weights = bytes.fromhex(body["generator"]["weights"]["sha256"])
            same = body["model_digest"] == found.model_digest.hex()
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise DataLossError(f"the service does not return a manifest of {found.name}") from error
        if not same:
            raise DataLossError(f"the service reports another model digest of {found.name} than its manifest does")
        model = ModelVersionRef.parse(self._version_name(version)).model
        statement = Statement(model, hashlib.sha256(manifest).digest(), weights)
        signatures = [Signature(one.key_id, one.bundle_json) for one in found.signatures]
        return keys.require(statement, signatures, ModelVersionName.parse(found.name))

    def _version_name(self, version: str) -> str:
        name = self._full_name(version, "models")
        bare = "@" not in name and "/versions/" not in name
        return f"{name}@latest" if bare else name

    def list_versions(self, model: str) -> Iterator[model_pb2.ModelVersion]:
        """Yield a model's versions, newest first, without their manifests.

        Those that are staged or rejected are among them where the caller has role trainer or admin.
        """
        parent = self._full_name(model, "models")

        def page(token: str) -> model_service_pb2.ListModelVersionsResponse:
            request = model_service_pb2.ListModelVersionsRequest(parent=parent, page_token=token)
            return self._connection.call_sampler(lambda channel: ModelServiceStub(channel).ListModelVersions, request)

        for one in pages(page):
            yield from one.model_versions

    def promote_version(self, version: str) -> model_pb2.ModelVersion:
        """Publish a staged version, named by number. Idempotent; refused where it was rejected.

        `latest` moves to it unless a newer version is published.
        """
        request = model_admin_service_pb2.PromoteModelVersionRequest(name=self._full_name(version, "models"))
        return self._connection.call_trainer(
            lambda channel: ModelAdminServiceStub(channel).PromoteModelVersion, request
        )

    def reject_version(self, version: str, reason: str) -> model_pb2.ModelVersion:
        """Reject a staged version, named by number: it is never served. Refused where it is published.

        Args:
            version: Its name; short forms stand in the client's project.
            reason: Why, for people to read; 1 to 1,000 characters. Of several rejections the first one's is kept.
        """
        request = model_admin_service_pb2.RejectModelVersionRequest(
            name=self._full_name(version, "models"), reason=reason
        )
        return self._connection.call_trainer(lambda channel: ModelAdminServiceStub(channel).RejectModelVersion, request)

    def set_alias(self, model: str, alias: str, version: int | None) -> model_pb2.Model:
        """Point an alias at a version, or remove it.

        Args:
            model: The model's name or id.
            alias: The alias; not `latest`, which is moved by publishing and promoting.
            version: The version number; None removes the alias.
        """
        request = model_admin_service_pb2.SetModelAliasRequest(
            model=self._full_name(model, "models"), alias=alias, version=version
        )
        return self._connection.call_trainer(lambda channel: ModelAdminServiceStub(channel).SetModelAlias, request)

    def delete_version(self, version: str) -> None:
        """Delete a version, named by number; refused while an alias other than `latest` points at it.

        Streams that have begun continue, and `undelete_version` restores it until it is purged.
        """
        request = model_admin_service_pb2.DeleteModelVersionRequest(name=self._full_name(version, "models"))
        self._connection.delete_on_trainer(lambda channel: ModelAdminServiceStub(channel).DeleteModelVersion, request)

    def undelete_version(self, version: str) -> model_pb2.ModelVersion:
        """Restore a deleted version, named by number. Idempotent."""
        request = model_admin_service_pb2.UndeleteModelVersionRequest(name=self._full_name(version, "models"))
        return self._connection.call_trainer(
            lambda channel: ModelAdminServiceStub(channel).UndeleteModelVersion, request
        )

    def sign_version(self, version: str) -> model_pb2.ModelVersion:
        """Have the trainer sign a version, named by number, with its key. Idempotent.

        The trainer signs what is stored now; `verify_version` checks whether that is what another key has signed.
        """
        request = model_admin_service_pb2.SignModelVersionRequest(name=self._full_name(version, "models"))
        return self._connection.call_trainer(lambda channel: ModelAdminServiceStub(channel).SignModelVersion, request)
