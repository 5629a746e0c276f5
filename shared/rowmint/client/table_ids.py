"""Ids made for a table: of its file's name, and of its contents."""

import hashlib
import os
import re
from pathlib import PurePath

from rowmint.v1 import dataset_pb2

_LONGEST_ID = 63
_DIGITS = 12


def id_from_name(path: str | os.PathLike[str]) -> str:
    """Return an id made of a file's name: in lower case, with hyphens for all but letters and digits."""
    stem = PurePath(path).name.partition(".")[0]
    slug = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")
    return (slug if slug[:1].isalpha() else f"data-{slug}".rstrip("-"))[:_LONGEST_ID].rstrip("-")


def id_from_contents(path: str | os.PathLike[str], declared: dataset_pb2.Dataset, sha256: bytes) -> str:
    """Return an id that is the same wherever the same bytes are read in the same way under the same name.

    Args:
        path: The file's name, from which the id begins.
        declared: All that says how the bytes are read: format, columns, keys, the policy for infinite numbers.
        sha256: SHA-256 of the bytes that are uploaded.
    """
    digest = hashlib.sha256(sha256 + declared.SerializeToString(deterministic=True)).hexdigest()[:_DIGITS]
    start = id_from_name(path)[: _LONGEST_ID - _DIGITS - 1].rstrip("-")
    return f"{start}-{digest}"
