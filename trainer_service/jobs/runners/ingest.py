"""An ingest job: from committed segments to a READY dataset."""

import json
from enum import StrEnum
from typing import Any

from rowmint.errors import (
    CancelledError,
    ColumnNotFoundError,
    DataProblem,
    FencedError,
    InvalidDataError,
    InvalidFieldError,
)
from rowmint.failpoints import reach
from rowmint.registry import CanonicalTable, JobKind, Part
from trainer_service.datasets.ingest import ingest
from trainer_service.datasets.segments import SegmentReader
from trainer_service.datasets.table_options import TableOptions
from trainer_service.garbage import sweep, sweep_own
from trainer_service.jobs.attempts import Attempt
from trainer_service.jobs.checkpoints import JobCheckpoints
from trainer_service.jobs.runner import JobOutputs
from trainer_service.jobs.services import JobServices
from trainer_service.object_keys import table_key
from trainer_service.store_claims import mark_progress
from trainer_service.tables import file_sha256


class IngestPhase(StrEnum):
    """What an ingest is at."""

    READING = "reading"
    CONVERTING = "converting"
    STORING = "storing"


class IngestRunner:
    """Ingests datasets: afterwards one is READY, or FAILED with what is wrong."""

    kind = JobKind.INGEST
    phases = tuple(IngestPhase)

    def run(self, attempt: Attempt, services: JobServices) -> JobOutputs:
        """Read the uploaded bytes, write the canonical table, and store it; see `JobRunner.run`."""
        registry, stores = services.registry, services.stores
        job = attempt.job
        dataset = registry.datasets.get_by_uid(job.dataset_uid)
        source = SegmentReader(stores.data, registry.datasets.segments(dataset.uid))

        attempt.enter(IngestPhase.READING)
        checkpoints = JobCheckpoints(registry, stores.data, attempt, services.checkpoint_seconds)
        saved = checkpoints.load()

        def joined(types: dict[str, Any]) -> None:
            attempt.enter(IngestPhase.CONVERTING)
            reach("ingest.types.joined")
            # A first pass that took longer than the pause is not made twice.
            if checkpoints.due():
                checkpoints.save(1, json.dumps(types).encode())

        try:
            result = ingest(
                source,
                dataset.format,
                dataset.overrides,
                dataset.primary_key,
                services.scratch,
                options=TableOptions.from_json(dataset.format.get("table", {})),
                limits=services.limits,
                types=None if saved is None else json.loads(saved),
                on_types=joined,
                cancelled=attempt.stopped,
            )
        except InvalidDataError as error:
            registry.datasets.mark_failed(dataset.uid, job.uid, job.epoch, error.problems)
            return {}
        except (ColumnNotFoundError, InvalidFieldError) as error:
            # What was declared does not fit what was uploaded.
            problem = DataProblem(error.message, column=error.metadata.get("column", ""))
            registry.datasets.mark_failed(dataset.uid, job.uid, job.epoch, [problem], reason=error.reason)
            return {}
        if attempt.stopped():
            raise CancelledError(f"ingest of {dataset.name} was stopped")
        attempt.enter(IngestPhase.STORING)
        key = table_key(dataset.uid, job.epoch)
        digest = file_sha256(result.path)
        attempt.store(lambda: stores.data.put_file(key, result.path))
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
            # Nothing names the table, unless this is a repeated call; its dataset may have been deleted, and then no
            # row of it may stay.
            sweep_own(registry, stores.data, [key])
            raise
        reach("ingest.ready")
        mark_progress(registry, stores, Part.DATA)
        sweep(registry.datasets, stores.data, raw)
        return {}
