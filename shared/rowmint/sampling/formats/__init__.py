"""Encoders: from the columns of one batch to the bytes of a format. One file a format.

What an encoder writes of a batch depends on the batch's values alone, so batches may be encoded by any replica, in any
call, and joined: header, batches in order, end.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

from rowmint.codecs import IdentityCodec
from rowmint.sampling.formats.arrow import ArrowEncoder
from rowmint.sampling.formats.columns import ColumnsEncoder, TypedBatch
from rowmint.sampling.formats.delimited import CsvEncoder
from rowmint.sampling.formats.ndjson import NdjsonEncoder
from rowmint.schema import TableSchema
from rowmint.schema.arrays import ColumnArray

Payload = bytes | TypedBatch
"""What a format makes of one batch."""


class RowFormat(StrEnum):
    """How rows are written."""

    ARROW_STREAM = "arrow_stream"
    CSV = "csv"
    NDJSON = "ndjson"
    COLUMNS = "columns"


class Encoder(Protocol):
    """Writes rows of one schema in one format. Immutable, thread-safe."""

    def header(self) -> bytes:
        """Return what a file begins with."""
        ...

    def batch(self, columns: Mapping[str, ColumnArray], first_row: int, rows: int) -> Payload:
        """Return the rows of one batch.

        Args:
            columns: The schema's columns by name, `rows` cells each.
            first_row: Index of the first row.
            rows: At least 1.
        """
        ...

    def end(self) -> bytes:
        """Return what a file ends with."""
        ...


def make_encoder(
    row_format: RowFormat,
    schema: TableSchema,
    identities: Mapping[str, IdentityCodec],
    *,
    escape_formulas: bool = False,
) -> Encoder:
    """Return the encoder of a format.

    Args:
        row_format: The format.
        schema: Columns delivered, in order.
        identities: Codecs of the id columns by name.
        escape_formulas: For CSV, whether text that a spreadsheet takes for a formula is preceded by an apostrophe.
    """
    match row_format:
        case RowFormat.ARROW_STREAM:
            return ArrowEncoder(schema, identities)
        case RowFormat.CSV:
            return CsvEncoder(schema, identities, escape_formulas=escape_formulas)
        case RowFormat.NDJSON:
            return NdjsonEncoder(schema, identities)
        case RowFormat.COLUMNS:
            return ColumnsEncoder(schema, identities)


__all__ = ["Encoder", "Payload", "RowFormat", "TypedBatch", "make_encoder"]
