"""Reading of Parquet and Arrow: each type comes back equal, or its cell is an error, or a notice says what happened."""

import io
import struct
from datetime import UTC, date, datetime, time
from decimal import Decimal
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rowmint.errors import InvalidDataError
from rowmint.schema.forms import StorageType
from trainer_service.datasets.formats import ArrowStreamFormat, ParquetFormat
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.notices import NoticeCode
from trainer_service.datasets.problems import Problems
from trainer_service.datasets.readers import open_reader


def arrow(table):
    file = io.BytesIO()
    with pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue(), ArrowStreamFormat()


def parquet(table, **options):
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue(), ParquetFormat()


def read(written):
    """Return the reader after one pass, the table, and the problems as (row, column, message)."""
    data, data_format = written
    reader = open_reader(io.BytesIO(data), data_format, IngestLimits())
    problems = Problems()
    table = pa.Table.from_batches(list(reader.batches(problems)))
    return reader, table, [(problem.row, problem.column, problem.message) for problem in problems.found]


def column(array, write=arrow):
    """Return what is read of one column: its type, cells, storage, notices as (code, rows), and problems."""
    reader, table, problems = read(write(pa.table({"x": array})))
    notices = [(notice.code, notice.rows) for notice in reader.notices.all() if notice.column == "x"]
    return str(table["x"].type), table["x"].to_pylist(), reader.hints.storage.get("x"), notices, problems


EPOCH = datetime(1970, 1, 1, tzinfo=UTC).replace(tzinfo=None)
BERLIN = pa.timestamp("us", "Europe/Berlin")
HALF = pa.array(np.array([0.1, 65504.0, -2.5], np.float16))
SAME = [
    (pa.array([1, -2, None], pa.int8()), "int64", None, StorageType.INT8),
    (pa.array([2**16 - 1, None], pa.uint16()), "int64", None, StorageType.UINT16),
    (pa.array([2**32 - 1], pa.uint32()), "int64", None, StorageType.UINT32),
    (pa.array([2**63 - 1, 0], pa.uint64()), "int64", None, StorageType.UINT64),
    (pa.array([0.1, 19.99, 1e10, None], pa.float32()), "double", [0.1, 19.99, 1e10, None], StorageType.FLOAT32),
    (HALF, "double", [0.1, 65500.0, -2.5], StorageType.FLOAT16),
    (pa.array([0.1, 1e300]), "double", None, None),
    (pa.array([Decimal("1.25"), None], pa.decimal128(5, 2)), "decimal128(38, 2)", None, None),
    (pa.array([Decimal("1.25")], pa.decimal256(70, 2)), "decimal128(38, 2)", None, None),
    (pa.array(["a", None], pa.large_string()), "string", None, StorageType.LARGE_STRING),
    (pa.array(["a", None, "x" * 30], pa.string_view()), "string", None, None),
    (pa.array([date(9999, 12, 31), None], pa.date32()), "date32[day]", None, None),
    (pa.array([date(1, 1, 1)], pa.date64()), "date32[day]", None, StorageType.DATE64),
    (pa.array([-1], pa.timestamp("s")), "timestamp[us]", None, StorageType.TIMESTAMP_S),
    (pa.array([-1], pa.timestamp("ms")), "timestamp[us]", None, StorageType.TIMESTAMP_MS),
    (pa.array([-1], pa.timestamp("us")), "timestamp[us]", None, None),
    (pa.array([5_000], pa.timestamp("ns")), "timestamp[us]", [EPOCH.replace(microsecond=5)], None),
    (pa.array([time(6, 16), None], pa.time32("s")), "int64", [22_560_000_000, None], StorageType.TIME32_S),
    (pa.array([time(0, 0, 1)], pa.time32("ms")), "int64", [1_000_000], StorageType.TIME32_MS),
    (pa.array([time.max], pa.time64("us")), "int64", [86_399_999_999], StorageType.TIME64_US),
    (pa.array([2_000, None], pa.time64("ns")), "int64", [2, None], StorageType.TIME64_NS),
    (pa.array([7, -7], pa.duration("ns")), "int64", [7, -7], StorageType.DURATION_NS),
    (pa.array([b"\x12" * 16, None], pa.uuid()), "string", [str(UUID(bytes=b"\x12" * 16)), None], None),
    (pa.array([True, None]), "bool", None, None),
    (pa.array(["u", None, "v"]).dictionary_encode(), "string", None, None),
    (pa.nulls(2), "null", None, None),
]


@pytest.mark.parametrize(("array", "kind", "cells", "storage"), SAME, ids=lambda value: str(getattr(value, "type", "")))
def test_a_type_that_is_kept(array, kind, cells, storage):
    expected = array.to_pylist() if cells is None else cells
    if storage is None and pa.types.is_timestamp(array.type) and array.type.unit == "ns":
        storage = StorageType.TIMESTAMP_NS
    assert (kind, expected, storage, [], []) == column(array)


@pytest.mark.parametrize("width", [np.float16, np.float32])
def test_a_narrow_float_comes_back_from_its_double(width):
    bits = np.random.default_rng(7).integers(0, 2**16, 5_000).astype(np.uint16)
    values = bits.view(np.float16) if width is np.float16 else np.repeat(bits, 2)[:5_000].view(np.float32)
    values = values[np.isfinite(values)]
    cells = np.array(column(pa.array(values))[1])
    assert np.array_equal(cells.astype(width), values)


def test_unsigned_integers_beyond_int64_are_their_digits():
    array = pa.array([2**64 - 1, 1, None], pa.uint64())
    expected = ("string", [str(2**64 - 1), "1", None], StorageType.UINT64, [(NoticeCode.BEYOND_INT64, 1)], [])
    assert expected == column(array) == column(array, parquet)


@pytest.mark.parametrize(
    ("array", "cells", "dropped"),
    [
        (pa.array([1_001, -1, 2_000, None], pa.timestamp("ns")), [1, -1, 2, None], 2),
        (pa.array([1_001, 2_000], pa.time64("ns")), [1, 2], 1),
    ],
    ids=["instants", "times"],
)
def test_digits_past_microseconds_are_counted(array, cells, dropped):
    _, table, _ = read(arrow(pa.table({"x": array})))
    assert cells == table["x"].cast(pa.int64()).to_pylist()
    assert [(NoticeCode.DIGITS_DROPPED, dropped)] == column(array)[3]


def test_a_second_pass_counts_nothing_twice():
    data, data_format = arrow(pa.table({"x": pa.array([1], pa.timestamp("ns"))}))
    reader = open_reader(io.BytesIO(data), data_format, IngestLimits())
    for _ in range(2):
        list(reader.batches(Problems()))
    assert [(notice.code, notice.rows) for notice in reader.notices.all()] == [(NoticeCode.DIGITS_DROPPED, 1)]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (pa.array([86_400_000, 1], pa.int64()).cast(pa.date64()), "a day with a time of day"),
        (pa.array([0, 10**12], pa.timestamp("s")), "outside the years 0001 to 9999"),
        (pa.array([0, 3_000_000], pa.int32()).cast(pa.date32()), "outside the years 0001 to 9999"),
        (pa.array([0, -1], pa.int32()).cast(pa.time32("s")), "is not a time of day"),
        (pa.array([0, 86_400_000_000], pa.int64()).cast(pa.time64("us")), "is not a time of day"),
        (pa.array([Decimal(1), Decimal(10) ** 38], pa.decimal256(40, 0)), "has more than 38 digits"),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_a_cell_that_no_type_holds_is_an_error(array, words):
    problems = column(array)[4]
    assert [(row, name) for row, name, _ in problems] == [(2, "x")]
    assert words in problems[0][2]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (pa.array([{"a": 1}]), "flatten"),
        (pa.array([[1]]), "one row per element"),
        (pa.array([b"x"]), "bytes to text"),
        (pa.array([b"x"], pa.binary(1)), "bytes to text"),
        (pa.array([(1, 2, 3)], pa.month_day_nano_interval()), "interval"),
        (pa.array([Decimal(100)], pa.decimal128(5, -2)), "0 to 38 digits"),
        (pa.array([1, 1]).dictionary_encode().cast(pa.int64()), ""),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_a_type_that_is_not_supported_says_how(array, words):
    if not words:
        assert column(array)[1] == [1, 1]
        return
    with pytest.raises(InvalidDataError, match=words):
        column(array)


def test_time_zones_are_labels_of_instants():
    instants = [datetime(2024, 7, 1, 12, tzinfo=UTC), None]
    for write in (arrow, parquet):
        reader, table, _ = read(write(pa.table({"x": pa.array(instants, BERLIN), "y": pa.array(instants)})))
        assert instants == table["x"].to_pylist()
        assert reader.hints.arrow_zones == {"x": "Europe/Berlin"}
        assert [notice.code for notice in reader.notices.all()] == [NoticeCode.STORAGE]


def test_extension_types_are_read_as_they_are_stored_and_said_so():
    truths = column(pa.array([0, 2, None], pa.bool8()))
    assert truths[:2] == ("bool", [False, True, None])
    documents = column(pa.array(["{}", None], pa.json_()))
    assert documents[:2] == ("string", ["{}", None])
    unknown = pa.field("x", pa.int64(), metadata={"ARROW:extension:name": "pandas.quarter"})
    reader, table, _ = read(arrow(pa.table({"x": [1]}, schema=pa.schema([unknown]))))
    assert table["x"].to_pylist() == [1]
    for notices in (truths[3], documents[3], [(notice.code, notice.rows) for notice in reader.notices.all()]):
        assert notices == [(NoticeCode.STORAGE, 0)]


def test_nan_is_missing_and_counted():
    for kind in (pa.float64(), pa.float32(), pa.float16()):
        cells = np.array([1.5, np.nan, np.nan], kind.to_pandas_dtype())
        assert column(pa.array(cells, kind, from_pandas=False))[3] == [(NoticeCode.STORAGE, 2)]


def test_infinity_stays_for_ingest_to_judge():
    for kind in (pa.float64(), pa.float32(), pa.float16()):
        cells = np.array([np.inf, -np.inf], kind.to_pandas_dtype())
        assert [np.inf, -np.inf] == column(pa.array(cells, kind))[1]


def test_the_order_of_categories_and_an_index_are_noted():
    kind = pa.dictionary(pa.int8(), pa.string(), ordered=True)
    table = pa.table({"x": pa.array(["b", "a"]).dictionary_encode().cast(kind), "__index_level_0__": [4, 5]})
    reader, read_table, _ = read(arrow(table))
    assert read_table["x"].to_pylist() == ["b", "a"]
    assert {"x", "__index_level_0__"} == {notice.column for notice in reader.notices.all()}


def test_a_dictionary_of_views_is_decoded():
    words = pa.array(["u", None, "a text of more than twelve bytes"], pa.string_view())
    array = pa.DictionaryArray.from_arrays(pa.array([2, 0, 1, None], pa.int8()), words)
    assert column(array)[1] == ["a text of more than twelve bytes", "u", None, None]


def int96(*moments):
    """Return Parquet with a column of INT96, of Julian days and nanoseconds of the day."""
    first = [datetime(2020, 1, 1, tzinfo=UTC).replace(tzinfo=None)] * len(moments)
    # Plain values stand one after another, to be replaced.
    table = pa.table({"n": list(range(len(moments))), "x": pa.array(first, pa.timestamp("us"))})
    data, data_format = parquet(
        table, use_deprecated_int96_timestamps=True, use_dictionary=False, compression="none", write_statistics=False
    )
    old = struct.pack("<qI", 0, 2_440_588 + (date(2020, 1, 1) - date(1970, 1, 1)).days) * len(moments)
    assert data.count(old) == 1
    return data.replace(old, b"".join(struct.pack("<qI", nanos, day) for day, nanos in moments)), data_format


def julian(day):
    return 2_440_588 + (day - date(1970, 1, 1)).days


def test_int96_keeps_every_year():
    days = [date(9999, 12, 31), date(1000, 1, 1), date(1, 1, 1), date(2024, 2, 29)]
    reader, table, problems = read(int96(*[(julian(day), 86_399_999_999_000) for day in days]))
    assert [datetime.combine(day, time.max) for day in days] == table["x"].to_pylist()
    assert (problems, reader.notices.all()) == ([], ())
    assert table["n"].to_pylist() == [0, 1, 2, 3]


def test_digits_of_int96_past_microseconds_are_counted_in_any_year():
    reader, table, problems = read(int96((julian(date(9999, 12, 31)), 1), (julian(date(2024, 1, 1)), 1_000)))
    assert [(notice.code, notice.rows) for notice in reader.notices.all()] == [(NoticeCode.DIGITS_DROPPED, 1)]
    assert ([EPOCH.replace(9999, 12, 31), EPOCH.replace(2024, microsecond=1)], []) == (
        table["x"].to_pylist(),
        problems,
    )


def test_int96_that_wraps_around_is_an_error():
    found = read(int96((julian(date(2024, 1, 1)), 0), (2**31, 0), (1, 0), (2**32 - 1, 0)))[2]
    assert sorted((row, name) for row, name, _ in found) == [(2, "x"), (3, "x"), (4, "x")]


def test_day_0_of_int96_which_arrow_reads_as_1970_is_noted():
    reader, table, problems = read(int96((0, 0), (julian(date(1970, 1, 1)), 1_000), (julian(date(2024, 1, 1)), 0)))
    assert [(notice.code, notice.rows) for notice in reader.notices.all()] == [(NoticeCode.STORAGE, 1)]
    assert (table["x"].to_pylist()[:2], problems) == ([EPOCH, EPOCH.replace(microsecond=1)], [])
