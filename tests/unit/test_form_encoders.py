"""Columns in their written form in every format: whole columns as single cells, narrow Arrow types, missing cells."""

import csv
import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowmint.codecs import IdentityCodec
from rowmint.codecs.identity import MISSING_ONE
from rowmint.errors import InvalidFieldError
from rowmint.sampling.formats import RowFormat, make_encoder
from rowmint.sampling.formats.delimited import escaped, quoted
from rowmint.sampling.formats.forms import form_texts
from rowmint.schema import ColumnKind, ColumnSpec, DataType, Domain, TableSchema
from rowmint.schema.arrays import ColumnArray, native_cell
from rowmint.schema.forms import (
    BooleanForm,
    DatetimeForm,
    ExponentStyle,
    Grouping,
    NameCase,
    NegativeStyle,
    NumberForm,
    PlusSign,
    StorageType,
    WrittenForm,
    ZoneStyle,
)
from rowmint.schema.forms.cells import json_bare, moment_of, written
from rowmint.schema.forms.moments import DAY
from tests.unit.test_form_numbers import number_forms

MONEY = NumberForm(prefix="$", grouping=Grouping.THOUSANDS, group_separator=",", minimum_fraction_digits=2)


def _column(data_type: DataType, form: WrittenForm, **domain: object) -> ColumnSpec:
    kind = ColumnKind.DATETIME if data_type in (DataType.DATE, DataType.TIMESTAMP) else ColumnKind.NUMERICAL
    return ColumnSpec("c", kind, data_type, Domain(**{"nullable": False, **domain}), written_form=form)  # type: ignore[arg-type]


def _bytes(row_format: RowFormat, columns: list[ColumnSpec], arrays: list[ColumnArray], **options: bool) -> bytes:
    schema = TableSchema(tuple(columns))
    made = make_encoder(row_format, schema, {}, **options)
    cells = {column.name: array for column, array in zip(columns, arrays, strict=True)}
    body = made.batch(cells, 0, len(arrays[0]))
    assert isinstance(body, bytes)
    return made.header() + body + made.end()


def _as_cells(column: ColumnSpec, values: np.ndarray) -> list[str]:
    return [written(native_cell(value, column), column) for value in values.tolist()]


def _as_column(column: ColumnSpec, values: np.ndarray) -> list[str]:
    writer = form_texts(column)
    assert writer is not None
    return writer(values)


INTEGERS = st.integers(-(2**63), 2**63 - 1) | st.integers(-20_000, 20_000)


@given(form=number_forms(), values=st.lists(INTEGERS, max_size=8), decimals=st.sampled_from([0, 1, 2, 5, 18, 25]))
@settings(deadline=None)
def test_integers_and_decimals_of_a_column_are_written_as_single_cells(form, values, decimals):
    units = np.array(values, np.int64)
    for column in (
        _column(DataType.INT64, WrittenForm(form)),
        _column(DataType.DECIMAL, WrittenForm(form), decimals=decimals),
    ):
        assert _as_column(column, units) == _as_cells(column, units)


@given(
    form=number_forms(),
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**7), 10**7), max_size=8),
    decimals=st.sampled_from([None, 0, 2, 6, 15]),
)
@settings(deadline=None)
def test_doubles_of_a_column_are_written_as_single_cells(form, values, decimals):
    column = _column(DataType.DOUBLE, WrittenForm(form), decimals=decimals)
    exact = [value for value in values if isinstance(value, float)]
    on_grid = [value / 10 ** (decimals or 0) for value in values if isinstance(value, int)]
    numbers = np.array([*exact, *on_grid, -0.0, 1e-5, 1e16], np.float64)
    assert _as_column(column, numbers) == _as_cells(column, numbers)


PATTERNS = st.sampled_from(
    [
        "%-m/%-d/%Y %-I:%M %p",
        "%Y-%m-%d[ %H:%M[:%S[.%f]]]",
        "%A, %e %B %y %H:%M:%S.%3f",
        "%a %b %-d",
        "%y %j",
        "%s.%9f",
        "%d%%%m [%-H h %-M m %-S s]%[%]",
        "%Y-%m-%dT%T[.%f]",
    ]
)


@given(
    moments=st.lists(st.datetimes().map(moment_of) | st.dates().map(moment_of), max_size=8),
    pattern=PATTERNS,
    zone=st.sampled_from(ZoneStyle),
    minutes=st.integers(-1439, 1439),
    lower=st.booleans(),
    names=st.sampled_from(NameCase),
)
@settings(deadline=None)
def test_moments_of_a_column_are_written_as_single_cells(moments, pattern, zone, minutes, lower, names):  # noqa: PLR0917
    form = DatetimeForm(pattern + ("" if zone is ZoneStyle.NONE else "%z"), minutes * 60, zone, lower, names)
    for data_type, values in (
        (DataType.TIMESTAMP, moments),
        (DataType.DATE, [moment // DAY for moment in moments]),
        (DataType.INT64, [moment % DAY for moment in moments]),
    ):
        column = _column(data_type, WrittenForm(form))
        natives = np.array(values, np.int64)
        assert _as_column(column, natives) == _as_cells(column, natives)


@pytest.mark.parametrize(
    ("form", "bare"),
    [
        (WrittenForm(), True),
        (WrittenForm(pad_width=8), True),
        (WrittenForm(NumberForm(minimum_fraction_digits=2)), True),
        (WrittenForm(NumberForm(exponent=ExponentStyle.ALWAYS, exponent_plus=True)), True),
        (WrittenForm(MONEY), False),
        (WrittenForm(NumberForm(suffix="%")), False),
        (WrittenForm(NumberForm(decimal_separator=",")), False),
        (WrittenForm(NumberForm(plus=PlusSign.POSITIVE)), False),
        (WrittenForm(NumberForm(negative=NegativeStyle.UNICODE_MINUS)), False),
        (WrittenForm(NumberForm(minimum_integer_digits=5)), False),
        (WrittenForm(NumberForm(leading_point=True)), False),
    ],
)
def test_numbers_are_bare_in_json_where_it_has_them(form, bare):
    column = _column(DataType.DOUBLE, form, decimals=2)
    assert json_bare(column) is bare
    line = _bytes(RowFormat.NDJSON, [column], [ColumnArray(np.array([1234.5, -0.25]))]).decode().splitlines()
    found = [json.loads(one)["c"] for one in line]
    assert [isinstance(cell, float) for cell in found] == [bare, bare]
    if bare:
        assert found == [1234.5, -0.25]


def test_csv_and_ndjson_have_the_same_texts():
    columns = [
        replace(_column(DataType.DOUBLE, WrittenForm(MONEY), decimals=2), name="money"),
        replace(_column(DataType.INT64, WrittenForm(DatetimeForm("%-I:%M %p"))), name="time"),
        ColumnSpec(
            "flag",
            ColumnKind.BOOLEAN,
            DataType.BOOL,
            Domain((False, True), nullable=True),
            written_form=WrittenForm(BooleanForm("yes", "no")),
        ),
        ColumnSpec(
            "price",
            ColumnKind.CATEGORICAL,
            DataType.DECIMAL,
            Domain((Decimal("0.50"), Decimal("-1234.00")), decimals=2, nullable=True),
            written_form=WrittenForm(replace(MONEY, negative=NegativeStyle.PARENTHESES)),
        ),
        replace(_column(DataType.DATE, WrittenForm(DatetimeForm("%d.%m.%Y"), pad_width=12)), name="day"),
        replace(_column(DataType.INT64, WrittenForm(pad_width=6)), name="padded"),
    ]
    arrays = [
        ColumnArray(np.array([5786.95, -0.5, 0.0])),
        ColumnArray(np.array([22_560_000_000, 0, 43_200_000_000])),
        ColumnArray(np.array([1, 0, -1], np.int32)),
        ColumnArray(np.array([0, 1, -1], np.int32)),
        ColumnArray(np.array([19_638, -1, 0])),
        ColumnArray(np.array([42, -7, 0]), np.array([True, True, False])),
    ]
    lines = list(csv.reader(io.StringIO(_bytes(RowFormat.CSV, columns, arrays).decode())))
    assert lines == [
        ["money", "time", "flag", "price", "day", "padded"],
        ["$5,786.95", "6:16 AM", "yes", "$0.50", "  08.10.2023", "    42"],
        ["-$0.50", "12:00 AM", "no", "($1,234.00)", "  31.12.1969", "    -7"],
        ["$0.00", "12:00 PM", "", "", "  01.01.1970", ""],
    ]
    objects = [json.loads(line) for line in _bytes(RowFormat.NDJSON, columns, arrays).splitlines()]
    assert [[*cells.values()] for cells in objects] == [
        ["$5,786.95", "6:16 AM", "yes", "$0.50", "  08.10.2023", 42],
        ["-$0.50", "12:00 AM", "no", "($1,234.00)", "  31.12.1969", -7],
        ["$0.00", "12:00 PM", None, None, "  01.01.1970", None],
    ]


@given(
    rows=st.integers(1, 30),
    cut=st.integers(0, 30),
    row_format=st.sampled_from([RowFormat.CSV, RowFormat.NDJSON]),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=40)
def test_batches_joined_are_the_whole(rows, cut, row_format, seed):
    random = np.random.Generator(np.random.Philox(seed))
    columns = [
        replace(_column(DataType.DOUBLE, WrittenForm(MONEY), decimals=2), name="a"),
        replace(_column(DataType.TIMESTAMP, WrittenForm(DatetimeForm("%-m/%-d/%Y[ %-I:%M %p]"))), name="b"),
    ]
    arrays = {"a": random.integers(-(10**7), 10**7, rows) / 100, "b": random.integers(-(10**17), 10**17, rows)}
    encoder = make_encoder(row_format, TableSchema(tuple(columns)), {})

    def body(start: int, stop: int) -> bytes:
        part = {name: ColumnArray(values[start:stop]) for name, values in arrays.items()}
        made = encoder.batch(part, start, stop - start) if stop > start else b""
        assert isinstance(made, bytes)
        return made

    cut = min(cut, rows)
    assert body(0, cut) + body(cut, rows) == body(0, rows)


def _arrow(column: ColumnSpec, array: ColumnArray, identity: IdentityCodec | None = None) -> pa.ChunkedArray:
    made = make_encoder(RowFormat.ARROW_STREAM, TableSchema((column,)), {} if identity is None else {"c": identity})
    body = made.batch({"c": array}, 0, len(array))
    assert isinstance(body, bytes)
    table = pa.ipc.open_stream(made.header() + body + made.end()).read_all()
    table.validate(full=True)
    return table["c"]


NOON = 43_200_000_000


@pytest.mark.parametrize(
    ("data_type", "storage", "natives", "arrow_type", "cells"),
    [
        (DataType.INT64, StorageType.INT8, [-128, 127], pa.int8(), [-128, 127]),
        (DataType.INT64, StorageType.INT16, [-5, 300], pa.int16(), [-5, 300]),
        (DataType.INT64, StorageType.INT32, [-5, 70_000], pa.int32(), [-5, 70_000]),
        (DataType.INT64, StorageType.UINT8, [0, 255], pa.uint8(), [0, 255]),
        (DataType.INT64, StorageType.UINT16, [0, 65_535], pa.uint16(), [0, 65_535]),
        (DataType.INT64, StorageType.UINT32, [0, 2**32 - 1], pa.uint32(), [0, 2**32 - 1]),
        (DataType.INT64, StorageType.UINT64, [0, 2**63 - 1], pa.uint64(), [0, 2**63 - 1]),
        (DataType.DOUBLE, StorageType.FLOAT16, [0.5, -2.0], pa.float16(), [0.5, -2.0]),
        (DataType.DOUBLE, StorageType.FLOAT32, [0.1, 2.5], pa.float32(), [float(np.float32(0.1)), 2.5]),
        (DataType.INT64, StorageType.TIME32_S, [NOON], pa.time32("s"), [NOON // 10**6]),
        (DataType.INT64, StorageType.TIME32_MS, [NOON], pa.time32("ms"), [NOON // 10**3]),
        (DataType.INT64, StorageType.TIME64_US, [NOON], pa.time64("us"), [NOON]),
        (DataType.INT64, StorageType.TIME64_NS, [NOON], pa.time64("ns"), [NOON * 10**3]),
        (DataType.INT64, StorageType.DURATION_S, [90], pa.duration("s"), [90]),
        (DataType.INT64, StorageType.DURATION_MS, [90], pa.duration("ms"), [90]),
        (DataType.INT64, StorageType.DURATION_US, [90], pa.duration("us"), [90]),
        (DataType.INT64, StorageType.DURATION_NS, [-90], pa.duration("ns"), [-90]),
        (DataType.TIMESTAMP, StorageType.TIMESTAMP_S, [NOON, -(10**6)], pa.timestamp("s"), [43_200, -1]),
        (DataType.TIMESTAMP, StorageType.TIMESTAMP_MS, [NOON], pa.timestamp("ms"), [43_200_000]),
        (DataType.TIMESTAMP, StorageType.TIMESTAMP_NS, [NOON], pa.timestamp("ns"), [NOON * 10**3]),
        (DataType.DATE, StorageType.DATE64, [19_638], pa.date64(), [19_638 * 86_400_000]),
    ],
)
def test_arrow_has_the_type_that_a_column_came_in(data_type, storage, natives, arrow_type, cells):
    column = _column(data_type, WrittenForm(storage=storage), nullable=True)
    values = np.array([*natives, 0], np.float64 if data_type is DataType.DOUBLE else np.int64)
    valid = np.array([True] * len(natives) + [False])
    found = _arrow(column, ColumnArray(values, valid))
    assert found.type == arrow_type
    assert found.null_count == 1
    width = {8: pa.int8(), 16: pa.int16(), 32: pa.int32(), 64: pa.int64()}[arrow_type.bit_width]
    plain = found if pa.types.is_floating(arrow_type) or pa.types.is_integer(arrow_type) else found.cast(width)
    assert plain.to_pylist() == [*cells, None]


def test_a_time_zone_of_arrow_is_a_label():
    form = WrittenForm(DatetimeForm("", arrow_zone="Europe/Berlin"), StorageType.TIMESTAMP_MS)
    column = replace(_column(DataType.TIMESTAMP, form), time_zone="UTC")
    assert _arrow(column, ColumnArray(np.array([0]))).type == pa.timestamp("ms", "Europe/Berlin")
    text = _bytes(RowFormat.CSV, [column], [ColumnArray(np.array([0]))]).decode()
    assert text == "c\n1970-01-01T00:00:00Z\n"
    assert written(datetime(1970, 1, 1, tzinfo=UTC), column) == "1970-01-01T00:00:00Z"


def test_large_text_and_integers_beyond_int64():
    large = ColumnSpec(
        "c", ColumnKind.CATEGORICAL, DataType.STRING, Domain(("a", "b"), nullable=False),
        written_form=WrittenForm(storage=StorageType.LARGE_STRING),
    )  # fmt: skip
    found = _arrow(large, ColumnArray(np.array([1, 0], np.int32)))
    assert found.type == pa.dictionary(pa.int32(), pa.large_utf8())
    assert found.to_pylist() == ["b", "a"]
    digits = replace(
        large,
        domain=Domain(("18446744073709551615", "0"), nullable=True),
        written_form=WrittenForm(storage=StorageType.UINT64),
    )
    found = _arrow(digits, ColumnArray(np.array([0, -1, 1], np.int32)))
    assert (found.type, found.to_pylist()) == (pa.uint64(), [2**64 - 1, None, 0])
    assert _bytes(RowFormat.NDJSON, [digits], [ColumnArray(np.array([0], np.int32))]) == b'{"c":18446744073709551615}\n'


def _id(data_type: DataType, storage: StorageType | None, *, nullable: bool = False) -> ColumnSpec:
    return ColumnSpec("c", ColumnKind.ID, data_type, Domain(nullable=nullable), written_form=WrittenForm(None, storage))


def test_ids_have_the_type_of_the_column_where_all_of_them_fit():
    ranks = ColumnArray(np.array([0, 41]))
    texts = IdentityCodec(False, 0, 10**12, "1[0-7][0-9]{18}")
    found = _arrow(_id(DataType.STRING, StorageType.UINT64), ranks, texts)
    assert found.type == pa.uint64()
    assert found.to_pylist() == list(map(int, texts.texts(ranks.values.astype(np.int64))))
    for pattern in ("[0-9]{4}", "[1-9][0-9]{19}", "1[0-9]a"):
        other = IdentityCodec(False, 0, 100, pattern)
        assert _arrow(_id(DataType.STRING, StorageType.UINT64), ranks, other).type == pa.utf8()
    assert _arrow(_id(DataType.INT64, StorageType.INT16), ranks, IdentityCodec(True, 0, 2**15, "")).type == pa.int16()
    assert _arrow(_id(DataType.INT64, StorageType.INT16), ranks, IdentityCodec(True, 1, 2**15, "")).type == pa.int64()
    large = _arrow(_id(DataType.STRING, StorageType.LARGE_STRING), ranks, texts)
    assert large.type == pa.large_utf8()


def test_missing_ids_are_missing_in_every_format():
    for data_type, codec, storage in (
        (DataType.INT64, IdentityCodec(True, 5, 100, "", missing=MISSING_ONE // 2), None),
        (DataType.STRING, IdentityCodec(False, 0, 1000, "N[0-9]{3}", missing=MISSING_ONE // 2), None),
        (DataType.STRING, IdentityCodec(False, 0, 900, "[1-9][0-9]{2}", missing=MISSING_ONE // 2), StorageType.UINT64),
    ):
        column = _id(data_type, storage, nullable=True)
        schema = TableSchema((column, replace(column, name="d")))
        cells = codec.cells(0, 40, bytes(16))
        missing = cells.missing().tolist()
        assert 0 < sum(missing) < 40
        made: dict[RowFormat, object] = {}
        for row_format in (RowFormat.CSV, RowFormat.NDJSON, RowFormat.COLUMNS):
            encoder = make_encoder(row_format, schema, {"c": codec, "d": codec})
            made[row_format] = encoder.batch({"c": cells, "d": cells}, 0, 40)
        texts = made[RowFormat.CSV]
        assert isinstance(texts, bytes)
        assert [line.split(",")[0] == "" for line in texts.decode().splitlines()] == missing
        lines = made[RowFormat.NDJSON]
        assert isinstance(lines, bytes)
        assert [json.loads(line)["c"] is None for line in lines.splitlines()] == missing
        assert [cell is None for cell in _arrow(column, cells, codec).to_pylist()] == missing
        typed = made[RowFormat.COLUMNS].columns[0]  # type: ignore[attr-defined]
        assert not any(value for value, absent in zip(typed.values, missing, strict=True) if absent)


def test_a_missing_cell_of_a_single_column_is_no_empty_line():
    number = _column(DataType.INT64, WrittenForm(), nullable=True)
    array = ColumnArray(np.array([1, 0, 3]), np.array([True, False, True]))
    assert _bytes(RowFormat.CSV, [number], [array]) == b'c\n1\n""\n3\n'
    assert _bytes(RowFormat.CSV, [number, replace(number, name="d")], [array, array]) == b"c,d\n1,1\n,\n3,3\n"
    city = ColumnSpec("c", ColumnKind.CATEGORICAL, DataType.STRING, Domain(("a", "b"), nullable=True))
    codes = ColumnArray(np.array([0, -1, 1], np.int32))
    assert _bytes(RowFormat.CSV, [city], [codes]) == b'c\na\n""\nb\n'
    both = replace(city, domain=Domain(("a", ""), nullable=True))
    with pytest.raises(InvalidFieldError, match="cannot tell a missing cell from an empty text") as refused:
        make_encoder(RowFormat.CSV, TableSchema((both,)), {})
    assert [violation.field for violation in refused.value.violations] == ["format"]
    filled = replace(both, domain=Domain(("a", ""), nullable=False))
    assert _bytes(RowFormat.CSV, [filled], [ColumnArray(np.array([0, 1], np.int32))]) == b'c\na\n""\n'
    two = [both, replace(number, name="d")]
    assert _bytes(RowFormat.CSV, two, [codes, array]) == b'c,d\na,1\n,\n"",3\n'


@pytest.mark.parametrize(
    ("column", "array"),
    [
        (_column(DataType.INT64, WrittenForm(), nullable=True), np.array([1, 0, 3])),
        (_column(DataType.DOUBLE, WrittenForm(MONEY), nullable=True, decimals=2), np.array([1.0, 0.0, 3.0])),
        (_column(DataType.DATE, WrittenForm(DatetimeForm("%d.%m.%Y")), nullable=True), np.array([1, 0, 3])),
        (_column(DataType.TIMESTAMP, WrittenForm(), nullable=True), np.array([1, 0, 3])),
        (
            ColumnSpec("c", ColumnKind.CATEGORICAL, DataType.STRING, Domain(("a", "b"), nullable=True)),
            np.array([1, -1, 0], np.int32),
        ),
    ],
)
def test_every_reader_finds_the_rows_of_a_single_column(column, array):
    body = _bytes(RowFormat.CSV, [column], [ColumnArray(array, None if array.dtype == np.int32 else array != 0)])
    rows = list(csv.reader(io.StringIO(body.decode(), newline="")))
    assert [len(row) for row in rows] == [1, 1, 1, 1]
    assert [not row[0] for row in rows] == [False, False, True, False]
    found = pyarrow.csv.read_csv(io.BytesIO(body), convert_options=pyarrow.csv.ConvertOptions(strings_can_be_null=True))
    assert [cell is None for cell in found["c"].to_pylist()] == [False, True, False]


LEADS = [*"=+-@\t\r\n\uff1d\uff0b\uff0d\uff20", " =", "\u00a0=", "\u3000@", "\ufeff="]


@pytest.mark.parametrize("lead", LEADS)
def test_every_beginning_of_a_formula_is_escaped_in_every_text(lead):
    text = f"{lead}1"
    assert escaped(text) == quoted(f"'{text}")
    assert escaped(f"a{text}") == quoted(f"a{text}")
    category = ColumnSpec("c", ColumnKind.CATEGORICAL, DataType.STRING, Domain((text,), nullable=False))
    first = ColumnArray(np.zeros(1, np.int32))
    plain = _bytes(RowFormat.CSV, [category], [first])
    assert plain.decode() == f"c\n{quoted(text)}\n"
    assert _bytes(RowFormat.CSV, [category], [first], escape_formulas=True).decode() == f"c\n{escaped(text)}\n"
    header = replace(category, name=text, domain=Domain(("a",), nullable=False))
    assert _bytes(RowFormat.CSV, [header], [first], escape_formulas=True).decode() == f"{escaped(text)}\na\n"
    if "\n" not in text and "\r" not in text and "\t" not in text:
        day = _column(DataType.DATE, WrittenForm(DatetimeForm(f"{lead}%Y-%m-%d")))
        body = _bytes(RowFormat.CSV, [day], [ColumnArray(np.array([0]))], escape_formulas=True).decode()
        assert body == f"c\n'{lead}1970-01-01\n"
        ids = make_encoder(
            RowFormat.CSV,
            TableSchema((_id(DataType.STRING, None),)),
            {"c": IdentityCodec(False, 0, 10, f"{lead}[0-9]")},
            escape_formulas=True,
        )
        assert ids.batch({"c": ColumnArray(np.array([3]))}, 0, 1) == f"'{lead}3\n".encode()


def test_numbers_are_never_escaped():
    column = _column(DataType.DOUBLE, WrittenForm(replace(MONEY, prefix="")), decimals=2)
    body = _bytes(RowFormat.CSV, [column], [ColumnArray(np.array([-5.0, -1234.5]))], escape_formulas=True)
    assert body == b'c\n-5.00\n"-1,234.50"\n'
