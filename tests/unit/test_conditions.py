"""Conditions against a slow oracle on cells; equivalent ones have one canonical form."""

import itertools
import math
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import numpy as np
import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from rowmint.conditions import MAX_PREDICATES, MAX_VALUES, AnyOf, IsNull, NoneOf, Predicate, Range, canonical
from rowmint.errors import ColumnNotFoundError, InvalidConditionError, InvalidFieldError, ValueNotFoundError
from rowmint.schema import ColumnKind, ColumnSpec, DataType, Domain, TableSchema
from rowmint.schema.arrays import ColumnArray, is_coded, native_number
from rowmint.schema.forms import BooleanForm, DatetimeForm, Grouping, NumberForm, WrittenForm

NOON = datetime(2013, 1, 1, 12)  # noqa: DTZ001 - a local time
NOON_UTC = NOON.replace(tzinfo=UTC)
BERLIN_WINTER = timezone(timedelta(hours=1))


def _ordered(name, kind, data_type, cells, **more):
    decimals = more.pop("decimals", None)
    domain = Domain(minimum=min(cells), maximum=max(cells), decimals=decimals)
    return ColumnSpec(name, kind, data_type, domain, **more), list(cells)


def _coded(name, kind, data_type, cells):
    return ColumnSpec(name, kind, data_type, Domain(categories=tuple(cells))), list(cells)


# Every value a column takes: what no cell here satisfies can never be satisfied, save for the doubles and instants.
UNIVERSES = {
    column.name: (column, cells)
    for column, cells in [
        _ordered("int", ColumnKind.NUMERICAL, DataType.INT64, range(-6, 7)),
        _ordered(
            "decimal", ColumnKind.NUMERICAL, DataType.DECIMAL, [Decimal(n) / 10 for n in range(-12, 13)], decimals=1
        ),
        _ordered("date", ColumnKind.DATETIME, DataType.DATE, [date(2013, 1, day) for day in range(1, 15)]),
        _ordered(
            "double", ColumnKind.NUMERICAL, DataType.DOUBLE, [-2.0, -0.3, -5e-324, 0.0, 0.1, 0.3, 1.0, 2.5, 1e300]
        ),
        _ordered("local", ColumnKind.DATETIME, DataType.TIMESTAMP, [NOON + n * timedelta(minutes=7) for n in range(9)]),
        _ordered(
            "zoned",
            ColumnKind.DATETIME,
            DataType.TIMESTAMP,
            [NOON_UTC + n * timedelta(minutes=7) for n in range(9)],
            time_zone="Europe/Berlin",
        ),
        _coded("text", ColumnKind.CATEGORICAL, DataType.STRING, ["x", "", "Zürich", "1", "true"]),
        _coded("grade", ColumnKind.CATEGORICAL, DataType.INT64, [3, 1, 2, 0]),
        _coded("flag", ColumnKind.BOOLEAN, DataType.BOOL, [False, True]),
    ]
}
COMPLETE = {"int", "decimal", "date", "text", "grade", "flag"}
NUMBERS = st.one_of(
    st.integers(-8, 8),
    st.sampled_from([2**62, -(2**63), 10**30]),
    st.sampled_from([-7.5, -0.3, -0.0, 0.1, 0.3, 2.5, 6.0, 1e300, -sys.float_info.max, sys.float_info.max, 5e-324]),
    st.sampled_from([Decimal("-1.2"), Decimal("0.05"), Decimal("0.30"), Decimal(3), Decimal(10) ** 400]),
)
DAYS = st.dates(date(2012, 12, 30), date(2013, 1, 17))
MINUTES = st.integers(-3, 70).map(lambda n: timedelta(minutes=n))
OPERANDS = {
    "int": NUMBERS,
    "decimal": NUMBERS,
    "double": NUMBERS,
    "date": DAYS,
    "local": st.one_of(MINUTES.map(lambda span: NOON + span), DAYS),
    "zoned": MINUTES.map(lambda span: (NOON_UTC + span).astimezone(BERLIN_WINTER)),
}


@st.composite
def predicates(draw, name):
    cells = UNIVERSES[name][1]
    coded = name not in OPERANDS
    values = st.sampled_from(cells) if coded else st.one_of(st.sampled_from(cells), OPERANDS[name])
    shapes = ["any_of", "none_of", "is_null"] if coded else ["any_of", "none_of", "is_null", "range", "range"]
    match draw(st.sampled_from(shapes)):
        case "any_of" | "none_of" as shape:
            drawn = tuple(draw(st.lists(st.one_of(values, values, st.none()), min_size=1, max_size=6)))
            test = AnyOf(drawn) if shape == "any_of" else NoneOf(drawn)
        case "is_null":
            test = IsNull(draw(st.booleans()))
        case _:
            low, high = draw(st.one_of(st.none(), values)), draw(st.one_of(st.none(), values))
            if low is None and high is None:
                low = draw(values)
            test = Range(low, high, draw(st.booleans()), draw(st.booleans()))
    return Predicate(name, test)


def _schema(nullable):
    columns = (replace(column, domain=replace(column.domain, nullable=nullable)) for column, _ in UNIVERSES.values())
    return TableSchema(tuple(columns))


def _comparable(value, column):
    """Bring a value to the column's type, in plain Python."""
    if column.data_type is DataType.DOUBLE:
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if column.data_type is DataType.DECIMAL:
        return Decimal(str(value))
    if column.data_type is DataType.TIMESTAMP and not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day, tzinfo=UTC if column.time_zone else None)
    return value


def _holds(test, cell, column):
    if isinstance(test, IsNull):
        return (cell is None) == test.null
    if isinstance(test, AnyOf):
        if cell is None:
            return None in test.values
        return any(value is not None and _comparable(value, column) == cell for value in test.values)
    if cell is None:
        return False
    if isinstance(test, NoneOf):
        return all(value is None or _comparable(value, column) != cell for value in test.values)
    if test.minimum is not None:
        low = _comparable(test.minimum, column)
        if cell < low or (test.minimum_exclusive and cell == low):
            return False
    if test.maximum is not None:
        high = _comparable(test.maximum, column)
        if cell > high or (test.maximum_exclusive and cell == high):
            return False
    return True


def _array(cells, column):
    if is_coded(column):
        categories = list(column.domain.categories)
        return ColumnArray(np.array([-1 if cell is None else categories.index(cell) for cell in cells], np.int32))
    dtype = np.float64 if column.data_type is DataType.DOUBLE else np.int64
    natives = [0 if cell is None else native_number(cell, column) for cell in cells]
    values = np.array([float(native) if dtype is np.float64 else int(native) for native in natives], dtype)
    return ColumnArray(values, np.array([cell is not None for cell in cells]) if None in cells else None)


def _json(where, schema):
    return rfc8785.dumps([condition.to_json() for condition in canonical(where, schema)])


@settings(deadline=None, max_examples=400)
@given(st.data(), st.sampled_from(sorted(UNIVERSES)), st.booleans())
def test_evaluation_equals_the_oracle(data, name, nullable):
    schema = _schema(nullable)
    column, cells = schema.column(name), list(UNIVERSES[name][1])
    if nullable:
        cells.append(None)
    where = data.draw(st.lists(predicates(name), min_size=1, max_size=3))
    expected = [all(_holds(predicate.test, cell, column) for predicate in where) for cell in cells]
    try:
        conditions = canonical(where, schema)
    except InvalidConditionError:
        assert not any(expected)
        return
    if name in COMPLETE:
        assert any(expected)
    actual = conditions[0].satisfied(_array(cells, column)).tolist() if conditions else [True] * len(cells)
    assert actual == expected


@settings(deadline=None, max_examples=100)
@given(st.data(), st.booleans())
def test_the_order_of_predicates_and_values_does_not_matter(data, nullable):
    schema = _schema(nullable)
    names = data.draw(st.lists(st.sampled_from(sorted(UNIVERSES)), min_size=1, max_size=3))
    where = [data.draw(predicates(name)) for name in names]
    other = [
        Predicate(predicate.column, AnyOf(tuple(data.draw(st.permutations(predicate.test.values)) * 2)))
        if isinstance(predicate.test, AnyOf)
        else Predicate(predicate.column, NoneOf(tuple(data.draw(st.permutations(predicate.test.values)) * 2)))
        if isinstance(predicate.test, NoneOf)
        else predicate
        for predicate in data.draw(st.permutations(where))
    ]
    try:
        expected = _json(where, schema)
    except InvalidConditionError:
        with pytest.raises(InvalidConditionError):
            canonical(other, schema)
        return
    assert _json(other, schema) == expected
    assert _json([*other, *where], schema) == expected


@settings(deadline=None, max_examples=100)
@given(st.data(), st.sampled_from(["text", "grade", "flag"]), st.booleans())
def test_categorical_conditions_are_equal_exactly_where_they_mean_the_same(data, name, nullable):
    schema = _schema(nullable)
    column, cells = schema.column(name), [*UNIVERSES[name][1], *([None] if nullable else [])]
    meanings, forms = [], []
    for _ in range(2):
        where = data.draw(st.lists(predicates(name), min_size=1, max_size=2))
        try:
            forms.append(_json(where, schema))
        except InvalidConditionError:
            return
        meanings.append([all(_holds(predicate.test, cell, column) for predicate in where) for cell in cells])
    assert (meanings[0] == meanings[1]) == (forms[0] == forms[1])


@pytest.mark.parametrize("nullable", [False, True])
@pytest.mark.parametrize(
    ("name", "tests"),
    [
        (
            "int",
            [Range(2, 4), Range(1, 5, True, True), Range(1.5, Decimal("4.5")), AnyOf((4, 2, 3, 3)), AnyOf((2.0, 3, 4))],
        ),
        ("int", [Range(3), Range(2, None, True), Range(2.5, None, True), Range(3.0, 10**30)]),
        ("int", [Range(None, 2), Range(-(10**30), 3, False, True)]),
        ("decimal", [Range(0.1, 0.3), Range(Decimal("0.10"), Decimal("0.39")), AnyOf((0.3, Decimal("0.2"), 0.1))]),
        ("double", [AnyOf((0.1,)), AnyOf((Decimal("0.1"), 0.1)), Range(0.1, 0.1), AnyOf(("0.1",)), AnyOf(("1e-1",))]),
        ("int", [NoneOf((1, 2)), NoneOf((2.0, 1, 1, None, 1.5)), NoneOf(("1", "2"))]),
        ("decimal", [Range("0.1", " 0.3 "), Range(Decimal("0.1"), Decimal("0.3"))]),
        ("date", [AnyOf(("2013-01-02",)), AnyOf((date(2013, 1, 2),))]),
        ("local", [Range("2013-01-01"), Range(date(2013, 1, 1)), Range("2013-01-01T00:00")]),
        ("text", [NoneOf(("x", "")), AnyOf(("Zürich", "1", "true"))]),
        ("flag", [NoneOf((True,)), AnyOf((False,)), AnyOf(("False",))]),
        ("double", [Range(0.0, 1), Range(-0.0, 1.0), Range(-5e-324, 1, True)]),
        ("double", [Range(0.1), Range(0.1, sys.float_info.max), Range(0.1, Decimal(10) ** 400)]),
        ("date", [Range(date(2013, 1, 2), date(2013, 1, 3)), AnyOf((date(2013, 1, 3), date(2013, 1, 2)))]),
        (
            "local",
            [Range(date(2013, 1, 1)), Range(NOON.replace(hour=0))],
        ),
        ("zoned", [AnyOf((NOON_UTC,)), AnyOf((NOON_UTC.astimezone(BERLIN_WINTER),))]),
        ("grade", [AnyOf((1,)), AnyOf(("1",)), AnyOf((1, 1))]),
        ("flag", [AnyOf((True,)), AnyOf(("true",))]),
    ],
)
def test_ways_to_say_the_same_have_one_form(name, tests, nullable):
    schema = _schema(nullable)
    forms = {_json([Predicate(name, test)], schema) for test in tests}
    assert len(forms) == 1
    assert forms != {b"[]"}


def test_a_condition_on_missing_cells_of_a_column_without_any_changes_nothing():
    schema = _schema(False)
    assert _json([Predicate("int", AnyOf((1, None)))], schema) == _json([Predicate("int", AnyOf((1,)))], schema)
    assert _json([Predicate("text", AnyOf(("x", None)))], schema) == _json([Predicate("text", AnyOf(("x",)))], schema)


def test_conditions_stand_by_column_name():
    where = [Predicate("text", AnyOf(("x",))), Predicate("int", AnyOf((1,))), Predicate("flag", AnyOf((True,)))]
    for order in itertools.permutations(where):
        assert [condition.column for condition in canonical(order, _schema(True))] == ["flag", "int", "text"]


@pytest.mark.parametrize(
    ("name", "test", "nullable"),
    [
        ("int", IsNull(False), False),
        ("text", IsNull(False), False),
        ("text", AnyOf(("x", "", "Zürich", "1", "true")), False),
        ("text", AnyOf(("x", "", "Zürich", "1", "true", None)), True),
        ("flag", AnyOf((True, False)), False),
        ("int", Range(-(2**63)), False),
        ("int", Range(None, 2**63 - 1), False),
        ("double", Range(-sys.float_info.max, sys.float_info.max), False),
    ],
)
def test_a_condition_that_always_holds_is_dropped(name, test, nullable):
    assert canonical([Predicate(name, test)], _schema(nullable)) == ()


@pytest.mark.parametrize(
    ("name", "test"),
    [
        ("int", IsNull(False)),
        ("int", Range(-(2**63))),
        ("text", AnyOf(("x", "", "Zürich", "1", "true"))),
    ],
)
def test_a_condition_that_missing_cells_fail_is_kept(name, test):
    (condition,) = canonical([Predicate(name, test)], _schema(True))
    assert condition.satisfied(_array([UNIVERSES[name][1][0], None], _schema(True).column(name))).tolist() == [
        True,
        False,
    ]


@pytest.mark.parametrize(
    "tests",
    [
        [Range(1, 2), Range(3, 4)],
        [AnyOf((1,)), AnyOf((2,))],
        [AnyOf((1,)), IsNull()],
        [IsNull(), IsNull(False)],
        [Range(1, 2), IsNull()],
        [Range(1, 1, True)],
        [Range(2, 1)],
        [Range(1, 2, True, True)],
        [AnyOf((1.5,))],
        [AnyOf((10**30,))],
        [Range(7)],
        [Range(None, -7)],
        [AnyOf((-7, 7))],
        [AnyOf(("one",))],
        [AnyOf(("1.5",))],
        [NoneOf((1,)), AnyOf((1, 1))],
        [NoneOf(tuple(range(-6, 7))), Range(-6, 6)],
        [AnyOf((True,))],
        [AnyOf((date(2013, 1, 1),))],
    ],
)
def test_contradictory_and_impossible_conditions_are_refused(tests):
    with pytest.raises(InvalidConditionError, match="'int'") as caught:
        canonical([Predicate("int", test) for test in tests], _schema(True))
    assert caught.value.metadata == {"column": "int"}


def test_what_was_never_missing_cannot_be_null():
    for name in UNIVERSES:
        with pytest.raises(InvalidConditionError, match="never missing"):
            canonical([Predicate(name, IsNull())], _schema(False))
        assert len(canonical([Predicate(name, IsNull())], _schema(True))) == 1


def test_what_is_always_missing_cannot_be_present():
    void = ColumnSpec("void", ColumnKind.CATEGORICAL, DataType.STRING, Domain(nullable=True))
    schema = TableSchema((void,))
    with pytest.raises(InvalidConditionError, match="missing in every row"):
        canonical([Predicate("void", IsNull(False))], schema)
    assert canonical([Predicate("void", IsNull())], schema) == ()
    with pytest.raises(ValueNotFoundError):
        canonical([Predicate("void", AnyOf(("x",)))], schema)


def test_an_unseen_value_is_refused_with_similar_ones():
    schema = _schema(True)
    with pytest.raises(ValueNotFoundError) as caught:
        canonical([Predicate("text", AnyOf(("x", "zurich")))], schema)
    assert caught.value.metadata == {"column": "text", "value": "zurich", "near": "Zürich"}
    with pytest.raises(ValueNotFoundError) as caught:
        canonical([Predicate("grade", AnyOf((17,)))], schema)
    assert caught.value.metadata["value"] == "17"
    assert caught.value.metadata["near"]
    with pytest.raises(ValueNotFoundError):
        canonical([Predicate("flag", AnyOf((1,)))], schema)
    with pytest.raises(ValueNotFoundError):
        canonical([Predicate("grade", AnyOf((True,)))], schema)
    with pytest.raises(ValueNotFoundError):
        canonical([Predicate("text", AnyOf((datetime(1, 1, 1, tzinfo=BERLIN_WINTER),)))], schema)


def test_a_range_needs_an_order_and_a_bound():
    for name in ("text", "grade", "flag"):
        with pytest.raises(InvalidConditionError, match="no order"):
            canonical([Predicate(name, Range(1, 2))], _schema(True))
    with pytest.raises(InvalidFieldError, match=r"^where\.predicates\[0\]\.range: has neither"):
        canonical([Predicate("int", Range())], _schema(True))


@pytest.mark.parametrize("test", [AnyOf((1,)), IsNull(), IsNull(False), Range(1)])
def test_identifiers_are_not_conditions(test):
    columns = (
        ColumnSpec("id", ColumnKind.ID, DataType.INT64),
        ColumnSpec("key", ColumnKind.NUMERICAL, DataType.INT64),
    )
    for name in ("id", "key"):
        with pytest.raises(InvalidConditionError, match="identifies rows"):
            canonical([Predicate(name, test)], TableSchema(columns, "key"))


def test_an_unknown_column_is_refused():
    with pytest.raises(ColumnNotFoundError):
        canonical([Predicate("integer", AnyOf((1,)))], _schema(True))


def test_too_many_are_refused():
    schema = _schema(True)
    some = [Predicate("int", Range(-6))] * MAX_PREDICATES
    assert len(canonical(some, schema)) == 1
    with pytest.raises(InvalidFieldError, match="65 entries"):
        canonical([*some, some[0]], schema)
    assert len(canonical([Predicate("int", AnyOf((1,) * MAX_VALUES))], schema)) == 1
    for count in (0, MAX_VALUES + 1):
        with pytest.raises(InvalidFieldError, match=f"{count} values"):
            canonical([Predicate("int", AnyOf((1,) * count))], schema)


def test_many_values_are_intersected_and_evaluated_in_one_pass():
    evens, odds = tuple(range(0, 2 * MAX_VALUES, 2)), tuple(range(1, 2 * MAX_VALUES, 2))
    column = ColumnSpec("n", ColumnKind.NUMERICAL, DataType.INT64, Domain(minimum=0, maximum=100_000))
    schema = TableSchema((column,))
    (condition,) = canonical(
        [Predicate("n", AnyOf(evens)), Predicate("n", AnyOf((*evens[5_000:], *odds[:5_000])))], schema
    )
    assert condition.intervals is not None
    assert [span.lower for span in condition.intervals] == list(evens[5_000:])
    found = condition.satisfied(ColumnArray(np.arange(30_000)))
    assert np.flatnonzero(found).tolist() == list(evens[5_000:])
    # Every value between the ends: one range.
    (condition,) = canonical([Predicate("n", AnyOf(evens[:5_000] + odds[:5_000]))], schema)
    assert condition.to_json()["intervals"] == [["0", "9999"]]


def test_many_categories_are_looked_up_at_once():
    column = ColumnSpec("c", ColumnKind.CATEGORICAL, DataType.INT64, Domain(categories=tuple(range(50_000))))
    (condition,) = canonical([Predicate("c", AnyOf(tuple(range(40_000, 50_000))))], TableSchema((column,)))
    assert condition.codes == tuple(range(40_000, 50_000))


def _rate(decimals, low=-10.0, high=10.0):
    domain = Domain(minimum=low, maximum=high, decimals=decimals, nullable=True)
    return TableSchema((ColumnSpec("rate", ColumnKind.NUMERICAL, DataType.DOUBLE, domain),))


@pytest.mark.parametrize(
    "tests",
    [
        [Range(0.12, 0.13, True, True)],
        [Range(0.12, minimum_exclusive=True), Range(maximum=0.13, maximum_exclusive=True)],
        [Range(0.121, 0.129)],
        [AnyOf((0.123, 0.124))],
        [Range(0.12, 0.13), NoneOf((0.12, 0.13))],
    ],
)
def test_what_lies_between_two_numbers_of_a_column_is_refused(tests):
    where = [Predicate("rate", test) for test in tests]
    with pytest.raises(InvalidConditionError, match="holds numbers of 2 decimals; the condition allows none"):
        canonical(where, _rate(2))
    for other in (_rate(3), _rate(None), _rate(2, high=1e15)):
        assert len(canonical(where, other)) == 1
    assert len(canonical([Predicate("rate", AnyOf((0.123, None)))], _rate(2))) == 1


@given(unit=st.integers(-1000, 1000), decimals=st.integers(0, 3), inner=st.floats(0, 1))
def test_a_range_that_holds_a_number_of_the_column_is_kept(unit, decimals, inner):
    number = unit / 10**decimals
    schema = _rate(decimals, -1e4, 1e4)
    width = inner * 10.0**-decimals
    for test in (Range(number, number), Range(number - width, number), Range(number, number + width), AnyOf((number,))):
        assert len(canonical([Predicate("rate", test)], schema)) == 1


def test_texts_are_read_in_the_form_of_their_column():
    german = NumberForm(grouping=Grouping.THOUSANDS, group_separator=".", decimal_separator=",")
    columns = (
        replace(_rate(2, -1e4, 1e4).columns[0], written_form=WrittenForm(german)),
        replace(UNIVERSES["date"][0], written_form=WrittenForm(DatetimeForm("%d.%m.%Y"))),
        replace(UNIVERSES["flag"][0], written_form=WrittenForm(BooleanForm("ja", "nein"))),
    )
    schema = TableSchema(columns)
    for name, own, plain, cell in (
        ("rate", "1.234", None, 1234.0),
        ("rate", "-0,5", "-0.5", -0.5),
        ("date", "02.01.2013", "2013-01-02", date(2013, 1, 2)),
        ("flag", "Ja", "true", True),
    ):
        expected = _json([Predicate(name, AnyOf((cell,)))], schema)
        assert _json([Predicate(name, AnyOf((own,)))], schema) == expected
        if plain is not None:
            assert _json([Predicate(name, AnyOf((plain,)))], schema) == expected
    with pytest.raises(InvalidConditionError, match=r"'1,2,3' is not a number in the form of '-1\.234,5', nor double"):
        canonical([Predicate("rate", Range("1,2,3"))], schema)
    with pytest.raises(ValueNotFoundError):
        canonical([Predicate("flag", AnyOf(("yes",)))], schema)


def test_an_empty_or_endless_exclusion_is_refused():
    for values in ((), tuple(range(MAX_VALUES + 1))):
        with pytest.raises(InvalidFieldError, match=rf"where.predicates\[0\].none_of: has {len(values)} values"):
            canonical([Predicate("int", NoneOf(values))], _schema(True))
    with pytest.raises(ValueNotFoundError):
        canonical([Predicate("text", NoneOf(("y",)))], _schema(True))
