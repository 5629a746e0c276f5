"""The shape of a table: frozen values that know nothing of files, networks or the wire."""

from rowmint.schema.cell import INT64_MAX, INT64_MIN, Cell, DataType, cell_text, near_names, parse_cell, shown_cell
from rowmint.schema.column import (
    KINDS_OF_TYPE,
    MAX_COLUMN_NAME,
    ColumnKind,
    ColumnSpec,
    Domain,
    validate_declared,
    with_nullable,
)
from rowmint.schema.table import TableSchema

__all__ = [
    "INT64_MAX",
    "INT64_MIN",
    "KINDS_OF_TYPE",
    "MAX_COLUMN_NAME",
    "Cell",
    "ColumnKind",
    "ColumnSpec",
    "DataType",
    "Domain",
    "TableSchema",
    "cell_text",
    "near_names",
    "parse_cell",
    "shown_cell",
    "validate_declared",
    "with_nullable",
]
