"""One JSON object a line (RFC 8259), keys in the columns' order, no spaces, LF line ends.

Cells have the text that their column's form gives them: as a number or truth value where that is one of JSON, else as a
string. Without a form, decimals are numbers with all their digits; dates and times are ISO 8601 strings. A missing cell
is null.
"""

import json
from collections.abc import Mapping

from rowmint.codecs import IdentityCodec
from rowmint.sampling.formats.text import TextStyle, text_columns
from rowmint.schema import TableSchema
from rowmint.schema.arrays import ColumnArray


def quoted(text: str) -> str:
    """Return a JSON string."""
    return json.dumps(text, ensure_ascii=False)


def _all_quoted(texts: list[str]) -> list[str]:
    return list(map(quoted, texts))


class NdjsonEncoder:
    """Writes newline-delimited JSON; see `Encoder`."""

    def __init__(self, schema: TableSchema, identities: Mapping[str, IdentityCodec]) -> None:
        style = TextStyle(quote=_all_quoted, quote_numbers=_all_quoted, missing="null", json=True)
        self._columns = text_columns(schema.columns, identities, style)
        self._keys = [f"{quoted(name)}:" for name in schema.names]

    def header(self) -> bytes:
        """Return nothing."""
        return b""

    def batch(self, columns: Mapping[str, ColumnArray], first_row: int, rows: int) -> bytes:
        """Return one line a row."""
        texts = [
            [key + text for text in column(columns[column.name])]
            for key, column in zip(self._keys, self._columns, strict=True)
        ]
        return ("{" + "}\n{".join(map(",".join, zip(*texts, strict=True))) + "}\n").encode()

    def end(self) -> bytes:
        """Return nothing."""
        return b""
