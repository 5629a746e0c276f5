"""Cells on the wire: to values and back, and every malformed value named."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowmint.client.completed_rows import CompletedRows
from rowmint.errors import InvalidFieldError
from rowmint.rpc import values
from rowmint.schema import DataType
from rowmint.v1 import sampling_pb2, schema_pb2, value_pb2

CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.decimals(allow_nan=False, allow_infinity=False, places=3),
    st.dates(),
    st.datetimes(),
    st.datetimes(timezones=st.just(UTC)),
)


@given(CELLS)
def test_a_cell_is_restored(cell):
    back = values.value_to_cell(values.cell_to_value(cell), "f")
    assert back == cell
    assert type(back) is type(cell)


def test_a_completed_row_has_texts_of_any_length():
    # A trainer may be set to take longer ones, and its models then make them.
    text = "x" * (values.MAX_TEXT + 1)
    row = sampling_pb2.CompletedRow(row=3, values=[values.cell_to_value(text)])
    assert CompletedRows(["note"]).read(row) == {"note": text}
    with pytest.raises(InvalidFieldError, match="at most 65536"):
        values.value_to_cell(values.cell_to_value(text), "f")


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(timezone(timedelta(hours=5)))))  # noqa: DTZ001
def test_an_instant_is_restored_in_utc(moment):
    value = values.cell_to_value(moment)
    assert value.timestamp_value.endswith("Z")
    assert values.value_to_cell(value, "f") == moment


def test_every_type_has_a_partner():
    types = set(schema_pb2.DataType.values()) - {schema_pb2.DATA_TYPE_UNSPECIFIED}
    assert set(values.DATA_TYPES) == set(DataType)
    assert set(values.DATA_TYPES.values()) == types
    for data_type, number in values.DATA_TYPES.items():
        assert schema_pb2.DataType.Name(number) == f"DATA_TYPE_{data_type.name}"
        assert values.data_type_from_proto(number, "f") is data_type
    assert values.data_type_from_proto(0, "f") is None
    with pytest.raises(InvalidFieldError, match="f: 99 is not a DataType"):
        values.data_type_from_proto(99, "f")


def test_every_kind_of_value_is_written():
    kinds = {field.name for field in value_pb2.Value.DESCRIPTOR.oneofs_by_name["kind"].fields}
    examples = [None, True, 1, 1.5, "x", Decimal("1.5"), date(2013, 1, 1), datetime(2013, 1, 1, tzinfo=UTC)]
    assert {values.cell_to_value(cell).WhichOneof("kind") for cell in examples} == kinds


@pytest.mark.parametrize(
    "cell", [float("nan"), float("-inf"), Decimal("Infinity"), 2**63, -(2**63) - 1, object(), b"x", [1]]
)
def test_what_is_not_a_cell_is_not_written(cell):
    with pytest.raises(ValueError, match=r"is not a finite number|does not fit|cannot be a cell"):
        values.cell_to_value(cell)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"double_value": float("nan")},
        {"double_value": float("inf")},
        {"string_value": "x" * 65_537},
        {"decimal_value": ""},
        {"decimal_value": "1e3"},
        {"decimal_value": "1,5"},
        {"decimal_value": "NaN"},
        {"decimal_value": "Infinity"},
        {"date_value": "2013-02-30"},
        {"date_value": "yesterday"},
        {"date_value": "20130228"},
        {"timestamp_value": "2013-01-01T25:00:00"},
        {"timestamp_value": ""},
        {"timestamp_value": "2013-01-01"},
        {"timestamp_value": "2013-01-01T05:00:00.1234567"},
        {"timestamp_value": "0001-01-01T00:00:00+14:00"},
        {"timestamp_value": "9999-12-31T23:59:59-01:00"},
    ],
)
def test_a_malformed_value_names_the_field(value):
    with pytest.raises(InvalidFieldError) as caught:
        values.value_to_cell(value_pb2.Value(**value), "where.predicates[3].equals")
    assert [violation.field for violation in caught.value.violations] == ["where.predicates[3].equals"]
