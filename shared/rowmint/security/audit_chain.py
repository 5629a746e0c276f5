"""The records of an audit log, and what ties each to the one before it.

A record is a line: its JSON in the one form that RFC 8785 gives it, which tells the SHA-256 of the record before it and
its own. Whoever knows one record's hash therefore knows all that came before: nothing of it can be edited, removed,
inserted or moved without every later hash changing. What is after the last known hash can be cut off unseen; that is
why hashes are told elsewhere from time to time.

A write that is cut, by a full disk or the end of the process, leaves bytes that are no record. They stay, since nothing
that was written is ever removed, and the next record tells their SHA-256 as ``torn``: so they are no sign of tampering.
No record that was acknowledged is among them. A line that is an object of JSON and yet no record is never left by a cut
write, as the beginning of a record is no JSON: whatever stands after it, somebody has edited a record.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rowmint.security.decisions import DECISIONS

GENESIS = "0" * 64
"""What the first record of a file tells as the hash before it."""
MAX_LINE_BYTES = 8 * 1024
"""Bytes of the longest record, with its newline."""

_TEXTS = ("who", "method", "reason", "request_id")
_REQUIRED = frozenset({"sequence", "time", *_TEXTS, "resource", "decision", "previous", "hash"})
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_MAX_TEXT = 256
# The largest integer that every reader of JSON has exactly.
_MAX_SEQUENCE = 2**53 - 1


@dataclass(frozen=True)
class Head:
    """Where a file of an audit log has come to; the next record follows it.

    Attributes:
        sequence: Number of the last record, from 1; 0 before the first.
        hash: Its hash, hex.
    """

    sequence: int = 0
    hash: str = GENESIS

    def __str__(self) -> str:
        return f"{self.sequence}:{self.hash}"


@dataclass(frozen=True)
class Record:
    """What is read of a record.

    Attributes:
        head: Its number and hash.
        previous: The hash that it tells of the record before it, hex.
        time: When it was made, RFC 3339, UTC.
        torn: SHA-256 of the bytes of cut writes before it, hex; empty where there are none.
    """

    head: Head
    previous: str
    time: str
    torn: str = ""


@dataclass(frozen=True)
class Flaw:
    """Why a line is no record.

    Attributes:
        what: What is wrong with it.
        edited: Whether a cut write cannot have left it.
    """

    what: str
    edited: bool


def bounded(text: str) -> str:
    """Return what a record tells of a text that may be a caller's: not too much, and nothing that is no character."""
    return _NO_TEXT.sub("?", text[:_MAX_TEXT])


def canonical(values: Mapping[str, str | int]) -> bytes:
    """Return the JSON of an object as RFC 8785 writes it.

    Python's own writer does so for what records hold: ASCII keys, texts, and integers below 2**53.

    Raises:
        UnicodeEncodeError: A text is not Unicode.
    """
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def make_record(head: Head, values: Mapping[str, str], torn: str = "") -> tuple[bytes, Head]:
    """Return the line of a new record, newline included, and its head.

    Args:
        head: The record it follows.
        values: What it tells, beside what ties it to others.
        torn: SHA-256 of the bytes of cut writes since that record, hex; empty where there are none.
    """
    told: dict[str, str | int] = {**values, "sequence": head.sequence + 1, "previous": head.hash}
    if torn:
        told["torn"] = torn
    digest = hashlib.sha256(canonical(told)).hexdigest()
    return canonical({**told, "hash": digest}) + b"\n", Head(head.sequence + 1, digest)


def read_record(line: bytes) -> Record | Flaw:
    """Return the record that a line holds, without its newline, or why it is none."""
    try:
        told = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return Flaw("no record: it is not JSON", edited=False)
    if not isinstance(told, dict):  # a few characters of garbage, such as a digit
        return Flaw("no record: it is no object of JSON", edited=False)
    if not _well_formed(told):
        return Flaw("no record: its fields are not those of one", edited=True)
    claimed = told.pop("hash")
    try:
        own = hashlib.sha256(canonical(told)).hexdigest()
        as_written = canonical({**told, "hash": claimed}) == line
    except UnicodeEncodeError:
        return Flaw("no record: it holds what is not Unicode", edited=True)
    if own != claimed:
        return Flaw(f"edited: record {told['sequence']} does not have the hash that it tells", edited=True)
    if not as_written:
        return Flaw(f"edited: record {told['sequence']} is not in the form in which it was written", edited=True)
    return Record(Head(told["sequence"], claimed), told["previous"], told["time"], told.get("torn", ""))


def _well_formed(told: dict[str, object]) -> bool:
    """Return whether an object has the fields of a record, each of the kind it must be."""
    if not told.keys() >= _REQUIRED or not told.keys() <= _REQUIRED | {"torn"}:
        return False
    sequence = told["sequence"]
    if not isinstance(sequence, int) or isinstance(sequence, bool) or not 0 < sequence <= _MAX_SEQUENCE:
        return False
    texts = {name: value for name, value in told.items() if isinstance(value, str)}
    if len(texts) != len(told) - 1:
        return False
    digests = (texts["previous"], texts["hash"], texts["resource"] or GENESIS, texts.get("torn", GENESIS))
    return (
        all(_DIGEST.fullmatch(digest) for digest in digests)
        and bool(_TIME.fullmatch(texts["time"]))
        and texts["decision"] in DECISIONS
    )


@dataclass
class Chain:
    """Follows the lines of a file from one record to the next.

    Attributes:
        head: The last record; None where the next one may be any, as after one that was edited.
        torn_bytes: Bytes since that record that belong to none.
        torn_line: Number of the first line of those.
        torn_what: What is wrong with it.
        taken: The record that was the line taken last; None where that was none.
    """

    head: Head | None = field(default_factory=Head)
    torn_bytes: int = 0
    torn_line: int = 0
    torn_what: str = ""
    taken: Record | None = None
    _torn: Any = field(default_factory=hashlib.sha256)

    @property
    def torn(self) -> str:
        """SHA-256 of the bytes since the last record that belong to none, hex; empty where there are none."""
        return str(self._torn.hexdigest()) if self.torn_bytes else ""

    def copy(self) -> "Chain":
        """Return another that goes on from the same place."""
        return replace(self, _torn=self._torn.copy())

    def take(self, number: int, line: bytes) -> tuple[int, str] | None:
        """Go on to a line.

        Args:
            number: Its number.
            line: The line, newline included.

        Returns:
            The number of the line where something is wrong, and what; None where the line is a record that follows the
            last one, or may be what a cut write has left.
        """
        found = _LONG if len(line) > MAX_LINE_BYTES else read_record(line[:-1])
        self.taken = found if isinstance(found, Record) else None
        if isinstance(found, Record):
            return self._follow(number, found)
        self.skip(number, line, found.what)
        if not found.edited:
            return None
        self.head = None
        return number, found.what

    def skip(self, number: int, data: bytes, what: str = "") -> None:
        """Go past bytes that belong to no record: a line, or a piece of a long one."""
        if not self.torn_bytes:
            self.torn_line, self.torn_what = number, what or _LONG.what
        self._torn.update(data)
        self.torn_bytes += len(data)

    def _follow(self, number: int, record: Record) -> tuple[int, str] | None:
        wrong = None if self.head is None else self._wrong(self.head, number, record)
        self.head = record.head
        self.torn_bytes, self._torn = 0, hashlib.sha256()
        return wrong

    def _wrong(self, last: Head, number: int, record: Record) -> tuple[int, str] | None:
        if record.torn != self.torn:
            if self.torn_bytes:
                return self.torn_line, self.torn_what
            return number, f"record {record.head.sequence} tells of a cut write before it that is not there"
        sequence, expected = record.head.sequence, last.sequence + 1
        if sequence > expected:
            missing = (
                f"record {expected} is" if sequence == expected + 1 else f"records {expected} to {sequence - 1} are"
            )
            return number, f"{missing} missing before record {sequence}"
        if sequence < expected:
            return number, f"record {sequence} stands after record {last.sequence}: it was inserted or moved"
        if record.previous != last.hash:
            return number, f"record {sequence} does not follow the one before it: one of the two was replaced"
        return None


_LONG = Flaw("no record: it is longer than any", edited=False)
