"""The interface of object stores."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from rowmint.errors import InvalidFieldError

KEY = re.compile(r"[A-Za-z0-9_@=+-][A-Za-z0-9_@=+.-]*(/[A-Za-z0-9_@=+-][A-Za-z0-9_@=+.-]*)*")
"""Pattern of keys; see `validate_key`."""


def validate_key(key: str) -> str:
    """Return `key` if it is valid: parts of letters, digits and ``_@=+.-``, joined by ``/``.

    No part is empty or starts with a dot, so no key is absolute, leaves its store or names a hidden file.

    Raises:
        InvalidFieldError: It is invalid.
    """
    if len(key) > 512 or not KEY.fullmatch(key):
        raise InvalidFieldError("key", f"{key[:80]!r} is not a valid object key")
    return key


@dataclass(frozen=True)
class Entry:
    """An object as a listing shows it.

    Attributes:
        key: Its key.
        size: Bytes.
        modified: When it was stored, by the store's clock; UTC.
    """

    key: str
    size: int
    modified: datetime


class ObjectStore(Protocol):
    """Bytes under immutable keys.

    Thread-safe. Objects become visible atomically, and are durable once `put` has returned. ***A key's bytes never
    change***: putting the same bytes again has no effect, putting different bytes is refused. Callers make keys unique
    (with an id and an epoch), since some remote stores cannot refuse concurrent writers. The store keeps no reference
    to the bytes it is given.

    Every method raises `InvalidFieldError` for a key that `validate_key` refuses, and `UnavailableError` if the
    storage cannot be reached or written.
    """

    def put(self, key: str, data: bytes | memoryview) -> None:
        """Store `data`, which must not change during the call.

        Raises:
            ResourceExistsError: The key exists with different bytes.
        """

    def put_file(self, key: str, path: Path) -> None:
        """Store the bytes of a local file, which must not change during the call.

        Raises:
            ResourceExistsError: The key exists with different bytes.
        """

    def get(self, key: str) -> bytes:
        """Return the object.

        Raises:
            DataLossError: The object is missing.
        """

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes from `offset`; both are 0 or more.

        Raises:
            DataLossError: The object is missing or too short.
        """

    def fetch(self, key: str, path: Path) -> None:
        """Write the object to the local file `path`, replacing it; on failure the file is left unchanged.

        Raises:
            DataLossError: The object is missing.
        """

    def delete(self, key: str) -> None:
        """Delete the object. Idempotent."""

    def move(self, key: str, target: str) -> None:
        """Give the object another key, under which it is durable before it is gone from the first.

        A process that dies in between leaves it under both keys; repeating the call then ends the move.

        Raises:
            DataLossError: The object is missing, under both keys.
            ResourceExistsError: `target` exists with different bytes.
        """

    def remove_abandoned(self) -> int:
        """Remove incomplete writes of processes that died, which are not objects; return their number."""

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that start with `prefix` (any text, ``""`` for all), in order."""

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Yield the objects whose keys start with `prefix`, as `list` does, in order of their keys."""
