"""Comma-separated values, RFC 4180, with LF line ends.

A missing cell is empty, the empty string is ``""``; a field is quoted only where it must be. Where there is one column,
a missing cell is ``""`` too: readers skip empty lines. Cells have the text that their column's form gives them; without
one, floats are in their shortest round-trip form, truth values ``true`` and ``false``, dates and times ISO 8601 unless
the column has a format.
"""

import re
from collections.abc import Mapping

from rowmint.codecs import IdentityCodec
from rowmint.errors import InvalidFieldError
from rowmint.sampling.formats.text import TextStyle, text_columns
from rowmint.schema import DataType, TableSchema
from rowmint.schema.arrays import ColumnArray

_SPECIAL = re.compile(r'[",\r\n]')
# What a spreadsheet begins a formula with, after what it trims; a control character may hide one.
_FORMULA = re.compile("[ \u00a0\u3000\ufeff]*[=+@\t\r\n\uff1d\uff0b\uff0d\uff20-]")


def quoted(text: str) -> str:
    """Return a field: as it is where it may be, else in double quotes."""
    if text and not _SPECIAL.search(text):
        return text
    return '"' + text.replace('"', '""') + '"'


def escaped(text: str) -> str:
    """Return a field that no spreadsheet takes for a formula.

    An apostrophe precedes text that begins with ``= + - @``, plain or full-width, a tab or a line break, also after
    spaces.
    """
    return quoted("'" + text if _FORMULA.match(text) else text)


def _all_quoted(texts: list[str]) -> list[str]:
    """Return fields as `quoted` does; most columns need no quotes, which one search finds."""
    if "" in texts:
        return list(map(quoted, texts))
    joined = "".join(texts)
    if not _SPECIAL.search(joined):
        return texts
    if '"' in joined or "\n" in joined or "\r" in joined:
        return list(map(quoted, texts))
    return [f'"{text}"' if "," in text else text for text in texts]


def _all_escaped(texts: list[str]) -> list[str]:
    return list(map(escaped, texts))


def _missing(schema: TableSchema) -> str:
    """Return what stands for a missing cell.

    Raises:
        InvalidFieldError: A missing cell would look like an empty text.
    """
    if len(schema.columns) > 1:
        return ""
    column = schema.columns[0]
    if column.nullable and column.data_type is DataType.STRING and "" in column.domain.categories:
        raise InvalidFieldError(
            "format",
            f"CSV of the single column {column.name!r} cannot tell a missing cell from an empty text; request another"
            " column with it, or another format",
        )
    return '""'


class CsvEncoder:
    """Writes CSV; see `Encoder`.

    Args:
        schema: Columns delivered, in order.
        identities: Codecs of the id columns by name.
        escape_formulas: Whether text that a spreadsheet takes for a formula is preceded by an apostrophe.

    Raises:
        InvalidFieldError: The only column has both missing cells and empty texts.
    """

    def __init__(self, schema: TableSchema, identities: Mapping[str, IdentityCodec], *, escape_formulas: bool) -> None:
        quote = _all_escaped if escape_formulas else _all_quoted
        self._header = ",".join(quote(list(schema.names))) + "\n"
        style = TextStyle(quote=quote, quote_numbers=_all_quoted, missing=_missing(schema), formatted=True)
        self._columns = text_columns(schema.columns, identities, style)

    def header(self) -> bytes:
        """Return the line of column names."""
        return self._header.encode()

    def batch(self, columns: Mapping[str, ColumnArray], first_row: int, rows: int) -> bytes:
        """Return one line a row."""
        texts = [column(columns[column.name]) for column in self._columns]
        return ("\n".join(map(",".join, zip(*texts, strict=True))) + "\n").encode()

    def end(self) -> bytes:
        """Return nothing."""
        return b""
