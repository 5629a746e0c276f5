"""The object store in a directory."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from rowmint.objects.failures import exists, missing, require_length, unavailable, validate_range
from rowmint.objects.files import (
    PRIVATE,
    FileAccess,
    copy_file,
    create,
    make_folder,
    remove_abandoned,
    replace,
    same_files,
    sync_directory,
    write_all,
)
from rowmint.objects.interface import KEY, Entry, validate_key


class LocalDirectoryStore:
    """An `ObjectStore` in a directory of this machine, shared by any number of processes.

    An object is written to a hidden temporary file, which is synced and then linked to its name; the link cannot
    overwrite, and the directory is synced: after a crash the object is complete or absent.

    Args:
        root: The directory; created with its first object.
        access: Who may read what is written.
    """

    def __init__(self, root: Path, access: FileAccess = PRIVATE) -> None:
        self._root = root
        self._access = access

    @property
    def root(self) -> Path:
        """The directory."""
        return self._root

    def _path(self, key: str) -> Path:
        return self._root / validate_key(key)

    def put(self, key: str, data: bytes | memoryview) -> None:
        """See `ObjectStore.put`."""
        self._put(key, lambda file: write_all(file, data), lambda path: path.read_bytes() == data)

    def put_file(self, key: str, path: Path) -> None:
        """See `ObjectStore.put_file`."""
        self._put(key, lambda file: copy_file(path, file), lambda target: same_files(path, target))

    def _put(self, key: str, write: Callable[[int], None], same: Callable[[Path], bool]) -> None:
        target = self._path(key)
        try:
            if not target.exists():
                make_folder(target.parent, self._access)
                if create(target, write, self._access):
                    return
            identical = same(target)
        except OSError as error:
            raise unavailable("written", key, error) from error
        if not identical:
            raise exists(key)

    def get(self, key: str) -> bytes:
        """See `ObjectStore.get`."""
        path = self._path(key)
        try:
            return path.read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise missing(key) from None
        except OSError as error:
            raise unavailable("read", key, error) from error

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """See `ObjectStore.get_range`."""
        validate_range(offset, length)
        path = self._path(key)
        try:
            with path.open("rb") as file:
                file.seek(offset)
                return require_length(key, file.read(length), length)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise missing(key) from None
        except OSError as error:
            raise unavailable("read", key, error) from error

    def fetch(self, key: str, path: Path) -> None:
        """See `ObjectStore.fetch`."""
        source = self._path(key)
        if not source.is_file():
            raise missing(key)
        try:
            replace(path, lambda file: copy_file(source, file))
        except OSError as error:
            raise unavailable("copied", key, error) from error

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`. Directories stay: removing one could race with `put`."""
        path = self._path(key)
        try:
            path.unlink()
            sync_directory(path.parent)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise unavailable("deleted", key, error) from error

    def move(self, key: str, target: str) -> None:
        """See `ObjectStore.move`."""
        source, moved = self._path(key), self._path(target)
        try:
            make_folder(moved.parent, self._access)
            with suppress(FileExistsError):
                # Unlike a rename, a link cannot replace what is there.
                os.link(source, moved)
                sync_directory(moved.parent)
            if not source.samefile(moved) and not same_files(source, moved):
                raise exists(target)
        except FileNotFoundError:
            if not moved.is_file():
                raise missing(key) from None
        except OSError as error:
            raise unavailable("moved", key, error) from error
        self.delete(key)

    def remove_abandoned(self) -> int:
        """See `ObjectStore.remove_abandoned`."""
        return remove_abandoned(self._root)

    def list(self, prefix: str) -> Iterator[str]:
        """See `ObjectStore.list`."""
        try:
            found = sorted(self._keys(prefix))
        except OSError as error:
            raise unavailable("listed", prefix, error) from error
        yield from found

    def entries(self, prefix: str) -> Iterator[Entry]:
        """See `ObjectStore.entries`."""
        for key in self.list(prefix):
            with suppress(FileNotFoundError):  # deleted meanwhile
                found = (self._root / key).stat()
                yield Entry(key, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    def _keys(self, prefix: str) -> Iterator[str]:
        # Only directories that can contain such keys are walked, as the store may contain many others.
        base = prefix.rpartition("/")[0]
        if base and not KEY.fullmatch(base):
            return
        for directory, _, files in os.walk(self._root / base, onerror=_require_absent):
            inside = Path(directory).relative_to(self._root)
            keys = ((inside / name).as_posix() for name in files if not name.startswith("."))
            yield from (key for key in keys if key.startswith(prefix))


def _require_absent(error: OSError) -> None:
    """Raise the error of a folder that cannot be read: a list without its objects would be taken for a whole one."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
