"""Converters that services and clients use: columns, schemas, times. Pure, and light to import."""

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from rowmint.errors import InvalidFieldError
from rowmint.rpc.values import DATA_TYPES, cell_to_value, data_type_from_proto, value_to_cell
from rowmint.rpc.written_forms import form_from_proto, form_to_proto
from rowmint.schema import Cell, ColumnKind, ColumnSpec, Domain, TableSchema
from rowmint.v1 import condition_pb2, schema_pb2

COLUMN_KINDS = {
    ColumnKind.NUMERICAL: schema_pb2.COLUMN_KIND_NUMERICAL,
    ColumnKind.CATEGORICAL: schema_pb2.COLUMN_KIND_CATEGORICAL,
    ColumnKind.DATETIME: schema_pb2.COLUMN_KIND_DATETIME,
    ColumnKind.BOOLEAN: schema_pb2.COLUMN_KIND_BOOLEAN,
    ColumnKind.ID: schema_pb2.COLUMN_KIND_ID,
    ColumnKind.IGNORED: schema_pb2.COLUMN_KIND_IGNORED,
}
_COLUMN_KINDS_BACK = {number: kind for kind, number in COLUMN_KINDS.items()}


def kind_from_proto(number: int, field: str) -> ColumnKind | None:
    """Return the kind of an enum number; None for unspecified. `InvalidFieldError` names `field`."""
    if number == schema_pb2.COLUMN_KIND_UNSPECIFIED:
        return None
    if number not in _COLUMN_KINDS_BACK:
        raise InvalidFieldError(field, f"{number} is not a ColumnKind")
    return _COLUMN_KINDS_BACK[schema_pb2.ColumnKind.ValueType(number)]


def bound_from_proto(message: schema_pb2.ColumnDomain | condition_pb2.ValueRange, name: str, field: str) -> Cell:
    """Return a message's bound, or None where it is unset. `InvalidFieldError` names a path under `field`."""
    if not message.HasField(name):  # type: ignore[arg-type] # "minimum" and "maximum" are fields of both
        return None
    bound = value_to_cell(getattr(message, name), f"{field}.{name}")
    if bound is None:
        raise InvalidFieldError(f"{field}.{name}", "is null, which is not a bound; leave it unset")
    return bound


def column_from_proto(column: schema_pb2.ColumnSpec, field: str) -> ColumnSpec:
    """Return a column. `InvalidFieldError` names a path under `field`."""
    domain = column.domain
    return ColumnSpec(
        name=column.name,
        kind=kind_from_proto(column.kind, f"{field}.kind"),
        data_type=data_type_from_proto(column.data_type, f"{field}.data_type"),
        domain=Domain(
            categories=tuple(
                value_to_cell(value, f"{field}.domain.categories[{index}]")
                for index, value in enumerate(domain.categories)
            ),
            minimum=bound_from_proto(domain, "minimum", f"{field}.domain"),
            maximum=bound_from_proto(domain, "maximum", f"{field}.domain"),
            decimals=domain.decimals if domain.HasField("decimals") else None,
            nullable=domain.nullable if domain.HasField("nullable") else None,
        ),
        datetime_format=column.datetime_format,
        time_zone=column.time_zone,
        id_pattern=column.id_pattern,
        written_form=form_from_proto(column.written_form, f"{field}.written_form"),
        null_values=tuple(column.null_values),
    )


def column_to_proto(column: ColumnSpec) -> schema_pb2.ColumnSpec:
    """Return the message of a column."""
    domain = column.domain
    return schema_pb2.ColumnSpec(
        name=column.name,
        kind=schema_pb2.COLUMN_KIND_UNSPECIFIED if column.kind is None else COLUMN_KINDS[column.kind],
        data_type=schema_pb2.DATA_TYPE_UNSPECIFIED if column.data_type is None else DATA_TYPES[column.data_type],
        domain=schema_pb2.ColumnDomain(
            categories=[cell_to_value(cell) for cell in domain.categories],
            minimum=None if domain.minimum is None else cell_to_value(domain.minimum),
            maximum=None if domain.maximum is None else cell_to_value(domain.maximum),
            decimals=domain.decimals,
            nullable=domain.nullable,
        ),
        datetime_format=column.datetime_format,
        time_zone=column.time_zone,
        id_pattern=column.id_pattern,
        written_form=form_to_proto(column.written_form) if column.written_form else None,
        null_values=column.null_values,
    )


def schema_to_proto(schema: TableSchema) -> schema_pb2.TableSchema:
    """Return the message of a schema."""
    columns = [column_to_proto(column) for column in schema.columns]
    return schema_pb2.TableSchema(columns=columns, primary_key=schema.primary_key)


def timestamp(moment: datetime | None) -> Timestamp | None:
    """Return the message of an aware moment, or None."""
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message
