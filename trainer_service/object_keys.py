"""Keys of stored objects: the only place that makes or reads one.

Each holds the uid and the epoch of the attempt that wrote it, so that no two attempts ever write the same key, and
what an attempt left behind can be distinguished from what another is about to need.

What nothing needs is kept aside for a while, under a key that says since when.
"""

import re
from datetime import UTC, datetime

from rowmint.names import ModelName
from rowmint.registry import AttemptRef, Maker
from rowmint.store_marks import ASIDE

_FORMS = (
    (Maker.WRITER, re.compile(r"datasets/([0-9a-f]{32})/raw/([0-9]{6,})-[0-9]{8,}")),
    (Maker.INGEST, re.compile(r"datasets/([0-9a-f]{32})/table-([0-9]+)\.parquet")),
    (Maker.JOB, re.compile(r"checkpoints/([0-9a-f]{32})/([0-9]+)-[0-9]+")),
    (Maker.VERSION, re.compile(r"[^/]+/[^/]+/([0-9a-f]{32})-([0-9]+)/(?:manifest\.json|weights\.safetensors)")),
)
_ASIDE = re.compile(rf"{ASIDE}([0-9]{{8}}T[0-9]{{6}}Z)/(.+)")
_TIME = "%Y%m%dT%H%M%SZ"


def segment_key(dataset_uid: str, writer_epoch: int, index: int) -> str:
    """Return the key of a raw segment; an epoch has one writer, and a writer uses an index once."""
    return f"datasets/{dataset_uid}/raw/{writer_epoch:06d}-{index:08d}"


def table_key(dataset_uid: str, job_epoch: int) -> str:
    """Return the key of a canonical table."""
    return f"datasets/{dataset_uid}/table-{job_epoch}.parquet"


def checkpoint_key(job_uid: str, job_epoch: int, step: int) -> str:
    """Return the key of a checkpoint."""
    return f"checkpoints/{job_uid}/{job_epoch}-{step}"


def version_keys(model: ModelName, job_uid: str, job_epoch: int) -> tuple[str, str]:
    """Return the keys of a version's manifest and weights."""
    prefix = f"{model.project}/{model.model}/{job_uid}-{job_epoch}"
    return f"{prefix}/manifest.json", f"{prefix}/weights.safetensors"


def attempt_of(key: str) -> AttemptRef | None:
    """Return the attempt that writes `key`, or None where it is none of ours."""
    for maker, form in _FORMS:
        found = form.fullmatch(key)
        if found:
            return AttemptRef(maker, found[1], int(found[2]))
    return None


def aside_key(key: str, since: datetime) -> str:
    """Return the key under which the object `key` is kept aside since an instant, UTC, in whole seconds."""
    return f"{ASIDE}{since:{_TIME}}/{key}"


def kept_aside(key: str) -> tuple[str, datetime] | None:
    """Return what `aside_key` was given, or None where `key` is not of an object kept aside."""
    found = _ASIDE.fullmatch(key)
    if found is None:
        return None
    try:
        return found[2], datetime.strptime(found[1], _TIME).replace(tzinfo=UTC)
    except ValueError:  # such as a 13th month
        return None
