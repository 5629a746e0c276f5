"""All replicas are replaced, one after another, under load: no call fails, and no row is lost or given twice."""

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Self

import pytest

from rowmint.client import Client
from tests.acceptance.processes import ServiceProcess, Services, free_port
from tests.faults.golden_home import NO_TRAINER, golden_version
from tests.proxied.deployment import Deployment
from tests.waiting import wait_until

READERS = 3
ROWS = 30_000
REPLICAS = 3
FAMILIES = ("ctgan", "tvae")


@dataclass
class Seen:
    """What all readers together have seen."""

    streams: int = 0
    planned: int = 0
    replicas: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)


class Readers:
    """Clients that sample again and again, each stream compared with what it is to be, until they are stopped."""

    def __init__(self, address: str, expected: dict[str, str]) -> None:
        self._address = address
        self._expected = expected
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.seen = Seen()
        self._reading: dict[int, str] = {}
        self._threads = [threading.Thread(target=self._read, args=(number,), daemon=True) for number in range(READERS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(120)
        assert not any(thread.is_alive() for thread in self._threads), "a call hangs"

    def more_streams(self, many: int) -> None:
        before = self.seen.streams
        wait_until(lambda: bool(self.seen.wrong) or self.seen.streams >= before + many, f"{many} more streams")

    def wait_for_stream(self, replica: str) -> None:
        """Wait until a reader has rows of a replica, by the name that it gives itself, and not all of them."""
        wait_until(lambda: bool(self.seen.wrong) or replica in self._reading.values(), f"a stream of {replica}")

    def _read(self, number: int) -> None:
        with Client(NO_TRAINER, self._address) as client:
            turn = number
            while not self._stop.is_set():
                turn += 1
                family = FAMILIES[turn % 2]
                try:
                    self._read_one(client, family, number)
                except Exception as error:  # noqa: BLE001 - whatever it is, no call may fail
                    with self._lock:
                        self.seen.wrong.append(repr(error))
                    return

    def _read_one(self, client: Client, family: str, number: int) -> None:
        request = client.sample_request(golden_version(family), ROWS, seed=5, format="csv", message_bytes=16_384)
        parts = client.plan_sample(request, parts=3).parts
        digest = hashlib.sha256()
        with client.sample_stream(request) as stream:
            for chunk in stream.chunks():
                self._reading[number] = stream.address
                digest.update(chunk)
        del self._reading[number]
        with self._lock:
            self.seen.planned += len(parts)
            self.seen.streams += 1
            self.seen.replicas.add(stream.address)
            if digest.hexdigest() != self._expected[family]:
                self.seen.wrong.append(f"{family}: other bytes")


@pytest.fixture(scope="module")
def expected(golden_home) -> dict[str, str]:
    """The digest of each family's stream, from a replica that is never restarted."""
    services = Services(golden_home)
    try:
        with Client(NO_TRAINER, services.sampler().address) as client:
            return {
                family: hashlib.sha256(
                    b"".join(client.sample(golden_version(family), ROWS, seed=5, format="csv").chunks())
                ).hexdigest()
                for family in FAMILIES
            }
    finally:
        services.close()


LOGGED = {"ROWMINT_LOG_FORMAT": "json", "ROWMINT_LOG_LEVEL": "debug"}


def assert_none_was_cut(replicas: list[ServiceProcess]) -> None:
    """Each call had its answer: none was cut off, and the only ones refused came to a replica that was being ended."""
    for replica in replicas:
        lines = [json.loads(line) for line in replica.log.read_text().splitlines() if line.startswith("{")]
        calls = [line for line in lines if line["event"] == "call" and line["method"].startswith("rowmint.")]
        statuses = {call["status"] for call in calls}
        assert "OK" in statuses
        assert statuses <= {"OK", "UNAVAILABLE"}


def replace_all(
    readers: Readers, replicas: Mapping[str, ServiceProcess], replace: Callable[[ServiceProcess], None]
) -> None:
    """Replace replicas, each while it serves a stream; they go by the names that they give themselves."""
    for name, replica in replicas.items():
        readers.wait_for_stream(name)
        replace(replica)
    readers.more_streams(2 * READERS)


def test_direct(golden_home, expected) -> None:
    services = Services(golden_home)
    ports = [free_port() for _ in range(REPLICAS)]
    try:
        replicas = [services.start("sampler_service", LOGGED, port=port) for port in ports]
        with Readers(",".join(replica.address for replica in replicas), expected) as readers:

            def replace(replica: ServiceProcess) -> None:
                assert replica.terminate() == 0
                services.start("sampler_service", LOGGED, port=replica.port)

            replace_all(readers, {replica.address: replica for replica in replicas}, replace)
        assert readers.seen.wrong == []
        assert_none_was_cut(replicas)
        assert readers.seen.planned == 3 * readers.seen.streams
    finally:
        services.close()


def test_behind_envoy(deployment: Deployment, expected) -> None:
    replicas = [deployment.sampler(**LOGGED) for _ in range(REPLICAS)]
    deployment.start_envoy()
    with Readers(deployment.address, expected) as readers:

        def replace(replica: ServiceProcess) -> None:
            new = deployment.address_of(deployment.sampler(**LOGGED))
            wait_until(lambda: new in deployment.healthy("samplers"), "Envoy finding the new replica")
            # Its name goes after it has: what Envoy sends there meanwhile must be sent elsewhere.
            assert replica.terminate() == 0
            deployment.forget(replica)

        replace_all(readers, {f"{deployment.address_of(one)}:7402": one for one in replicas}, replace)
    assert readers.seen.wrong == []
    assert_none_was_cut(replicas)
    # None of the first ones is there any more: what was read in the end came from new ones.
    assert readers.seen.replicas - {f"{deployment.address_of(one)}:7402" for one in replicas}
