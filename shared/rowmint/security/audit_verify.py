"""Reads audit logs and tells what was done to them since they were written."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rowmint.errors import InvalidFieldError
from rowmint.security.audit_chain import MAX_LINE_BYTES, Chain, Head

_MAX_PROBLEMS = 10


@dataclass(frozen=True)
class Problem:
    """Something that is wrong.

    Attributes:
        file: Name of the file; empty where none is to blame alone.
        line: Number of the line, from 1; 0 where none is to blame alone.
        what: What is wrong with it.
    """

    file: str
    line: int
    what: str

    def __str__(self) -> str:
        line = f", line {self.line}" if self.line else ""
        return f"{self.file}{line}: {self.what}" if self.file else self.what


@dataclass(frozen=True)
class FileReport:
    """What is in one file.

    Attributes:
        file: Its name.
        records: How many records.
        first_time: Time of the first record, RFC 3339; empty where there is none.
        last_time: Time of the last.
        head: The last record.
        cut_bytes: Bytes after the last record that are none: a write is going on or was cut, and the service has not
            been started since.
        problems: What is wrong, at most ten things.
    """

    file: str
    records: int
    first_time: str
    last_time: str
    head: Head
    cut_bytes: int
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Verdict:
    """What is in a folder of files, or one.

    Attributes:
        files: The files, in the order of their names.
        problems: What is wrong, in all of them and beyond.
    """

    files: tuple[FileReport, ...]
    problems: tuple[Problem, ...]


def parse_head(text: str) -> Head:
    """Return the head that a text tells, such as ``1000:5e88...``.

    Raises:
        InvalidFieldError: It is none.
    """
    sequence, _, digest = text.partition(":")
    digest = digest.lower()
    if not (sequence.isascii() and sequence.isdigit() and len(digest) == 64 and set(digest) <= set("0123456789abcdef")):
        raise InvalidFieldError("since", f"{text!r} must be SEQUENCE:HASH, as the service's log tells them")
    return Head(int(sequence), digest)


def verify(path: Path, since: Collection[Head] = ()) -> Verdict:
    """Read a file, or all of a folder, to the end. Memory does not grow with their size.

    Args:
        path: The file, or the folder.
        since: Heads noted earlier; each must still be a record in one of the files.

    Raises:
        InvalidFieldError: There is no audit log.
        OSError: One cannot be read.
    """
    paths = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not paths:
        raise InvalidFieldError("folder", f"no audit log (*.jsonl) is in {path}; ROWMINT_AUDIT_LOG says where they are")
    missing = set(since)
    files = [_verify_file(one, missing) for one in paths]
    alone = files[0].file if len(files) == 1 else ""
    lost = [
        Problem(
            alone,
            0,
            f"record {head.sequence} with the hash {head.hash} is nowhere: it was replaced, or the end of its file was"
            " cut off",
        )
        for head in sorted(missing, key=lambda head: (head.sequence, head.hash))
    ]
    return Verdict(tuple(files), (*(problem for file in files for problem in file.problems), *lost))


def _verify_file(path: Path, missing: set[Head]) -> FileReport:
    """Read a file; of `missing` what is found in it is removed."""
    chain = Chain()
    records, first_time, last_time, last = 0, "", "", Head()
    problems: list[Problem] = []
    with path.open("rb") as file:
        for number, piece, whole in _pieces(file):
            if not whole:
                chain.skip(number, piece)
                continue
            wrong = chain.take(number, piece)
            if wrong is not None and len(problems) < _MAX_PROBLEMS:
                problems.append(Problem(path.name, *wrong))
            if chain.taken is not None:
                records, last, last_time = records + 1, chain.taken.head, chain.taken.time
                first_time = first_time or last_time
                missing.discard(last)
    return FileReport(path.name, records, first_time, last_time, last, chain.torn_bytes, tuple(problems))


def _pieces(file: BinaryIO) -> Iterator[tuple[int, bytes, bool]]:
    """Yield lines, with their numbers and newlines, and pieces of lines that are longer than any record, or unended."""
    number, begins = 1, True
    while data := file.readline(MAX_LINE_BYTES + 1):
        ended = data.endswith(b"\n")
        yield number, data, begins and ended
        begins = ended
        number += ended
