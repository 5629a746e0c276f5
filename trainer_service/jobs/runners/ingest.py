"""An ingest job: from committed segments to a READY dataset."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from rowmint.errors import (
    CancelledError,
    ColumnNotFoundError,
    DataLossError,
    DataProblem,
    FencedError,
    InvalidDataError,
    InvalidFieldError,
)
from rowmint.failpoints import reach
from rowmint.objects import ObjectStore
from rowmint.registry import CanonicalTable, Registry
from trainer_service.datasets.ingest import ingest, sdv_primary_key
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.segments import SegmentReader
from trainer_service.garbage import sweep, sweep_orphans
from trainer_service.jobs.attempts import Attempt
from trainer_service.jobs.checkpoints import JobCheckpoints
from trainer_service.jobs.stores import Stores
from trainer_service.object_keys import table_key


def run_ingest(
    registry: Registry,
    stores: Stores,
    attempt: Attempt,
    scratch: Path,
    warmed_up: Callable[[], None],
    *,
    limits: IngestLimits | None = None,
    checkpoint_seconds: float = 60.0,
) -> None:
    """Carry out an ingest job: afterwards its dataset is READY, or FAILED with what is wrong.

    Args:
        registry: Where dataset and job are.
        stores: Where the bytes are.
        attempt: The attempt; asked whether to stop.
        scratch: An empty folder.
        warmed_up: Waits until nothing else imports what detecting a primary key imports.
        limits: How large the table and its parts may be; None for the defaults.
        checkpoint_seconds: A first pass that takes longer is not made twice.

    Raises:
        RowmintError: The attempt ended otherwise; the job is not ended yet.
    """
    job = attempt.job
    dataset = registry.datasets.get_by_uid(job.dataset_uid)
    source = SegmentReader(stores.data, registry.datasets.segments(dataset.uid))

    attempt.enter("reading")
    checkpoints = JobCheckpoints(registry, stores.data, attempt, checkpoint_seconds)
    saved = checkpoints.load()

    def joined(types: dict[str, Any]) -> None:
        attempt.enter("converting")
        reach("ingest.types.joined")
        if checkpoints.due():
            checkpoints.save(1, json.dumps(types).encode())

    def propose_key(sample: pa.Table) -> str:
        warmed_up()
        return sdv_primary_key(sample)

    try:
        result = ingest(
            source,
            dataset.format,
            dataset.overrides,
            dataset.primary_key,
            scratch,
            limits=limits,
            types=None if saved is None else json.loads(saved),
            on_types=joined,
            cancelled=attempt.stopped,
            propose_key=propose_key,
        )
    except InvalidDataError as error:
        registry.datasets.mark_failed(dataset.uid, job.uid, job.epoch, error.problems)
        return
    except (ColumnNotFoundError, InvalidFieldError) as error:
        # What was declared does not fit what was uploaded.
        problem = DataProblem(error.message, column=error.metadata.get("column", ""))
        registry.datasets.mark_failed(dataset.uid, job.uid, job.epoch, [problem], reason=error.reason)
        return
    if attempt.stopped():
        raise CancelledError(f"ingest of {dataset.name} was stopped")
    attempt.enter("storing")
    key = table_key(dataset.uid, job.epoch)
    digest = file_sha256(result.path)
    attempt.patiently(lambda _: stores.data.put_file(key, result.path))
    reach("ingest.table.stored")
    table = CanonicalTable(
        schema=result.schema,
        sdv_metadata=result.sdv_metadata,
        row_count=result.row_count,
        object_key=key,
        size=result.path.stat().st_size,
        sha256=digest,
        profile=result.profile,
    )
    try:
        raw = registry.datasets.mark_ready(dataset.uid, job.uid, job.epoch, table)
    except FencedError:
        # The table is nobody's, unless it is this attempt's second try; its dataset may have been deleted, and then no
        # row of it may stay.
        sweep_orphans(registry, stores.data, [key])
        raise
    reach("ingest.ready")
    sweep(registry.datasets, stores.data, raw)


def file_sha256(path: Path) -> bytes:
    """Return the SHA-256 of a file, 32 bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def fetch_verified(store: ObjectStore, key: str, digest: bytes, path: Path) -> None:
    """Fetch an object into a file.

    Raises:
        DataLossError: It does not have the SHA-256 `digest`.
    """
    store.fetch(key, path)
    if file_sha256(path) != digest:
        raise DataLossError("the stored table does not have the digest the registry says; upload the dataset again")
