"""Parts of messages in bytes: as protobuf itself writes and reads them."""

import pytest

from rowmint.rpc.wire import after_varint, field, short_fields, varint
from rowmint.v1 import sampling_pb2

NUMBERS = [0, 1, 127, 128, 300, 16_383, 16_384, 2**31, 2**63 - 1]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_is_written_as_protobuf_does(number):
    assert sampling_pb2.CompletedRow.FromString(b"\x08" + varint(number)) == sampling_pb2.CompletedRow(row=number)
    data = b"\x08" + varint(number) + b"\xff"
    assert after_varint(data, 1) == len(data) - 1


@pytest.mark.parametrize("length", [0, 1, 127, 128, 20_000])
def test_a_text_is_written_as_protobuf_does(length):
    config = sampling_pb2.CompleteRowsConfig(model="x" * length)
    assert sampling_pb2.CompleteRowsConfig.FromString(field(b"\x0a", b"x" * length)) == config


def test_fields_are_cut_out_up_to_one_that_is_long_or_anothers():
    short = [field(b"\x12", b"x" * length) for length in (0, 1, 127)]
    joined = b"".join(short)
    assert short_fields(joined, 0x12) == short
    assert short_fields(b"\x08\x01" + joined, 0x12, 2) == short
    assert short_fields(joined + field(b"\x12", b"x" * 128) + short[0], 0x12) == short
    assert short_fields(joined + b"\x28\x01" + short[0], 0x12) == short
    assert short_fields(b"", 0x12) == []
