"""What runs in a worker process: one command, read as a line of JSON from standard input, answered on standard output.

A first line on the output says that the worker is ready; each phase of a job is a line, the answer is the last. The end
of the input says that the trainer is gone: the job is left to the trainer that finds its lease expired. The command
brings all settings; the worker's own temporary files are below `ROWMINT_HOME`, wherever it runs.
"""

import errno
import json
import os
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import structlog

from rowmint.errors import CancelledError, FencedError, RowmintError, UnavailableError
from rowmint.failpoints import arm
from rowmint.logs import configure_logs
from rowmint.observability.tracing import configure_tracing
from rowmint.registry import JobRecord, Registry, open_registry
from rowmint.rpc.settings import ObservabilitySettings
from trainer_service import metrics
from trainer_service.converters.errors import error_to_json
from trainer_service.fitting.context import Device
from trainer_service.jobs.attempts import Attempt
from trainer_service.jobs.runners import RUNNERS
from trainer_service.jobs.runners.train import estimate_training
from trainer_service.jobs.scratch import ScratchFolder
from trainer_service.jobs.services import JobServices
from trainer_service.jobs.stores import open_stores
from trainer_service.jobs.telemetry import JobTelemetry
from trainer_service.jobs.warm_up import WarmUp
from trainer_service.memory import limited_memory, memory_error
from trainer_service.settings import TrainerSettings

_log = structlog.get_logger(__name__)


def _run_job(
    body: Mapping[str, Any],
    settings: TrainerSettings,
    attempts: list[Attempt],
    warmed_up: Callable[[], None],
    *,
    telemetry: JobTelemetry,
) -> dict[str, Any]:
    registry = open_registry(settings.registry_url)
    try:
        job = registry.jobs.get_by_uid(body["uid"])
        if job.epoch != body["epoch"]:
            _log.warning("overtaken before it began", job=str(job.name), epoch=body["epoch"])
            return {"done": True}
        with (
            telemetry.attempt(job),
            Attempt(
                registry, job, settings.heartbeat_seconds, settings.lease_seconds, on_phase=telemetry.on_phase
            ) as attempt,
        ):
            attempts.append(attempt)
            try:
                with (
                    _services(registry, settings, warmed_up) as services,
                    limited_memory(_memory(settings, job.config), services.scratch),
                ):
                    telemetry.on_outputs(RUNNERS[job.kind].run(attempt, services))
            except Exception as error:  # noqa: BLE001 - whatever it was, the job is to say so
                _end_badly(registry, attempt, memory_error(error, settings.worker_memory) or error)
            state = _ended(registry, job)
            telemetry.on_end(state)
            return {"done": True, "state": state, "garbage": metrics.garbage_count()}
    finally:
        registry.close()


@contextmanager
def _services(registry: Registry, settings: TrainerSettings, warmed_up: Callable[[], None]) -> Iterator[JobServices]:
    """Give what a command works with, its folder of temporary files among it."""
    with ScratchFolder(settings.scratch) as scratch:
        yield JobServices(
            registry=registry,
            stores=open_stores(settings),
            scratch=scratch.path,
            limits=settings.ingest_limits,
            checkpoint_seconds=settings.checkpoint_seconds,
            signing_key=settings.signing_key,
            warmed_up=warmed_up,
        )


def _memory(settings: TrainerSettings, config: Mapping[str, Any]) -> int:
    """Return the bytes that a command may take; 0 for no limit, as CUDA's driver maps more than it says."""
    return 0 if config.get("device") == Device.CUDA else settings.worker_memory


def _ended(registry: Registry, job: JobRecord) -> str:
    """Return the state that the attempt has brought its job to; empty where it has not ended."""
    try:
        now = registry.jobs.get_by_uid(job.uid)
    except RowmintError as error:
        _log.debug("the end of the job cannot be read", job=str(job.name), error=error.message)
        return ""
    return str(now.state) if now.epoch == job.epoch and now.state.ended else ""


def _end_badly(registry: Registry, attempt: Attempt, error: Exception) -> None:
    """Write down how an attempt ended that did not succeed; a fenced one writes nothing."""
    job = attempt.job
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        error = UnavailableError(f"the disk of the trainer's temporary files is full: {error}; make room")
    try:
        if attempt.fenced or isinstance(error, FencedError):
            _log.warning("overtaken by another attempt", job=str(job.name), epoch=job.epoch)
        elif attempt.shutting_down:
            registry.jobs.release(job.uid, job.epoch)
        elif isinstance(error, CancelledError):
            registry.jobs.finish_cancelled(job.uid, job.epoch)
        elif isinstance(error, UnavailableError) and job.attempt < registry.jobs.get_by_uid(job.uid).max_attempts:
            # A store that is away for a while is no reason to throw hours of work away: when the lease has run out
            # the job is claimed again.
            _log.warning("broken off, to be tried again", job=str(job.name), error=error.message)
        elif isinstance(error, RowmintError):
            registry.jobs.fail(job.uid, job.epoch, error.reason, error.message)
        else:
            fault = _fault(error, "job failed", job=str(job.name))
            registry.jobs.fail(job.uid, job.epoch, fault.reason, fault.message)
    except RowmintError as second:
        # The lease runs out and another attempt finds out where the job stands.
        _log.warning("the end of the attempt could not be written", job=str(job.name), error=second.message)


def _fault(error: Exception, event: str, **about: str) -> RowmintError:
    """Log an error that is not a domain error, and return what the caller gets instead: where the log has it."""
    error_id = uuid.uuid4().hex
    _log.error(event, error_id=error_id, exc_info=error, **about)
    return RowmintError(f"a fault of the trainer; its log says more under {error_id}", metadata={"error_id": error_id})


def _run_estimate(body: Mapping[str, Any], settings: TrainerSettings, warmed_up: Callable[[], None]) -> dict[str, Any]:
    registry = open_registry(settings.registry_url)
    try:
        with (
            _services(registry, settings, warmed_up) as services,
            limited_memory(_memory(settings, body["config"]), services.scratch),
        ):
            return estimate_training(services, body["dataset_uid"], body["config"])
    except RowmintError as error:
        return {"error": error_to_json(error)}
    except Exception as error:  # noqa: BLE001 - whatever it was, the caller is to get an answer
        found = memory_error(error, settings.worker_memory) or _fault(error, "estimate failed")
        return {"error": error_to_json(found)}
    finally:
        registry.close()


def _watch_trainer(source: IO[str]) -> None:
    """End the process when the input ends: the trainer is gone and no answer is read."""
    source.read()
    os._exit(3)


def _send(answers: IO[str], body: Mapping[str, Any]) -> None:
    """Send the trainer a line: an event, or the answer."""
    try:
        answers.write(json.dumps(body) + "\n")
        answers.flush()
    except BrokenPipeError:  # the trainer is gone
        os._exit(3)


def main() -> None:
    """Read one command, carry it out, answer."""
    attempts: list[Attempt] = []
    # Libraries print to standard output; answers go where they cannot get between.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    observability = ObservabilitySettings()
    configure_logs("trainer", log_format=observability.log_format, level=observability.log_level)

    def stop(*_: object) -> None:
        if not attempts:
            os._exit(0)
        attempts[0].shut_down()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's interrupt reaches the trainer, which ends its workers
    telemetry = JobTelemetry(configure_tracing("rowmint-trainer"), lambda phase: _send(answers, {"phase": phase}))
    warm_up = WarmUp()
    _send(answers, {"ready": True})
    line = sys.stdin.readline()
    if not line:
        os._exit(0)
    threading.Thread(target=_watch_trainer, args=(sys.stdin,), name="trainer", daemon=True).start()
    warm_up.give()
    body = json.loads(line)
    settings = TrainerSettings(**body["settings"])
    arm(settings.failpoint)
    try:
        if body["do"] == "job":
            answer = _run_job(body, settings, attempts, warm_up.finish, telemetry=telemetry)
        else:
            answer = _run_estimate(body, settings, warm_up.finish)
        telemetry.close()
        _send(answers, answer)
    except Exception:  # noqa: BLE001 - the trainer learns of it by the missing answer
        _log.exception("the command could not be carried out")
        os._exit(1)
    # Threads of the numerical libraries may linger; everything that matters is written.
    os._exit(0)


if __name__ == "__main__":
    main()
