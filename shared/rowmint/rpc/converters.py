"""Converters that both services use: values, schemas, conditions, model versions. Pure."""

import math
import re
from datetime import UTC, date, datetime
from decimal import Decimal

from google.protobuf.timestamp_pb2 import Timestamp

from rowmint.conditions import AnyOf, IsNull, Predicate, Range
from rowmint.errors import InvalidFieldError
from rowmint.schema import Cell, ColumnKind, ColumnSpec, DataType, Domain, TableSchema, cell_text
from rowmint.v1 import condition_pb2, schema_pb2, value_pb2

DATA_TYPES = {
    DataType.BOOL: schema_pb2.DATA_TYPE_BOOL,
    DataType.INT64: schema_pb2.DATA_TYPE_INT64,
    DataType.DOUBLE: schema_pb2.DATA_TYPE_DOUBLE,
    DataType.DECIMAL: schema_pb2.DATA_TYPE_DECIMAL,
    DataType.STRING: schema_pb2.DATA_TYPE_STRING,
    DataType.DATE: schema_pb2.DATA_TYPE_DATE,
    DataType.TIMESTAMP: schema_pb2.DATA_TYPE_TIMESTAMP,
}
_DATA_TYPES_BACK = {number: data_type for data_type, number in DATA_TYPES.items()}

COLUMN_KINDS = {
    ColumnKind.NUMERICAL: schema_pb2.COLUMN_KIND_NUMERICAL,
    ColumnKind.CATEGORICAL: schema_pb2.COLUMN_KIND_CATEGORICAL,
    ColumnKind.DATETIME: schema_pb2.COLUMN_KIND_DATETIME,
    ColumnKind.BOOLEAN: schema_pb2.COLUMN_KIND_BOOLEAN,
    ColumnKind.ID: schema_pb2.COLUMN_KIND_ID,
    ColumnKind.IGNORED: schema_pb2.COLUMN_KIND_IGNORED,
}
_COLUMN_KINDS_BACK = {number: kind for kind, number in COLUMN_KINDS.items()}

_MAX_TEXT = 65536
_MAX_DIGITS = 100
_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIMESTAMP = _DATE + r"T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:[0-9]{2})?"
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")


def kind_from_proto(number: int, field: str) -> ColumnKind | None:
    """Return the kind of an enum number; None for unspecified. `InvalidFieldError` names `field`."""
    if number == schema_pb2.COLUMN_KIND_UNSPECIFIED:
        return None
    if number not in _COLUMN_KINDS_BACK:
        raise InvalidFieldError(field, f"{number} is no ColumnKind")
    return _COLUMN_KINDS_BACK[schema_pb2.ColumnKind.ValueType(number)]


def value_to_cell(value: value_pb2.Value, field: str) -> Cell:
    """Return the cell of a value.

    Raises:
        InvalidFieldError: No kind is set, or it is malformed; the error names `field`.
    """
    kind = value.WhichOneof("kind")
    try:
        match kind:
            case "null_value":
                return None
            case "bool_value":
                return value.bool_value
            case "int64_value":
                return value.int64_value
            case "double_value":
                if not math.isfinite(value.double_value):
                    raise InvalidFieldError(field, f"{value.double_value} is not a finite number")
                return value.double_value
            case "string_value":
                if len(value.string_value) > _MAX_TEXT:
                    raise InvalidFieldError(field, f"has {len(value.string_value)} characters; at most {_MAX_TEXT}")
                return value.string_value
            case "decimal_value":
                return _decimal(value.decimal_value)
            case "date_value":
                return _date(value.date_value)
            case "timestamp_value":
                return _timestamp(value.timestamp_value)
            case _:
                raise InvalidFieldError(field, "has no value; set one kind, null_value for a missing cell")
    except (ValueError, OverflowError) as error:
        raise InvalidFieldError(field, f"is not a valid {kind}: {error}") from error


def _decimal(text: str) -> Decimal:
    if len(text) > _MAX_DIGITS or not _DECIMAL.fullmatch(text):
        raise ValueError(
            f"it must be plain digits with an optional sign and fraction, at most {_MAX_DIGITS} characters"
        )
    return Decimal(text)


def _date(text: str) -> date:
    if not re.fullmatch(_DATE, text):
        raise ValueError(f"{text!r} must be of the form YYYY-MM-DD")
    return date.fromisoformat(text)


def _timestamp(text: str) -> datetime:
    if not re.fullmatch(_TIMESTAMP, text):
        raise ValueError(
            f"{text!r} must be of the form YYYY-MM-DDThh:mm:ss, with up to six fraction digits and an offset"
        )
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        # Raises where UTC leaves the years 1 to 9999: an instant is kept and told in UTC.
        moment.astimezone(UTC)
    return moment


def cell_to_value(cell: Cell) -> value_pb2.Value:
    """Return the value of a cell."""
    match cell:
        case None:
            return value_pb2.Value(null_value=True)
        case bool():
            return value_pb2.Value(bool_value=cell)
        case int():
            return value_pb2.Value(int64_value=cell)
        case float():
            return value_pb2.Value(double_value=cell)
        case Decimal():
            return value_pb2.Value(decimal_value=cell_text(cell))
        case datetime():
            return value_pb2.Value(timestamp_value=cell_text(cell))
        case date():
            return value_pb2.Value(date_value=cell_text(cell))
        case str():
            return value_pb2.Value(string_value=cell)


def _bound(message: schema_pb2.ColumnDomain | condition_pb2.ValueRange, name: str, field: str) -> Cell:
    """Return the bound `name` of a message, or None where it is unset."""
    if not message.HasField(name):  # type: ignore[arg-type] # "minimum" and "maximum" are fields of both
        return None
    bound = value_to_cell(getattr(message, name), f"{field}.{name}")
    if bound is None:
        raise InvalidFieldError(f"{field}.{name}", "is null, which is no bound; leave it unset")
    return bound


def column_from_proto(column: schema_pb2.ColumnSpec, field: str) -> ColumnSpec:
    """Return a column. `InvalidFieldError` names a path under `field`."""
    domain = column.domain
    data_type = None
    if column.data_type != schema_pb2.DATA_TYPE_UNSPECIFIED:
        if column.data_type not in _DATA_TYPES_BACK:
            raise InvalidFieldError(f"{field}.data_type", f"{column.data_type} is no DataType")
        data_type = _DATA_TYPES_BACK[column.data_type]
    return ColumnSpec(
        name=column.name,
        kind=kind_from_proto(column.kind, f"{field}.kind"),
        data_type=data_type,
        domain=Domain(
            categories=tuple(
                value_to_cell(value, f"{field}.domain.categories[{index}]")
                for index, value in enumerate(domain.categories)
            ),
            minimum=_bound(domain, "minimum", f"{field}.domain"),
            maximum=_bound(domain, "maximum", f"{field}.domain"),
            decimals=domain.decimals if domain.HasField("decimals") else None,
            nullable=domain.nullable if domain.HasField("nullable") else None,
        ),
        datetime_format=column.datetime_format,
        time_zone=column.time_zone,
        id_pattern=column.id_pattern,
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
    )


def schema_from_proto(schema: schema_pb2.TableSchema, field: str = "schema") -> TableSchema:
    """Return a schema. `InvalidFieldError` names a path under `field`."""
    columns = (column_from_proto(column, f"{field}.columns[{index}]") for index, column in enumerate(schema.columns))
    return TableSchema(tuple(columns), schema.primary_key)


def schema_to_proto(schema: TableSchema) -> schema_pb2.TableSchema:
    """Return the message of a schema."""
    columns = [column_to_proto(column) for column in schema.columns]
    return schema_pb2.TableSchema(columns=columns, primary_key=schema.primary_key)


def predicates_from_proto(where: condition_pb2.Where, field: str = "where") -> list[Predicate]:
    """Return the predicates of a `Where`. `InvalidFieldError` names a path under `field`."""
    return [_predicate(predicate, f"{field}.predicates[{index}]") for index, predicate in enumerate(where.predicates)]


def _predicate(predicate: condition_pb2.Predicate, field: str) -> Predicate:
    if not predicate.column:
        raise InvalidFieldError(f"{field}.column", "is required")
    test: AnyOf | Range | IsNull
    match predicate.WhichOneof("test"):
        case "equals":
            test = AnyOf((value_to_cell(predicate.equals, f"{field}.equals"),))
        case "any_of":
            values = enumerate(predicate.any_of.values)
            test = AnyOf(tuple(value_to_cell(value, f"{field}.any_of.values[{index}]") for index, value in values))
        case "range":
            bounds = predicate.range
            test = Range(
                _bound(bounds, "minimum", f"{field}.range"),
                _bound(bounds, "maximum", f"{field}.range"),
                bounds.minimum_exclusive,
                bounds.maximum_exclusive,
            )
        case "is_null":
            test = IsNull(predicate.is_null)
        case _:
            raise InvalidFieldError(field, f"says nothing of column {predicate.column!r}; set one test")
    return Predicate(predicate.column, test)


def where_to_proto(predicates: list[Predicate]) -> condition_pb2.Where:
    """Return the message of predicates."""
    where = condition_pb2.Where()
    for predicate in predicates:
        message = where.predicates.add(column=predicate.column)
        match predicate.test:
            case AnyOf(values) if len(values) == 1:
                message.equals.CopyFrom(cell_to_value(values[0]))
            case AnyOf(values):
                message.any_of.values.extend(cell_to_value(value) for value in values)
            case IsNull(null):
                message.is_null = null
            case Range() as span:
                message.range.SetInParent()
                if span.minimum is not None:
                    message.range.minimum.CopyFrom(cell_to_value(span.minimum))
                if span.maximum is not None:
                    message.range.maximum.CopyFrom(cell_to_value(span.maximum))
                message.range.minimum_exclusive = span.minimum_exclusive
                message.range.maximum_exclusive = span.maximum_exclusive
    return where


def timestamp(moment: datetime | None) -> Timestamp | None:
    """Return the message of an aware moment, or None."""
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message
