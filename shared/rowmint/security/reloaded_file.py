"""Values parsed from files that may change while a process runs: certificates, keys, access lists."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from rowmint.errors import InvalidFieldError, RowmintError, UnavailableError

_log = structlog.get_logger(__name__)

T = TypeVar("T")

_Fingerprint = tuple[tuple[int, int, int] | None, ...]


class ReloadedFile(Generic[T]):
    """A value parsed from one or more files, parsed again when one of them changes. Thread-safe.

    If changed files cannot be read or parsed, which may be so for a moment while several are replaced one by one, the
    previous value stays in use and one warning is logged.

    Args:
        paths: The files.
        parse: Makes the value of their contents, which it gets in the same order.
        name: What the files are, for error messages, such as ``the access file``.

    Raises:
        UnavailableError: A file cannot be read.
        InvalidFieldError: The contents cannot be parsed.
    """

    def __init__(self, paths: Sequence[Path], parse: Callable[[Sequence[bytes]], T], name: str) -> None:
        self._paths = tuple(paths)
        self._parse = parse
        self._name = name
        self._lock = threading.Lock()
        # Taken before the files are read, so that a change during the read is noticed at the next access.
        self._fingerprint = self._current_fingerprint()
        self._value = self._load()
        self._generation = 1

    @property
    def value(self) -> T:
        """The current value; reloads it if a file has changed."""
        return self.read()[1]

    def read(self) -> tuple[int, T]:
        """Return the generation (1 for the first value, plus 1 for each reload) and the current value."""
        with self._lock:
            fingerprint = self._current_fingerprint()
            if fingerprint != self._fingerprint:
                self._fingerprint = fingerprint
                try:
                    self._value = self._load()
                    self._generation += 1
                except RowmintError as error:
                    _log.warning(
                        "a changed file cannot be loaded; the previous value stays in use",
                        error=error.message,
                    )
            return self._generation, self._value

    def _current_fingerprint(self) -> _Fingerprint:
        return tuple(map(_file_fingerprint, self._paths))

    def _load(self) -> T:
        contents = []
        for path in self._paths:
            try:
                contents.append(path.read_bytes())
            except OSError as error:
                raise UnavailableError(f"{self._name}: {path}: {error.strerror or 'cannot be read'}") from error
        try:
            return self._parse(contents)
        except ValueError as error:  # raised by a library; its text may quote the contents
            raise InvalidFieldError(self._name, f"{', '.join(map(str, self._paths))} cannot be parsed") from error


def _file_fingerprint(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
