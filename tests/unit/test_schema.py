"""Schemas: cells and columns as text and JSON, and declarations that contradict themselves."""

import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowmint.errors import ColumnNotFoundError, InvalidFieldError
from rowmint.schema import (
    KINDS_OF_TYPE,
    ColumnKind,
    ColumnSpec,
    DataType,
    Domain,
    TableSchema,
    cell_text,
    near_names,
    parse_cell,
    validate_declared,
    with_nullable,
)
from rowmint.schema.forms import DatetimeForm, StorageType, WrittenForm
from rowmint.schema.sdv import sdv_metadata

CELLS = {
    DataType.BOOL: st.booleans(),
    DataType.INT64: st.integers(-(2**63), 2**63 - 1),
    DataType.DOUBLE: st.floats(allow_nan=False, allow_infinity=False),
    DataType.DECIMAL: st.decimals(allow_nan=False, allow_infinity=False, places=4),
    DataType.STRING: st.text(),
    DataType.DATE: st.dates(),
    DataType.TIMESTAMP: st.one_of(st.datetimes(), st.datetimes(timezones=st.just(UTC))),
}


@st.composite
def typed_columns(draw):
    data_type = draw(st.sampled_from(DataType))
    cell = CELLS[data_type]
    bound = st.none() if data_type in (DataType.BOOL, DataType.STRING) else st.one_of(st.none(), cell)
    return ColumnSpec(
        name=draw(st.text(min_size=1, max_size=8)),
        kind=draw(st.one_of(st.none(), st.sampled_from(KINDS_OF_TYPE[data_type]))),
        data_type=draw(st.sampled_from([data_type, None])),
        domain=Domain(
            categories=tuple(draw(st.lists(cell, max_size=4))),
            minimum=draw(bound),
            maximum=draw(bound),
            decimals=draw(st.one_of(st.none(), st.integers(0, 15))),
            nullable=draw(st.sampled_from([None, False, True])),
        ),
        datetime_format=draw(st.sampled_from(["", "%d/%m/%Y"])),
        time_zone=draw(st.sampled_from(["", "Europe/Berlin"])),
        id_pattern=draw(st.sampled_from(["", "N[0-9]{5}"])),
    )


SCHEMAS = st.lists(typed_columns(), max_size=4, unique_by=lambda column: column.name).map(
    lambda columns: TableSchema(tuple(columns), columns[0].name if columns else "")
)


@given(st.data())
def test_the_text_of_a_cell_parses_back(data):
    data_type = data.draw(st.sampled_from(DataType))
    cell = data.draw(CELLS[data_type])
    back = parse_cell(cell_text(cell), data_type)
    assert back == cell
    assert type(back) is type(cell)


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (True, "true"),
        (False, "false"),
        (-7, "-7"),
        (0.1, "0.1"),
        (1e22, "1e+22"),
        (Decimal("1E+3"), "1000"),
        (Decimal("-0.50"), "-0.50"),
        ("", ""),
        (date(1, 2, 3), "0001-02-03"),
        (datetime(2013, 1, 1, 5), "2013-01-01T05:00:00"),  # noqa: DTZ001 - a local time
        (datetime(2013, 1, 1, 5, tzinfo=timezone(timedelta(hours=2))), "2013-01-01T03:00:00Z"),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=2))), "0001-01-01T00:00:00+02:00"),
    ],
)
def test_the_text_of_a_cell(cell, text):
    assert cell_text(cell) == text


def test_a_missing_cell_has_no_text():
    with pytest.raises(ValueError, match="missing"):
        cell_text(None)


@pytest.mark.parametrize(
    ("text", "data_type"),
    [
        ("yes", DataType.BOOL),
        ("x", DataType.INT64),
        ("1.5", DataType.INT64),
        ("x", DataType.DOUBLE),
        ("x", DataType.DECIMAL),
        ("2013-13-01", DataType.DATE),
        ("today", DataType.TIMESTAMP),
    ],
)
def test_a_text_of_another_type_is_refused(text, data_type):
    with pytest.raises(ValueError, match=r".+"):
        parse_cell(text, data_type)


@settings(deadline=None)
@given(SCHEMAS)
def test_json_is_restored_as_the_same_schema(schema):
    back = TableSchema.from_json(json.loads(json.dumps(schema.to_json())))
    assert back == schema
    for one, other in zip(schema.columns, back.columns, strict=True):
        cells = [*one.domain.categories, one.domain.minimum, one.domain.maximum]
        others = [*other.domain.categories, other.domain.minimum, other.domain.maximum]
        assert list(map(type, cells)) == list(map(type, others))


def test_a_cell_of_the_columns_own_type_is_plain_text():
    column = ColumnSpec("a", ColumnKind.CATEGORICAL, DataType.INT64, Domain(categories=(3, 1), minimum=0))
    assert column.to_json() == {
        "name": "a",
        "kind": "categorical",
        "type": "int64",
        "categories": ["3", "1"],
        "minimum": "0",
    }


def test_a_bound_declared_before_the_type_is_known_is_kept():
    column = ColumnSpec("a", domain=Domain(minimum=0, maximum=2.5, categories=("x", Decimal("1.50"))))
    assert ColumnSpec.from_json(column.to_json()) == column


def test_a_duplicate_column_is_refused():
    with pytest.raises(InvalidFieldError, match="'a' is given more than once"):
        TableSchema((ColumnSpec("a"), ColumnSpec("b"), ColumnSpec("a")))


def test_an_unknown_column_is_refused_with_similar_names():
    schema = TableSchema((ColumnSpec("dep_delay"), ColumnSpec("arr_delay"), ColumnSpec("origin")))
    with pytest.raises(ColumnNotFoundError) as caught:
        schema.column("dep_dellay")
    assert caught.value.metadata == {"column": "dep_dellay", "near": "dep_delay, arr_delay"}
    with pytest.raises(ColumnNotFoundError):
        TableSchema(schema.columns, "orign")


def test_near_names_ignore_case():
    assert near_names("NEW york", ["Paris", "New York", "Yorkshire"])[0] == "New York"


def test_projection_keeps_the_requested_order():
    schema = TableSchema((ColumnSpec("a"), ColumnSpec("b"), ColumnSpec("c")), "b")
    assert schema.project(("c", "a")).names == ("c", "a")
    assert not schema.project(("c", "a")).primary_key
    assert schema.project(("c", "b")).primary_key == "b"
    assert schema.project(()) == schema
    with pytest.raises(InvalidFieldError, match="more than once"):
        schema.project(("a", "a"))
    with pytest.raises(ColumnNotFoundError):
        schema.project(("d",))


def test_ignored_columns_are_not_modelled():
    schema = TableSchema((ColumnSpec("a", ColumnKind.IGNORED), ColumnSpec("b")), "a")
    assert schema.modelled() == TableSchema((ColumnSpec("b"),))


def test_nullability_alone_is_changed():
    column = ColumnSpec("a", domain=Domain(decimals=2))
    assert with_nullable(column, True) == ColumnSpec("a", domain=Domain(decimals=2, nullable=True))


def test_sdv_metadata_says_kinds_and_primary_key():
    columns = (
        *(ColumnSpec(str(kind), kind) for kind in ColumnKind),
        ColumnSpec("open"),
        ColumnSpec("day", ColumnKind.DATETIME, DataType.DATE),
        ColumnSpec("own", ColumnKind.DATETIME, DataType.DATE, datetime_format="%d/%m/%Y"),
        ColumnSpec(
            "form",
            ColumnKind.DATETIME,
            DataType.TIMESTAMP,
            written_form=WrittenForm(DatetimeForm("%-m/%-d/%Y[ %-I:%M %p]")),
        ),
        ColumnSpec(
            "narrow", ColumnKind.NUMERICAL, DataType.INT64, written_form=WrittenForm(storage=StorageType.UINT16)
        ),
    )
    assert sdv_metadata(TableSchema(columns, "id"), "flights") == {
        "METADATA_SPEC_VERSION": "V1",
        "relationships": [],
        "tables": {
            "flights": {
                "primary_key": "id",
                "columns": {
                    "numerical": {"sdtype": "numerical"},
                    "categorical": {"sdtype": "categorical"},
                    "datetime": {"sdtype": "datetime", "datetime_format": "%Y-%m-%dT%H:%M:%S"},
                    "boolean": {"sdtype": "boolean"},
                    "id": {"sdtype": "id"},
                    "ignored": {"sdtype": "unknown", "pii": False},
                    "open": {"sdtype": "unknown", "pii": False},
                    "day": {"sdtype": "datetime", "datetime_format": "%Y-%m-%d"},
                    "own": {"sdtype": "datetime", "datetime_format": "%d/%m/%Y"},
                    "form": {"sdtype": "datetime", "datetime_format": "%m/%d/%Y %I:%M %p"},
                    "narrow": {"sdtype": "numerical", "computer_representation": "UInt16"},
                },
            }
        },
    }


def test_sdv_metadata_without_a_primary_key():
    assert sdv_metadata(TableSchema((ColumnSpec("a", ColumnKind.ID),)))["tables"] == {
        "table": {"columns": {"a": {"sdtype": "id"}}}
    }


@pytest.mark.parametrize(
    ("column", "field"),
    [
        (ColumnSpec(""), "name"),
        (ColumnSpec("x" * 257), "name"),
        (ColumnSpec("a", ColumnKind.NUMERICAL, DataType.STRING), "kind"),
        (ColumnSpec("a", domain=Domain(decimals=16)), "domain.decimals"),
        (ColumnSpec("a", domain=Domain(decimals=-1)), "domain.decimals"),
        (ColumnSpec("a", domain=Domain(minimum=float("inf"))), "domain"),
        (ColumnSpec("a", domain=Domain(minimum="low")), "domain"),
        (ColumnSpec("a", domain=Domain(maximum=True)), "domain"),
        (ColumnSpec("a", domain=Domain(minimum=2, maximum=1)), "domain.minimum"),
        (ColumnSpec("a", domain=Domain(minimum=1, maximum=date(2013, 1, 1))), "domain"),
        (ColumnSpec("a", domain=Domain(categories=("x", "x"))), "domain.categories"),
        (ColumnSpec("a", domain=Domain(categories=("x", None))), "domain.categories"),
        (ColumnSpec("a", ColumnKind.NUMERICAL, domain=Domain(categories=(1,))), "domain.categories"),
        (ColumnSpec("a", id_pattern="N[0-9]"), "id_pattern"),
        (ColumnSpec("a", ColumnKind.NUMERICAL, datetime_format="%Y"), "datetime_format"),
    ],
)
def test_a_contradictory_declaration_names_the_field(column, field):
    with pytest.raises(InvalidFieldError) as caught:
        validate_declared((ColumnSpec("fine"), column))
    assert caught.value.violations[0].field == f"dataset.column_overrides[1].{field}"


def test_a_column_declared_twice_is_refused():
    with pytest.raises(InvalidFieldError, match="declared more than once"):
        validate_declared((ColumnSpec("a"), ColumnSpec("a")))


def test_sound_declarations_pass():
    validate_declared(
        (
            ColumnSpec(
                "a", ColumnKind.NUMERICAL, DataType.DECIMAL, Domain(minimum=0, maximum=Decimal("9.5"), decimals=0)
            ),
            ColumnSpec("b", ColumnKind.ID, id_pattern="N[0-9]{5}"),
            ColumnSpec("c", ColumnKind.CATEGORICAL, domain=Domain(categories=("x", ""))),
            ColumnSpec("d", ColumnKind.DATETIME, datetime_format="%d/%m/%Y", domain=Domain(minimum=date(2013, 1, 1))),
        )
    )
