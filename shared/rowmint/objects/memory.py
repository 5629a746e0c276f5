"""An object store in memory."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from rowmint.errors import DataLossError
from rowmint.objects.failures import exists, missing, require_length, validate_range
from rowmint.objects.files import replace, write_all
from rowmint.objects.interface import Entry, validate_key

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class MemoryStore:
    """An `ObjectStore` in the memory of this process, for tests.

    Args:
        now: Gives the time, UTC, at which an object counts as stored; by default all are very old.
    """

    def __init__(self, now: Callable[[], datetime] = lambda: _LONG_AGO) -> None:
        self._objects: dict[str, bytes] = {}
        self._modified: dict[str, datetime] = {}
        self._now = now
        self._lock = threading.Lock()

    def put(self, key: str, data: bytes | memoryview) -> None:
        """See `ObjectStore.put`."""
        validate_key(key)
        with self._lock:
            if self._objects.setdefault(key, bytes(data)) != data:
                raise exists(key)
            self._modified.setdefault(key, self._now())

    def put_file(self, key: str, path: Path) -> None:
        """See `ObjectStore.put_file`."""
        self.put(key, path.read_bytes())

    def get(self, key: str) -> bytes:
        """See `ObjectStore.get`."""
        try:
            return self._objects[validate_key(key)]
        except KeyError:
            raise missing(key) from None

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """See `ObjectStore.get_range`."""
        validate_range(offset, length)
        return require_length(key, self.get(key)[offset : offset + length], length)

    def fetch(self, key: str, path: Path) -> None:
        """See `ObjectStore.fetch`."""
        data = self.get(key)
        replace(path, lambda file: write_all(file, data))

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        with self._lock:
            self._objects.pop(validate_key(key), None)
            self._modified.pop(key, None)

    def move(self, key: str, target: str) -> None:
        """See `ObjectStore.move`."""
        try:
            self.put(target, self.get(key))
        except DataLossError:
            self.get(target)
        self.delete(key)

    def remove_abandoned(self) -> int:
        """See `ObjectStore.remove_abandoned`; writes to memory are never incomplete."""
        return 0

    def list(self, prefix: str) -> Iterator[str]:
        """See `ObjectStore.list`."""
        with self._lock:
            keys = sorted(key for key in self._objects if key.startswith(prefix))
        yield from keys

    def entries(self, prefix: str) -> Iterator[Entry]:
        """See `ObjectStore.entries`."""
        with self._lock:
            found = [Entry(key, len(data), self._modified[key]) for key, data in self._objects.items()]
        yield from sorted((entry for entry in found if entry.key.startswith(prefix)), key=lambda entry: entry.key)
