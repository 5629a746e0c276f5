"""A replica that is killed or terminated while streams run: clients resume them elsewhere, to the same bytes."""

import hashlib
import signal
import threading
from collections.abc import Mapping
from pathlib import Path

import grpc
import pytest

from rowmint.client import Client, RetryPolicy, RowmintCallError
from rowmint.v1 import sampling_pb2
from tests.acceptance.processes import ServiceProcess, Services
from tests.faults.golden_home import GRID, NO_TRAINER, golden_request
from tests.faults.process_figures import wait_until_idle
from tests.faults.raw_streams import NARROW, Received, Undisturbed, opened, received
from tests.proxied.deployment import Deployment
from tests.waiting import PATIENCE

# Some 3 MB each. A server on a narrow channel is ahead of its reader by three blocks of 270 kB and a window.
FORMATS = [("arrow", 24_000), ("csv", 22_000), ("ndjson", 10_000)]
ROWS = 24_000
ROWS_BEHIND_ENVOY = 90_000
"""Envoy holds a few MB of its own."""
PIECES = 3
"""What is read before a replica is harmed: a piece has 16 kB, or a whole block of 270 kB in Arrow."""
STREAMS = 5


def end_replica(replica: ServiceProcess, number: signal.Signals) -> None:
    """Send a replica a signal, and wait until it is gone or drains; who reads nothing meanwhile is not at the end."""
    replica.process.send_signal(number)
    if number == signal.SIGKILL:
        replica.process.wait(60)
    else:
        replica.wait_until_draining()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("number", "form", "rows"), [(signal.SIGTERM, "arrow", ROWS), *((signal.SIGKILL, *form) for form in FORMATS)]
)
def test_a_stream_is_resumed_at_another_replica(
    replicas: Services, undisturbed: Undisturbed, number: signal.Signals, form: str, rows: int
) -> None:
    both = {one.address: one for one in (replicas.sampler(), replicas.sampler())}
    request = golden_request(undisturbed.address, rows, form)
    assert_a_stream_goes_on(both, list(both), request, undisturbed, number)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_stream_is_resumed_at_another_replica_behind_envoy(
    golden_home: Path, undisturbed: Undisturbed, tmp_path: Path, number: signal.Signals
) -> None:
    deployment = Deployment(golden_home, tmp_path)
    try:
        started = [deployment.sampler(), deployment.sampler()]
        deployment.start_envoy()
        both = {f"{deployment.address_of(one)}:7402": one for one in started}
        assert_a_stream_goes_on(
            both, [deployment.address], golden_request(undisturbed.address, ROWS_BEHIND_ENVOY), undisturbed, number
        )
    finally:
        deployment.close()


def assert_a_stream_goes_on(
    both: Mapping[str, ServiceProcess],
    addresses: list[str],
    request: sampling_pb2.SampleRequest,
    undisturbed: Undisturbed,
    number: signal.Signals,
) -> None:
    """End the replica that serves a stream, by the name that it gave itself in the answer's metadata."""
    whole = undisturbed.data(request)
    with Client(NO_TRAINER, addresses, channel_options=NARROW) as client:
        stream = client.sample_stream(request)
        pieces = []
        for piece in stream.chunks():
            pieces.append(piece)
            if len(pieces) == PIECES:
                served = stream.address
                end_replica(both[served], number)
    assert stream.resumes >= 1
    assert stream.address in both.keys() - {served}
    assert digest(b"".join(pieces)) == digest(whole)


@pytest.mark.parametrize(("form", "rows"), FORMATS)
def test_a_terminated_replica_says_where_its_stream_is_resumed(
    replicas: Services, undisturbed: Undisturbed, form: str, rows: int
) -> None:
    replica = replicas.sampler()
    request = golden_request(undisturbed.address, rows, form)
    whole = undisturbed.data(request)
    first = Received()
    with opened(replica.address, request) as call:
        for index, response in enumerate(call):
            first.take(response)
            if index == PIECES:
                end_replica(replica, signal.SIGTERM)
    assert replica.process.wait(PATIENCE) == 0
    next_row = first.summary.next_row
    assert not first.summary.complete
    assert 0 < next_row < rows
    assert next_row % GRID == 0
    assert first.summary.rows_delivered == next_row
    request.model = first.header.model_version
    request.expected_model_digest = first.header.model_digest
    request.expected_plan_digest = first.header.plan_digest
    request.start_row = next_row
    request.framing = sampling_pb2.FRAMING_RESUME
    request.received_bytes = len(first.data)
    rest = received(undisturbed.address, request)
    assert rest.summary.complete
    assert rest.summary.next_row == rows
    assert digest(first.data + rest.data) == digest(whole)


def test_a_terminated_replica_waits_for_a_stalled_reader_within_its_grace_only(
    replicas: Services, undisturbed: Undisturbed
) -> None:
    # The write timeout is another's: only the grace can end the stream.
    replica = replicas.sampler(ROWMINT_GRACE_SECONDS="1", ROWMINT_WRITE_TIMEOUT="3600")
    with opened(replica.address, golden_request(undisturbed.address, 10**7)) as call:
        assert next(call).HasField("header")
        wait_until_idle(replica.pid, "the sampler waiting for its reader")
        replica.process.send_signal(signal.SIGTERM)
        assert replica.process.wait(PATIENCE) == 0


def test_a_second_signal_ends_a_replica_at_once(replicas: Services, undisturbed: Undisturbed) -> None:
    replica = replicas.sampler(ROWMINT_GRACE_SECONDS="600", ROWMINT_WRITE_TIMEOUT="3600")
    with opened(replica.address, golden_request(undisturbed.address, 10**7)) as call:
        assert next(call).HasField("header")
        wait_until_idle(replica.pid, "the sampler waiting for its reader")
        replica.process.send_signal(signal.SIGTERM)
        replica.wait_until_draining()
        assert replica.process.poll() is None
        replica.process.send_signal(signal.SIGTERM)
        assert replica.process.wait(PATIENCE) == 0


def test_a_draining_replica_takes_no_new_stream_and_the_client_uses_the_other(
    replicas: Services, undisturbed: Undisturbed
) -> None:
    ending, staying = replicas.sampler(ROWMINT_GRACE_SECONDS="600", ROWMINT_WRITE_TIMEOUT="3600"), replicas.sampler()
    request = golden_request(undisturbed.address, 5_000)
    whole = undisturbed.data(request)
    with opened(ending.address, golden_request(undisturbed.address, 10**7)) as call:
        assert next(call).HasField("header")
        wait_until_idle(ending.pid, "the sampler waiting for its reader")
        ending.process.send_signal(signal.SIGTERM)
        ending.wait_until_draining()
        with Client(NO_TRAINER, [ending.address, staying.address]) as client:
            streams = [client.sample_stream(request) for _ in range(4)]
            data = [b"".join(stream.chunks()) for stream in streams]
        assert {stream.address for stream in streams} == {staying.address}
        assert {digest(one) for one in data} == {digest(whole)}
        ending.process.send_signal(signal.SIGTERM)
        assert ending.process.wait(PATIENCE) == 0


def test_all_streams_of_a_killed_replica_are_resumed(replicas: Services, undisturbed: Undisturbed) -> None:
    both = {one.address: one for one in (replicas.sampler(), replicas.sampler())}
    request = golden_request(undisturbed.address, ROWS)
    whole = digest(undisturbed.data(request))
    begun, killed = threading.Barrier(STREAMS + 1), threading.Event()
    serving: list[str] = []
    found: list[tuple[str, bool, str]] = []

    def read() -> None:
        with Client(NO_TRAINER, list(both), channel_options=NARROW) as client:
            stream = client.sample_stream(request)
            chunks = stream.chunks()
            data = [next(chunks)]
            first = stream.address
            serving.append(first)
            begun.wait(60)
            killed.wait(60)
            data += chunks
            found.append((first, stream.resumes > 0, digest(b"".join(data))))

    readers = [threading.Thread(target=read) for _ in range(STREAMS)]
    for reader in readers:
        reader.start()
    begun.wait(60)
    victim = max(both, key=serving.count)
    both[victim].kill()
    killed.set()
    for reader in readers:
        reader.join(120)
    assert sorted(found) == sorted((address, address == victim, whole) for address in serving)


def test_without_any_replica_a_stream_ends_with_what_to_do(replicas: Services, undisturbed: Undisturbed) -> None:
    replica = replicas.sampler()
    with Client(NO_TRAINER, replica.address, retry=RetryPolicy(attempts=3, first_delay=0.05)) as client:
        stream = client.sample_stream(golden_request(undisturbed.address, 10**6))
        chunks = stream.chunks()
        next(chunks)
        replica.kill()
        with pytest.raises(RowmintCallError, match=r"is `rowmint serve` running there.* after 3 attempts") as raised:
            for _ in chunks:
                pass
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE
