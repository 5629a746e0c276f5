"""Ingest of CSV: inferred types, formats, bounds and keys, and errors with the line of each."""

import csv
import io
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rowmint.errors import CancelledError, InvalidDataError, InvalidFieldError
from rowmint.schema import ColumnKind, DataType, Domain
from rowmint.schema.sdv import sdv_metadata
from trainer_service.datasets import canonical_file
from trainer_service.datasets import ingest as ingest_module
from trainer_service.datasets.formats import CsvFormat, QuotedEmpty, format_from_json
from trainer_service.datasets.ingest import ingest
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.readers import csv_bytes
from trainer_service.datasets.table_options import TableOptions


@pytest.fixture
def read(tmp_path_factory):
    """Ingest bytes; give the result and the finished table."""

    def run(data, data_format=None, overrides=(), primary_key="", **more):
        scratch = tmp_path_factory.mktemp("scratch")
        result = ingest(io.BytesIO(data), data_format or CsvFormat(), overrides, primary_key, scratch, **more)
        table = pq.read_table(result.path)
        assert sorted(path.name for path in scratch.iterdir()) == ["table.parquet"]
        assert (table.num_rows, tuple(table.column_names)) == (result.row_count, result.schema.names)
        return result, table

    return run


@pytest.fixture
def column(read):
    """Ingest one column of CSV fields; give its spec and its values."""

    def run(*fields, **more):
        data = "\n".join(["x,other", *(f"{field},1" for field in fields)]) + "\n"
        result, table = read(data.encode(), **more)
        return result.schema.column("x"), table["x"].to_pylist()

    return run


def problems(read, data, *arguments, **more):
    with pytest.raises(InvalidDataError) as caught:
        read(data, *arguments, **more)
    return [(problem.line, problem.row, problem.column) for problem in caught.value.problems], caught.value.message


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(csv_bytes, "BLOCK_BYTES", 256)
    monkeypatch.setattr(csv_bytes, "_CHUNK", 7)


def at(hour, minute=0, second=0, micro=0):
    """A local time of 2020-01-01."""
    return datetime(2020, 1, 1, hour, minute, second, micro, tzinfo=UTC).replace(tzinfo=None)


# types


@pytest.mark.parametrize(
    ("fields", "data_type", "values"),
    [
        (["1", "-2", "0"], DataType.INT64, [1, -2, 0]),
        (["0", "1"], DataType.INT64, [0, 1]),
        (["9223372036854775807", "-9223372036854775808"], DataType.INT64, [2**63 - 1, -(2**63)]),
        (["1", "2.5"], DataType.DOUBLE, [1.0, 2.5]),
        (["+1.5", ".5", "5.", "1e3", "-2E-2"], DataType.DOUBLE, [1.5, 0.5, 5.0, 1000.0, -0.02]),
        (["1.5", "NaN", "nan"], DataType.DOUBLE, [1.5, None, None]),
        (["9007199254740992", "0.5"], DataType.DOUBLE, [2.0**53, 0.5]),
        (["9007199254740994", "0.5"], DataType.DECIMAL, [Decimal("9007199254740994.0"), Decimal("0.5")]),
        (["9007199254740994", "0.5", "1e3"], DataType.STRING, None),
        (["9223372036854775808", "1"], DataType.STRING, ["9223372036854775808", "1"]),
        (["00123", "1"], DataType.STRING, ["00123", "1"]),
        (["007.5", "1"], DataType.STRING, ["007.5", "1"]),
        (["true", "False", "TRUE"], DataType.BOOL, [True, False, True]),
        (["true", "1"], DataType.STRING, ["true", "1"]),
        (["NaN", "NaN"], DataType.STRING, ["NaN", "NaN"]),
        (["inf", "x"], DataType.STRING, ["inf", "x"]),
        (["0x10", "1"], DataType.STRING, ["0x10", "1"]),
        ([" 1", "2 "], DataType.INT64, [1, 2]),
        (["1", " 2.5"], DataType.DOUBLE, [1.0, 2.5]),
        ([" a", "b "], DataType.STRING, [" a", "b "]),
        (["", ""], DataType.STRING, [None, None]),
        (["1", "", "3"], DataType.INT64, [1, None, 3]),
        (['""', "", "x"], DataType.STRING, ["", None, "x"]),
        (["2020-02-29", "0001-01-01"], DataType.DATE, [date(2020, 2, 29), date(1, 1, 1)]),
        (["2021-02-29", "2020-01-01"], DataType.STRING, ["2021-02-29", "2020-01-01"]),
        (["2020/02/29"], DataType.DATE, [date(2020, 2, 29)]),
        (["2/13/2020", "01/02/2020"], DataType.DATE, [date(2020, 2, 13), date(2020, 1, 2)]),
        (["13/2/2020", "01/02/2020"], DataType.DATE, [date(2020, 2, 13), date(2020, 2, 1)]),
        (["01/02/2020"], DataType.STRING, ["01/02/2020"]),
        (["13/02/2020", "02/13/2020"], DataType.STRING, ["13/02/2020", "02/13/2020"]),
        (["2020-01-01", "2020-01-01 05:06"], DataType.TIMESTAMP, [at(0), at(5, 6)]),
        (["2020-01-01T05:06:07.123456"], DataType.TIMESTAMP, [at(5, 6, 7, 123456)]),
        (["1969-12-31T23:59:59.1234567"], DataType.TIMESTAMP, [at(0) - timedelta(days=18262, microseconds=876544)]),
        (
            ["2020-01-01T05:00:00Z", "2020-01-01T05:00:00.5+02:30"],
            DataType.TIMESTAMP,
            [datetime(2020, 1, 1, 5, tzinfo=UTC), datetime(2020, 1, 1, 2, 30, 0, 500000, tzinfo=UTC)],
        ),
        (["2020-01-01T05:00:00Z", "2020-01-01T05:00:00"], DataType.STRING, None),
        (["2020-01-01T24:00:00", "2020-01-01T05:00:60"], DataType.STRING, None),
        (["0000-01-01", "10000-01-01"], DataType.STRING, None),
    ],
)
def test_the_narrowest_type_that_holds_every_value(column, fields, data_type, values):
    spec, found = column(*fields)
    assert spec.data_type is data_type
    assert found == (fields if values is None else values)
    assert spec.nullable is (None in found)


@pytest.mark.parametrize(
    ("usual", "last", "data_type"),
    [
        ("7", "1.5", DataType.DOUBLE),
        ("7", "9223372036854775807", DataType.INT64),
        ("7", "9223372036854775808", DataType.STRING),
        ("7", "x", DataType.STRING),
        ("1.5", "1e400", None),
        ("true", "yes", DataType.STRING),
        ("2020-01-01", "2020-01-01T05:00:00", DataType.TIMESTAMP),
        ("2020-01-01", "01/01/2020", DataType.STRING),
        ("01/02/2020", "01/13/2020", DataType.DATE),
        ("01/02/2020", "13/01/2020", DataType.DATE),
        ("", "3", DataType.INT64),
        ("7", " 8", DataType.INT64),
    ],
)
@pytest.mark.usefixtures("small_blocks")
def test_the_last_row_counts_as_much_as_the_first(column, usual, last, data_type):
    fields = [*[usual] * 500, last]
    if data_type is None:
        with pytest.raises(InvalidDataError, match=r"row 501: column x: '.*' is not a finite number"):
            column(*fields)
        return
    spec, found = column(*fields)
    assert spec.data_type is data_type
    assert len(found) == 501
    assert len(set(found[:-1])) == 1


def test_infinity_among_numbers_names_its_rows(read):
    found, message = problems(read, b"a,b\n1.5,1\ninf,2\n-Infinity,3\n")
    assert found == [(3, 2, "a"), (4, 3, "a")]
    assert "finite" in message


@pytest.mark.parametrize(
    ("fields", "decimals"),
    [
        (["1.50", "2"], 2),
        (["1.5", "1e2"], 1),
        (["0.00001", "1e-05", "0.5"], 5),
        (["0.1234567890123456"], None),
        (["0.123456789012345"], 15),
        (["1.0", "2.0"], 1),
        (["5.", "1.5"], 1),
    ],
)
def test_decimals_are_learned_from_the_text(column, fields, decimals):
    spec, _ = column(*fields)
    assert (spec.data_type, spec.domain.decimals) == (DataType.DOUBLE, decimals)


def test_the_schema_has_kinds_and_bounds(read):
    result, _ = read(b"n,d,t,b,c\n3,2020-01-02,2020-01-01T00:00:00Z,true,x\n-1,2020-01-01,,false,y\n")
    kinds = {spec.name: spec.kind for spec in result.schema.columns}
    assert kinds == {
        "n": ColumnKind.NUMERICAL,
        "d": ColumnKind.DATETIME,
        "t": ColumnKind.DATETIME,
        "b": ColumnKind.BOOLEAN,
        "c": ColumnKind.CATEGORICAL,
    }
    assert result.schema.column("n").domain == Domain(minimum=-1, maximum=3, nullable=False)
    assert result.schema.column("d").domain == Domain(
        minimum=date(2020, 1, 1), maximum=date(2020, 1, 2), nullable=False
    )
    assert result.schema.column("t").time_zone == "UTC"
    assert result.schema.column("c").domain == Domain(nullable=False)
    assert result.sdv_metadata == sdv_metadata(result.schema)


def test_a_recognised_format_is_cached(column):
    assert column("13/02/2020")[0].datetime_format == "%d/%m/%Y"
    assert column("2020-02-13")[0].datetime_format == ""


@pytest.mark.parametrize(("rows", "kind"), [(99, ColumnKind.CATEGORICAL), (100, ColumnKind.ID)])
def test_a_text_column_of_distinct_values_is_an_id(column, rows, kind):
    assert column(*(f"v{index}" for index in range(rows)))[0].kind is kind


def test_text_that_mostly_occurs_once_is_an_id(column, small_blocks):
    values = [f"v{index}" for index in range(11_000)]
    assert column(*values)[0].kind is ColumnKind.ID
    assert column(*values, "v17", "")[0].kind is ColumnKind.ID
    assert column(*values, *values[:5_499])[0].kind is ColumnKind.CATEGORICAL
    assert column(*values, *values[:100], *["w"] * 10_700)[0].kind is ColumnKind.ID
    assert column(*values, *values[:100], *["w"] * 10_701)[0].kind is ColumnKind.CATEGORICAL


def test_the_profile_is_bounded(read):
    lines = "\n".join(f"{index},{index % 3},{'y' * 300}" for index in range(10_001))
    result, _ = read(f"a,b,c\n{lines}\n,,\n".encode())
    assert {key: result.profile[key] for key in ("rows", "columns")} == {
        "rows": 10_002,
        "columns": {
            "a": {"nulls": 1, "distinct": 10_001, "distinct_exact": False, "minimum": "0", "maximum": "10000"},
            "b": {"nulls": 1, "distinct": 3, "distinct_exact": True, "minimum": "0", "maximum": "2"},
            "c": {"nulls": 1, "distinct": 1, "distinct_exact": True},
        },
    }


# the file


def test_quoted_fields_hold_anything(read):
    data = b'a,"b ""q"""\r\n"x\ny","1,5"\r\n\r\n"""",\r\n"",z\r\n'
    result, table = read(data)
    assert table.to_pydict() == {"a": ["x\ny", '"', ""], 'b "q"': ["1,5", None, "z"]}
    assert result.row_count == 3


def test_a_dialect(read):
    data_format = {"type": "csv", "delimiter": ";", "quote": "'", "null_values": ["NA", "-"], "encoding": "latin-1"}
    _, table = read("a;b\nNA;'NA'\n-;'é;'\n3;\n".encode("latin-1"), data_format)
    assert table.to_pydict() == {"a": [None, None, 3], "b": ["NA", "é;", ""]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-16-le"])
def test_encodings(read, encoding, small_blocks):
    declared = "utf-16" if encoding.startswith("utf-16") else "utf-8"
    data = "ä,b\nµ€😀,1\n".encode(encoding)
    if encoding == "utf-16-be":
        data = b"\xfe\xff" + data
    elif encoding == "utf-16-le":
        data = b"\xff\xfe" + data
    _, table = read(data, CsvFormat(encoding=declared))
    assert table.to_pydict() == {"ä": ["µ€😀"], "b": [1]}


def test_in_one_column_an_empty_line_is_a_row(read):
    _, table = read(b"a\n1\n\n3\n")
    assert table.to_pydict() == {"a": [1, None, 3]}


@pytest.mark.parametrize("data", [b"a,b\n1,2", b"a,b\r1,2\r", b"a,b\r\n1,2\r\n", b"\xef\xbb\xbfa,b\n1,2\n\n\n"])
def test_line_ends(read, data):
    assert read(data)[1].to_pylist() == [{"a": 1, "b": 2}]


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xef\xbb\xbf", b"  "])
def test_an_empty_file(read, data):
    assert "empty" in problems(read, data)[1]


@pytest.mark.parametrize("data", [b"a,b\n", b"a,b", b"a", b"a,b\n\n\n"])
def test_no_rows(read, data):
    found, message = problems(read, data)
    assert (found, message) == ([(0, 0, "")], "the file has no rows; a table needs at least one")


def test_duplicate_and_empty_names(read):
    found, message = problems(read, b"a,,a,b,b\n1,2,3,4,5\n")
    assert found == [(1, 0, ""), (1, 0, "a"), (1, 0, "b")]
    assert "column 2 has no name" in message
    assert problems(read, b"a," + b"x" * 257 + b"\n1,2\n")[0] == [(1, 0, "")]
    assert problems(read, b",".join(b"c%d" % index for index in range(5000)) + b"\n")[0] == [(1, 0, "")]


def test_ragged_rows_are_reported_with_line_and_row(read, small_blocks):
    data = b'a,b\n1,2\n3\n"x\ny",5\n\n4,5,6\n"",\n7,8,9\n'
    found, message = problems(read, data)
    assert found == [(3, 2, ""), (7, 4, ""), (9, 6, "")]
    assert "has 1 fields, the header has 2" in message
    assert "and 2 more" in message


def test_a_hundred_problems_are_reported(read):
    found, _ = problems(read, b"a,b\n" + b"1,2\nx\n" * 1000)
    assert [line for line, _, _ in found] == list(range(3, 203, 2))


@pytest.mark.parametrize(
    ("data", "line", "words"),
    [
        (b'a,b\n1,2\n1,"xx\n3,4\n', 3, "never closed"),
        (b'a,b\n1,2\n1,x"x\n', 3, "within an unquoted field"),
        (b'a,b\n1,2\n1,"x"x\n', 3, "follows a closing quote"),
        (b'a,b\n1,2\n"1" ,2\n', 3, "follows a closing quote"),
        (b'a,b\n"1\n",2\n1, "x"\n', 4, "within an unquoted field"),
        (b'a,"b\n', 1, ""),
    ],
)
def test_stray_quotes_are_found_whatever_the_chunks(read, monkeypatch, data, line, words):
    for chunk in (1, 2, 5, 1 << 20):
        monkeypatch.setattr(csv_bytes, "_CHUNK", chunk)
        found, message = problems(read, data)
        assert found == [(line, 0, "")]
        assert words in message


@pytest.mark.parametrize("chunk", [3, 1 << 20])
def test_a_wrong_encoding_is_reported_with_its_line(read, monkeypatch, chunk):
    monkeypatch.setattr(csv_bytes, "_CHUNK", chunk)
    found, message = problems(read, b"a,b\n1,2\n1,\xe9t\xe9\n")
    assert found == [(3, 0, "")]
    assert "not utf-8" in message
    for data in (b"\xff\xfea\x00\n\x00b", b"a,b\n1,2\n"):
        assert "not utf-16" in problems(read, data, CsvFormat(encoding="utf-16"))[1]


def test_a_row_may_be_longer_than_a_block(read, small_blocks):
    long = "x" * 5000
    _, table = read(f'a,b\n1,"{long}\n\n"\n2,{long}\n3,y\n'.encode())
    assert table["b"].to_pylist() == [long + "\n\n", long, "y"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_row_longer_than_the_limit_is_reported_with_its_first_line(read, small_blocks, end):
    limits = IngestLimits(row_bytes=600)
    quoted = '"' + f"{'x' * 297},{end}" * 2
    for row, too_long in ((f"1,{'x' * 598}", False), (f"1,{'x' * 599}", True), (f'1,{quoted}"', True)):
        data = f'a,b{end}"5{end}",6{end}{row}{end}2,y{end}'.encode()
        if too_long:
            found, message = problems(read, data, limits=limits)
            assert found == [(1 if end == "\r" else 4, 0, "")]
            assert "longer than 600 bytes, the maximum size of a row (ROWMINT_MAX_ROW_BYTES)" in message
        else:
            assert read(data, limits=limits)[0].row_count == 3


def test_a_text_longer_than_a_cell(read):
    found, message = problems(read, b"a,b\n1,2\n1," + b"x" * 70_000 + b"\n")
    assert found == [(3, 2, "b")]
    assert "65536" in message


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"type": "csv", "delimiter": ""}, "delimiter"),
        ({"type": "csv", "delimiter": "é"}, "delimiter"),
        ({"type": "csv", "quote": "''"}, "quote"),
        ({"type": "csv", "delimiter": ",", "quote": ","}, "quote"),
        ({"type": "csv", "encoding": "ebcdic"}, "encoding"),
        ({"type": "csv", "null_values": ["-"] * 101}, "null_values: has 101 entries; at most 100"),
        ({"type": "csv", "null_values": ["-", "x" * 1025]}, r"null_values\[1\]: has 1,025 characters; at most 1,024"),
        ({"type": "xls"}, r"dataset\.format"),
        ({}, r"dataset\.format"),
    ],
)
def test_a_wrong_format_is_refused(body, field):
    with pytest.raises(InvalidFieldError, match=field):
        format_from_json(body)


# the whole


def test_progress_and_cancel(read, small_blocks):
    data = b"a,b\n" + b"1,2\n" * 1000
    shares = []
    read(data, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len(shares) > 10
    with pytest.raises(CancelledError):
        read(data, cancelled=lambda: True)


def test_rows_are_held_a_few_at_a_time(read, monkeypatch, small_blocks):
    monkeypatch.setattr(canonical_file, "GROUP_ROWS", 100)
    before = pa.total_allocated_bytes()
    peak = 0

    def note(_share):
        nonlocal peak
        peak = max(peak, pa.total_allocated_bytes() - before)

    result, table = read(b"a,b\n" + b"12345678,some text that takes room\n" * 10_000, progress=note)
    assert (result.row_count, set(table["a"].to_pylist())) == (10_000, {12345678})
    assert pq.ParquetFile(result.path).num_row_groups > 50
    assert peak < 500_000


def test_a_key_is_proposed_by_its_name(read):
    rows = "\n".join(f"u-{index:04d},{index % 7},{index * 3 % 11}" for index in range(200))
    result, _ = read(f"user_id,b,c\n{rows}\n".encode())
    assert result.schema.primary_key == "user_id"
    assert result.schema.column("user_id").kind is ColumnKind.ID
    assert result.sdv_metadata["tables"]["table"]["primary_key"] == "user_id"
    without, _ = read(f"user_id,b,c\n{rows}\n".encode(), options=TableOptions(no_primary_key=True))
    assert without.schema.primary_key == ""


def test_a_proposed_key_must_hold_in_all_rows(read):
    data = "\n".join(["key,b", *(f"{index},{index}" for index in range(3000))]).encode()
    assert read(data)[0].schema.primary_key == "key"
    again = read(data + b"\n17,9999\n")[0]
    # The other column identifies rows, but nothing says that it is meant to.
    assert (again.schema.primary_key, again.schema.column("key").kind) == ("", ColumnKind.NUMERICAL)


cells = st.one_of(st.none(), st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8))


@given(
    st.integers(2, 4).flatmap(lambda width: st.lists(st.tuples(*[cells] * width), min_size=1, max_size=12)),
    st.sampled_from(["\n", "\r\n"]),
    st.integers(1, 40),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_read_back(read, monkeypatch, rows, end, chunk):
    monkeypatch.setattr(csv_bytes, "_CHUNK", chunk)
    names = [f"c{index}" for index in range(len(rows[0]))]
    # A last column of text keeps every column text, and no row from being an empty line.
    written = io.StringIO(newline="")
    for row in [(*names, "last"), *[(*row, "t") for row in rows]]:
        written.write(",".join("" if cell is None else '"' + cell.replace('"', '""') + '"' for cell in row) + end)
    overrides = tuple(ingest_module.ColumnSpec(name, data_type=DataType.STRING) for name in names)
    _, table = read(written.getvalue().encode(), CsvFormat(quoted_empty=QuotedEmpty.TEXT), overrides=overrides)
    assert [tuple(row.values())[:-1] for row in table.to_pylist()] == rows


@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)), min_size=1, max_size=30))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_double_is_read_back(read, values):
    written = io.StringIO(newline="")
    writer = csv.writer(written)
    writer.writerow(["x", "o"])
    writer.writerows([["" if value is None else repr(value), "1"] for value in values])
    overrides = (ingest_module.ColumnSpec("x", data_type=DataType.DOUBLE),)
    assert read(written.getvalue().encode(), overrides=overrides)[1]["x"].to_pylist() == values


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["a", 'q"q', "x\ny", "r\r\nz", ""])), min_size=1, max_size=20))
@settings(max_examples=40, deadline=None)
def test_lines_of_records_agree_with_a_plain_count(fields):
    text, lines = "h,h\n", {1: 1}
    for number, (crlf, field) in enumerate(fields, 2):
        lines[number] = 1 + text.count("\n")
        escaped = field.replace('"', '""')
        text += f'"{escaped}",1' + ("\r\n" if crlf else "\n")
    found = csv_bytes.lines_of_records(
        io.BytesIO(text.encode()), CsvFormat(), IngestLimits(), list(lines), skip_empty=True
    )
    assert found == lines
