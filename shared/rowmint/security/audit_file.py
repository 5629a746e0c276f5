"""One file of an audit log, as the process sees it that writes it."""

import fcntl
import os
import re
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

from rowmint.errors import DataLossError
from rowmint.objects.files import sync_directory
from rowmint.security.audit_chain import MAX_LINE_BYTES, Chain, Flaw, Head, make_record, read_record

GROUP = 256
"""Records written at once, at most."""
# Holds more than the largest group: whatever one write has torn, the record before that is found in it.
_WINDOW_BYTES = (GROUP + 2) * MAX_LINE_BYTES


class AuditFile:
    """A file that only grows, locked for as long as it is open. Not safe for several threads.

    Args:
        folder: Where it lies; must exist.
        stem: Its name, but for a number: the first is taken whose file no other process holds. So a service that is
            started again goes on with its file, and several beside each other have one each.

    Raises:
        DataLossError: The end of the file is not as this writes it: somebody has changed it.
        OSError: It cannot be opened.
    """

    def __init__(self, folder: Path, stem: str) -> None:
        self._path, self._file = _claim(folder, stem)
        try:
            self._chain, self._cut = _read_end(self._file, self.name)
            self._size = os.fstat(self._file).st_size
        except BaseException:
            os.close(self._file)
            raise
        self._apart = False

    @property
    def name(self) -> str:
        """Name of the file."""
        return self._path.name

    @property
    def head(self) -> Head:
        """The last record in the file."""
        return self._chain.head or Head()

    def moved(self) -> bool:
        """Return whether another file, or none, is where this one was."""
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return True
        return not os.path.samestat(there, os.fstat(self._file))

    def changed(self) -> bool:
        """Return whether somebody else has written to the file, or cut it, since it was opened or this was asked last.

        The chain goes on from the last record that was written here: whoever reads the file sees what was done.
        """
        size = os.fstat(self._file).st_size
        if size == self._size:
            return False
        # What comes next stands on a line of its own, whatever is before it.
        self._size, self._apart = size, True
        return True

    def append(self, records: Sequence[Mapping[str, str]]) -> None:
        """Write records, at most `GROUP`, and make them last.

        Args:
            records: What each tells, beside what ties it to others.

        Raises:
            OSError: It failed: no record may be taken for written, though some may be. The file can be written on.
        """
        chain = self._chain.copy()
        lines = []
        if self._cut or self._apart:
            lines.append(b"\n")
        if self._cut:
            chain.take(0, self._cut + b"\n")
        head, torn = chain.head or Head(), chain.torn
        for values in records:
            line, head = make_record(head, values, torn)
            lines.append(line)
            torn = ""
        data = b"".join(lines)
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
            # Where this fails the records can be read, and yet may be lost with the machine. Later ones are chained to
            # them all the same, so that the loss would be seen.
            os.fsync(self._file)
        except OSError:
            self._note(data[:written])
            raise
        finally:
            self._size += written
            self._apart = self._apart and not written
        self._chain, self._cut = Chain(head), b""

    def close(self) -> None:
        """Close the file, and give its lock back."""
        os.close(self._file)

    def _note(self, data: bytes) -> None:
        """Take account of what was written of a group that failed."""
        if self._apart and not self._cut:
            data = data[1:]
        *lines, self._cut = (self._cut + data).split(b"\n")
        for line in lines:
            self._chain.take(0, line + b"\n")


def file_stem(service: str, host: str) -> str:
    """Return how the names of the files of a service on a host begin."""
    return "-".join(re.sub(r"[^0-9A-Za-z._-]", "_", part) or "_" for part in (service, host))


def _claim(folder: Path, stem: str) -> tuple[Path, int]:
    """Return the first file that no other process holds, made where there is none, and its descriptor."""
    for number in count(1):
        path = folder / f"{stem}-{number}.jsonl"
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            sync_directory(folder)
        except BlockingIOError:
            os.close(file)
        except BaseException:
            os.close(file)
            raise
        else:
            return path, file
    raise AssertionError("there is always another number")


def _read_end(file: int, name: str) -> tuple[Chain, bytes]:
    """Return the chain after the last newline of a file, and the bytes after that.

    Raises:
        DataLossError: Somebody has changed the file.
    """
    size = os.fstat(file).st_size
    start = max(0, size - _WINDOW_BYTES)
    window = b""
    while start + len(window) < size and (data := os.pread(file, _WINDOW_BYTES, start + len(window))):
        window += data
    *lines, cut = window.split(b"\n")
    chain = Chain(None if start else Head())
    for line in lines[1:] if start else lines:  # the first may have begun before the window
        if (wrong := chain.take(0, line + b"\n")) is not None:
            raise _tampered(name, wrong[1])
    if chain.head is None:
        raise _tampered(name, "there is no record")
    found = read_record(cut)
    if isinstance(found, Flaw) and found.edited:
        raise _tampered(name, found.what)
    return chain, cut


def _tampered(name: str, what: str) -> DataLossError:
    return DataLossError(
        f"the end of the audit log {name} was changed: {what}; keep the file, but move it out of the folder, ask"
        " `rowmint audit verify` what else is wrong with it, and start again"
    )
