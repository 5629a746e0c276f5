"""Signing versions: the key, and signatures of versions that are stored already."""

from collections.abc import Callable
from pathlib import Path

from rowmint.artifact import read_manifest
from rowmint.errors import DataLossError, WrongStateError
from rowmint.names import ModelVersionName, ModelVersionRef
from rowmint.objects import ObjectStore
from rowmint.registry import ModelLedger, ModelVersionRecord
from rowmint.security.signing import SigningKey, Statement
from rowmint.security.watched import Watched
from rowmint.stored_versions import stored_files

KeySource = Callable[[], SigningKey]
"""Returns the key to sign with now."""


def watch_signing_key(path: str) -> KeySource | None:
    """Return a source of the key in a file, read again when the file changes, or None where no file is named.

    Args:
        path: `ROWMINT_SIGNING_KEY`.

    Raises:
        UnavailableError: The file cannot be read.
        InvalidFieldError: It does not hold such a key.
    """
    if not path:
        return None
    watched = Watched([Path(path)], lambda contents: SigningKey.parse(contents[0]), "ROWMINT_SIGNING_KEY")
    return lambda: watched.value


class VersionSigner:
    """Signs stored versions, in whatever state. Safe to use from any thread.

    Args:
        ledger: Models and versions.
        store: The models' store.
        key: Returns the key; None where none is configured.
    """

    def __init__(self, ledger: ModelLedger, store: ObjectStore, key: KeySource | None) -> None:
        self._ledger = ledger
        self._store = store
        self._key = key

    def sign(self, name: ModelVersionName) -> ModelVersionRecord:
        """Sign a version whose stored files are what the registry says. Idempotent.

        Raises:
            WrongStateError: No key is configured.
            ResourceNotFoundError: There is no such version.
            DataLossError: A file is damaged.
            UnavailableError: Registry or store cannot be reached.
        """
        if self._key is None:
            raise WrongStateError(
                f"{name} cannot be signed: this trainer has no signing key; make one (`rowmint keys signing FOLDER`),"
                " set ROWMINT_SIGNING_KEY to its signing-key.pem, and restart the trainer"
            )
        record = self._ledger.resolve(ModelVersionRef(name.parent, version=name.version), unpublished=True)
        manifest, _ = stored_files(self._store, record)
        try:
            said = read_manifest(manifest, record.manifest_digest)["generator"]["weights"]["sha256"]
        except (DataLossError, KeyError, TypeError) as error:
            raise _damaged(record) from error
        if said != record.weights_sha256.hex():
            raise _damaged(record)
        statement = Statement(name.parent, record.manifest_digest, record.weights_sha256)
        self._ledger.sign(name, self._key().sign(statement))
        return record


def _damaged(record: ModelVersionRecord) -> DataLossError:
    return DataLossError(
        f"the stored manifest of {record.name} is not what the registry says, and is not signed; restore it or delete"
        " the version",
        metadata={"name": str(record.name)},
    )
