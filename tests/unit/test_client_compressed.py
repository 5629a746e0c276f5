"""Uploads of compressed files and of tables in memory: their bytes, in bounded memory, from any offset."""

import bz2
import gzip
import hashlib
import io
import random
import tracemalloc

import pandas as pd
import pyarrow as pa
import pytest

from rowmint.client.byte_sources import opened
from rowmint.client.datasets import data_format
from rowmint.client.upload_source import UploadSource
from rowmint.errors import InvalidFieldError, UnavailableError

PLAIN = b"a,b\n" + b"".join(b"%d,%d\n" % (number, number * 7) for number in range(200_000))
COMPRESS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "zst": lambda data: pa.compress(data, "zstd", asbytes=True),
}
KINDS = list(COMPRESS)


class OneWay(io.RawIOBase):
    """A file that cannot seek."""

    def __init__(self, data):
        self.left = data

    def readable(self):
        return True

    def readinto(self, buffer):
        count = min(len(buffer), len(self.left))
        buffer[:count], self.left = self.left[:count], self.left[count:]
        return count


def whole(source, step=700_001):
    parts, offset = [], 0
    while data := source.read_at(offset, step):
        parts.append(data)
        offset += len(data)
    return b"".join(parts)


@pytest.fixture(params=KINDS)
def compressed(request, tmp_path):
    """A compressed file."""
    path = tmp_path / f"flights.csv.{request.param}"
    path.write_bytes(COMPRESS[request.param](PLAIN))
    return path


def test_a_compressed_file_is_uploaded_decompressed(compressed):
    for given in (compressed, compressed.read_bytes(), compressed.open("rb"), OneWay(compressed.read_bytes())):
        source = UploadSource(given)
        assert whole(source) == PLAIN
        assert (source.digest(), source.size) == (hashlib.sha256(PLAIN).digest(), None)
        source.close()
        if isinstance(given, io.IOBase):
            assert not given.closed
            given.close()


def test_the_name_of_the_format_is_the_one_before_the_compression(compressed):
    source = UploadSource(compressed)
    assert source.name == str(compressed.with_suffix(""))
    assert data_format(None, str(compressed)) == data_format("csv")
    source.close()


def test_an_upload_is_resumed_at_any_offset(compressed):
    source = UploadSource(compressed)
    draw = random.Random(5)
    for offset in [0, len(PLAIN), *(draw.randrange(len(PLAIN)) for _ in range(6)), 0]:
        assert source.read_at(offset, 1000) == PLAIN[offset : offset + 1000]
    assert source.digest() == hashlib.sha256(PLAIN).digest()
    source.close()


def test_what_cannot_be_read_again_keeps_its_last_bytes():
    source = UploadSource(OneWay(gzip.compress(PLAIN, mtime=0)), replay_bytes=1000)
    assert whole(source, 300) == PLAIN
    kept = b""
    while data := source.read_at(len(PLAIN) - 900 + len(kept), 900):
        kept += data
    assert kept == PLAIN[-900:]
    with pytest.raises(UnavailableError):
        source.read_at(0, 1)
    source.close()


def test_a_piece_at_a_time_is_in_memory():
    bomb = gzip.compress(bytes(64 << 20), mtime=0)
    source = UploadSource(bomb)
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    offset, most = 0, 0
    while data := source.read_at(offset, 1 << 20):
        offset += len(data)
        most = max(most, pa.total_allocated_bytes() - before)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    source.close()
    assert offset == 64 << 20
    assert peak + most < 16 << 20


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_an_error_before_its_end(kind):
    data = COMPRESS[kind](PLAIN)
    damages = [data[: len(data) // 2], data[:-1], data + b"more"]
    if kind != "zst":
        # Frames of Zstandard have a checksum only if their writer wants it.
        damages.append(data[:500] + b"\0" * 9 + data[509:])
    for damaged in damages:
        source = UploadSource(damaged)
        with pytest.raises(InvalidFieldError, match="cannot be decompressed"):
            whole(source)
        source.close()


def test_what_is_not_what_its_name_says_is_refused(tmp_path):
    for name, data in (("a.csv.gz", b"a,b\n1,2\n"), ("a.csv.zst", gzip.compress(b"a", mtime=0))):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InvalidFieldError, match="is not compressed with"):
            opened(tmp_path / name)
    for name in ("a.csv.zip", "a.csv.xz", "a.tar"):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(InvalidFieldError, match="unpack it"):
            opened(tmp_path / name)
    with pytest.raises(InvalidFieldError, match="unpack it"):
        opened(b"PK\x03\x04" + bytes(20))


def test_a_text_that_begins_like_a_compressed_file_is_a_text():
    for data in (b"BZh1,b\n1,2\n", b"\x1f,b\n"):
        assert whole(UploadSource(data)) == data


FRAME = pd.DataFrame({"a": range(1000), "b": [f"text {number}" for number in range(1000)]})


@pytest.mark.parametrize("table", [FRAME, pa.Table.from_pandas(FRAME)], ids=["pandas", "pyarrow"])
def test_a_table_in_memory_is_an_arrow_stream(table):
    source = UploadSource(table)
    assert (source.format, source.size) == ("arrow", None)
    data = whole(source, 777)
    assert pa.ipc.open_stream(data).read_all().to_pydict() == FRAME.to_dict("list")
    assert source.read_at(100, 50) == data[100:150]
    assert source.digest() == hashlib.sha256(data).digest()
    source.close()


def test_a_stream_of_batches_is_read_once():
    batches = pa.Table.from_pandas(FRAME).to_reader(max_chunksize=100)
    source = UploadSource(batches, replay_bytes=10)
    assert pa.ipc.open_stream(whole(source, 777)).read_all().num_rows == 1000
    with pytest.raises(UnavailableError):
        source.read_at(0, 1)
    source.close()
