"""Mapping of domain errors to gRPC status codes and error details (AIP-193)."""

import re
from collections.abc import Mapping

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from rowmint.errors import Reason, RowmintError

DOMAIN = "rowmint"
"""The `domain` of every ErrorInfo."""

CODES: Mapping[Reason, grpc.StatusCode] = {
    Reason.INVALID_FIELD: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.REQUEST_ID_REUSED: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.RESOURCE_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.RESOURCE_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    Reason.WRONG_STATE: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.EMPTY_STREAM: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.WRITE_OFFSET: grpc.StatusCode.OUT_OF_RANGE,
    Reason.CHECKSUM: grpc.StatusCode.DATA_LOSS,
    Reason.DIGEST_MISMATCH: grpc.StatusCode.DATA_LOSS,
    Reason.FENCED: grpc.StatusCode.ABORTED,
    Reason.INVALID_DATA: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.COLUMN_NOT_FOUND: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.VALUE_NOT_FOUND: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.INVALID_CONDITION: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.ACCEPTANCE_TOO_LOW: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.ROW_RANGE: grpc.StatusCode.OUT_OF_RANGE,
    Reason.LIMIT: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.DATA_LOSS: grpc.StatusCode.DATA_LOSS,
    Reason.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.CANCELLED: grpc.StatusCode.CANCELLED,
    Reason.INTERNAL: grpc.StatusCode.INTERNAL,
    Reason.TRAINING_FAILED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.STREAM_MISMATCH: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Reason.PERMISSION_DENIED: grpc.StatusCode.PERMISSION_DENIED,
    Reason.UNTRUSTED_MODEL: grpc.StatusCode.FAILED_PRECONDITION,
}


def to_status(error: RowmintError) -> grpc.Status:
    """Return the status of a domain error: code, message, ErrorInfo, and BadRequest or RetryInfo where they apply.

    All of it is sent in trailers, of which a client accepts 8 KiB, the message percent-encoded and the details in
    base64: texts that may quote the request are truncated.
    """
    metadata = {name: _truncated(text, 200) for name, text in list(error.metadata.items())[:8]}
    packed = [_pack(ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata))]
    if error.violations:
        violations = [
            BadRequest.FieldViolation(
                field=_truncated(violation.field, 200), description=_truncated(violation.description, 300)
            )
            for violation in error.violations[:3]
        ]
        packed.append(_pack(BadRequest(field_violations=violations)))
    if error.retry_after is not None:
        packed.append(_pack(RetryInfo(retry_delay=_seconds(error.retry_after))))
    code = CODES[error.reason]
    message = _truncated(re.sub(r"\s+", " ", error.message), 600)
    return rpc_status.to_status(Status(code=code.value[0], message=message, details=packed))


def trailers(error: RowmintError) -> tuple[tuple[str, str], ...]:
    """Return additional trailers: gRPC's built-in retries use the pushback trailer, not the RetryInfo."""
    if error.retry_after is None:
        return ()
    return (("grpc-retry-pushback-ms", str(int(error.retry_after * 1000))),)


def _truncated(text: str, most: int) -> str:
    """Return `text`, truncated to at most `most` bytes of UTF-8."""
    raw = text.encode("utf-8", "replace")
    return text if len(raw) <= most else raw[: most - 3].decode("utf-8", "ignore") + "..."


def _pack(message: ErrorInfo | BadRequest | RetryInfo) -> Any:
    packed = Any()
    packed.Pack(message)
    return packed


def _seconds(value: float) -> Duration:
    duration = Duration()
    duration.FromMicroseconds(int(value * 1_000_000))
    return duration
