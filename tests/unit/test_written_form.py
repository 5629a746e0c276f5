"""The value of a written form: JSON, messages, what is refused, and how long its texts are at most."""

from dataclasses import replace

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from rowmint.codecs.learned import validate_learned
from rowmint.errors import InvalidFieldError
from rowmint.rpc.written_forms import form_from_proto, form_to_proto
from rowmint.schema import ColumnKind, ColumnSpec, DataType, Domain, validate_declared
from rowmint.schema.forms import (
    CANONICAL,
    BooleanForm,
    DatetimeForm,
    Grouping,
    NameCase,
    NumberForm,
    StorageType,
    WrittenForm,
    ZoneStyle,
)
from rowmint.schema.forms.cells import written
from rowmint.schema.forms.moments import FIRST_MOMENT, LAST_MOMENT, moment_text
from rowmint.schema.forms.size import most_bytes
from rowmint.schema.forms.storage import STORAGE_OF_TYPE, storage_bounds
from rowmint.schema.forms.validation import validate_form
from rowmint.v1 import schema_pb2
from tests.unit.test_form_numbers import number_forms

FORMS = st.builds(
    WrittenForm,
    st.none()
    | number_forms()
    | st.builds(BooleanForm, st.just("yes"), st.just("no"))
    | st.builds(
        DatetimeForm,
        st.sampled_from(["", "%d.%m.%Y", "%H:%M", "%Y-%m-%d %H:%M%z"]),
        st.sampled_from([0, 3600, -12_600]),
        st.sampled_from(ZoneStyle),
        st.booleans(),
        st.sampled_from(NameCase),
        st.sampled_from(["", "Europe/Berlin"]),
    ),
    st.none() | st.sampled_from(StorageType),
    st.integers(0, 64),
)


@given(FORMS)
def test_a_form_is_restored_from_json_and_from_its_message(form: WrittenForm) -> None:
    assert WrittenForm.from_json(form.to_json()) == form
    column = ColumnSpec("c", written_form=form)
    assert ColumnSpec.from_json(column.to_json()) == column
    message = schema_pb2.WrittenForm.FromString(form_to_proto(form).SerializeToString())
    assert form_from_proto(message, "f") == form


def test_json_has_only_what_is_not_the_default() -> None:
    assert "written_form" not in ColumnSpec("c").to_json()
    assert CANONICAL.to_json() == {}
    assert not CANONICAL
    assert WrittenForm(NumberForm(prefix="$", grouping=Grouping.THOUSANDS), StorageType.INT8).to_json() == {
        "number": {"prefix": "$", "grouping": "thousands"},
        "storage": "int8",
    }
    assert WrittenForm(DatetimeForm("%Y")).to_json() == {"datetime": {"pattern": "%Y"}}


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"numbers": {}},
        {"number": []},
        {"number": {"prefix": 1}},
        {"number": {"minimum_fraction_digits": True}},
        {"number": {"grouping": "tens"}},
        {"number": {"digits": 1}},
        {"number": {}, "boolean": {"true_text": "a", "false_text": "b"}},
        {"boolean": {"true_text": "a"}},
        {"datetime": {}},
        {"storage": "int128"},
        {"pad_width": "8"},
        {"pad_width": True},
    ],
)
def test_a_malformed_form_is_refused(body: object) -> None:
    with pytest.raises(ValueError, match=r"form|Form|is not a valid"):
        WrittenForm.from_json(body)  # type: ignore[arg-type]


def test_every_storage_type_and_enum_has_a_partner_in_the_contract() -> None:
    found = {name.removeprefix("STORAGE_TYPE_").lower() for name in schema_pb2.StorageType.keys()}  # noqa: SIM118
    assert found - {"unspecified"} == set(StorageType)
    assert set().union(*STORAGE_OF_TYPE.values()) == set(StorageType)
    assert set(STORAGE_OF_TYPE) == set(DataType)
    for form in (schema_pb2.WrittenForm(storage=99), schema_pb2.WrittenForm(number={"grouping": 99})):  # type: ignore[arg-type]
        with pytest.raises(InvalidFieldError, match="99 is not a"):
            form_from_proto(form, "f")


def _number(**fields: object) -> WrittenForm:
    return WrittenForm(NumberForm(**fields))  # type: ignore[arg-type]


def _datetime(pattern: str, **fields: object) -> WrittenForm:
    return WrittenForm(DatetimeForm(pattern, **fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("form", "data_type", "path"),
    [
        (WrittenForm(pad_width=65), None, "pad_width"),
        (WrittenForm(pad_width=-1), None, "pad_width"),
        (WrittenForm(storage=StorageType.INT8), DataType.DOUBLE, "storage"),
        (_number(), DataType.STRING, "number"),
        (_number(), DataType.BOOL, "number"),
        (_number(prefix="x" * 17), None, "number.prefix"),
        (_number(prefix="a1"), None, "number.prefix"),
        (_number(prefix="=x"), None, "number.prefix"),
        (_number(prefix="-"), None, "number.prefix"),
        (_number(suffix="\n"), None, "number.suffix"),
        (_number(suffix="\N{SUPERSCRIPT TWO}"), None, "number.suffix"),
        (_number(grouping=Grouping.THOUSANDS), None, "number.group_separator"),
        (_number(group_separator=","), None, "number.group_separator"),
        (_number(grouping=Grouping.THOUSANDS, group_separator="."), None, "number.group_separator"),
        (_number(grouping=Grouping.THOUSANDS, group_separator="--"), None, "number.group_separator"),
        (_number(grouping=Grouping.THOUSANDS, group_separator="0"), None, "number.group_separator"),
        (_number(decimal_separator=""), None, "number.decimal_separator"),
        (_number(decimal_separator="-"), None, "number.decimal_separator"),
        (_number(minimum_fraction_digits=39), None, "number.minimum_fraction_digits"),
        (_number(minimum_fraction_digits=-1), None, "number.minimum_fraction_digits"),
        (_number(minimum_integer_digits=39), None, "number.minimum_integer_digits"),
        (_number(exponent_digits=0), None, "number.exponent_digits"),
        (_datetime("%Y-%m-%d"), DataType.DOUBLE, "datetime"),
        (_datetime("%Q"), None, "datetime.pattern"),
        (_datetime("%H:%M"), DataType.DATE, "datetime.pattern"),
        (_datetime("%Y-%m"), DataType.TIMESTAMP, "datetime.pattern"),
        (_datetime("%Y-%m-%d"), DataType.INT64, "datetime.pattern"),
        (_datetime("%m-%d"), None, "datetime.pattern"),
        (_datetime("%Y-%m-%d %z"), None, "datetime.zone"),
        (_datetime("%Y-%m-%d", zone=ZoneStyle.Z), None, "datetime.zone"),
        (_datetime("%Y-%m-%d %z", zone=ZoneStyle.Z, utc_offset_seconds=60), None, "datetime.zone"),
        (_datetime("%Y-%m-%d", utc_offset_seconds=61), None, "datetime.utc_offset_seconds"),
        (_datetime("%Y-%m-%d", utc_offset_seconds=86_400), None, "datetime.utc_offset_seconds"),
        (_datetime("", arrow_zone="a b"), None, "datetime.arrow_zone"),
        (WrittenForm(BooleanForm("a", "b")), DataType.INT64, "boolean"),
        (WrittenForm(BooleanForm("", "b")), None, "boolean.true_text"),
        (WrittenForm(BooleanForm("a", " b")), None, "boolean.false_text"),
        (WrittenForm(BooleanForm("a", "b" * 33)), None, "boolean.false_text"),
        (WrittenForm(BooleanForm("a", "a")), None, "boolean.false_text"),
    ],
)
def test_a_form_that_contradicts_itself_is_refused(form: WrittenForm, data_type: DataType | None, path: str) -> None:
    with pytest.raises(InvalidFieldError) as refused:
        validate_form(form, data_type, "f")
    assert [violation.field for violation in refused.value.violations] == [f"f.{path}"]
    column = ColumnSpec("c", data_type=data_type, written_form=form)
    with pytest.raises(InvalidFieldError) as refused:
        validate_declared((column,))
    assert [violation.field for violation in refused.value.violations] == [
        f"dataset.column_overrides[0].written_form.{path}"
    ]


@given(number_forms())
def test_every_form_of_these_tests_is_valid(form: NumberForm) -> None:
    for data_type in (DataType.INT64, DataType.DOUBLE, DataType.DECIMAL, None):
        validate_form(WrittenForm(form), data_type, "f")


def test_forms_of_every_type_are_valid() -> None:
    for form, data_type in (
        (CANONICAL, None),
        (_datetime("%H:%M[:%S]"), DataType.INT64),
        (_datetime("%Y-%m-%d %H:%M%z", zone=ZoneStyle.HOURS, utc_offset_seconds=-3600), DataType.TIMESTAMP),
        (_datetime("", arrow_zone="Europe/Berlin"), DataType.TIMESTAMP),
        (_datetime("%d.%m.%Y"), DataType.DATE),
        (WrittenForm(BooleanForm("ja", "nein")), DataType.BOOL),
        (WrittenForm(storage=StorageType.UINT64, pad_width=64), DataType.STRING),
    ):
        validate_form(form, data_type, "f")


@given(form=number_forms(), number=st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1))
def test_no_number_is_longer_than_estimated(form: NumberForm, number: float) -> None:
    form = replace(form, minimum_fraction_digits=min(form.minimum_fraction_digits or 0, 2))
    column = ColumnSpec("c", data_type=DataType.DOUBLE, written_form=WrittenForm(form))
    assert len(written(float(number), column).encode()) <= most_bytes(column.written_form) + 2


@pytest.mark.parametrize("pattern", ["%A, %e %B %Y %H:%M:%S.%9f%z", "%s.%6f", "%a %d %b %y %I %p\N{EURO SIGN}", "%Y%j"])
def test_no_moment_is_longer_than_estimated(pattern: str) -> None:
    zone = ZoneStyle.COLON if "%z" in pattern else ZoneStyle.NONE
    form = DatetimeForm(pattern, zone=zone)
    for moment in (FIRST_MOMENT, LAST_MOMENT, 0, 1_473_876_000_000_001):
        assert len(moment_text(moment, form).encode()) <= most_bytes(WrittenForm(form))


def test_a_learned_column_is_of_its_storage() -> None:
    def column(data_type: DataType, storage: StorageType, **domain: object) -> ColumnSpec:
        kind = ColumnKind.CATEGORICAL if "categories" in domain else ColumnKind.NUMERICAL
        return ColumnSpec("c", kind, data_type, Domain(**domain), written_form=WrittenForm(None, storage))  # type: ignore[arg-type]

    validate_learned(column(DataType.INT64, StorageType.INT8, minimum=-128, maximum=127))
    validate_learned(column(DataType.STRING, StorageType.UINT64, categories=("0", "18446744073709551615")))
    for bad in (
        column(DataType.INT64, StorageType.INT8, minimum=-129, maximum=0),
        column(DataType.INT64, StorageType.UINT32, categories=(1, -1)),
        column(DataType.INT64, StorageType.TIME32_S, minimum=0, maximum=86_400_000_000),
        column(DataType.DOUBLE, StorageType.FLOAT16, minimum=0.0, maximum=1e6),
        column(DataType.STRING, StorageType.UINT64, categories=("18446744073709551616",)),
        column(DataType.STRING, StorageType.UINT64, categories=("007",)),
        column(DataType.STRING, StorageType.UINT64, categories=("x",)),
    ):
        with pytest.raises(ValueError, match=r"not of type|category is not"):
            validate_learned(bad)
    assert storage_bounds(None) == storage_bounds(StorageType.DURATION_S) == (-(2**63), 2**63 - 1)


def test_the_fields_of_values_and_messages_are_the_same() -> None:
    for part, message in (
        (NumberForm, schema_pb2.NumberForm),
        (DatetimeForm, schema_pb2.DatetimeForm),
        (BooleanForm, schema_pb2.BooleanForm),
    ):
        assert isinstance(message(), Message)
        assert set(part.__dataclass_fields__) == set(message.DESCRIPTOR.fields_by_name)  # type: ignore[attr-defined]
