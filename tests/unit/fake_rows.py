"""The rows of fake samplers: a pure function of the row's index, in every format."""

import io

import pyarrow as pa
import pyarrow.ipc

from rowmint.v1 import sampling_pb2, schema_pb2

GRID = 64
ORIGINS = ["EWR", "JFK", "LGA"]
VERSION = "projects/default/models/flights/versions/1"

SCHEMA = schema_pb2.TableSchema(
    columns=[
        schema_pb2.ColumnSpec(
            name="origin", kind=schema_pb2.COLUMN_KIND_CATEGORICAL, data_type=schema_pb2.DATA_TYPE_STRING
        ),
        schema_pb2.ColumnSpec(
            name="dep_delay", kind=schema_pb2.COLUMN_KIND_NUMERICAL, data_type=schema_pb2.DATA_TYPE_INT64
        ),
        schema_pb2.ColumnSpec(
            name="arr_delay", kind=schema_pb2.COLUMN_KIND_NUMERICAL, data_type=schema_pb2.DATA_TYPE_DOUBLE
        ),
    ]
)


def origins(first, count):
    return pa.DictionaryArray.from_arrays(
        pa.array([(row * 7) % 3 for row in range(first, first + count)], pa.int32()), pa.array(ORIGINS)
    )


def arrow_batch(first, count):
    rows = range(first, first + count)
    return pa.record_batch(
        [
            origins(first, count),
            pa.array([row % 200 for row in rows], pa.int64()),
            pa.array([row / 8 for row in rows], pa.float64()),
        ],
        names=["origin", "dep_delay", "arr_delay"],
    )


def arrow_lead_and_end():
    sink = io.BytesIO()
    batch = arrow_batch(0, GRID)
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
        before_end = sink.tell()
    whole = sink.getvalue()
    return whole[: before_end - batch.serialize().size], whole[before_end:]


def row_bytes(format_, first, count):
    rows = range(first, first + count)
    if format_ == sampling_pb2.ROW_FORMAT_CSV:
        return "".join(f"{ORIGINS[(row * 7) % 3]},{row % 200},{row / 8}\n" for row in rows).encode()
    if format_ == sampling_pb2.ROW_FORMAT_NDJSON:
        return "".join(f'{{"dep_delay":{row % 200}}}\n' for row in rows).encode()
    return bytes(arrow_batch(first, count).serialize())


def lead_and_end(format_):
    if format_ == sampling_pb2.ROW_FORMAT_CSV:
        return b"origin,dep_delay,arr_delay\n", b""
    return (b"", b"") if format_ == sampling_pb2.ROW_FORMAT_NDJSON else arrow_lead_and_end()


def unbroken(format_, rows, start=0):
    lead, end = lead_and_end(format_)
    data = lead
    while start < rows:
        stop = min(start - start % GRID + GRID, rows)
        data += row_bytes(format_, start, stop - start)
        start = stop
    return data + end
