"""Canonical tables, fetched from the data store."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from rowmint.errors import DataLossError, WrongStateError
from rowmint.objects import ObjectStore
from rowmint.registry import DatasetLedger, DatasetRecord
from rowmint.schema import TableSchema


@dataclass(frozen=True)
class FetchedTable:
    """The table of a READY dataset, as a local file.

    Attributes:
        dataset: The dataset.
        schema: Its schema; every column has a type.
        path: The table's Parquet file.
    """

    dataset: DatasetRecord
    schema: TableSchema
    path: Path


def fetch_table(ledger: DatasetLedger, store: ObjectStore, dataset_uid: str, folder: Path) -> FetchedTable:
    """Return the table of a READY dataset, fetched into `folder`.

    Raises:
        DataLossError: The stored table is not the one that the registry names.
        ResourceNotFoundError: The dataset is gone.
        UnavailableError: Registry or store cannot be used now.
        WrongStateError: The dataset is not READY.
    """
    dataset = ledger.get_by_uid(dataset_uid)
    if dataset.schema is None or dataset.canonical_key is None or dataset.canonical_sha256 is None:
        raise WrongStateError(f"{dataset.name} is {dataset.state}, not READY", metadata={"state": dataset.state})
    path = folder / "table.parquet"
    store.fetch(dataset.canonical_key, path)
    if file_sha256(path) != dataset.canonical_sha256:
        raise DataLossError("the stored table does not have the digest in the registry; upload the dataset again")
    return FetchedTable(dataset, dataset.schema, path)


def file_sha256(path: Path) -> bytes:
    """Return the SHA-256 of a file, 32 bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
