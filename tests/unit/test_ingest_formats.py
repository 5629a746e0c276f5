"""Ingest of JSON, Parquet and Arrow: types, columns, rows, and errors with the place of each."""

import contextlib
import io
import json
import struct
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rowmint.errors import DataLossError, InvalidDataError
from rowmint.schema import ColumnKind, ColumnSpec, DataType
from trainer_service.datasets.formats import ArrowStreamFormat, JsonFormat, ParquetFormat
from trainer_service.datasets.ingest import ingest
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.readers import arrow_columns, arrow_messages, json_objects, json_scan

JSON, PARQUET, ARROW = JsonFormat(), ParquetFormat(), ArrowStreamFormat()


@pytest.fixture
def read(tmp_path_factory):
    """Ingest bytes; give the result and the finished table."""

    def run(data, data_format, **more):
        scratch = tmp_path_factory.mktemp("scratch")
        result = ingest(io.BytesIO(data), data_format, (), "", scratch, **more)
        return result, pq.read_table(result.path)

    return run


def problems(read, data, data_format, **more):
    with pytest.raises(InvalidDataError) as caught:
        read(data, data_format, **more)
    return [(problem.line, problem.row, problem.column) for problem in caught.value.problems], caught.value.message


def parquet(table, **options):
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


def arrow(table, batch_rows=None, **options):
    file = io.BytesIO()
    with pa.ipc.new_stream(file, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=batch_rows)
    return file.getvalue()


# JSON


def lines(*rows):
    return "\n".join(json.dumps(row) for row in rows).encode()


def array(*rows):
    return json.dumps(rows, indent=1).encode()


@pytest.mark.parametrize("write", [lines, array])
def test_json_types(read, write):
    big = 2**63
    rows = [
        {"i": 1, "d": 1, "b": True, "s": "5", "t": "2020-01-01", "m": 1, "big": 1, "n": None, "late": None},
        {"i": -(2**63), "d": 2.5, "b": None, "s": "é", "t": "2020-01-02", "m": "x", "big": big},
        {"m": 1.0, "late": 3},
        {"m": False},
    ]
    result, table = read(write(*rows), JSON)
    assert {spec.name: spec.data_type for spec in result.schema.columns} == {
        "i": DataType.INT64,
        "d": DataType.DOUBLE,
        "b": DataType.BOOL,
        "s": DataType.STRING,
        "t": DataType.DATE,
        "m": DataType.STRING,
        "big": DataType.STRING,
        "n": DataType.STRING,
        "late": DataType.INT64,
    }
    assert table["m"].to_pylist() == ["1", "x", "1.0", "false"]
    assert table["big"].to_pylist() == ["1", str(big), None, None]
    assert table["late"].to_pylist() == [None, None, 3, None]
    assert result.schema.column("d").domain.decimals == 1


def test_json_text_is_not_a_number(read):
    assert read(lines({"a": "1"}, {"a": "2"}), JSON)[0].schema.column("a").data_type is DataType.STRING


@pytest.mark.parametrize("write", [lines, array])
def test_the_last_json_row_counts(read, write, monkeypatch):
    monkeypatch.setattr(json_objects, "_ROWS", 10)
    monkeypatch.setattr(json_scan, "CHUNK", 50)
    rows = [{"a": 1, "b": 1, "c": 1.0}] * 100
    result, table = read(write(*rows, {"a": 1.5, "b": "x", "c": "y", "d": True}), JSON)
    assert [spec.data_type for spec in result.schema.columns] == [
        DataType.DOUBLE,
        DataType.STRING,
        DataType.STRING,
        DataType.BOOL,
    ]
    assert table["b"].to_pylist() == ["1"] * 100 + ["x"]
    assert table["c"].to_pylist() == ["1.0"] * 100 + ["y"]
    assert table["d"].to_pylist() == [None] * 100 + [True]


@pytest.mark.parametrize("data", [b"", b"  \n ", b"\xef\xbb\xbf"])
def test_an_empty_json_file(read, data):
    assert "empty" in problems(read, data, JSON)[1]


@pytest.mark.parametrize("data", [b"[]", b" [ ] "])
def test_json_without_rows(read, data):
    assert problems(read, data, JSON)[1] == "the file has no rows; a table needs at least one"
    assert problems(read, b"{}\n{}", JSON)[1] == "the file has no columns; a table needs at least one"


@pytest.mark.parametrize(
    ("data", "found", "words"),
    [
        (b'{"a":1}\n\n{"a":{"b":1},"c":[]}\n', [(3, 0, "a"), (3, 0, "c")], "nested"),
        (b'[{"a":1},\n{"a":[1]}]', [(2, 0, "a")], "nested"),
        (b'{"a":1}\n{"a":\n[2]\n"x"\n', [(2, 0, ""), (3, 0, ""), (4, 0, "")], "Expecting value"),
        (b'[{"a":1},\n 5,"x"]', [(2, 0, ""), (2, 0, "")], "not a JSON object"),
        (b'[{"a":1}\n{"a":2}]', [(2, 0, "")], "comma"),
        (b'[{"a":1},\n', [(2, 0, "")], "not a JSON object"),
        (b'[{"a":1}', [(1, 0, "")], "bracket"),
        (b'[{"a":1}]\nx', [(2, 0, "")], "follows"),
        (b'{"a":NaN}', [(1, 0, "")], "NaN"),
        (b'[{"a":1},\n{"a":NaN}]', [(2, 0, "")], "NaN"),
        (b'{"a":1,"b":2,"a":3}', [(1, 0, "")], "'a' is given more than once"),
        (b'[{"a":1},\n{"b":1,"b":1}]', [(2, 0, "")], "'b' is given more than once"),
        (b'{"a":1}\n{"a":1e999}', [(2, 2, "a")], "finite"),
        (b'{"a":1}\n{"a":"\xff"}', [(2, 0, "")], "UTF-8"),
        (b'{"a":"\\ud800"}\n{"a":"\\ud800\\udc00"}', [(1, 1, "a")], "surrogate"),
        (b'{"":1}', [(0, 0, "")], "no name"),
        (b"nonsense", [(1, 0, "")], "JSON objects"),
        (b'{"a":1}\n' + b'{"a":' * 100_000, [(2, 0, "")], "nested too deeply"),
        (b"[" + b"[" * 100_000, [(1, 0, "")], "nested too deeply"),
        (b'{"a":' + b"9" * 5000 + b"}", [(1, 0, "")], "4300"),
    ],
)
def test_bad_json_is_reported_with_its_line(read, data, found, words):
    reported, message = problems(read, data, JSON)
    assert reported == found
    assert words in message


@pytest.mark.parametrize("data", [b'{"a":"%s"}', b'[{"a":"%s"}]', b'{"a":1}\n{"a":"%s'])
def test_an_object_is_bounded(read, data, monkeypatch):
    monkeypatch.setattr(json_scan, "CHUNK", 100)
    limits = IngestLimits(row_bytes=1000)
    message = problems(read, data % (b"x" * 5000), JSON, limits=limits)[1]
    assert "is longer than 1000 bytes, the maximum size of a row (ROWMINT_MAX_ROW_BYTES)" in message
    assert read(b'[{"a":"' + b"x" * 900 + b'"},{"a":"y"}]', JSON, limits=limits)[0].row_count == 2


# Parquet and Arrow


def typed_table():
    return pa.table(
        {
            "i8": pa.array([1, None], pa.int8()),
            "u64": pa.array([2**63 - 1, 0], pa.uint64()),
            "f32": pa.array([0.5, None], pa.float32()),
            "f64": pa.array([0.25, float("nan")]),
            "dec": pa.array([Decimal("1.50"), Decimal("-2.25")], pa.decimal128(10, 2)),
            "s": pa.array(["1", ""]),
            "ls": pa.array(["2020-01-01", None], pa.large_string()),
            "dict": pa.array(["x", "y"]).dictionary_encode(),
            "b": pa.array([True, False]),
            "d": pa.array([date(2020, 1, 1), None]),
            "d64": pa.array([date(2020, 1, 1), None], pa.date64()),
            "ts": pa.array([1, -1], pa.timestamp("s")),
            "ms": pa.array([1, -1], pa.timestamp("ms", "Europe/Berlin")),
            "ns": pa.array([1001, -1], pa.timestamp("ns")),
            "null": pa.nulls(2),
        }
    )


@pytest.mark.parametrize(("write", "data_format"), [(parquet, PARQUET), (arrow, ARROW)])
def test_typed_columns(read, write, data_format):
    result, table = read(write(typed_table()), data_format)
    types = {spec.name: str(spec.data_type) for spec in result.schema.columns}
    assert types == {
        "i8": "int64",
        "u64": "int64",
        "f32": "double",
        "f64": "double",
        "dec": "decimal",
        "s": "string",
        "ls": "string",
        "dict": "string",
        "b": "bool",
        "d": "date",
        "d64": "date",
        "ts": "timestamp",
        "ms": "timestamp",
        "ns": "timestamp",
        "null": "string",
    }
    assert table["f64"].to_pylist() == [0.25, None]
    assert table["dec"].to_pylist() == [Decimal("1.50"), Decimal("-2.25")]
    assert table["dict"].to_pylist() == ["x", "y"]
    assert table["ms"].to_pylist()[0] == datetime(1970, 1, 1, 0, 0, 0, 1000, tzinfo=UTC)
    assert table["ns"].cast(pa.int64()).to_pylist() == [1, -1]
    assert table["ts"].cast(pa.int64()).to_pylist() == [1_000_000, -1_000_000]
    assert result.schema.column("ms").time_zone == "UTC"
    assert result.schema.column("dec").domain.decimals == 2
    assert result.schema.column("f64").domain.decimals == 2
    assert result.schema.column("null").kind is ColumnKind.CATEGORICAL


@pytest.mark.parametrize(("write", "data_format"), [(parquet, PARQUET), (arrow, ARROW)])
@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1]]),
        pa.array([{"x": 1}]),
        pa.array([b"x"]),
        pa.array([[("x", 1)]], pa.map_(pa.string(), pa.int64())),
        pa.array([Decimal(1)], pa.decimal256(50, 39)),
    ],
    ids=lambda column: str(column.type),
)
def test_columns_that_a_flat_table_cannot_hold(read, write, data_format, column):
    found, message = problems(read, write(pa.table({"fine": [1], "wrong": column})), data_format)
    assert found == [(0, 0, "wrong")]
    assert "is of type" in message


@pytest.mark.parametrize(("write", "data_format"), [(parquet, PARQUET), (arrow, ARROW)])
def test_typed_values_without_a_place(read, write, data_format):
    table = pa.table(
        {
            "f": pa.array([float("inf"), 1.0]),
            "t": pa.array([0, 10**12], pa.timestamp("s")),
            "u": pa.array([Decimal(1), Decimal(10) ** 40], pa.decimal256(50, 0)),
            "s": pa.array(["x", "y" * 70_000]),
        }
    )
    found, _ = problems(read, write(table), data_format)
    assert sorted(found) == [(0, 1, "f"), (0, 2, "s"), (0, 2, "t"), (0, 2, "u")] or sorted(found) == [
        (0, 2, "t"),
        (0, 2, "u"),
    ]


@pytest.mark.parametrize("kind", [None, ColumnKind.NUMERICAL, ColumnKind.CATEGORICAL])
def test_decimals_that_no_model_holds_are_refused_at_once(kind, tmp_path):
    table = pa.table({"m": pa.array([Decimal("0.05"), Decimal("92233720368547758.08")], pa.decimal128(38, 2))})
    with pytest.raises(InvalidDataError, match=r"row 2: column m: 92233720368547758\.08 has more digits"):
        ingest(io.BytesIO(parquet(table)), PARQUET, (ColumnSpec("m", kind),), "", tmp_path)


@pytest.mark.parametrize(("write", "data_format"), [(parquet, PARQUET), (arrow, ARROW)])
def test_typed_files_without_rows_or_with_bad_names(read, write, data_format):
    empty = pa.table({"a": pa.array([], pa.int64())})
    assert problems(read, write(empty), data_format)[1] == "the file has no rows; a table needs at least one"
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], names=["a", "a", ""])
    assert problems(read, write(twice), data_format)[0] == [(0, 0, "a"), (0, 0, "")]


@pytest.mark.parametrize("data_format", [PARQUET, ARROW])
@pytest.mark.parametrize("data", [b"", b"PAR1", b"nonsense, at some length, of no format", bytes(100)])
def test_bytes_of_another_format(read, data_format, data):
    with pytest.raises(InvalidDataError):
        read(data, data_format)


def test_many_row_groups_and_batches(read):
    table = pa.table({"a": list(range(5000)), "b": [f"x{index % 7}" for index in range(5000)]})
    for data, data_format in (
        (parquet(table, row_group_size=300, compression="gzip"), PARQUET),
        (arrow(table, 300), ARROW),
    ):
        assert read(data, data_format)[1].to_pydict() == table.to_pydict()


def test_damaged_files_cause_no_crash(read):
    table = pa.table({"a": list(range(2000)), "b": [f"text {index}" for index in range(2000)]})
    for data, data_format in ((parquet(table), PARQUET), (arrow(table, 100), ARROW)):
        for cut in (len(data) - 1, len(data) // 2, 50):
            if data_format is ARROW and cut == len(data) - 1:
                continue  # only the end mark is lost.
            with pytest.raises(InvalidDataError):
                read(data[:cut], data_format)


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_flipped_bytes_never_crash(read, data):
    table = pa.table({"a": [1, 2, 3], "b": ["x", None, "zz"], "c": pa.array(["u", "v", "u"]).dictionary_encode()})
    write, data_format = data.draw(st.sampled_from([(parquet, PARQUET), (arrow, ARROW)]))
    damaged = bytearray(write(table))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidDataError):
        read(bytes(damaged), data_format)


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_compressed_arrow_is_bounded(read, codec, monkeypatch):
    plain = pa.table({"a": ["x" * 1000] * 100})
    in_dictionary = pa.table({"a": pa.array(["x" * 1000] * 100).dictionary_encode()})
    for table in (plain, in_dictionary):
        assert read(arrow(table, compression=codec), ARROW)[1]["a"].to_pylist() == ["x" * 1000] * 100
    monkeypatch.setattr(arrow_messages, "_MAX_BODY", 50_000)
    message = problems(read, arrow(plain, compression=codec), ARROW)[1]
    assert "once decompressed; write smaller batches" in message


def test_arrow_lengths_are_bounded(read):
    assert "header of" in problems(read, b"\xff\xff\xff\xff" + struct.pack("<i", 2**31 - 1), ARROW)[1]
    data = bytearray(arrow(pa.table({"a": [1, 2, 3], "b": [1, 2, 3]})))
    body = struct.pack("<q", 48)  # two buffers of 24 bytes.
    at = data.rindex(body)
    data[at : at + 8] = struct.pack("<q", 2**40)
    assert "batch of" in problems(read, bytes(data), ARROW)[1]


def test_bad_text_in_arrow_is_found(read):
    data = arrow(pa.table({"a": ["abcdefgh"]}))
    assert "corrupt" in problems(read, data.replace(b"abcdefgh", b"abc\xff\xfefgh"), ARROW)[1]


def test_a_dictionary_that_expands_too_far_is_refused(read, monkeypatch):
    monkeypatch.setattr(arrow_columns, "EXPANDED_BYTES", 1 << 20)
    indices = pa.array([0] * 100_000, pa.int32())
    table = pa.table({"a": pa.DictionaryArray.from_arrays(indices, pa.array(["x" * 60_000]))})
    small = table.slice(0, 100)
    assert read(arrow(small), ARROW)[0].row_count == 100
    huge = pa.table({"a": pa.DictionaryArray.from_arrays(indices, pa.array(["x" * 70_000]))})
    assert "longer than" in problems(read, arrow(huge), ARROW)[1]


def test_string_views(read):
    table = pa.table({"a": pa.array(["short", "long enough to be outside", None], pa.string_view())})
    assert read(arrow(table), ARROW)[1]["a"].to_pylist() == table["a"].to_pylist()


def test_views_behind_missing_cells_are_not_followed(read):
    texts = ["short", "y" * 40, None, "z" * 40]
    data = arrow(pa.table({"a": pa.array(texts, pa.string_view())}))
    views = pa.array(texts, pa.string_view()).buffers()[1].to_pybytes()
    assert data.count(views) == 1
    # 0x7f7f7f7f bytes of buffer 0x7f7f7f7f: Arrow's full validation passes this, since the cell is missing.
    wild = views[:32] + b"\x7f" * 16 + views[48:]
    assert read(data.replace(views, wild), ARROW)[1]["a"].to_pylist() == texts


def test_lost_storage_is_not_bad_data(tmp_path):
    class Lost(io.BytesIO):
        def read(self, *_):
            raise DataLossError("object 'k' is missing")

        readinto = read

    for data_format in (PARQUET, ARROW, JSON, {"type": "csv"}):
        with pytest.raises(DataLossError):
            ingest(Lost(b"PAR1 and so on"), data_format, (), "", tmp_path)


rows_of_anything = st.lists(
    st.fixed_dictionaries(
        {
            "i": st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
            "d": st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)),
            "b": st.one_of(st.none(), st.booleans()),
            "s": st.one_of(st.none(), st.text(st.characters(codec="utf-8"), max_size=10)),
        }
    ),
    min_size=1,
    max_size=20,
)
SCHEMA = pa.schema({"i": pa.int64(), "d": pa.float64(), "b": pa.bool_(), "s": pa.string()})


@given(rows_of_anything, st.integers(1, 7))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_typed_table_is_read_back(read, rows, cut):
    table = pa.Table.from_pylist(rows, SCHEMA)
    assert read(parquet(table, row_group_size=cut), PARQUET)[1].to_pylist() == rows
    assert read(arrow(table, cut), ARROW)[1].to_pylist() == rows


@given(rows_of_anything, st.integers(1, 7), st.sampled_from([lines, array]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_table_is_read_back(read, monkeypatch, rows, cut, write):
    monkeypatch.setattr(json_objects, "_ROWS", cut)
    monkeypatch.setattr(json_scan, "CHUNK", cut * 9)
    # A first row with a value of each kind, so that no column is all-null, or of whole numbers only.
    first = {"i": 0, "d": 0.5, "b": True, "s": "text"}
    assert read(write(first, *rows), JSON)[1].to_pylist() == [first, *rows]
