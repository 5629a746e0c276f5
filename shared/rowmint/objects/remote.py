"""Object stores of cloud services."""

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rowmint.errors import DataLossError, InvalidFieldError
from rowmint.objects.failures import exists, missing, require_length, short, unavailable, validate_range
from rowmint.objects.files import COPY_BYTES, replace, write_all
from rowmint.objects.interface import Entry, validate_key

# S3 copies no more with one request.
_COPIED_AT_ONCE = 5 << 30


def _with_durations(retry: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return obstore's retry settings, with durations converted from seconds, as JSON has no duration type."""
    if retry is None:
        return None
    found: dict[str, Any] = dict(retry)
    if "backoff" in found:
        found["backoff"] = _with_durations(found["backoff"])
    for key in ("retry_timeout", "init_backoff", "max_backoff"):
        if isinstance(found.get(key), int | float):
            found[key] = timedelta(seconds=found[key])
    return found


class RemoteStore:
    """An `ObjectStore` over obstore: S3, Google Cloud Storage, Azure.

    Args:
        store: An obstore store, its prefix included.
    """

    def __init__(self, store: Any) -> None:
        self._store = store

    @classmethod
    def open(cls, url: str, options: dict[str, Any]) -> "RemoteStore":
        """Return the store at `url`; see `open_store`."""
        import obstore.store  # noqa: PLC0415 - not needed with the embedded default
        from obstore.exceptions import BaseError  # noqa: PLC0415

        client_options = options.pop("client_options", None)
        retry_config = _with_durations(options.pop("retry_config", None))
        try:
            make: Any = obstore.store.from_url  # untyped: its overloads distinguish services, which the URL does here
            store = make(url, config=options or None, client_options=client_options, retry_config=retry_config)
        except (BaseError, ValueError, TypeError) as error:
            # The message is not included, as it may quote a credential among the options.
            raise InvalidFieldError(
                "store_url", f"{url!r} cannot be opened with the given options; check the names and values of both"
            ) from error
        return cls(store)

    def _call(self, verb: str, key: str, call: Callable[[], Any]) -> Any:
        from obstore.exceptions import BaseError, NotFoundError  # noqa: PLC0415

        try:
            return call()
        except (NotFoundError, FileNotFoundError):
            raise missing(key) from None
        except (BaseError, OSError) as error:
            raise unavailable(verb, key, error) from error

    def put(self, key: str, data: bytes | memoryview) -> None:
        """See `ObjectStore.put`."""
        if self._create(key, data):
            return
        if self._size(key) != len(data) or self.get(key) != data:
            raise exists(key)

    def put_file(self, key: str, path: Path) -> None:
        """See `ObjectStore.put_file`."""
        size = path.stat().st_size
        if self._create(key, path):
            return
        if self._size(key) != size or not self._equals(key, path):
            raise exists(key)

    def _create(self, key: str, body: bytes | memoryview | Path) -> bool:
        """Write the object unless the key exists; return whether it was written."""
        import obstore  # noqa: PLC0415
        from obstore.exceptions import AlreadyExistsError, NotFoundError  # noqa: PLC0415

        validate_key(key)

        def attempt() -> bool:
            # Not a conditional put, which not every service supports, and none with multipart. Keys are unique
            # by construction, so checking first only guards against mistakes of callers.
            try:
                obstore.head(self._store, key)
            except (NotFoundError, FileNotFoundError):
                pass
            else:
                return False
            try:
                if isinstance(body, bytes):
                    obstore.put(self._store, key, body, use_multipart=False)
                else:
                    obstore.put(self._store, key, body)
            except AlreadyExistsError:
                return False
            except (NotFoundError, FileNotFoundError) as error:
                # Only the bucket can be missing.
                raise unavailable("written", key, error) from error
            return True

        return bool(self._call("written", key, attempt))

    def _equals(self, key: str, path: Path) -> bool:
        offset = 0
        with path.open("rb") as file:
            while chunk := file.read(8 * COPY_BYTES):
                if self.get_range(key, offset, len(chunk)) != chunk:
                    return False
                offset += len(chunk)
        return True

    def get(self, key: str) -> bytes:
        """See `ObjectStore.get`."""
        import obstore  # noqa: PLC0415

        validate_key(key)
        return bytes(self._call("read", key, lambda: obstore.get(self._store, key).bytes()))

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """See `ObjectStore.get_range`."""
        import obstore  # noqa: PLC0415

        validate_key(key)
        validate_range(offset, length)
        size = self._size(key)
        if offset + length > size:
            raise short(key)
        if length == 0:
            return b""
        data = self._call("read", key, lambda: obstore.get_range(self._store, key, start=offset, length=length))
        return require_length(key, bytes(data), length)

    def fetch(self, key: str, path: Path) -> None:
        """See `ObjectStore.fetch`."""
        import obstore  # noqa: PLC0415

        validate_key(key)

        def copy(file: int) -> None:
            for chunk in obstore.get(self._store, key).stream(min_chunk_size=COPY_BYTES):
                write_all(file, bytes(chunk))

        self._call("read", key, lambda: replace(path, copy))

    def _size(self, key: str) -> int:
        import obstore  # noqa: PLC0415

        return int(self._call("read", key, lambda: obstore.head(self._store, key))["size"])

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        import obstore  # noqa: PLC0415

        validate_key(key)
        try:
            self._call("deleted", key, lambda: obstore.delete(self._store, key))
        except DataLossError:
            return

    def move(self, key: str, target: str) -> None:
        """See `ObjectStore.move`."""
        validate_key(key)
        validate_key(target)
        try:
            size = self._size(key)
        except DataLossError:
            self._size(target)  # moved before
            return
        try:
            moved = self._size(target)
        except DataLossError:
            self._call("moved", key, lambda: self._copy(key, target, size))
        else:
            if moved != size or not self._alike(key, target, size):
                raise exists(target)
        self.delete(key)

    def _copy(self, key: str, target: str, size: int) -> None:
        import obstore  # noqa: PLC0415

        if size <= _COPIED_AT_ONCE:
            obstore.copy(self._store, key, target)
        else:
            with TemporaryDirectory() as folder:
                self.fetch(key, Path(folder, "object"))
                obstore.put(self._store, target, Path(folder, "object"))

    def _alike(self, key: str, target: str, size: int) -> bool:
        ranges = ((start, min(8 * COPY_BYTES, size - start)) for start in range(0, size, 8 * COPY_BYTES))
        return all(self.get_range(key, *part) == self.get_range(target, *part) for part in ranges)

    def remove_abandoned(self) -> int:
        """See `ObjectStore.remove_abandoned`; these services discard incomplete writes themselves."""
        return 0

    def list(self, prefix: str) -> Iterator[str]:
        """See `ObjectStore.list`."""
        yield from (entry.key for entry in self.entries(prefix))

    def entries(self, prefix: str) -> Iterator[Entry]:
        """See `ObjectStore.entries`."""
        import obstore  # noqa: PLC0415

        # These services list by whole path parts; the rest of the prefix is tested here.
        base = prefix.rpartition("/")[0]

        def collect() -> list[Entry]:
            found = obstore.list(self._store, prefix=base or None)
            listed = (entry for page in found for entry in page)
            entries = (Entry(str(entry["path"]), int(entry["size"]), entry["last_modified"]) for entry in listed)
            return sorted(entries, key=lambda entry: entry.key)

        yield from (entry for entry in self._call("listed", prefix, collect) if entry.key.startswith(prefix))
