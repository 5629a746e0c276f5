"""What runs in a child: one command, read as a line of JSON from standard input, answered as one on standard output.

A first line on the output says that the child is ready. A parent that is gone is noticed as the end of the input: the
job is left to whoever takes up its lease. The folder for temporary files is the parent's, who removes it.
"""

import errno
import json
import os
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import structlog

from rowmint.errors import CancelledError, FencedError, RowmintError, UnavailableError
from rowmint.failpoints import arm
from rowmint.logs import configure_logs
from rowmint.objects import open_store
from rowmint.observability.tracing import configure_tracing
from rowmint.registry import JobKind, JobRecord, Registry, open_registry
from rowmint.rpc.settings import ObservabilitySettings
from trainer_service import metrics
from trainer_service.converters.errors import error_to_json
from trainer_service.jobs.attempts import Attempt
from trainer_service.jobs.runners.ingest import run_ingest
from trainer_service.jobs.runners.train import run_estimate, run_training
from trainer_service.jobs.stores import Stores
from trainer_service.jobs.story import Story
from trainer_service.settings import TrainerSettings
from trainer_service.signer import open_signing_key

_log = structlog.get_logger(__name__)

_IDLE_SECONDS = 10.0


def _run_job(
    body: Mapping[str, Any],
    settings: TrainerSettings,
    attempts: list[Attempt],
    warmed_up: Callable[[], None],
    *,
    story: Story,
) -> dict[str, Any]:
    registry = open_registry(settings.registry_url)
    scratch = Path(body["scratch"])
    try:
        job = registry.jobs.get_by_uid(body["uid"])
        if job.epoch != body["epoch"]:
            _log.warning("overtaken before it began", job=str(job.name), epoch=body["epoch"])
            return {"done": True}
        with (
            story.attempt(job),
            Attempt(registry, job, settings.heartbeat_seconds, settings.lease_seconds, entered=story.enter) as attempt,
        ):
            attempts.append(attempt)
            try:
                stores = _open_stores(settings)
                if job.kind is JobKind.INGEST:
                    run_ingest(
                        registry,
                        stores,
                        attempt,
                        scratch,
                        warmed_up,
                        limits=settings.ingest_limits,
                        checkpoint_seconds=settings.checkpoint_seconds,
                    )
                else:
                    warmed_up()
                    run_training(
                        registry,
                        stores,
                        attempt,
                        scratch,
                        checkpoint_seconds=settings.checkpoint_seconds,
                        key=open_signing_key(settings.signing_key),
                    )
            except Exception as error:  # noqa: BLE001 - whatever it was, the job is to say so
                _end_badly(registry, attempt, error)
            return {"done": True, "state": story.end(_ended(registry, job)), "garbage": metrics.garbage_count()}
    finally:
        registry.close()


def _ended(registry: Registry, job: JobRecord) -> str:
    """Return the state that the attempt has brought its job to; empty where it goes on, or cannot be asked."""
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
            # the job is taken up again.
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
    """Log an error that is no domain error, and return what a caller is to learn of it: where the log tells more."""
    error_id = uuid.uuid4().hex
    _log.error(event, error_id=error_id, exc_info=error, **about)
    return RowmintError(f"a fault of the trainer; its log says more under {error_id}", metadata={"error_id": error_id})


def _run_estimate(body: Mapping[str, Any], settings: TrainerSettings, warmed_up: Callable[[], None]) -> dict[str, Any]:
    registry = open_registry(settings.registry_url)
    try:
        warmed_up()
        stores = _open_stores(settings)
        return run_estimate(registry, stores, body["dataset_uid"], body["config"], Path(body["scratch"]))
    except RowmintError as error:
        return {"error": error_to_json(error)}
    except Exception as error:  # noqa: BLE001 - whatever it was, the caller is to get an answer
        return {"error": error_to_json(_fault(error, "estimate failed"))}
    finally:
        registry.close()


def _open_stores(settings: TrainerSettings) -> Stores:
    return Stores(
        open_store(settings.data_store_url, settings.store_options),
        open_store(settings.model_store_url, settings.store_options),
    )


def _watch_parent(source: IO[str]) -> None:
    """End the process when the input ends: the parent is gone and nobody waits for an answer."""
    source.read()
    os._exit(3)


def _answer(answers: IO[str], body: Mapping[str, Any]) -> None:
    """Tell the parent something: what it is at, or its answer."""
    try:
        answers.write(json.dumps(body) + "\n")
        answers.flush()
    except BrokenPipeError:  # the parent is gone
        os._exit(3)


class _WarmUp:
    """Imports what a fit needs before there is one, the slowest part of a short job otherwise; once it has been idle.

    A worker that is given a job at once, as that of an ingest often is, would compete with its own warm-up, and need
    none of it.
    """

    def __init__(self) -> None:
        self._given = threading.Event()
        self._thread = threading.Thread(target=self._when_idle, name="warm-up", daemon=True)
        self._thread.start()

    def give(self) -> None:
        """Say that there is something to do: from now on nothing is imported that is not needed."""
        self._given.set()

    def finish(self) -> None:
        """Return once nothing is being imported: two threads that import the same may meet half-made modules."""
        self._thread.join()

    def _when_idle(self) -> None:
        if not self._given.wait(_IDLE_SECONDS):
            _import_fitting()


def _import_fitting() -> None:
    from trainer_service.fitting import engine  # noqa: F401, PLC0415 - on purpose here
    from trainer_service.fitting.families.ctgan import fitter as ctgan  # noqa: F401, PLC0415 - on purpose here
    from trainer_service.fitting.families.tvae import fitter as tvae  # noqa: F401, PLC0415 - on purpose here


def main() -> None:
    """Read one command, carry it out, answer."""
    attempts: list[Attempt] = []
    # Libraries print to standard output; answers go where they cannot get between.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    told = ObservabilitySettings()
    configure_logs("trainer", log_format=told.log_format, level=told.log_level)

    def stop(*_: object) -> None:
        if not attempts:
            os._exit(0)
        attempts[0].shut_down()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's interrupt reaches the parent, which ends its children
    story = Story(configure_tracing("rowmint-trainer"), lambda phase: _answer(answers, {"entered": phase}))
    warm_up = _WarmUp()
    _answer(answers, {"ready": True})
    line = sys.stdin.readline()
    if not line:
        os._exit(0)
    threading.Thread(target=_watch_parent, args=(sys.stdin,), name="parent", daemon=True).start()
    warm_up.give()
    body = json.loads(line)
    settings = TrainerSettings(**body["settings"])
    arm(settings.failpoint)
    try:
        if body["do"] == "job":
            answer = _run_job(body, settings, attempts, warm_up.finish, story=story)
        else:
            answer = _run_estimate(body, settings, warm_up.finish)
        story.close()
        _answer(answers, answer)
    except Exception:  # noqa: BLE001 - the parent learns of it by the missing answer
        _log.exception("the command could not be carried out")
        os._exit(1)
    # Threads of the numerical libraries may linger; everything that matters is written.
    os._exit(0)


if __name__ == "__main__":
    main()
