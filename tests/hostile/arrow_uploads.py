"""Hostile Arrow IPC streams."""

import contextlib
import io
import struct
from collections.abc import Callable
from unittest import mock

import pyarrow as pa

from tests.hostile.confined import note
from tests.hostile.uploads import Refused, accepted, equal, fuzzed, read, refused
from trainer_service.datasets.formats import ArrowFileFormat, ArrowStreamFormat
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.readers import arrow_messages

ARROW = ArrowStreamFormat()
BATCH_ROWS = 3
_BODY = 1024  # bytes of the body of a thousand whole numbers of a byte, in whole cache lines


def stream(table: pa.Table, rows: int | None = None, **options: object) -> bytes:
    file = io.BytesIO()
    with pa.ipc.new_stream(file, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=rows)
    return file.getvalue()


TABLE = pa.table(
    {
        "i": [1, None, -3, 4, 5, 6],
        "s": ["x", None, "zz", "", "a text of more than twelve bytes", "é"],
        "d": pa.array(["u", "v", "u", None, "w", "u"]).dictionary_encode(),
        "b": [True, False, None, True, True, False],
        "t": pa.array([0, 1, 2, None, 4, 5], pa.timestamp("ms", "UTC")),
        "v": pa.array(["x", "one that is not inlined", None, "y", "", "another that is not inlined"], pa.string_view()),
        "n": pa.nulls(6),
    }
)
DATA = stream(TABLE, BATCH_ROWS)


def _file(table: pa.Table, rows: int) -> bytes:
    file = io.BytesIO()
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return file.getvalue()


FILE = _file(TABLE, BATCH_ROWS)
FILE_FORMAT = ArrowFileFormat()


def _messages(data: bytes) -> list[int]:
    """Return where each message ends."""
    file = pa.BufferReader(data)
    reader, ends = pa.ipc.MessageReader.open_stream(file), []
    with contextlib.suppress(StopIteration):
        while True:
            reader.read_next_message()
            ends.append(file.tell())
    return ends


def truncated_at_every_byte() -> None:
    """A stream may end without its end mark, but only between messages; then its whole batches are the table."""
    schema, dictionary, first, second = _messages(DATA)
    whole = {first: 3, first + 4: 0, second: 6, len(DATA): 6}
    equal(True, schema < dictionary < first < second < len(DATA))
    for cut in range(len(DATA) + 1):
        found = read(DATA[:cut], ARROW)
        rows = whole.get(cut, 0)
        if not rows:
            equal(Refused, type(found))
        else:
            equal(TABLE["s"].to_pylist()[:rows], found["s"].to_pylist())
            equal(TABLE["v"].to_pylist()[:rows], found["v"].to_pylist())


def headers_whose_length_lies() -> None:
    for length in (-1, -(2**31), 2**31 - 1, 17 << 20, 16 << 20, 1 << 20, 1, 3, 8):
        for data in (b"\xff\xff\xff\xff" + struct.pack("<i", length), struct.pack("<i", length)):
            equal(Refused, type(read(data, ARROW)))
            equal(Refused, type(read(data + DATA, ARROW)))
            equal(Refused, type(read(DATA[: _messages(DATA)[2]] + data, ARROW)))


def _with_number(table: pa.Table, number: int, other: int) -> bytes:
    before = struct.pack("<q", number)
    data = stream(table)
    equal(True, before in data)
    return data.replace(before, struct.pack("<q", other))


def bodies_whose_length_lies() -> None:
    table = pa.table({"a": pa.array([7] * 1000, pa.int8())})
    for length in (-1, -(2**63), 2**63 - 1, 2**40, 257 << 20, 256 << 20, 1024 + 64):
        equal(Refused, type(read(_with_number(table, 1000, length), ARROW)))  # rows, and bytes of a buffer
    for length in (-1, -(2**63), 2**63 - 1, 2**40, 257 << 20, 256 << 20, 1024 + 64, 8, 0):
        equal(Refused, type(read(_with_number(table, _BODY, length), ARROW)))


def rows_that_need_no_bytes() -> None:
    """A column of no type has no buffers: a batch may say any number of rows."""
    table = pa.table({"a": pa.nulls(123_457), "b": pa.nulls(123_457)})
    equal(123_457, accepted(stream(table), ARROW).num_rows)
    for rows in (-1, 2**21, 2**40, 2**63 - 1):
        refused(_with_number(table, 123_457, rows), ARROW, "")
    refused(_with_number(table, 123_457, 2**40), ARROW, "rows in 0 bytes")
    many = pa.concat_tables([table] * 100)
    refused(stream(many), ARROW, "ROWMINT_MAX_DECOMPRESSED_BYTES", IngestLimits(decompressed_bytes=1 << 20))


def a_text_that_stands_in_every_row() -> None:
    """Eighty kilobytes of dictionary and indices that would be six gigabytes of text."""
    text = "x" * 60_000
    limits = IngestLimits(decompressed_bytes=100 << 20)
    indices = pa.array([0] * 100_000, pa.int8())
    by_index = pa.table({"a": pa.DictionaryArray.from_arrays(indices, pa.array([text]))})
    refused(stream(by_index), ARROW, "ROWMINT_MAX_DECOMPRESSED_BYTES", limits)
    equal(300, accepted(stream(by_index.slice(0, 300)), ARROW).num_rows)
    view = pa.array([text], pa.string_view())
    _, views, data = view.buffers()
    repeated = pa.py_buffer(views.to_pybytes()[:16] * 100_000)
    by_view = pa.table({"a": pa.Array.from_buffers(pa.string_view(), 100_000, [None, repeated, data])})
    refused(stream(by_view), ARROW, "ROWMINT_MAX_DECOMPRESSED_BYTES", limits)


def texts_and_rows_that_are_too_long() -> None:
    for kind in (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
        table = pa.table({"a": pa.array(["x" * 70_000], pa.string()).cast(kind)})
        equal([(0, 1, "a")], refused(stream(table), ARROW, "ROWMINT_MAX_TEXT_BYTES").places)
    wide = pa.table({f"c{number}": ["x", "y" * 60_000] for number in range(300)})
    equal([(0, 2, "")], refused(stream(wide), ARROW, "ROWMINT_MAX_ROW_BYTES").places)


def dictionaries_without_end() -> None:
    """They are held to the end of the stream: those that grow are counted, those that are replaced are not."""
    file = io.BytesIO()
    kind = pa.dictionary(pa.int32(), pa.string())
    schema = pa.schema([("a", kind)])
    growing = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
    for options, words in ((growing, "dictionaries of more than"), (pa.ipc.IpcWriteOptions(), "")):
        file = io.BytesIO()
        texts: list[str] = []
        with pa.ipc.new_stream(file, schema, options=options) as writer:
            for number in range(20):
                texts = [*texts, f"{number} " + "x" * 50_000] if words else [f"{number} " + "x" * 50_000]
                indices = pa.array([len(texts) - 1], pa.int32())
                writer.write_batch(
                    pa.record_batch([pa.DictionaryArray.from_arrays(indices, pa.array(texts))], schema=schema)
                )
        with mock.patch.object(arrow_messages, "_MAX_BODY", 600_000):
            if words:
                refused(file.getvalue(), ARROW, words)
            else:
                equal(20, accepted(file.getvalue(), ARROW).num_rows)


def bombs_of_compression() -> None:
    """The length of a buffer once decompressed stands before it, and is checked before it is believed."""
    zeros = pa.table({"a": pa.array([0] * 500_000)})
    words = pa.table({"a": pa.array(["x" * 50_000 + str(number) for number in range(80)]).dictionary_encode()})
    for codec in ("lz4", "zstd"):
        equal(500_000, accepted(stream(zeros, compression=codec), ARROW).num_rows)
        for length in (2**62, -2, -(2**63)):
            lying = stream(zeros, compression=codec).replace(struct.pack("<q", 4_000_000), struct.pack("<q", length))
            refused(lying, ARROW, "")
        with mock.patch.object(arrow_messages, "_MAX_BODY", 1_000_000):
            refused(stream(zeros, compression=codec), ARROW, "once decompressed")
            refused(stream(words, compression=codec), ARROW, "once decompressed")


def footers_that_lie() -> None:
    """A footer may list any offset, any length, and any batch any number of times."""
    length = struct.unpack("<i", FILE[-10:-6])[0]
    for lie in (-1, 0, 1, 8, 2**31 - 1, len(FILE)):
        refused(FILE[:-10] + struct.pack("<i", lie) + FILE[-6:], FILE_FORMAT, "the Arrow file")
    start = len(FILE) - 10 - length
    for cut in range(0, len(FILE), 7):
        equal(Refused, type(read(FILE[:cut], FILE_FORMAT)))
    for at in range(start, len(FILE) - 10, 4):
        for number in (b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0" * 4):
            note(f"{number!r} at {at} of the footer")
            read(FILE[:at] + number + FILE[at + 4 :], FILE_FORMAT)


def columns_without_end() -> None:
    schema = pa.schema([(f"c{number}", pa.int8()) for number in range(20_000)])
    refused(stream(schema.empty_table()), ARROW, "has 20000 columns; a table must have 1 to 4096 (ROWMINT_MAX_COLUMNS)")
    refused(stream(pa.schema([]).empty_table()), ARROW, "has 0 columns")
    deep = pa.int8()
    for _ in range(40):
        deep = pa.list_(deep)
    equal([(0, 0, "a")], refused(stream(pa.schema([("a", deep)]).empty_table()), ARROW, "is of type").places)
    twice = pa.schema([("a", pa.int8()), ("a", pa.int8()), ("\0", pa.int8())])
    equal([(0, 0, "a"), (0, 0, "")], refused(stream(twice.empty_table()), ARROW, "same name").places)


def _replaced(array: pa.Array, buffer: int, data: bytes) -> bytes:
    """Return a stream of one column, one of whose buffers is other than it was."""
    original = array.buffers()[buffer].to_pybytes()
    whole = stream(pa.table({"a": array}))
    equal(1, whole.count(original))
    return whole.replace(original, data[: len(original)].ljust(len(original), b"\0"))


def offsets_that_lie() -> None:
    texts = pa.array(["abcd", "efgh", "ijkl"])
    for offsets in (
        (0, 4, 2, 12),
        (0, -4, 8, 12),
        (0, 4, 8, 2**31 - 1),
        (-8, 4, 8, 12),
        (0, 4, 8, 4096),
        (13, 14, 15, 16),
    ):
        equal([(0, 1, "")], refused(_replaced(texts, 1, struct.pack("<4i", *offsets)), ARROW, "corrupt").places)
    large = pa.array(["abcd", "efgh"], pa.large_string())
    for offsets in ((0, 4, 2**62), (0, -1, 8), (2**40, 2**40, 2**40)):
        refused(_replaced(large, 1, struct.pack("<3q", *offsets)), ARROW, "corrupt")


def indices_beyond_their_dictionary() -> None:
    for index in (3, 127, -1, -128):
        indices = pa.array([0, 1, 2] * 7, pa.int8())
        data = stream(pa.table({"a": pa.DictionaryArray.from_arrays(indices, pa.array(["u", "v", "w"]))}))
        whole = indices.buffers()[1].to_pybytes()[:21]
        wrong = struct.pack("b", index) + whole[1:]
        refused(data.replace(whole, wrong), ARROW, "corrupt")


def views_that_point_elsewhere() -> None:
    texts = pa.array(["short", "one that is not inlined"], pa.string_view())
    views = texts.buffers()[1].to_pybytes()[:32]
    for length, buffer, offset in (
        (23, 0, 1),
        (23, 1, 0),
        (23, -1, 0),
        (24, 0, 0),
        (23, 0, -1),
        (-1, 0, 0),
        (2**31 - 1, 0, 0),
    ):
        wild = views[:16] + struct.pack("<i4sii", length, b"one ", buffer, offset)
        data = stream(pa.table({"a": texts}))
        equal(1, data.count(views))
        refused(data.replace(views, wild), ARROW, "corrupt")


def time_zones_that_are_no_text() -> None:
    times = pa.array([1, 2], pa.timestamp("us", "Europe/Oslo"))
    for kind in (times, times.dictionary_encode()):
        data = stream(pa.table({"a": kind}))
        equal(1, data.count(b"Europe/Oslo"))
        for zone in (b"Europe/\xffslo", b"\xff" * 11):
            refused(data.replace(b"Europe/Oslo", zone), ARROW, "UTF-8")
        equal(2, accepted(data.replace(b"Europe/Oslo", b"No/Such/One"), ARROW).num_rows)


def bad_utf8() -> None:
    for bad in (b"ab\xffd", b"\xc0\x80cd", b"\xed\xa0\x80d", b"abc\xe2"):
        equal([(0, 1, "")], refused(_replaced(pa.array(["abcd"]), 2, bad), ARROW, "corrupt").places)
        data = stream(pa.table({"a": pa.array(["abcd"]).dictionary_encode()}))
        refused(data.replace(b"abcd", bad), ARROW, "corrupt")
        equal(Refused, type(read(stream(pa.table({"abcd": [1]})).replace(b"abcd", bad), ARROW)))


def messages_out_of_order() -> None:
    schema, dictionary, first, second = _messages(DATA)
    parts = [DATA[:schema], DATA[schema:dictionary], DATA[dictionary:first], DATA[first:second], DATA[second:]]
    begin, words, one, two, end = parts
    for order in (
        (words, begin, one),
        (one, begin),
        (begin, one, end),
        (begin, begin, words, one),
        (end,),
        (begin, end),
    ):
        equal(Refused, type(read(b"".join(order), ARROW)))
    equal(3, accepted(begin + words + one + end + b"what follows the end mark is not read", ARROW).num_rows)
    equal(9, accepted(begin + words + one + two + words + one + end, ARROW).num_rows)


CASES: dict[str, Callable[[], None]] = {
    case.__name__: case
    for case in (
        truncated_at_every_byte,
        headers_whose_length_lies,
        bodies_whose_length_lies,
        rows_that_need_no_bytes,
        a_text_that_stands_in_every_row,
        texts_and_rows_that_are_too_long,
        dictionaries_without_end,
        bombs_of_compression,
        footers_that_lie,
        columns_without_end,
        offsets_that_lie,
        indices_beyond_their_dictionary,
        views_that_point_elsewhere,
        time_zones_that_are_no_text,
        bad_utf8,
        messages_out_of_order,
    )
} | fuzzed(
    {
        "a stream": DATA,
        "a plain stream": stream(TABLE.select(["i", "s"])),
        "a compressed stream": stream(TABLE, BATCH_ROWS, compression="zstd"),
        "a file": FILE,
    },
    ARROW,
    8,
)
