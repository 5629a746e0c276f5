"""A planned stream: its header, its estimated acceptance, and its parts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from rowmint.v1 import sampling_pb2


class PlannedParts(Sequence[sampling_pb2.SampleRequest]):
    """The parts of a stream as requests, each made when it is taken: one is as large as the whole stream's. Immutable.

    Args:
        request: The stream.
        header: What its version, seed and digests are.
        ranges: The rows of each part, first and one after the last.
    """

    def __init__(
        self,
        request: sampling_pb2.SampleRequest,
        header: sampling_pb2.SampleHeader,
        ranges: Sequence[tuple[int, int]],
    ) -> None:
        self._request = sampling_pb2.SampleRequest()
        self._request.CopyFrom(request)
        self._header = header
        self._ranges = tuple(ranges)

    def __len__(self) -> int:
        return len(self._ranges)

    @overload
    def __getitem__(self, index: int) -> sampling_pb2.SampleRequest: ...

    @overload
    def __getitem__(self, index: slice) -> list[sampling_pb2.SampleRequest]: ...

    def __getitem__(self, index: int | slice) -> sampling_pb2.SampleRequest | list[sampling_pb2.SampleRequest]:
        if isinstance(index, slice):
            return [self._part(number) for number in range(len(self))[index]]
        return self._part(range(len(self))[index])

    def __iter__(self) -> Iterator[sampling_pb2.SampleRequest]:
        return map(self._part, range(len(self)))

    def _part(self, number: int) -> sampling_pb2.SampleRequest:
        part = sampling_pb2.SampleRequest()
        part.CopyFrom(self._request)
        part.model = self._header.model_version
        part.seed = self._header.seed
        part.expected_model_digest = self._header.model_digest
        part.expected_plan_digest = self._header.plan_digest
        part.start_row, part.end_row = self._ranges[number]
        if number:
            part.framing = sampling_pb2.FRAMING_CONTINUE
            part.ClearField("received_bytes")
        elif part.framing == sampling_pb2.FRAMING_UNSPECIFIED:
            part.framing = sampling_pb2.FRAMING_FILE
        return part


@dataclass(frozen=True)
class SamplePlan:
    """What a stream would be made of.

    Attributes:
        header: What its header would be.
        parts: Requests whose data, joined in order, is the stream's.
        acceptance: Expected share of candidates that satisfy the conditions, 0 to 1.
        conditioned_column: The first column under a condition that candidates are drawn for, not only tested for; empty
            for none.
        tile_size: Candidates of a tile.
        block_size: Rows of a block.
        tile_budget: Tiles that a block may use.
        condition_probability: Exact probability that a row of the model satisfies the conditions and, where a column
            has weights, that its value has a share; None where the model's family cannot compute it.
    """

    header: sampling_pb2.SampleHeader
    parts: Sequence[sampling_pb2.SampleRequest]
    acceptance: float
    conditioned_column: str
    tile_size: int
    block_size: int
    tile_budget: int
    condition_probability: float | None


def sample_plan(request: sampling_pb2.SampleRequest, response: sampling_pb2.PlanSampleResponse) -> SamplePlan:
    """Return the plan of a stream.

    Args:
        request: The stream.
        response: What the service says of it; one of before `ranges` has whole requests.
    """
    ranges = [(part.start_row, part.end_row) for part in response.ranges or response.parts]
    return SamplePlan(
        response.header,
        PlannedParts(request, response.header, ranges),
        response.acceptance,
        response.conditioned_column,
        response.tile_size,
        response.block_size,
        response.tile_budget,
        response.condition_probability if response.HasField("condition_probability") else None,
    )
