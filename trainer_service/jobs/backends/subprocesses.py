"""Workers as child processes of the trainer.

Trainer and worker exchange single lines of JSON over the worker's standard input and output; a worker whose trainer is
gone notices at once, as its input ends.
"""

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from rowmint.errors import UnavailableError
from trainer_service.jobs.scratch import remove_abandoned
from trainer_service.memory import SETTING

_log = structlog.get_logger(__name__)

WORKER = (sys.executable, "-m", "trainer_service.jobs.worker")

_START_SECONDS = 120.0  # a worker that has not said it is ready by then never will be
_ANSWER_BYTES = 1 << 20
_ABORTED = (-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS)


class WorkerProcess:
    """A child process that waits for one command; see `Worker`.

    Args:
        process: The process, with pipes to its standard input and output.
        scratch: Root of the folders of temporary files of this machine's workers.
    """

    def __init__(self, process: asyncio.subprocess.Process, scratch: Path) -> None:
        self._process = process
        self._scratch = scratch

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self._process.returncode is not None

    @property
    def ending(self) -> str:
        """The exit code, in words; empty while the process lives."""
        if not self.ended:
            return ""
        said = f"exit code {self._process.returncode}"
        if self._process.returncode in _ABORTED:
            said += f": a library aborted, perhaps at the limit of the worker's memory ({SETTING})"
        return said

    async def ready(self, seconds: float) -> None:
        """Wait until it can take a command.

        Raises:
            UnavailableError: It ended before, or needs more than `seconds`; it has ended then.
        """
        try:
            async with asyncio.timeout(seconds):
                ready = await self._read()
        except BaseException as error:
            self.kill()
            await self._process.wait()
            if isinstance(error, TimeoutError):
                raise UnavailableError("a worker did not get ready", retry_after=1.0) from error
            raise
        if not ready:
            await self._process.wait()
            raise UnavailableError(
                f"a worker ended with {self.ending} before it was ready; see the trainer's log", retry_after=1.0
            )

    async def command(self, body: Mapping[str, Any], on_phase: Callable[[str], None]) -> dict[str, Any]:
        """Give the command, report phases, and return the answer; see `Worker.command`."""
        stdin = self._process.stdin
        answer: dict[str, Any] = {}
        try:
            if stdin is not None:
                stdin.write(json.dumps(body).encode() + b"\n")
                await stdin.drain()
                while "phase" in (answer := await self._read()):
                    on_phase(str(answer["phase"]))
        except (BrokenPipeError, ConnectionResetError):
            _log.debug("a worker was gone before it had its command", pid=self.pid)
        await self._process.wait()
        return answer

    async def stop(self, seconds: float) -> None:
        """Send SIGTERM, and after `seconds` SIGKILL, then remove what it left; see `Worker.stop`."""
        if not self.ended:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._process.wait(), seconds)
            except TimeoutError:
                self.kill()
                await self._process.wait()
        try:
            await asyncio.to_thread(remove_abandoned, self._scratch)
        except OSError as error:
            _log.warning("temporary files are left for the next worker to remove", error=str(error))

    def kill(self) -> None:
        """Send SIGKILL; see `Worker.kill`."""
        if not self.ended:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _read(self) -> dict[str, Any]:
        """Read a line of JSON; an empty object where the worker ended, or was killed, before it had written one."""
        stdout = self._process.stdout
        try:
            found = None if stdout is None else json.loads(await stdout.readline())
        except ValueError:  # cut short, or longer than any answer of ours
            found = None
        if isinstance(found, dict):
            return found
        if stdout is not None and not stdout.at_eof():
            self.kill()
        return {}


class SubprocessBackend:
    """Starts workers as child processes; see `WorkerBackend`.

    Args:
        environment: Environment of each.
        scratch: Root of the folders of temporary files of this machine's workers.
        program: What to run, a program and its arguments.
    """

    def __init__(self, environment: Mapping[str, str], scratch: Path, program: Sequence[str] = WORKER) -> None:
        self._environment = dict(environment)
        self._scratch = scratch
        self._program = tuple(program)

    async def start(self) -> WorkerProcess:
        """Start a process and return it when it can take a command; see `WorkerBackend.start`."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._program,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=self._environment,
                limit=_ANSWER_BYTES,
            )
        except OSError as error:
            raise UnavailableError(f"no worker can be started: {error.strerror}", retry_after=1.0) from error
        worker = WorkerProcess(process, self._scratch)
        await worker.ready(_START_SECONDS)
        return worker
