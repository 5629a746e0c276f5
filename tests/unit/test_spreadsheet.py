"""Excel workbooks: a sheet becomes JSON lines, and nothing in it is changed or left out in silence."""

import datetime as dt
import io
import json
import sys

import openpyxl
import pytest

from rowmint.client.datasets import data_format
from rowmint.client.upload_source import UploadSource
from rowmint.errors import InvalidFieldError
from rowmint.v1 import dataset_pb2


@pytest.fixture
def workbook(tmp_path):
    """Write sheets, each a list of rows; give the path."""

    def write(**sheets):
        book = openpyxl.Workbook()
        book.remove(book.active)
        for name, rows in sheets.items():
            sheet = book.create_sheet(name)
            for row in rows:
                sheet.append(row)
        path = tmp_path / "book.xlsx"
        book.save(path)
        return path

    return write


def rows(path, sheet=None):
    source = UploadSource(path, sheet=sheet)
    assert source.format == "jsonl"
    data = source.read_at(0, source.size)
    source.close()
    return [json.loads(line) for line in data.splitlines()]


def test_every_kind_of_cell(workbook):
    day = dt.datetime(2024, 3, 1, tzinfo=dt.UTC).replace(tzinfo=None)
    path = workbook(
        one=[
            ["n", "x", "text", "zip", "day", "at", "clock", "ok", None],
            [1, 1.5, "ü", "00123", day.date(), day.replace(hour=6, minute=16), dt.time(6, 16), True],
            [],
            [None, None, None, None, None, day, None, False, None],
        ]
    )
    empty = dict.fromkeys(("n", "x", "text", "zip", "day", "clock"))
    assert rows(path) == [
        {
            "n": 1,
            "x": 1.5,
            "text": "ü",
            "zip": "00123",
            "day": "2024-03-01",
            "at": "2024-03-01T06:16:00",
            "clock": "06:16:00",
            "ok": True,
        },
        {**empty, "at": "2024-03-01T00:00:00", "ok": False},
    ]


def test_a_sheet_is_chosen_where_there_are_several(workbook):
    path = workbook(one=[["a"], [1]], two=[["b"], [2]])
    assert rows(path, "two") == [{"b": 2}]
    for sheet in (None, "three"):
        with pytest.raises(InvalidFieldError, match="'one', 'two'"):
            rows(path, sheet)


@pytest.mark.parametrize(
    ("sheet", "words"),
    [
        ([["a", None], [1, 2]], "cell B2 has a value, but its column has no name"),
        ([["a"], [1, 2]], "cell B2 has a value"),
        ([["a", "a"], [1, 2]], "two columns named 'a'"),
        ([["a"], ["=1+1"]], "cell A2 has a formula without a stored value"),
        ([["a"], ["#DIV/0!"]], "cell A2 has the error #DIV/0!"),
        ([["a"], [dt.timedelta(hours=30)]], "cell A2"),
    ],
)
def test_what_cannot_be_read_is_named(workbook, sheet, words):
    with pytest.raises(InvalidFieldError, match=words):
        rows(workbook(one=sheet))


def test_a_workbook_is_sent_as_json_lines(workbook):
    assert data_format(None, "a.xlsx").json.orient == dataset_pb2.JSON_ORIENT_LINES
    with workbook(one=[["a"], [1]]).open("rb") as file:
        assert rows(file) == [{"a": 1}]


@pytest.mark.parametrize("name", ["a.xls", "a.ods", "a.xlsb"])
def test_other_workbooks_say_what_to_do(name):
    with pytest.raises(InvalidFieldError, match=r"save it as \.xlsx or as CSV"):
        data_format(None, name)


def test_what_is_no_workbook_is_refused(tmp_path):
    path = tmp_path / "book.xlsx"
    for data in (b"a,b\n1,2\n", b"PK\x03\x04" + bytes(50), b""):
        path.write_bytes(data)
        with pytest.raises(InvalidFieldError, match="Excel workbook"):
            UploadSource(path)


def test_without_the_extra_it_says_how_to_install_it(workbook, monkeypatch):
    path = workbook(one=[["a"], [1]])
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(InvalidFieldError, match=r"pip install 'rowmint\[excel\]'"):
        UploadSource(path)


def test_bytes_of_a_workbook_need_its_name(workbook):
    data = workbook(one=[["a"], [1]]).read_bytes()
    with pytest.raises(InvalidFieldError, match="archive"):
        UploadSource(io.BytesIO(data))
