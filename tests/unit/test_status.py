"""The error table: every reason has a code, and a failed call says what a program and a person need."""

from base64 import b64encode
from urllib.parse import quote

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from rowmint import errors
from rowmint.errors import FieldViolation, InvalidFieldError, Reason, RowmintError
from rowmint.rpc import status
from rowmint.v1 import error_pb2

PREFIX = "ERROR_REASON_"


def _subclasses(cls):
    for subclass in cls.__subclasses__():
        if subclass.__module__ == errors.__name__:
            yield subclass
            yield from _subclasses(subclass)


def _unpack(found):
    trailers = dict(found.trailing_metadata)
    message = Status.FromString(trailers["grpc-status-details-bin"])
    unpacked = {}
    for packed in message.details:
        assert isinstance(packed, Any)
        for kind in (ErrorInfo, BadRequest, RetryInfo):
            if packed.Is(kind.DESCRIPTOR):
                unpacked[kind] = kind.FromString(packed.value)
    assert len(unpacked) == len(message.details)
    assert message.code == found.code.value[0]
    assert message.message == found.details
    return unpacked


def test_reasons_are_the_contracts():
    names = {name.removeprefix(PREFIX) for name in error_pb2.ErrorReason.keys()}  # noqa: SIM118 - no mapping
    assert {str(reason) for reason in Reason} == names - {"UNSPECIFIED"}
    assert [reason.name for reason in Reason] == [reason.value for reason in Reason]


def test_every_reason_has_a_code():
    assert set(status.CODES) == set(Reason)
    assert grpc.StatusCode.OK not in status.CODES.values()
    assert grpc.StatusCode.UNKNOWN not in status.CODES.values()


def test_every_reason_but_one_has_an_error_of_its_own():
    reasons = [cls.reason for cls in _subclasses(RowmintError)]
    assert len(set(reasons)) == len(reasons)
    assert set(Reason) - set(reasons) == {Reason.INTERNAL}
    assert RowmintError.reason is Reason.INTERNAL


@pytest.mark.parametrize("reason", Reason)
def test_every_status_carries_an_error_info(reason):
    error = RowmintError("what happened", metadata={"near": "a, b"})
    error.reason = reason
    found = status.to_status(error)
    assert (found.code, found.details) == (status.CODES[reason], "what happened")
    assert _unpack(found) == {ErrorInfo: ErrorInfo(reason=reason.value, domain="rowmint", metadata={"near": "a, b"})}
    assert status.trailers(error) == ()


def test_violations_become_a_bad_request():
    (violation,) = _unpack(status.to_status(InvalidFieldError("a.b", "is 0; must be 1")))[BadRequest].field_violations
    assert (violation.field, violation.description) == ("a.b", "is 0; must be 1")
    many = RowmintError("x", violations=[FieldViolation("a", "b"), FieldViolation("c", "d")])
    assert [entry.field for entry in _unpack(status.to_status(many))[BadRequest].field_violations] == ["a", "c"]


@pytest.mark.parametrize(
    ("seconds", "milliseconds", "pushback"), [(0.0, 0, "0"), (0.25, 250, "250"), (90.0, 90_000, "90000")]
)
def test_a_temporary_error_has_a_retry_delay(seconds, milliseconds, pushback):
    error = RowmintError("x", retry_after=seconds)
    assert _unpack(status.to_status(error))[RetryInfo].retry_delay.ToMilliseconds() == milliseconds
    assert status.trailers(error) == (("grpc-retry-pushback-ms", pushback),)


@given(st.text())
def test_a_message_travels_as_one_bounded_line(text):
    found = status.to_status(RowmintError(text * 50))
    assert "\n" not in found.details
    assert len(found.details) <= 2000
    _unpack(found)


@pytest.mark.parametrize("letter", ["x", "é", "日", "\U0001f600"])
def test_what_travels_fits_into_a_clients_metadata(letter):
    """Percent-encoded the message, in base64 the details: 8 KiB are taken by default."""
    long = letter * 2000
    error = RowmintError(
        long,
        metadata={f"key{number}": long for number in range(8)},
        violations=[FieldViolation(long, long) for _ in range(5)],
        retry_after=1.0,
    )
    found = status.to_status(error)
    details = dict(found.trailing_metadata)["grpc-status-details-bin"]
    assert len(quote(found.details)) + len(b64encode(details)) < 8192 - 512
    assert _unpack(found)[BadRequest].field_violations[0].field.startswith(letter)
