"""Connections to a registry of SQLite files: for writers, and for readers that may write neither file nor folder.

A file in WAL mode is read with the help of a log beside it, which a reader makes where it is missing. One that cannot
reads a file without a log, as the last writer leaves it behind at its end, as it is: *at rest*. Nothing keeps a writer
from starting meanwhile, so that such a connection is for one transaction, whose answer counts if the file is at rest,
and the same, afterwards.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from rowmint.errors import UnavailableError
from rowmint.objects.files import make_folder
from rowmint.registry.tables import MODELS

# Longer than any transaction of the registry, shorter than typical deadlines of callers.
_BUSY_SECONDS = 30.0
READ_SECONDS = 5.0
"""Longest wait of one who only reads, and has another answer where the registry hangs: no thread waits any longer."""
_RETRY_SECONDS = 1.0


class FileConnection(sqlite3.Connection):
    """A connection to the files of a registry.

    Attributes:
        at_rest: What each file that is read at rest was when it was opened.
    """

    at_rest: Mapping[Path, tuple[int, int, int]] = {}

    @property
    def is_current(self) -> bool:
        """Whether each file that is read at rest is still what it was."""
        return all(_rest(path) == seen for path, seen in self.at_rest.items())


def file_connections(files: Mapping[str, Path], *, read_only: bool) -> Callable[[], FileConnection]:
    """Return what opens connections.

    Args:
        files: The file of each schema.
        read_only: Whether writes are refused; otherwise missing files are made, which only their owner can read.
    """

    def connect() -> FileConnection:
        if not read_only:
            for path in files.values():
                _make(path)
        connection = sqlite3.connect(
            "file::memory:",
            uri=True,
            timeout=READ_SECONDS if read_only else _BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            factory=FileConnection,
        )
        try:
            # Models first: files are committed in the order they were attached; see `rowmint.registry.engine`.
            for schema in sorted(files, key=lambda name: name != MODELS):
                if read_only:
                    _attach_to_read(connection, schema, files[schema])
                else:
                    connection.execute(f"ATTACH ? AS {schema}", (f"{files[schema].as_uri()}?mode=rwc",))
                    _use_wal(connection, schema)
                connection.execute(f"PRAGMA {schema}.synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute(f"PRAGMA query_only = {'ON' if read_only else 'OFF'}")
        except BaseException:
            connection.close()
            raise
        return connection

    return connect


def _make(path: Path) -> None:
    make_folder(path.parent)
    # SQLite's own would be as the umask says; its logs have the mode of the file.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _attach_to_read(connection: FileConnection, schema: str, path: Path) -> None:
    try:
        connection.execute(f"ATTACH ? AS {schema}", (f"{path.as_uri()}?mode=rw",))
        connection.execute(f"SELECT count(*) FROM {schema}.sqlite_master").fetchone()  # only now is it opened
    except sqlite3.OperationalError as error:
        if "locked" in str(error) or not _there(path):
            raise
        seen = _rest(path)
        if seen is None:
            raise UnavailableError(
                "the registry was not closed by its last writer and cannot be recovered by this user; start the"
                " trainer",
                retry_after=_RETRY_SECONDS,
            ) from error
        with suppress(sqlite3.OperationalError):  # it was not attached
            connection.execute(f"DETACH {schema}")
        connection.execute(f"ATTACH ? AS {schema}", (f"{path.as_uri()}?mode=ro&immutable=1",))
        connection.at_rest = {**connection.at_rest, path: seen}


def _there(path: Path) -> bool:
    """Return whether a file is there.

    Raises:
        UnavailableError: It may be, but this user cannot read it.
    """
    try:
        readable = path.exists() and os.access(path, os.R_OK)
        if readable or not path.exists():
            return readable
    except PermissionError:
        pass
    raise UnavailableError(
        'the registry cannot be read by this user: permission denied; see "Two users" in docs/deployment.md',
        retry_after=_RETRY_SECONDS,
    )


def _rest(path: Path) -> tuple[int, int, int] | None:
    """Return what tells a file at rest from what it becomes later; None where it has a log or is gone."""
    try:
        found = path.stat()
    except OSError:
        return None
    return None if path.with_name(f"{path.name}-wal").exists() else (found.st_ino, found.st_size, found.st_mtime_ns)


def _use_wal(connection: sqlite3.Connection, schema: str) -> None:
    # The change needs exclusive access, and does not wait by itself for another process that is making it.
    deadline = time.monotonic() + _BUSY_SECONDS
    while connection.execute(f"PRAGMA {schema}.journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute(f"PRAGMA {schema}.journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
