"""The pool: warm child processes that take up claimed jobs."""

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from rowmint.errors import FencedError, RowmintError, UnavailableError
from rowmint.registry import JobKind, JobLedger, JobRecord
from trainer_service import metrics
from trainer_service.jobs.course import Course
from trainer_service.jobs.scratch import Scratch

_log = structlog.get_logger(__name__)

_WORKER = ("-m", "trainer_service.jobs.worker")
_IDLE_SECONDS = 0.5  # jobs of other trainers, and expired leases, are looked for this often
_START_SECONDS = 120.0  # a worker that has not said it is ready by then never will be
_LONGEST_PAUSE = 30.0
_ANSWER_BYTES = 1 << 20


class Child:
    """A worker process that waits for one command."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def spawn(cls, environment: Mapping[str, str]) -> "Child":
        """Start a worker in `environment` and return it when it can take a command.

        Left without one for a while, it goes on to import what a fit needs.

        Raises:
            UnavailableError: It ended before it was ready, or cannot be started.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *_WORKER,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=environment,
                limit=_ANSWER_BYTES,
            )
        except OSError as error:
            raise UnavailableError(f"no worker can be started: {error.strerror}", retry_after=1.0) from error
        child = cls(process)
        try:
            async with asyncio.timeout(_START_SECONDS):
                ready = await child._read()
        except BaseException as error:
            await child.kill()
            if isinstance(error, TimeoutError):
                raise UnavailableError("a worker did not get ready", retry_after=1.0) from error
            raise
        if not ready:
            await process.wait()
            raise UnavailableError(
                f"a worker ended with exit code {process.returncode} before it was ready; see the trainer's log",
                retry_after=1.0,
            )
        return child

    async def command(
        self, body: Mapping[str, Any], hear: Callable[[Mapping[str, Any]], None] = lambda _: None
    ) -> dict[str, Any]:
        """Give the command, wait for the end, and return the answer; an empty one where the worker died.

        Args:
            body: The command, JSON values.
            hear: Called with what the worker tells meanwhile.
        """
        stdin = self.process.stdin
        answer: dict[str, Any] = {}
        try:
            if stdin is not None:
                stdin.write(json.dumps(body).encode() + b"\n")
                await stdin.drain()
                while "entered" in (answer := await self._read()):
                    hear(answer)
        except (BrokenPipeError, ConnectionResetError):
            _log.debug("a worker was gone before it had its command", pid=self.process.pid)
        await self.process.wait()
        return answer

    async def stop(self, seconds: float) -> None:
        """End the worker: politely, and after `seconds` not."""
        if self.process.returncode is not None:
            return
        try:
            self.process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(self.process.wait(), seconds)
        except ProcessLookupError:
            await self.process.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """End the worker at once."""
        if self.process.returncode is None:
            try:
                self.process.kill()
            except ProcessLookupError:
                _log.debug("a worker has ended by itself", pid=self.process.pid)
            await self.process.wait()

    async def _read(self) -> dict[str, Any]:
        """Read a line of JSON; an empty object where the worker ended, or was ended, before it had written one."""
        stdout = self.process.stdout
        try:
            found = None if stdout is None else json.loads(await stdout.readline())
        except ValueError:  # cut short, or longer than any answer of ours
            found = None
        if isinstance(found, dict):
            return found
        if stdout is not None and not stdout.at_eof():
            await self.kill()
        return {}


class WorkerPool:
    """Claims jobs and runs each in a child of its own. One event loop.

    Ingest and training have slots of their own, so that an upload is not kept waiting by a fit that takes hours.

    Args:
        ledger: Where jobs are claimed.
        settings: The trainer's settings, JSON values, handed to each child.
        scratch: Where each child gets a folder, gone when the child is.
        workers: Jobs of each kind run at once.
        holder: What the registry calls this trainer.
        lease_seconds: Lease of a claimed job.
        stop_seconds: How long a child may take to write a checkpoint and give its job back when the pool is closed.
        environment: Environment of each child.
    """

    def __init__(
        self,
        ledger: JobLedger,
        settings: Mapping[str, Any],
        scratch: Scratch,
        *,
        workers: int,
        holder: str,
        lease_seconds: float,
        stop_seconds: float,
        environment: Mapping[str, str],
    ) -> None:
        self._ledger = ledger
        self._settings = dict(settings)
        self._scratch = scratch
        self._workers = workers
        self._holder = holder
        self._lease_seconds = lease_seconds
        self._stop_seconds = stop_seconds
        self._environment = dict(environment)
        self._wakes = {kind: asyncio.Event() for kind in JobKind}
        self._spare: asyncio.Task[Child] | None = None
        self._busy: set[Child] = set()
        self._closing = asyncio.Event()
        # A timed step is worth nothing where others are timed beside it, and each holds a table and a network.
        self._estimates = asyncio.Semaphore(1)
        # Held from the look for a job until it has its child: no two may count on the same one.
        self._taking = asyncio.Lock()

    def wake(self) -> None:
        """Look for work now; called when a job was created."""
        for event in self._wakes.values():
            event.set()

    async def run(self) -> None:
        """Claim and run jobs until `close`; return when every child has ended and its job is given back."""
        self._spare = asyncio.create_task(Child.spawn(self._environment))
        await asyncio.gather(*(self._serve(kind) for kind in JobKind))

    async def estimate(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Have a child answer a command that is no job, and return its answer.

        Raises:
            UnavailableError: The child died, or none can be started, or the pool is closed.
        """
        async with self._estimates:
            answer = await self._command(await self._take_child(), body)
        if not answer:
            raise UnavailableError("the worker died; see the trainer's log", retry_after=1.0)
        return answer

    async def close(self) -> None:
        """Claim no more and end all children; `run` gives their jobs back and returns. Closing twice is harmless."""
        self._closing.set()
        self.wake()
        spare, self._spare = self._spare, None
        ending = [child.stop(self._stop_seconds) for child in self._busy]
        if spare is not None:
            spare.cancel()
            (found,) = await asyncio.gather(spare, return_exceptions=True)
            if isinstance(found, Child):
                ending.append(found.stop(self._stop_seconds))
        await asyncio.gather(*ending)

    def hurry(self) -> None:
        """End all children at once; their jobs are given back as they were at their last checkpoint."""
        for child in self._busy:
            if child.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    child.process.kill()

    async def _serve(self, kind: JobKind) -> None:
        """Claim and run jobs of one kind."""
        slots = asyncio.Semaphore(self._workers)
        tasks: set[asyncio.Task[None]] = set()
        pause = _IDLE_SECONDS
        while await slots.acquire() and not self._closing.is_set():
            job = child = None
            try:
                async with self._taking:
                    # First the child: nobody renews the lease of a job that has none, and to start one may take longer.
                    await self._ready()
                    job = await self._claim(kind)
                    child = None if job is None else await self._take_child()
            except UnavailableError as error:
                if job is not None:
                    # Nothing is wrong with the job, which is not to lose an attempt; another trainer may take it up.
                    await self._give_back(job)
                slots.release()
                if not self._closing.is_set():
                    _log.error("no worker", error=error.message, pause_seconds=pause)
                    await _until(self._closing, pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            if job is None or child is None:
                slots.release()
                await _until(self._wakes[kind], _IDLE_SECONDS)
                continue
            pause = _IDLE_SECONDS
            task = asyncio.create_task(self._work(child, job, slots))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)

    async def _claim(self, kind: JobKind) -> JobRecord | None:
        # Cleared before the look: a job created after it wakes the next one.
        self._wakes[kind].clear()
        try:
            return await asyncio.to_thread(
                self._ledger.claim, self._holder, self._lease_seconds, (kind,), ended=metrics.job_ended
            )
        except RowmintError as error:
            _log.warning("no job could be claimed", error=error.message)
        except Exception:  # noqa: BLE001 - a fault met once must not end all work for good
            _log.exception("no job could be claimed")
        return None

    async def _ready(self) -> None:
        """Wait until the spare child can take a command.

        Raises:
            UnavailableError: It ended before it could, or cannot be started, and another one is being started; or the
                pool is closed.
        """
        while not self._closing.is_set():
            if self._spare is None:  # an estimate has just taken it
                self._spare = asyncio.create_task(Child.spawn(self._environment))
            spare = self._spare
            closing = asyncio.create_task(self._closing.wait())
            await asyncio.wait({spare, closing}, return_when=asyncio.FIRST_COMPLETED)
            closing.cancel()
            if spare is not self._spare or not spare.done():
                continue  # taken for an estimate, or the pool is closed
            error = spare.exception()
            if error is None and spare.result().process.returncode is None:
                return
            self._spare = asyncio.create_task(Child.spawn(self._environment))
            if error is not None:
                raise error
        raise UnavailableError("the trainer is shutting down; try again", retry_after=1.0)

    async def _take_child(self) -> Child:
        """Return a child that waits for its command, and begin to warm the next one.

        Raises:
            UnavailableError: None can be started, or the pool is closed.
        """
        # Taken before it is awaited: no two commands may meet in one child.
        spare, self._spare = self._spare, None
        child = None
        if spare is not None and not self._closing.is_set():
            try:
                child = await spare
            except UnavailableError as error:
                _log.warning("the warm worker is of no use", error=error.message)
        if child is None or child.process.returncode is not None:
            child = await Child.spawn(self._environment)
        if self._closing.is_set():
            await child.stop(self._stop_seconds)
            raise UnavailableError("the trainer is shutting down; try again", retry_after=1.0)
        self._busy.add(child)
        if self._spare is None:
            self._spare = asyncio.create_task(Child.spawn(self._environment))
        return child

    async def _work(self, child: Child, job: JobRecord, slots: asyncio.Semaphore) -> None:
        course = Course(job.kind, time.monotonic)
        try:
            answer = await self._command(child, {"do": "job", "uid": job.uid, "epoch": job.epoch}, course.hear)
            course.end(answer)
            if not answer and self._closing.is_set():
                # It was ended before it could give the job back itself.
                await self._give_back(job)
            elif not answer:
                # It was killed or ran out of memory: its lease runs out and the job is taken up again.
                _log.warning("worker died", job=str(job.name), attempt=job.attempt, code=child.process.returncode)
        except Exception:  # noqa: BLE001 - the lease runs out here too
            _log.exception("a job could not be handed to a worker", job=str(job.name))
        finally:
            slots.release()

    async def _command(
        self, child: Child, body: Mapping[str, Any], hear: Callable[[Mapping[str, Any]], None] = lambda _: None
    ) -> dict[str, Any]:
        """Have `child` carry out a command; whatever comes, it and its scratch folder are gone afterwards."""
        folder = None
        try:
            folder = await asyncio.to_thread(self._scratch.make)
            return await child.command({**body, "settings": self._settings, "scratch": str(folder)}, hear)
        finally:
            await child.stop(self._stop_seconds)
            self._busy.discard(child)
            if folder is not None:
                await asyncio.to_thread(self._scratch.remove, folder)

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
