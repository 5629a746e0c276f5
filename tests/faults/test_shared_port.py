"""Several sampler processes behind one port: who answers, who is killed, and who ends with whom."""

import os
import signal
from pathlib import Path

import grpc
import pytest

from rowmint.v1.sampling_service_pb2_grpc import SamplingServiceStub
from tests.acceptance.processes import ServiceProcess, Services, children_of, refused_start
from tests.faults.golden_home import golden_request
from tests.faults.raw_streams import Received, Undisturbed
from tests.waiting import wait_until

PROCESSES = 3


@pytest.fixture
def shared(replicas: Services) -> ServiceProcess:
    return replicas.sampler(ROWMINT_PROCESSES=str(PROCESSES))


def answered(address: str, request) -> tuple[str, bytes]:
    """Return who answered on a connection of its own, and the bytes."""
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = SamplingServiceStub(channel).Sample(request)
        found = Received()
        for response in call:
            found.take(response)
        return dict(call.initial_metadata())["rowmint-replica"], found.data


def all_seen(address: str, request, whole: bytes) -> set[str]:
    """Connect until as many processes as there are have answered, and all alike."""
    seen = set()

    def every_one() -> bool:
        name, data = answered(address, request)
        assert data == whole
        seen.add(name)
        return len(seen) == PROCESSES

    wait_until(every_one, "an answer of every process")
    return seen


def pids(names: set[str]) -> set[int]:
    return {int(name.rpartition("/")[2]) for name in names}


def gone(pid: int) -> bool:
    """Say whether a process has ended; it may be another process's child."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_every_process_answers_alike(shared: ServiceProcess, undisturbed: Undisturbed) -> None:
    request = golden_request(undisturbed.address, 5000)
    seen = all_seen(shared.address, request, undisturbed.data(request))
    assert {name.rpartition("/")[0] for name in seen} == {shared.address}
    assert pids(seen) == set(children_of(shared.pid))
    assert shared.terminate() == 0
    assert all(map(gone, pids(seen)))


def test_a_killed_process_is_replaced_and_the_others_serve_on(shared: ServiceProcess, undisturbed: Undisturbed) -> None:
    request = golden_request(undisturbed.address, 5000)
    whole = undisturbed.data(request)
    before = pids(all_seen(shared.address, request, whole))
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(set(children_of(shared.pid)) - {victim}) == PROCESSES, "a new process")
    after = pids(all_seen(shared.address, request, whole))
    assert before - after == {victim}


def test_processes_end_with_their_parent(shared: ServiceProcess) -> None:
    children = children_of(shared.pid)
    assert len(children) == PROCESSES
    shared.kill()
    wait_until(lambda: all(map(gone, children)), "the end of the processes whose parent is gone")


@pytest.mark.parametrize(
    ("options", "environment", "reported"),
    [
        (["--processes", "0"], {}, "ROWMINT_PROCESSES: Input should be greater than or equal to 1"),
        (
            ["--processes", "2"],
            {"ROWMINT_LISTEN": "nowhere:x", "ROWMINT_INSECURE": "true"},
            "cannot listen on 'nowhere:x'",
        ),
        (["--processes", "2"], {"ROWMINT_MODEL_STORE": "no://store"}, "ended with exit code 1"),
    ],
)
def test_what_cannot_run_says_so(replicas: Services, options, environment, reported) -> None:
    assert reported in refused_start(replicas.home, "-m", "sampler_service", *options, **environment)


def test_a_port_that_is_taken_is_not_shared(replicas: Services, shared: ServiceProcess) -> None:
    command = ("-m", "sampler_service", "--processes", "2")
    assert "cannot listen on" in refused_start(replicas.home, *command, ROWMINT_LISTEN=shared.address)
