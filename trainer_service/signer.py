"""Signing of model versions: the key in use, and signing of versions that are already published."""

from collections.abc import Callable
from pathlib import Path

from rowmint.artifact import read_manifest
from rowmint.errors import DataLossError, WrongStateError
from rowmint.names import ModelVersionName, ModelVersionRef
from rowmint.objects import ObjectStore
from rowmint.registry import ModelLedger, ModelVersionRecord
from rowmint.security.reloaded_file import ReloadedFile
from rowmint.security.signing import SigningKey, Statement
from rowmint.stored_versions import stored_files

KeySource = Callable[[], SigningKey]
"""Returns the current signing key."""


def open_signing_key(path: str) -> KeySource | None:
    """Return a source of the key in a file, which is reloaded when it changes; None without a path.

    Args:
        path: `ROWMINT_SIGNING_KEY`.

    Raises:
        UnavailableError: The file cannot be read.
        InvalidFieldError: It does not contain a signing key.
    """
    if not path:
        return None
    file = ReloadedFile([Path(path)], lambda contents: SigningKey.parse(contents[0]), "ROWMINT_SIGNING_KEY")
    return lambda: file.value


class VersionSigner:
    """Signs stored versions, in whatever state. Thread-safe.

    Args:
        ledger: Models and versions.
        store: Object store of the models.
        key: Returns the current key; None if the trainer has none.
    """

    def __init__(self, ledger: ModelLedger, store: ObjectStore, key: KeySource | None) -> None:
        self._ledger = ledger
        self._store = store
        self._key = key

    def sign(self, name: ModelVersionName) -> ModelVersionRecord:
        """Sign a version, after checking that its stored files match the registry. Idempotent.

        Raises:
            WrongStateError: The trainer has no signing key.
            ResourceNotFoundError: There is no such version.
            DataLossError: A stored file is corrupt.
            UnavailableError: The registry or the object store cannot be reached.
        """
        if self._key is None:
            raise WrongStateError(
                f"{name} cannot be signed: this trainer has no signing key; create one (`rowmint keys signing"
                " FOLDER`), set ROWMINT_SIGNING_KEY to its signing-key.pem, and restart the trainer"
            )
        record = self._ledger.resolve(ModelVersionRef(name.parent, version=name.version), unpublished=True)
        manifest, _ = stored_files(self._store, record)
        try:
            weights_sha256 = read_manifest(manifest, record.manifest_digest)["generator"]["weights"]["sha256"]
        except (DataLossError, KeyError, TypeError) as error:
            raise _mismatch_error(record) from error
        if weights_sha256 != record.weights_sha256.hex():
            raise _mismatch_error(record)
        statement = Statement(name.parent, record.manifest_digest, record.weights_sha256)
        self._ledger.sign(name, self._key().sign(statement))
        return record


def _mismatch_error(record: ModelVersionRecord) -> DataLossError:
    return DataLossError(
        f"the stored manifest of {record.name} does not match the registry, so the version was not signed; restore the"
        " manifest from a backup, or delete the version",
        metadata={"name": str(record.name)},
    )
