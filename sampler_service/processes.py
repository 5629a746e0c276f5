"""Several processes on one port: the kernel distributes connections over them, so that one machine uses all its cores.

The parent serves nothing. It holds the port, starts the processes, restarts those that are killed, forwards signals,
and serves the metrics of all of them together. A process whose parent is gone ends as on SIGTERM.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping

import structlog

from rowmint.errors import RowmintError, UnavailableError

_log = structlog.get_logger(__name__)

_STDIN = 0
_FIRST_DELAY = 0.2  # seconds before a process that was killed is restarted; doubled each time
_LONGEST_DELAY = 5.0
_SOUND_SECONDS = 10.0  # a process that lived so long had nothing wrong from the start


def hold_port(listen: str) -> socket.socket:
    """Return a socket that is bound to an address with others that will listen there; it does not listen itself.

    Args:
        listen: ``host:port``; port 0 takes a free one.

    Raises:
        UnavailableError: The address cannot be bound, or it is in use already.
    """
    host, _, port = listen.rpartition(":")
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind) as alone:
            # A socket that shares the port would silently join others; it must be free first.
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(address)
        held = socket.socket(family, kind)
        try:
            # As a server would: a port whose last connections are still closing is free.
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                held.setsockopt(socket.SOL_SOCKET, option, 1)
            held.bind(address)
        except OSError:
            held.close()
            raise
    except (OSError, ValueError, OverflowError) as error:
        raise UnavailableError(
            f"cannot listen on {listen!r}; it must be host:port of this machine, and free"
        ) from error
    return held


def end_with_parent() -> None:
    """End this process, as a signal would, when its standard input does: the parent holds the other end."""

    def watch() -> None:
        # Not through `sys.stdin`, whose lock a thread that waits would keep from the end of the interpreter.
        while os.read(_STDIN, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


class Siblings:
    """The processes that share a port. For one event loop.

    Args:
        command: What each runs.
        environment: Their environment.
        count: How many.
        ended: Called with the id of each process that has ended.
    """

    def __init__(
        self,
        command: list[str],
        environment: Mapping[str, str],
        count: int,
        ended: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._ended = ended
        self._command = command
        self._environment = dict(environment)
        self._count = count
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._ending = asyncio.Event()

    async def run(self) -> None:
        """Keep the processes running until `end` is called, or until one cannot run.

        Raises:
            RowmintError: A process ended by itself; its output says why.
        """
        keepers = [asyncio.create_task(self._keep(number)) for number in range(self._count)]
        try:
            await asyncio.gather(*keepers)
        finally:
            self.end()
            await asyncio.gather(*keepers, return_exceptions=True)

    def end(self) -> None:
        """Tell the processes to end; a second time, at once."""
        self._ending.set()
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)

    async def _keep(self, number: int) -> None:
        delay = _FIRST_DELAY
        while not self._ending.is_set():
            process = await asyncio.create_subprocess_exec(
                *self._command, env=self._environment, stdin=asyncio.subprocess.PIPE, process_group=0
            )
            self._processes[number] = process
            if self._ending.is_set():
                process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            code = await process.wait()
            del self._processes[number]
            self._ended(process.pid)
            if self._ending.is_set():
                return
            if code >= 0:
                raise RowmintError(f"process {process.pid} ended with exit code {code}; its output above says why")
            _log.warning("process killed", pid=process.pid, signal=-code)
            delay = _FIRST_DELAY if time.monotonic() - began > _SOUND_SECONDS else min(delay * 2, _LONGEST_DELAY)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), delay)


async def serve_together(
    listen: str, count: int, environment: Mapping[str, str], ended: Callable[[int], None] = lambda _: None
) -> None:
    """Run `count` samplers on one port until a signal.

    Args:
        listen: ``host:port``; port 0 takes a free one.
        count: How many, at least 1.
        environment: Environment of each, beside what says where it listens.
        ended: Called with the id of each process that has ended.

    Raises:
        UnavailableError: The address cannot be bound.
        RowmintError: A process cannot run.
    """
    with hold_port(listen) as held:
        host, port = listen.rpartition(":")[0], held.getsockname()[1]
        own = {"ROWMINT_LISTEN": f"{host}:{port}", "ROWMINT_PROCESSES": "1", "ROWMINT_SHARES_PORT": "true"}
        siblings = Siblings([sys.executable, "-m", "sampler_service"], {**environment, **own}, count, ended)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, siblings.end)
        _log.info("starting", service="sampler", processes=count, port=port)
        await siblings.run()
