"""Binary files that are declared to be text are refused by their first bytes, with what they are."""

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rowmint.errors import InvalidDataError
from trainer_service.datasets.ingest import ingest

TABLE = pa.table({"a": [1, 2]})


def parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(TABLE, sink)
    return sink.getvalue()


def arrow() -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, TABLE.schema) as writer:
        writer.write_table(TABLE)
    return sink.getvalue()


@pytest.mark.parametrize(
    "declared", [{"type": "csv"}, {"type": "csv", "encoding": "latin-1"}, {"type": "json"}], ids=str
)
@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"PK\x03\x04rest", "ZIP archive, such as an Excel workbook"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "old Excel workbook"),
        (parquet(), "Parquet file"),
        (arrow(), "Arrow file"),
        (gzip.compress(b"a\n1\n", mtime=0), "compressed with gzip"),
        (b"\x28\xb5\x2f\xfd\x04", "compressed with Zstandard"),
    ],
)
def test_another_format_is_named(data: bytes, what: str, declared: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InvalidDataError, match=what):
        ingest(io.BytesIO(data), declared, (), "", tmp_path)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_json_in_utf16_is_to_be_converted(encoding: str, tmp_path: Path) -> None:
    data = ("\ufeff" + json.dumps([{"a": 1}])).encode(encoding)
    with pytest.raises(InvalidDataError, match="UTF-16; convert the file to UTF-8"):
        ingest(io.BytesIO(data), {"type": "json"}, (), "", tmp_path)
