"""The closed tree of domain errors.

Every failure that a caller can meet is one of these. They know nothing of gRPC: `rowmint.rpc` holds the one table that
turns them into status codes. The message says what happened, where, and what to do next; `metadata` holds the same
facts for programs. Neither ever holds a secret, a path or a cell of the data beyond the one the caller sent and what
the model's schema shows its readers.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why a call failed; the names of `rowmint.v1.ErrorReason` without their prefix."""

    INVALID_FIELD = "INVALID_FIELD"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    RESOURCE_NOT_FOUND = "RESOURCE_NOT_FOUND"
    RESOURCE_EXISTS = "RESOURCE_EXISTS"
    WRONG_STATE = "WRONG_STATE"
    EMPTY_STREAM = "EMPTY_STREAM"
    WRITE_OFFSET = "WRITE_OFFSET"
    CHECKSUM = "CHECKSUM"
    DIGEST_MISMATCH = "DIGEST_MISMATCH"
    FENCED = "FENCED"
    INVALID_DATA = "INVALID_DATA"
    COLUMN_NOT_FOUND = "COLUMN_NOT_FOUND"
    VALUE_NOT_FOUND = "VALUE_NOT_FOUND"
    INVALID_CONDITION = "INVALID_CONDITION"
    ACCEPTANCE_TOO_LOW = "ACCEPTANCE_TOO_LOW"
    ROW_RANGE = "ROW_RANGE"
    LIMIT = "LIMIT"
    DATA_LOSS = "DATA_LOSS"
    UNAVAILABLE = "UNAVAILABLE"
    CANCELLED = "CANCELLED"
    INTERNAL = "INTERNAL"
    TRAINING_FAILED = "TRAINING_FAILED"
    STREAM_MISMATCH = "STREAM_MISMATCH"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    UNTRUSTED_MODEL = "UNTRUSTED_MODEL"


@dataclass(frozen=True)
class FieldViolation:
    """One field of a request that is wrong.

    Attributes:
        field: Path of the field, such as ``training_job.config.ctgan.pac``.
        description: What is wrong with it and what is allowed.
    """

    field: str
    description: str


class RowmintError(Exception):
    """Root of all domain errors.

    Args:
        message: What happened, where, and what to do next; one line, shown to people.
        metadata: The same facts for programs.
        violations: Fields at fault, when the request was.
        retry_after: Seconds after which the same call may succeed, or None where it will not.
    """

    reason: Reason = Reason.INTERNAL

    def __init__(
        self,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Iterable[FieldViolation] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after = retry_after


class InvalidFieldError(RowmintError):
    """A field is missing, out of range or malformed."""

    reason = Reason.INVALID_FIELD

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}", violations=[FieldViolation(field, description)])


class RequestIdReusedError(RowmintError):
    """A request_id was used before with another body."""

    reason = Reason.REQUEST_ID_REUSED


class ResourceNotFoundError(RowmintError):
    """The named resource does not exist."""

    reason = Reason.RESOURCE_NOT_FOUND


class ResourceExistsError(RowmintError):
    """A resource of this name exists."""

    reason = Reason.RESOURCE_EXISTS


class WrongStateError(RowmintError):
    """The resource is not in the state the call needs."""

    reason = Reason.WRONG_STATE


class EmptyStreamError(RowmintError):
    """A client stream carried no message."""

    reason = Reason.EMPTY_STREAM


class WriteOffsetError(RowmintError):
    """An upload message does not start where the last one ended.

    Args:
        offset: Offset that was sent, bytes.
        expected: Offset that was expected, bytes.
        committed: Bytes that are stored; where a new stream starts.
    """

    reason = Reason.WRITE_OFFSET

    def __init__(self, offset: int, expected: int, committed: int) -> None:
        kind = "a gap" if offset > expected else "an overlap"
        super().__init__(
            f"write_offset {offset} leaves {kind}: {expected} was expected; {committed} bytes are committed, open a new"
            " stream from there",
            metadata={"committed_size": str(committed), "expected": str(expected)},
        )


class ChecksumError(RowmintError):
    """A message's bytes do not match its checksum."""

    reason = Reason.CHECKSUM


class DigestMismatchError(RowmintError):
    """The stored bytes do not match the size or SHA-256 said at the end."""

    reason = Reason.DIGEST_MISMATCH


class FencedError(RowmintError):
    """A newer writer or attempt has taken over; the older one must stop."""

    reason = Reason.FENCED


@dataclass(frozen=True)
class DataProblem:
    """One thing wrong with uploaded data.

    Attributes:
        message: What is wrong and what to do.
        line: Line of the file, from 1, or 0.
        row: Row of the table, from 1, or 0.
        column: Column concerned, or empty.
    """

    message: str
    line: int = 0
    row: int = 0
    column: str = ""


class InvalidDataError(RowmintError):
    """Uploaded bytes cannot be read as a table.

    Args:
        problems: What is wrong, at least one, at most 100.
    """

    reason = Reason.INVALID_DATA

    def __init__(self, problems: Iterable[DataProblem]) -> None:
        self.problems = tuple(problems)[:100]
        first = self.problems[0]
        where = "".join(
            f"{name} {value}: "
            for name, value in (("line", first.line), ("row", first.row), ("column", first.column))
            if value
        )
        more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
        super().__init__(
            f"{where}{first.message}{more}",
            metadata={"line": str(first.line), "row": str(first.row), "column": first.column},
        )


class ColumnNotFoundError(RowmintError):
    """The schema has no such column.

    Args:
        column: Name that was asked for.
        near: Names that resemble it, best first.
    """

    reason = Reason.COLUMN_NOT_FOUND

    def __init__(self, column: str, near: Iterable[str] = ()) -> None:
        near = list(near)
        hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
        super().__init__(f"there is no column {column!r}{hint}", metadata={"column": column, "near": ", ".join(near)})


class ValueNotFoundError(RowmintError):
    """A value was never seen in training.

    Args:
        column: The column.
        value: Value that was asked for, as text.
        near: Known values that resemble it, best first.
    """

    reason = Reason.VALUE_NOT_FOUND

    def __init__(self, column: str, value: str, near: Iterable[str] = ()) -> None:
        near = list(near)
        hint = f"; near ones are {', '.join(map(repr, near))}" if near else ""
        super().__init__(
            f"column {column!r} never had the value {value!r} in training{hint}",
            metadata={"column": column, "value": value, "near": ", ".join(near)},
        )


class InvalidConditionError(RowmintError):
    """Conditions exclude each other, or ask what cannot be asked of a column."""

    reason = Reason.INVALID_CONDITION


class AcceptanceTooLowError(RowmintError):
    """The model does not produce rows that satisfy the conditions within its budget.

    Args:
        message: Which test starves and how rare it is.
        found: Candidates that satisfied the conditions.
        candidates: Candidates that were drawn.
        row: Row the stream stopped at.
    """

    reason = Reason.ACCEPTANCE_TOO_LOW

    def __init__(self, message: str, *, found: int, candidates: int, row: int) -> None:
        super().__init__(message, metadata={"found": str(found), "candidates": str(candidates), "next_row": str(row)})


class RowRangeError(RowmintError):
    """A row index lies outside the stream, or not on the grid where it must.

    Args:
        message: What is wrong with it and what is allowed.
        field: Field of the request that holds it, or empty where none does alone.
        metadata: The same facts for programs.
    """

    reason = Reason.ROW_RANGE

    def __init__(self, message: str, *, field: str = "", metadata: Mapping[str, str] | None = None) -> None:
        violations = [FieldViolation(field, message)] if field else []
        super().__init__(f"{field}: {message}" if field else message, metadata=metadata, violations=violations)


class LimitError(RowmintError):
    """A limit was reached; the message names the setting that holds it."""

    reason = Reason.LIMIT


class DataLossError(RowmintError):
    """Stored bytes are damaged or not what the registry says."""

    reason = Reason.DATA_LOSS


class UnavailableError(RowmintError):
    """A part the service needs is not reachable now."""

    reason = Reason.UNAVAILABLE


class CancelledError(RowmintError):
    """The call or job was cancelled."""

    reason = Reason.CANCELLED


class TrainingFailedError(RowmintError):
    """Training could not go on."""

    reason = Reason.TRAINING_FAILED


class StreamMismatchError(RowmintError):
    """The digests of a continued stream do not match the model's now."""

    reason = Reason.STREAM_MISMATCH


class UnauthenticatedError(RowmintError):
    """Who calls is not known."""

    reason = Reason.UNAUTHENTICATED


class PermissionDeniedError(RowmintError):
    """Who calls may not do this in this project."""

    reason = Reason.PERMISSION_DENIED


class UntrustedModelError(RowmintError):
    """A version bears no signature of a trusted key."""

    reason = Reason.UNTRUSTED_MODEL
