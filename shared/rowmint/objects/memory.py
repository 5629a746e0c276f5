"""An object store in memory."""

import threading
from collections.abc import Iterator
from pathlib import Path

from rowmint.objects.failures import exists, missing, require_length, validate_range
from rowmint.objects.files import replace, write_all
from rowmint.objects.interface import validate_key


class MemoryStore:
    """An `ObjectStore` in the memory of this process, for tests."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def put(self, key: str, data: bytes | memoryview) -> None:
        """See `ObjectStore.put`."""
        validate_key(key)
        with self._lock:
            if self._objects.setdefault(key, bytes(data)) != data:
                raise exists(key)

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
        self._objects.pop(validate_key(key), None)

    def remove_abandoned(self) -> int:
        """See `ObjectStore.remove_abandoned`; writes to memory are never incomplete."""
        return 0

    def list(self, prefix: str) -> Iterator[str]:
        """See `ObjectStore.list`."""
        with self._lock:
            keys = sorted(key for key in self._objects if key.startswith(prefix))
        yield from keys
