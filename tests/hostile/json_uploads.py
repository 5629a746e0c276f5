"""Hostile JSON: objects by line, and arrays of objects."""

import json
from collections.abc import Callable

from rowmint.schema import ColumnSpec, DataType
from tests.hostile.uploads import Refused, accepted, equal, fuzzed, read, refused
from trainer_service.datasets.formats import JsonFormat
from trainer_service.datasets.limits import IngestLimits

JSON = JsonFormat()
ROWS = [{"a": 1, "b": 'x"\\\n', "c": None}, {"a": -2.5, "b": "é\U0001f600", "d": True}, {"a": 1e3}]
LINES = b"\n".join(json.dumps(row, ensure_ascii=index % 2 == 0).encode() for index, row in enumerate(ROWS)) + b"\n"
ARRAY = json.dumps(ROWS, indent=1, ensure_ascii=False).encode()
KEYS = ("a", "b", "c", "d")
TEXTS = tuple(ColumnSpec(name, data_type=DataType.STRING) for name in KEYS)


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


def lines_truncated_at_every_byte() -> None:
    """Whole objects make a table, of just these objects; half of one is refused."""
    tables = 0
    for cut in range(len(LINES) + 1):
        try:
            lines = [line for line in LINES[:cut].decode().split("\n") if line]
        except UnicodeDecodeError:
            lines = [""]
        objects = [_parsed(line) for line in lines]
        found = read(LINES[:cut], JSON)
        if not lines or None in objects:
            equal(Refused, type(found))
            continue
        equal(len(objects), found.num_rows)
        equal([row.get("b") for row in ROWS][: len(objects)], found["b"].to_pylist())
        tables += 1
    equal(6, tables)  # each of three rows, with and without its line's end


def array_truncated_at_every_byte() -> None:
    for cut in range(len(ARRAY)):
        equal(Refused, type(read(ARRAY[:cut], JSON)))
    equal(3, accepted(ARRAY, JSON).num_rows)


def deep_nesting() -> None:
    for opening in (b"[", b'{"a":', b'[{"a":', b"[[],"):
        for depth in (500, 100_000, 3_000_000):
            equal(Refused, type(read(opening * depth, JSON)))
            equal(Refused, type(read(b'{"a":1}\n' + opening * depth, JSON)))
            equal(Refused, type(read(b'[{"a":1},' + opening * depth, JSON)))
    for closed in (b"[" * 400 + b"]" * 400, b'{"a":' * 400 + b"1" + b"}" * 400):
        refused(b'{"a":1}\n{"a":' + closed + b"}", JSON, "nested")


def many_values_in_one_object() -> None:
    """Parsed, each value takes thirty times its text; the objects here are within the limit of a row."""
    keys = b"{" + b",".join(b'"%d":1' % number for number in range(1_000_000)) + b"}"
    lists = b'{"a":[' + b"[]," * 4_000_000 + b"[]]}"
    objects = b'{"a":[' + b"{}," * 4_000_000 + b"{}]}"
    # An object of lists alone is a table by columns, whose cells are read one by one.
    equal([(1, 0, "")], refused(keys, JSON, "ROWMINT_MAX_COLUMNS").places)
    equal((1, 1, "a"), refused(lists, JSON, "is nested").places[0])
    equal((1, 0, "a"), refused(objects, JSON, "is an object in an array").places[0])
    for row in (keys, lists, objects):
        equal([(2, 0, "")], refused(b'[{"a":1},\n' + row + b"]", JSON, "ROWMINT_MAX_COLUMNS").places)
        equal([(1, 0, "")], refused(b"[" + row[:-1], JSON, "ROWMINT_MAX_COLUMNS").places)


def commas_in_a_text_are_no_values() -> None:
    text = ',{["\\' * 300_000
    row = json.dumps({"a": text, "b": 1}).encode()
    limits = IngestLimits(text_bytes=2 << 20)
    equal([text], accepted(row, JSON, limits)["a"].to_pylist())
    equal([text, None], accepted(b"[" + row + b",{}]", JSON, limits)["a"].to_pylist())


def endless_object() -> None:
    for start in (b'{"a":"', b'[{"a":"', b'[{"a":', b"[", b'{"a":'):
        for body in (b"x", b"1", b" ", b"\\"):
            equal(Refused, type(read(start + body * (5 << 20), JSON, IngestLimits(row_bytes=3 << 20))))
    refused(b'{"a":"' + b"x" * (20 << 20), JSON, "ROWMINT_MAX_ROW_BYTES")
    refused(b'[{"a":"' + b"x" * (40 << 20) + b'"}]', JSON, "ROWMINT_MAX_ROW_BYTES")
    equal([(1, 0, "")], refused('{"a":"ééé"}\n'.encode(), JSON, "longer than 13", IngestLimits(row_bytes=13)).places)
    equal(1, accepted('{"a":"ééé"}\n'.encode(), JSON, IngestLimits(row_bytes=14)).num_rows)
    equal([(1, 0, "")], refused('[{"a":"ééé"}]'.encode(), JSON, "longer than 13", IngestLimits(row_bytes=13)).places)


def endless_space() -> None:
    refused(b" " * (40 << 20), JSON, "empty")
    refused(b"\n" * (40 << 20), JSON, "empty")
    equal(1, accepted(b"[" + b"\n" * (20 << 20) + b'{"a":1}]', JSON).num_rows)


def huge_texts() -> None:
    equal([(1, 1, "a")], refused(b'{"a":"' + b"x" * 65_537 + b'"}', JSON, "ROWMINT_MAX_TEXT_BYTES").places)
    equal(Refused, type(read(b'{"' + b"k" * 1_000_000 + b'":1}', JSON)))


def huge_numbers() -> None:
    for number in (b"9" * 4000, b"1e999", b"-1e999", b"1" + b"0" * 400 + b".5", b"9" * 100_000, b"1e" + b"9" * 100_000):
        found = read(b'{"a":' + number + b"}\n", JSON)
        whole = number.isdigit() and len(number) == 4000
        equal([number.decode()] if whole else Refused, type(found) if not whole else found["a"].to_pylist())


def every_object_another_key() -> None:
    """A few bytes bring a column that all rows then have: the cells of a batch are bounded, not its rows alone."""
    limits = IngestLimits(columns=128)
    rows = b"".join(b'{"k%d":%d}\n' % (number % 128, number) for number in range(16_384))
    equal(16_384, accepted(rows, JSON, limits).num_rows)
    refused(rows + b'{"one more":1}', JSON, "1 to 128 (ROWMINT_MAX_COLUMNS)", limits)
    refused(b"".join(b'{"k%d":1}\n' % number for number in range(1_000_000)), JSON, "ROWMINT_MAX_COLUMNS")


def duplicate_keys() -> None:
    equal([(2, 0, "")], refused(b'{"a":1}\n{"a":1,"a":2}', JSON, "'a' is given more than once").places)
    equal([(1, 0, "")], refused(b'{"a":1,"\\u0061":2}', JSON, "'a' is given more than once").places)
    many = b"{" + b",".join(b'"k%d":1' % number for number in range(50_000)) + b',"k1":1}'
    refused(many, JSON, "'k1' is given more than once")


def constants_that_are_no_json() -> None:
    for word in (b"Infinity", b"-Infinity"):
        equal([(1, 1, "a")], refused(b'{"a":' + word + b"}", JSON, "is not a finite number").places)
    for word in (b"NaN", b"nan", b"undefined", b"01", b"+1", b"0x1", b"'a'", b"True"):
        equal([(1, 0, "")], refused(b'{"a":' + word + b"}", JSON, "is not a JSON object").places)


def nul_bytes_and_escapes() -> None:
    equal([(1, 0, "")], refused(b'{"a":"\0"}', JSON, "control character").places)
    equal(["\0"], accepted(b'{"a":"\\u0000"}', JSON)["a"].to_pylist())
    refused(b'{"\\u0000":1}', JSON, "U+0000")
    refused(b"\0" * 100, JSON, "JSON objects")
    equal([(1, 1, "a")], refused(b'{"a":"\\udc00\\ud800"}', JSON, "surrogate").places)
    refused(b'{"\\ud800":1}', JSON, "surrogate")
    refused(b'{"\\ud800":[]}', JSON, "surrogate")
    equal([(1, 0, "?")], refused(b'{"\\ud800":[],"b":1}', JSON, "nested").places)
    refused(b'{"' + b"k" * 100_000 + b'":[],"b":1}', JSON, "nested")
    refused(b'{"' + b"k" * 100_000 + b'":1,"' + b"k" * 100_000 + b'":1}', JSON, "more than once")


def bad_utf8_and_byte_order_marks() -> None:
    for bad in (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"):
        equal([(2, 0, "")], refused(b'{"a":1}\n{"a":"' + bad + b'"}', JSON, "UTF-8").places)
    equal(1, accepted(b'\xef\xbb\xbf{"a":1}', JSON).num_rows)
    refused(b'\xef\xbb\xbf\xef\xbb\xbf{"a":1}', JSON, "starts with neither")
    refused(b'\xff\xfe{\0"\0a\0"\0:\x001\0}\0', JSON, "UTF-8")


def values_that_are_no_objects() -> None:
    equal(100, len(refused(b"[" + b"1," * 2_000_000 + b"1]", JSON, "is not a JSON object").problems))
    equal(100, len(refused(b"{}\n" + b"1\n" * 2_000_000, JSON, "is not a JSON object").problems))
    refused(b"{}\n" * 100_000, JSON, "no columns")


CASES: dict[str, Callable[[], None]] = {
    case.__name__: case
    for case in (
        lines_truncated_at_every_byte,
        array_truncated_at_every_byte,
        deep_nesting,
        many_values_in_one_object,
        commas_in_a_text_are_no_values,
        endless_object,
        endless_space,
        huge_texts,
        huge_numbers,
        every_object_another_key,
        duplicate_keys,
        constants_that_are_no_json,
        nul_bytes_and_escapes,
        bad_utf8_and_byte_order_marks,
        values_that_are_no_objects,
    )
} | fuzzed({"lines": LINES, "an array": ARRAY}, JSON, 1)
