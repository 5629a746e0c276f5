"""The soak: a mixed load on real services while everything is killed at random: ``python -m tests.soak``.

Two trainers, three samplers behind the client's own balancing, and clients in processes of their own; workers,
trainers, samplers and clients are killed and started again. A replica that nobody disturbs says what every stream is to
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
from tests.crash.house import Inside
from tests.postgres_server import PostgresServer
from tests.soak import aftermath
from tests.soak.fits import config
from tests.soak.household import Household, Kept
from tests.soak.journal import Journal, Tally
from tests.soak.kills import Killer
from tests.soak.place import BASE, FAMILIES, HASTE, Place
from tests.soak.report import Report, progress, untried
from tests.swift_server import SwiftServer

CLIENTS = ("reader-1", "uploader-1", "fitter-1", "keeper-1")
_TRAINERS, _SAMPLERS = 2, 3
_PAUSE = (0.2, 0.7)
"""Shortest and longest pause between two kills, as shares of what it took to publish the first models: on a machine
that is slow or busy less dies, so that as much gets done between."""
_TELL_SECONDS = 60.0
_LONGER_SECONDS = 480.0
"""So much longer it goes on where something has not been tried yet: on a machine that is slow or busy."""
_LAST_TASK_SECONDS = 300.0


def soak(place: Place, minutes: float, console: Console) -> Report:
    """Load and kill for some minutes, then look at what is left."""
    (place.folder / "journals").mkdir()
    place.write()
    household = Household(place.folder)
    try:
        household.add(*_services(place))
        household.wait_until_up()
        if household.wrong:
            raise OSError("the soak cannot begin: " + "; ".join(household.wrong))
        seconds = _publish(place)
        console.print(f"the first models are published, in {seconds:.0f} s; load and kills begin", highlight=False)
        with place.house.open() as inside:
            draw = random.Random(f"{place.seed} kills")
            killer = Killer(household, inside, draw, (_PAUSE[0] * seconds, _PAUSE[1] * seconds))
            return _loaded(place, household, inside, killer, minutes=minutes, console=console)
    finally:
        household.close()


def _loaded(
    place: Place, household: Household, inside: Inside, killer: Killer, *, minutes: float, console: Console
) -> Report:
    memory = [household.memory()]
    for number, name in enumerate(CLIENTS):
        household.add(Kept("client", name, ["-m", "tests.soak.load", str(place.file), name, str(number)]))
    began = told = time.monotonic()
    end = began + 60 * minutes
    killer.start()
    while (now := time.monotonic()) < end or (now < end + _LONGER_SECONDS and untried(_journals(place), killer)):
        time.sleep(1.0)
        if now >= told + _TELL_SECONDS:
            told += _TELL_SECONDS
            memory.append(household.memory())
            console.print(progress(now - began, _journals(place), killer), highlight=False)
    passed = time.monotonic() - began
    killer.stop()
    place.over.touch()
    household.let_clients_end(_LAST_TASK_SECONDS)
    memory.append(household.memory())
    household.wait_until_up()
    console.print("all clients have ended; looking at what is left", highlight=False)
    tally = _journals(place)
    tally.take(aftermath.look(inside))
    tally.wrong += household.wrong
    return Report(place.seed, passed / 60, tally, killer, household.starts(), memory)


def _services(place: Place) -> Iterator[Kept]:
    house = place.house
    for number, address in enumerate(place.trainers, 1):
        settings = {**house.trainer(**HASTE), "ROWMINT_LISTEN": address}
        yield Kept("trainer", f"trainer-{number}", ["-m", "trainer_service"], settings, address)
    for number, address in enumerate((*place.samplers, place.undisturbed), 1):
        kind = "undisturbed" if address == place.undisturbed else "sampler"
        name = kind if kind == "undisturbed" else f"{kind}-{number}"
        settings = {
            **house.sampler(),
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


def _journals(place: Place) -> Tally:
    found = Tally()
    for file in sorted((place.folder / "journals").iterdir()):
        found.take(Journal(file).total())
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
    """Read what is asked for, do it, and tell of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long load and kills go on, at least")
    parser.add_argument("--seed", type=int, default=1, help="seed of load and kills")
    parser.add_argument("--postgres", action="store_true", help="PostgreSQL and Swift, not the embedded default")
    asked = parser.parse_args(arguments)
    console = Console(width=120)
    # Whoever ends the soak ends everything it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    home = Path(tempfile.mkdtemp(prefix="rowmint-soak-"))
    with _opened(home, asked.seed, remote=asked.postgres) as place:
        report = soak(place, asked.minutes, console)
    report.show(console)
    if report.good:
        shutil.rmtree(home)
        return 0
    console.print(f"logs, journals and stores are kept in {home}", highlight=False)
    return 1


if __name__ == "__main__":
    sys.exit(main())
