"""What runs in a child: one command, read as a line of JSON from standard input, answered as one on standard output.

A parent that is gone is noticed as the end of the input: the job is left to whoever takes up its lease.
"""

import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import traceback
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import structlog

from rowmint.errors import CancelledError, FencedError, Reason, RowmintError
from rowmint.logs import configure_logs
from rowmint.objects import open_store
from rowmint.registry import JobKind, Registry, open_registry
from trainer_service.jobs.attempts import Attempt
from trainer_service.jobs.ingesting import run_ingest
from trainer_service.jobs.stores import Stores
from trainer_service.jobs.training import run_estimate, run_training
from trainer_service.settings import TrainerSettings

_log = structlog.get_logger(__name__)


def _run_job(body: Mapping[str, Any], settings: TrainerSettings, attempts: list[Attempt]) -> dict[str, Any]:
    registry = open_registry(settings.registry_url)
    try:
        job = registry.jobs.get_by_uid(body["uid"])
        with Attempt(registry, job, settings.heartbeat_seconds) as attempt, _scratch(settings) as scratch:
            attempts.append(attempt)
            stores = _open_stores(settings)
            try:
                if job.kind is JobKind.INGEST:
                    run_ingest(registry, stores, attempt, scratch)
                else:
                    run_training(registry, stores, attempt, scratch)
            except Exception as error:  # noqa: BLE001 - whatever it was, the job is to say so
                _end_badly(registry, attempt, error)
    finally:
        registry.close()
    return {"done": True}


def _end_badly(registry: Registry, attempt: Attempt, error: Exception) -> None:
    """Write down how an attempt ended that did not succeed; a fenced one writes nothing."""
    job = attempt.job
    try:
        if attempt.fenced or isinstance(error, FencedError):
            _log.warning("overtaken by another attempt", job=str(job.name), epoch=job.epoch)
        elif attempt.shutting_down:
            registry.jobs.release(job.uid, job.epoch)
        elif isinstance(error, CancelledError):
            registry.jobs.finish_cancelled(job.uid, job.epoch)
        elif isinstance(error, RowmintError):
            registry.jobs.fail(job.uid, job.epoch, error.reason, error.message)
        else:
            error_id = uuid.uuid4().hex
            _log.error("job failed", job=str(job.name), error_id=error_id, exc_info=error)
            message = f"a fault of the trainer; its log says more under {error_id}"
            registry.jobs.fail(job.uid, job.epoch, Reason.INTERNAL, message)
    except RowmintError as second:
        # The lease runs out and another attempt finds out where the job stands.
        _log.warning("the end of the attempt could not be written", job=str(job.name), error=second.message)


def _run_estimate(body: Mapping[str, Any], settings: TrainerSettings) -> dict[str, Any]:
    registry = open_registry(settings.registry_url)
    try:
        with _scratch(settings) as scratch:
            return run_estimate(registry, _open_stores(settings), body["dataset_uid"], body["config"], scratch)
    except RowmintError as error:
        return {
            "error": {
                "reason": error.reason,
                "message": error.message,
                "violations": [[violation.field, violation.description] for violation in error.violations],
            }
        }
    finally:
        registry.close()


def _open_stores(settings: TrainerSettings) -> Stores:
    return Stores(
        open_store(settings.data_store_url, settings.store_options),
        open_store(settings.model_store_url, settings.store_options),
    )


@contextmanager
def _scratch(settings: TrainerSettings) -> Iterator[Path]:
    settings.scratch.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="job-", dir=settings.scratch))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _watch_parent(source: IO[str]) -> None:
    """End the process when the input ends: the parent is gone and nobody waits for an answer."""
    source.read()
    os._exit(3)


def _warm_up() -> None:
    """Import what a fit needs before there is one; the slowest part of a short job otherwise."""
    from trainer_service.fitting import engine  # noqa: F401, PLC0415 - on purpose here


def main() -> None:
    """Read one command, carry it out, answer."""
    attempts: list[Attempt] = []
    # Libraries print to standard output; answers go where they cannot get between.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    configure_logs()

    def stop(*_: object) -> None:
        if not attempts:
            os._exit(0)
        attempts[0].shut_down()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's interrupt reaches the parent, which ends its children
    threading.Thread(target=_warm_up, name="warm-up", daemon=True).start()
    line = sys.stdin.readline()
    if not line:
        os._exit(0)
    threading.Thread(target=_watch_parent, args=(sys.stdin,), name="parent", daemon=True).start()
    body = json.loads(line)
    settings = TrainerSettings(**body["settings"])
    try:
        answer = _run_job(body, settings, attempts) if body["do"] == "job" else _run_estimate(body, settings)
    except Exception:  # noqa: BLE001 - the parent learns of it by the missing answer
        traceback.print_exc()
        os._exit(1)
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
    # Threads of the numerical libraries may linger; everything that matters is written.
    os._exit(0)


if __name__ == "__main__":
    main()
