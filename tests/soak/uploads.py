"""Tasks of an uploader: tables of many sizes in every format, checked row by row once they are READY."""

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet as pq

from rowmint.client import RowmintCallError
from rowmint.errors import Reason
from rowmint.names import DatasetName
from tests.acceptance.processes import customers_csv
from tests.crash.storage import Inside
from tests.soak.task import Task

FORMATS = ("csv", "tsv", "ndjson", "json", "parquet", "arrow")
_SECONDS = 240.0


def upload(task: Task) -> None:
    """Upload a table, compare it with what was sent, and perhaps delete it."""
    table, form = _drawn(task)
    _send(task, table, form)
    task.client.wait_dataset(task.name, _SECONDS)
    task.tally.expect(rows_of(task.inside, task.name) == table, f"the table {task.name} ({form}) is not what was sent")
    task.tally.add("rows uploaded", table.count(b"\n") - 1)
    if task.draw.random() < 0.6:
        task.client.delete_dataset(task.name)
        _expect_gone(task)


def upload_and_delete(task: Task) -> None:
    """Upload a table, and delete it before it is READY."""
    table, form = _drawn(task)
    if not (task.again and _is_gone(task)):
        _send(task, table, form)
        task.client.delete_dataset(task.name)
    _expect_gone(task)


def _drawn(task: Task) -> tuple[bytes, str]:
    """Draw a table, as CSV; formats take turns. The sizes' logarithms are even: most are small."""
    rows = int(10 ** task.draw.uniform(1, 4.3))
    return customers_csv(rows, task.draw.randrange(1 << 32)), FORMATS[task.number % len(FORMATS)]


def _send(task: Task, table: bytes, form: str) -> None:
    """Send a table, or the rest of it where another process was killed at that."""
    data = encoded(table, form)
    task.tally.add("uploads")
    task.tally.add(f"uploads: {form}")
    task.tally.add("bytes uploaded", len(data))
    if task.again:
        try:
            found = task.client.get_dataset(task.name)
        except RowmintCallError as error:
            if error.reason != Reason.RESOURCE_NOT_FOUND:
                raise
        else:
            task.tally.add("uploads another process went on with", int(0 < found.committed_size < len(data)))
            task.client.resume_upload(task.name, data, wait=False)
            return
    task.client.upload(data, task.name, format=form, primary_key="customer", wait=False)


def _is_gone(task: Task) -> bool:
    try:
        task.client.get_dataset(task.name)
    except RowmintCallError as error:
        if error.reason != Reason.RESOURCE_NOT_FOUND:
            raise
        return True
    return False


def _expect_gone(task: Task) -> None:
    task.tally.expect(_is_gone(task), f"the dataset {task.name} is there after it was deleted")
    task.tally.add("datasets deleted")
    task.tally.add(f"expected error: {Reason.RESOURCE_NOT_FOUND}")


def encoded(table: bytes, form: str) -> bytes:
    """Return a table that is given as CSV in another format."""
    if form == "csv":
        return table
    if form == "tsv":
        return table.replace(b",", b"\t")
    found = pa.csv.read_csv(pa.BufferReader(table))
    if form in ("ndjson", "json"):
        lines = [json.dumps({name: _plain(cell) for name, cell in row.items()}) for row in found.to_pylist()]
        return ("[" + ",\n".join(lines) + "]" if form == "json" else "\n".join(lines) + "\n").encode()
    sink = io.BytesIO()
    if form == "parquet":
        pq.write_table(found, sink, row_group_size=500)
    else:
        with pa.ipc.new_stream(sink, found.schema) as writer:
            writer.write_table(found, max_chunksize=500)
    return sink.getvalue()


def rows_of(inside: Inside, dataset: str) -> bytes:
    """Return a READY table as CSV."""
    key = inside.registry.datasets.get(DatasetName("default", dataset)).canonical_key
    assert key is not None
    found = pq.read_table(pa.BufferReader(inside.data.get(key)))
    lines = [",".join(found.column_names)]
    lines += [",".join(map(_cell, row.values())) for row in found.to_pylist()]
    return ("\n".join(lines) + "\n").encode()


def _plain(cell: Any) -> Any:
    return cell.isoformat() if hasattr(cell, "isoformat") else cell


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(_plain(value))
