"""Readers that are slow, that stall, that vanish: what a sampler holds for them stays small, and its work stops."""

import hashlib
import json
import signal
import subprocess
import sys
import threading

import grpc
import pytest

from rowmint.client import Client
from tests.acceptance.processes import ServiceProcess, Services
from tests.acceptance.refusals import refused
from tests.faults.golden_home import NO_TRAINER, golden_request, golden_version
from tests.faults.process_figures import anonymous_bytes, wait_until_idle
from tests.faults.raw_streams import Undisturbed, opened, received, retry_delays
from tests.waiting import wait_until

MANY = 10**7
WIDE = ()
"""Options of a channel whose window grows, as it does by default."""

# Two blocks computed ahead, the message being written, what HTTP/2 and the kernel buffer on the way (a stalled reader
# lets a server run ahead by up to 8 MiB), and the allocator's slack. The whole stream has more than a gigabyte.
BOUND = 64 * 1024 * 1024

# Reads as fast as it can until it is killed.
READER = """
import sys
from rowmint.client import Client
with Client("127.0.0.1:1", sys.argv[1]) as client:
    stream = client.sample(sys.argv[2], 10**7, seed=3, format="csv", columns=sys.argv[4:], where=eval(sys.argv[3]))
    print("begun", flush=True)
    for _ in stream.chunks():
        pass
"""


def streams_ended(sampler: ServiceProcess) -> list[str]:
    """Return the statuses of the streams that have ended, as the sampler's log has them."""
    lines = [line for line in sampler.log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    calls = [json.loads(line) for line in lines if '"call"' in line]
    return [call["status"] for call in calls if call["method"] == "rowmint.v1.SamplingService/Sample"]


def wait_until_given_up(address: str, undisturbed: Undisturbed) -> None:
    """Wait until a sampler that serves one stream at once serves another: the one before is given up."""
    request = golden_request(undisturbed.address, 10)

    def served() -> bool:
        try:
            return received(address, request).data == undisturbed.data(request)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False

    wait_until(served, "another stream being served")


def test_memory_stays_bounded_however_slowly_ten_million_rows_are_read(
    replicas: Services, undisturbed: Undisturbed
) -> None:
    sampler = replicas.sampler()
    # Tables and kernels of the model are there before what a stream takes is measured.
    received(sampler.address, golden_request(undisturbed.address, 20_000))
    before = anonymous_bytes(sampler.pid)
    most = 0
    with opened(sampler.address, golden_request(undisturbed.address, MANY), WIDE) as call:
        for _ in range(3):
            for _ in range(25):
                next(call)
            # A server that did not wait for its reader would go on to the stream's end, minutes from here.
            wait_until_idle(sampler.pid, "the sampler waiting for its reader", 30)
            most = max(most, anonymous_bytes(sampler.pid) - before)
    assert most < BOUND


def test_memory_stays_bounded_while_many_readers_stall(replicas: Services, undisturbed: Undisturbed) -> None:
    sampler = replicas.sampler()
    received(sampler.address, golden_request(undisturbed.address, 20_000))
    before = anonymous_bytes(sampler.pid)
    calls = 8
    release = threading.Event()
    begun = threading.Barrier(calls + 1)

    def stall() -> None:
        with opened(sampler.address, golden_request(undisturbed.address, MANY), WIDE) as call:
            next(call)
            begun.wait(60)
            release.wait(60)

    readers = [threading.Thread(target=stall) for _ in range(calls)]
    for reader in readers:
        reader.start()
    begun.wait(60)
    wait_until_idle(sampler.pid, "the sampler waiting for its readers", 60)
    most = anonymous_bytes(sampler.pid) - before
    release.set()
    for reader in readers:
        reader.join(60)
    assert most < calls * BOUND / 2


def test_a_reader_that_stalls_too_long_gets_the_reason_its_stream_ended(
    replicas: Services, undisturbed: Undisturbed
) -> None:
    sampler = replicas.sampler(ROWMINT_WRITE_TIMEOUT="1", ROWMINT_MAX_STREAMS="1")
    request = golden_request(undisturbed.address, MANY)
    with opened(sampler.address, request) as call:
        assert next(call).HasField("header")
        wait_until_idle(sampler.pid, "the sampler waiting for its reader")
        wait_until_given_up(sampler.address, undisturbed)
        refusal = refused(list, call)
        assert refusal.kind == ("RESOURCE_EXHAUSTED", "LIMIT")
        assert refusal.metadata["setting"] == "ROWMINT_WRITE_TIMEOUT"
        assert "resume from the row after the last one received" in refusal.message


def test_a_client_that_reads_on_after_its_stream_was_given_up_gets_every_row(
    replicas: Services, undisturbed: Undisturbed
) -> None:
    sampler = replicas.sampler(ROWMINT_WRITE_TIMEOUT="1", ROWMINT_MAX_STREAMS="1")
    request = golden_request(undisturbed.address, 90_000)
    whole = undisturbed.data(request)
    with Client(NO_TRAINER, sampler.address) as client:
        stream = client.sample_stream(request)
        chunks = stream.chunks()
        pieces = [next(chunks)]
        wait_until_given_up(sampler.address, undisturbed)
        pieces += chunks
    assert stream.resumes >= 1
    assert hashlib.sha256(b"".join(pieces)).digest() == hashlib.sha256(whole).digest()


def test_a_stream_above_the_limit_is_refused_with_a_delay(replicas: Services, undisturbed: Undisturbed) -> None:
    sampler = replicas.sampler(ROWMINT_MAX_STREAMS="1")
    with opened(sampler.address, golden_request(undisturbed.address, MANY)) as call:
        next(call)
        with opened(sampler.address, golden_request(undisturbed.address, 10)) as second:
            refusal = refused(list, second)
            assert refusal.kind == ("UNAVAILABLE", "UNAVAILABLE")
            assert refusal.metadata == {"limit": "1", "setting": "ROWMINT_MAX_STREAMS"}
            assert retry_delays(second) == (0.1, "100")


@pytest.mark.parametrize(
    ("where", "columns"),
    [
        ({}, []),
        # So rare that no message comes for many tiles: only the end of the call shows that the client is gone.
        ({"age": (98, None), "city": ["Rio"], "grade": [3], "tier": [None], "score": (9.9, None)}, ["age", "city"]),
    ],
    ids=["rows", "no rows yet"],
)
def test_the_work_for_a_client_that_vanished_stops(
    replicas: Services, where: dict[str, object], columns: list[str]
) -> None:
    sampler = replicas.sampler(ROWMINT_LOG_FORMAT="json", ROWMINT_LOG_LEVEL="debug")
    arguments = [sampler.address, golden_version("tvae"), repr(where), *columns]
    with subprocess.Popen([sys.executable, "-c", READER, *arguments], stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"begun\n"
        client.send_signal(signal.SIGKILL)
    # All the rows would take minutes.
    wait_until(lambda: streams_ended(sampler) == ["CANCELLED"], "the end of the call")
    wait_until_idle(sampler.pid, "the end of the sampler's work")
