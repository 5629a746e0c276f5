"""JSON documents in the orients of pandas: each is the same table, read in bounded memory."""

import io
import json
import tracemalloc

import pandas as pd
import pyarrow as pa
import pytest

from rowmint.errors import InvalidDataError
from trainer_service.datasets.formats import JsonFormat, JsonOrient
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.notices import NoticeCode
from trainer_service.datasets.problems import Problems
from trainer_service.datasets.readers import json_columns, json_scan, open_reader

FRAME = pd.DataFrame(
    {
        "a": range(30),
        "b": [None if number % 5 == 0 else f"ü {number}" for number in range(30)],
        "c": [number / 8 for number in range(30)],
        "ü": [number % 2 == 0 for number in range(30)],
    }
)
ROWS = FRAME.to_dict("records")
ORIENTS = ["records", "columns", "index", "split", "values", "table"]


def read(data, orient=JsonOrient.SEEN, limits=None):
    """Return the reader after one pass, its rows, and the problems as (line, row, column, message)."""
    reader = open_reader(io.BytesIO(data), JsonFormat(orient), limits or IngestLimits())
    problems = Problems()
    rows = [row for batch in reader.batches(problems) for row in batch.to_pylist()]
    return reader, rows, [(one.line, one.row, one.column, one.message) for one in problems.found]


def notices(reader):
    return [(notice.code, notice.rows) for notice in reader.notices.all()]


def named(rows):
    return [dict(zip(FRAME.columns, row.values(), strict=True)) for row in rows]


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "seen"])
@pytest.mark.parametrize("chunk", [7, 1 << 20])
@pytest.mark.parametrize("orient", ORIENTS)
def test_every_orient_of_pandas_is_the_same_table(monkeypatch, orient, chunk, declared):
    monkeypatch.setattr(json_scan, "CHUNK", chunk)
    monkeypatch.setattr(json_columns, "_ROWS", chunk)
    data = FRAME.to_json(orient=orient, force_ascii=False).encode()
    reader, rows, problems = read(data, JsonOrient(orient) if declared else JsonOrient.SEEN)
    assert (named(rows), problems) == (ROWS, [])
    expected = [] if declared or orient == "records" else [(NoticeCode.DIALECT, 0)]
    assert expected == notices(reader)


def test_columns_of_lists():
    data = json.dumps(FRAME.to_dict("list"))
    assert read(data.encode())[1] == ROWS


def test_an_object_on_several_lines():
    assert read(b'{\n "a": 1,\n "b": 2\n}\n{\n "a": 3\n}\n')[1] == [{"a": 1, "b": 2}, {"a": 3, "b": None}]


@pytest.mark.parametrize("orient", ["columns", "index", "split", "table"])
def test_labels_that_are_no_row_numbers_are_noted(orient):
    frame = FRAME.set_axis(range(5, 35))
    reader, rows, _ = read(frame.to_json(orient=orient).encode(), JsonOrient(orient))
    assert rows == ROWS
    assert notices(reader) == [(NoticeCode.STORAGE, 30)]


def test_a_named_index_is_a_column():
    frame = FRAME.rename_axis("id")
    rows = read(frame.to_json(orient="table").encode())[1]
    assert [{"id": number, **row} for number, row in enumerate(ROWS)] == rows


def test_columns_read_again_are_the_same():
    reader = open_reader(io.BytesIO(FRAME.to_json().encode()), JsonFormat(), IngestLimits())
    passes = [[row for batch in reader.batches(Problems()) for row in batch.to_pylist()] for _ in range(2)]
    assert passes == [ROWS, ROWS]


@pytest.mark.parametrize(
    ("data", "place", "words"),
    [
        (b'{"a":{"0":1},\n"b":{"1":2}}', (2, 0, "b"), "declare it"),
        (b'{"a":{"0":1},\n"b":{"0":2,"1":3}}', (2, 0, "b"), "2 rows"),
        (b'{"a":{"0":1},\n"a":{"0":2}}', (2, 0, ""), "more than once"),
        (b'{"a":{"0":1},\n"b":{"0":2}', (2, 0, ""), "closing brace"),
        (b'{"a":{"0" 1}}', (1, 0, ""), "colon"),
        (b'{"a":{0:1}}', (1, 0, ""), "key in quotes"),
        (b'{"data":[[1]],"columns":["a"]}', (1, 0, ""), "data before its columns"),
        (b'{"columns":["a","a"],"data":[[1,2]]}', (1, 0, ""), "same name"),
        (b'{"columns":[["a","b"]],"data":[[1]]}', (1, 0, ""), "list of names"),
    ],
)
def test_a_document_that_is_not_of_its_orient(data, place, words):
    with pytest.raises(InvalidDataError) as caught:
        read(data)
    found = caught.value.problems[0]
    assert place == (found.line, found.row, found.column)
    assert words in found.message


def test_rows_of_another_length_are_named():
    problems = read(b'[[1,2],\n[3],\n{"a":1}]')[2]
    assert [(line, message) for line, _, _, message in problems] == [
        (2, "has 1 values; there are 2 columns"),
        (3, "is not a JSON array, as the rows before it are"),
    ]


def test_nested_cells_of_a_column_are_named():
    problems = read(b'{"a":{"0":1,\n"1":[2]}}')[2]
    assert [(line, row, column) for line, row, column, _ in problems] == [(2, 2, "a")]


def test_digits_beyond_a_double_are_counted():
    data = b'{"a":649686000000001631.44,"b":0.30000000000000004,"c":3.5215257120407011,"d":0.1}\n{"a":1.5}'
    reader, rows, _ = read(data)
    assert [{key: value for key, value in row.items() if value is not None} for row in rows] == [
        {"a": 649686000000001631.44, "b": 0.1 + 0.2, "c": 3.5215257120407011, "d": 0.1},
        {"a": 1.5},
    ]
    assert notices(reader) == [(NoticeCode.DIGITS_DROPPED, 1)]


class Generated(io.RawIOBase):
    """A document of one column after another, made as it is read."""

    def __init__(self, columns, rows):
        self.cells = ",".join(f'"{row}":"{"x" * 1_000}"' for row in range(rows))
        self.columns = columns
        self.at = 0

    def seekable(self):
        return True

    def seek(self, offset, whence=io.SEEK_SET):
        self.pieces = self.made()
        self.left = b""
        return 0

    def made(self):
        for column in range(self.columns):
            yield (("{" if not column else ",") + f'"c{column}":{{{self.cells}}}').encode()
        yield b"}"

    def read(self, size=-1):
        while len(self.left) < size and (piece := next(self.pieces, b"")):
            self.left += piece
        found, self.left = self.left[:size], self.left[size:]
        return found


def test_columns_are_read_in_bounded_memory(tmp_path):
    source = Generated(columns=40, rows=1_500)  # sixty megabytes
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        reader = open_reader(source, JsonFormat(), IngestLimits(), tmp_path)
        rows, most = 0, 0
        for batch in reader.batches(Problems()):
            rows += len(batch)
            most = max(most, pa.total_allocated_bytes() - before)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (rows, []) == (1_500, list(tmp_path.iterdir()))
    assert peak + most < 40 << 20


def test_values_of_several_types_are_reported():
    data = b'[{"a": "1", "b": true, "c": 1, "d": null}, {"a": 1, "b": 2, "c": 2.5, "d": 18446744073709551616}]'
    reader, rows, _ = read(data)
    assert rows == [
        {"a": "1", "b": "true", "c": 1.0, "d": None},
        {"a": "1", "b": "2", "c": 2.5, "d": "18446744073709551616"},
    ]
    assert [(notice.column, notice.code, notice.rows) for notice in reader.notices.all()] == [
        ("a", NoticeCode.MIXED_FORMS, 0),
        ("b", NoticeCode.MIXED_FORMS, 0),
        ("d", NoticeCode.BEYOND_INT64, 1),
    ]
