"""What is read from files that may change while a process runs: certificates, keys, lists of who may do what."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from rowmint.errors import InvalidFieldError, RowmintError, UnavailableError

_log = structlog.get_logger(__name__)

T = TypeVar("T")

_Stamp = tuple[tuple[int, int, int] | None, ...]


class Watched(Generic[T]):
    """A value made of files, made anew when one of them changes. Safe to use from any thread.

    Files that cannot be read or understood after a change, as those that are written one after the other may be for a
    moment, leave the last good value in force; the log tells once.

    Args:
        paths: The files.
        parse: Makes the value of their contents, in the same order.
        what: What they are, for errors, such as ``the access file``.

    Raises:
        UnavailableError: One cannot be read.
        InvalidFieldError: They cannot be understood.
    """

    def __init__(self, paths: Sequence[Path], parse: Callable[[Sequence[bytes]], T], what: str) -> None:
        self._paths = tuple(paths)
        self._parse = parse
        self._what = what
        self._lock = threading.Lock()
        # Before they are read: what changes meanwhile is read again.
        self._stamp = self._look()
        self._value = self._read()
        self._generation = 1

    @property
    def value(self) -> T:
        """The value as the files are now."""
        return self.read()[1]

    def read(self) -> tuple[int, T]:
        """Return how many values there have been, and the value as the files are now."""
        with self._lock:
            stamp = self._look()
            if stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._value = self._read()
                    self._generation += 1
                except RowmintError as error:
                    _log.warning("a changed file cannot be used; what it held before stays in force", why=error.message)
            return self._generation, self._value

    def _look(self) -> _Stamp:
        return tuple(map(_stamp_of, self._paths))

    def _read(self) -> T:
        contents = []
        for path in self._paths:
            try:
                contents.append(path.read_bytes())
            except OSError as error:
                raise UnavailableError(f"{self._what}: {path}: {error.strerror or 'cannot be read'}") from error
        try:
            return self._parse(contents)
        except ValueError as error:  # of a library; its text may quote what it read
            raise InvalidFieldError(self._what, f"{', '.join(map(str, self._paths))} cannot be understood") from error


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
