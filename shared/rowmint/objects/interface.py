"""What every object store is: its keys and its methods."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from rowmint.errors import InvalidFieldError

KEY = re.compile(r"[A-Za-z0-9_@=+-][A-Za-z0-9_@=+.-]*(/[A-Za-z0-9_@=+-][A-Za-z0-9_@=+.-]*)*")
"""What a key looks like; see `validate_key`."""


def validate_key(key: str) -> str:
    """Return `key` if it may name an object: parts of letters, digits and ``_@=+.-`` joined by ``/``.

    No part is empty or begins with a dot, so no key is absolute, climbs out of its store or names a hidden file.

    Raises:
        InvalidFieldError: It may not.
    """
    if len(key) > 512 or not KEY.fullmatch(key):
        raise InvalidFieldError("key", f"{key[:80]!r} cannot name an object")
    return key


class ObjectStore(Protocol):
    """Bytes under immutable keys.

    Every method may be called from any thread at any time. An object is visible whole or not at all, and once a `put`
    has returned it survives a crash of the process and the machine. ***A key's bytes never change***: putting the same
    bytes again is harmless, putting others is refused. Callers make keys unique (an id and an epoch in each), since
    some remote stores cannot refuse two writers that race. The store keeps no reference to the bytes it is given.

    Every method raises `InvalidFieldError` for a key that `validate_key` refuses, and `UnavailableError` where the
    storage cannot be reached or written.
    """

    def put(self, key: str, data: bytes) -> None:
        """Store `data`.

        Raises:
            ResourceExistsError: The key holds other bytes.
        """

    def put_file(self, key: str, path: Path) -> None:
        """Store the bytes of a local file, which is only read and must not change meanwhile.

        Raises:
            ResourceExistsError: The key holds other bytes.
        """

    def get(self, key: str) -> bytes:
        """Return the object.

        Raises:
            DataLossError: The object is missing.
        """

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes from `offset`, both in bytes, 0 or more.

        Raises:
            DataLossError: The object is missing or ends before.
        """

    def fetch(self, key: str, path: Path) -> None:
        """Write the object to the local file `path`, replacing it; on failure the file is left as it was.

        Raises:
            DataLossError: The object is missing.
        """

    def delete(self, key: str) -> None:
        """Remove the object; harmless where there is none."""

    def tidy(self) -> int:
        """Remove what writers that died have left half-written, which is no object; return how many files it was."""

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with `prefix` (any text, ``""`` for all), in order."""
