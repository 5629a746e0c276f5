"""Weights: what people write, as typed messages."""

import math
import re
from datetime import date

import pytest

from rowmint.client import Client
from rowmint.client.weights import weights_messages
from rowmint.errors import ColumnNotFoundError, InvalidConditionError
from rowmint.rpc.values import cell_to_value
from rowmint.v1 import condition_pb2, model_pb2, schema_pb2

COLUMNS = {
    "income": (schema_pb2.COLUMN_KIND_CATEGORICAL, schema_pb2.DATA_TYPE_STRING),
    "build year": (schema_pb2.COLUMN_KIND_NUMERICAL, schema_pb2.DATA_TYPE_INT64),
    "age": (schema_pb2.COLUMN_KIND_NUMERICAL, schema_pb2.DATA_TYPE_INT64),
    "rate": (schema_pb2.COLUMN_KIND_NUMERICAL, schema_pb2.DATA_TYPE_DOUBLE),
    "day": (schema_pb2.COLUMN_KIND_DATETIME, schema_pb2.DATA_TYPE_DATE),
    "at": (schema_pb2.COLUMN_KIND_DATETIME, schema_pb2.DATA_TYPE_TIMESTAMP),
    "grade": (schema_pb2.COLUMN_KIND_CATEGORICAL, schema_pb2.DATA_TYPE_INT64),
    "a=b": (schema_pb2.COLUMN_KIND_CATEGORICAL, schema_pb2.DATA_TYPE_STRING),
}
SCHEMA = schema_pb2.TableSchema(
    columns=[
        schema_pb2.ColumnSpec(name=name, kind=kind, data_type=data_type) for name, (kind, data_type) in COLUMNS.items()
    ]
)
Entry = condition_pb2.WeightedValues


def held(*cells, share):
    return Entry(any_of=condition_pb2.ValueSet(values=map(cell_to_value, cells)), share=share)


def between(low, high, share):
    bounds = condition_pb2.ValueRange(maximum_exclusive=high is not None)
    if low is not None:
        bounds.minimum.CopyFrom(cell_to_value(low))
    if high is not None:
        bounds.maximum.CopyFrom(cell_to_value(high))
    return Entry(range=bounds, share=share)


CASES = [
    (
        "income = <=50K:50, >50K:50",
        {"income": {"<=50K": 50, ">50K": 50}},
        "income",
        [held("<=50K", share=50), held(">50K", share=50)],
    ),
    (
        "age=..30:1,30..60:2.5,60..:1e-3,null:4",
        {"age": {(None, 30): 1, (30, 60): 2.5, (60, None): 1e-3, None: 4}},
        "age",
        [between(None, 30, 1), between(30, 60, 2.5), between(60, None, 1e-3), Entry(is_null=True, share=4)],
    ),
    (
        "build year = 1990 | 1991 :20%, '1992':80 %",
        {"build year": {frozenset({1990, 1991}): 20, 1992: "80"}},
        "build year",
        [held(1990, 1991, share=20), held(1992, share=80)],
    ),
    (
        "rate=-1.5...5:1",
        {"rate": {(-1.5, 0.5): 1}},
        "rate",
        [between(-1.5, 0.5, 1)],
    ),
    (
        "day = 2013-01-01..2013-02-01:1, 2013-03-01:2",
        {"day": {(date(2013, 1, 1), "2013-02-01"): 1, date(2013, 3, 1): 2}},
        "day",
        [between(date(2013, 1, 1), date(2013, 2, 1), 1), held(date(2013, 3, 1), share=2)],
    ),
    (
        "income = 'a, b|c:d..e''f':1, \"null\":2, it's..:3",
        {"income": {"a, b|c:d..e'f": 1, "null": 2, "it's..": 3}},
        "income",
        [held("a, b|c:d..e'f", share=1), held("null", share=2), held("it's..", share=3)],
    ),
    (
        '"a=b" = x=y:1, z|null:2',
        {"a=b": {"x=y": 1, frozenset({"z", None}): 2}},
        "a=b",
        [held("x=y", share=1), held("z", None, share=2)],
    ),
    ("`grade`=3:1", {"grade": {3: True}}, "grade", [held(3, share=1)]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "mapping", "column", "entries"), CASES)
def test_texts_and_mappings_say_the_same(text, mapping, column, entries):
    expected = [condition_pb2.ColumnWeights(column=column, entries=entries)]
    assert weights_messages(text, SCHEMA) == expected
    assert weights_messages(mapping, SCHEMA) == expected


def test_times_with_colons_end_at_the_last():
    (found,) = weights_messages("at = 2013-01-01T05:00:00..2013-01-01T06:30:00:7, 2013-01-02T00:00:00:1", SCHEMA)
    values = [found.entries[0].range.minimum, found.entries[0].range.maximum, found.entries[1].any_of.values[0]]
    assert [value.timestamp_value for value in values] == [
        "2013-01-01T05:00:00",
        "2013-01-01T06:30:00",
        "2013-01-02T00:00:00",
    ]
    assert [entry.share for entry in found.entries] == [7, 1]


def test_nothing_states_nothing_and_several_columns_are_several_messages():
    assert [weights_messages(nothing, SCHEMA) for nothing in (None, {}, [])] == [[], [], []]
    assert [one.column for one in weights_messages(["age=1:1", "income=x:1"], SCHEMA)] == ["age", "income"]
    assert [one.column for one in weights_messages({"age": {1: 1}, "income": {"x": 1}}, SCHEMA)] == ["age", "income"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("age", "it begins with no column"),
        ("=3:1", "it begins with no column"),
        ("age=30", "a value has no share"),
        ("age=30:", "a value has no share"),
        ("age=30:1,", "a value has no share"),
        ("age=", "a value has no share"),
        ("age=:1", "a value is missing"),
        ("age=1|:1", "a value is missing"),
        ("age=..:1", "a range has no bound"),
        ("age=1..null:1", "a range is bounded by a missing cell"),
        ("age=1..2|5:1", "a range stands alone"),
        ("age=5|1..2:1", "a range stands alone"),
        ("income='x'y:1", "'y' follows a quoted value"),
        ("age=3:x", "a share of column 'age' is 'x'; it must be a positive number"),
        ("age=3:0", "a share of column 'age' is '0'"),
        ("age=3:nan", "a share of column 'age' is 'nan'"),
        ("age=x:1", "holds integers; 'x' is not one"),
        ("grade=1..2:1", "holds integers; '1..2' is not one"),
    ],
)
def test_texts_that_state_no_weights(text, problem):
    with pytest.raises(InvalidConditionError, match=re.escape(problem)):
        weights_messages(text, SCHEMA)


@pytest.mark.parametrize(
    "weights",
    [
        {"age": 3},
        {"age": [1, 2]},
        {"age": {3: 0}},
        {"age": {3: math.inf}},
        {"age": {3: None}},
        {"age": {(1, 2, 3): 1}},
        {"age": {(None, None): 1}},
        {"age": {"x": 1}},
    ],
)
def test_mappings_that_state_no_weights(weights):
    with pytest.raises(InvalidConditionError, match="'age'"):
        weights_messages(weights, SCHEMA)


def test_unknown_columns_are_named_with_near_ones():
    for weights in ("incme=x:1", {"incme": {"x": 1}}):
        with pytest.raises(ColumnNotFoundError, match="did you mean 'income'"):
            weights_messages(weights, SCHEMA)


@pytest.mark.parametrize("weights", [None, "", [], {}])
def test_what_is_empty_states_no_weights(weights):
    assert weights_messages(weights, SCHEMA) == []


def test_weights_are_requested_of_models_alone_that_meet_conditions_exactly():
    support = {"ctgan": model_pb2.CONDITION_SUPPORT_REJECTION, "circuit": model_pb2.CONDITION_SUPPORT_EXACT}
    with Client("127.0.0.1:1", "127.0.0.1:1") as client:
        for family, conditions in support.items():
            version = model_pb2.ModelVersion(
                name=f"projects/default/models/people/versions/{len(family)}",
                family=family,
                schema=SCHEMA,
                capabilities=model_pb2.Capabilities(conditions=conditions),
            )
            assert not client.sample_request(version, 5, where="age > 3").where.weights
            if family == "circuit":
                assert len(client.sample_request(version, 5, weights="age=3:1").where.weights) == 1
                continue
            with pytest.raises(InvalidConditionError, match="of family ctgan, which meets conditions by rejection"):
                client.sample_request(version, 5, weights="age=3:1")
