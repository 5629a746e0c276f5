"""The error of a failed call, read from its status and its `google.rpc` details."""

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from rowmint.errors import FieldViolation, Reason

DOMAIN = "rowmint"
_DETAILS = "grpc-status-details-bin"
_TOO_LARGE = "larger than max"
# Not retried, even where the answer came from something that is not one of our services.
_PERMANENT = frozenset(
    {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
)


class RowmintCallError(Exception):
    """A call that a service refused, or that never reached one.

    Attributes:
        code: The gRPC status code.
        reason: A name of `rowmint.v1.ErrorReason` without its prefix; empty where none of our services answered.
        message: What happened, where, and what to do next; one line.
        metadata: The same facts, for programs.
        violations: Fields of the request that are wrong.
        retry_after: Seconds after which the same call may succeed, or None where the service gave none.
        attempts: Number of the attempt that failed with it, from 1.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Iterable[FieldViolation] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after = retry_after
        self.attempts = 1

    def __str__(self) -> str:
        return f"{self.message} ({self.reason or self.code.name})"

    @property
    def retryable(self) -> bool:
        """Whether another attempt may succeed.

        A failure without a reason of ours counts as the network's: a proxy reports a killed replica as INTERNAL.
        """
        if self.reason:
            return self.reason == Reason.UNAVAILABLE or self.retry_after is not None
        # The transport refuses a message that is too large before any service sees it.
        if self.code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in self.message:
            return False
        return self.code not in _PERMANENT

    def given_up(self, attempts: int) -> "RowmintCallError":
        """Return the same error, its message saying that `attempts` attempts made no progress."""
        return RowmintCallError(
            self.code,
            f"{self.message}; given up after {attempts} attempts without progress",
            reason=self.reason,
            metadata=self.metadata,
            violations=self.violations,
            retry_after=self.retry_after,
        )


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _transport_message(code: grpc.StatusCode, details: str, peer: str) -> str:
    details = _one_line(details) or "no details"
    if code is grpc.StatusCode.UNAVAILABLE:
        return f"no answer from {peer}: {details}; is `rowmint serve` running there, and is the address right?"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"{peer} did not answer in time: {details}; try again, or allow more time"
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in details:
        return (
            f"{peer} accepts no message of that size: {details}; request less at once, or raise"
            " ROWMINT_MAX_MESSAGE_BYTES there"
        )
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return f"{peer} does not offer this call: {details}; are the trainer's and sampler's addresses mixed up?"
    return f"the call to {peer} failed: {details}"


@dataclass
class _Details:
    """The details of a status that we use."""

    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: list[FieldViolation] = field(default_factory=list)
    retry_after: float | None = None

    def read(self, detail: Any) -> None:
        """Read one `google.protobuf.Any`."""
        info = error_details_pb2.ErrorInfo()
        bad = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            if info.domain == DOMAIN:
                self.reason, self.metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad):
            self.violations.extend(FieldViolation(one.field, one.description) for one in bad.field_violations)
        elif detail.Unpack(retry):
            self.retry_after = retry.retry_delay.ToTimedelta().total_seconds()


def _read_details(error: Any) -> _Details:
    found = _Details()
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS and isinstance(value, bytes):
            # A proxy may write anything into the trailer.
            with contextlib.suppress(DecodeError):
                for detail in status_pb2.Status.FromString(value).details:
                    found.read(detail)
    return found


def call_error(error: grpc.RpcError, peer: str) -> RowmintCallError:
    """Return the error of a failed call of `peer`.

    Args:
        error: What gRPC raised.
        peer: The service and address that was called, for the message.
    """
    # Every RpcError that a channel raises is also the call; its type does not show it.
    call: Any = error
    if not hasattr(call, "code"):
        return RowmintCallError(grpc.StatusCode.UNKNOWN, f"the call to {peer} failed: {_one_line(str(error))}")
    code: grpc.StatusCode = call.code()
    details: str = call.details() or ""
    found = _read_details(call)
    message = _one_line(details) if found.reason else _transport_message(code, details, peer)
    unsaid = [one for one in found.violations if one.description not in message]
    if unsaid:
        message += "; " + "; ".join(f"{one.field}: {one.description}" for one in unsaid)
    return RowmintCallError(
        code,
        message,
        reason=found.reason,
        metadata=found.metadata,
        violations=found.violations,
        retry_after=found.retry_after,
    )
