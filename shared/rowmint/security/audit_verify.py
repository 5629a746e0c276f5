"""Verification of audit logs."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rowmint.errors import InvalidFieldError
from rowmint.security.audit_chain import MAX_LINE_BYTES, Chain, Head

_MAX_PROBLEMS = 10


@dataclass(frozen=True)
class Problem:
    """A problem found by verification.

    Attributes:
        file: Name of the file; empty if the problem is not located in one file.
        line: Number of the line, from 1; 0 if the problem is not located on one line.
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
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Verdict:
    """Result of verifying a folder of files, or one file.

    Attributes:
        files: The files, ordered by name.
        problems: Problems of all files, and those not located in one file.
    """

    files: tuple[FileReport, ...]
    problems: tuple[Problem, ...]


def parse_head(text: str) -> Head:
    """Parse a head, such as ``1000:5e88...``.

    Raises:
        InvalidFieldError: The text is not a head.
    """
    sequence, _, digest = text.partition(":")
    digest = digest.lower()
    if not (sequence.isascii() and sequence.isdigit() and len(digest) == 64 and set(digest) <= set("0123456789abcdef")):
        raise InvalidFieldError("since", f"{text!r} must be SEQUENCE:HASH, as reported in the service's log")
    return Head(int(sequence), digest)


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
    if not paths:
        raise InvalidFieldError(
            "folder", f"{path} contains no audit log (*.jsonl); give the folder that ROWMINT_AUDIT_LOG names"
        )
    missing = set(since)
    files = [_verify_file(one, missing) for one in paths]
    only_file = files[0].file if len(files) == 1 else ""
    lost = [
        Problem(
            only_file,
            0,
            f"record {head.sequence} with hash {head.hash} is missing: it was replaced, or the end of its file was"
            " truncated",
        )
        for head in sorted(missing, key=lambda head: (head.sequence, head.hash))
    ]
    return Verdict(tuple(files), (*(problem for file in files for problem in file.problems), *lost))


def _verify_file(path: Path, missing: set[Head]) -> FileReport:
    """Verify a file, and remove the heads found in it from `missing`."""
    chain = Chain()
    records, first_time, last_time, last = 0, "", "", Head()
    problems: list[Problem] = []
    with path.open("rb") as file:
        for number, piece, whole in _pieces(file):
            if not whole:
                chain.skip(number, piece)
                continue
            problem = chain.add(number, piece)
            if problem is not None and len(problems) < _MAX_PROBLEMS:
                problems.append(Problem(path.name, *problem))
            if chain.record is not None:
                records, last, last_time = records + 1, chain.record.head, chain.record.time
                first_time = first_time or last_time
                missing.discard(last)
    return FileReport(path.name, records, first_time, last_time, last, chain.torn_bytes, tuple(problems))


def _pieces(file: BinaryIO) -> Iterator[tuple[int, bytes, bool]]:
    """Yield line number, bytes, and whether they are a whole line, not a piece of an overlong or unterminated one."""
    number, at_start = 1, True
    while data := file.readline(MAX_LINE_BYTES + 1):
        at_end = data.endswith(b"\n")
        yield number, data, at_start and at_end
        at_start = at_end
        number += at_end
