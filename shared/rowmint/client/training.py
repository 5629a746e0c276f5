"""Training: configure, start, estimate, watch, wait, cancel."""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast

import grpc
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from rowmint.client.connection import Calls, pages
from rowmint.client.errors import RowmintCallError, call_error
from rowmint.client.families import DEFAULT_FAMILY, family_names
from rowmint.errors import CancelledError, InvalidFieldError, TrainingFailedError
from rowmint.schema import near_names
from rowmint.v1 import dataset_pb2, training_job_pb2, training_service_pb2
from rowmint.v1.training_service_pb2_grpc import TrainingServiceStub

ENDED = frozenset(
    {training_job_pb2.JOB_STATE_SUCCEEDED, training_job_pb2.JOB_STATE_FAILED, training_job_pb2.JOB_STATE_CANCELLED}
)
"""States that a job does not leave."""

_INTEGERS = (
    FieldDescriptor.TYPE_INT32,
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_UINT32,
    FieldDescriptor.TYPE_UINT64,
)


def _single(field: FieldDescriptor, value: object) -> object:
    """Return one value as the field's type; a text is read as one."""
    try:
        if field.enum_type is not None:
            return _enum_number(field, value)
        if field.type == FieldDescriptor.TYPE_BOOL:
            return {"true": True, "false": False}[value.lower()] if isinstance(value, str) else value
        if field.type in _INTEGERS and isinstance(value, str):
            return int(value)
        if field.type == FieldDescriptor.TYPE_DOUBLE and isinstance(value, str):
            return float(value)
    except (ValueError, KeyError) as error:
        raise InvalidFieldError(field.name, f"{value!r} is not a value of it") from error
    return value


def _enum_number(field: FieldDescriptor, value: object) -> object:
    if not isinstance(value, str):
        return value
    enum = field.enum_type
    if enum is None:
        return value
    prefix = enum.values[0].name.removesuffix("UNSPECIFIED")
    name = value.upper() if value.upper().startswith(prefix) else prefix + value.upper()
    return enum.values_by_name[name].number


def _set_field(message: Message, field: FieldDescriptor, value: object) -> None:
    try:
        if not field.is_repeated:
            setattr(message, field.name, _single(field, value))
            return
        members: Sequence[object]
        if isinstance(value, str):
            members = [part.strip() for part in value.split(",") if part.strip()]
        elif isinstance(value, Sequence):
            members = value
        else:
            members = [value]
        getattr(message, field.name).extend([_single(field, member) for member in members])
    except (TypeError, ValueError) as error:
        raise InvalidFieldError(field.name, f"{value!r} is not a value of it ({error})") from error


def _fields(message: Message) -> dict[str, FieldDescriptor]:
    return {str(field.name): cast("FieldDescriptor", field) for field in message.DESCRIPTOR.fields}


def training_config(family: str, hyperparameters: Mapping[str, object]) -> training_job_pb2.TrainingConfig:
    """Return a configuration.

    Args:
        family: Name of the family, one of `rowmint.client.families.family_names()`.
        hyperparameters: Fields of the family's configuration and of `TrainingConfig` (seed, threads, ...) by name; a
            text is read as the field's type, with commas between the members of a list.

    Raises:
        InvalidFieldError: The family or a name is unknown, or a value is not one of its field's.
    """
    families = family_names()
    if family not in families:
        raise InvalidFieldError("family", f"{family!r} is unknown; choose one of {', '.join(families)}")
    config = training_job_pb2.TrainingConfig()
    part: Message = getattr(config, family)
    part.SetInParent()
    own = _fields(part)
    shared = {name: field for name, field in _fields(config).items() if name not in families}
    for name, value in hyperparameters.items():
        if name in own:
            _set_field(part, own[name], value)
        elif name in shared:
            _set_field(config, shared[name], value)
        else:
            known = sorted((*own, *shared))
            near = near_names(name, known, count=1)
            hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(known)}"
            raise InvalidFieldError(name, f"{family} has no such hyper-parameter; {hint}")
    return config


class TrainingCalls(Calls):
    """The part of the client for training."""

    def train(
        self,
        dataset: str | dataset_pb2.Dataset,
        model: str,
        config: training_job_pb2.TrainingConfig | None = None,
        *,
        family: str = DEFAULT_FAMILY,
        job_id: str | None = None,
        staged: bool = False,
        **hyperparameters: object,
    ) -> training_job_pb2.TrainingJob:
        """Start a job; `watch` or `wait_job` follow it.

        Args:
            dataset: A READY dataset, or its name or id.
            model: Name or id of the model that gets a new version.
            config: The whole configuration; None to make it of the arguments below.
            family: Name of the family, one of `rowmint.client.families.family_names()`.
            job_id: Last part of the job's name; None for one made by the service.
            staged: Whether the version is not served until it is promoted.
            **hyperparameters: See `training_config`.

        Raises:
            InvalidFieldError: A hyper-parameter is unknown.
            RowmintCallError: The service refused.
        """
        request = self._job_request(dataset, model, config, family, hyperparameters)
        request.training_job.staged = staged
        request.training_job_id = "" if job_id is None else job_id
        request.request_id = str(uuid.uuid4())
        return self._create_job(request).training_job

    def estimate(
        self,
        dataset: str | dataset_pb2.Dataset,
        model: str,
        config: training_job_pb2.TrainingConfig | None = None,
        *,
        family: str = DEFAULT_FAMILY,
        **hyperparameters: object,
    ) -> training_job_pb2.TrainingEstimate:
        """Check a job and estimate its cost; nothing is created. Arguments and errors as in `train`."""
        request = self._job_request(dataset, model, config, family, hyperparameters)
        request.validate_only = True
        return self._create_job(request).estimate

    def _job_request(
        self,
        dataset: str | dataset_pb2.Dataset,
        model: str,
        config: training_job_pb2.TrainingConfig | None,
        family: str,
        hyperparameters: Mapping[str, object],
    ) -> training_service_pb2.CreateTrainingJobRequest:
        if config is None:
            config = training_config(family, hyperparameters)
        elif hyperparameters:
            raise InvalidFieldError(next(iter(hyperparameters)), "is given beside a whole config; put it in there")
        name = dataset.name if isinstance(dataset, dataset_pb2.Dataset) else self._full_name(dataset, "datasets")
        job = training_job_pb2.TrainingJob(dataset=name, model=self._full_name(model, "models"), config=config)
        return training_service_pb2.CreateTrainingJobRequest(parent=self.project, training_job=job)

    def _create_job(
        self, request: training_service_pb2.CreateTrainingJobRequest
    ) -> training_service_pb2.CreateTrainingJobResponse:
        return self._connection.call_trainer(lambda channel: TrainingServiceStub(channel).CreateTrainingJob, request)

    def watch(
        self, job: str | training_job_pb2.TrainingJob, after: int = 0, timeout: float | None = None
    ) -> Iterator[training_job_pb2.TrainingEvent]:
        """Yield a job's events until it ends, each once and in order, connecting again where the stream breaks.

        Args:
            job: The job, or its name or id.
            after: Number of the last event that is known already.
            timeout: Seconds in all; None for as long as it takes.

        Raises:
            RowmintCallError: The service refused, or was not reachable for too long.
            TimeoutError: The job did not end in time.
        """
        name = self._job_name(job)
        retry = self._connection.retry
        end = None if timeout is None else time.monotonic() + timeout
        last, failures = after, 0
        while True:
            before = last
            failure: RowmintCallError | None = None
            try:
                for event in self._watch_once(name, last, end):
                    last = event.sequence
                    yield event
                    if event.state in ENDED:
                        return
            except RowmintCallError as error:
                failure = error
                if not failure.retryable:
                    raise
            if end is not None and time.monotonic() >= end:
                raise TimeoutError(f"{name} did not end within {timeout:g} s; it still runs; watch it or cancel it")
            if failure is None:
                # The stream ended regularly, without the job's end: perhaps its last event was known already.
                if last == before and self.get_job(name).state in ENDED:
                    return
                failure = RowmintCallError(grpc.StatusCode.UNAVAILABLE, f"the events of {name} ended early")
            failures = 1 if last > before else failures + 1
            if failures >= retry.attempts:
                raise failure.given_up(failures)
            retry.wait(failures, failure.retry_after)

    def _watch_once(self, name: str, last: int, end: float | None) -> Iterator[training_job_pb2.TrainingEvent]:
        """Yield the events after `last` that one call gives, without a gap."""
        trainer = self._connection.trainer
        left = None if end is None else max(end - time.monotonic(), 0.001)
        request = training_service_pb2.WatchTrainingJobRequest(name=name, after_sequence=last)
        call = TrainingServiceStub(trainer.channel).WatchTrainingJob(request, timeout=left)
        try:
            for event in call:
                if event.sequence > last + 1:
                    # The log has no gaps: a missing event was lost in transit, and is requested again.
                    return
                if event.sequence == last + 1:
                    last = event.sequence
                    yield event
        except grpc.RpcError as error:
            raise call_error(error, str(trainer)) from None
        finally:
            call.cancel()

    def wait_job(
        self,
        job: str | training_job_pb2.TrainingJob,
        timeout: float | None = None,
        on_event: Callable[[training_job_pb2.TrainingEvent], None] | None = None,
    ) -> training_job_pb2.TrainingJob:
        """Wait until a job has published its version, and return it.

        Args:
            job: The job, or its name or id.
            timeout: Seconds; None for as long as it takes.
            on_event: Called with each event.

        Raises:
            TrainingFailedError: The job failed.
            CancelledError: The job was cancelled.
            TimeoutError: It did not end in time.
            RowmintCallError: The service refused, or was not reachable for too long.
        """
        name = self._job_name(job)
        for event in self.watch(name, timeout=timeout):
            if on_event is not None:
                on_event(event)
        ended = self.get_job(name)
        if ended.state == training_job_pb2.JOB_STATE_FAILED:
            raise TrainingFailedError(
                f"{name} failed: {ended.error.message or 'the service gave no reason'}",
                metadata={"job": name, "reason": ended.error.reason},
            )
        if ended.state == training_job_pb2.JOB_STATE_CANCELLED:
            raise CancelledError(f"{name} was cancelled", metadata={"job": name})
        return ended

    def get_job(self, job: str) -> training_job_pb2.TrainingJob:
        """Read one job by name or id."""
        request = training_service_pb2.GetTrainingJobRequest(name=self._job_name(job))
        return self._connection.call_trainer(lambda channel: TrainingServiceStub(channel).GetTrainingJob, request)

    def list_jobs(self) -> Iterator[training_job_pb2.TrainingJob]:
        """Yield the project's jobs, newest first."""

        def page(token: str) -> training_service_pb2.ListTrainingJobsResponse:
            request = training_service_pb2.ListTrainingJobsRequest(parent=self.project, page_token=token)
            return self._connection.call_trainer(lambda channel: TrainingServiceStub(channel).ListTrainingJobs, request)

        for one in pages(page):
            yield from one.training_jobs

    def cancel_job(self, job: str | training_job_pb2.TrainingJob) -> training_job_pb2.TrainingJob:
        """Request that a job stops; repeating it is harmless."""
        request = training_service_pb2.CancelTrainingJobRequest(name=self._job_name(job))
        return self._connection.call_trainer(lambda channel: TrainingServiceStub(channel).CancelTrainingJob, request)

    def _job_name(self, job: str | training_job_pb2.TrainingJob) -> str:
        return job.name if isinstance(job, training_job_pb2.TrainingJob) else self._full_name(job, "trainingJobs")
