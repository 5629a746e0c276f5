"""What a kind of job does, as a worker sees it."""

from collections.abc import Mapping
from typing import Any, Protocol

from rowmint.registry import JobKind
from trainer_service.jobs.attempts import Attempt
from trainer_service.jobs.services import JobServices

JobOutputs = Mapping[str, Any]
"""What a job has made, JSON values; the same as in the job's row."""


class JobRunner(Protocol):
    """Carries out jobs of one kind. Immutable; any number of attempts may use it.

    Attributes:
        kind: The kind.
        phases: What an attempt may be at, in order, each up to 32 characters: the value is in the registry, in events,
            metrics and traces.
    """

    @property
    def kind(self) -> JobKind:
        """Return the kind."""
        ...

    @property
    def phases(self) -> tuple[str, ...]:
        """Return the phases."""
        ...

    def run(self, attempt: Attempt, services: JobServices) -> JobOutputs:
        """Carry out a job and end it, in the transaction that makes its outputs count.

        Args:
            attempt: The attempt; its phases are entered, and it says whether to stop.
            services: What it works with.

        Raises:
            RowmintError: The attempt ended otherwise; the job is not ended yet.
        """
        ...
