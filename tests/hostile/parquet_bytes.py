"""Parquet files written by hand, so that every number in them may lie.

Thrift's compact protocol (https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md) and the
numbers of parquet.thrift (https://github.com/apache/parquet-format).
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

I32, I64, BINARY, LIST, STRUCT = 5, 6, 8, 9, 12
INT64, BYTE_ARRAY = 2, 6
DATA, INDEX, DICTIONARY = 0, 1, 2
PLAIN, RLE, DELTA_BYTE_ARRAY, RLE_DICTIONARY = 0, 3, 7, 8
NO_CODEC, GZIP, ZSTD = 0, 2, 6
MAGIC = b"PAR1"

Field = tuple[int, int, bytes]


def varint(number: int) -> bytes:
    made = bytearray()
    while number >= 0x80:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*made, number])


def integer(number: int) -> bytes:
    return varint(((number << 1) ^ (number >> 63)) & (2**64 - 1))


def binary(data: bytes) -> bytes:
    return varint(len(data)) + data


def sequence(kind: int, elements: Sequence[bytes], size: int | None = None) -> bytes:
    """A list; `size` is what it says it has."""
    size = len(elements) if size is None else size
    head = bytes([size << 4 | kind]) if 0 <= size < 15 else bytes([0xF0 | kind]) + varint(size)
    return head + b"".join(elements)


def structure(*fields: Field) -> bytes:
    made, before = b"", 0
    for number, kind, value in fields:
        made += bytes([(number - before) << 4 | kind]) + value
        before = number
    return made + b"\0"


@dataclass(frozen=True)
class Page:
    """A page of a column chunk; what its header says of sizes and values may differ from what is there."""

    kind: int = DATA
    data: bytes = b""
    values: int = 0
    encoding: int = PLAIN
    unpacked: int | None = None
    packed: int | None = None

    def to_bytes(self) -> bytes:
        packed = len(self.data) if self.packed is None else self.packed
        unpacked = len(self.data) if self.unpacked is None else self.unpacked
        counts = [(1, I32, integer(self.values)), (2, I32, integer(self.encoding))]
        levels = [(3, I32, integer(RLE)), (4, I32, integer(RLE))]
        body = (7, STRUCT, structure(*counts)) if self.kind == DICTIONARY else (5, STRUCT, structure(*counts, *levels))
        head = [(1, I32, integer(self.kind)), (2, I32, integer(unpacked)), (3, I32, integer(packed))]
        return structure(*head, body) + self.data


@dataclass(frozen=True)
class Chunk:
    """A column of a row group. None: as the pages say."""

    pages: tuple[Page, ...] = ()
    kind: int = INT64
    codec: int = NO_CODEC
    values: int | None = None
    size: int | None = None
    offset: int | None = None
    dictionary_offset: int | None = None


@dataclass(frozen=True)
class File:
    """A file of required columns `c0` and so on."""

    groups: tuple[tuple[Chunk, ...], ...] = ()
    rows: int | None = None
    children: int | None = None
    columns: int | None = None
    repeated: int = 1  # how often the footer names each row group
    names: tuple[bytes, ...] = field(default=())

    def to_bytes(self) -> bytes:
        body, groups = MAGIC, []
        for group in self.groups:
            chunks = []
            for index, chunk in enumerate(group):
                start, pages = len(body), [page.to_bytes() for page in chunk.pages]
                body += b"".join(pages)
                first = chunk.pages[:1]
                has_dictionary = bool(first) and first[0].kind == DICTIONARY and len(pages) > 1
                chunks.append(
                    self._chunk(chunk, index, start, len(pages[0]) if has_dictionary else 0, len(body) - start)
                )
            rows = self._rows(group)
            groups.append(
                structure(
                    (1, LIST, sequence(STRUCT, chunks)),
                    (2, I64, integer(sum(map(len, chunks)))),
                    (3, I64, integer(rows)),
                )
            )
        total = sum(self._rows(group) for group in self.groups) * self.repeated
        return closed(
            body,
            structure(
                (1, I32, integer(2)),
                (2, LIST, self._schema()),
                (3, I64, integer(total if self.rows is None else self.rows)),
                (4, LIST, sequence(STRUCT, groups * self.repeated)),
            ),
        )

    def _rows(self, group: tuple[Chunk, ...]) -> int:
        if not group or self.rows is not None:
            return self.rows or 0
        return sum(page.values for page in group[0].pages if page.kind == DATA)

    def _schema(self) -> bytes:
        kinds = [chunk.kind for chunk in self.groups[0]] if self.groups else []
        children = len(kinds) if self.children is None else self.children
        root = structure((4, BINARY, binary(b"schema")), (5, I32, integer(children)))
        columns = []
        for index, kind in enumerate(kinds):
            name = self.names[index] if self.names else b"c%d" % index
            fields = [(1, I32, integer(kind)), (3, I32, integer(0)), (4, BINARY, binary(name))]
            columns.append(structure(*fields, *([(6, I32, integer(0))] if kind == BYTE_ARRAY else [])))
        return sequence(STRUCT, [root, *columns], self.columns)

    def _chunk(self, chunk: Chunk, index: int, start: int, dictionary: int, length: int) -> bytes:
        values = sum(page.values for page in chunk.pages if page.kind == DATA) if chunk.values is None else chunk.values
        size = length if chunk.size is None else chunk.size
        name = self.names[index] if self.names else b"c%d" % index
        encodings = sorted({page.encoding for page in chunk.pages} | {RLE})
        offset = start + dictionary if chunk.offset is None else chunk.offset
        fields = [
            (1, I32, integer(chunk.kind)),
            (2, LIST, sequence(I32, [integer(encoding) for encoding in encodings])),
            (3, LIST, sequence(BINARY, [binary(name)])),
            (4, I32, integer(chunk.codec)),
            (5, I64, integer(values)),
            (6, I64, integer(size)),
            (7, I64, integer(size)),
            (9, I64, integer(offset)),
        ]
        place = chunk.dictionary_offset if chunk.dictionary_offset is not None else (start if dictionary else None)
        if place is not None:
            fields.append((11, I64, integer(place)))
        return structure((2, I64, integer(start)), (3, STRUCT, structure(*fields)))


def closed(body: bytes, footer: bytes, length: int | None = None) -> bytes:
    """A file of a body and a footer, of the length that is said."""
    return body + footer + struct.pack("<I", len(footer) if length is None else length) + MAGIC


def int64s(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}q", *numbers)


def texts(*values: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


def run(count: int, value: int = 0, width: int = 8) -> bytes:
    """A page's indices into a dictionary: the same one so many times, in about ten bytes."""
    return bytes([width]) + varint(count << 1) + value.to_bytes(-(-width // 8), "little")
