"""The client: every call of both services, by one object."""

from collections.abc import Sequence

from rowmint.client.completion import CompletionCalls
from rowmint.client.connection import SAMPLER, TRAINER, Connection
from rowmint.client.credentials import PLAIN, Credentials
from rowmint.client.datasets import DatasetCalls
from rowmint.client.retry import RetryPolicy
from rowmint.client.sampling import SamplingCalls
from rowmint.client.statistics import StatisticsCalls
from rowmint.client.training import TrainingCalls


class Client(DatasetCalls, TrainingCalls, SamplingCalls, CompletionCalls, StatisticsCalls):
    """A client of one trainer and any number of sampler replicas.

    Safe to use from several threads; a stream it returns is for one thread at a time. Close it, or use it as a context
    manager. Wherever a name is asked for, the last part of it stands for the resource in the client's project.

    Args:
        trainer: Address of the trainer, host:port.
        sampler: Address of the sampler, or of a proxy before it. Several, or one text with commas between them, for
            several replicas, among which the client balances; `dns:///name:port` for all addresses of a name. Names in
            a list are taken in turn.
        project: The project.
        retry: When a call is made again.
        timeout: Seconds a call that is not a stream may take.
        balancing: How a new call chooses among several replicas: `weighted`, less for one that tells of more load, or
            `round_robin`. One that drains gets no new call either way.
        credentials: What the client shows to the services, and asks of them; None for plain text, showing nothing.
        channel_options: gRPC channel options beside the client's own.

    Raises:
        InvalidFieldError: An address, the project or `balancing` is malformed, or a token would be sent in plain text
            over a network.
    """

    def __init__(
        self,
        trainer: str = TRAINER,
        sampler: str | Sequence[str] = SAMPLER,
        project: str = "default",
        *,
        retry: RetryPolicy | None = None,
        timeout: float = 120.0,
        balancing: str = "weighted",
        credentials: Credentials | None = None,
        channel_options: Sequence[tuple[str, int | str]] = (),
    ) -> None:
        super().__init__(
            Connection(
                trainer,
                sampler,
                project,
                retry=RetryPolicy() if retry is None else retry,
                timeout=timeout,
                balancing=balancing,
                credentials=PLAIN if credentials is None else credentials,
                channel_options=channel_options,
            )
        )
