"""Completed rows are written as sampled ones: the same cells give the same text, in CSV and in JSON."""

import json
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from rowmint.cli.cells import csv_line, json_object
from rowmint.client.values import text_column
from rowmint.codecs import IdentityCodec
from rowmint.rpc.converters import column_to_proto
from rowmint.sampling.formats import RowFormat, make_encoder
from rowmint.schema import ColumnKind, ColumnSpec, DataType, Domain, TableSchema
from rowmint.schema.arrays import ColumnArray, column_cells
from rowmint.schema.forms import BooleanForm, DatetimeForm, Grouping, NumberForm, StorageType, WrittenForm

MONEY = NumberForm(prefix="$", grouping=Grouping.THOUSANDS, group_separator=",", minimum_fraction_digits=2)


def _column(name: str, kind: ColumnKind, data_type: DataType, form: WrittenForm, **more: object) -> ColumnSpec:
    domain = {key: more.pop(key) for key in list(more) if key in Domain.__dataclass_fields__}
    return ColumnSpec(name, kind, data_type, Domain(**{"nullable": True, **domain}), written_form=form, **more)  # type: ignore[arg-type]


NUMBERS = np.array([1234.5, -0.25, 7.0])
COLUMNS: list[tuple[ColumnSpec, ColumnArray]] = [
    (_column("plain", ColumnKind.NUMERICAL, DataType.DOUBLE, WrittenForm()), ColumnArray(NUMBERS)),
    (_column("money", ColumnKind.NUMERICAL, DataType.DOUBLE, WrittenForm(MONEY), decimals=2), ColumnArray(NUMBERS)),
    (
        _column("fixed", ColumnKind.NUMERICAL, DataType.DOUBLE, WrittenForm(NumberForm(minimum_fraction_digits=3))),
        ColumnArray(NUMBERS),
    ),
    (
        _column("cents", ColumnKind.NUMERICAL, DataType.DECIMAL, WrittenForm(), decimals=2),
        ColumnArray(np.array([150, -7, 0]), np.array([True, True, False])),
    ),
    (
        _column("padded", ColumnKind.NUMERICAL, DataType.INT64, WrittenForm(pad_width=5)),
        ColumnArray(np.array([42, -7, 12345])),
    ),
    (
        _column("day", ColumnKind.DATETIME, DataType.DATE, WrittenForm(DatetimeForm("%d.%m.%Y"))),
        ColumnArray(np.array([0, 19_638, -1])),
    ),
    (
        _column("old", ColumnKind.DATETIME, DataType.DATE, WrittenForm(), datetime_format="%d/%m/%Y"),
        ColumnArray(np.array([0, 19_638, -1])),
    ),
    (
        _column("instant", ColumnKind.DATETIME, DataType.TIMESTAMP, WrittenForm(), time_zone="UTC"),
        ColumnArray(np.array([0, 1, 10**15])),
    ),
    (
        _column(
            "flag", ColumnKind.BOOLEAN, DataType.BOOL, WrittenForm(BooleanForm("yes", "no")), categories=(True, False)
        ),
        ColumnArray(np.array([0, 1, -1], np.int32)),
    ),
    (
        _column("truth", ColumnKind.BOOLEAN, DataType.BOOL, WrittenForm(), categories=(True, False)),
        ColumnArray(np.array([0, 1, -1], np.int32)),
    ),
    (
        _column("city", ColumnKind.CATEGORICAL, DataType.STRING, WrittenForm(), categories=("a,b", "", 'the "c"')),
        ColumnArray(np.array([0, 1, 2], np.int32)),
    ),
    (
        _column(
            "big",
            ColumnKind.CATEGORICAL,
            DataType.STRING,
            WrittenForm(storage=StorageType.UINT64),
            categories=("18446744073709551615", "0"),
        ),
        ColumnArray(np.array([0, -1, 1], np.int32)),
    ),
    (
        _column("price", ColumnKind.CATEGORICAL, DataType.DECIMAL, WrittenForm(MONEY), categories=(Decimal("0.50"),)),
        ColumnArray(np.array([0, -1, 0], np.int32)),
    ),
]


def _lines(row_format: RowFormat, columns: list[ColumnSpec], arrays: list[ColumnArray]) -> list[str]:
    encoder = make_encoder(row_format, TableSchema(tuple(columns)), {})
    body = encoder.batch({column.name: array for column, array in zip(columns, arrays, strict=True)}, 0, 3)
    assert isinstance(body, bytes)
    return body.decode().removesuffix("\n").split("\n")


def test_completed_rows_are_written_as_sampled_ones() -> None:
    columns, arrays = [column for column, _ in COLUMNS], [array for _, array in COLUMNS]
    cells = [column_cells(array, column) for column, array in COLUMNS]
    rows = [dict(zip((column.name for column in columns), row, strict=True)) for row in zip(*cells, strict=True)]
    received = [text_column(column_to_proto(column)) for column in columns]
    assert [csv_line(row, received) for row in rows] == [f"{line}\n" for line in _lines(RowFormat.CSV, columns, arrays)]
    made = [json_object(row, received) for row in rows]
    expected = _lines(RowFormat.NDJSON, columns, arrays)
    assert [json.loads(one, parse_float=Decimal) for one in made] == [
        json.loads(one, parse_float=Decimal) for one in expected
    ]
    assert [json.dumps(json.loads(one, parse_float=str)) for one in made] == [
        json.dumps(json.loads(one, parse_float=str)) for one in expected
    ]


@pytest.mark.parametrize(("column", "array"), COLUMNS)
def test_a_single_column_is_written_as_a_sampled_one(column: ColumnSpec, array: ColumnArray) -> None:
    if column.name == "city":
        column = replace(column, domain=replace(column.domain, nullable=False))
    received = [text_column(column_to_proto(column))]
    lines = [csv_line({column.name: cell}, received) for cell in column_cells(array, column)]
    assert lines == [f"{line}\n" for line in _lines(RowFormat.CSV, [column], [array])]


def test_ids_are_written_as_sampled_ones() -> None:
    column = ColumnSpec(
        "id", ColumnKind.ID, DataType.INT64, written_form=WrittenForm(NumberForm(minimum_integer_digits=6))
    )
    codec = IdentityCodec(True, 1, 999, "", sequential=True)
    encoder = make_encoder(RowFormat.CSV, TableSchema((column,)), {"id": codec})
    ids = codec.cells(0, 2, bytes(16))
    received = [text_column(column_to_proto(column))]
    lines = "".join(csv_line({"id": cell}, received) for cell in ids.values.tolist())
    assert lines == "000001\n000002\n"
    assert encoder.batch({"id": ids}, 0, 2) == lines.encode()
