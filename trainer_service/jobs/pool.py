"""The pool: warm child processes that take up claimed jobs."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

import structlog

from rowmint.errors import RowmintError, UnavailableError
from rowmint.registry import JobKind, JobLedger, JobRecord

_log = structlog.get_logger(__name__)

_IDLE_SECONDS = 0.5  # jobs of other trainers, and expired leases, are looked for this often
_STOP_SECONDS = 5.0


class Child:
    """A worker process, warming up or waiting until it is given one command."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def spawn(cls) -> "Child":
        """Start a worker; it begins to import what a fit needs at once."""
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "trainer_service.jobs.worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                # OpenMP threads that spin while they wait make a step several times slower on a busy machine.
                env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ},
            )
        )

    async def command(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Give the command, wait for the end, and return the answer; an empty one where the worker died."""
        stdin, stdout = self.process.stdin, self.process.stdout
        if stdin is None or stdout is None:
            raise UnavailableError("the worker has no pipes")
        try:
            stdin.write(json.dumps(body).encode() + b"\n")
            await stdin.drain()
            line = await stdout.readline()
        except (BrokenPipeError, ConnectionResetError):
            line = b""
        await self.process.wait()
        return dict(json.loads(line)) if line.strip() else {}

    async def stop(self) -> None:
        """End the worker: politely, then not."""
        if self.process.returncode is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), _STOP_SECONDS)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


class WorkerPool:
    """Claims jobs and runs each in a child of its own. One event loop.

    Args:
        ledger: Where jobs are claimed.
        settings: The trainer's settings, JSON values, handed to each child.
        workers: Jobs run at once.
        holder: What the registry calls this trainer.
        lease_seconds: Lease of a claimed job.
    """

    def __init__(
        self, ledger: JobLedger, settings: Mapping[str, Any], workers: int, holder: str, lease_seconds: float
    ) -> None:
        self._ledger = ledger
        self._settings = dict(settings)
        self._workers = workers
        self._holder = holder
        self._lease_seconds = lease_seconds
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(workers)
        self._spare: asyncio.Task[Child] | None = None
        self._running: dict[asyncio.Task[None], Child] = {}
        self._closing = False

    def wake(self) -> None:
        """Look for work now; called when a job was created."""
        self._wake.set()

    async def run(self) -> None:
        """Claim and run jobs until `close`."""
        self._spare = asyncio.create_task(Child.spawn())
        while not self._closing:
            await self._slots.acquire()
            job = await self._claim()
            if job is None:
                self._slots.release()
                await self._pause()
                continue
            child = await self._take_child()
            task = asyncio.create_task(self._work(child, job))
            self._running[task] = child
            task.add_done_callback(lambda done: self._running.pop(done, None))

    async def estimate(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Have a child answer a command that is no job, and return its answer.

        Raises:
            UnavailableError: The child died.
        """
        child = await self._take_child()
        try:
            answer = await child.command({**body, "settings": self._settings})
        finally:
            await child.stop()
        if not answer:
            raise UnavailableError("the worker died; see the trainer's log", retry_after=1.0)
        return answer

    async def close(self) -> None:
        """End all children; their jobs are given back."""
        self._closing = True
        self._wake.set()
        children = [*self._running.values()]
        if self._spare is not None:
            children.append(await self._spare)
        await asyncio.gather(*(child.stop() for child in children))
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _claim(self) -> JobRecord | None:
        self._wake.clear()
        try:
            kinds = (JobKind.INGEST, JobKind.TRAIN)
            return await asyncio.to_thread(self._ledger.claim, self._holder, self._lease_seconds, kinds)
        except RowmintError as error:
            _log.warning("no job could be claimed", error=error.message)
            return None

    async def _pause(self) -> None:
        try:
            await asyncio.wait_for(self._wake.wait(), _IDLE_SECONDS)
        except TimeoutError:
            return

    async def _take_child(self) -> Child:
        """Return a child, and begin to warm the next one."""
        spare = self._spare
        child = await spare if spare is not None else await Child.spawn()
        self._spare = asyncio.create_task(Child.spawn())
        return child if child.process.returncode is None else await Child.spawn()

    async def _work(self, child: Child, job: JobRecord) -> None:
        try:
            answer = await child.command({"do": "job", "uid": job.uid, "epoch": job.epoch, "settings": self._settings})
            if not answer and not self._closing:
                # It was killed or ran out of memory: its lease runs out and the job is taken up again.
                _log.warning("worker died", job=str(job.name), attempt=job.attempt, code=child.process.returncode)
        finally:
            self._slots.release()
            self._wake.set()
