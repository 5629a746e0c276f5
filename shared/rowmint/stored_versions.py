"""The stored files of a model version, verified against the registry."""

import hashlib

from rowmint.errors import DataLossError
from rowmint.objects import ObjectStore
from rowmint.registry import ModelVersionRecord


def stored_files(store: ObjectStore, record: ModelVersionRecord) -> tuple[bytes, bytes]:
    """Return the bytes of a version's `manifest.json` and `weights.safetensors`.

    Args:
        store: Object store of the models.
        record: The version's record in the registry.

    Raises:
        DataLossError: A file is missing, or its size or SHA-256 differs from the registry's.
        UnavailableError: The store cannot be reached.
    """

    def read(part: str, key: str, size: int, sha256: bytes) -> bytes:
        data = store.get(key)
        if len(data) != size or hashlib.sha256(data).digest() != sha256:
            raise DataLossError(
                f"the stored {part} of {record.name} is corrupt: its size or digest does not match the registry;"
                " restore it from a backup, or delete the version",
                metadata={"name": str(record.name)},
            )
        return data

    return (
        read("manifest", record.manifest_key, record.manifest_size, record.manifest_sha256),
        read("weights", record.weights_key, record.weights_size, record.weights_sha256),
    )
