"""`rowmint serve`: both services as child processes, started, supervised and stopped together."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Self

import grpc
import typer

from rowmint.cli.output import JsonOption, client_settings, print_json, print_notice
from rowmint.client.credentials import PLAIN, Credentials
from rowmint.errors import RowmintError, UnavailableError
from rowmint.objects.files import private_opener

_HEALTH_CHECK = "/grpc.health.v1.Health/Check"
# HealthCheckResponse{status: SERVING}; the request, for the server as a whole, is empty.
_SERVING = b"\x08\x01"
_STDERR = 2
_IMPATIENT: tuple[tuple[str, int | str], ...] = (("grpc.max_reconnect_backoff_ms", 300),)


def is_serving(channel: grpc.Channel) -> bool:
    """Return whether a server as a whole is SERVING, by grpc.health.v1."""
    check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
        _HEALTH_CHECK, request_serializer=None, response_deserializer=None
    )
    try:
        return bool(check(b"", timeout=2.0) == _SERVING)
    except grpc.RpcError:
        return False


def counted_up(listen: str, number: int) -> str:
    """Return the address of service `number`, from 0, where the first has `listen`: each has its own port.

    Port 0, any free port, and a text that is not an address are returned unchanged.
    """
    host, colon, port = listen.rpartition(":")
    return f"{host}{colon}{int(port) + number}" if port.isdecimal() and int(port) else listen


@dataclass
class Service:
    """One child process.

    Attributes:
        role: `trainer` or `sampler`.
        address: Where it listens, host:port.
        process: The process.
        log: File of its output; None where it shares this process's.
    """

    role: str
    address: str
    process: subprocess.Popen[bytes]
    log: Path | None

    def exit_report(self) -> str:
        """Return how it ended, for an error."""
        code = self.process.returncode
        ended = f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        if self.log is None:
            return f"{ended}; see its output above"
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return f"{ended}; its last line in {self.log}: {lines[-1] if lines else '(nothing)'}"


class Supervisor:
    """Starts services, waits until they serve, checks them and stops them; a context manager that stops them all.

    Args:
        home: Folder of both stores, given to the services as ROWMINT_HOME; made if it does not exist.
        environment: Environment of the services.
        logs: Folder of a log file for each service; None for their output to go to this process's.
        credentials: Credentials of the calls that check whether they serve.
    """

    def __init__(
        self,
        home: Path,
        environment: Mapping[str, str],
        logs: Path | None = None,
        credentials: Credentials = PLAIN,
    ) -> None:
        self._credentials = credentials
        self._home = home.absolute()
        self._environment = environment
        self._logs = logs
        self.services: list[Service] = []
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)

    def start(self, role: str, address: str) -> Service:
        """Start `python -m {role}_service` listening on an address.

        Raises:
            UnavailableError: The address is in use.
        """
        host, _, port = address.rpartition(":")
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            # As the server does: a port whose last connections are still closing counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, int(port)))
            except (OSError, OverflowError) as error:
                why = error.strerror if isinstance(error, OSError) else "ports end at 65535"
                raise UnavailableError(
                    f"the {role} cannot listen on {address}: {why}; stop the process that uses it, or choose another"
                    f" port with --{role}-port"
                ) from error
        environment = {**self._environment, "ROWMINT_HOME": str(self._home), "ROWMINT_LISTEN": address}
        metrics = environment.get("ROWMINT_METRICS_LISTEN", "")
        environment["ROWMINT_METRICS_LISTEN"] = counted_up(metrics, len(self.services))
        log = None if self._logs is None else self._logs / f"{role}-{port}.log"
        with contextlib.ExitStack() as stack:
            output = None if log is None else stack.enter_context(open(log, "wb", opener=private_opener))
            # A process group of its own: a terminal's Ctrl-C reaches it once, through this process.
            process = subprocess.Popen(  # noqa: S603  # our own interpreter and modules
                [sys.executable, "-m", f"{role}_service"],
                env=environment,
                stdin=subprocess.DEVNULL,
                # Logs of a service go to stderr: stdout is for results, and with --json for scripts.
                stdout=_STDERR if output is None else output,
                stderr=None if output is None else subprocess.STDOUT,
                process_group=0,
            )
        service = Service(role, address, process, log)
        self.services.append(service)
        return service

    def wait_serving(self, timeout: float, stopped: threading.Event | None = None) -> bool:
        """Wait until all services are SERVING; return whether they are, false where `stopped` was set.

        Args:
            timeout: Seconds.
            stopped: Ends the wait.

        Raises:
            RowmintError: One ended, or they were not ready in time.
        """
        end = time.monotonic() + timeout
        for service in self.services:
            with self._credentials.channel(service.address, service.address, _IMPATIENT) as channel:
                while not is_serving(channel):
                    self.check()
                    if stopped is not None and stopped.is_set():
                        return False
                    if time.monotonic() > end:
                        raise RowmintError(
                            f"the {service.role} at {service.address} was not ready in {timeout:g} s; see its output"
                        )
                    time.sleep(0.1)
        return True

    def check(self) -> None:
        """Check that all services run.

        Raises:
            RowmintError: One has ended.
        """
        for service in self.services:
            if service.process.poll() is not None:
                raise RowmintError(f"the {service.role} at {service.address} {service.exit_report()}")

    def kill(self, address: str) -> None:
        """Kill a service at once, as a crash would, and stop supervising it."""
        for service in self.services:
            if service.address == address:
                service.process.kill()
                service.process.wait()
        self.services = [service for service in self.services if service.address != address]

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Send all services a signal and wait until they have ended; one that exceeds its grace is killed."""
        grace = self._grace_seconds() + 10.0
        for service in self.services:
            with contextlib.suppress(ProcessLookupError):
                service.process.send_signal(number)
        end = time.monotonic() + grace
        for service in self.services:
            try:
                service.process.wait(max(end - time.monotonic(), 0.0))
            except subprocess.TimeoutExpired:
                service.process.kill()
                service.process.wait()
        self.services = []

    def _grace_seconds(self) -> float:
        """Return for how many seconds the services let calls run on after a signal."""
        try:
            return float(self._environment.get("ROWMINT_GRACE_SECONDS", "10"))
        except ValueError:  # the services refuse to start with it
            return 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


@contextlib.contextmanager
def caught_signals() -> Iterator[tuple[threading.Event, list[int]]]:
    """Turn SIGTERM and SIGINT into an event while the block runs; the list holds the signals received."""
    stopped = threading.Event()
    numbers: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        numbers.append(number)
        stopped.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopped, numbers
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def start_all(
    supervisor: Supervisor, trainer: str, samplers: Sequence[str], stopped: threading.Event | None = None
) -> bool:
    """Start a trainer, and when it serves the samplers; return whether all serve, false where `stopped` was set."""
    # The trainer first: it migrates the registries to their current schema.
    supervisor.start("trainer", trainer)
    if not supervisor.wait_serving(120.0, stopped):
        return False
    for address in samplers:
        supervisor.start("sampler", address)
    return supervisor.wait_serving(120.0, stopped)


def serve(
    context: typer.Context,
    *,
    home: Annotated[Path, typer.Option(envvar="ROWMINT_HOME", help="Folder of datasets, jobs and models.")] = Path(
        ".rowmint"
    ),
    host: Annotated[str, typer.Option(help="IPv4 address to listen on.")] = "127.0.0.1",
    trainer_port: Annotated[int, typer.Option(min=1, max=65_535, help="Port of the trainer.")] = 7401,
    sampler_port: Annotated[int, typer.Option(min=1, max=65_535, help="Port of the first sampler.")] = 7402,
    samplers: Annotated[int, typer.Option(min=1, max=64, help="Number of samplers; ports count up.")] = 1,
    processes: Annotated[
        int | None, typer.Option(min=1, max=256, help="Processes of each sampler; they share its port.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a trainer and samplers on this machine. Ctrl-C or SIGTERM stops them."""
    trainer = f"{host}:{trainer_port}"
    addresses = [f"{host}:{sampler_port + index}" for index in range(samplers)]
    own = {} if processes is None else {"ROWMINT_PROCESSES": str(processes)}
    with (
        caught_signals() as (stopped, numbers),
        Supervisor(home, {**os.environ, **own}, credentials=client_settings(context).credentials()) as supervisor,
    ):
        if not as_json:
            print_notice("starting ...")
        if start_all(supervisor, trainer, addresses, stopped):
            if as_json:
                print_json({"trainer": trainer, "samplers": addresses, "home": str(home.absolute())})
            else:
                print_notice(f"trainer  {trainer}\nsampler  {','.join(addresses)}\nhome     {home.absolute()}")
            while not stopped.wait(0.2):
                supervisor.check()
        supervisor.stop(numbers[0] if numbers else signal.SIGTERM)
    if not as_json:
        print_notice("stopped")
