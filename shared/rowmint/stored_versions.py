"""The stored files of a published version, taken for what they are only where they are what the registry says."""

import hashlib

from rowmint.errors import DataLossError
from rowmint.objects import ObjectStore
from rowmint.registry import ModelVersionRecord


def stored_files(store: ObjectStore, record: ModelVersionRecord) -> tuple[bytes, bytes]:
    """Return the bytes of a version's `manifest.json` and of its `weights.safetensors`.

    Args:
        store: The models' store.
        record: What the registry says of the version.

    Raises:
        DataLossError: A file is missing, or has not the size or SHA-256 that the registry says.
        UnavailableError: The store cannot be reached.
    """

    def read(part: str, key: str, size: int, sha256: bytes) -> bytes:
        data = store.get(key)
        if len(data) != size or hashlib.sha256(data).digest() != sha256:
            raise DataLossError(
                f"the stored {part} of {record.name} is damaged: size or digest is not what the registry says; restore"
                " it or delete the version",
                metadata={"name": str(record.name)},
            )
        return data

    return (
        read("manifest", record.manifest_key, record.manifest_size, record.manifest_sha256),
        read("weights", record.weights_key, record.weights_size, record.weights_sha256),
    )
