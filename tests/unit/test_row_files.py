"""Files of rows: what `rowmint sample` writes for a suffix, and what it refuses."""

import csv
import gzip
import io
import json

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowmint.client import row_files
from rowmint.client.row_files import FILE_FORMATS, file_format
from rowmint.errors import InvalidFieldError
from rowmint.v1 import sampling_pb2


class Stream:
    """A stream of rows in pieces, as the client has one."""

    def __init__(self, pieces, batches=()):
        self.header = sampling_pb2.SampleHeader(end_row=len(pieces))
        self.rows_requested = len(pieces)
        self.next_row = 0
        self._pieces = pieces
        self._batches = batches
        self.read = False

    def messages(self):
        for piece in self._pieces:
            self.next_row += 1
            yield sampling_pb2.SampleData(data=piece, row_count=1)

    def write_to(self, file, progress=None):
        for message in self.messages():
            file.write(message.data)
            if progress is not None:
                progress(self.next_row, self.rows_requested)

    def reader(self):
        return pa.RecordBatchReader.from_batches(self._batches[0].schema, self._batches)

    def read_to_end(self):
        self.read = True


def written(name, pieces, batches=(), compression=""):
    file = io.BytesIO()
    seen = []
    stream = Stream(pieces, batches)
    row_files.FileFormat(name, FILE_FORMATS[name], compression).write(stream, file, lambda *done: seen.append(done))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    return file.getvalue()


@pytest.mark.parametrize(
    ("given", "path", "expected"),
    [
        (None, None, ("csv", "csv", "")),
        (None, "rows", ("csv", "csv", "")),
        (None, "/dev/null", ("csv", "csv", "")),
        (None, "a.b/rows.CSV", ("csv", "csv", "")),
        (None, "rows.tsv", ("tsv", "csv", "")),
        (None, "rows.jsonl", ("ndjson", "ndjson", "")),
        (None, "rows.json", ("json", "ndjson", "")),
        (None, "rows.arrows", ("arrow", "arrow", "")),
        (None, "rows.arrow", ("feather", "arrow", "")),
        (None, "rows.feather", ("feather", "arrow", "")),
        (None, "rows.parquet", ("parquet", "arrow", "")),
        (None, "rows.csv.gz", ("csv", "csv", "gzip")),
        (None, "rows.ndjson.zst", ("ndjson", "ndjson", "zstd")),
        ("csv", "rows.csv", ("csv", "csv", "")),
        ("csv", "rows.txt", ("csv", "csv", "")),
        ("arrow", "rows.arrow", ("arrow", "arrow", "")),
        ("feather", "rows.arrows", ("feather", "arrow", "")),
    ],
)
def test_the_suffix_says_what_is_written(given, path, expected):
    found = file_format(given, path)
    assert (found.name, found.streamed, found.compression) == expected


@pytest.mark.parametrize(
    ("given", "path", "said"),
    [
        (None, "rows.xlsx", r"no such files are written; use one of the suffixes \.csv, "),
        (None, "rows.avro", "no such files are written"),
        ("xlsx", "rows.xlsx", "'xlsx' is unknown; choose one of csv, "),
        ("columns", None, "'columns' is unknown"),
        ("csv", "rows.parquet", "is csv, but the suffix of rows.parquet is that of parquet"),
        (None, "rows.parquet.gz", "not compressed as a whole"),
        (None, "rows.gz", None),
    ],
)
def test_what_cannot_be_written_is_refused(given, path, said):
    if said is None:
        assert file_format(given, path).compression == "gzip"
        return
    with pytest.raises(InvalidFieldError, match=said):
        file_format(given, path)


CELLS = st.text(st.sampled_from('a,\t"\n\r =é'), max_size=4)


def as_csv(rows):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows)
    return text.getvalue()


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5), st.data())
def test_tsv_holds_the_cells_of_the_csv_however_it_comes(rows, data):
    whole = as_csv(rows).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=4)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    found = written("tsv", pieces).decode()
    assert [tuple(row) for row in csv.reader(io.StringIO(found, newline=""), delimiter="\t")] == rows


def test_tsv_quotes_cells_with_tabs_and_keeps_missing_apart_from_empty():
    assert written("tsv", [b'a,b,c\n,"",x\n', b'1\t2,"u,v",\n']) == b'a\tb\tc\n\t""\tx\n"1\t2"\t"u,v"\t\n'


@pytest.mark.parametrize("pieces", [[], [b'{"a":1}\n'], [b'{"a":1}\n{"a"', b':"x\\ny"}\n', b'{"a":null}\n']])
def test_json_is_one_array(pieces):
    rows = [json.loads(line) for line in b"".join(pieces).splitlines()]
    assert json.loads(written("json", pieces)) == rows


BATCHES = [pa.record_batch({"a": pa.array(range(start, start + 100), pa.int32())}) for start in (0, 100, 200)]


def test_an_arrow_file_holds_the_batches():
    found = pyarrow.feather.read_table(io.BytesIO(written("feather", [], BATCHES)))
    assert found == pa.Table.from_batches(BATCHES)


def test_parquet_holds_the_batches_in_groups_of_bounded_size(monkeypatch):
    monkeypatch.setattr(row_files, "_GROUP_BYTES", 2 * BATCHES[0].nbytes)
    file = pyarrow.parquet.ParquetFile(io.BytesIO(written("parquet", [], BATCHES)))
    assert file.read() == pa.Table.from_batches(BATCHES)
    assert [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)] == [200, 100]


def test_a_stream_in_batches_is_read_to_its_summary():
    stream = Stream([], BATCHES)
    file_format("parquet", None).write(stream, io.BytesIO())
    assert stream.read


def test_text_may_be_compressed():
    assert gzip.decompress(written("csv", [b"a\n", b"1\n"], compression="gzip")) == b"a\n1\n"
