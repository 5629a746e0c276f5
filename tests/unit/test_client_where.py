"""Conditions: what people write, as typed messages."""

import re
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowmint.client.values import parse_value, typed_value
from rowmint.client.where import parse_where, where_message
from rowmint.errors import ColumnNotFoundError, InvalidConditionError
from rowmint.rpc.values import cell_to_value, value_to_cell
from rowmint.schema import cell_text
from rowmint.v1 import condition_pb2, schema_pb2, value_pb2

TYPES = {
    "flag": schema_pb2.DATA_TYPE_BOOL,
    "whole": schema_pb2.DATA_TYPE_INT64,
    "double": schema_pb2.DATA_TYPE_DOUBLE,
    "price": schema_pb2.DATA_TYPE_DECIMAL,
    "text": schema_pb2.DATA_TYPE_STRING,
    "a 'b' \"c\"=, (d)": schema_pb2.DATA_TYPE_STRING,
    "day": schema_pb2.DATA_TYPE_DATE,
    "local": schema_pb2.DATA_TYPE_TIMESTAMP,
    "zoned": schema_pb2.DATA_TYPE_TIMESTAMP,
}
SCHEMA = schema_pb2.TableSchema(
    columns=[
        schema_pb2.ColumnSpec(name=name, data_type=data_type, time_zone="UTC" if name == "zoned" else "")
        for name, data_type in TYPES.items()
    ]
)

CELLS = {
    schema_pb2.DATA_TYPE_BOOL: st.booleans(),
    schema_pb2.DATA_TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    schema_pb2.DATA_TYPE_DOUBLE: st.floats(allow_nan=False, allow_infinity=False),
    schema_pb2.DATA_TYPE_DECIMAL: st.decimals(allow_nan=False, allow_infinity=False, places=3),
    schema_pb2.DATA_TYPE_STRING: st.text(st.characters(exclude_categories=["Cs"])),
    schema_pb2.DATA_TYPE_DATE: st.dates(),
}


def cells(name):
    if name == "local":
        return st.datetimes()
    if name == "zoned":
        return st.datetimes(timezones=st.just(UTC))
    return CELLS[TYPES[name]]


@st.composite
def predicates(draw, name):
    column = {"column": name}
    value = cells(name).map(cell_to_value)
    kind = draw(st.sampled_from(["equals", "any_of", "is_null", "range"]))
    if kind == "equals":
        return condition_pb2.Predicate(**column, equals=draw(value))
    if kind == "any_of":
        members = draw(st.lists(value | st.just(value_pb2.Value(null_value=True)), min_size=1, max_size=4))
        return condition_pb2.Predicate(**column, any_of=condition_pb2.ValueSet(values=members))
    if kind == "is_null":
        return condition_pb2.Predicate(**column, is_null=draw(st.booleans()))
    low, high = draw(st.tuples(st.none() | value, st.none() | value).filter(any))
    bounds = condition_pb2.ValueRange(
        minimum=low,
        maximum=high,
        minimum_exclusive=low is not None and draw(st.booleans()),
        maximum_exclusive=high is not None and draw(st.booleans()),
    )
    return condition_pb2.Predicate(**column, range=bounds)


def written(where):
    """Return conditions as texts: one a test, two for a range with two bounds; all names and texts quoted."""
    texts = []
    for predicate in where.predicates:
        name = '"' + predicate.column.replace('"', '""') + '"'
        match predicate.WhichOneof("test"):
            case "is_null":
                texts.append(f"{name} is {'null' if predicate.is_null else 'not null'}")
            case "equals":
                texts.append(f"{name} = {written_value(predicate.equals)}")
            case "any_of":
                texts.append(f"{name} in ({', '.join(map(written_value, predicate.any_of.values))})")
            case "range":
                bounds = predicate.range
                if bounds.HasField("minimum"):
                    texts.append(f"{name} >{'=' * (not bounds.minimum_exclusive)} {written_value(bounds.minimum)}")
                if bounds.HasField("maximum"):
                    texts.append(f"{name} <{'=' * (not bounds.maximum_exclusive)} {written_value(bounds.maximum)}")
    return texts


def written_value(value):
    cell = value_to_cell(value, "v")
    if cell is None:
        return "null"
    text = cell_text(cell)
    return "'" + text.replace("'", "''") + "'" if isinstance(cell, str) else text


@given(st.data())
def test_texts_read_back_as_the_same_conditions(data):
    names = data.draw(st.lists(st.sampled_from(sorted(TYPES)), unique=True, max_size=4))
    where = condition_pb2.Where(predicates=[data.draw(predicates(name)) for name in names])
    actual = parse_where(written(where), SCHEMA)
    assert where == actual


@given(st.data())
def test_a_cell_read_back_from_the_wire_is_the_same_cell(data):
    name = data.draw(st.sampled_from(sorted(TYPES)))
    cell = data.draw(cells(name) | st.none())
    column = next(column for column in SCHEMA.columns if column.name == name)
    actual = value_to_cell(typed_value(cell, column), name)
    assert cell == actual
    assert type(cell) is type(actual)


def test_a_mapping_says_each_kind_of_test():
    where = where_message(
        {"text": "JFK", "whole": (60, None), "double": [1, 2.5], "price": None, "day": "2013-01-31"}, SCHEMA
    )
    value = value_pb2.Value
    expected = condition_pb2.Where(
        predicates=[
            condition_pb2.Predicate(column="text", equals=value(string_value="JFK")),
            condition_pb2.Predicate(column="whole", range=condition_pb2.ValueRange(minimum=value(int64_value=60))),
            condition_pb2.Predicate(
                column="double",
                any_of=condition_pb2.ValueSet(values=[value(double_value=1.0), value(double_value=2.5)]),
            ),
            condition_pb2.Predicate(column="price", is_null=True),
            condition_pb2.Predicate(column="day", equals=value(date_value="2013-01-31")),
        ]
    )
    assert expected == where


def test_equal_sets_make_equal_conditions():
    one = where_message({"text": {"b", "a", "c"}}, SCHEMA)
    other = where_message({"text": frozenset("cab")}, SCHEMA)
    assert one == other


ZONED = datetime(2013, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["text = JFK"], {"text": "JFK"}),
        (["text=New York, NY"], {"text": "New York, NY"}),
        (["whole >= 60", "whole<=90"], {"whole": (60, 90)}),
        (["text IN (AA, 'U,A',\"it's\")"], {"text": ["AA", "U,A", "it's"]}),
        (["text is  NULL"], {"text": None}),
        (["text = null"], {"text": None}),
        (["text = 'null'"], {"text": "null"}),
        (['"a \'b\' ""c""=, (d)" = x'], {"a 'b' \"c\"=, (d)": "x"}),
        (["whole == 5.0"], {"whole": 5}),
        (["double >= 1e3"], {"double": (1000.0, None)}),
        (["flag = TRUE"], {"flag": True}),
        (["price <= 12.50"], {"price": (None, Decimal("12.50"))}),
        (["local = 2013-01-01"], {"local": datetime(2013, 1, 1)}),  # noqa: DTZ001
        (["zoned >= 2013-01-01"], {"zoned": (ZONED, None)}),
        (["zoned = 2013-01-01T05:00:00+02:00"], {"zoned": ZONED.replace(hour=3)}),
        (["whole between 60 and 90"], {"whole": (60, 90)}),
        (["day BETWEEN 2013-01-01 AND '2013-02-01'"], {"day": (date(2013, 1, 1), date(2013, 2, 1))}),
        (["whole >= 60 and whole <= 90"], {"whole": (60, 90)}),
        (["text = JFK and whole between 1 and 2 and flag = true"], {"text": "JFK", "whole": (1, 2), "flag": True}),
        (["text in (a, b) and whole = 1"], {"text": ["a", "b"], "whole": 1}),
        (["text in (a, b)and whole = 1"], {"text": ["a", "b"], "whole": 1}),
        (["text is null and whole = 1"], {"text": None, "whole": 1}),
        (["text = 'x and y = 1' and whole = 1"], {"text": "x and y = 1", "whole": 1}),
        (["text = Research and Development"], {"text": "Research and Development"}),
        (["text = Research and Development and whole = 1"], {"text": "Research and Development", "whole": 1}),
        (["text = sand and whole = 1"], {"text": "sand", "whole": 1}),
        (["`a 'b' \"c\"=, (d)` = x"], {"a 'b' \"c\"=, (d)": "x"}),
    ],
)
def test_texts_are_understood(texts, expected):
    assert where_message(expected, SCHEMA) == parse_where(texts, SCHEMA)


def test_bounds_may_exclude_their_value_and_a_cell_may_be_required():
    value = value_pb2.Value
    bounds = condition_pb2.ValueRange(
        minimum=value(int64_value=60), minimum_exclusive=True, maximum=value(int64_value=90), maximum_exclusive=True
    )
    expected = condition_pb2.Where(
        predicates=[
            condition_pb2.Predicate(column="whole", range=bounds),
            condition_pb2.Predicate(column="text", is_null=False),
        ]
    )
    assert expected == parse_where(["whole > 60", "whole < 90", "text Is Not Null"], SCHEMA)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("text != JFK", ["JFK"]),
        ("text <> 'it''s'", ["it's"]),
        ("text not in (a, 'b,c')", ["a", "b,c"]),
        ("text NOT  IN (a)", ["a"]),
    ],
)
def test_values_may_be_excluded(text, values):
    excluded = condition_pb2.ValueSet(values=[value_pb2.Value(string_value=value) for value in values])
    expected = [condition_pb2.Predicate(column="text", none_of=excluded)]
    assert parse_where([text], SCHEMA) == condition_pb2.Where(predicates=expected)


def test_unequal_to_missing_is_present():
    expected = condition_pb2.Where(predicates=[condition_pb2.Predicate(column="text", is_null=False)])
    assert parse_where(["text != null"], SCHEMA) == expected


@pytest.mark.parametrize("name", ["build year", "a=b", "it's", 'the "x"', "and", "price, net", "größe (cm)"])
def test_a_name_that_needs_quotes_is_shown_with_them(name):
    schema = schema_pb2.TableSchema(columns=[schema_pb2.ColumnSpec(name=name, data_type="DATA_TYPE_INT64")])
    quoted = '"' + name.replace('"', '""') + '"'
    expected = parse_where([f"{quoted} = 24"], schema)
    assert expected.predicates[0].column == name
    if name not in ("and", "a=b"):
        with pytest.raises(InvalidConditionError, match=re.escape(f"has to be quoted: {quoted} = 24")):
            parse_where([f"{name} = 24"], schema)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "is not a condition"),
        ("text", "is not a condition"),
        ("text =", "a value is missing"),
        ("text = 'a' or whole = 1", "what follows is"),
        ("text = 'a' and", "is not a condition"),
        ("whole between 60", "two values"),
        ("whole between 60 and null", "missing cell"),
        ("text not in JFK", "parentheses"),
        ("text in (a", "parenthesis"),
        ("text in JFK", "parentheses"),
        ("text in ()", "a value is missing"),
        ("text in ('a' 'b')", "commas"),
        ("text in (a,,b)", "a value is missing"),
        ("text = 'open", "quotes"),
        ("whole = sixty", "integers"),
        ("whole > 60.5", "integers"),
        ("whole > null", "missing cell"),
        ("whole = 9223372036854775808", "integers"),
        ("double = nan", "write null"),
        ("flag = maybe", "true or false"),
        ("day = yesterday", "YYYY-MM-DD"),
        ("zoned = 2013-01-01T05:00:00", "needs an offset"),
        ("local = 2013-01-01T05:00:00Z", "must have no offset"),
    ],
)
def test_what_cannot_be_read_is_named(text, part):
    with pytest.raises(InvalidConditionError, match=part.replace("(", r"\(")):
        parse_where([text], SCHEMA)


def test_an_unknown_column_is_reported_with_similar_names():
    with pytest.raises(ColumnNotFoundError, match="did you mean 'whole'"):
        where_message({"wholes": 1}, SCHEMA)
    with pytest.raises(ColumnNotFoundError, match="did you mean 'text'"):
        parse_where(["texts = 1"], SCHEMA)


@pytest.mark.parametrize(
    "where",
    [
        {"whole": ()},
        {"whole": (None, None)},
        {"whole": (1, 2, 3)},
        {"whole": []},
        {"whole": True},
        {"whole": 1.5},
        {"text": 5},
        {"double": float("nan")},
        {"double": float("inf")},
        {"price": Decimal("Infinity")},
        {"day": datetime(2013, 1, 1)},  # noqa: DTZ001
        {"zoned": datetime(2013, 1, 1)},  # noqa: DTZ001
        {"flag": 1},
        {"whole": object()},
    ],
)
def test_a_mapping_that_makes_no_sense_is_refused(where):
    with pytest.raises(InvalidConditionError):
        where_message(where, SCHEMA)


def test_numbers_and_days_take_their_columns_type():
    columns = {column.name: column for column in SCHEMA.columns}
    assert value_pb2.Value(int64_value=60) == typed_value(60.0, columns["whole"])
    assert value_pb2.Value(double_value=60.0) == typed_value(60, columns["double"])
    assert value_pb2.Value(decimal_value="0.1") == typed_value(0.1, columns["price"])
    assert value_pb2.Value(timestamp_value="2013-01-31T00:00:00") == typed_value(date(2013, 1, 31), columns["local"])
    east = datetime(2013, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert value_pb2.Value(timestamp_value="2013-01-01T00:00:00Z") == typed_value(east, columns["zoned"])


def test_a_columns_own_datetime_format_is_read():
    column = schema_pb2.ColumnSpec(name="d", data_type=schema_pb2.DATA_TYPE_DATE, datetime_format="%d/%m/%Y")
    assert value_pb2.Value(date_value="2013-01-31") == parse_value("31/01/2013", column)


def test_where_no_type_is_known_a_cell_keeps_its_own():
    column = schema_pb2.ColumnSpec(name="c")
    assert value_pb2.Value(int64_value=5) == typed_value(5, column)
    assert value_pb2.Value(string_value="5") == typed_value("5", column)
    for cell in (object(), float("nan"), 2**63, Decimal("NaN")):
        with pytest.raises(InvalidConditionError):
            typed_value(cell, column)


def test_texts_are_read_in_the_form_of_their_column():
    def column(data_type, **form):
        return schema_pb2.ColumnSpec(name="c", data_type=data_type, written_form=schema_pb2.WrittenForm(**form))

    money = column(
        schema_pb2.DATA_TYPE_DOUBLE,
        number=schema_pb2.NumberForm(
            prefix="$", grouping=schema_pb2.GROUPING_THOUSANDS, group_separator=",", minimum_fraction_digits=2
        ),
    )
    for text in ("$5,786.95", "5786.95", "5,786.95", "$ 5786.95"):
        assert value_pb2.Value(double_value=5786.95) == parse_value(text, money)
    day = column(schema_pb2.DATA_TYPE_DATE, datetime=schema_pb2.DatetimeForm(pattern="%d.%m.%Y"))
    for text in ("08.10.2023", "8.10.2023", "2023-10-08"):
        assert value_pb2.Value(date_value="2023-10-08") == parse_value(text, day)
    flag = column(schema_pb2.DATA_TYPE_BOOL, boolean=schema_pb2.BooleanForm(true_text="ja", false_text="nein"))
    assert value_pb2.Value(bool_value=True) == parse_value("Ja", flag)
    assert value_pb2.Value(bool_value=False) == parse_value("false", flag)
    with pytest.raises(InvalidConditionError, match=r"'5,7' is not one; write it as '\$1,234\.37' is written"):
        parse_value("5,7", money)
