"""Statistics of the sampler's replicas about a model."""

from dataclasses import dataclass

from rowmint.client.connection import Calls
from rowmint.client.errors import RowmintCallError
from rowmint.v1 import statistics_pb2
from rowmint.v1.sampling_service_pb2_grpc import SamplingServiceStub


@dataclass(frozen=True)
class ReplicaStatistics:
    """The answer of one address.

    Attributes:
        address: The address as it was given.
        statistics: The statistics; None where the call failed.
        error: Why the call failed.
    """

    address: str
    statistics: statistics_pb2.GetModelStatisticsResponse | None
    error: RowmintCallError | None = None


class StatisticsCalls(Calls):
    """The part of the client for statistics of replicas."""

    def model_statistics(self, name: str) -> list[ReplicaStatistics]:
        """Return the statistics of every sampler address that the client was given; each replica counts its own calls.

        Of an address that stands for several replicas or processes (a proxy, a name, a shared port), the one that gets
        the call answers; `replica` names it.

        Args:
            name: A model, by name or id, for all its versions; or one version: its name, or a model with `@alias` or
                `@sha256:digest`.

        Raises:
            RowmintCallError: There is no such model or version, or no replica was reachable.
        """
        request = statistics_pb2.GetModelStatisticsRequest(name=self._full_name(name, "models"))
        found: list[ReplicaStatistics] = []
        for peer in self._connection.each_sampler():
            try:
                answer = self._connection.call_peer(
                    peer, lambda channel: SamplingServiceStub(channel).GetModelStatistics, request
                )
                found.append(ReplicaStatistics(peer.address, answer))
            except RowmintCallError as error:
                if not error.retryable:
                    raise
                found.append(ReplicaStatistics(peer.address, None, error))
        failures = [one.error for one in found if one.error is not None]
        if len(failures) == len(found):
            raise failures[0]
        return found
