"""Validation of a Parquet file's metadata before memory is allocated for it.

A footer of a few bytes can declare millions of structures, and a page header any decompressed size; Arrow allocates
what they declare (https://parquet.apache.org/docs/file-format/). Both are therefore parsed here first, also because
pyarrow's own accessors abort the process on a corrupt column chunk. The expanded size of each chunk's pages is computed
as well, as every row can refer to the same long text of a dictionary; and so is the memory that its reader holds, as
an entry of a dictionary takes far more than the four bytes of an empty text.
"""

import io
import struct
from dataclasses import dataclass

import pyarrow as pa

from rowmint.errors import DataProblem, InvalidDataError
from trainer_service.datasets.limits import IngestLimits
from trainer_service.datasets.readers.thrift import (
    BINARY,
    FALSE,
    I32,
    I64,
    LIST,
    STRUCT,
    TRUE,
    CompactReader,
    CostError,
    MalformedError,
    Struct,
)

_MAGIC = b"PAR1"
_MAX_FOOTER = 64 << 20
_MAX_PAGE = 256 << 20
_MAX_DICTIONARY = 64 << 20
_MAX_MEMORY = 1 << 30  # of the footer, once it is parsed
_ENTRY_BYTES = 16  # of a dictionary: pointer and length of a text, or the widest number
# Entries of a dictionary that are looked at one by one; writers end a dictionary at 1 MiB. Of more, all bytes but those
# of their lengths may be one text.
_MOST_WALKED = 1 << 20
_DELTA_BYTES = 8  # of each value of a page whose lengths are deltas: all lengths, and those of prefixes, at once
_HEADERS = (512, 64 << 10, 16 << 20)  # bytes read for a page header, which is mostly small
_SCHEMA_ELEMENTS = 4  # maximum per column: a list has three
# Numbers of fields and values in parquet.thrift.
_SCHEMA, _GROUPS = 2, 4
_GROUP_COLUMNS, _GROUP_ROWS = 1, 3
_CHUNK_META = 3
_META_TYPE, _META_PATH, _META_CODEC, _META_VALUES, _META_SIZE, _META_DATA, _META_DICTIONARY = 1, 3, 4, 5, 7, 9, 11
_META_NUMBERS = (_META_TYPE, _META_CODEC, _META_VALUES, _META_SIZE, _META_DATA, _META_DICTIONARY)
_PAGE_TYPE, _PAGE_UNPACKED, _PAGE_PACKED, _PAGE_DATA, _PAGE_DICTIONARY, _PAGE_DATA_2 = 1, 2, 3, 5, 7, 8
_VALUES, _ENCODING, _ENCODING_2 = 1, 2, 4
_DATA, _INDEX, _DICTIONARY, _DATA_2 = range(4)
_BYTE_ARRAY = 6
_DELTA_LENGTH_BYTE_ARRAY = 6
_DELTA_BYTE_ARRAY = 7  # each text is encoded as a prefix of the previous one and a suffix
_CODECS = {1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}


@dataclass(frozen=True)
class GroupPages:
    """Sizes of a row group.

    Attributes:
        rows: Number of rows.
        columns: Number of columns.
        unpacked: Decompressed size of its pages, bytes.
        longest_texts: Maximum size of one row's texts that are encoded by reference (dictionaries and prefixes), bytes.
    """

    rows: int
    columns: int
    unpacked: int
    longest_texts: int


class ParquetFooter:
    """The validated footer of a Parquet file, of bounded size.

    Args:
        source: The file, seekable.
        limits: Limits of the table.

    Attributes:
        row_groups: Number of row groups.

    Raises:
        InvalidDataError: There is none, or it is invalid or too large.
    """

    def __init__(self, source: io.RawIOBase, limits: IngestLimits) -> None:
        self._source = source
        self._limits = limits
        self._size = source.seek(0, io.SEEK_END)
        source.seek(max(self._size - 8, 0))
        tail = source.read(8) or b""
        if self._size < 12 or tail[4:] != _MAGIC:
            raise InvalidDataError(
                [DataProblem("the bytes are not a complete Parquet file; check the declared format, or write it again")]
            )
        length = struct.unpack_from("<I", tail)[0]
        if length > min(self._size - 12, _MAX_FOOTER):
            raise _corrupt_error(
                f"declares a footer of {length} bytes, but the file has {self._size} and the maximum is {_MAX_FOOTER}"
            )
        source.seek(self._size - 8 - length)
        self._footer = source.read(length) or b""
        self._groups: list[int] = []  # where each begins in the footer
        try:
            self._scan(limits)
        except MalformedError as error:
            raise _corrupt_error(f"has a footer that {error}") from error
        except CostError as error:
            message = f"would take more than {_MAX_MEMORY >> 20} MiB of memory; write fewer and larger row groups"
            raise InvalidDataError([DataProblem(f"the footer of the Parquet file {message}")]) from error
        self.row_groups = len(self._groups)

    def _scan(self, limits: IngestLimits) -> None:
        reader = CompactReader(self._footer, _MAX_MEMORY)
        for field, kind in reader.fields():
            if kind in (TRUE, FALSE):
                continue
            if field not in (_SCHEMA, _GROUPS) or kind != LIST:
                reader.skip(kind)
                continue
            element, size = reader.elements()
            if field == _SCHEMA and size > _SCHEMA_ELEMENTS * limits.columns + 1:
                raise InvalidDataError([DataProblem(f"has {size - 1} columns or more; {limits.columns_reason}")])
            if field == _GROUPS and (element != STRUCT or self._groups):
                raise MalformedError("has invalid or repeated row groups")
            for _ in range(size):
                if field == _GROUPS:
                    self._groups.append(reader.at)
                reader.skip(element, 1, 1)

    def pages(self, number: int, first_row: int) -> GroupPages:
        """Validate the pages of a row group.

        Args:
            number: The row group, from 0.
            first_row: Number of its first row, from 1.

        Raises:
            InvalidDataError: A page is inconsistent, or they would take too much memory.
        """
        columns, rows = self._group(number)
        unpacked = memory = longest = 0
        for column in columns:
            chunk = _Chunk(self._source, self._size, column, first_row)
            chunk.walk(rows)
            unpacked += chunk.unpacked
            memory += chunk.memory
            longest += max(chunk.longest_text, chunk.largest_prefixed)
            if memory > self._limits.row_group_bytes:
                # As soon as it is known: what the other columns need makes no difference.
                raise InvalidDataError([DataProblem(self._limits.row_group_reason(memory), row=first_row)])
        return GroupPages(rows, len(columns), unpacked, longest)

    def _group(self, number: int) -> tuple[list["_Column"], int]:
        """Return the columns and number of rows of a row group, which the scan has validated."""
        reader = CompactReader(self._footer, _MAX_MEMORY, self._groups[number])
        columns: list[_Column] = []
        rows = -1
        for field, kind in reader.fields():
            if field == _GROUP_COLUMNS and kind == LIST:
                columns += [_Column.read(reader) for _ in range(reader.elements()[1])]
            elif field == _GROUP_ROWS and kind == I64:
                rows = reader.integer()
            elif kind not in (TRUE, FALSE):
                reader.skip(kind)
        if rows < 0:
            raise _corrupt_error(f"has a row group of {rows} rows")
        return columns, rows


@dataclass(frozen=True)
class _Column:
    """The metadata of a column chunk; missing numbers are -1."""

    name: str
    numbers: dict[int, int]

    @classmethod
    def read(cls, reader: CompactReader) -> "_Column":
        path: list[str] = []
        numbers: dict[int, int] = {}
        for field, kind in reader.fields():
            if field != _CHUNK_META or kind != STRUCT:
                if kind not in (TRUE, FALSE):
                    reader.skip(kind)
                continue
            for inner, inner_kind in reader.fields():
                if inner == _META_PATH and inner_kind == LIST:
                    element, size = reader.elements()
                    if element != BINARY:
                        raise _corrupt_error("has a column whose name is not text")
                    path = [reader.binary()[:256].decode(errors="replace") for _ in range(size)]
                elif inner in _META_NUMBERS and inner_kind in (I32, I64):
                    numbers[inner] = reader.integer()
                elif inner_kind not in (TRUE, FALSE):
                    reader.skip(inner_kind)
        return cls(".".join(path)[:256], numbers)


class _Chunk:
    """The pages of one column in one row group."""

    def __init__(self, source: io.RawIOBase, size: int, column: _Column, first_row: int) -> None:
        self._source = source
        self._column = column
        self._row = first_row
        number = column.numbers.get
        start, dictionary = number(_META_DATA, -1), number(_META_DICTIONARY, -1)
        if 0 < dictionary < start:
            start = dictionary
        self._at, self._end = start, start + number(_META_SIZE, -1)
        self._values = number(_META_VALUES, -1)
        if not (0 <= start <= self._end <= size and self._values >= 0):
            raise self._corrupt_error("lies outside the file")
        self.unpacked = self.longest_text = self.largest_prefixed = 0
        self._largest = self._packed = self._dictionary = self._entries = self._deltas = 0

    @property
    def memory(self) -> int:
        """Bytes that reading the chunk takes at most, once its pages were walked.

        They are those of one page, packed and unpacked, and of the dictionary: its bytes, and its entries.
        """
        page = self._packed + max(self._largest, self._dictionary)
        return page + self._dictionary + _ENTRY_BYTES * self._entries + _DELTA_BYTES * self._deltas

    def _corrupt_error(self, what: str) -> InvalidDataError:
        message = f"this column {what}; the Parquet file is corrupt, write it again"
        return InvalidDataError([DataProblem(message, row=self._row, column=self._column.name)])

    def walk(self, rows: int) -> None:
        """Validate every page.

        Args:
            rows: Number of rows of the group; a flat column has one value per row, missing or not.

        Raises:
            InvalidDataError: A page is inconsistent or too large.
        """
        if self._values != rows:
            raise self._corrupt_error(f"has {self._values} values in a row group of {rows} rows")
        seen, first = 0, True
        while seen < self._values and self._at < self._end:
            page = self._header()
            kind, packed, unpacked = (_number(page, field) for field in (_PAGE_TYPE, _PAGE_PACKED, _PAGE_UNPACKED))
            if not 0 <= packed <= self._end - self._at or unpacked < 0:
                raise self._corrupt_error(f"has a page of invalid sizes: {packed} bytes, {unpacked} decompressed")
            most = _MAX_DICTIONARY if kind == _DICTIONARY else _MAX_PAGE
            if unpacked > most:
                raise self._corrupt_error(f"has a page of {unpacked} bytes decompressed; the maximum is {most}")
            if kind == _DICTIONARY and not first:
                raise self._corrupt_error("has a dictionary after its first page")
            if kind == _DICTIONARY:
                self._dictionary = unpacked
                self._entries = self._dictionary_entries(page)
                self.longest_text = self._longest(packed, unpacked)
            else:
                seen += self._data_page(page, kind, unpacked)
            self.unpacked += unpacked
            self._packed = max(self._packed, packed)
            self._at += packed
            first = False
        if seen != self._values:
            raise self._corrupt_error(f"has pages with {seen} values, but declares {self._values}")

    def _header(self) -> Struct:
        for size in _HEADERS:
            self._source.seek(self._at)
            data = self._source.read(min(size, self._end - self._at)) or b""
            reader = CompactReader(data, _MAX_FOOTER)
            try:
                page = reader.struct()
            except MalformedError as error:
                if len(data) < size:
                    raise self._corrupt_error(f"has a page whose header {error}") from error
                continue
            except CostError:
                break
            self._at += reader.at
            return page
        raise self._corrupt_error("has a page whose header is too long")

    def _data_page(self, page: Struct, kind: int, unpacked: int) -> int:
        """Return the number of values of a page."""
        body = page.get({_DATA: _PAGE_DATA, _DATA_2: _PAGE_DATA_2}.get(kind, 0), {})
        if kind == _INDEX:
            return 0
        if not isinstance(body, dict) or not body:
            raise self._corrupt_error("has a page of unknown kind")
        values = _number(body, _VALUES)
        if values < 0:
            raise self._corrupt_error(f"has a page of {values} values")
        self._largest = max(self._largest, unpacked)
        encoding = _number(body, _ENCODING if kind == _DATA else _ENCODING_2)
        if encoding in (_DELTA_LENGTH_BYTE_ARRAY, _DELTA_BYTE_ARRAY):
            self._deltas = max(self._deltas, values)
        if encoding == _DELTA_BYTE_ARRAY:
            self.largest_prefixed = max(self.largest_prefixed, unpacked)
        return values

    def _dictionary_entries(self, page: Struct) -> int:
        """Return the number of entries of a dictionary page, for which Arrow allocates memory before it reads them."""
        body = page.get(_PAGE_DICTIONARY, {})
        entries = _number(body, _VALUES) if isinstance(body, dict) else -1
        if entries < 0:
            raise self._corrupt_error(f"has a dictionary of {entries} entries")
        return entries

    def _longest(self, packed: int, unpacked: int) -> int:
        """Return the length of the longest text of a dictionary, bytes; an upper bound where that would take long."""
        if self._column.numbers.get(_META_TYPE) != _BYTE_ARRAY:
            return 0
        if self._entries > _MOST_WALKED:
            return max(unpacked - 4 * self._entries, 0)
        self._source.seek(self._at)
        data = self._source.read(packed) or b""
        codec = self._column.numbers.get(_META_CODEC, 0)
        if codec:
            if codec not in _CODECS:
                return unpacked
            try:
                data = pa.decompress(data, unpacked, _CODECS[codec], asbytes=True)
            except (pa.ArrowException, OSError, ValueError):
                return unpacked
        longest = at = 0
        read = struct.Struct("<I").unpack_from
        while at + 4 <= len(data):
            length = read(data, at)[0]
            longest = max(longest, length)
            at += 4 + length
        return min(longest, unpacked)


def _number(page: Struct, field: int) -> int:
    value = page.get(field, -1)
    return value if isinstance(value, int) else -1


def _corrupt_error(what: str) -> InvalidDataError:
    return InvalidDataError([DataProblem(f"the Parquet file {what}; it is corrupt, write it again")])
