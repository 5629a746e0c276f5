"""TrainingService."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable
from typing import Any, Protocol

from rowmint.errors import InvalidFieldError, UnavailableError, WrongStateError
from rowmint.names import DatasetName, ModelName, ProjectName, TrainingJobName, validate_id, validate_request_id
from rowmint.observability.tracing import current_trace_parent
from rowmint.registry import DatasetRecord, DatasetState, JobKind, JobRecord, Registry
from rowmint.rpc.message_page import MessagePage
from rowmint.rpc.models import optional
from rowmint.rpc.project_threads import ProjectThreads
from rowmint.v1 import training_job_pb2, training_service_pb2, training_service_pb2_grpc
from trainer_service.config import TrainingConfig, to_json, validate_against
from trainer_service.converters.config import config_from_proto, config_to_proto
from trainer_service.converters.errors import error_from_json
from trainer_service.converters.jobs import event_to_proto, job_to_proto
from trainer_service.converters.request_digests import job_digests
from trainer_service.devices import no_cuda_device
from trainer_service.fitting.context import Device
from trainer_service.jobs.notifier import Head, JobNotifier, Watch

_EVENTS_AT_ONCE = 256


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
        threads: Threads for what the registry does.
        job_threads: CPU threads of a job that does not say.
        cuda: Returns whether jobs may ask for CUDA; may take a second.
        max_page_bytes: Size of a page's messages.
        notifier: Says when a watched job has news.
    """

    def __init__(
        self,
        registry: Registry,
        estimator: Estimator,
        wake: Callable[[], None],
        *,
        threads: ProjectThreads,
        job_threads: int,
        cuda: Callable[[], bool],
        max_page_bytes: int,
        notifier: JobNotifier,
    ) -> None:
        self._registry = registry
        self._estimator = estimator
        self._wake = wake
        self._threads = threads
        self._job_threads = job_threads
        self._cuda = cuda
        self._max_page_bytes = max_page_bytes
        self._notifier = notifier
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End the streams of events, which would last as long as the jobs do."""
        self._closing.set()

    async def CreateTrainingJob(
        self, request: training_service_pb2.CreateTrainingJobRequest, context: Any
    ) -> training_service_pb2.CreateTrainingJobResponse:
        """Start a job, or only check it and say what it would cost."""
        project = ProjectName.parse(request.parent).project
        if request.validate_only:
            dataset, config = await self._threads.run(project, self._check, request)
            return await self._estimate(dataset, request.training_job, config)
        record = await self._threads.run(project, self._create, request)
        self._wake()
        return training_service_pb2.CreateTrainingJobResponse(
            training_job=await self._threads.run(project, job_to_proto, record)
        )

    def _create(self, request: training_service_pb2.CreateTrainingJobRequest) -> JobRecord:
        """Create the requested job, or return the one that the same request created before."""
        digests = job_digests(request)
        project = ProjectName.parse(request.parent).project
        validate_request_id(request.request_id)
        # Looked for first: what was valid once may be no more, as the dataset may be gone.
        earlier = self._registry.jobs.repeated(JobKind.TRAIN, project, request.request_id, digests)
        if earlier is not None:
            return earlier
        dataset, config = self._check(request)
        job = request.training_job
        return self._registry.jobs.create(
            JobKind.TRAIN,
            project,
            request.training_job_id,
            inputs={"dataset": str(dataset.name), "model": job.model, "staged": job.staged},
            config=to_json(config),
            dataset_uid=dataset.uid,
            request_id=request.request_id,
            request_digest=digests[0],
            former_digests=digests[1:],
            trace_parent=current_trace_parent(),
        )

    def _check(self, request: training_service_pb2.CreateTrainingJobRequest) -> tuple[DatasetRecord, TrainingConfig]:
        """Return the dataset and the configuration of a valid request."""
        project = ProjectName.parse(request.parent).project
        if request.training_job_id:
            validate_id(request.training_job_id, "training_job_id")
        validate_request_id(request.request_id)
        job = request.training_job
        dataset_name = DatasetName.parse(job.dataset, "training_job.dataset")
        model = ModelName.parse(job.model, "training_job.model")
        if {dataset_name.project, model.project} != {project}:
            raise InvalidFieldError("training_job", f"dataset and model must be in {request.parent}")
        config = config_from_proto(job.config, seed=secrets.randbits(64), threads=self._job_threads)
        if config.device is Device.CUDA and not self._cuda():
            raise no_cuda_device()
        dataset = self._registry.datasets.get(dataset_name)
        if dataset.state is not DatasetState.READY or dataset.schema is None or dataset.row_count is None:
            failed = dataset.state is DatasetState.FAILED
            advice = "fix what its errors say and upload it again" if failed else "finish the upload and wait"
            raise WrongStateError(
                f"{dataset_name} is {dataset.state}; a job needs it READY: {advice}", metadata={"state": dataset.state}
            )
        validate_against(config, dataset.schema, dataset.row_count, _distinct(dataset))
        return dataset, config

    async def _estimate(
        self, dataset: DatasetRecord, job: training_job_pb2.TrainingJob, config: TrainingConfig
    ) -> training_service_pb2.CreateTrainingJobResponse:
        body = {"do": "estimate", "dataset_uid": dataset.uid, "config": to_json(config)}
        answer = await self._estimator.estimate(body)
        if "error" in answer:
            raise error_from_json(answer["error"])
        return training_service_pb2.CreateTrainingJobResponse(
            training_job=training_job_pb2.TrainingJob(
                dataset=job.dataset, model=job.model, config=config_to_proto(config), staged=job.staged
            ),
            estimate=training_job_pb2.TrainingEstimate(**answer),
        )

    async def GetTrainingJob(
        self, request: training_service_pb2.GetTrainingJobRequest, context: Any
    ) -> training_job_pb2.TrainingJob:
        """Read one job."""
        name = TrainingJobName.parse(request.name)
        return await self._threads.run(name.project, self._read, name)

    def _read(self, name: TrainingJobName) -> training_job_pb2.TrainingJob:
        job = self._registry.jobs.get(name)
        # An epoch's event is among the last few: those after it are changes of state and phase.
        last = self._registry.jobs.events_after(job.uid, max(0, job.event_count - 16))
        progress = next((event.payload["progress"] for event in reversed(last) if "progress" in event.payload), None)
        return job_to_proto(job, progress)

    async def ListTrainingJobs(
        self, request: training_service_pb2.ListTrainingJobsRequest, context: Any
    ) -> training_service_pb2.ListTrainingJobsResponse:
        """List a project's jobs."""
        project = ProjectName.parse(request.parent).project
        return await self._threads.run(project, self._list, project, request)

    def _list(
        self, project: str, request: training_service_pb2.ListTrainingJobsRequest
    ) -> training_service_pb2.ListTrainingJobsResponse:
        size = optional(request, "page_size")
        listed = MessagePage(job_to_proto, self._max_page_bytes)
        page = self._registry.jobs.list(JobKind.TRAIN, project, size, request.page_token, listed.fits)
        return training_service_pb2.ListTrainingJobsResponse(
            training_jobs=listed.messages, next_page_token=page.next_page_token
        )

    async def CancelTrainingJob(
        self, request: training_service_pb2.CancelTrainingJobRequest, context: Any
    ) -> training_job_pb2.TrainingJob:
        """Ask a job to stop."""
        name = TrainingJobName.parse(request.name)
        return job_to_proto(await self._threads.run(name.project, self._registry.jobs.cancel_request, name))

    async def WatchTrainingJob(
        self, request: training_service_pb2.WatchTrainingJobRequest, context: Any
    ) -> AsyncGenerator[training_job_pb2.TrainingEvent, None]:
        """Stream a job's events until it ends, or the trainer does."""
        after = request.after_sequence if request.HasField("after_sequence") else 0
        if after < 0:
            raise InvalidFieldError("after_sequence", f"is {after}; must be 0 or more")
        name = TrainingJobName.parse(request.name)
        job = await self._threads.run(name.project, self._registry.jobs.get, name)
        with self._notifier.watched(name.project, job.uid) as watch:
            while True:
                job, events = await self._threads.run(name.project, self._news, job, after)
                for event in events:
                    after = event.sequence
                    yield event
                if job.state.ended and after >= job.event_count:
                    return
                if self._closing.is_set():
                    raise UnavailableError(
                        "the trainer is shutting down; watch again from the last event", retry_after=1.0
                    )
                if len(events) < _EVENTS_AT_ONCE:
                    await self._wait_for_news(watch, (max(after, job.event_count), job.state.ended))

    async def _wait_for_news(self, watch: Watch, seen: Head) -> None:
        """Return once the job has more events than were seen, or the trainer is about to end."""
        waits = [asyncio.ensure_future(wait) for wait in (watch.wait_beyond(seen), self._closing.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if waits[0].done():
                waits[0].result()
        finally:
            for wait in waits:
                wait.cancel()

    def _news(self, job: JobRecord, after: int) -> tuple[JobRecord, list[training_job_pb2.TrainingEvent]]:
        # The job first: events written since are then simply seen in the next round.
        job = self._registry.jobs.get_by_uid(job.uid)
        events = self._registry.jobs.events_after(job.uid, after, _EVENTS_AT_ONCE)
        return job, [event_to_proto(event, job.model) for event in events]


def _distinct(dataset: DatasetRecord) -> dict[str, int]:
    """Return how many different values each column has, at least."""
    columns = {} if dataset.profile is None else dataset.profile["columns"]
    return {name: column["distinct"] for name, column in columns.items()}
