"""Verification of audit logs."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rowmint.errors import InvalidFieldError
from rowmint.security.audit_chain import MAX_LINE_BYTES, Chain, Head, Record
from rowmint.security.audit_head import ReportedHead, continued_head, head_path, read_head, start_of

_MAX_PROBLEMS = 10


@dataclass(frozen=True)
class Finding:
    """A problem found by verification, or a notice of what it cannot decide.

    Attributes:
        file: Name of the file; empty if it is not about one file.
        line: Number of the line, from 1; 0 if it is not about one line.
        message: Description.
    """

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        line = f", line {self.line}" if self.line else ""
        return f"{self.file}{line}: {self.message}" if self.file else self.message


@dataclass(frozen=True)
class FileReport:
    """Result of verifying one file.

    Attributes:
        file: Its name.
        records: Number of records.
        first_time: Time of the first record, RFC 3339; empty if there is none.
        last_time: Time of the last record.
        head: The last record.
        torn_bytes: Bytes after the last record that are not a record: a write is in progress, or was interrupted and
            the service has not been started since.
        problems: Problems, at most ten.
    """

    file: str
    records: int
    first_time: str
    last_time: str
    head: Head
    torn_bytes: int
    problems: tuple[Finding, ...]


@dataclass(frozen=True)
class Verdict:
    """Result of verifying a folder of files, or one file.

    Attributes:
        files: The files, ordered by name.
        problems: Problems of all files, and those not located in one file.
        notices: What may be a problem, and cannot be decided from the files.
    """

    files: tuple[FileReport, ...]
    problems: tuple[Finding, ...]
    notices: tuple[Finding, ...]


def verify(path: Path, since: Collection[Head] = ()) -> Verdict:
    """Verify a file, or all files of a folder. Memory does not grow with their size.

    Args:
        path: The file, or the folder.
        since: Heads known from the service's log; each must be a record in one of the files.

    Raises:
        InvalidFieldError: There is no audit log.
        OSError: A file cannot be read.
    """
    paths = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    heads = sorted(path.glob("*.head")) if path.is_dir() else []
    if not paths and not heads:
        raise InvalidFieldError(
            "folder", f"{path} contains no audit log (*.jsonl); give the folder that ROWMINT_AUDIT_LOG names"
        )
    checks = [_FileCheck(one) for one in paths]
    for check in checks:
        check.run(frozenset(since))
    only_file = checks[0].path.name if len(checks) == 1 else ""
    found = {head for check in checks for head in check.found}
    lost = [
        Finding(only_file, 0, f"{_missing(head)}: it was replaced, or the end of its file was truncated")
        for head in sorted(set(since) - found, key=lambda head: (head.sequence, head.hash))
    ]
    removed = [
        Finding(one.with_suffix(".jsonl").name, 0, "is missing: its head file is there; it was removed, or moved alone")
        for one in heads
        if one.with_suffix(".jsonl") not in paths
    ]
    continued = {head for check in checks for head in check.continued}
    ends = [finding for check in checks for finding in check.unvouched_end({*since, *continued})]
    files = tuple(check.report() for check in checks)
    ended = {report.head for report in files}
    notices = [notice for check in checks for notice in check.notices(ended)]
    return Verdict(
        files, (*(problem for file in files for problem in file.problems), *ends, *removed, *lost), tuple(notices)
    )


class _FileCheck:
    """Verification of one file.

    Args:
        path: The file.

    Attributes:
        path: The file.
        found: The known heads that are in it.
        continued: Last records of other files, which its own records name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: set[Head] = set()
        self.continued: list[Head] = []
        self._chain = Chain()
        self._problems: list[Finding] = []
        self._records, self._first_time, self._last_time, self._last = 0, "", "", Head()
        self._start = 0
        self._reported: ReportedHead | None = None

    def run(self, known: Collection[Head]) -> None:
        """Read the file.

        Args:
            known: Heads to look for.
        """
        # Before the file, which grows meanwhile if its service runs.
        try:
            self._reported = read_head(self.path)
        except InvalidFieldError as error:
            self._problems.append(Finding(self.path.name, 0, error.message))
        own = {self._reported_head} - {Head()}
        with self.path.open("rb") as file:
            for number, piece, whole in _pieces(file):
                if not whole:
                    self._chain.skip(number, piece)
                    continue
                problem = self._chain.add(number, piece)
                if problem is not None:
                    self._add(*problem)
                if self._chain.record is not None:
                    self._count(number, self._chain.record)
                    own.discard(self._last)
                    if self._last in known:
                        self.found.add(self._last)
        for head in own:
            self._add(0, f"{_missing(head)}, though its head file names it: it was replaced, or the end was truncated")

    @property
    def _reported_head(self) -> Head:
        return Head() if self._reported is None else self._reported.head

    def _count(self, number: int, record: Record) -> None:
        self._records, self._last, self._last_time = self._records + 1, record.head, record.time
        self._first_time = self._first_time or record.time
        continued = continued_head(record)
        if continued is not None:
            self.continued.append(continued)
        start = start_of(record)
        if start is None:
            return
        if self._start and start != self._start + 1:
            self._add(number, f"start {start} comes after start {self._start}: records or its head file were removed")
        self._start = start

    def _add(self, line: int, message: str) -> None:
        if len(self._problems) < _MAX_PROBLEMS:
            self._problems.append(Finding(self.path.name, line, message))

    def unvouched_end(self, named: Collection[Head]) -> Iterator[Finding]:
        """Yield a problem if nothing says where the file ended: records cut from its end would not be missed.

        Args:
            named: Records that later files, the caller or a service's log name.
        """
        # Files of releases before have no starts, and no head files.
        if self._start and self._reported is None and self._last not in named:
            yield Finding(
                self.path.name,
                0,
                f"its head file {head_path(self.path).name} is missing, and no later file, known head or log names its"
                " last record: records may have been removed from its end",
            )

    def notices(self, ended: Collection[Head]) -> Iterator[Finding]:
        """Yield what may be a problem.

        Args:
            ended: Last records of all files.
        """
        if not self._records and not self._chain.torn_bytes and self._reported_head == Head():
            yield Finding(self.path.name, 0, "is empty: its service ended before it wrote a record, or it was emptied")
        for head in self.continued:
            if head not in ended:
                yield Finding(
                    self.path.name, 0, f"continues a file that ends with record {head.sequence}, which is not here"
                )

    def report(self) -> FileReport:
        """Return the result."""
        return FileReport(
            self.path.name,
            self._records,
            self._first_time,
            self._last_time,
            self._last,
            self._chain.torn_bytes,
            tuple(self._problems),
        )


def _missing(head: Head) -> str:
    return f"record {head.sequence} with hash {head.hash} is missing"


def _pieces(file: BinaryIO) -> Iterator[tuple[int, bytes, bool]]:
    """Yield line number, bytes, and whether they are a whole line, not a piece of an overlong or unterminated one."""
    number, at_start = 1, True
    while data := file.readline(MAX_LINE_BYTES + 1):
        at_end = data.endswith(b"\n")
        yield number, data, at_start and at_end
        at_start = at_end
        number += at_end
