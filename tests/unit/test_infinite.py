"""Infinite numbers are refused, become missing, or become the declared bound of their column."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rowmint.errors import InvalidDataError
from rowmint.schema import ColumnSpec, Domain
from trainer_service.datasets.ingest import ingest
from trainer_service.datasets.table_options import InfinitePolicy, TableOptions

VALUES = [1.5, float("inf"), float("-inf"), None]
BOUNDED = ColumnSpec("x", domain=Domain(minimum=-10.0, maximum=20.0))


def upload(form: str) -> bytes:
    table = pa.table({"x": pa.array(VALUES), "y": [1, 2, 3, 4]})
    sink = io.BytesIO()
    if form == "parquet":
        pq.write_table(table, sink)
    else:
        sink.write(b"x,y\n1.5,1\ninf,2\n-Infinity,3\n,4\n")
    return sink.getvalue()


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("policy", "expected", "rows"),
    [(InfinitePolicy.MISSING, [1.5, None, None, None], 2), (InfinitePolicy.CLIP, [1.5, 20.0, -10.0, None], 2)],
)
def test_infinity_becomes_something_else(
    tmp_path: Path, form: str, policy: InfinitePolicy, expected: list[float | None], rows: int
) -> None:
    options = TableOptions(infinite=policy)
    result = ingest(io.BytesIO(upload(form)), {"type": form}, (BOUNDED,), "", tmp_path, options=options)
    assert pq.read_table(result.path)["x"].to_pylist() == expected
    assert [notice.rows for notice in result.notices if notice.code == "INFINITE"] == [rows]


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("policy", [InfinitePolicy.REFUSE, InfinitePolicy.CLIP])
def test_infinity_is_refused(tmp_path: Path, form: str, policy: InfinitePolicy) -> None:
    bounded = ColumnSpec("x", domain=Domain(maximum=20.0))
    options = TableOptions(infinite=policy)
    with pytest.raises(InvalidDataError) as caught:
        ingest(io.BytesIO(upload(form)), {"type": form}, (bounded,), "", tmp_path, options=options)
    refused = [2, 3] if policy is InfinitePolicy.REFUSE else [3]
    assert [problem.row for problem in caught.value.problems] == refused
    assert all("is not a finite number; --infinite missing" in problem.message for problem in caught.value.problems)


def test_an_overflow_is_infinite(tmp_path: Path) -> None:
    options = TableOptions(infinite=InfinitePolicy.MISSING)
    result = ingest(io.BytesIO(b"x,y\n1e400,1\n1.5,2\n"), {"type": "csv"}, (), "", tmp_path, options=options)
    assert pq.read_table(result.path)["x"].to_pylist() == [None, 1.5]
