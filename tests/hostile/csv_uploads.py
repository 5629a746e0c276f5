"""Hostile CSV files."""

import csv
import io
from collections.abc import Callable

from rowmint.errors import InvalidFieldError
from rowmint.schema import ColumnSpec, DataType
from tests.hostile.uploads import Refused, accepted, equal, fuzzed, read, refused
from trainer_service.datasets.formats import CsvFormat, format_from_json
from trainer_service.datasets.limits import IngestLimits

CSV = CsvFormat()
WORDS = b'name,"size, or ""so""",when\nx,1,2020-01-01\n"a ""b"",\nc",2.5,2021-02-03\r\n\xc3\xa9\xe2\x82\xac,,\n'


def truncated_at_every_byte() -> None:
    """What Python's own reader makes of the bytes that are left is what comes of them, or they are refused."""
    texts = tuple(ColumnSpec(name, data_type=DataType.STRING) for name in ("name", 'size, or "so"', "when"))
    tables = 0
    for cut in range(len(WORDS)):
        data = WORDS[:cut]
        try:
            names, *rows = list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True))
        except (UnicodeDecodeError, csv.Error, ValueError):
            names, rows = [], []
        whole = len(names) == 3 and names[2] == "when" and bool(rows) and all(len(row) == 3 for row in rows)
        if not whole:
            equal(Refused, type(read(data, CSV)))
            continue
        found = read(data, CSV, overrides=texts)
        equal([[cell or None for cell in row] for row in rows], [list(row.values()) for row in found.to_pylist()])
        tables += 1
    equal(True, tables > 20)


def endless_line() -> None:
    for line in (b"x" * (40 << 20), b"a,b\n" + b"1," + b"x" * (40 << 20), b'a,b\n1,"' + b"x\n" * (20 << 20)):
        equal([(1 if line[:1] == b"x" else 2, 0, "")], refused(line, CSV, "ROWMINT_MAX_ROW_BYTES").places)


def endless_header_of_many_names() -> None:
    refused(b"a," * (9 << 20) + b"a\n1\n", CSV, "ROWMINT_MAX_ROW_BYTES")
    refused(b",".join(b"c%d" % number for number in range(1_000_000)) + b"\n1\n", CSV, "has 1000000 columns")
    refused(b",".join(b"c%d" % number for number in range(4097)) + b"\n1\n", CSV, "1 to 4096 (ROWMINT_MAX_COLUMNS)")


def header_of_the_longest_names() -> None:
    """More than a mebibyte: as long as a header within the limits may be, it is read to its end."""
    names = [f"{number:04d}{'é' * 252}" for number in range(4096)]
    row = "1" + "," * 4095
    table = accepted(f"{','.join(names)}\n{row}\n{row}\n".encode(), CSV)
    equal(names, table.column_names)
    equal(2, table.num_rows)


def huge_fields() -> None:
    equal([(2, 1, "a")], refused(b"a\n" + b"x" * 65_537 + b"\n", CSV, "ROWMINT_MAX_TEXT_BYTES").places)
    equal(65_536, len(accepted(b"a\n" + b"x" * 65_536 + b"\n", CSV)["a"][0].as_py()))
    tight = IngestLimits(text_bytes=3)
    equal([(3, 2, "a")], refused("a\nxyz\néé\n".encode(), CSV, "longer than 3 bytes", tight).places)


def numbers_of_many_digits() -> None:
    for number in (b"9" * 60_000, b"1e" + b"9" * 60_000, b"0." + b"1" * 60_000, b"-" + b"0" * 60_000):
        equal([number.decode(), "x"], accepted(b"a\n" + number + b"\nx\n", CSV)["a"].to_pylist())
        found = read(b"a\n" + number + b"\n1\n", CSV)
        equal(True, isinstance(found, Refused) or found.num_rows == 2)


def millions_of_empty_lines() -> None:
    equal(8_000_001, accepted(b"a\n" + b"\n" * 8_000_000 + b"1\n", CSV).num_rows)
    refused(b"a,b\n" + b"\n" * 8_000_000, CSV, "no rows")
    refused(b"\n" * 8_000_000, CSV, "empty")


def many_cells_of_nothing() -> None:
    names = b",".join(b"c%d" % number for number in range(4096))
    equal(200, accepted(names + b"\n" + (b"," * 4095 + b"\n") * 200, CSV).num_rows)


def nul_bytes() -> None:
    equal(["x\0y", "\0"], accepted(b"a\nx\0y\n\0\n", CSV)["a"].to_pylist())
    equal([(1, 0, "")], refused(b"a\0b\n1\n", CSV, "U+0000").places)
    refused(b"\0" * 200, CSV, "U+0000")


def byte_order_marks() -> None:
    bom = b"\xef\xbb\xbf"
    equal({"a": [1]}, accepted(bom + b"a\n1\n", CSV).to_pydict())
    equal({"\ufeffa": [1]}, accepted(bom * 2 + b"a\n1\n", CSV).to_pydict())
    refused(bom, CSV, "empty")
    refused(b"\xff\xfea\0\n\0", CSV, "no rows")
    refused(b"\xff\xfea\0\n", CSV, "utf-16")
    equal({"a": [1]}, accepted(b"\xff\xfea\0\n\x001\0\n\0", CsvFormat(encoding="utf-16")).to_pydict())
    refused(b"\xff\xfea\0\n", CsvFormat(encoding="utf-16"), "utf-16")
    refused(b"\xff\xfe\x00\xd8\n\0", CsvFormat(encoding="utf-16"), "utf-16")


def bad_utf8() -> None:
    for bad in (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80"):
        equal([(3, 0, "")], refused(b"a\nx\n" + bad + b"\ny\n", CSV, "utf-8").places)
        equal([(2, 0, "")], refused(b"a\nx" + bad, CSV, "utf-8").places)


def quotes_out_of_place() -> None:
    for data, line in (
        (b'a,b\n1,"2\n3,4\n', 2),
        (b'a,b\n1,2\n3,4"5\n', 3),
        (b'a,b\n"1"x,2\n', 2),
        (b'a,b\n1,""""\n2,"""\n', 3),
    ):
        equal([(line, 0, "")], refused(data, CSV, "quote").places)
    refused(b'"', CSV, "never closed")
    refused(b'a,b\n1,"' + b'""' * (9 << 20) + b'"\n', CSV, "ROWMINT_MAX_ROW_BYTES")


def names_given_twice_or_not_at_all() -> None:
    equal([(1, 0, "a")], refused(b"a,b,a\n1,2,3\n", CSV, "same name").places)
    equal([(1, 0, ""), (1, 0, "")], refused(b"a,,\n1,2,3\n", CSV, "has no name").places)
    equal([(1, 0, "")], refused(b"x" * 257 + b"\n1\n", CSV, "longer than 256").places)


def ragged_rows_without_end() -> None:
    equal(100, len(refused(b"a,b\n" + b"1\n" * 3_000_000, CSV, "has 1 fields").problems))
    equal(100, len(refused(b"a,b\n" + b"1,2,3\n" * 3_000_000, CSV, "has 3 fields").problems))
    equal([(2, 1, "")], refused(b"a,b\n" + b"," * 5_000_000 + b"\n", CSV, "has 5000001 fields").places)


def null_values_by_the_thousand() -> None:
    """pyarrow ends the process at about a hundred thousand: that many are refused, of a stored format too."""
    most = ["-" * 1000 + str(number) for number in range(99)]
    found = accepted(b"a,b\n1,-\n-,2\n", format_from_json({"type": "csv", "null_values": ["-", *most]}))
    equal({"a": [1, None], "b": [None, 2]}, found.to_pydict())
    try:
        format_from_json({"type": "csv", "null_values": [str(number) for number in range(100_000)]})
    except InvalidFieldError as error:
        equal("dataset.format.csv.null_values: has 100,000 entries; at most 100", str(error))
    else:
        raise AssertionError("a hundred thousand null values were accepted")


CASES: dict[str, Callable[[], None]] = {
    case.__name__: case
    for case in (
        truncated_at_every_byte,
        endless_line,
        endless_header_of_many_names,
        header_of_the_longest_names,
        huge_fields,
        numbers_of_many_digits,
        millions_of_empty_lines,
        many_cells_of_nothing,
        nul_bytes,
        byte_order_marks,
        bad_utf8,
        quotes_out_of_place,
        names_given_twice_or_not_at_all,
        ragged_rows_without_end,
        null_values_by_the_thousand,
    )
} | fuzzed({"csv": WORDS}, CSV, 2)
