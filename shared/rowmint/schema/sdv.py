"""A schema as metadata of SDV, the Synthetic Data Vault."""

from typing import Any

from rowmint.schema.cell import DataType
from rowmint.schema.column import ColumnKind, ColumnSpec
from rowmint.schema.forms import DatetimeForm, StorageType
from rowmint.schema.forms.moments import strptime_of
from rowmint.schema.table import TableSchema

_REPRESENTATIONS = {
    StorageType.INT8: "Int8",
    StorageType.INT16: "Int16",
    StorageType.INT32: "Int32",
    StorageType.UINT8: "UInt8",
    StorageType.UINT16: "UInt16",
    StorageType.UINT32: "UInt32",
    StorageType.UINT64: "UInt64",
    StorageType.FLOAT16: "Float",
    StorageType.FLOAT32: "Float",
}


def sdv_metadata(schema: TableSchema, table: str = "table") -> dict[str, Any]:
    """Return a schema as SDV's multi-table metadata (``METADATA_SPEC_VERSION`` V1), JSON values.

    Args:
        schema: The schema.
        table: Name of its table.
    """
    columns: dict[str, Any] = {}
    for column in schema.columns:
        if column.kind is ColumnKind.DATETIME:
            columns[column.name] = {"sdtype": "datetime", "datetime_format": _datetime_format(column)}
        elif column.kind is ColumnKind.IGNORED or column.kind is None:
            columns[column.name] = {"sdtype": "unknown", "pii": False}
        else:
            columns[column.name] = {"sdtype": str(column.kind)}
            storage = column.written_form.storage
            if column.kind is ColumnKind.NUMERICAL and storage in _REPRESENTATIONS:
                columns[column.name]["computer_representation"] = _REPRESENTATIONS[storage]
    body: dict[str, Any] = {"columns": columns}
    if schema.primary_key:
        body["primary_key"] = schema.primary_key
    return {"METADATA_SPEC_VERSION": "V1", "tables": {table: body}, "relationships": []}


def _datetime_format(column: ColumnSpec) -> str:
    """Return the strptime format that is nearest to how a column is written."""
    form = column.written_form.form
    if isinstance(form, DatetimeForm) and form.pattern:
        return strptime_of(form)
    return column.datetime_format or ("%Y-%m-%d" if column.data_type is DataType.DATE else "%Y-%m-%dT%H:%M:%S")
