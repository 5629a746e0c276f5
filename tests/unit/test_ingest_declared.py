"""Ingest of columns with declared types, bounds, formats and keys, and of rows that break them."""

import io
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowmint.errors import ColumnNotFoundError, InvalidDataError, InvalidFieldError
from rowmint.schema import ColumnKind, ColumnSpec, DataType, Domain
from rowmint.schema.forms.moments import form_of_strptime
from trainer_service.datasets import uniqueness
from trainer_service.datasets.conversion import read_moments
from trainer_service.datasets.decimals import holds_decimals, learned_decimals
from trainer_service.datasets.formats import CsvFormat, ParquetFormat
from trainer_service.datasets.ingest import ingest
from trainer_service.datasets.target import Target
from trainer_service.datasets.uniqueness import DistinctnessTest, keys_of, repeated_rows


@pytest.fixture
def read(tmp_path_factory):
    """Ingest rows of CSV under the header ``x,y``; give the spec of x and its values."""

    def run(fields, primary_key="", data_format=None, **declared):
        data = "x,y\n" + "".join(f"{field},{index}\n" for index, field in enumerate(fields))
        if data_format is not None:
            file = io.BytesIO()
            pq.write_table(pa.table({"x": fields}), file)
        else:
            file = io.BytesIO(data.encode())
        overrides = (ColumnSpec("x", **declared),) if declared else ()
        result = ingest(file, data_format or CsvFormat(), overrides, primary_key, tmp_path_factory.mktemp("scratch"))
        return result.schema.column("x"), pq.read_table(result.path)["x"].to_pylist()

    return run


def rows_of(read, *arguments, **declared):
    with pytest.raises(InvalidDataError) as caught:
        read(*arguments, **declared)
    assert {problem.column for problem in caught.value.problems} == {"x"}
    assert all(problem.line in (problem.row + 1, 0) for problem in caught.value.problems)
    return [problem.row for problem in caught.value.problems], caught.value.message


def local(*parts):
    return datetime(*parts, tzinfo=UTC).replace(tzinfo=None)


@pytest.mark.parametrize(
    ("fields", "declared", "expected"),
    [
        (["1", "0"], {"data_type": DataType.BOOL}, (DataType.BOOL, ColumnKind.BOOLEAN, [True, False])),
        (["1", "0"], {"kind": ColumnKind.BOOLEAN}, (DataType.BOOL, ColumnKind.BOOLEAN, [True, False])),
        (["1", "2"], {"data_type": DataType.DOUBLE}, (DataType.DOUBLE, ColumnKind.NUMERICAL, [1.0, 2.0])),
        (["1", "2"], {"kind": ColumnKind.CATEGORICAL}, (DataType.INT64, ColumnKind.CATEGORICAL, [1, 2])),
        (["1", "2"], {"kind": ColumnKind.ID}, (DataType.INT64, ColumnKind.ID, [1, 2])),
        (["1.5", "2"], {"kind": ColumnKind.ID}, (DataType.STRING, ColumnKind.ID, ["1.5", "2"])),
        (["1.5", "x"], {"kind": ColumnKind.IGNORED}, (DataType.STRING, ColumnKind.IGNORED, ["1.5", "x"])),
        (["1", "2"], {"data_type": DataType.STRING}, (DataType.STRING, ColumnKind.CATEGORICAL, ["1", "2"])),
        (["007", "+5"], {"data_type": DataType.INT64}, (DataType.INT64, ColumnKind.NUMERICAL, [7, 5])),
        (
            ["1.5", "-2.25"],
            {"data_type": DataType.DECIMAL},
            (DataType.DECIMAL, ColumnKind.NUMERICAL, [Decimal("1.50"), Decimal("-2.25")]),
        ),
        (
            ["1", "0.5"],
            {"data_type": DataType.DECIMAL, "domain": Domain(decimals=3)},
            (DataType.DECIMAL, ColumnKind.NUMERICAL, [Decimal("1.000"), Decimal("0.500")]),
        ),
        (
            ["2020-01-02"],
            {"data_type": DataType.TIMESTAMP},
            (DataType.TIMESTAMP, ColumnKind.DATETIME, [local(2020, 1, 2)]),
        ),
        (
            ["2020-01-02T00:00:00"],
            {"data_type": DataType.DATE},
            (DataType.DATE, ColumnKind.DATETIME, [date(2020, 1, 2)]),
        ),
        (["01/02/2020"], {"datetime_format": "%d/%m/%Y"}, (DataType.DATE, ColumnKind.DATETIME, [date(2020, 2, 1)])),
        (
            ["2 Jan 99 3:04 pm"],
            {"kind": ColumnKind.DATETIME, "datetime_format": "%d %b %y %I:%M %p"},
            (DataType.TIMESTAMP, ColumnKind.DATETIME, [local(1999, 1, 2, 15, 4)]),
        ),
        (
            ["02.01.2020 03:04:05.678 -0130"],
            {"datetime_format": "%d.%m.%Y %T.%f %z"},
            (DataType.TIMESTAMP, ColumnKind.DATETIME, [datetime(2020, 1, 2, 4, 34, 5, 678000, tzinfo=UTC)]),
        ),
        (["", ""], {"kind": ColumnKind.NUMERICAL}, (DataType.DOUBLE, ColumnKind.NUMERICAL, [None, None])),
        (["", ""], {"kind": ColumnKind.BOOLEAN}, (DataType.BOOL, ColumnKind.BOOLEAN, [None, None])),
    ],
)
def test_declarations_win(read, fields, declared, expected):
    spec, found = read(fields, **declared)
    assert (spec.data_type, spec.kind, found) == expected
    assert spec.datetime_format == declared.get("datetime_format", "")


@pytest.mark.parametrize(
    ("fields", "declared", "rows", "words"),
    [
        (["1", "x", "1.5"], {"data_type": DataType.INT64}, [2, 3], "64-bit integer"),
        (["1", "9223372036854775808"], {"data_type": DataType.INT64}, [2], "64-bit"),
        (["1", "x", "", "0x1"], {"data_type": DataType.DOUBLE}, [2, 4], "finite number"),
        (["1", "x"], {"kind": ColumnKind.NUMERICAL}, [2], "finite number"),
        (["true", "2", "yes"], {"kind": ColumnKind.BOOLEAN}, [2, 3], "true nor false"),
        (["2020-01-01", "soon"], {"kind": ColumnKind.DATETIME}, [2], "instant"),
        (["2020-01-01", "2020-01-01T01:00:00"], {"data_type": DataType.DATE}, [2], "a day"),
        (["01/13/2020", "2/1/20"], {"datetime_format": "%d/%m/%Y"}, [1, 2], "%d/%m/%Y"),
        (["01/13/2020"], {"kind": ColumnKind.DATETIME, "datetime_format": "%d/%m/%Y"}, [1], "%d/%m/%Y"),
        (["1.25", "1"], {"data_type": DataType.DECIMAL, "domain": Domain(decimals=1)}, [1], "decimal"),
        (["1e5"], {"data_type": DataType.DECIMAL}, [1], "decimal"),
        (["1", "", "3"], {"domain": Domain(nullable=False)}, [2], "is missing"),
        (["1", "2", "3"], {"domain": Domain(minimum=2)}, [1], "below"),
        (["1", "2", "3"], {"domain": Domain(maximum=1.0)}, [2, 3], "above"),
        (["1.5", "2.25"], {"domain": Domain(decimals=1)}, [2], "1 decimals"),
        (["a", "b", ""], {"domain": Domain(categories=("a", "c"))}, [2], "categories"),
        (["1", "2"], {"domain": Domain(categories=(1,))}, [2], "categories"),
        (["2020-01-01", "2020-01-03"], {"domain": Domain(maximum=date(2020, 1, 2))}, [2], "above"),
    ],
)
def test_rows_that_break_what_was_declared(read, fields, declared, rows, words):
    found, message = rows_of(read, fields, **declared)
    assert found == rows
    assert words in message


@pytest.mark.parametrize(
    ("fields", "declared", "words"),
    [
        (["x"], {"domain": Domain(minimum=1)}, "no order"),
        (["x"], {"domain": Domain(categories=(1,))}, "'x': 1 is declared"),
        (["1"], {"domain": Domain(minimum=date(2020, 1, 1))}, "declared in the domain"),
        (["1"], {"domain": Domain(minimum=0.5)}, "0.5 is declared"),
        (["2020-01-01"], {"domain": Domain(minimum=3)}, "type date"),
        (["2020-01-01T00:00:00"], {"domain": Domain(minimum=datetime(2020, 1, 1, tzinfo=UTC))}, "timestamp"),
        (["true"], {"domain": Domain(decimals=1)}, "decimals"),
        (["1"], {"datetime_format": "%Q"}, "%Q"),
        (["1"], {"datetime_format": "%Y-%m"}, "year, month and day"),
        (["1"], {"datetime_format": "%Y-%m-%d %I"}, "one of %I and %p without the other"),
        (["1"], {"kind": ColumnKind.NUMERICAL, "id_pattern": "[0-9]"}, "pattern"),
        (["1"], {"kind": ColumnKind.ID, "data_type": DataType.DOUBLE}, "cannot be id"),
    ],
)
def test_impossible_declarations(read, fields, declared, words):
    with pytest.raises(InvalidFieldError, match=re.escape(words)):
        read(fields, **declared)


def test_a_column_that_is_not_there(read):
    with pytest.raises(ColumnNotFoundError, match="'z'"):
        read(["1"], primary_key="z")
    with pytest.raises(ColumnNotFoundError) as caught:
        ingest(io.BytesIO(b"colour,b\n1,2\n"), CsvFormat(), (ColumnSpec("color"),), "", None)
    assert caught.value.metadata["near"] == "colour"


def test_what_is_declared_is_in_the_schema(read):
    spec, _ = read(["1.5", "2"], domain=Domain(minimum=0, maximum=10, decimals=3, nullable=True))
    assert spec.domain == Domain(minimum=0.0, maximum=10.0, decimals=3, nullable=True)
    spec, _ = read(["b", "a"], domain=Domain(categories=("b", "a", "c")))
    assert (spec.kind, spec.domain.categories) == (ColumnKind.CATEGORICAL, ("b", "a", "c"))
    spec, _ = read(["1", "2"], domain=Domain(categories=(2, 1)))
    assert spec.kind is ColumnKind.CATEGORICAL
    spec, _ = read([f"N{index}" for index in range(3)], kind=ColumnKind.ID, id_pattern="N[0-9]")
    assert spec.id_pattern == "N[0-9]"


# primary keys


@pytest.mark.parametrize(("field", "data_type"), [("{}", DataType.INT64), ("k{}", DataType.STRING), ("{}.5", None)])
def test_a_declared_key(read, field, data_type):
    spec, found = read([field.format(index) for index in range(300)], primary_key="x")
    assert (spec.kind, spec.data_type) == (ColumnKind.ID, data_type or DataType.STRING)
    assert found[7] == (7 if data_type is DataType.INT64 else field.format(7))


@pytest.mark.parametrize("field", ["{}", "k{}"])
def test_a_key_that_repeats_or_is_missing(read, field):
    fields = [field.format(index) for index in range(200)]
    found, message = rows_of(read, [*fields, fields[3], "z", fields[3]], primary_key="x")
    assert found == [201, 203]
    assert "repeats the primary key of row 4" in message
    assert rows_of(read, [*fields, "", ""], primary_key="x")[0] == [201, 202]


def test_a_key_of_another_kind(read):
    with pytest.raises(InvalidFieldError, match="must be an ID"):
        read(["1", "2"], primary_key="x", kind=ColumnKind.NUMERICAL)
    with pytest.raises(InvalidFieldError, match="cannot be id"):
        read(["1", "2"], primary_key="x", data_type=DataType.DOUBLE)


def test_keys_of_typed_files(read):
    spec, _ = read(list(range(200)), primary_key="x", data_format=ParquetFormat())
    assert (spec.kind, spec.data_type) == (ColumnKind.ID, DataType.INT64)
    assert rows_of(read, ["a", "b", "a"], primary_key="x", data_format=ParquetFormat())[0] == [3]


@pytest.mark.parametrize(
    ("values", "declared", "found"),
    [
        (["1", "2"], {"data_type": DataType.INT64}, [1, 2]),
        ([1, 0], {"kind": ColumnKind.BOOLEAN}, [True, False]),
        ([1.0, 2.0], {"data_type": DataType.INT64}, [1, 2]),
        ([1.0, 2.5], {"data_type": DataType.STRING}, ["1.0", "2.5"]),
        ([True, False], {"data_type": DataType.STRING}, ["true", "false"]),
        ([date(2020, 1, 1)], {"data_type": DataType.TIMESTAMP}, [local(2020, 1, 1)]),
        ([local(2020, 1, 1)], {"data_type": DataType.DATE}, [date(2020, 1, 1)]),
        ([1.25, 2.0], {"data_type": DataType.DECIMAL, "domain": Domain(decimals=2)}, [Decimal("1.25"), Decimal(2)]),
        (["2020-01-01"], {"kind": ColumnKind.DATETIME}, [date(2020, 1, 1)]),
        (["13.02.2020"], {"kind": ColumnKind.DATETIME, "datetime_format": "%d.%m.%Y"}, [date(2020, 2, 13)]),
    ],
)
def test_typed_values_as_another_type(read, values, declared, found):
    assert read(values, data_format=ParquetFormat(), **declared)[1] == found


def test_typed_values_that_cannot_be(read):
    assert rows_of(read, [1.0, 2.5], data_format=ParquetFormat(), data_type=DataType.INT64)[0] == [2]
    assert rows_of(read, [1, 2], data_format=ParquetFormat(), data_type=DataType.BOOL)[0] == [2]
    assert rows_of(read, [local(2020, 1, 1, 5)], data_format=ParquetFormat(), data_type=DataType.DATE)[0] == [1]
    found, message = rows_of(read, [True], data_format=ParquetFormat(), data_type=DataType.INT64)
    assert (found, "cannot be read as int64" in message) == ([0], True)


# parts


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=6), max_size=40), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_equal_texts_and_only_they_have_equal_keys(texts, start):
    whole = pa.array(["pad"] * start + texts)
    keys = keys_of(whole.slice(start))
    assert len(set(zip(texts, keys.tolist(), strict=True))) == len(set(texts)) == len(set(keys.tolist()))
    assert keys.tolist() == [int(keys_of(pa.array([text]))[0]) for text in texts]


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_a_proof_finds_what_repeats(tmp_path_factory, values, cut):
    proof = DistinctnessTest(tmp_path_factory.mktemp("proof") / "keys")
    batches = [pa.array(values[at : at + cut], pa.int64()) for at in range(0, len(values), cut)]
    for batch in batches:
        proof.add(batch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uniqueness, "_AT_ONCE", 7)
        suspects = proof.repeated_keys()
    pairs = repeated_rows(batches, suspects, 1000)
    expected = [(row, values.index(value) + 1) for row, value in enumerate(values, 1) if value in values[: row - 1]]
    assert pairs == expected
    assert (len(suspects) == 0) == (len(set(values)) == len(values))


def test_colliding_hashes_of_different_keys_are_not_repeats():
    values = pa.array(["a", "b", None, "a"])
    everything = keys_of(pa.array(["a", "b"]))
    assert repeated_rows([values], everything, 10) == [(4, 1)]
    assert repeated_rows([pa.array(["a", "b"])], everything, 10) == []


@given(st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=30), st.integers(0, 6))
@settings(max_examples=60, deadline=None)
def test_decimals_are_learned_from_numbers(wholes, decimals):
    texts = [f"{whole}e-{decimals}" for whole in wholes]
    numbers = np.array([float(text) for text in texts])
    needed = max(max(0, -Decimal(text).normalize().as_tuple().exponent) for text in texts)
    assert learned_decimals(numbers, 0) == needed
    assert holds_decimals(numbers, decimals).all()


def test_no_decimals():
    assert learned_decimals(np.array([1 / 3]), 0) is None
    assert learned_decimals(np.array([1e300, 5.0]), 0) == 0


instants = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59))  # noqa: DTZ001 - local times are meant.


@given(
    st.lists(instants, min_size=1, max_size=10), st.sampled_from(["%Y-%m-%d %H:%M:%S.%f", "%d %B %Y %I:%M:%S %p.%f"])
)
@settings(max_examples=60, deadline=None)
def test_forms_read_what_strftime_writes(values, text):
    # strftime writes years before 1000 without their zeros here, which strptime does not read.
    written = [value.strftime(text.replace("%Y", f"{value.year:04d}")) for value in values]
    target = Target(DataType.TIMESTAMP, pattern=form_of_strptime(text).pattern)
    micros, ok = read_moments(pa.array(written), target)
    assert ok.all()
    epoch = local(1970, 1, 1)
    assert [epoch + timedelta(microseconds=int(value)) for value in micros] == values


@pytest.mark.parametrize(
    ("fields", "nulls", "data_format", "expected"),
    [
        (["-999", "5", "-999.0"], ("-999",), None, [None, 5.0, -999.0]),
        (["n/a", "5", ""], ("n/a", "-"), None, [None, 5, None]),
        (["1900-01-01", "2020-02-29"], ("1900-01-01",), None, [None, date(2020, 2, 29)]),
        ([-999, 5], ("-999", "n/a"), ParquetFormat(), [None, 5]),
        ([-999.0, 5.5], ("-999",), ParquetFormat(), [None, 5.5]),
        ([date(1900, 1, 1), date(2020, 2, 29)], ("1900-01-01",), ParquetFormat(), [None, date(2020, 2, 29)]),
        ([None, None], ("x",), ParquetFormat(), [None, None]),
    ],
)
def test_values_that_stand_for_missing_cells_of_one_column(read, fields, nulls, data_format, expected):
    spec, cells = read(fields, data_format=data_format, null_values=nulls)
    assert (cells, spec.nullable) == (expected, True)
