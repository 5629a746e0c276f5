"""Several replicas without a proxy, and streams read as parts at once, while replicas are killed and terminated."""

import contextlib
import hashlib
import signal
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterator

import pytest

from rowmint.client import Client, parallel
from tests.acceptance.processes import ServiceProcess, Services
from tests.faults.golden_home import NO_TRAINER, golden_request, golden_version
from tests.faults.process_figures import anonymous_bytes, wait_until_idle
from tests.faults.raw_streams import Undisturbed, opened
from tests.waiting import PATIENCE, wait_until

ROWS = 90_000
FORMATS = [("arrow", ROWS), ("csv", ROWS), ("ndjson", ROWS // 2)]

# Six parts of four megabytes, what gRPC buffers for four calls, and the allocator's slack.
BOUND = 96 * 1024 * 1024
# Reads 50 megabytes, then nothing until a line comes, 50 more, and so on.
READER = """
import sys
from rowmint.client import Client
with Client("127.0.0.1:1", sys.argv[1]) as client:
    chunks = client.sample(sys.argv[2], 10**7, seed=3, format="csv", end_row=5000).chunks()
    print("begun", sum(map(len, chunks)), flush=True)
    with client.sample(sys.argv[2], 10**7, seed=3, format="csv", parallel=4) as stream:
        chunks = stream.chunks()
        for line in sys.stdin:
            read = 0
            while read < 50_000_000:
                read += len(next(chunks))
            print("read", stream.resumes, flush=True)
"""


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def spread(client: Client, streams: int) -> Counter[str]:
    """Return how many of so many streams each replica is given."""

    def addresses() -> Iterator[str]:
        for _ in range(streams):
            with client.sample(golden_version("independent"), 10, seed=1, format="csv") as stream:
                yield stream.address

    return Counter(addresses())


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "PART_BYTES", 1024 * 1024)


@pytest.mark.parametrize(("form", "rows"), FORMATS)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_parts_are_resumed_at_the_remaining_replica(
    replicas: Services, undisturbed: Undisturbed, form: str, rows: int, number: signal.Signals
) -> None:
    both = [replicas.sampler(), replicas.sampler()]
    request = golden_request(undisturbed.address, rows, form)
    whole = undisturbed.data(request)
    with Client(NO_TRAINER, [one.address for one in both]) as client:
        pieces, ended = [], None
        with client.sample_stream(request, parallel=3) as stream:
            for piece in stream.chunks():
                pieces.append(piece)
                if ended is None and stream.next_row >= rows // 4:
                    (ended,) = (one for one in both if one.address == stream.address)
                    ended.process.send_signal(number)
                    ended.process.wait(PATIENCE)
    assert digest(b"".join(pieces)) == digest(whole)
    (left,) = (one.address for one in both if one is not ended)
    assert stream.address == left
    assert stream.header.end_row == stream.next_row == rows


def test_memory_stays_bounded_however_slowly_parts_are_taken(replicas: Services, undisturbed: Undisturbed) -> None:
    sampler = replicas.sampler()
    arguments = [sys.executable, "-c", READER, sampler.address, golden_version("tvae")]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        assert reader.stdout.readline().startswith(b"begun")
        before = anonymous_bytes(reader.pid)
        for _ in range(2):
            reader.stdin.write(b"\n")
            reader.stdin.flush()
            assert reader.stdout.readline() == b"read 0\n"
            # It stands still now, and so does the sampler: nothing is computed that the client has no room for.
            wait_until_idle(sampler.pid, "the sampler's rest")
            assert anonymous_bytes(reader.pid) - before < BOUND
        reader.stdin.close()
        assert reader.wait(PATIENCE) == 0


def test_processes_that_share_a_port_are_read_from_together(replicas: Services, undisturbed: Undisturbed) -> None:
    sampler = replicas.sampler(ROWMINT_PROCESSES="2")
    request = golden_request(undisturbed.address, ROWS, "csv")
    serving: set[str] = set()

    def both_serve() -> bool:
        with Client(NO_TRAINER, sampler.address) as client:
            serving.update(spread(client, 1))
        return len(serving) == 2

    wait_until(both_serve, "both processes serving")
    addresses = set()
    data = b""
    # Which process a connection comes to is the kernel's choice, by chance: sixteen do not all come to one.
    with Client(NO_TRAINER, sampler.address) as client, client.sample_stream(request, parallel=16) as stream:
        for message in stream.messages():
            data += message.data
            addresses.add(stream.address)
    assert digest(data) == digest(undisturbed.data(request))
    assert addresses == serving


@pytest.mark.parametrize("balancing", ["weighted", "round_robin"])
def test_a_replica_that_drains_gets_no_stream_of_a_client_that_knows_it(
    replicas: Services, undisturbed: Undisturbed, balancing: str
) -> None:
    ending, staying = replicas.sampler(ROWMINT_GRACE_SECONDS="600", ROWMINT_WRITE_TIMEOUT="3600"), replicas.sampler()
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(Client(NO_TRAINER, [ending.address, staying.address], balancing=balancing))
        wait_until(lambda: len(spread(client, 4)) == 2, "streams at both")
        # Then only: by its load, a replica with a stream may be given no other for long.
        call = stack.enter_context(opened(ending.address, golden_request(undisturbed.address, 10**7)))
        assert next(call).HasField("header")
        wait_until_idle(ending.pid, "the sampler waiting for its reader")
        ending.process.send_signal(signal.SIGTERM)
        ending.wait_until_draining()
        assert spread(client, 10) == {staying.address: 10}
        assert ending.process.poll() is None
        ending.process.send_signal(signal.SIGTERM)
        assert ending.process.wait(PATIENCE) == 0
        assert spread(client, 4) == {staying.address: 4}


@contextlib.contextmanager
def slowed(service: ServiceProcess) -> Iterator[None]:
    """Let a process run for a quarter of the time."""
    over = threading.Event()

    def stop_and_go() -> None:
        while not over.is_set():
            service.process.send_signal(signal.SIGSTOP)
            over.wait(0.15)
            service.process.send_signal(signal.SIGCONT)
            over.wait(0.05)

    thread = threading.Thread(target=stop_and_go)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_slowed_replica_is_given_less(replicas: Services) -> None:
    slow, sound = (replicas.sampler(ROWMINT_THREADS="1") for _ in range(2))
    last: deque[str] = deque(maxlen=40)
    over = threading.Event()

    def read(client: Client) -> None:
        while not over.is_set():
            with client.sample(golden_version("ctgan"), 8_192, seed=1, format="csv") as stream:
                b"".join(stream.chunks())
            last.append(stream.address)

    def both() -> bool:
        return len(set(last)) == 2

    def less() -> bool:
        found = Counter(last)
        return found.total() == 40 and 0 < 2 * found[slow.address] < found[sound.address]

    with Client(NO_TRAINER, [slow.address, sound.address]) as client:
        readers = [threading.Thread(target=read, args=(client,)) for _ in range(4)]
        for reader in readers:
            reader.start()
        try:
            wait_until(both, "an answer of each replica")
            with slowed(slow):
                last.clear()
                # In turn, each would be given half of them however slow it is.
                wait_until(less, "weights from what the replicas report of their load")
        finally:
            over.set()
            for reader in readers:
                reader.join()
