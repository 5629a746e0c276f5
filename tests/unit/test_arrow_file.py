"""Arrow IPC files and Feather: read like streams, whatever was declared, with every length bounded."""

import io
import struct

import pyarrow as pa
import pytest
from pyarrow import feather

from rowmint.errors import InvalidDataError
from trainer_service.datasets.formats import ArrowFileFormat, ArrowStreamFormat
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.problems import Problems
from trainer_service.datasets.readers import arrow_messages, open_reader
from trainer_service.datasets.readers.flatbuffer import Table

TABLE = pa.table(
    {
        "n": list(range(1000)),
        "s": [None if number % 7 == 0 else f"text {number}" for number in range(1000)],
        "d": pa.array([f"word {number % 3}" for number in range(1000)]).dictionary_encode(),
    }
)


def written(table, rows=None, **options):
    file = io.BytesIO()
    with pa.ipc.new_file(file, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=rows)
    return file.getvalue()


def read(data, data_format=None):
    reader = open_reader(io.BytesIO(data), data_format or ArrowFileFormat(), IngestLimits())
    batches = list(reader.batches(Problems()))
    assert reader.lines_of({1}) == {}
    return pa.Table.from_batches(batches)


@pytest.mark.parametrize("data_format", [ArrowFileFormat(), ArrowStreamFormat()], ids=["file", "stream"])
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_a_file_is_read_batch_by_batch(data_format, compression):
    assert TABLE.to_pydict() == read(written(TABLE, 300, compression=compression), data_format).to_pydict()


@pytest.mark.parametrize("compression", ["lz4", "zstd", "uncompressed"])
def test_feather_version_2(compression):
    file = io.BytesIO()
    feather.write_feather(TABLE, file, compression=compression)
    assert TABLE.to_pydict() == read(file.getvalue()).to_pydict()


def test_dictionaries_that_grow_come_before_the_batches_that_use_them():
    file = io.BytesIO()
    schema = pa.schema([("d", pa.dictionary(pa.int32(), pa.string()))])
    texts = []
    with pa.ipc.new_file(file, schema, options=pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)) as writer:
        for number in range(5):
            texts.append(f"word {number}")
            words = pa.DictionaryArray.from_arrays(pa.array([number, 0], pa.int32()), pa.array(texts))
            writer.write_batch(pa.record_batch([words], schema=schema))
    expected = [word for number in range(5) for word in (f"word {number}", "word 0")]
    assert expected == read(file.getvalue())["d"].to_pylist()


def refusal(data, data_format=None):
    with pytest.raises(InvalidDataError) as caught:
        read(data, data_format)
    return caught.value.message


def test_feather_version_1_says_what_to_do():
    assert "write it as version 2" in refusal(b"FEA1" + bytes(100))


def test_a_truncated_file_is_refused():
    data = written(TABLE)
    for cut in (len(data) - 1, len(data) // 2, 8, 6):
        assert "the Arrow file" in refusal(data[:cut])


def footer_of(data):
    length = struct.unpack("<i", data[-10:-6])[0]
    return data[-10 - length : -10]


def with_block(data, old, new):
    """Return a file whose footer lists the block `new` in place of `old`, as (offset, metadata, body)."""
    footer, layout = footer_of(data), "<qi4xq"
    before = struct.pack(layout, *old)
    assert footer.count(before) == 1
    changed = footer.replace(before, struct.pack(layout, *new))
    return data[: -10 - len(footer)] + changed + data[-10:]


@pytest.mark.parametrize("lie", [(1 << 40, 200, 8), (-8, 200, 8), (8, -1, 8), (8, 200, 1 << 40), (8, 200, -1)])
def test_a_footer_that_lists_a_batch_outside_the_file_is_refused(lie):
    data = written(pa.table({"n": [1, 2, 3]}))
    block = blocks(data)[0]
    assert "outside it" in refusal(with_block(data, block, lie))


def test_a_footer_that_lists_a_batch_twice_is_refused():
    data = written(pa.table({"n": list(range(20))}), 10)
    first, second = blocks(data)
    assert "twice" in refusal(with_block(data, second, first))


def blocks(data):
    """Return the batches that a footer lists, as (offset, metadata, body)."""
    return Table.root(footer_of(data)).structs(3, "<qi4xq")


def test_a_footer_of_any_length_is_bounded():
    data = written(TABLE)
    for length in (-1, 0, 2**31 - 1, len(data)):
        assert "footer" in refusal(data[:-10] + struct.pack("<i", length) + data[-6:])


def test_a_buffer_is_measured_before_it_is_decompressed(monkeypatch):
    data = written(pa.table({"n": pa.array([0] * 100_000)}), compression="zstd")
    size = struct.pack("<q", 800_000)
    assert data.count(size) == 1
    assert "once decompressed" in refusal(data.replace(size, struct.pack("<q", 1 << 40)))
    assert "negative length" in refusal(data.replace(size, struct.pack("<q", -2)))
    monkeypatch.setattr(arrow_messages, "_MAX_BODY", 799_999)
    assert "once decompressed" in refusal(data)


def test_compression_as_it_was_first_declared_is_measured_as_well():
    batch = pa.record_batch({"n": pa.array([1 << 40] * 10)})
    file = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(metadata_version=pa.ipc.MetadataVersion.V4)
    with pa.ipc.new_stream(file, batch.schema, options=options) as writer:
        writer.write_batch(batch, custom_metadata={"ARROW:experimental_compression": "zstd"})
    assert "once decompressed" in refusal(file.getvalue(), ArrowStreamFormat())
