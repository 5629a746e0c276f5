"""The registry: datasets, jobs and models in a database; their bytes are in object stores.

It has two schemas. `rowmint_data` contains datasets and jobs and is used by the trainer only; `rowmint_models` contains
models and is the only one that a sampler reads.
"""

from rowmint.registry.adoption import AttemptSpan, NamedObject
from rowmint.registry.dataset_records import CanonicalTable, DatasetRecord, DatasetState, SegmentRecord
from rowmint.registry.datasets import DatasetLedger
from rowmint.registry.engine import migrate, newer_schemas
from rowmint.registry.garbage import GarbageLedger
from rowmint.registry.identity import Identity, Part
from rowmint.registry.job_kinds import JobName
from rowmint.registry.job_records import EventRecord, JobRecord
from rowmint.registry.job_rows import CheckpointRecord, JobKind, JobState
from rowmint.registry.jobs import JobLedger
from rowmint.registry.model_records import ModelRecord, ModelVersionRecord, NewVersion, VersionState
from rowmint.registry.models import ModelLedger
from rowmint.registry.orphans import AttemptRef, Maker, SortedKeys
from rowmint.registry.registry import Registry, open_models_registry, open_registry

__all__ = [
    "AttemptRef",
    "AttemptSpan",
    "CanonicalTable",
    "CheckpointRecord",
    "DatasetLedger",
    "DatasetRecord",
    "DatasetState",
    "EventRecord",
    "GarbageLedger",
    "Identity",
    "JobKind",
    "JobLedger",
    "JobName",
    "JobRecord",
    "JobState",
    "Maker",
    "ModelLedger",
    "ModelRecord",
    "ModelVersionRecord",
    "NamedObject",
    "NewVersion",
    "Part",
    "Registry",
    "SegmentRecord",
    "SortedKeys",
    "VersionState",
    "migrate",
    "newer_schemas",
    "open_models_registry",
    "open_registry",
]
