"""The client: every call of both services, by one object."""

from collections.abc import Sequence

from rowmint.client.completion import CompletionCalls
from rowmint.client.connection import Connection
from rowmint.client.credentials import Credentials
from rowmint.client.retry import RetryPolicy
from rowmint.client.sampling import SamplingCalls
from rowmint.client.scoring import ScoringCalls
from rowmint.client.settings import CREDENTIALS, ClientSettings
from rowmint.client.statistics import StatisticsCalls
from rowmint.client.training import TrainingCalls
from rowmint.client.upload_once import UploadOnceCalls

CALL_SECONDS = 120.0
"""How long a call that is not a stream may take where nothing else is said."""


class Client(UploadOnceCalls, TrainingCalls, SamplingCalls, CompletionCalls, ScoringCalls, StatisticsCalls):
    """A client of one trainer and any number of sampler replicas.

    Safe to use from several threads; a stream it returns is for one thread at a time. Close it, or use it as a context
    manager. Where a method takes a resource's name, the id alone stands for a resource of the client's project.

    An argument that is not given is read from the environment, as the `rowmint` command does; see
    `rowmint.client.settings`.

    Args:
        trainer: Address of the trainer, host:port; None for ROWMINT_TRAINER, else 127.0.0.1:7401.
        sampler: Address of the sampler, or of a proxy before it. Several, or one text with commas between them, for
            several replicas, over which the client balances; `dns:///name:port` for all addresses of a name. Names in
            a list are taken in turn. None for ROWMINT_SAMPLER, else 127.0.0.1:7402.
        project: The project; None for ROWMINT_PROJECT, else `default`.
        retry: How often and how soon a call is made again; None for the default.
        timeout: Seconds a call that is not a stream may take.
        balancing: How a new call chooses among several replicas: `weighted`, fewer for one that reports more load, or
            `round_robin`. A draining replica gets no new call either way. None for ROWMINT_BALANCING, else `weighted`.
        credentials: How the client authenticates itself and the services; None for what ROWMINT_TLS, ROWMINT_CA,
            ROWMINT_CERTIFICATE, ROWMINT_KEY, ROWMINT_SERVER_NAME, ROWMINT_TOKEN and ROWMINT_TOKEN_FILE say, else plain
            text without a token.
        channel_options: gRPC channel options beside the client's own.

    Raises:
        InvalidFieldError: An address, the project, `balancing` or a variable is malformed, or a token would be sent in
            plain text over a network.
        UnavailableError: A file of a certificate cannot be read.
    """

    def __init__(
        self,
        trainer: str | None = None,
        sampler: str | Sequence[str] | None = None,
        project: str | None = None,
        *,
        retry: RetryPolicy | None = None,
        timeout: float = CALL_SECONDS,
        balancing: str | None = None,
        credentials: Credentials | None = None,
        channel_options: Sequence[tuple[str, int | str]] = (),
    ) -> None:
        settings = ClientSettings.load(
            {"trainer": trainer, "sampler": sampler, "project": project, "balancing": balancing},
            ignored=() if credentials is None else CREDENTIALS,
        )
        super().__init__(
            Connection(
                settings.trainer,
                settings.sampler,
                settings.project,
                retry=RetryPolicy() if retry is None else retry,
                timeout=timeout,
                balancing=settings.balancing,
                credentials=settings.credentials() if credentials is None else credentials,
                channel_options=channel_options,
            )
        )
