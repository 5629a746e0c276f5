"""Converters: messages to values and back, and every malformed field named."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from rowmint.conditions import AnyOf, IsNull, Predicate, Range
from rowmint.errors import InvalidFieldError
from rowmint.rpc import converters
from rowmint.schema import ColumnKind, ColumnSpec, DataType, Domain, TableSchema
from rowmint.v1 import condition_pb2, schema_pb2, value_pb2

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PRESENT = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXT,
    st.decimals(allow_nan=False, allow_infinity=False, places=3),
    st.dates(),
    st.datetimes(),
    st.datetimes(timezones=st.just(UTC)),
)
CELLS = st.one_of(st.none(), PRESENT)
DOMAINS = st.builds(
    Domain,
    categories=st.lists(PRESENT, max_size=4).map(tuple),
    minimum=CELLS,
    maximum=CELLS,
    decimals=st.one_of(st.none(), st.integers(0, 15)),
    nullable=st.sampled_from([None, False, True]),
)
COLUMNS = st.builds(
    ColumnSpec,
    name=TEXT,
    kind=st.one_of(st.none(), st.sampled_from(ColumnKind)),
    data_type=st.one_of(st.none(), st.sampled_from(DataType)),
    domain=DOMAINS,
    datetime_format=TEXT,
    time_zone=TEXT,
    id_pattern=TEXT,
)
SCHEMAS = st.lists(COLUMNS, max_size=3, unique_by=lambda column: column.name).flatmap(
    lambda columns: st.builds(
        TableSchema, st.just(tuple(columns)), st.sampled_from(["", *(column.name for column in columns)])
    )
)
TESTS = st.one_of(
    st.builds(AnyOf, st.lists(CELLS, min_size=1, max_size=4).map(tuple)),
    st.builds(Range, CELLS, CELLS, st.booleans(), st.booleans()),
    st.builds(IsNull, st.booleans()),
)
PREDICATES = st.lists(st.builds(Predicate, TEXT.filter(bool), TESTS), max_size=4)


@given(CELLS)
def test_a_cell_comes_back(cell):
    back = converters.value_to_cell(converters.cell_to_value(cell), "f")
    assert back == cell
    assert type(back) is type(cell)


@settings(deadline=None)
@given(SCHEMAS)
def test_a_schema_comes_back(schema):
    message = converters.schema_to_proto(schema)
    assert converters.schema_from_proto(schema_pb2.TableSchema.FromString(message.SerializeToString())) == schema


@settings(deadline=None)
@given(PREDICATES)
def test_predicates_come_back(predicates):
    message = converters.where_to_proto(predicates)
    assert converters.predicates_from_proto(condition_pb2.Where.FromString(message.SerializeToString())) == predicates


@settings(deadline=None)
@given(PREDICATES)
def test_a_message_comes_back(predicates):
    message = converters.where_to_proto(predicates)
    assert converters.where_to_proto(converters.predicates_from_proto(message)) == message


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(timezone(timedelta(hours=5)))))  # noqa: DTZ001
def test_an_instant_comes_back_in_utc(moment):
    value = converters.cell_to_value(moment)
    assert value.timestamp_value.endswith("Z")
    assert converters.value_to_cell(value, "f") == moment


def test_every_enum_value_has_a_partner():
    types = set(schema_pb2.DataType.values()) - {schema_pb2.DATA_TYPE_UNSPECIFIED}
    assert set(converters.DATA_TYPES) == set(DataType)
    assert set(converters.DATA_TYPES.values()) == types
    kinds = set(schema_pb2.ColumnKind.values()) - {schema_pb2.COLUMN_KIND_UNSPECIFIED}
    assert set(converters.COLUMN_KINDS) == set(ColumnKind)
    assert set(converters.COLUMN_KINDS.values()) == kinds
    for data_type, number in converters.DATA_TYPES.items():
        assert schema_pb2.DataType.Name(number) == f"DATA_TYPE_{data_type.name}"
    for kind, number in converters.COLUMN_KINDS.items():
        assert schema_pb2.ColumnKind.Name(number) == f"COLUMN_KIND_{kind.name}"
        assert converters.kind_from_proto(number, "f") is kind
    assert converters.kind_from_proto(0, "f") is None


def test_every_kind_of_value_is_read():
    kinds = {field.name for field in value_pb2.Value.DESCRIPTOR.oneofs_by_name["kind"].fields}
    examples = [None, True, 1, 1.5, "x", Decimal("1.5"), date(2013, 1, 1), datetime(2013, 1, 1, tzinfo=UTC)]
    assert {converters.cell_to_value(cell).WhichOneof("kind") for cell in examples} == kinds
    tests = {field.name for field in condition_pb2.Predicate.DESCRIPTOR.oneofs_by_name["test"].fields}
    predicates = [AnyOf((1,)), AnyOf((1, 2)), Range(1), IsNull()]
    where = converters.where_to_proto([Predicate("a", test) for test in predicates])
    assert {predicate.WhichOneof("test") for predicate in where.predicates} == tests


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
        converters.value_to_cell(value_pb2.Value(**value), "where.predicates[3].equals")
    assert [violation.field for violation in caught.value.violations] == ["where.predicates[3].equals"]


BAD = value_pb2.Value()
NULL = value_pb2.Value(null_value=True)


@pytest.mark.parametrize(
    ("predicate", "field"),
    [
        (condition_pb2.Predicate(), "column"),
        (condition_pb2.Predicate(column="a"), ""),
        (condition_pb2.Predicate(column="a", equals=BAD), "equals"),
        (
            condition_pb2.Predicate(
                column="a", any_of=condition_pb2.ValueSet(values=[value_pb2.Value(bool_value=True), BAD])
            ),
            "any_of.values[1]",
        ),
        (condition_pb2.Predicate(column="a", range=condition_pb2.ValueRange(minimum=BAD)), "range.minimum"),
        (condition_pb2.Predicate(column="a", range=condition_pb2.ValueRange(maximum=BAD)), "range.maximum"),
        (condition_pb2.Predicate(column="a", range=condition_pb2.ValueRange(minimum=NULL)), "range.minimum"),
    ],
)
def test_a_malformed_predicate_names_its_path(predicate, field):
    where = condition_pb2.Where(predicates=[condition_pb2.Predicate(column="fine", is_null=True), predicate])
    with pytest.raises(InvalidFieldError) as caught:
        converters.predicates_from_proto(where, "sample.where")
    path = "sample.where.predicates[1]" + (f".{field}" if field else "")
    assert [violation.field for violation in caught.value.violations] == [path]


@pytest.mark.parametrize(
    ("column", "field"),
    [
        ({"kind": 99}, "kind"),
        ({"data_type": 99}, "data_type"),
        ({"domain": schema_pb2.ColumnDomain(categories=[BAD])}, "domain.categories[0]"),
        ({"domain": schema_pb2.ColumnDomain(minimum=BAD)}, "domain.minimum"),
        ({"domain": schema_pb2.ColumnDomain(maximum=BAD)}, "domain.maximum"),
    ],
)
def test_a_malformed_column_names_its_path(column, field):
    schema = schema_pb2.TableSchema(
        columns=[schema_pb2.ColumnSpec(name="fine"), schema_pb2.ColumnSpec(name="a", **column)]
    )
    with pytest.raises(InvalidFieldError) as caught:
        converters.schema_from_proto(schema, "dataset.schema")
    assert [violation.field for violation in caught.value.violations] == [f"dataset.schema.columns[1].{field}"]


def test_an_explicit_default_is_kept():
    domain = schema_pb2.ColumnDomain(decimals=0, nullable=False)
    column = converters.column_from_proto(schema_pb2.ColumnSpec(name="a", domain=domain), "c")
    assert column.domain == Domain(decimals=0, nullable=False)
    message = converters.column_to_proto(column)
    assert (message.domain.HasField("decimals"), message.domain.HasField("nullable")) == (True, True)
    empty = converters.column_to_proto(ColumnSpec("a"))
    assert (empty.domain.HasField("decimals"), empty.domain.HasField("nullable")) == (False, False)


def test_moments():
    assert converters.timestamp(None) is None
    moment = datetime(2013, 1, 1, 5, tzinfo=UTC)
    assert converters.timestamp(moment) == Timestamp(seconds=1_357_016_400)
