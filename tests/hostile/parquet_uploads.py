"""Hostile Parquet files."""

import io
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq

from tests.hostile.parquet_bytes import (
    BYTE_ARRAY,
    DELTA_BYTE_ARRAY,
    DICTIONARY,
    GZIP,
    I32,
    INDEX,
    LIST,
    MAGIC,
    RLE_DICTIONARY,
    STRUCT,
    ZSTD,
    Chunk,
    File,
    Page,
    closed,
    int64s,
    integer,
    run,
    sequence,
    structure,
    texts,
    varint,
)
from tests.hostile.uploads import Refused, accepted, equal, fuzzed, read, refused
from trainer_service.datasets.formats import ParquetFormat
from trainer_service.datasets.limits import IngestLimits

PARQUET = ParquetFormat()
SMALL = IngestLimits(decompressed_bytes=16 << 20)
LEAN = IngestLimits(row_group_bytes=128 << 20)


def written(table: pa.Table, **options: object) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


TABLE = pa.table(
    {
        "i": [1, None, -3, 4, 5, 6],
        "s": ["x", None, "zz", "", "a text of more than twelve bytes", "é"],
        "d": pa.array(["u", "v", "u", None, "w", "u"]).dictionary_encode(),
        "b": [True, False, None, True, True, False],
        "m": pa.array([Decimal("1.50"), None, Decimal("-2.25")] * 2, pa.decimal128(10, 2)),
        "t": pa.array([0, 1, 2, None, 4, 5], pa.timestamp("ms", "UTC")),
    }
)
FILES = {
    "a file": written(TABLE, row_group_size=4),
    "a plain file": written(TABLE.select(["i", "s"]), use_dictionary=False, compression="zstd", store_schema=False),
    "a file of version 2": written(
        TABLE.select(["s", "t"]),
        use_dictionary=False,
        data_page_version="2.0",
        column_encoding={"s": "DELTA_BYTE_ARRAY", "t": "DELTA_BINARY_PACKED"},
    ),
}

NUMBERS = Page(values=3, data=int64s(7, 8, 9))
WORDS = Page(values=3, data=texts(b"x", b"", b"zz"))
LEXICON = Page(DICTIONARY, texts(b"u", b"v"), 2)
SPOKEN = Page(values=3, data=run(3, 1), encoding=RLE_DICTIONARY)


def _one(*pages: Page, **more: int) -> bytes:
    return File(((Chunk(pages, **more),),)).to_bytes()


def truncated_at_every_byte() -> None:
    for data in FILES.values():
        for cut in range(len(data)):
            equal(Refused, type(read(data[:cut], PARQUET)))
        for cut in range(1, len(data), 7):
            equal(Refused, type(read(data[cut:], PARQUET)))


def files_by_hand_are_read() -> None:
    """What the cases here change is sound before."""
    file = File(
        (
            (Chunk((NUMBERS,)), Chunk((WORDS,), BYTE_ARRAY), Chunk((LEXICON, SPOKEN), BYTE_ARRAY)),
            (
                Chunk((NUMBERS, NUMBERS)),
                Chunk((WORDS, WORDS), BYTE_ARRAY),
                Chunk((LEXICON, SPOKEN, SPOKEN), BYTE_ARRAY),
            ),
        )
    )
    expected = {"c0": [7, 8, 9] * 3, "c1": ["x", "", "zz"] * 3, "c2": ["v"] * 9}
    equal(expected, accepted(file.to_bytes(), PARQUET).to_pydict())
    for codec, name in ((GZIP, "gzip"), (ZSTD, "zstd")):
        packed = replace(NUMBERS, data=pa.compress(NUMBERS.data, name, asbytes=True), unpacked=24)
        equal([7, 8, 9], accepted(_one(packed, codec=codec), PARQUET)["c0"].to_pylist())


def pages_whose_sizes_lie() -> None:
    for size in (-1, -(2**31), 2**31 - 1, 257 << 20, 100, 25):
        equal(Refused, type(read(_one(replace(NUMBERS, packed=size)), PARQUET)))
    for size in (-1, -(2**31), 2**31 - 1, 257 << 20):
        equal([(0, 1, "c0")], refused(_one(replace(NUMBERS, unpacked=size)), PARQUET, "page").places)
        refused(_one(replace(LEXICON, unpacked=size), SPOKEN, kind=BYTE_ARRAY), PARQUET, "page")
    for unpacked in (1 << 20, 200 << 20, 23, 1, 0):
        for codec, name in ((GZIP, "gzip"), (ZSTD, "zstd")):
            packed = pa.compress(NUMBERS.data, name, asbytes=True)
            equal(Refused, type(read(_one(replace(NUMBERS, data=packed, unpacked=unpacked), codec=codec), PARQUET)))


def pages_whose_values_lie() -> None:
    for values in (-1, -(2**31), 2**31 - 1, 4, 1000):
        equal(Refused, type(read(_one(replace(NUMBERS, values=values), values=3), PARQUET)))
        equal(Refused, type(read(_one(replace(NUMBERS, values=values), values=values), PARQUET)))
        equal(Refused, type(read(_one(LEXICON, replace(SPOKEN, values=values), kind=BYTE_ARRAY, values=3), PARQUET)))
        equal(Refused, type(read(_one(replace(LEXICON, values=values), SPOKEN, kind=BYTE_ARRAY), PARQUET)))
    for values in (0, 2, 4, -1, 2**63 - 1):
        equal(Refused, type(read(_one(NUMBERS, values=values), PARQUET)))


def rows_that_lie() -> None:
    for rows in (-1, 0, 2, 4, 2**31, 2**63 - 1, -(2**63)):
        equal(Refused, type(read(File(((Chunk((NUMBERS,)),),), rows=rows).to_bytes(), PARQUET)))
    shorter = Chunk((replace(NUMBERS, values=2, data=int64s(1, 2)),))
    equal(Refused, type(read(File(((Chunk((NUMBERS,)), shorter),)).to_bytes(), PARQUET)))
    equal(Refused, type(read(File(((shorter, Chunk((NUMBERS,))),)).to_bytes(), PARQUET)))


def chunks_outside_the_file() -> None:
    for place in (-1, -(2**63), 2**63 - 1, 2**40, 10_000):
        equal(Refused, type(read(_one(NUMBERS, offset=place), PARQUET)))
        equal(Refused, type(read(_one(NUMBERS, size=place), PARQUET)))
    for place in (1, 3, 5, 20, 60):
        equal(Refused, type(read(_one(NUMBERS, offset=place), PARQUET)))
        equal(Refused, type(read(_one(LEXICON, SPOKEN, kind=BYTE_ARRAY, dictionary_offset=place), PARQUET)))


def dictionaries_out_of_place() -> None:
    for pages in (
        (SPOKEN,),
        (SPOKEN, LEXICON),
        (LEXICON, LEXICON, SPOKEN),
        (LEXICON, SPOKEN, LEXICON, SPOKEN),
        (LEXICON,),
        (replace(SPOKEN, kind=INDEX), SPOKEN),
        (replace(SPOKEN, kind=9),),
    ):
        equal(Refused, type(read(_one(*pages, kind=BYTE_ARRAY, offset=4), PARQUET)))
    for index in (2, 255):
        equal(Refused, type(read(_one(LEXICON, replace(SPOKEN, data=run(3, index)), kind=BYTE_ARRAY), PARQUET)))
    for width in (33, 64, 255):
        equal(Refused, type(read(_one(LEXICON, replace(SPOKEN, data=run(3, 1, width)), kind=BYTE_ARRAY), PARQUET)))


def texts_whose_lengths_lie() -> None:
    for data in (b"\xff\xff\xff\xff", b"\x05\0\0\0abcd", b"\0\0", b"\xff\xff\xff\x7fabcd"):
        equal(Refused, type(read(_one(Page(values=1, data=data), kind=BYTE_ARRAY), PARQUET)))
        one = replace(SPOKEN, values=1, data=run(1))
        equal(Refused, type(read(_one(Page(DICTIONARY, data, 1), one, kind=BYTE_ARRAY), PARQUET)))
    for data in (b"ab\xffd", b"\xc0\x80cd", b"\xed\xa0\x80d"):
        refused(_one(Page(values=1, data=texts(data)), kind=BYTE_ARRAY), PARQUET, "corrupt")


def bombs_of_compression() -> None:
    """Half a gigabyte of zeros in a page of some kilobytes: refused by what it says, or by what it is."""
    for codec, name in ((GZIP, "gzip"), (ZSTD, "zstd")):
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, name) as stream:
            for _ in range(512):
                stream.write(bytes(1 << 20))
        data = sink.getvalue().to_pybytes()
        equal(True, len(data) < 1 << 20)
        consistent = Page(values=64 << 20, data=data, unpacked=512 << 20)
        refused(_one(consistent, codec=codec), PARQUET, "the maximum is")
        equal(Refused, type(read(_one(replace(consistent, unpacked=1 << 20), codec=codec), PARQUET)))
        equal(Refused, type(read(_one(replace(consistent, values=100, unpacked=800), codec=codec), PARQUET)))
        lexicon = Page(DICTIONARY, data, 1000, unpacked=60 << 20)
        equal(Refused, type(read(_one(lexicon, SPOKEN, codec=codec, kind=BYTE_ARRAY), PARQUET)))
    many = Chunk((replace(NUMBERS, unpacked=250 << 20, data=b"x"),), codec=ZSTD)
    refused(File(((many,) * 10,)).to_bytes(), PARQUET, "bytes of memory")


def runs_that_stand_for_billions() -> None:
    """Ten bytes that say: the same value two billion times over."""
    lexicon = Page(DICTIONARY, int64s(5), 1)
    endless = Page(values=2**31 - 1, data=run(2**31 - 1), encoding=RLE_DICTIONARY)
    words = "ROWMINT_MAX_DECOMPRESSED_BYTES"
    equal([(0, 1, "")], refused(_one(lexicon, endless), PARQUET, words, SMALL).places)
    equal(1_000_000, accepted(_one(lexicon, replace(endless, values=1_000_000, data=run(10**6))), PARQUET).num_rows)
    # Many groups over the same few bytes.
    page = Page(values=100_000, data=run(100_000), encoding=RLE_DICTIONARY)
    shared = File(((Chunk((lexicon, page)),),), repeated=300)
    refused(shared.to_bytes(), PARQUET, words, SMALL)
    equal(300_000, accepted(replace(shared, repeated=3).to_bytes(), PARQUET).num_rows)
    refused(_one(Page(DICTIONARY, b"", 0), endless), PARQUET, words, SMALL)


def dictionaries_of_empty_texts() -> None:
    """Four bytes each in the file, next to nothing once compressed, and sixteen or more in memory."""

    def column(megabytes: int, entries: int | None = None) -> Chunk:
        data = pa.compress(bytes(megabytes << 20), "zstd", asbytes=True)
        count = (megabytes << 20) // 4 if entries is None else entries
        lexicon = Page(DICTIONARY, data, count, unpacked=megabytes << 20)
        rows = pa.compress(run(3, 1, 24), "zstd", asbytes=True)
        return Chunk((lexicon, replace(SPOKEN, data=rows, unpacked=len(run(3, 1, 24)))), BYTE_ARRAY, ZSTD)

    words = "(ROWMINT_MAX_ROW_GROUP_BYTES); write smaller pages or row groups, or raise the setting"
    data = File(((column(60),) * 16,)).to_bytes()
    equal(True, len(data) < 217 << 10)
    equal([(0, 1, "")], refused(data, PARQUET, words).places)
    for columns in (1, 16):
        equal([(0, 1, "")], refused(File(((column(60),) * columns,)).to_bytes(), PARQUET, words, LEAN).places)
    for group in ((column(20),), (column(1),) * 21):
        equal(["", "", ""], accepted(File((group,)).to_bytes(), PARQUET, LEAN)["c0"].to_pylist())
        more = File(((*group, column(4)),)).to_bytes()
        equal([(0, 1, "")], refused(more, PARQUET, words, LEAN).places)
    # What a page says of its entries counts, as Arrow takes it at its word.
    refused(File(((column(1, 2**31 - 1),),)).to_bytes(), PARQUET, words)
    refused(File(((column(1, -1),),)).to_bytes(), PARQUET, "has a dictionary of -1 entries")


def lengths_in_deltas() -> None:
    """A page of deltas has all lengths of its texts in memory at once, whatever few bytes it has."""
    most = (128 << 20) // 8
    page = Page(values=most, data=varint(128) * 4, encoding=DELTA_BYTE_ARRAY)
    refused(_one(page, kind=BYTE_ARRAY), PARQUET, "(ROWMINT_MAX_ROW_GROUP_BYTES)", LEAN)


def a_text_that_stands_in_every_row() -> None:
    text = b"x" * 60_000
    for lexicon in (Page(DICTIONARY, texts(text), 1), Page(DICTIONARY, texts(b"u", text), 2)):
        rows = replace(SPOKEN, values=100_000, data=run(100_000, lexicon.values - 1))
        data = _one(lexicon, rows, kind=BYTE_ARRAY)
        refused(data, PARQUET, "ROWMINT_MAX_DECOMPRESSED_BYTES", SMALL)
        wide = File((tuple(Chunk((lexicon, rows), BYTE_ARRAY) for _ in range(50)),))
        refused(wide.to_bytes(), PARQUET, "ROWMINT_MAX_DECOMPRESSED_BYTES", IngestLimits(decompressed_bytes=64 << 20))
    few = replace(SPOKEN, values=300, data=run(300))
    equal(300, accepted(_one(Page(DICTIONARY, texts(text), 1), few, kind=BYTE_ARRAY), PARQUET).num_rows)


def prefixes_that_repeat_a_text() -> None:
    """DELTA_BYTE_ARRAY: each text is all of the one before it, at no cost."""
    table = pa.table({"a": ["x" * 60_000] * 1000})
    data = written(table, use_dictionary=False, column_encoding={"a": "DELTA_BYTE_ARRAY"}, write_statistics=False)
    equal(True, len(data) < 10_000)
    refused(data, PARQUET, "ROWMINT_MAX_DECOMPRESSED_BYTES", SMALL)
    equal(
        Refused,
        type(read(_one(Page(values=3, data=varint(128) * 4, encoding=DELTA_BYTE_ARRAY), kind=BYTE_ARRAY), PARQUET)),
    )


def many_columns_of_runs() -> None:
    """Few rows at a time where there are many columns."""
    lexicon = Page(DICTIONARY, int64s(5), 1)
    page = Page(values=3000, data=run(3000), encoding=RLE_DICTIONARY)
    wide = File((tuple(Chunk((lexicon, page)) for _ in range(2000)),))
    refused(wide.to_bytes(), PARQUET, "ROWMINT_MAX_DECOMPRESSED_BYTES", SMALL)
    equal(3000, accepted(replace(wide, groups=(wide.groups[0][:100],)).to_bytes(), PARQUET).num_rows)


def texts_and_rows_that_are_too_long() -> None:
    long = File(((Chunk((Page(values=2, data=texts(b"x", b"y" * 70_000)),), BYTE_ARRAY),),))
    equal([(0, 2, "c0")], refused(long.to_bytes(), PARQUET, "ROWMINT_MAX_TEXT_BYTES").places)
    page = Page(values=2, data=texts(b"x", b"y" * 60_000))
    wide = File((tuple(Chunk((page,), BYTE_ARRAY) for _ in range(300)),))
    equal([(0, 2, "")], refused(wide.to_bytes(), PARQUET, "ROWMINT_MAX_ROW_BYTES").places)


def footers_whose_length_lies() -> None:
    data = FILES["a file"]
    for length in (0, 1, 7, len(data), len(data) - 12, len(data) - 11, 2**31 - 1, 2**32 - 1, 65 << 20):
        equal(Refused, type(read(data[:-8] + length.to_bytes(4, "little") + MAGIC, PARQUET)))
    for data in (MAGIC, MAGIC * 2, MAGIC * 3, closed(MAGIC, b""), closed(MAGIC, b"\0"), closed(b"", b"\0" * 20)):
        equal(Refused, type(read(data, PARQUET)))


def _empty(count: int) -> bytes:
    """A list of structures without fields."""
    return sequence(STRUCT, [bytes(count)], count)


def footers_of_millions() -> None:
    """An empty structure is a byte in the file, and hundreds once read."""
    version, empty = (1, I32, integer(2)), b"\0"
    for size in (2**31 - 1, 2**32 - 1, 2**63, 10**6):
        lying = closed(MAGIC, structure(version, (2, LIST, sequence(STRUCT, [empty], size))))
        equal(Refused, type(read(lying, PARQUET)))
    elements = closed(MAGIC, structure(version, (2, LIST, _empty(3_000_000))))
    refused(elements, PARQUET, "has 2999999 columns or more; a table must have 1 to 4096 (ROWMINT_MAX_COLUMNS)")
    schema = (2, LIST, sequence(STRUCT, [empty]))
    groups = closed(MAGIC, structure(version, schema, (4, LIST, _empty(4_000_000))))
    refused(groups, PARQUET, "fewer and larger row groups")
    chunks = structure((1, LIST, _empty(1_000_000)))
    refused(closed(MAGIC, structure(version, schema, (4, LIST, sequence(STRUCT, [chunks])))), PARQUET, "fewer")
    deep = structure(version, (2, STRUCT, b"\x1c" * 1_000_000))
    refused(closed(MAGIC, deep), PARQUET, "nested too deeply")
    lists = structure(version, (2, LIST, b"\x19" * 1_000_000))
    refused(closed(MAGIC, lists), PARQUET, "nested too deeply")


def schemas_that_lie() -> None:
    groups = ((Chunk((NUMBERS,)), Chunk((NUMBERS,))),)
    for children in (-1, 0, 1, 3, 2**31 - 1, -(2**31)):
        equal(Refused, type(read(File(groups, children=children).to_bytes(), PARQUET)))
    for columns in (0, 1, 2, 4, 2**31 - 1):
        equal(Refused, type(read(File(groups, columns=columns).to_bytes(), PARQUET)))
    for names in ((b"a", b"a"), (b"", b"b"), (b"\xff", b"b"), (b"a\0", b"b"), (b"a" * 300, b"b")):
        equal(Refused, type(read(File(groups, names=names).to_bytes(), PARQUET)))
    for kind in (1, 3, 4, 5, 7, 8, -1, 100):
        equal(Refused, type(read(_one(replace(NUMBERS, data=b"\xff" * 2), kind=kind), PARQUET)))
    empty = File(((Chunk((replace(NUMBERS, values=0, data=b""),)),),), rows=0)
    refused(empty.to_bytes(), PARQUET, "no rows")


def columns_without_end() -> None:
    table = pa.table({f"c{number}": pa.array([1], pa.int8()) for number in range(4097)})
    refused(written(table), PARQUET, "has 4097 columns; a table must have 1 to 4096 (ROWMINT_MAX_COLUMNS)")
    deep = pa.int8()
    for _ in range(60):
        deep = pa.struct([("a", deep)])
    equal(Refused, type(read(written(pa.schema([("a", deep)]).empty_table()), PARQUET)))


CASES: dict[str, Callable[[], None]] = {
    case.__name__: case
    for case in (
        truncated_at_every_byte,
        files_by_hand_are_read,
        pages_whose_sizes_lie,
        pages_whose_values_lie,
        rows_that_lie,
        chunks_outside_the_file,
        dictionaries_out_of_place,
        texts_whose_lengths_lie,
        bombs_of_compression,
        runs_that_stand_for_billions,
        dictionaries_of_empty_texts,
        lengths_in_deltas,
        a_text_that_stands_in_every_row,
        prefixes_that_repeat_a_text,
        many_columns_of_runs,
        texts_and_rows_that_are_too_long,
        footers_whose_length_lies,
        footers_of_millions,
        schemas_that_lie,
        columns_without_end,
    )
} | fuzzed(FILES, PARQUET, 6)
