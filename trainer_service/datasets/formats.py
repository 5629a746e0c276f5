"""Formats of uploaded bytes, parsed from the JSON values of `rowmint.v1.DataFormat`."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from rowmint.errors import InvalidFieldError

ENCODINGS = ("utf-8", "latin-1", "cp1252", "utf-16")
DELIMITER_NAMES: Mapping[str, str] = {
    "tab": "\t",
    "\\t": "\t",
    "comma": ",",
    "semicolon": ";",
    "pipe": "|",
    "space": " ",
}
"""Names of delimiters that are hard to type."""
MAX_SKIP_ROWS = 1_000_000
MAX_COMMENT = 4
"""Characters of the text that begins a comment."""
# pyarrow ends the process at about a hundred thousand of them. Checked here too: a format may have been stored by a
# release that did not bound them.
MAX_NULL_VALUES = 100
MAX_NULL_CHARACTERS = 1024
_PATH = "dataset.format.csv"


class CsvHeader(StrEnum):
    """Whether a CSV file begins with the names of its columns."""

    EXPECTED = "expected"
    """It does, and it is refused where that can hardly be."""
    PRESENT = "present"
    ABSENT = "absent"


class QuotedEmpty(StrEnum):
    """What a quoted field without characters is."""

    SEEN = "seen"
    """Missing where every field of the file is quoted or it has one column, else an empty text."""
    MISSING = "missing"
    TEXT = "text"


class JsonOrient(StrEnum):
    """How a JSON document holds a table, in the words of pandas."""

    SEEN = "seen"
    RECORDS = "records"
    LINES = "lines"
    COLUMNS = "columns"
    INDEX = "index"
    SPLIT = "split"
    VALUES = "values"
    TABLE = "table"


@dataclass(frozen=True)
class CsvFormat:
    """The dialect of a CSV file, as declared or, where `csv_dialect.seen` returned it, as seen.

    Attributes:
        delimiter: Field separator, one ASCII character; None: seen from the file.
        quote: Quote character, ASCII; doubled within a quoted field.
        null_values: Values of unquoted fields that represent a missing cell, at most 100 of at most 1,024 characters;
            replaces the default, the empty field.
        encoding: One of `ENCODINGS`; a byte order mark is allowed. None: UTF-16 if the file begins with its byte order
            mark, else UTF-8.
        comment: Lines that begin with this text are skipped, at most 4 characters; empty: none.
        skip_rows: Lines skipped at the beginning; without `comment`, lines after them that begin with ``#`` are, too.
        header: Whether the first line names the columns.
        column_names: Names of the columns of a file without a header; empty: column1, column2 and so on.
        decimal: What stands before the fraction of a number; empty: seen from each column.
        group_separator: What stands between groups of digits; None: seen from each column.
        quoted_empty: What a quoted field without characters is.
    """

    delimiter: str | None = None
    quote: str = '"'
    null_values: tuple[str, ...] = ("",)
    encoding: str | None = None
    comment: str = ""
    skip_rows: int = 0
    header: CsvHeader = CsvHeader.EXPECTED
    column_names: tuple[str, ...] = ()
    decimal: str = ""
    group_separator: str | None = None
    quoted_empty: QuotedEmpty = QuotedEmpty.SEEN

    def __post_init__(self) -> None:
        for name, text in (("delimiter", self.delimiter), ("quote", self.quote)):
            if text is not None and (len(text) != 1 or not text.isascii() or text in "\r\n\0"):
                raise InvalidFieldError(f"{_PATH}.{name}", f"{text!r} must be one ASCII character, not a line ending")
        if self.delimiter == self.quote:
            raise InvalidFieldError(f"{_PATH}.quote", "must differ from the delimiter")
        if self.encoding is not None and self.encoding not in ENCODINGS:
            raise InvalidFieldError(f"{_PATH}.encoding", f"{self.encoding!r} is not one of {', '.join(ENCODINGS)}")
        self._check_lines()
        self._check_numbers()
        self._check_nulls()

    def _check_nulls(self) -> None:
        if len(self.null_values) > MAX_NULL_VALUES:
            raise InvalidFieldError(
                f"{_PATH}.null_values", f"has {len(self.null_values):,} entries; at most {MAX_NULL_VALUES}"
            )
        for index, value in enumerate(self.null_values):
            if len(value) > MAX_NULL_CHARACTERS:
                raise InvalidFieldError(
                    f"{_PATH}.null_values[{index}]",
                    f"has {len(value):,} characters; at most {MAX_NULL_CHARACTERS:,}",
                )

    def _check_lines(self) -> None:
        if len(self.comment) > MAX_COMMENT or set(self.comment) & set(f"\r\n\0{self.quote}"):
            message = f"{self.comment!r} must be 1 to {MAX_COMMENT} characters, not a quote or a line ending"
            raise InvalidFieldError(f"{_PATH}.comment", message)
        if not 0 <= self.skip_rows <= MAX_SKIP_ROWS:
            raise InvalidFieldError(f"{_PATH}.skip_rows", f"is {self.skip_rows}; must be 0 to {MAX_SKIP_ROWS}")
        if self.column_names and self.header is CsvHeader.PRESENT:
            raise InvalidFieldError(f"{_PATH}.column_names", "name the columns of a file without a header")

    def _check_numbers(self) -> None:
        for name, text in (("decimal", self.decimal), ("group_separator", self.group_separator or "")):
            if len(text) > 1 or text.isalnum() or text in ("+", "-", "\r", "\n", "\0"):
                raise InvalidFieldError(f"{_PATH}.{name}", f"{text!r} must be one character that separates digits")
        if self.decimal and self.decimal == self.group_separator:
            raise InvalidFieldError(f"{_PATH}.group_separator", "must differ from the decimal separator")

    @property
    def has_header(self) -> bool:
        """Whether the file begins with the names of its columns."""
        return self.header is not CsvHeader.ABSENT and not self.column_names

    def to_json(self) -> dict[str, Any]:
        """Return the options that are not the default, as JSON values."""
        default = CsvFormat()
        body: dict[str, Any] = {}
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if value != getattr(default, name):
                body[name] = list(value) if isinstance(value, tuple) else value
        return {name: str(value) if isinstance(value, StrEnum) else value for name, value in body.items()}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """Return the dialect that `to_json` wrote; unknown names are ignored.

        Raises:
            InvalidFieldError: An option is invalid.
        """
        given = {name: body[name] for name in cls.__dataclass_fields__ if body.get(name) is not None}
        for name in ("null_values", "column_names"):
            if name in given:
                given[name] = tuple(given[name])
        if not given.get("null_values", True):
            del given["null_values"]
        if "delimiter" in given:
            given["delimiter"] = DELIMITER_NAMES.get(given["delimiter"], given["delimiter"])
        for name, kind in (("header", CsvHeader), ("quoted_empty", QuotedEmpty)):
            if name in given:
                given[name] = kind(given[name])
        return cls(**given)


@dataclass(frozen=True)
class JsonFormat:
    """A JSON document, or one JSON object per line.

    Attributes:
        orient: How it holds the table.
    """

    orient: JsonOrient = JsonOrient.SEEN


@dataclass(frozen=True)
class ParquetFormat:
    """An Apache Parquet file with flat columns."""


@dataclass(frozen=True)
class ArrowStreamFormat:
    """An Apache Arrow IPC stream with flat columns."""


@dataclass(frozen=True)
class ArrowFileFormat:
    """An Apache Arrow IPC file with flat columns, which is also Feather version 2."""


DataFormat = CsvFormat | JsonFormat | ParquetFormat | ArrowStreamFormat | ArrowFileFormat


def format_from_json(body: Mapping[str, Any]) -> DataFormat:
    """Parse a format, such as ``{"type": "csv", "delimiter": ...}``; missing options have their defaults.

    Raises:
        InvalidFieldError: The type is unknown or an option is invalid.
    """
    match body.get("type"):
        case "csv":
            return CsvFormat.from_json(body)
        case "json":
            return JsonFormat(JsonOrient(body.get("orient", JsonOrient.SEEN)))
        case "parquet":
            return ParquetFormat()
        case "arrow_stream":
            return ArrowStreamFormat()
        case "arrow_file":
            return ArrowFileFormat()
        case other:
            raise InvalidFieldError(
                "dataset.format", f"{other!r} is not csv, json, parquet, arrow_stream or arrow_file"
            )
