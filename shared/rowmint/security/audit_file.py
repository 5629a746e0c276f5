"""One file of an audit log, for the process that writes it."""

import fcntl
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from rowmint.errors import DataLossError, InvalidFieldError
from rowmint.objects.files import remove_abandoned, sync_directory
from rowmint.security.audit_chain import MAX_LINE_BYTES, Chain, Head, InvalidRecord, make_record, read_record
from rowmint.security.audit_head import ReportedHead, head_path, read_head, start_of, write_head

GROUP = 256
"""Maximum number of records of one write."""
# Larger than the largest group, so that it contains the last record before a torn write.
_WINDOW_BYTES = (GROUP + 2) * MAX_LINE_BYTES


class AuditFile:
    """An append-only file, locked while it is open. Not thread-safe.

    Args:
        folder: Its folder; must exist.
        stem: Its name without number and suffix. The lowest number is used whose file is not locked by another
            process, so that a restarted service continues its file, and concurrent processes use different ones.
        follows: Path of the file before, of the same process, which was moved away; its head file, which stayed, says
            nothing about a new file. None at the start of a process.

    Attributes:
        path: The file.
        start: Number of this start among those of the file, from 1.
        has_head_file: Whether there was a head file to compare the file with.

    Raises:
        DataLossError: The end of the file was tampered with, or is missing.
        OSError: It cannot be opened.
    """

    def __init__(self, folder: Path, stem: str, follows: Path | None = None) -> None:
        self.path, self._file = _claim(folder, stem)
        try:
            remove_abandoned(folder)
            reported = _read_head(self.path)
            self.has_head_file = reported is not None
            end = _read_end(self._file, self.name)
            self._chain, self._partial = end.chain, end.partial
            if reported is not None and not (follows == self.path and not end.hashes):
                _check_end(self.path, reported.head, self.head, end.hashes)
            self.start = _next_start(reported, end.last_start)
            self._size = os.fstat(self._file).st_size
        except BaseException:
            os.close(self._file)
            raise
        self._needs_newline = False

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.path.name

    @property
    def head(self) -> Head:
        """The last record in the file."""
        return self._chain.head or Head()

    def write_head(self, time: str, *, begun: bool = True) -> None:
        """Write the last record's number and hash into the head file.

        Args:
            time: The current time, RFC 3339, UTC.
            begun: Whether the record of this start has been written.

        Raises:
            OSError: It cannot be written.
        """
        write_head(self.path, ReportedHead(self.start, begun, self.head, time))

    def moved(self) -> bool:
        """Return whether the file is no longer at its path: moved, removed or replaced."""
        try:
            there = self.path.stat()
        except FileNotFoundError:
            return True
        return not os.path.samestat(there, os.fstat(self._file))

    def changed(self) -> bool:
        """Return whether the file was modified by others since it was opened or since the previous call.

        The chain continues from the last record written here, so that verification finds the modification.
        """
        size = os.fstat(self._file).st_size
        if size == self._size:
            return False
        # The next record starts on a new line, whatever the file now ends with.
        self._size, self._needs_newline = size, True
        return True

    def append(self, records: Sequence[Mapping[str, str]]) -> None:
        """Write up to `GROUP` records durably.

        Args:
            records: Fields of each, except those of the chain.

        Raises:
            OSError: Writing failed: none of the records may be acknowledged, although some may have been written. A
                later call may succeed.
        """
        chain = self._chain.copy()
        lines = []
        if self._partial or self._needs_newline:
            lines.append(b"\n")
        if self._partial:
            chain.add(0, self._partial + b"\n")
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
            # If this fails, the records are readable, but not durable. Later records are chained to them all the same,
            # so that their loss would be detected.
            os.fsync(self._file)
        except OSError:
            self._account_for(data[:written])
            raise
        finally:
            self._size += written
            self._needs_newline = self._needs_newline and not written
        self._chain, self._partial = Chain(head), b""

    def close(self) -> None:
        """Close the file, which releases its lock."""
        os.close(self._file)

    def _account_for(self, data: bytes) -> None:
        """Advance the chain over the bytes written before a write failed."""
        if self._needs_newline and not self._partial:
            data = data[1:]
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._chain.add(0, line + b"\n")


def file_stem(service: str, host: str) -> str:
    """Return the stem of the file names of a service on a host."""
    return "-".join(re.sub(r"[^0-9A-Za-z._-]", "_", part) or "_" for part in (service, host))


def _claim(folder: Path, stem: str) -> tuple[Path, int]:
    """Lock the first file that no other process has locked, creating it if needed; return path and descriptor."""
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
    raise AssertionError("the numbers are unlimited")


def _read_head(path: Path) -> ReportedHead | None:
    try:
        return read_head(path)
    except InvalidFieldError as error:
        raise _tampered(path.name, error.message) from error


def _check_end(path: Path, reported: Head, last: Head, hashes: Mapping[int, str]) -> None:
    """Compare a file with the record that its head file names.

    Args:
        path: The file.
        reported: The record that the head file names.
        last: The last record of the file.
        hashes: Hashes of the last records, by number.

    Raises:
        DataLossError: The record is not in the file.
    """
    if last.sequence >= reported.sequence and hashes.get(reported.sequence, reported.hash) == reported.hash:
        return
    if last.sequence >= reported.sequence:
        found = "the file has another one"
    else:
        found = f"the file ends with record {last.sequence}" if last.sequence else "the file was emptied or removed"
    raise DataLossError(
        f"the audit log {path.name} was cut: its head file {head_path(path).name} names record {reported.sequence},"
        f" and {found}; move both out of the folder, examine them with `rowmint audit verify`, and start the service"
        " again"
    )


def _next_start(reported: ReportedHead | None, last_start: int | None) -> int:
    """Return the number of the next start of a file.

    The head file has a number before the file has the record of that start, so that a process that is killed between
    the two leaves neither a gap nor a repetition. Without a head file the numbers start again, which verification
    reports where the file has some already.

    Args:
        reported: What the head file holds, or None.
        last_start: The last start that is recorded at the end of the file; None if there is none.
    """
    if reported is None:
        return 1
    begun = reported.begun or (last_start is not None and last_start >= reported.start)
    return reported.start + begun


@dataclass(frozen=True)
class _End:
    """The end of a file.

    Attributes:
        chain: The chain up to the last newline.
        partial: The bytes after it.
        hashes: Hashes of the last records, by number.
        last_start: Number of the last start that is recorded there; None if there is none.
    """

    chain: Chain
    partial: bytes
    hashes: Mapping[int, str]
    last_start: int | None


def _read_end(file: int, name: str) -> _End:
    """Read the end of a file.

    Raises:
        DataLossError: The end of the file was tampered with.
    """
    size = os.fstat(file).st_size
    start = max(0, size - _WINDOW_BYTES)
    window = b""
    while start + len(window) < size and (data := os.pread(file, _WINDOW_BYTES, start + len(window))):
        window += data
    *lines, partial = window.split(b"\n")
    chain = Chain(None if start else Head())
    hashes: dict[int, str] = {}
    last_start = None
    for line in lines[1:] if start else lines:  # the first may have begun before the window
        if (problem := chain.add(0, line + b"\n")) is not None:
            raise _tampered(name, problem[1])
        if chain.record is not None:
            hashes[chain.record.head.sequence] = chain.record.head.hash
            last_start = start_of(chain.record) or last_start
    if chain.head is None:
        raise _tampered(name, "it contains no record")
    found = read_record(partial)
    if isinstance(found, InvalidRecord) and found.tampered:
        raise _tampered(name, found.problem)
    return _End(chain, partial, hashes, last_start)


def _tampered(name: str, problem: str) -> DataLossError:
    return DataLossError(
        f"the end of the audit log {name} was modified: {problem}; move the file out of the folder, examine it with"
        " `rowmint audit verify`, and start the service again"
    )
