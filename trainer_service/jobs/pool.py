"""The pool: claims jobs and has workers carry them out."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from rowmint.errors import FencedError, RowmintError, UnavailableError
from rowmint.registry import JobKind, JobLedger, JobRecord
from trainer_service import metrics
from trainer_service.jobs.backends import Worker, WorkerBackend
from trainer_service.jobs.spare import SpareWorker

_log = structlog.get_logger(__name__)

MAX_WAITING_ESTIMATES = 8
"""Estimates that wait for the one being made; each holds its request."""
_IDLE_SECONDS = 0.5  # jobs of other trainers, and expired leases, are looked for this often
_LONGEST_PAUSE = 30.0


class WorkerPool:
    """Claims jobs and has each carried out by a worker of its own. One event loop.

    Each kind of job has slots of its own, so that an upload is not kept waiting by a fit that takes hours.

    Args:
        ledger: Where jobs are claimed.
        backend: Starts workers.
        settings: The trainer's settings, JSON values, sent to each worker: with them it reaches registry and stores.
        workers: Jobs of each kind run at once.
        max_project_jobs: Jobs of each kind that a project may have running, at all trainers; 0 for any number.
        holder: What the registry calls this trainer.
        lease_seconds: Lease of a claimed job.
        stop_seconds: How long a worker may take to write a checkpoint and give its job back when the pool is closed.
    """

    def __init__(
        self,
        ledger: JobLedger,
        backend: WorkerBackend,
        settings: Mapping[str, Any],
        *,
        workers: int,
        max_project_jobs: int,
        holder: str,
        lease_seconds: float,
        stop_seconds: float,
    ) -> None:
        self._ledger = ledger
        self._settings = dict(settings)
        self._workers = workers
        self._max_project_jobs = max_project_jobs
        self._holder = holder
        self._lease_seconds = lease_seconds
        self._stop_seconds = stop_seconds
        self._wakes = {kind: asyncio.Event() for kind in JobKind}
        self._spare = SpareWorker(backend, stop_seconds)
        self._busy: set[Worker] = set()
        self._closing = asyncio.Event()
        # A timed step is worth nothing where others are timed beside it, and each holds a table and a network.
        self._estimates = asyncio.Semaphore(1)
        self._estimating = 0
        # Held from the look for a job until it has its worker: nothing else may take the one that it counts on.
        self._taking = asyncio.Lock()

    def wake(self) -> None:
        """Look for work now; called when a job was created."""
        for event in self._wakes.values():
            event.set()

    async def run(self) -> None:
        """Claim and run jobs until `close`; return when every worker has ended and its job is given back."""
        self._spare.start()
        await asyncio.gather(*(self._serve(kind) for kind in JobKind))

    async def estimate(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Have a worker answer a command that is not a job, and return its answer.

        Raises:
            UnavailableError: The worker died, or none can be started, or the pool is closed, or too many wait.
        """
        if self._estimating > MAX_WAITING_ESTIMATES:
            raise UnavailableError(
                f"this trainer makes one estimate at a time, and {MAX_WAITING_ESTIMATES} wait already; retry later",
                retry_after=1.0,
            )
        self._estimating += 1
        try:
            async with self._estimates:
                async with self._taking:
                    worker = await self._take_worker()
                answer = await self._command(worker, body)
        finally:
            self._estimating -= 1
        if not answer:
            raise UnavailableError("the worker died; see the trainer's log", retry_after=1.0)
        return answer

    async def close(self) -> None:
        """Claim no more and end all workers; `run` gives their jobs back and returns. Closing twice is harmless."""
        self._closing.set()
        self.wake()
        await asyncio.gather(self._spare.close(), *(worker.stop(self._stop_seconds) for worker in self._busy))

    def kill(self) -> None:
        """End all workers at once; their jobs are given back as they were at their last checkpoint."""
        for worker in self._busy:
            worker.kill()

    async def _serve(self, kind: JobKind) -> None:
        """Claim and run jobs of one kind."""
        slots = asyncio.Semaphore(self._workers)
        tasks: set[asyncio.Task[None]] = set()
        pause = _IDLE_SECONDS
        while await slots.acquire() and not self._closing.is_set():
            job = worker = None
            try:
                async with self._taking:
                    # First the worker: a job without one has no heartbeat, and a start may take longer than a lease.
                    await self._spare.ready()
                    job = await self._claim(kind)
                    worker = None if job is None else await self._take_worker()
            except UnavailableError as error:
                if job is not None:
                    # Nothing is wrong with the job, which is not to lose an attempt; another trainer may claim it.
                    await self._give_back(job)
                slots.release()
                if not self._closing.is_set():
                    _log.error("no worker", error=error.message, pause_seconds=pause)
                    await _until(self._closing, pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            if job is None or worker is None:
                slots.release()
                await _until(self._wakes[kind], _IDLE_SECONDS)
                continue
            pause = _IDLE_SECONDS
            task = asyncio.create_task(self._work(worker, job, slots))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)

    async def _claim(self, kind: JobKind) -> JobRecord | None:
        # Cleared before the look: a job created after it wakes the next one.
        self._wakes[kind].clear()
        try:
            return await asyncio.to_thread(
                self._ledger.claim,
                self._holder,
                self._lease_seconds,
                (kind,),
                max_project_jobs=self._max_project_jobs,
                ended=metrics.job_ended,
            )
        except RowmintError as error:
            _log.warning("no job could be claimed", error=error.message)
        except Exception:  # noqa: BLE001 - a fault met once must not end all work for good
            _log.exception("no job could be claimed")
        return None

    async def _take_worker(self) -> Worker:
        worker = await self._spare.take()
        self._busy.add(worker)
        return worker

    async def _work(self, worker: Worker, job: JobRecord, slots: asyncio.Semaphore) -> None:
        measured = metrics.AttemptMetrics(job.kind, time.monotonic)
        try:
            body = {"do": "job", "uid": job.uid, "epoch": job.epoch}
            answer = await self._command(worker, body, measured.on_phase)
            measured.on_end(answer)
            if not answer and self._closing.is_set():
                # It was ended before it could give the job back itself.
                await self._give_back(job)
            elif not answer:
                # It was killed or ran out of memory: its lease runs out and the job is claimed again.
                _log.warning("worker died", job=str(job.name), attempt=job.attempt, ending=worker.ending)
        except Exception:  # noqa: BLE001 - the lease runs out here too
            _log.exception("a job could not be handed to a worker", job=str(job.name))
        finally:
            slots.release()

    async def _command(
        self, worker: Worker, body: Mapping[str, Any], on_phase: Callable[[str], None] = lambda _: None
    ) -> dict[str, Any]:
        """Have a worker carry out a command; whatever comes, it and its temporary files are gone afterwards."""
        try:
            return await worker.command({**body, "settings": self._settings}, on_phase)
        finally:
            await worker.stop(self._stop_seconds)
            self._busy.discard(worker)

    async def _give_back(self, job: JobRecord) -> None:
        try:
            await asyncio.to_thread(self._ledger.release, job.uid, job.epoch)
        except FencedError:
            _log.debug("the job is given back or ended already", job=str(job.name))
        except Exception:  # noqa: BLE001 - the lease runs out here too
            _log.exception("a job could not be given back", job=str(job.name))


async def _until(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, but no longer than `seconds`."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
