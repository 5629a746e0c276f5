"""Formats of uploaded bytes, parsed from the JSON values of `rowmint.v1.DataFormat`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rowmint.errors import InvalidFieldError

ENCODINGS = ("utf-8", "latin-1", "utf-16")
# pyarrow ends the process at about a hundred thousand of them. Checked here too: a format may have been stored by a
# release that did not bound them.
MAX_NULL_VALUES = 100
MAX_NULL_CHARACTERS = 1024


@dataclass(frozen=True)
class CsvFormat:
    """The dialect of a CSV file; its first line is the header.

    Attributes:
        delimiter: Field separator, one ASCII character.
        quote: Quote character, ASCII; doubled within a quoted field.
        null_values: Values of unquoted fields that represent a missing cell, at most 100 of at most 1,024 characters;
            replaces the default, the empty field.
        encoding: One of `ENCODINGS`; a byte order mark is allowed.
    """

    delimiter: str = ","
    quote: str = '"'
    null_values: tuple[str, ...] = ("",)
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        for name in ("delimiter", "quote"):
            text = getattr(self, name)
            if len(text) != 1 or not text.isascii() or text in "\r\n\0":
                raise InvalidFieldError(
                    f"dataset.format.csv.{name}", f"{text!r} must be one ASCII character, not a line ending"
                )
        if self.delimiter == self.quote:
            raise InvalidFieldError("dataset.format.csv.quote", "must differ from the delimiter")
        if self.encoding not in ENCODINGS:
            raise InvalidFieldError(
                "dataset.format.csv.encoding", f"{self.encoding!r} is not one of {', '.join(ENCODINGS)}"
            )
        if len(self.null_values) > MAX_NULL_VALUES:
            raise InvalidFieldError(
                "dataset.format.csv.null_values", f"has {len(self.null_values):,} entries; at most {MAX_NULL_VALUES}"
            )
        for index, value in enumerate(self.null_values):
            if len(value) > MAX_NULL_CHARACTERS:
                raise InvalidFieldError(
                    f"dataset.format.csv.null_values[{index}]",
                    f"has {len(value):,} characters; at most {MAX_NULL_CHARACTERS:,}",
                )


@dataclass(frozen=True)
class JsonFormat:
    """One JSON object per line, or one JSON array of objects."""


@dataclass(frozen=True)
class ParquetFormat:
    """An Apache Parquet file with flat columns."""


@dataclass(frozen=True)
class ArrowStreamFormat:
    """An Apache Arrow IPC stream with flat columns, uncompressed."""


DataFormat = CsvFormat | JsonFormat | ParquetFormat | ArrowStreamFormat


def format_from_json(body: Mapping[str, Any]) -> DataFormat:
    """Parse a format, such as ``{"type": "csv", "delimiter": ...}``; missing options have their defaults.

    Raises:
        InvalidFieldError: The type is unknown or an option is invalid.
    """
    match body.get("type"):
        case "csv":
            default = CsvFormat()
            return CsvFormat(
                delimiter=body.get("delimiter", default.delimiter),
                quote=body.get("quote", default.quote),
                null_values=tuple(body.get("null_values", ())) or default.null_values,
                encoding=body.get("encoding", default.encoding),
            )
        case "json":
            return JsonFormat()
        case "parquet":
            return ParquetFormat()
        case "arrow_stream":
            return ArrowStreamFormat()
        case other:
            raise InvalidFieldError("dataset.format", f"{other!r} is not csv, json, parquet or arrow_stream")
