"""Training jobs and their events as messages."""

from collections.abc import Mapping
from typing import Any

from google.protobuf.duration_pb2 import Duration

from rowmint.registry import EventRecord, JobRecord, JobState
from rowmint.registry.job_records import JobError
from rowmint.rpc.converters import timestamp
from rowmint.v1 import training_job_pb2
from trainer_service.config import from_json
from trainer_service.converters.config import config_to_proto

JOB_STATES = {state: training_job_pb2.JobState.Value(f"JOB_STATE_{state}") for state in JobState}
# Phases of training jobs, by the runner's names; empty for none. Those of workers of a later release are left out.
JOB_PHASES = {
    "": training_job_pb2.JOB_PHASE_UNSPECIFIED,
    "fetching": training_job_pb2.JOB_PHASE_FETCHING,
    "encoding": training_job_pb2.JOB_PHASE_ENCODING,
    "fitting": training_job_pb2.JOB_PHASE_FITTING,
    "verifying": training_job_pb2.JOB_PHASE_VERIFYING,
    "publishing": training_job_pb2.JOB_PHASE_PUBLISHING,
}


def job_to_proto(job: JobRecord, progress: Mapping[str, Any] | None = None) -> training_job_pb2.TrainingJob:
    """Return the message of a job.

    Args:
        job: The job.
        progress: The `progress` of its last event that has one.
    """
    message = training_job_pb2.TrainingJob(
        name=str(job.name),
        dataset=job.dataset,
        model=job.model,
        config=config_to_proto(from_json(job.config)),
        state=JOB_STATES[job.state],
        phase=JOB_PHASES.get(job.phase, training_job_pb2.JOB_PHASE_UNSPECIFIED),
        attempt=job.attempt,
        staged=job.staged,
        model_version=_version_name(job.model, job.model_version),
        create_time=timestamp(job.create_time),
        start_time=timestamp(job.start_time),
        end_time=timestamp(job.end_time),
    )
    if job.error is not None:
        message.error.CopyFrom(_error(job.error))
    if progress is not None:
        message.progress.CopyFrom(_progress(progress))
    return message


def event_to_proto(event: EventRecord, model: str) -> training_job_pb2.TrainingEvent:
    """Return the message of an event of a job that publishes to `model`."""
    payload = event.payload
    message = training_job_pb2.TrainingEvent(
        sequence=event.sequence,
        time=timestamp(event.time),
        attempt=event.attempt,
        state=JOB_STATES[event.state],
        phase=JOB_PHASES.get(event.phase, training_job_pb2.JOB_PHASE_UNSPECIFIED),
        message=payload.get("message", ""),
        model_version=_version_name(model, payload.get("model_version")),
    )
    if "progress" in payload:
        message.progress.CopyFrom(_progress(payload["progress"]))
    if "error" in payload:
        error = payload["error"]
        message.error.CopyFrom(_error(JobError(error["reason"], error["message"])))
    return message


def _version_name(model: str, version: int | None) -> str:
    return "" if version is None else f"{model}/versions/{version}"


def _error(error: JobError) -> training_job_pb2.JobError:
    return training_job_pb2.JobError(reason=error.reason, message=error.message)


def _progress(progress: Mapping[str, Any]) -> training_job_pb2.TrainingProgress:
    eta = Duration()
    eta.FromMicroseconds(int(progress["eta_seconds"] * 1_000_000))
    return training_job_pb2.TrainingProgress(
        epoch=progress["epoch"],
        epochs=progress["epochs"],
        losses=dict(progress["losses"]),
        probe=dict(progress.get("probe", {})),
        rows_per_second=progress["rows_per_second"],
        eta=eta,
    )
