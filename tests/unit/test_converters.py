"""Converters: messages to values and back, and every malformed field named."""

from datetime import UTC, datetime

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from rowmint.conditions import AnyOf, IsNull, NoneOf, Predicate, Range, WeightedTest, Weights
from rowmint.errors import InvalidFieldError
from rowmint.rpc import converters
from rowmint.rpc.predicates import predicates_from_proto, weights_from_proto
from rowmint.rpc.values import cell_to_value
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
WEIGHTS = st.builds(
    Weights,
    TEXT.filter(bool),
    st.lists(st.builds(WeightedTest, TESTS, st.floats(allow_nan=False)), max_size=4).map(tuple),
)
PREDICATES = st.lists(st.builds(Predicate, TEXT.filter(bool), TESTS), max_size=4)


def where_message(predicates):
    """Return the message of predicates, as a client may write it."""
    where = condition_pb2.Where()
    for predicate in predicates:
        message = where.predicates.add(column=predicate.column)
        match predicate.test:
            case AnyOf((cell,)):
                message.equals.CopyFrom(cell_to_value(cell))
            case AnyOf(cells):
                message.any_of.values.extend(map(cell_to_value, cells))
            case NoneOf(cells):
                message.none_of.values.extend(map(cell_to_value, cells))
            case IsNull(null):
                message.is_null = null
            case Range():
                write_range(predicate.test, message.range)
    return where


def write_range(test, message):
    """Write a range as a client may write it."""
    message.SetInParent()
    if test.minimum is not None:
        message.minimum.CopyFrom(cell_to_value(test.minimum))
    if test.maximum is not None:
        message.maximum.CopyFrom(cell_to_value(test.maximum))
    message.minimum_exclusive = test.minimum_exclusive
    message.maximum_exclusive = test.maximum_exclusive


def weights_message(weights):
    """Return the message of the weights of one column, as a client may write it."""
    message = condition_pb2.ColumnWeights(column=weights.column)
    for entry in weights.entries:
        written = message.entries.add(share=entry.share)
        match entry.test:
            case AnyOf(cells):
                written.any_of.values.extend(map(cell_to_value, cells))
            case IsNull(null):
                written.is_null = null
            case Range():
                write_range(entry.test, written.range)
    return message


@settings(deadline=None)
@given(SCHEMAS)
def test_a_schema_is_restored(schema):
    message = schema_pb2.TableSchema.FromString(converters.schema_to_proto(schema).SerializeToString())
    columns = tuple(converters.column_from_proto(column, "c") for column in message.columns)
    assert TableSchema(columns, message.primary_key) == schema


@settings(deadline=None)
@given(PREDICATES)
def test_predicates_are_restored(predicates):
    message = condition_pb2.Where.FromString(where_message(predicates).SerializeToString())
    assert predicates_from_proto(message) == predicates


@settings(deadline=None)
@given(WEIGHTS)
def test_weights_are_restored(weights):
    where = condition_pb2.Where(weights=[weights_message(weights)])
    assert weights_from_proto(condition_pb2.Where.FromString(where.SerializeToString())) == weights


def test_no_weights_are_none_and_two_columns_too_many():
    assert weights_from_proto(condition_pb2.Where()) is None
    where = condition_pb2.Where(weights=[condition_pb2.ColumnWeights(column=name) for name in "ab"])
    with pytest.raises(InvalidFieldError, match=r"^sample.where.weights: are of 'a', 'b'; one column of a request may"):
        weights_from_proto(where, "sample.where")


def test_every_test_of_weights_is_read():
    tests = {field.name for field in condition_pb2.WeightedValues.DESCRIPTOR.oneofs_by_name["test"].fields}
    entries = tuple(WeightedTest(test, 1.0) for test in (AnyOf((1,)), Range(1), IsNull()))
    assert {entry.WhichOneof("test") for entry in weights_message(Weights("a", entries)).entries} == tests


@pytest.mark.parametrize(
    ("weights", "field"),
    [
        (condition_pb2.ColumnWeights(), "column"),
        (condition_pb2.ColumnWeights(column="a", entries=[condition_pb2.WeightedValues(share=1)]), "entries[0]"),
        (
            condition_pb2.ColumnWeights(
                column="a",
                entries=[
                    condition_pb2.WeightedValues(is_null=True),
                    condition_pb2.WeightedValues(any_of=condition_pb2.ValueSet(values=[value_pb2.Value()])),
                ],
            ),
            "entries[1].any_of.values[0]",
        ),
        (
            condition_pb2.ColumnWeights(
                column="a",
                entries=[
                    condition_pb2.WeightedValues(range=condition_pb2.ValueRange(minimum=value_pb2.Value())),
                ],
            ),
            "entries[0].range.minimum",
        ),
    ],
)
def test_malformed_weights_name_their_path(weights, field):
    with pytest.raises(InvalidFieldError) as caught:
        weights_from_proto(condition_pb2.Where(weights=[weights]), "sample.where")
    assert [violation.field for violation in caught.value.violations] == [f"sample.where.weights[0].{field}"]


def test_every_kind_of_column_has_a_partner():
    kinds = set(schema_pb2.ColumnKind.values()) - {schema_pb2.COLUMN_KIND_UNSPECIFIED}
    assert set(converters.COLUMN_KINDS) == set(ColumnKind)
    assert set(converters.COLUMN_KINDS.values()) == kinds
    for kind, number in converters.COLUMN_KINDS.items():
        assert schema_pb2.ColumnKind.Name(number) == f"COLUMN_KIND_{kind.name}"
        assert converters.kind_from_proto(number, "f") is kind
    assert converters.kind_from_proto(0, "f") is None


def test_every_test_of_a_predicate_is_read():
    tests = {field.name for field in condition_pb2.Predicate.DESCRIPTOR.oneofs_by_name["test"].fields}
    predicates = (AnyOf((1,)), AnyOf((1, 2)), NoneOf((1,)), Range(1), IsNull())
    written = where_message([Predicate("a", test) for test in predicates])
    assert {predicate.WhichOneof("test") for predicate in written.predicates} == tests


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
        predicates_from_proto(where, "sample.where")
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
    with pytest.raises(InvalidFieldError) as caught:
        converters.column_from_proto(schema_pb2.ColumnSpec(name="a", **column), "dataset.columns[1]")
    assert [violation.field for violation in caught.value.violations] == [f"dataset.columns[1].{field}"]


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
