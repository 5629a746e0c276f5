"""An ingest job: from committed segments to a READY dataset."""

import json
from enum import StrEnum
from typing import Any

from rowmint.errors import (
    CancelledError,
    ColumnNotFoundError,
    DataProblem,
    DigestMismatchError,
    FencedError,
    InvalidDataError,
    InvalidFieldError,
)
from rowmint.failpoints import reach
from rowmint.registry import CanonicalTable, JobKind, Part
from trainer_service.datasets.ingest import ingest
from trainer_service.datasets.segments import SegmentReader, verify_upload
from trainer_service.datasets.table_options import TableOptions
from trainer_service.garbage import sweep, sweep_own
from trainer_service.jobs.attempts import Attempt
from trainer_service.jobs.checkpoints import JobCheckpoints
from trainer_service.jobs.runner import JobOutputs
from trainer_service.jobs.services import JobServices
from trainer_service.memory import ran_out_of_memory
from trainer_service.object_keys import table_key
from trainer_service.store_claims import mark_progress
from trainer_service.tables import file_sha256


class IngestPhase(StrEnum):
    """What an ingest is at."""

    VERIFYING = "verifying"
    READING = "reading"
    CONVERTING = "converting"
    STORING = "storing"


class IngestRunner:
    """Ingests datasets: afterwards one is READY, or FAILED with what is wrong."""

    kind = JobKind.INGEST
    phases = tuple(IngestPhase)

    def run(self, attempt: Attempt, services: JobServices) -> JobOutputs:
        """Verify and read the uploaded bytes, write the canonical table, and store it; see `JobRunner.run`."""
        registry, stores = services.registry, services.stores
        job = attempt.job
        dataset = registry.datasets.get_by_uid(job.dataset_uid)
        segments = registry.datasets.segments(dataset.uid)
        source = SegmentReader(stores.data, segments)

        attempt.enter(IngestPhase.VERIFYING)
        checkpoints = JobCheckpoints(registry, stores.data, attempt, services.checkpoint_seconds)
        saved = checkpoints.load()
        if saved is None:  # Else an earlier attempt verified the bytes before it read them.
            try:
                verify_upload(stores.data, segments, dataset.sha256 or b"", attempt.stopped)
            except DigestMismatchError as error:
                problem = DataProblem(error.message)
                registry.datasets.mark_failed(dataset.uid, job.uid, job.epoch, [problem], reason=error.reason)
                return {}
        reach("ingest.verified")
        attempt.enter(IngestPhase.READING)

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
            if ran_out_of_memory(error):
                raise  # What a reader could not hold is not what is wrong with the bytes.
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
