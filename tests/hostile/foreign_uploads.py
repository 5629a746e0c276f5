"""Files of one format under the declaration of another, and bytes of no format at all."""

import random
from collections.abc import Callable

from tests.hostile.arrow_uploads import DATA as ARROW_DATA
from tests.hostile.confined import note
from tests.hostile.csv_uploads import WORDS
from tests.hostile.json_uploads import ARRAY, LINES
from tests.hostile.parquet_uploads import FILES
from tests.hostile.uploads import Refused, equal, read
from trainer_service.datasets.formats import ArrowStreamFormat, CsvFormat, JsonFormat, ParquetFormat

FORMATS = {
    "csv": CsvFormat(),
    "csv of another dialect": CsvFormat(delimiter=";", quote="'", encoding="latin-1"),
    "csv in utf-16": CsvFormat(encoding="utf-16"),
    "json": JsonFormat(),
    "parquet": ParquetFormat(),
    "arrow": ArrowStreamFormat(),
}
UPLOADS = {
    "csv": WORDS,
    "lines": LINES,
    "array": ARRAY,
    "parquet": FILES["a file"],
    "arrow": ARROW_DATA,
    "pickle": b"\x80\x04\x95\x1c" + bytes(7) + b"\x8c\x05posix\x94\x8c\x05_exit\x94\x93\x94K\x03\x85\x94R\x94.",
    "zip": b"PK\x03\x04\x14\0\0\0\x08\0" + bytes(200),
    "gzip": b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x4b\xd4\x49\xe2\x02\0\x30\xf2\xb7\xf1\x04\0\0\0",
    "arrow file": b"ARROW1\0\0" + ARROW_DATA + b"ARROW1",
    "sqlite": b"SQLite format 3\0" + bytes(100),
    "one byte": b"\0",
    "nothing": b"",
}
# CSV has no marks of its own: these bytes are a table, if an odd one.
ODD_TABLES = {
    ("csv", "csv"),
    ("csv of another dialect", "csv"),
    ("csv of another dialect", "lines"),
    ("csv of another dialect", "array"),
    ("json", "lines"),
    ("json", "array"),
    ("parquet", "parquet"),
    ("arrow", "arrow"),
}


def every_upload_under_every_declaration() -> None:
    tables = set()
    for declared, data_format in FORMATS.items():
        for name, data in UPLOADS.items():
            note(f"{name} declared as {declared}")
            if not isinstance(read(data, data_format), Refused):
                tables.add((declared, name))
    equal(ODD_TABLES, tables)


def noise() -> None:
    """Random bytes are neither a typed file nor JSON."""
    draw = random.Random(11)
    for number in range(300):
        data = draw.randbytes(draw.choice((1, 10, 100, 1000)))
        for declared, data_format in FORMATS.items():
            note(f"noise {number} declared as {declared}: {data.hex()}")
            found = read(data, data_format)
            if not declared.startswith("csv"):
                equal(Refused, type(found))


CASES: dict[str, Callable[[], None]] = {case.__name__: case for case in (every_upload_under_every_declaration, noise)}
