"""A schema as metadata of SDV, the Synthetic Data Vault."""

from typing import Any

from rowmint.schema.cell import DataType
from rowmint.schema.column import ColumnKind
from rowmint.schema.table import TableSchema


def sdv_metadata(schema: TableSchema, table: str = "table") -> dict[str, Any]:
    """Return a schema as SDV's multi-table metadata (``METADATA_SPEC_VERSION`` V1), JSON values.

    Args:
        schema: The schema.
        table: Name of its table.
    """
    columns: dict[str, Any] = {}
    for column in schema.columns:
        if column.kind is ColumnKind.DATETIME:
            default = "%Y-%m-%d" if column.data_type is DataType.DATE else "%Y-%m-%dT%H:%M:%S"
            columns[column.name] = {"sdtype": "datetime", "datetime_format": column.datetime_format or default}
        elif column.kind is ColumnKind.IGNORED or column.kind is None:
            columns[column.name] = {"sdtype": "unknown", "pii": False}
        else:
            columns[column.name] = {"sdtype": str(column.kind)}
    body: dict[str, Any] = {"columns": columns}
    if schema.primary_key:
        body["primary_key"] = schema.primary_key
    return {"METADATA_SPEC_VERSION": "V1", "tables": {table: body}, "relationships": []}
