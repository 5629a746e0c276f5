"""The domain errors.

Every failure that a caller can get is one of these. They do not depend on gRPC: `rowmint.rpc.status` maps them to
status codes. The message says what happened, where, and what to do next; `metadata` contains the same facts for
programs. Neither contains secrets, paths or cells of the data, except what the caller sent and what the model's schema
shows its readers.
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
    """An invalid field of a request.

    Attributes:
        field: Path of the field, such as ``training_job.config.ctgan.pac``.
        description: What is wrong with it and what is allowed.
    """

    field: str
    description: str


class RowmintError(Exception):
    """Base class of all domain errors.

    Args:
        message: What happened, where, and what to do next; one line, shown to users.
        metadata: The same facts for programs.
        violations: The invalid fields, if the request was invalid.
        retry_after: Seconds after which the same call may succeed, or None if a retry is pointless.
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
    """The request_id was used before with a different body."""

    reason = Reason.REQUEST_ID_REUSED


class ResourceNotFoundError(RowmintError):
    """The named resource does not exist."""

    reason = Reason.RESOURCE_NOT_FOUND


class ResourceExistsError(RowmintError):
    """A resource with this name already exists."""

    reason = Reason.RESOURCE_EXISTS


class WrongStateError(RowmintError):
    """The resource is not in the state that the call requires."""

    reason = Reason.WRONG_STATE


class EmptyStreamError(RowmintError):
    """A request stream contained no message."""

    reason = Reason.EMPTY_STREAM


class WriteOffsetError(RowmintError):
    """An upload message does not start where the previous one ended.

    Args:
        offset: The offset sent, bytes.
        expected: The expected offset, bytes.
        committed: Bytes stored durably; the offset at which a new stream starts.
    """

    reason = Reason.WRITE_OFFSET

    def __init__(self, offset: int, expected: int, committed: int) -> None:
        kind = "a gap" if offset > expected else "an overlap"
        super().__init__(
            f"write_offset {offset} leaves {kind}: {expected} was expected; {committed} bytes are committed, resume"
            " with a new stream at that offset",
            metadata={"committed_size": str(committed), "expected": str(expected)},
        )


class ChecksumError(RowmintError):
    """The data of a message does not match its checksum."""

    reason = Reason.CHECKSUM


class DigestMismatchError(RowmintError):
    """The stored bytes do not match the size or SHA-256 given at the end of the upload."""

    reason = Reason.DIGEST_MISMATCH


class FencedError(RowmintError):
    """A newer writer or attempt has taken over; the older one must stop."""

    reason = Reason.FENCED


@dataclass(frozen=True)
class DataProblem:
    """A problem in uploaded data.

    Attributes:
        message: What is wrong and how to fix it.
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
        problems: The problems, at least one; the first 100 are kept.
        dataset: Name of the dataset, or empty.
        file: The file that was uploaded, as the caller named it, or empty.
    """

    reason = Reason.INVALID_DATA

    def __init__(self, problems: Iterable[DataProblem], dataset: str = "", file: str = "") -> None:
        self.problems = tuple(problems)[:100]
        named = {name: value for name, value in (("dataset", dataset), ("file", file)) if value}
        table = f"{file} ({dataset}): " if len(named) > 1 else "".join(f"{value}: " for value in named.values())
        first = self.problems[0]
        where = "".join(
            f"{name} {value}: "
            for name, value in (("line", first.line), ("row", first.row), ("column", first.column))
            if value
        )
        more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
        super().__init__(
            f"{table}{where}{first.message}{more}",
            metadata={"line": str(first.line), "row": str(first.row), "column": first.column, **named},
        )


class ColumnNotFoundError(RowmintError):
    """The schema has no such column.

    Args:
        column: The requested name.
        near: Similar names, best first.
    """

    reason = Reason.COLUMN_NOT_FOUND

    def __init__(self, column: str, near: Iterable[str] = ()) -> None:
        near = list(near)
        hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
        super().__init__(f"there is no column {column!r}{hint}", metadata={"column": column, "near": ", ".join(near)})


class ValueNotFoundError(RowmintError):
    """A value does not occur in the training data.

    Args:
        column: The column.
        value: The requested value, as text.
        near: Similar known values, best first.
    """

    reason = Reason.VALUE_NOT_FOUND

    def __init__(self, column: str, value: str, near: Iterable[str] = ()) -> None:
        near = list(near)
        hint = f"; similar values are {', '.join(map(repr, near))}" if near else ""
        super().__init__(
            f"the value {value!r} does not occur in column {column!r} of the training data{hint}",
            metadata={"column": column, "value": value, "near": ", ".join(near)},
        )


class InvalidConditionError(RowmintError):
    """Conditions contradict each other, or a predicate does not apply to its column's type."""

    reason = Reason.INVALID_CONDITION


class AcceptanceTooLowError(RowmintError):
    """The candidate budget was exhausted before enough rows satisfied the conditions.

    Args:
        message: Which predicate is satisfied too rarely, and its acceptance.
        found: Number of candidates that satisfied the conditions.
        candidates: Number of candidates drawn.
        row: Index of the row at which the stream stopped.
    """

    reason = Reason.ACCEPTANCE_TOO_LOW

    def __init__(self, message: str, *, found: int, candidates: int, row: int) -> None:
        super().__init__(message, metadata={"found": str(found), "candidates": str(candidates), "next_row": str(row)})


class RowRangeError(RowmintError):
    """A row index lies outside the stream, or is not a multiple of the grid where it must be.

    Args:
        message: What is wrong with it and what is allowed.
        field: Field of the request that contains it, or empty if it is not in a single field.
        metadata: The same facts for programs.
    """

    reason = Reason.ROW_RANGE

    def __init__(self, message: str, *, field: str = "", metadata: Mapping[str, str] | None = None) -> None:
        violations = [FieldViolation(field, message)] if field else []
        super().__init__(f"{field}: {message}" if field else message, metadata=metadata, violations=violations)


class LimitError(RowmintError):
    """A limit was exceeded; the message names its setting."""

    reason = Reason.LIMIT


class DataLossError(RowmintError):
    """Stored bytes are corrupt or do not match the registry."""

    reason = Reason.DATA_LOSS


class UnavailableError(RowmintError):
    """A dependency of the service is temporarily unreachable."""

    reason = Reason.UNAVAILABLE


class CancelledError(RowmintError):
    """The call or job was cancelled."""

    reason = Reason.CANCELLED


class TrainingFailedError(RowmintError):
    """Training failed."""

    reason = Reason.TRAINING_FAILED


class StreamMismatchError(RowmintError):
    """The digests of a resumed stream do not match the current model or plan."""

    reason = Reason.STREAM_MISMATCH


class UnauthenticatedError(RowmintError):
    """The caller's credentials are missing or invalid."""

    reason = Reason.UNAUTHENTICATED


class PermissionDeniedError(RowmintError):
    """The caller lacks the required role in this project."""

    reason = Reason.PERMISSION_DENIED


class UntrustedModelError(RowmintError):
    """A version has no valid signature of a trusted key."""

    reason = Reason.UNTRUSTED_MODEL
