"""Comma-separated values, RFC 4180, with LF line ends.

A missing cell is empty, the empty string is ``""``; a field is quoted only where it must be. Floats are in their
shortest round-trip form, truth values ``true`` and ``false``, dates and times ISO 8601 unless the column has a format.
"""

import re
from collections.abc import Mapping

from rowmint.codecs import IdentityCodec
from rowmint.sampling.formats.text import text_columns
from rowmint.schema import TableSchema
from rowmint.schema.arrays import ColumnArray

_SPECIAL = re.compile(r'[",\r\n]')
_FORMULA = ("=", "+", "-", "@")


def quoted(text: str) -> str:
    """Return a field: as it is where it may be, else in double quotes."""
    if text and not _SPECIAL.search(text):
        return text
    return '"' + text.replace('"', '""') + '"'


def escaped(text: str) -> str:
    """Return a field that no spreadsheet takes for a formula: an apostrophe before a leading ``= + - @``."""
    return quoted("'" + text if text.startswith(_FORMULA) else text)


class CsvEncoder:
    """Writes CSV; see `Encoder`.

    Args:
        schema: Columns delivered, in order.
        identities: Codecs of the id columns by name.
        escape_formulas: Whether text that a spreadsheet takes for a formula is preceded by an apostrophe.
    """

    def __init__(self, schema: TableSchema, identities: Mapping[str, IdentityCodec], *, escape_formulas: bool) -> None:
        quote = escaped if escape_formulas else quoted
        self._header = ",".join(map(quote, schema.names)) + "\n"
        self._columns = text_columns(schema.columns, identities, quote, "", formatted=True)

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
