"""What an attempt at a job works with."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rowmint.registry import Registry
from trainer_service.datasets.limits import IngestLimits
from trainer_service.jobs.stores import Stores


def _nothing() -> None:
    """Wait for nothing."""


@dataclass(frozen=True)
class JobServices:
    """What an attempt works with; the worker's own, for one attempt.

    Attributes:
        registry: Where datasets, jobs and models are.
        stores: Where the bytes are.
        scratch: An empty folder for temporary files; the worker removes it.
        limits: How large an ingested table and its parts may be.
        checkpoint_seconds: Pause between two checkpoints; 0 for one before every step.
        signing_key: File of the key that a version is signed with; empty: it is not.
        warmed_up: Returns once nothing else imports what the numerical work needs; to be called before importing that.
    """

    registry: Registry
    stores: Stores
    scratch: Path
    limits: IngestLimits
    checkpoint_seconds: float = 60.0
    signing_key: str = ""
    warmed_up: Callable[[], None] = _nothing
