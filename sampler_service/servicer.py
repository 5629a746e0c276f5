"""SamplingService: convert, call, convert."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from rowmint.rpc.server import Service
from rowmint.v1 import sampling_pb2, sampling_service_pb2, sampling_service_pb2_grpc, statistics_pb2
from sampler_service import converters
from sampler_service.converters.completed_rows import CompletedRows
from sampler_service.converters.sent_cells import SentCells
from sampler_service.pacing import Pacing
from sampler_service.row_sessions import Completing, RowSession, Scoring
from sampler_service.sessions import PlanSession, SampleSession, SessionServices
from sampler_service.settings import MAX_PLAN_BYTES


class SamplingServicer(sampling_service_pb2_grpc.SamplingServiceServicer):
    """Makes rows.

    Args:
        services: What sessions are made with.
        pacing: Ends calls whose clients do not keep them going.
        max_plan_bytes: Bytes that the requests of a plan's parts may have together.
    """

    def __init__(self, services: SessionServices, pacing: Pacing, max_plan_bytes: int = MAX_PLAN_BYTES) -> None:
        self._services = services
        self._pacing = pacing
        self._plan_bytes = max_plan_bytes

    async def Sample(
        self, request: sampling_pb2.SampleRequest, context: Any
    ) -> AsyncIterator[sampling_pb2.SampleResponse]:
        """Stream rows."""
        session = SampleSession(self._services, converters.received_sample(request), context)
        making = session.responses(converters.sample_response)
        async with aclosing(self._pacing.paced(making, context)) as responses:
            async for response in responses:
                yield response

    async def PlanSample(
        self, request: sampling_pb2.PlanSampleRequest, context: Any
    ) -> sampling_pb2.PlanSampleResponse:
        """Say what a stream would be made of and cut it into parts."""
        session = PlanSession(self._services, converters.received_plan(request), context)
        with converters.within_sample():
            return await session.response(lambda planned: converters.plan_response(planned, request, self._plan_bytes))

    async def CompleteRows(
        self, request_iterator: AsyncIterator[sampling_pb2.CompleteRowsRequest], context: Any
    ) -> AsyncIterator[sampling_pb2.CompleteRowsResponse]:
        """Complete rows of which some cells are known."""
        # Not admitted before the first message has come.
        request = converters.completion_request(await self._pacing.first(request_iterator))
        session = RowSession(self._services, Completing(request), SentCells().read, context)
        rows = (converters.partial_rows(message) async for message in request_iterator)
        making = session.responses(rows, CompletedRows().responses)
        async with aclosing(self._pacing.paced(making, context)) as responses:
            async for response in responses:
                yield response

    async def ScoreRows(
        self, request_iterator: AsyncIterator[sampling_pb2.ScoreRowsRequest], context: Any
    ) -> AsyncIterator[sampling_pb2.ScoreRowsResponse]:
        """Score rows, or the known cells of rows."""
        # As for CompleteRows.
        request = converters.scoring_request(await self._pacing.first(request_iterator))
        session = RowSession(self._services, Scoring(request), SentCells().read, context)
        rows = (converters.partial_rows(message) async for message in request_iterator)
        making = session.responses(rows, converters.scoring_responses)
        async with aclosing(self._pacing.paced(making, context)) as responses:
            async for response in responses:
                yield response

    async def GetModelStatistics(
        self, request: statistics_pb2.GetModelStatisticsRequest, context: Any
    ) -> statistics_pb2.GetModelStatisticsResponse:
        """Say what this process has done for a model."""
        statistics = self._services.statistics
        found = await statistics.read(request.name)
        return converters.statistics_response(self._services.replica.name(), statistics.started_at, found)


def sampling_service(servicer: SamplingServicer) -> Service:
    """Return the service, ready to join a server."""
    return Service(
        # Its file holds no message, so nothing else loads what reflection shows of it.
        sampling_service_pb2.DESCRIPTOR.services_by_name["SamplingService"].full_name,
        lambda server: sampling_service_pb2_grpc.add_SamplingServiceServicer_to_server(servicer, server),
    )
