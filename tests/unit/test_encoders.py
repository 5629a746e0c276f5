"""Encoders: the same cells in four formats, read back by independent readers."""

import csv
import io
import json
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowmint.codecs import IdentityCodec
from rowmint.sampling.formats import RowFormat, make_encoder
from rowmint.sampling.formats.arrow import END_OF_STREAM
from rowmint.sampling.formats.columns import TypedBatch, ValueKind
from rowmint.sampling.formats.delimited import escaped, quoted
from rowmint.sampling.formats.text import date_texts, decimal_texts, timestamp_texts
from rowmint.schema import Cell, ColumnKind, ColumnSpec, DataType, TableSchema, cell_text
from rowmint.schema.arrays import ColumnArray, column_cells, is_coded, native_cell
from tests.golden.make import SCHEMA, codecs, column

IDENTITIES = {
    spec.name: codec
    for spec, codec in zip(SCHEMA.columns, codecs(), strict=True)
    if isinstance(codec, IdentityCodec)
}  # fmt: skip
PLAIN = TableSchema(tuple(replace(spec, datetime_format="") for spec in SCHEMA.columns), "id")
# Days and microseconds that Python's dates can hold.
DAYS = (-719_162, 2_932_896)
MICROS = (DAYS[0] * 86_400_000_000, DAYS[1] * 86_400_000_000)


def _natives(spec: ColumnSpec) -> st.SearchStrategy:
    if is_coded(spec):
        return st.integers(-1 if spec.nullable else 0, len(spec.domain.categories) - 1)
    match spec.data_type:
        case DataType.DOUBLE:
            return st.floats(allow_nan=False, allow_infinity=False)
        case DataType.DATE:
            return st.integers(*DAYS)
        case DataType.TIMESTAMP:
            return st.integers(*MICROS)
        case DataType.STRING:
            return st.integers(0, IDENTITIES[spec.name].size - 1)
        case _:
            return st.integers(-(2**63), 2**63 - 1)


@st.composite
def tables(draw, schema=PLAIN):
    rows = draw(st.integers(1, 20))
    columns = {}
    for spec in schema.columns:
        values = draw(st.lists(_natives(spec), min_size=rows, max_size=rows))
        if is_coded(spec):
            columns[spec.name] = ColumnArray(np.array(values, np.int32))
            continue
        array = np.array(values, np.float64 if spec.data_type is DataType.DOUBLE else np.int64)
        valid = None
        if spec.nullable:
            valid = np.array(draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
        columns[spec.name] = ColumnArray(array, valid)
    return rows, columns


def expected_cells(spec: ColumnSpec, array: ColumnArray) -> list[Cell]:
    if spec.kind is ColumnKind.ID and spec.data_type is DataType.STRING:
        return IDENTITIES[spec.name].texts(array.values)
    return column_cells(array, spec)


def arrow_table(body: bytes) -> pa.Table:
    table = pa.ipc.open_stream(body).read_all()
    table.validate(full=True)
    return table


def encoder(row_format: RowFormat, schema: TableSchema = PLAIN, **options):
    return make_encoder(row_format, schema, IDENTITIES, **options)


def file_of(row_format: RowFormat, columns, rows: int, schema: TableSchema = PLAIN, **options) -> bytes:
    made = encoder(row_format, schema, **options)
    return made.header() + made.batch(columns, 0, rows) + made.end()


@given(tables())
@settings(max_examples=60, deadline=None)
def test_arrow_is_read_back(table):
    rows, columns = table
    found = arrow_table(file_of(RowFormat.ARROW_STREAM, columns, rows))
    for spec in PLAIN.columns:
        assert found[spec.name].to_pylist() == expected_cells(spec, columns[spec.name])
        assert found.schema.field(spec.name).nullable == spec.nullable


def _csv_cells(text: str) -> list[list[str | None]]:
    """Read CSV, distinguishing the empty field from the empty string, which the `csv` module does not."""
    marked = text.replace('"""', "\0")  # no cell here begins or ends with a quote beside a comma
    rows = list(csv.reader(io.StringIO(marked.replace('""', "\1"), newline=""), strict=True))
    restore = {"": None, "\1": ""}
    return [
        [restore[cell] if cell in restore else cell.replace("\1", '"').replace("\0", '"') for cell in row]
        for row in rows
    ]


@given(tables())
@settings(max_examples=60, deadline=None)
def test_csv_is_read_back(table):
    rows, columns = table
    plain = TableSchema(tuple(spec for spec in PLAIN.columns if spec.name != "city"))
    lines = _csv_cells(file_of(RowFormat.CSV, columns, rows, plain).decode())
    assert lines[0] == list(plain.names)
    for position, spec in enumerate(plain.columns):
        cells = expected_cells(spec, columns[spec.name])
        assert [line[position] for line in lines[1:]] == [None if cell is None else cell_text(cell) for cell in cells]


def test_csv_quotes_what_it_must():
    schema = TableSchema((PLAIN.column("city"), PLAIN.column("grade")))
    codes = np.array([0, 1, 2, 3, 4, 6, -1], np.int32)
    columns = {"city": ColumnArray(codes), "grade": ColumnArray(np.zeros(7, np.int32))}
    body = file_of(RowFormat.CSV, columns, 7, schema)
    expected = 'city,grade\nParis,1\n"New York, NY",1\n"the ""Hague""",1\n"",1\n=1+1,1\n"two\nlines",1\n,1\n'
    assert body.decode() == expected
    safe = file_of(RowFormat.CSV, columns, 7, schema, escape_formulas=True)
    assert safe.decode() == expected.replace("=1+1", "'=1+1")


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@a"])
def test_a_formula_is_escaped(text):
    assert (quoted(text), escaped(text), escaped(text + ",")) == (text, f"'{text}", f'"\'{text},"')


@given(tables())
@settings(max_examples=60, deadline=None)
def test_ndjson_is_read_back(table):
    rows, columns = table
    text = file_of(RowFormat.NDJSON, columns, rows).decode()
    lines = text.removesuffix("\n").split("\n")
    assert len(lines) == rows
    found = [json.loads(line, parse_float=str) for line in lines]
    assert [list(line) for line in found] == [list(PLAIN.names)] * rows
    for spec in PLAIN.columns:
        for line, cell in zip(found, expected_cells(spec, columns[spec.name]), strict=True):
            shown = line[spec.name]
            if cell is None or isinstance(cell, bool | int | str):
                assert shown == cell
            else:
                assert shown == cell_text(cell)


def _typed_cells(spec: ColumnSpec, batch: TypedBatch) -> list[Cell]:
    typed = batch.columns[PLAIN.names.index(spec.name)]
    bits = np.unpackbits(np.frombuffer(typed.validity, np.uint8), bitorder="little").astype(bool)
    valid = bits[: batch.rows].tolist() if typed.validity else [True] * batch.rows
    cells: list[Cell] = []
    for value, there in zip(typed.values, valid, strict=True):
        if not there:
            assert value in (0, False, "")
            cells.append(None)
        elif typed.kind is ValueKind.INDICES:
            cells.append(spec.domain.categories[value])
        elif typed.kind is ValueKind.STRINGS:
            cells.append(Decimal(value) if spec.data_type is DataType.DECIMAL else value)
        elif typed.kind is ValueKind.INT64S:
            cells.append(native_cell(value, spec))
        else:
            cells.append(value)
    return cells


@given(tables())
@settings(max_examples=60, deadline=None)
def test_typed_columns_are_read_back(table):
    rows, columns = table
    batch = encoder(RowFormat.COLUMNS).batch(columns, 5, rows)
    assert isinstance(batch, TypedBatch)
    assert (batch.first_row, batch.rows) == (5, rows)
    assert len(batch) > 0
    for spec in PLAIN.columns:
        assert _typed_cells(spec, batch) == expected_cells(spec, columns[spec.name])


@given(tables(), st.sampled_from([RowFormat.ARROW_STREAM, RowFormat.CSV, RowFormat.NDJSON]))
@settings(max_examples=30, deadline=None)
def test_a_slice_is_written_as_a_fresh_array(table, row_format):
    rows, columns = table
    made = encoder(row_format)
    for stop in {1, rows}:
        views = {name: array.take(slice(0, stop)) for name, array in columns.items()}
        fresh = {
            name: ColumnArray(view.values.copy(), None if view.valid is None else view.valid.copy())
            for name, view in views.items()
        }
        assert made.batch(views, 0, stop) == made.batch(fresh, 0, stop)


def test_what_lies_under_a_missing_cell_is_not_written():
    schema = TableSchema((PLAIN.column("score"),))
    valid = np.array([True, False])
    left = {"score": ColumnArray(np.array([1.5, 7.25]), valid)}
    right = {"score": ColumnArray(np.array([1.5, 0.0]), valid)}
    for row_format in RowFormat:
        made = encoder(row_format, schema)
        assert made.batch(left, 0, 2) == made.batch(right, 0, 2)


def test_arrow_bytes_are_those_of_a_stream_writer():
    rng = np.random.default_rng(1)
    columns = {}
    for spec in PLAIN.columns:
        low = -1 if spec.nullable else 0
        if is_coded(spec):
            columns[spec.name] = ColumnArray(
                rng.integers(low, max(low + 1, len(spec.domain.categories)), 100, dtype=np.int32)
            )
        else:
            columns[spec.name] = ColumnArray(
                rng.integers(0, 10**6, 100).astype(np.float64 if spec.data_type is DataType.DOUBLE else np.int64)
            )
    body = file_of(RowFormat.ARROW_STREAM, columns, 100)
    table = arrow_table(body)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        for batch in table.to_batches():
            writer.write_batch(batch)
    assert sink.getvalue().to_pybytes() == body


def test_an_arrow_file_of_no_rows_is_whole():
    made = encoder(RowFormat.ARROW_STREAM)
    table = arrow_table(made.header() + made.end())
    assert table.num_rows == 0
    assert table.schema.names == list(PLAIN.names)
    assert made.end() == END_OF_STREAM


def test_arrow_types():
    schema = arrow_table(encoder(RowFormat.ARROW_STREAM).header() + END_OF_STREAM).schema
    text = pa.dictionary(pa.int32(), pa.utf8())
    assert [field.type for field in schema] == [
        pa.int64(), text, pa.int64(), pa.bool_(), pa.int64(), pa.decimal128(38, 2), pa.float64(), pa.float64(),
        pa.date32(), pa.timestamp("us"), pa.timestamp("us", tz="Europe/Berlin"), pa.decimal128(38, 1), pa.date32(),
        text, pa.utf8(),
    ]  # fmt: skip


@given(st.integers(*DAYS))
def test_date_texts(days):
    cell = native_cell(days, PLAIN.column("day"))
    assert isinstance(cell, date)
    assert date_texts(np.array([days])) == [cell.isoformat()]


@given(st.integers(*MICROS))
def test_timestamp_texts(micros):
    cell = native_cell(micros, PLAIN.column("seen"))
    assert isinstance(cell, datetime)
    assert timestamp_texts(np.array([micros]), "") == [cell.isoformat()]


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 15))
def test_decimal_texts(units, digits):
    assert decimal_texts(np.array([units]), digits) == [format(Decimal(units).scaleb(-digits), "f")]


def test_a_column_s_own_datetime_format_is_for_csv_alone():
    schema = TableSchema((SCHEMA.column("seen"),))
    moment = np.array([datetime(2013, 2, 1, 5, 7, tzinfo=UTC).timestamp() * 10**6]).astype(np.int64)
    columns = {"seen": ColumnArray(moment)}
    assert file_of(RowFormat.CSV, columns, 1, schema) == b"seen\n01/02/2013 05:07\n"
    assert file_of(RowFormat.NDJSON, columns, 1, schema) == b'{"seen":"2013-02-01T05:07:00"}\n'


def test_a_format_with_an_offset():
    spec = column("at", ColumnKind.DATETIME, DataType.TIMESTAMP, time_zone="Asia/Tokyo", datetime_format="%H:%M%z, %Y")
    moment = int(datetime(2020, 1, 1, 9, tzinfo=ZoneInfo("Asia/Tokyo")).timestamp()) * 10**6
    body = file_of(RowFormat.CSV, {"at": ColumnArray(np.array([moment]))}, 1, TableSchema((spec,)))
    assert body == b'at\n"00:00+0000, 2020"\n'


def test_a_decimal_category_without_declared_digits():
    spec = column("x", ColumnKind.CATEGORICAL, DataType.DECIMAL, categories=(Decimal("1.5"), Decimal("-0.25")))
    columns = {"x": ColumnArray(np.array([0, 1], np.int32))}
    schema = TableSchema((spec,))
    assert file_of(RowFormat.CSV, columns, 2, schema) == b"x\n1.50\n-0.25\n"
    found = arrow_table(file_of(RowFormat.ARROW_STREAM, columns, 2, schema))
    assert found["x"].to_pylist() == [Decimal("1.50"), Decimal("-0.25")]


def test_names_are_quoted_too():
    spec = replace(PLAIN.column("grade"), name='a "b", c')
    columns = {spec.name: ColumnArray(np.zeros(1, np.int32))}
    schema = TableSchema((spec,))
    assert file_of(RowFormat.CSV, columns, 1, schema) == b'"a ""b"", c"\n1\n'
    assert file_of(RowFormat.NDJSON, columns, 1, schema) == b'{"a \\"b\\", c":1}\n'
