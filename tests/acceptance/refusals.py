"""What a refused call says."""

from collections.abc import Callable
from dataclasses import dataclass

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpc_status import rpc_status


@dataclass(frozen=True)
class Refusal:
    """A failed call: status code and reason by name, the message, the metadata, and the fields at fault."""

    code: str
    reason: str
    message: str
    metadata: dict[str, str]
    fields: list[str]

    @property
    def kind(self) -> tuple[str, str]:
        return self.code, self.reason


def refused(call: Callable[..., object], *arguments: object) -> Refusal:
    """Make a call that must fail with a `rowmint` error of one plain line, and return what it says."""
    with pytest.raises(grpc.RpcError) as raised:
        call(*arguments)
    status = rpc_status.from_call(raised.value)
    assert status is not None, raised.value
    info, fields = ErrorInfo(), []
    for detail in status.details:
        bad = BadRequest()
        if detail.Unpack(bad):
            fields += [violation.field for violation in bad.field_violations]
        detail.Unpack(info)
    assert info.domain == "rowmint", status
    assert status.message
    assert "\n" not in status.message
    return Refusal(raised.value.code().name, info.reason, status.message, dict(info.metadata), fields)
