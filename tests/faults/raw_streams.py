"""Streams as they are on the wire: one call, no resuming."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import grpc
from google.rpc.error_details_pb2 import RetryInfo
from grpc_status import rpc_status

from rowmint.v1 import sampling_pb2
from rowmint.v1.sampling_service_pb2_grpc import SamplingServiceStub

NARROW = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 64 * 1024))
"""Options of a channel on which a server is soon held up by a reader that does not read.

By default a window grows with what the connection carries, and system buffers with it: on a busy machine a client may
hold many megabytes that it has not read.
"""


@contextlib.contextmanager
def opened(
    address: str, request: sampling_pb2.SampleRequest, options: Sequence[tuple[str, int]] = NARROW
) -> Iterator[grpc.Call]:
    """Make a call and yield it; it is cancelled at the end."""
    with grpc.insecure_channel(address, options) as channel:
        call = SamplingServiceStub(channel).Sample(request)
        try:
            yield call
        finally:
            call.cancel()


@dataclass
class Received:
    """What a call gave.

    Attributes:
        header: Its header.
        data: The bytes of its rows, joined.
        summary: How it ended.
    """

    header: sampling_pb2.SampleHeader = field(default_factory=sampling_pb2.SampleHeader)
    data: bytes = b""
    summary: sampling_pb2.SampleSummary = field(default_factory=sampling_pb2.SampleSummary)

    def take(self, response: sampling_pb2.SampleResponse) -> None:
        kind = response.WhichOneof("message")
        if kind == "header":
            self.header = response.header
        elif kind == "data":
            self.data += response.data.data
        else:
            self.summary = response.summary


def received(address: str, request: sampling_pb2.SampleRequest) -> Received:
    """Return everything that one call gives."""
    found = Received()
    with opened(address, request) as call:
        for response in call:
            found.take(response)
    return found


def retry_delays(error: grpc.RpcError) -> tuple[float, str]:
    """Return after how many seconds a failed call may be made again, and the pushback for gRPC's own retry, in ms."""
    retry = RetryInfo()
    status = rpc_status.from_call(error)
    assert status is not None, error
    assert any(detail.Unpack(retry) for detail in status.details), status
    trailers = dict(error.trailing_metadata())
    return retry.retry_delay.ToTimedelta().total_seconds(), str(trailers["grpc-retry-pushback-ms"])


@dataclass
class Undisturbed:
    """A sampler that no test disturbs: its streams are the reference.

    Attributes:
        address: Its address.
    """

    address: str
    _known: dict[bytes, bytes] = field(default_factory=dict)

    def data(self, request: sampling_pb2.SampleRequest) -> bytes:
        """Return the bytes of a stream; requested once."""
        key = request.SerializeToString(deterministic=True)
        if key not in self._known:
            self._known[key] = received(self.address, request).data
        return self._known[key]
