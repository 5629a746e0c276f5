"""A fake trainer, whose calls fail as a test says."""

import hashlib
from collections import deque

import google_crc32c
import grpc
from google.protobuf import empty_pb2

from rowmint.v1 import (
    dataset_pb2,
    dataset_service_pb2,
    dataset_service_pb2_grpc,
    model_admin_service_pb2_grpc,
    model_pb2,
    training_job_pb2,
    training_service_pb2,
    training_service_pb2_grpc,
)
from tests.unit.fake_failures import refuse
from tests.unit.fake_rows import SCHEMA, VERSION


def event(sequence, state=training_job_pb2.JOB_STATE_RUNNING, epoch=0, **fields):
    return training_job_pb2.TrainingEvent(
        sequence=sequence,
        attempt=1,
        state=state,
        phase=training_job_pb2.JOB_PHASE_FITTING,
        message=f"event {sequence}",
        progress=training_job_pb2.TrainingProgress(
            epoch=epoch, epochs=5, losses={"generator": 0.5 - epoch, "critic": 0.1}, rows_per_second=1000.0
        )
        if epoch
        else None,
        **fields,
    )


class FakeTrainer(
    dataset_service_pb2_grpc.DatasetServiceServicer,
    training_service_pb2_grpc.TrainingServiceServicer,
    model_admin_service_pb2_grpc.ModelAdminServiceServicer,
):
    """Keeps uploads in memory; `cuts` says after how many bytes the uploads to come break, one entry a stream."""

    segment = 1024 * 1024

    def __init__(self, cuts=(), watch_cuts=()):
        self.cuts = deque(cuts)
        self.watch_cuts = deque(watch_cuts)
        self.stored = {}
        self.datasets = {}
        self.writes = []
        self.created = []
        self.jobs = []
        self.watches = []
        self.deleted = []
        self.decided = []
        self.events = [event(1), *(event(1 + epoch, epoch=epoch) for epoch in range(1, 6))]
        self.events.append(event(7, training_job_pb2.JOB_STATE_SUCCEEDED, model_version=VERSION))
        self.outcome = training_job_pb2.JOB_STATE_SUCCEEDED
        self.made = VERSION
        self.progress = None
        self.ingest_polls = 2
        self.errors = []
        self.steps = 10

    def CreateDataset(self, request, context):  # noqa: N802
        self.created.append(request)
        name = f"{request.parent}/datasets/{request.dataset_id or 'made'}"
        if request.dataset_id and name in self.datasets:
            refuse(context, grpc.StatusCode.ALREADY_EXISTS, "RESOURCE_EXISTS", f"{name} exists; choose another id")
        self.stored[name] = b""
        self.datasets[name] = dataset_pb2.Dataset(
            name=name, format=request.dataset.format, state=dataset_pb2.DATASET_STATE_UPLOADING
        )
        return self.datasets[name]

    def WriteDataset(self, requests, context):  # noqa: N802
        cut = self.cuts.popleft() if self.cuts else None
        name = ""
        for index, request in enumerate(requests):
            if not index:
                name = request.name
                self.writes.append(request.write_offset)
                received = self.stored[name]
                if cut is not None and cut.kind == "offset":
                    refuse(
                        context,
                        grpc.StatusCode.OUT_OF_RANGE,
                        "WRITE_OFFSET",
                        "a gap",
                        metadata={"committed_size": str(len(received))},
                    )
            if cut is not None and index == cut.after:
                # What filled no segment is lost with the stream.
                self.stored[name] = received[: len(received) // self.segment * self.segment]
                self.datasets[name].committed_size = len(self.stored[name])
                self.fail(cut, context, name)
            assert request.write_offset == len(received)
            if request.HasField("finish_write"):
                assert request.finish_write.total_size == len(received)
                assert request.finish_write.sha256 == hashlib.sha256(received).digest()
                self.stored[name] = received
                self.datasets[name].committed_size = len(received)
                self.datasets[name].sha256 = request.finish_write.sha256
                self.datasets[name].state = dataset_pb2.DATASET_STATE_INGESTING
                if cut is not None and cut.kind == "lost-answer":
                    context.abort(grpc.StatusCode.UNAVAILABLE, "the answer was lost")
                return dataset_service_pb2.WriteDatasetResponse(dataset=self.datasets[name])
            assert google_crc32c.value(request.data) == request.crc32c
            received += request.data
        context.abort(grpc.StatusCode.CANCELLED, "half-closed")
        return None

    def fail(self, cut, context, name):
        if cut.kind == "refuse":
            refuse(context, cut.code, cut.reason, "refused by the test", retry_after=cut.retry_after)
        context.abort(cut.code, "Received RST_STREAM with error code 2")

    def GetDataset(self, request, context):  # noqa: N802
        if request.name not in self.datasets:
            refuse(context, grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND", f"there is no {request.name}")
        dataset = self.datasets[request.name]
        if dataset.state == dataset_pb2.DATASET_STATE_INGESTING:
            self.ingest_polls -= 1
            if self.ingest_polls <= 0:
                dataset.state = dataset_pb2.DATASET_STATE_FAILED if self.errors else dataset_pb2.DATASET_STATE_READY
                dataset.errors.extend(self.errors)
                dataset.row_count = 1000
                dataset.schema.CopyFrom(SCHEMA)
        return dataset

    def ListDatasets(self, request, context):  # noqa: N802
        return dataset_service_pb2.ListDatasetsResponse(datasets=list(self.datasets.values()))

    def DeleteDataset(self, request, context):  # noqa: N802
        self.deleted.append(request.name)
        self.datasets.pop(request.name, None)
        return empty_pb2.Empty()

    def CreateTrainingJob(self, request, context):  # noqa: N802
        self.jobs.append(request)
        pac = request.training_job.config.ctgan.pac
        if pac and (request.training_job.config.ctgan.batch_size or 500) % pac:
            refuse(
                context,
                grpc.StatusCode.INVALID_ARGUMENT,
                "INVALID_FIELD",
                "training_job.config.ctgan.batch_size: must be divisible by pac",
                violations=[("training_job.config.ctgan.batch_size", "must be divisible by pac")],
            )
        job = training_job_pb2.TrainingJob()
        job.CopyFrom(request.training_job)
        if request.validate_only:
            return training_service_pb2.CreateTrainingJobResponse(
                training_job=job,
                estimate=training_job_pb2.TrainingEstimate(
                    encoded_width=40, steps_per_epoch=self.steps, seconds_per_epoch=20.0, total_seconds=3.0
                ),
            )
        job.name = "projects/default/trainingJobs/j1"
        job.state = training_job_pb2.JOB_STATE_PENDING
        return training_service_pb2.CreateTrainingJobResponse(training_job=job)

    def job(self, state):
        return training_job_pb2.TrainingJob(
            name="projects/default/trainingJobs/j1",
            dataset="projects/default/datasets/d",
            model="projects/default/models/flights",
            state=state,
            progress=self.progress,
            model_version=self.made if state == training_job_pb2.JOB_STATE_SUCCEEDED else "",
            error=training_job_pb2.JobError(reason="TRAINING_FAILED", message="a loss became infinite")
            if state == training_job_pb2.JOB_STATE_FAILED
            else None,
        )

    def GetTrainingJob(self, request, context):  # noqa: N802
        return self.job(self.outcome)

    def ListTrainingJobs(self, request, context):  # noqa: N802
        return training_service_pb2.ListTrainingJobsResponse(training_jobs=[self.job(self.outcome)])

    def CancelTrainingJob(self, request, context):  # noqa: N802
        return self.job(training_job_pb2.JOB_STATE_CANCELLING)

    def WatchTrainingJob(self, request, context):  # noqa: N802
        self.watches.append(request.after_sequence)
        cut = self.watch_cuts.popleft() if self.watch_cuts else None
        for sent, one in enumerate(event for event in self.events if event.sequence > request.after_sequence):
            if cut is not None and sent == cut.after:
                if cut.kind == "silent":
                    return
                if cut.kind == "gap":
                    continue
                self.fail(cut, context, "")
            yield one

    def SetModelAlias(self, request, context):  # noqa: N802
        return model_pb2.Model(name=request.model, latest_version=VERSION, aliases={request.alias: request.version})

    def PromoteModelVersion(self, request, context):  # noqa: N802
        self.decided.append((request.name, ""))
        return model_pb2.ModelVersion(name=request.name, state=model_pb2.MODEL_VERSION_STATE_PUBLISHED)

    def RejectModelVersion(self, request, context):  # noqa: N802
        self.decided.append((request.name, request.reason))
        return model_pb2.ModelVersion(
            name=request.name, state=model_pb2.MODEL_VERSION_STATE_REJECTED, rejection_reason=request.reason
        )

    def DeleteModelVersion(self, request, context):  # noqa: N802
        self.deleted.append(request.name)
        return empty_pb2.Empty()
