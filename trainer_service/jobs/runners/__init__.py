"""What each kind of job does: one runner a kind, all in one list."""

from collections.abc import Mapping

from rowmint.registry import JobKind
from trainer_service.jobs.runner import JobRunner
from trainer_service.jobs.runners.ingest import IngestRunner
from trainer_service.jobs.runners.train import TrainRunner

RUNNERS: Mapping[JobKind, JobRunner] = {runner.kind: runner for runner in (IngestRunner(), TrainRunner())}
"""The runner of each kind."""

PHASES: Mapping[JobKind, tuple[str, ...]] = {kind: runner.phases for kind, runner in RUNNERS.items()}
"""The phases of each kind, in order."""
