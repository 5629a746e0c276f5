"""Object stores: bytes under immutable keys.

A store holds what is too large for the registry: raw segments, canonical tables, weights. The registry says which
objects count and what their size and SHA-256 are; a store only keeps bytes. Writing an object is therefore never a
commit, and an object that no registry row names is garbage, not data.
"""

import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import mkstemp
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from rowmint.errors import DataLossError, InvalidFieldError, ResourceExistsError, UnavailableError

_KEY = re.compile(r"[A-Za-z0-9_@=+-][A-Za-z0-9_@=+.-]*(/[A-Za-z0-9_@=+-][A-Za-z0-9_@=+.-]*)*")
_COPY_BYTES = 1 << 20


def validate_key(key: str) -> str:
    """Return `key` if it may name an object: parts of letters, digits and ``_@=+.-`` joined by ``/``.

    No part is empty or begins with a dot, so no key is absolute, climbs out of its store or names a hidden file.

    Raises:
        InvalidFieldError: It may not.
    """
    if len(key) > 512 or not _KEY.fullmatch(key):
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

    def size(self, key: str) -> int:
        """Return the object's size in bytes.

        Raises:
            DataLossError: The object is missing.
        """

    def delete(self, key: str) -> None:
        """Remove the object; harmless where there is none."""

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with `prefix` (any text, ``""`` for all), in order."""


def open_store(url: str, options: Mapping[str, Any] | None = None) -> ObjectStore:
    """Return the store at `url`.

    Args:
        url: ``file:///dir``, ``memory://name`` (empty, this object's own; the name is a label), or
            ``s3://bucket/prefix``, ``gs://bucket/prefix``, ``az://account/container/prefix``.
        options: For remote stores only: ``client_options`` and ``retry_config`` (mappings) as obstore names them, every
            other entry being the service's own configuration (``endpoint``, ``region``, keys).

    Raises:
        InvalidFieldError: The URL or an option is not one of these.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise InvalidFieldError("store_url", f"{url!r} must be file:///absolute/directory")
        return LocalDirectoryStore(Path(unquote(parts.path)))
    if parts.scheme == "memory":
        return MemoryStore()
    if parts.scheme in ("s3", "gs", "az"):
        return RemoteStore.open(url, dict(options or {}))
    raise InvalidFieldError("store_url", f"{parts.scheme!r} is not one of file, memory, s3, gs, az")


class MemoryStore:
    """An `ObjectStore` in this process's memory, for tests; nothing survives the object."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def put(self, key: str, data: bytes) -> None:
        """See `ObjectStore.put`."""
        validate_key(key)
        with self._lock:
            if self._objects.setdefault(key, bytes(data)) != data:
                raise _exists(key)

    def put_file(self, key: str, path: Path) -> None:
        """See `ObjectStore.put_file`."""
        self.put(key, path.read_bytes())

    def get(self, key: str) -> bytes:
        """See `ObjectStore.get`."""
        try:
            return self._objects[validate_key(key)]
        except KeyError:
            raise _missing(key) from None

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """See `ObjectStore.get_range`."""
        _validate_range(offset, length)
        return _whole(key, self.get(key)[offset : offset + length], length)

    def fetch(self, key: str, path: Path) -> None:
        """See `ObjectStore.fetch`."""
        data = self.get(key)
        _replace(path, lambda file: _write(file, data))

    def size(self, key: str) -> int:
        """See `ObjectStore.size`."""
        return len(self.get(key))

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        self._objects.pop(validate_key(key), None)

    def list(self, prefix: str) -> Iterator[str]:
        """See `ObjectStore.list`."""
        with self._lock:
            keys = sorted(key for key in self._objects if key.startswith(prefix))
        yield from keys


class LocalDirectoryStore:
    """An `ObjectStore` in a directory of this machine, shared by any number of processes.

    An object is written to a hidden temporary file, synced, given its name by a link that cannot overwrite, and its
    directory synced: after a crash it is there whole or not at all.

    Args:
        root: The directory; made with its first object.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def _path(self, key: str) -> Path:
        return self._root / validate_key(key)

    def put(self, key: str, data: bytes) -> None:
        """See `ObjectStore.put`."""
        self._put(key, lambda file: _write(file, data), lambda path: path.read_bytes() == data)

    def put_file(self, key: str, path: Path) -> None:
        """See `ObjectStore.put_file`."""

        def copy(file: int) -> None:
            with path.open("rb") as source:
                while chunk := source.read(_COPY_BYTES):
                    _write(file, chunk)

        self._put(key, copy, lambda target: _same_files(path, target))

    def _put(self, key: str, write: Callable[[int], None], same: Callable[[Path], bool]) -> None:
        target = self._path(key)
        try:
            if not target.exists():
                self._make_directory(target.parent)
                if _create(target, write):
                    return
            held = same(target)
        except OSError as error:
            raise _unavailable("written", key, error) from error
        if not held:
            raise _exists(key)

    def _make_directory(self, directory: Path) -> None:
        missing = []
        while not directory.is_dir():
            missing.append(directory)
            directory = directory.parent
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
            _sync_directory(path.parent)

    def get(self, key: str) -> bytes:
        """See `ObjectStore.get`."""
        path = self._path(key)
        try:
            return path.read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise _missing(key) from None
        except OSError as error:
            raise _unavailable("read", key, error) from error

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """See `ObjectStore.get_range`."""
        _validate_range(offset, length)
        path = self._path(key)
        try:
            with path.open("rb") as file:
                file.seek(offset)
                return _whole(key, file.read(length), length)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise _missing(key) from None
        except OSError as error:
            raise _unavailable("read", key, error) from error

    def fetch(self, key: str, path: Path) -> None:
        """See `ObjectStore.fetch`."""
        source = self._path(key)

        def copy(file: int) -> None:
            with source.open("rb") as stored:
                while chunk := stored.read(_COPY_BYTES):
                    _write(file, chunk)

        if not source.is_file():
            raise _missing(key)
        try:
            _replace(path, copy)
        except OSError as error:
            raise _unavailable("copied", key, error) from error

    def size(self, key: str) -> int:
        """See `ObjectStore.size`."""
        path = self._path(key)
        if not path.is_file():
            raise _missing(key)
        return path.stat().st_size

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`. Directories stay: removing one could race with a put."""
        path = self._path(key)
        try:
            path.unlink()
            _sync_directory(path.parent)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise _unavailable("deleted", key, error) from error

    def list(self, prefix: str) -> Iterator[str]:
        """See `ObjectStore.list`."""
        # Only directories that can hold such keys are walked: a store may hold a great many others.
        base = prefix.rpartition("/")[0]
        if base and not _KEY.fullmatch(base):
            return
        keys = []
        for directory, _, files in os.walk(self._root / base):
            inside = Path(directory).relative_to(self._root)
            keys += [(inside / name).as_posix() for name in files if not name.startswith(".")]
        yield from sorted(key for key in keys if key.startswith(prefix))


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
        import obstore.store  # noqa: PLC0415 - the embedded default does without it.
        from obstore.exceptions import BaseError  # noqa: PLC0415

        client_options = options.pop("client_options", None)
        retry_config = options.pop("retry_config", None)
        try:
            make: Any = obstore.store.from_url  # its overloads tell services apart by type; here the URL does.
            store = make(url, config=options or None, client_options=client_options, retry_config=retry_config)
        except (BaseError, ValueError, TypeError) as error:
            # The text of the error may quote an option, so it is not passed on.
            raise InvalidFieldError("store_url", f"{url!r} cannot be opened with the options given") from error
        return cls(store)

    def _call(self, verb: str, key: str, call: Callable[[], Any]) -> Any:
        from obstore.exceptions import BaseError, NotFoundError  # noqa: PLC0415

        try:
            return call()
        except (NotFoundError, FileNotFoundError):
            raise _missing(key) from None
        except (BaseError, OSError) as error:
            raise _unavailable(verb, key, error) from error

    def put(self, key: str, data: bytes) -> None:
        """See `ObjectStore.put`."""
        if self._create(key, data):
            return
        if self.size(key) != len(data) or self.get(key) != data:
            raise _exists(key)

    def put_file(self, key: str, path: Path) -> None:
        """See `ObjectStore.put_file`."""
        size = path.stat().st_size
        if self._create(key, path):
            return
        if self.size(key) != size or not self._holds(key, path):
            raise _exists(key)

    def _create(self, key: str, body: bytes | Path) -> bool:
        """Write the object unless the key is taken; return whether it was written."""
        import obstore  # noqa: PLC0415
        from obstore.exceptions import AlreadyExistsError, NotFoundError  # noqa: PLC0415

        validate_key(key)

        def attempt() -> bool:
            # A conditional put is no commit point on every service and rules out multipart: callers' keys are
            # unique already, so looking first is what guards against their mistakes.
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
            return True

        return bool(self._call("written", key, attempt))

    def _holds(self, key: str, path: Path) -> bool:
        offset = 0
        with path.open("rb") as file:
            while chunk := file.read(8 * _COPY_BYTES):
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
        _validate_range(offset, length)
        size = self.size(key)
        if offset + length > size:
            raise _short(key)
        if length == 0:
            return b""
        data = self._call("read", key, lambda: obstore.get_range(self._store, key, start=offset, length=length))
        return _whole(key, bytes(data), length)

    def fetch(self, key: str, path: Path) -> None:
        """See `ObjectStore.fetch`."""
        import obstore  # noqa: PLC0415

        validate_key(key)

        def copy(file: int) -> None:
            for chunk in obstore.get(self._store, key).stream(min_chunk_size=_COPY_BYTES):
                _write(file, bytes(chunk))

        self._call("read", key, lambda: _replace(path, copy))

    def size(self, key: str) -> int:
        """See `ObjectStore.size`."""
        import obstore  # noqa: PLC0415

        validate_key(key)
        return int(self._call("read", key, lambda: obstore.head(self._store, key))["size"])

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        import obstore  # noqa: PLC0415

        validate_key(key)
        try:
            self._call("deleted", key, lambda: obstore.delete(self._store, key))
        except DataLossError:
            return

    def list(self, prefix: str) -> Iterator[str]:
        """See `ObjectStore.list`."""
        import obstore  # noqa: PLC0415

        # These services list by whole path parts; the rest of the prefix is ours to test.
        base = prefix.rpartition("/")[0]

        def collect() -> list[str]:
            found = obstore.list(self._store, prefix=base or None)
            return sorted(str(entry["path"]) for page in found for entry in page)

        yield from (key for key in self._call("listed", prefix, collect) if key.startswith(prefix))


def _missing(key: str) -> DataLossError:
    return DataLossError(f"object missing: {key!r}", metadata={"key": key})


def _short(key: str) -> DataLossError:
    return DataLossError(f"object {key!r} is shorter than it should be", metadata={"key": key})


def _exists(key: str) -> ResourceExistsError:
    return ResourceExistsError(f"object {key!r} exists with other bytes; keys are immutable", metadata={"key": key})


def _unavailable(verb: str, key: str, error: Exception) -> UnavailableError:
    # Neither the path nor the service's own words are passed on: they may name hosts or keys.
    kind = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else type(error).__name__
    return UnavailableError(f"object {key!r} cannot be {verb} now: {kind}", metadata={"key": key}, retry_after=1.0)


def _validate_range(offset: int, length: int) -> None:
    if offset < 0 or length < 0:
        raise InvalidFieldError("range", f"offset {offset} and length {length} must be 0 or more")


def _whole(key: str, data: bytes, length: int) -> bytes:
    if len(data) != length:
        raise _short(key)
    return data


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _sync_directory(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _temporary(target: Path, write: Callable[[int], None]) -> Path:
    """Return a new synced file beside `target`, written by `write`; nothing is left behind where that fails."""
    file, name = mkstemp(prefix=".part-", dir=target.parent)
    try:
        try:
            write(file)
            os.fsync(file)
        finally:
            os.close(file)
    except BaseException:
        Path(name).unlink()
        raise
    return Path(name)


def _create(target: Path, write: Callable[[int], None]) -> bool:
    """Write `target` unless it exists by then; return whether it was written."""
    part = _temporary(target, write)
    try:
        # A link, unlike a rename, cannot replace what another process has put there meanwhile.
        os.link(part, target)
    except FileExistsError:
        return False
    finally:
        part.unlink()
    _sync_directory(target.parent)
    return True


def _replace(target: Path, write: Callable[[int], None]) -> None:
    _temporary(target, write).replace(target)
    _sync_directory(target.parent)


def _same_files(left: Path, right: Path) -> bool:
    if left.stat().st_size != right.stat().st_size:
        return False
    with left.open("rb") as one, right.open("rb") as other:
        while chunk := one.read(_COPY_BYTES):
            if chunk != other.read(_COPY_BYTES):
                return False
    return True
