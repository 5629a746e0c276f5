"""Known cells of rows, written by the client and read by the sampler: what is remembered of one changes no other."""

from datetime import date
from decimal import Decimal

import pytest

from rowmint.client import completed_rows as client_rows
from rowmint.client import partial_rows, values
from rowmint.client.partial_rows import PartialRows
from rowmint.errors import ColumnNotFoundError, InvalidFieldError
from rowmint.rpc.values import cell_to_value, value_to_cell
from rowmint.sampling.completion import CompletedRow
from rowmint.synthesizer import CompletionSupport
from rowmint.v1 import sampling_pb2, schema_pb2, value_pb2
from sampler_service.converters import completed_rows, sent_cells
from sampler_service.converters.completed_rows import CompletedRows
from sampler_service.converters.sent_cells import SentCells
from sampler_service.row_sessions import AnsweredRows

SCHEMA = schema_pb2.TableSchema(
    columns=[
        schema_pb2.ColumnSpec(name="text", data_type=schema_pb2.DATA_TYPE_STRING),
        schema_pb2.ColumnSpec(name="whole", data_type=schema_pb2.DATA_TYPE_INT64),
        schema_pb2.ColumnSpec(name="double", data_type=schema_pb2.DATA_TYPE_DOUBLE),
        schema_pb2.ColumnSpec(name="price", data_type=schema_pb2.DATA_TYPE_DECIMAL),
        schema_pb2.ColumnSpec(name="day", data_type=schema_pb2.DATA_TYPE_DATE),
        schema_pb2.ColumnSpec(name="flag", data_type=schema_pb2.DATA_TYPE_BOOL),
    ]
)
LONG = "x" * 300
ROWS = [
    {},
    {"text": "a", "whole": 1, "double": 0.0, "price": Decimal("1.0"), "day": date(2020, 1, 1), "flag": True},
    {"flag": True, "double": -0.0, "whole": 1, "price": Decimal("1.00"), "text": "1"},
    {"text": None, "whole": "1", "double": 1, "price": 1, "flag": False},
    {"text": "1", "whole": 2, "double": 1.0, "price": "1.00", "day": "2020-01-01"},
    {"text": LONG, "whole": 1.0, "double": 0.0},
    {"text": ""},
]


def expected(known):
    columns = {column.name: column for column in SCHEMA.columns}
    return sampling_pb2.PartialRow(
        known={name: values.typed_value(cell, columns[name]) for name, cell in known.items()}
    )


@pytest.mark.parametrize("most", [1 << 16, 6], ids=["all remembered", "one of each column"])
def test_a_row_is_what_its_cells_are_one_by_one(most, monkeypatch):
    monkeypatch.setattr(partial_rows, "_REMEMBERED", most)
    made = PartialRows(SCHEMA)
    for _ in range(2):
        for known in ROWS:
            row = sampling_pb2.PartialRow.FromString(made.row(known, 0))
            assert {name: str(value) for name, value in row.known.items()} == {
                name: str(value) for name, value in expected(known).known.items()
            }


def test_what_is_remembered_is_short_and_of_plain_types():
    made = PartialRows(SCHEMA)
    for known in ROWS:
        made.row(known, 0)
    remembered = {name: set(column.remembered) for name, column in made._columns.items()}
    assert remembered == {
        "text": {"a", "1", ""},
        "whole": {1, "1", 2},
        "double": {1},
        "price": {1, "1.00"},
        "day": {"2020-01-01"},
        "flag": set(),
    }


def test_a_cell_that_is_none_of_its_column_names_its_row_each_time():
    made = PartialRows(SCHEMA)
    for index in (3, 4):
        with pytest.raises(InvalidFieldError, match=rf"rows\[{index}\].whole"):
            made.row({"text": "a", "whole": "old"}, index)
    with pytest.raises(InvalidFieldError, match=r"rows\[5\].whole"):
        made.row({"whole": True}, 5)
    with pytest.raises(ColumnNotFoundError, match="wholes"):
        made.row({"text": "a", "wholes": 1}, 3)


@pytest.mark.parametrize("most", [1 << 13, 1], ids=["all remembered", "one remembered"])
def test_sent_cells_are_those_of_each_value(most, monkeypatch):
    monkeypatch.setattr(sent_cells, "MOST_REMEMBERED", most)
    monkeypatch.setattr(completed_rows, "MOST_REMEMBERED", most)
    cells = SentCells()
    made = {"text": "new", "whole": 1, "double": -0.0, "price": Decimal("1.00"), "flag": True, "day": None}
    for _ in range(2):
        messages = CompletedRows()
        for known in ROWS:
            row = expected(known)
            rows = cells.read([row], 0)
            (found,) = rows.known
            read = {name: value_to_cell(value, name) for name, value in row.known.items()}
            assert {name: repr(cell) for name, cell in found.items()} == {
                name: repr(cell) for name, cell in read.items()
            }
            completed = CompletedRow(7, {**made, **found}, 3.0, 0.1, CompletionSupport.WIDENED)
            (response,) = messages.responses(AnsweredRows([completed], rows))
            assert str(response.rows.rows[0]) == str(
                sampling_pb2.CompletedRow(
                    row=7,
                    values=[row.known[name] if name in row.known else cell_to_value(made[name]) for name in made],
                    effective_sample_size=3.0,
                    tolerance=0.1,
                    support=sampling_pb2.COMPLETION_SUPPORT_WIDENED,
                )
            )


def test_what_a_newer_caller_sends_beside_known_cells_is_ignored():
    row = sampling_pb2.PartialRow.FromString(expected({"whole": 1}).SerializeToString() + b"\x7a\x01x\xf8\x01\x05")
    assert SentCells().read([row], 0).known == [{"whole": 1}]


def test_a_malformed_cell_is_named_with_its_row_each_time():
    cells, whole = SentCells(), expected({"whole": 1, "text": LONG})
    assert cells.read([whole], 0).known == [{"whole": 1, "text": LONG}]
    for bad in ({"date_value": "2020-13-01"}, {"double_value": float("nan")}, {"string_value": "x" * 65_537}, {}):
        row = sampling_pb2.PartialRow(known={"whole": whole.known["whole"], "day": type(whole.known["whole"])(**bad)})
        for index in (4, 5):
            with pytest.raises(InvalidFieldError, match=rf"rows\[{index}\]\.known\['day'\]"):
                cells.read([whole, row], index - 1)


def test_no_more_cells_are_remembered_than_take_little(monkeypatch):
    monkeypatch.setattr(sent_cells, "MOST_REMEMBERED", 100)
    cells = SentCells()
    for number in range(110):
        cells.read([expected({"whole": number})], number)
    assert len(cells._remembered) == 10


@pytest.mark.parametrize("most", [1 << 13, 1], ids=["all remembered", "one remembered"])
def test_completed_rows_are_read_as_each_value_is(most, monkeypatch):
    monkeypatch.setattr(client_rows, "_MOST_REMEMBERED", most)
    names = ["text", "whole", "double", "price", "day"]
    reader = client_rows.CompletedRows(names)
    rows = [
        ["a", 1, 0.0, Decimal("1.0"), date(2020, 1, 1)],
        ["1", 1, -0.0, Decimal("1.00"), None],
        [LONG, True, 1.0, 1, False],
        ["", 0, None, "", "a"],
    ]
    for index, cells in [*enumerate(rows), *enumerate(rows, 127), *enumerate(rows, 2**40)]:
        message = sampling_pb2.CompletedRow(
            row=index,
            values=[cell_to_value(cell) for cell in cells],
            tolerance=0.5,
            support=sampling_pb2.COMPLETION_SUPPORT_MATCHED,
        )
        found = reader.read(message)
        assert [(name, repr(cell)) for name, cell in found.items()] == [
            (name, repr(cell)) for name, cell in zip(names, cells, strict=True)
        ]
        assert (found.row, found.effective_sample_size, found.tolerance, found.support) == (index, 0.0, 0.5, "matched")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_completed_row_that_has_not_a_value_for_each_column_is_damaged(count):
    reader = client_rows.CompletedRows(["a", "b"])
    for text in ("x", LONG):
        with pytest.raises(ValueError, match="zip"):
            reader.read(sampling_pb2.CompletedRow(row=1, values=[cell_to_value(text)] * count))


def test_a_malformed_value_of_a_completed_row_is_named_by_its_place():
    reader = client_rows.CompletedRows(["a", "b"])
    row = sampling_pb2.CompletedRow(row=1, values=[cell_to_value(1), value_pb2.Value(date_value="2020-13-01")])
    for _ in range(2):
        with pytest.raises(InvalidFieldError, match=r"values\[1\]"):
            reader.read(row)
