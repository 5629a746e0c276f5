"""How far an audit log had got: the head file beside each of its files, and the heads in a service's own log.

A chain says that nothing is missing before its last record, and nothing about what came after it. The head file of
``sampler-host-1.jsonl`` is ``sampler-host-1.head``, JSON: the number of the service's start, and sequence and hash of a
record that must be in the file. It is replaced at every start, at the first record of one, each minute in which there
are records, every thousand records and at the end. Who can write the folder can rewrite both: against them, the same
heads are in the service's own log.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rowmint.errors import InvalidFieldError
from rowmint.objects import files
from rowmint.security.audit_chain import Head, Record, parse_head

HEAD_EVENT = "audit log"
"""Event of the service's log that reports a head, as `sequence` and `hash`."""
MOVED_EVENT = "the audit log was moved; a new file is started"
"""Likewise, the last of a file that was moved away."""
START_METHOD = "rowmint.audit/Start"
"""Method of the first record of each start of a service."""
CONTINUE_METHOD = "rowmint.audit/Continue"
"""Likewise, where the service kept running and its file was moved away; the reason is that file's head."""

_SUFFIX = ".head"
_MAX_BYTES = 4096
_START_ID = re.compile(r"start-([1-9][0-9]{0,14})")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_CONSOLE_FIELD = re.compile(r"\b(sequence|hash)='?([0-9a-f]+)\b")


@dataclass(frozen=True)
class ReportedHead:
    """What a head file holds.

    Attributes:
        start: Number of the service's start that wrote it, from 1.
        begun: Whether the record of that start has been written; the head file is written before it, too.
        head: A record of the file; `Head()` where it had none.
        time: When it was written, RFC 3339, UTC.
    """

    start: int
    begun: bool
    head: Head
    time: str


def head_path(path: Path) -> Path:
    """Return the head file of a file of an audit log."""
    return path.with_suffix(_SUFFIX)


def write_head(path: Path, reported: ReportedHead) -> None:
    """Replace the head file of a file of an audit log, durably.

    Raises:
        OSError: It cannot be written; the one before is unchanged.
    """
    fields = {
        "file": path.name,
        "start": reported.start,
        "begun": reported.begun,
        "sequence": reported.head.sequence,
        "hash": reported.head.hash,
        "time": reported.time,
    }
    content = json.dumps(fields).encode() + b"\n"
    files.replace(head_path(path), lambda file: files.write_all(file, content))


def read_head(path: Path) -> ReportedHead | None:
    """Return what the head file of a file of an audit log holds; None if there is none.

    Raises:
        InvalidFieldError: It cannot be parsed.
        OSError: It cannot be read.
    """
    try:
        with head_path(path).open("rb") as file:
            content = file.read(_MAX_BYTES)
    except FileNotFoundError:
        return None
    try:
        fields = json.loads(content)
        head = parse_head(f"{fields['sequence']}:{fields['hash']}")
        return ReportedHead(int(fields["start"]), bool(fields["begun"]), head, str(fields["time"]))
    except (ValueError, TypeError, KeyError, RecursionError, InvalidFieldError) as error:
        raise InvalidFieldError(head_path(path).name, "is not the head file of an audit log") from error


def start_of(record: Record) -> int | None:
    """Return the number of the start that a record begins; None for every other record."""
    if record.method not in (START_METHOD, CONTINUE_METHOD):
        return None
    number = _START_ID.fullmatch(record.request_id)
    return None if number is None else int(number[1])


def continued_head(record: Record) -> Head | None:
    """Return the last record of the file before, which a record names; None for every other record."""
    if record.method != CONTINUE_METHOD:
        return None
    try:
        return parse_head(record.reason)
    except InvalidFieldError:
        return None


def logged_heads(path: Path) -> list[Head]:
    """Return the heads that a service reported in its own log, in either of its formats.

    Args:
        path: The log.

    Raises:
        InvalidFieldError: It reports none.
        OSError: It cannot be read.
    """
    with path.open(encoding="utf-8", errors="replace") as lines:
        found = list(_heads(lines))
    if not found:
        raise InvalidFieldError(
            "log", f"{path} reports no head of an audit log (event '{HEAD_EVENT}'); give the log of a service"
        )
    return found


def _heads(lines: Iterator[str]) -> Iterator[Head]:
    for line in lines:
        if HEAD_EVENT not in line:
            continue
        fields = _json_fields(line) if line.lstrip().startswith("{") else _console_fields(line)
        # Releases before reported an empty file as record 0.
        if {"sequence", "hash"} <= fields.keys() and str(fields["sequence"]) != "0":
            yield parse_head(f"{fields['sequence']}:{fields['hash']}")


def _json_fields(line: str) -> dict[str, object]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return fields if fields.get("event") in (HEAD_EVENT, MOVED_EVENT) else {}


def _console_fields(line: str) -> dict[str, object]:
    text = _ANSI.sub("", line)
    _, bracket, event = text.partition("] ")  # after the level
    if not bracket or not event.startswith((f"{HEAD_EVENT} ", f"{MOVED_EVENT} ")):
        return {}
    return dict(_CONSOLE_FIELD.findall(event))
