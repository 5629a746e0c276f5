"""A stream of rows that is read by one call at a time."""

from collections.abc import Iterator
from typing import Any

import google_crc32c
import grpc

from rowmint.client.cancellation import Cancellation
from rowmint.client.interceptor import Metadata
from rowmint.client.resumable_call import BrokenAttemptError, ResumableCall
from rowmint.client.retry import RetryPolicy, SharedProgress
from rowmint.client.route import Route
from rowmint.client.sample_stream import SampleStream, Tally
from rowmint.errors import ChecksumError, DataLossError
from rowmint.v1 import sampling_pb2
from rowmint.v1.sampling_service_pb2_grpc import SamplingServiceStub


class _RowExchange:
    """The messages of `Sample`; see `rowmint.client.resumable_call.Exchange`.

    Args:
        request: The request; its framing is that of the first attempt.
        tally: Counts what is received.
    """

    method = "rowmint.v1.SamplingService/Sample"
    pinned: tuple[str, ...] = ("model_version", "model_digest", "plan_digest", "seed", "rows", "end_row", "grid")

    def __init__(self, request: sampling_pb2.SampleRequest, tally: Tally) -> None:
        self.start_row = request.start_row
        self._request = request
        self._tally = tally
        # Of the file that the request begins or resumes.
        self._received_bytes = request.received_bytes

    @property
    def next_row(self) -> int:
        return self._tally.next_row

    def begin(self, channel: grpc.Channel, header: sampling_pb2.SampleHeader | None, metadata: Metadata) -> Any:
        return SamplingServiceStub(channel).Sample(self._next_request(header), metadata=metadata)

    def _next_request(self, header: sampling_pb2.SampleHeader | None) -> sampling_pb2.SampleRequest:
        if header is None:
            return self._request
        request = sampling_pb2.SampleRequest()
        request.CopyFrom(self._request)
        request.model = header.model_version
        request.seed = header.seed
        request.expected_model_digest = header.model_digest
        request.expected_plan_digest = header.plan_digest
        request.start_row = self.next_row
        # A part that follows another has no header of which anything could be missing.
        if request.framing != sampling_pb2.FRAMING_CONTINUE:
            request.framing = sampling_pb2.FRAMING_RESUME
            request.received_bytes = self._received_bytes
        return request

    def receive(
        self, response: sampling_pb2.SampleResponse, peer: str
    ) -> Iterator[tuple[sampling_pb2.SampleData, bool]]:
        if response.WhichOneof("message") != "data":
            return
        data = response.data
        if google_crc32c.value(data.data) != data.crc32c:
            raise BrokenAttemptError(
                ChecksumError(f"the rows from {data.first_row} came damaged from {peer}; try again")
            )
        if data.first_row != self.next_row or data.row_count < 0:
            raise BrokenAttemptError(
                DataLossError(f"{peer} sent row {data.first_row} where {self.next_row} was next; try again")
            )
        self._received_bytes += len(data.data)
        self._tally.add(data)
        yield data, data.row_count > 0 or bool(data.data)

    def finish(self, summary: sampling_pb2.SampleSummary, header: sampling_pb2.SampleHeader, peer: str) -> bool:
        self._tally.finish(summary)
        if not summary.complete and summary.next_row != self.next_row:
            raise BrokenAttemptError(
                DataLossError(f"{peer} ended at row {summary.next_row}, but {self.next_row} was next; try again")
            )
        if summary.complete and self.next_row != header.end_row and not self._request.allow_partial:
            raise BrokenAttemptError(
                DataLossError(f"{peer} ended at row {self.next_row} of {header.end_row}; try again")
            )
        return summary.complete

    def end(self) -> None:
        """Nothing is held."""


class RowStream(SampleStream):
    """A stream that is one call at a time, resumed where it breaks.

    Args:
        route: Which peers its attempts go to.
        retry: How often and how soon it is resumed.
        request: The request; its framing is that of the first attempt.
        header: Its header, where a plan has it already: the first attempt is then held to it, and made by the first
            read. None to make that attempt now, and wait for the header.
        cancellation: What ends it beside `close`; None for nothing.
        shared: Progress of all streams that serve the same reader; None where there is no other.
        trace: Context that its span hangs on; None for the current one.

    Raises:
        RowmintCallError: The service refused, or no replica was reachable for too long.
        RowmintError: Every attempt delivered something damaged.
    """

    def __init__(
        self,
        route: Route,
        retry: RetryPolicy,
        request: sampling_pb2.SampleRequest,
        *,
        header: sampling_pb2.SampleHeader | None = None,
        cancellation: Cancellation | None = None,
        shared: SharedProgress | None = None,
        trace: Any = None,
    ) -> None:
        super().__init__(request)
        self._call = ResumableCall(
            _RowExchange(self._request, self._tally),
            route,
            retry,
            header=header,
            cancellation=cancellation,
            shared=shared,
            trace=trace,
        )
        self.header = self._call.await_header()

    @property
    def address(self) -> str:
        """See `SampleStream`."""
        return self._call.address

    @property
    def resumes(self) -> int:
        """See `SampleStream`."""
        return self._call.resumes

    def messages(self) -> Iterator[sampling_pb2.SampleData]:
        """See `SampleStream`."""
        return iter(self._call)

    def close(self) -> None:
        """See `SampleStream`."""
        self._call.close()
