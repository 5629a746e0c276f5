"""How the calls of fake services fail: a status with our details, and when."""

from dataclasses import dataclass

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2


def status_trailer(code, reason, message, *, metadata=(), violations=(), retry_after=None, domain="rowmint"):
    details = [error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=dict(metadata))]
    if violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field=name, description=text)
                    for name, text in violations
                ]
            )
        )
    if retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(retry_after * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return (("grpc-status-details-bin", status.SerializeToString()),)


def refuse(context, code, reason, message, **details):
    context.set_trailing_metadata(status_trailer(code, reason, message, **details))
    context.abort(code, message)


@dataclass
class Cut:
    """How one call fails, after `after` data messages."""

    after: int
    kind: str = "abort"  # abort, refuse, crc, gap, silent, early, kill
    code: grpc.StatusCode = grpc.StatusCode.INTERNAL
    reason: str = ""
    retry_after: float | None = None
