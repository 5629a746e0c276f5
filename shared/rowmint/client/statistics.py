"""What the sampler's replicas have done for a model."""

from dataclasses import dataclass

from rowmint.client.connection import Calls
from rowmint.client.errors import RowmintCallError
from rowmint.v1 import statistics_pb2
from rowmint.v1.sampling_service_pb2_grpc import SamplingServiceStub


@dataclass(frozen=True)
class ReplicaStatistics:
    """What one address answered.

    Attributes:
        address: The address as it was given.
        statistics: The answer; None where there was none.
        error: Why there was none.
    """

    address: str
    statistics: statistics_pb2.GetModelStatisticsResponse | None
    error: RowmintCallError | None = None


class StatisticsCalls(Calls):
    """The part of the client that asks replicas about themselves."""

    def model_statistics(self, name: str) -> list[ReplicaStatistics]:
        """Ask every sampler that the client was given what it has done for a model; each tells of itself alone.

        Behind an address that stands for several replicas or processes (a proxy, a name, a shared port), one of them
        answers, whichever gets the call: its `replica` tells which.

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
