"""The soak: a mixed load on real services while everything is killed at random: ``python -m tests.soak``.

Two trainers, three samplers behind the client's own balancing, and clients in processes of their own; workers,
trainers, samplers and clients are killed and started again. A replica that is never killed says what every stream is to
give. Ends with 1 where anything was lost, duplicated, wrong or unexpected, or where something was never tried.
"""

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console

from tests.acceptance.processes import customers_csv, free_port
from tests.crash.storage import Inside
from tests.postgres_server import PostgresServer
from tests.soak import final_checks
from tests.soak.fits import config
from tests.soak.kills import Killer
from tests.soak.place import BASE, FAMILIES, HASTE, Place
from tests.soak.report import Report, progress, untried
from tests.soak.supervisor import Kept, ProcessSupervisor
from tests.soak.task_log import Tally, TaskLog
from tests.swift_server import SwiftServer

CLIENTS = ("reader-1", "uploader-1", "fitter-1", "manager-1")
_TRAINERS, _SAMPLERS = 2, 3
_PAUSE = (0.2, 0.7)
"""Shortest and longest pause between two kills, as shares of what it took to publish the first models: on a machine
that is slow or busy there are fewer kills, so that as much gets done between."""
_REPORT_SECONDS = 60.0
_LONGER_SECONDS = 480.0
"""So much longer it runs where something has not been tried yet: on a machine that is slow or busy."""
_LAST_TASK_SECONDS = 300.0


def soak(place: Place, minutes: float, console: Console) -> Report:
    """Load and kill for some minutes, then look at what is left."""
    (place.folder / "task_logs").mkdir()
    place.write()
    supervisor = ProcessSupervisor(place.folder)
    try:
        supervisor.add(*_services(place))
        supervisor.wait_until_up()
        if supervisor.wrong:
            raise OSError("the soak cannot begin: " + "; ".join(supervisor.wrong))
        seconds = _publish(place)
        console.print(f"the first models are published, in {seconds:.0f} s; load and kills begin", highlight=False)
        with place.storage.open() as inside:
            draw = random.Random(f"{place.seed} kills")
            killer = Killer(supervisor, inside, draw, (_PAUSE[0] * seconds, _PAUSE[1] * seconds))
            return _loaded(place, supervisor, inside, killer, minutes=minutes, console=console)
    finally:
        supervisor.close()


def _loaded(
    place: Place, supervisor: ProcessSupervisor, inside: Inside, killer: Killer, *, minutes: float, console: Console
) -> Report:
    memory = [supervisor.memory()]
    for number, name in enumerate(CLIENTS):
        supervisor.add(Kept("client", name, ["-m", "tests.soak.load", str(place.file), name, str(number)]))
    began = reported = time.monotonic()
    end = began + 60 * minutes
    killer.start()

    def tried() -> bool:
        return not untried(_task_logs(place), killer) and final_checks.taken_up_again(inside) > 0

    while (now := time.monotonic()) < end or (now < end + _LONGER_SECONDS and not tried()):
        time.sleep(1.0)
        if now >= reported + _REPORT_SECONDS:
            reported += _REPORT_SECONDS
            memory.append(supervisor.memory())
            console.print(progress(now - began, _task_logs(place), killer), highlight=False)
    passed = time.monotonic() - began
    killer.stop()
    place.over.touch()
    supervisor.let_clients_end(_LAST_TASK_SECONDS)
    memory.append(supervisor.memory())
    supervisor.wait_until_up()
    console.print("all clients have ended; looking at what is left", highlight=False)
    tally = _task_logs(place)
    tally.take(final_checks.look(inside))
    tally.wrong += supervisor.wrong
    return Report(place.seed, passed / 60, tally, killer, supervisor.starts(), memory)


def _services(place: Place) -> Iterator[Kept]:
    storage = place.storage
    for number, address in enumerate(place.trainers, 1):
        settings = {**storage.trainer(**HASTE), "ROWMINT_LISTEN": address}
        yield Kept("trainer", f"trainer-{number}", ["-m", "trainer_service"], settings, address)
    for number, address in enumerate((*place.samplers, place.undisturbed), 1):
        kind = "undisturbed" if address == place.undisturbed else "sampler"
        name = kind if kind == "undisturbed" else f"{kind}-{number}"
        settings = {
            **storage.sampler(),
            "ROWMINT_LISTEN": address,
            "ROWMINT_GRACE_SECONDS": HASTE["ROWMINT_GRACE_SECONDS"],
        }
        yield Kept(kind, name, ["-m", "sampler_service"], settings, address)


def _publish(place: Place) -> float:
    """Publish the models that stay, of a table that stays; return how many seconds that took."""
    began = time.monotonic()
    with place.client() as client:
        client.upload(customers_csv(3_000), BASE, format="csv", primary_key="customer")
        started = [client.train(BASE, f"{BASE}-{family}", config(family, 6, seed=1)) for family in FAMILIES]
        for job in started:
            client.wait_job(job.name, 240)
    return time.monotonic() - began


def _task_logs(place: Place) -> Tally:
    found = Tally()
    for file in sorted((place.folder / "task_logs").iterdir()):
        found.take(TaskLog(file).total())
    return found


@contextmanager
def _opened(home: Path, seed: int, *, remote: bool) -> Iterator[Place]:
    """Start a registry and a store where they are not embedded, and yield the place."""
    with ExitStack() as stack:
        back_end = {}
        if remote:
            postgres, swift = PostgresServer(), SwiftServer()
            for server in (postgres, swift):
                stack.callback(server.close)
                server.start()
            back_end = {
                "registry": postgres.create_database(),
                "store": swift.create_bucket(),
                "options": json.dumps(swift.options),
            }
        trainers, samplers = (tuple(_address() for _ in range(many)) for many in (_TRAINERS, _SAMPLERS))
        yield Place(str(home), seed, trainers, samplers, _address(), **back_end)


def _address() -> str:
    return f"127.0.0.1:{free_port()}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the options, run the soak, and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long load and kills last, at least")
    parser.add_argument("--seed", type=int, default=1, help="seed of load and kills")
    parser.add_argument("--postgres", action="store_true", help="PostgreSQL and Swift, not the embedded default")
    requested = parser.parse_args(arguments)
    console = Console(width=120)
    # A signal that ends the soak ends everything it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    home = Path(tempfile.mkdtemp(prefix="rowmint-soak-"))
    with _opened(home, requested.seed, remote=requested.postgres) as place:
        report = soak(place, requested.minutes, console)
    report.show(console)
    if report.good:
        shutil.rmtree(home)
        return 0
    console.print(f"logs, task logs and stores are kept in {home}", highlight=False)
    return 1


if __name__ == "__main__":
    sys.exit(main())
