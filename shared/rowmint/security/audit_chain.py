"""The records of an audit log, and the hash chain that links them.

A record is a line: canonical JSON (RFC 8785) with the SHA-256 of the previous record and of itself. The hash of one
record therefore fixes all records before it: none can be edited, removed, inserted or moved without changing every
later hash. Records after the last known hash can be truncated without a trace, so hashes are also reported elsewhere
from time to time.

An interrupted write, because of a full disk or the end of the process, leaves bytes that are not a record (a torn
write). They stay, since nothing written is ever removed, and the next record contains their SHA-256 as ``torn``, which
distinguishes them from tampering. They never contain an acknowledged record. A line that is a JSON object but not a
valid record cannot be a torn write, as a prefix of a record is not valid JSON: it was tampered with.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rowmint.errors import InvalidFieldError
from rowmint.security.decisions import DECISIONS

GENESIS = "0" * 64
"""Previous hash of the first record of a file."""
MAX_LINE_BYTES = 8 * 1024
"""Maximum size of a record, newline included."""

_TEXTS = ("who", "method", "reason", "request_id")
_REQUIRED = frozenset({"sequence", "time", *_TEXTS, "resource", "decision", "previous", "hash"})
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_MAX_TEXT = 256
# The largest integer that all JSON parsers represent exactly.
_MAX_SEQUENCE = 2**53 - 1


@dataclass(frozen=True)
class Head:
    """The last record of a file of an audit log, which the next record refers to.

    Attributes:
        sequence: Number of the last record, from 1; 0 before the first.
        hash: Its hash, hex.
    """

    sequence: int = 0
    hash: str = GENESIS

    def __str__(self) -> str:
        return f"{self.sequence}:{self.hash}"


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


@dataclass(frozen=True)
class Record:
    """The verified fields of a record.

    Attributes:
        head: Its number and hash.
        previous: Hash of the previous record, hex.
        time: When it was made, RFC 3339, UTC.
        method: ``package.Service/Method``.
        reason: Why the call was rejected; empty if it was allowed.
        request_id: Id of the call.
        torn: SHA-256 of the bytes of torn writes before it, hex; empty if there are none.
    """

    head: Head
    previous: str
    time: str
    method: str
    reason: str
    request_id: str
    torn: str = ""


@dataclass(frozen=True)
class InvalidRecord:
    """Why a line is not a record.

    Attributes:
        problem: What is wrong with it.
        tampered: Whether it cannot be the rest of a torn write.
    """

    problem: str
    tampered: bool


def sanitised(text: str) -> str:
    """Return untrusted text as stored in records: truncated, with control and invalid characters replaced."""
    return _UNSAFE.sub("?", text[:_MAX_TEXT])


def canonical(values: Mapping[str, str | int]) -> bytes:
    """Return the canonical JSON (RFC 8785) of an object.

    For the values of records (ASCII keys, strings, and integers below 2**53), Python's own encoder produces it.

    Raises:
        UnicodeEncodeError: A string is not valid Unicode.
    """
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def make_record(head: Head, values: Mapping[str, str], torn: str = "") -> tuple[bytes, Head]:
    """Return the line of a new record, newline included, and its head.

    Args:
        head: The previous record.
        values: Its fields, except those of the chain.
        torn: SHA-256 of the bytes of torn writes since that record, hex; empty if there are none.
    """
    fields: dict[str, str | int] = {**values, "sequence": head.sequence + 1, "previous": head.hash}
    if torn:
        fields["torn"] = torn
    digest = hashlib.sha256(canonical(fields)).hexdigest()
    return canonical({**fields, "hash": digest}) + b"\n", Head(head.sequence + 1, digest)


def read_record(line: bytes) -> Record | InvalidRecord:
    """Parse and verify a line, without its newline; return the record, or why it is not one."""
    try:
        fields = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return InvalidRecord("not a record: it is not JSON", tampered=False)
    if not isinstance(fields, dict):  # a few characters of garbage, such as a digit
        return InvalidRecord("not a record: it is not a JSON object", tampered=False)
    if not _well_formed(fields):
        return InvalidRecord("not a record: its fields are not those of a record", tampered=True)
    claimed = fields.pop("hash")
    try:
        actual = hashlib.sha256(canonical(fields)).hexdigest()
        as_written = canonical({**fields, "hash": claimed}) == line
    except UnicodeEncodeError:
        return InvalidRecord("not a record: it contains invalid Unicode", tampered=True)
    if actual != claimed:
        return InvalidRecord(f"edited: record {fields['sequence']} does not match its hash", tampered=True)
    if not as_written:
        return InvalidRecord(f"edited: record {fields['sequence']} is not in canonical form", tampered=True)
    return Record(
        Head(fields["sequence"], claimed),
        fields["previous"],
        fields["time"],
        fields["method"],
        fields["reason"],
        fields["request_id"],
        fields.get("torn", ""),
    )


def _well_formed(fields: dict[str, object]) -> bool:
    """Return whether an object has the fields of a record, with valid values."""
    if not fields.keys() >= _REQUIRED or not fields.keys() <= _REQUIRED | {"torn"}:
        return False
    sequence = fields["sequence"]
    if not isinstance(sequence, int) or isinstance(sequence, bool) or not 0 < sequence <= _MAX_SEQUENCE:
        return False
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    if len(texts) != len(fields) - 1:
        return False
    digests = (texts["previous"], texts["hash"], texts["resource"] or GENESIS, texts.get("torn", GENESIS))
    return (
        all(_DIGEST.fullmatch(digest) for digest in digests)
        and bool(_TIME.fullmatch(texts["time"]))
        and texts["decision"] in DECISIONS
    )


@dataclass
class Chain:
    """Verifies the chain of records in a file, line by line.

    Attributes:
        head: The last record; None if the next record may be any, as after one that was tampered with.
        torn_bytes: Bytes of torn writes since that record.
        torn_line: Number of the first line of these bytes.
        torn_problem: What is wrong with that line.
        record: The record on the line added last; None if that line is not a record.
    """

    head: Head | None = field(default_factory=Head)
    torn_bytes: int = 0
    torn_line: int = 0
    torn_problem: str = ""
    record: Record | None = None
    _torn: Any = field(default_factory=hashlib.sha256)

    @property
    def torn(self) -> str:
        """SHA-256 of the bytes of torn writes since the last record, hex; empty if there are none."""
        return str(self._torn.hexdigest()) if self.torn_bytes else ""

    def copy(self) -> "Chain":
        """Return a copy in the same state."""
        return replace(self, _torn=self._torn.copy())

    def add(self, number: int, line: bytes) -> tuple[int, str] | None:
        """Verify the next line.

        Args:
            number: Its number.
            line: The line, newline included.

        Returns:
            The line number and description of a problem; None if the line is a record that continues the chain, or
            may be a torn write.
        """
        found = _TOO_LONG if len(line) > MAX_LINE_BYTES else read_record(line[:-1])
        self.record = found if isinstance(found, Record) else None
        if isinstance(found, Record):
            return self._add_record(number, found)
        self.skip(number, line, found.problem)
        if not found.tampered:
            return None
        self.head = None
        return number, found.problem

    def skip(self, number: int, data: bytes, problem: str = "") -> None:
        """Skip bytes that are not part of a record: a line, or a piece of an overlong line."""
        if not self.torn_bytes:
            self.torn_line, self.torn_problem = number, problem or _TOO_LONG.problem
        self._torn.update(data)
        self.torn_bytes += len(data)

    def _add_record(self, number: int, record: Record) -> tuple[int, str] | None:
        problem = None if self.head is None else self._link_problem(self.head, number, record)
        self.head = record.head
        self.torn_bytes, self._torn = 0, hashlib.sha256()
        return problem

    def _link_problem(self, last: Head, number: int, record: Record) -> tuple[int, str] | None:
        if record.torn != self.torn:
            if self.torn_bytes:
                return self.torn_line, self.torn_problem
            return number, f"record {record.head.sequence} refers to a torn write before it, which is missing"
        sequence, expected = record.head.sequence, last.sequence + 1
        if sequence > expected:
            missing = (
                f"record {expected} is" if sequence == expected + 1 else f"records {expected} to {sequence - 1} are"
            )
            return number, f"{missing} missing before record {sequence}"
        if sequence < expected:
            return number, f"record {sequence} comes after record {last.sequence}: it was inserted or moved"
        if record.previous != last.hash:
            return number, f"record {sequence} does not match the hash of the previous record: one was replaced"
        return None


_TOO_LONG = InvalidRecord("not a record: it is too long", tampered=False)
