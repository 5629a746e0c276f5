"""TrainingService."""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, Protocol

from rowmint.errors import (
    FieldViolation,
    InvalidFieldError,
    Reason,
    RowmintError,
    WrongStateError,
)
from rowmint.names import DatasetName, ModelName, ProjectName, TrainingJobName, validate_id
from rowmint.registry import DatasetRecord, DatasetState, JobRecord, Registry
from rowmint.rpc.models import optional
from rowmint.v1 import training_job_pb2, training_service_pb2, training_service_pb2_grpc
from trainer_service.config import TrainingConfig, to_json, validate_against
from trainer_service.converters.config import config_from_proto, config_to_proto
from trainer_service.converters.jobs import event_to_proto, job_to_proto

_WATCH_SECONDS = 0.1


class Estimator(Protocol):
    """Answers what a job would cost."""

    async def estimate(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the worker's answer to the command `body`."""
        ...


class TrainingServicer(training_service_pb2_grpc.TrainingServiceServicer):
    """Fits models in jobs.

    Args:
        registry: Datasets and jobs.
        estimator: Answers what a job would cost.
        wake: Called when a job was created.
        threads: CPU threads of a job that does not say.
    """

    def __init__(self, registry: Registry, estimator: Estimator, wake: Callable[[], None], threads: int) -> None:
        self._registry = registry
        self._estimator = estimator
        self._wake = wake
        self._threads = threads

    async def CreateTrainingJob(
        self, request: training_service_pb2.CreateTrainingJobRequest, context: Any
    ) -> training_service_pb2.CreateTrainingJobResponse:
        """Start a job, or only check it and say what it would cost."""
        project = ProjectName.parse(request.parent).project
        if request.training_job_id:
            validate_id(request.training_job_id, "training_job_id")
        job = request.training_job
        dataset_name = DatasetName.parse(job.dataset, "training_job.dataset")
        model = ModelName.parse(job.model, "training_job.model")
        if {dataset_name.project, model.project} != {project}:
            raise InvalidFieldError("training_job", f"dataset and model must be in {request.parent}")
        config = config_from_proto(job.config, seed=secrets.randbits(64), threads=self._threads)
        dataset = await asyncio.to_thread(self._registry.datasets.get, dataset_name)
        if dataset.state is not DatasetState.READY or dataset.schema is None or dataset.row_count is None:
            raise WrongStateError(
                f"{dataset_name} is {dataset.state}; a job needs it READY: finish the upload and wait",
                metadata={"state": dataset.state},
            )
        validate_against(config, dataset.schema, dataset.row_count)
        if request.validate_only:
            return await self._estimate(dataset, job, config)
        record = await asyncio.to_thread(
            self._registry.jobs.create,
            project,
            request.training_job_id,
            config=to_json(config),
            dataset_uid=dataset.uid,
            dataset=str(dataset_name),
            model=str(model),
            request_id=request.request_id,
            # A drawn seed is no part of the body: a repeated request must find it unchanged.
            request_digest=_digest(request, config if job.config.HasField("seed") else replace(config, seed=0)),
        )
        self._wake()
        return training_service_pb2.CreateTrainingJobResponse(training_job=job_to_proto(record))

    async def _estimate(
        self, dataset: DatasetRecord, job: training_job_pb2.TrainingJob, config: TrainingConfig
    ) -> training_service_pb2.CreateTrainingJobResponse:
        body = {"do": "estimate", "dataset_uid": dataset.uid, "config": to_json(config)}
        answer = await self._estimator.estimate(body)
        if "error" in answer:
            raise _error_from(answer["error"])
        return training_service_pb2.CreateTrainingJobResponse(
            training_job=training_job_pb2.TrainingJob(
                dataset=job.dataset, model=job.model, config=config_to_proto(config)
            ),
            estimate=training_job_pb2.TrainingEstimate(**answer),
        )

    async def GetTrainingJob(
        self, request: training_service_pb2.GetTrainingJobRequest, context: Any
    ) -> training_job_pb2.TrainingJob:
        """Read one job."""
        return await asyncio.to_thread(self._read, TrainingJobName.parse(request.name))

    def _read(self, name: TrainingJobName) -> training_job_pb2.TrainingJob:
        job = self._registry.jobs.get(name)
        # An epoch's event is among the last few: those after it are state changes.
        last = self._registry.jobs.events_after(job.uid, max(0, job.event_count - 8))
        progress = next((event.payload["progress"] for event in reversed(last) if "progress" in event.payload), None)
        return job_to_proto(job, progress)

    async def ListTrainingJobs(
        self, request: training_service_pb2.ListTrainingJobsRequest, context: Any
    ) -> training_service_pb2.ListTrainingJobsResponse:
        """List a project's jobs."""
        project = ProjectName.parse(request.parent).project
        size = optional(request, "page_size")
        page = await asyncio.to_thread(self._registry.jobs.list, project, size, request.page_token)
        return training_service_pb2.ListTrainingJobsResponse(
            training_jobs=[job_to_proto(job) for job in page.items], next_page_token=page.next_page_token
        )

    async def CancelTrainingJob(
        self, request: training_service_pb2.CancelTrainingJobRequest, context: Any
    ) -> training_job_pb2.TrainingJob:
        """Ask a job to stop."""
        name = TrainingJobName.parse(request.name)
        return job_to_proto(await asyncio.to_thread(self._registry.jobs.cancel_request, name))

    async def WatchTrainingJob(
        self, request: training_service_pb2.WatchTrainingJobRequest, context: Any
    ) -> AsyncIterator[training_job_pb2.TrainingEvent]:
        """Stream a job's events until it ends."""
        after = request.after_sequence if request.HasField("after_sequence") else 0
        if after < 0:
            raise InvalidFieldError("after_sequence", f"is {after}; must be 0 or more")
        job = await asyncio.to_thread(self._registry.jobs.get, TrainingJobName.parse(request.name))
        while True:
            job, events = await asyncio.to_thread(self._news, job, after)
            for event in events:
                after = event.sequence
                yield event
            if job.state.ended and after >= job.event_count:
                return
            if not events:
                await asyncio.sleep(_WATCH_SECONDS)

    def _news(self, job: JobRecord, after: int) -> tuple[JobRecord, list[training_job_pb2.TrainingEvent]]:
        # The job first: events written since are then simply seen in the next round.
        job = self._registry.jobs.get_by_uid(job.uid)
        events = self._registry.jobs.events_after(job.uid, after)
        return job, [event_to_proto(event, job.model) for event in events]


def _digest(request: training_service_pb2.CreateTrainingJobRequest, config: TrainingConfig) -> bytes:
    """Return the digest of all that the request says, as it was understood."""
    job = request.training_job
    body = (request.parent, request.training_job_id, job.dataset, job.model, repr(config))
    return hashlib.sha256("\0".join(body).encode()).digest()


def _error_from(body: dict[str, Any]) -> RowmintError:
    violations = [FieldViolation(field, description) for field, description in body["violations"]]
    error = RowmintError(body["message"], violations=violations)
    error.reason = Reason(body["reason"])
    return error
