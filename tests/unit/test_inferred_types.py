"""What the first pass found survives the way through JSON, and spares the second ingest that pass."""

import io
import json

import pyarrow.parquet as pq
import pytest

from rowmint.schema import ColumnKind, ColumnSpec
from trainer_service.datasets.inferred_types import InferredTypes
from trainer_service.datasets.ingest import ingest

CSV = (
    b"id,day,local,instant,us,mine,flag,number,price,text\n"
    b"1,2020-01-02,2020-01-02T03:04:05,2020-01-02T03:04:05Z,01/31/2020,31.12.2020,true,1.5,0.10, a\n"
    b"2,2021-01-02,2021-01-02T03:04:05,2021-01-02T03:04:05Z,02/28/2020,30.11.2020,false,-2,12.34,b\n"
)
FORMATS = {
    "csv": ({"type": "csv"}, CSV),
    "json": (
        {"type": "json"},
        b'{"a": 1, "when": "2020-01-02", "x": null}\n{"a": 2.5, "when": "2020-02-03", "x": true}\n{"b": "t"}\n',
    ),
}
DECLARED = (ColumnSpec("mine", ColumnKind.DATETIME, datetime_format="%d.%m.%Y"),)


def overrides(kind):
    return DECLARED if kind == "csv" else ()


def first(kind, folder):
    folder.mkdir()
    data_format, data = FORMATS[kind]
    found = []
    result = ingest(io.BytesIO(data), data_format, overrides(kind), "", folder, on_types=found.append)
    return result, json.loads(json.dumps(found[0]))


@pytest.mark.parametrize("kind", FORMATS)
def test_an_ingest_that_knows_the_types_reads_once_and_ends_alike(kind, tmp_path):
    expected, types = first(kind, tmp_path / "first")
    (tmp_path / "second").mkdir()
    data_format, data = FORMATS[kind]
    joined, shares = [], []
    found = ingest(
        io.BytesIO(data),
        data_format,
        overrides(kind),
        "",
        tmp_path / "second",
        types=types,
        on_types=joined.append,
        progress=shares.append,
    )
    assert joined == []
    assert min(shares) >= 0.5
    assert (found.schema, found.row_count, found.profile) == (expected.schema, expected.row_count, expected.profile)
    assert pq.read_table(found.path).equals(pq.read_table(expected.path))


def changed(types, what):
    if what == "format":
        return {**types, "format": 99}
    if what == "missing":
        return {"format": types["format"]}
    column = {**types["columns"][1], "form": {"datetime": {"pattern": 5}}}
    return {**types, "columns": [types["columns"][0], column, *types["columns"][2:]]}


@pytest.mark.parametrize("what", ["format", "missing", "form"])
def test_what_cannot_be_read_is_found_again(what, tmp_path):
    expected, types = first("csv", tmp_path / "first")
    (tmp_path / "second").mkdir()
    broken = changed(types, what)
    with pytest.raises(ValueError, match=r"unknown|malformed|not of type"):
        InferredTypes.from_json(broken)
    joined = []
    found = ingest(
        io.BytesIO(CSV), {"type": "csv"}, DECLARED, "", tmp_path / "second", types=broken, on_types=joined.append
    )
    assert len(joined) == 1
    assert found.schema == expected.schema
