"""Cells and their types on the wire: between Python values and `rowmint.v1.Value`. Pure, and light to import."""

import math
import re
from datetime import UTC, date, datetime
from decimal import Decimal

from rowmint.errors import InvalidFieldError
from rowmint.schema import INT64_MAX, INT64_MIN, Cell, DataType, cell_text
from rowmint.v1 import schema_pb2, value_pb2

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

MAX_TEXT = 65536
"""Characters that a text in a request may have."""
_MAX_DIGITS = 100
_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIMESTAMP = _DATE + r"T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:[0-9]{2})?"
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")


def data_type_from_proto(number: int, field: str) -> DataType | None:
    """Return the type of an enum number; None for unspecified. `InvalidFieldError` names `field`."""
    if number == schema_pb2.DATA_TYPE_UNSPECIFIED:
        return None
    if number not in _DATA_TYPES_BACK:
        raise InvalidFieldError(field, f"{number} is not a DataType")
    return _DATA_TYPES_BACK[schema_pb2.DataType.ValueType(number)]


def value_to_cell(value: value_pb2.Value, field: str, max_text: int | None = MAX_TEXT) -> Cell:
    """Return the cell of a value.

    Args:
        value: The value.
        field: Its path in the request, for the error.
        max_text: Characters that a text may have; None for any number, as in what a service itself sends.

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
                if max_text is not None and len(value.string_value) > max_text:
                    raise InvalidFieldError(field, f"has {len(value.string_value)} characters; at most {max_text}")
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
        # Raises where UTC leaves the years 1 to 9999: an instant is stored and shown in UTC.
        moment.astimezone(UTC)
    return moment


def cell_to_value(cell: Cell) -> value_pb2.Value:
    """Return the value of a cell; its Python type decides the kind.

    Raises:
        ValueError: It is not a cell: of another type, a number that is not finite, or an integer of more than 64 bits.
    """
    value = value_pb2.Value()
    match cell:
        case None:
            value.null_value = True
        case bool():
            value.bool_value = cell
        case int():
            if not INT64_MIN <= cell <= INT64_MAX:
                raise ValueError(f"{cell} does not fit a signed 64-bit integer")
            value.int64_value = cell
        case float() | Decimal() if not math.isfinite(cell):
            raise ValueError(f"{cell} is not a finite number; write None for a missing cell")
        case float():
            value.double_value = cell
        case Decimal():
            value.decimal_value = cell_text(cell)
        case datetime():
            value.timestamp_value = cell_text(cell)
        case date():
            value.date_value = cell_text(cell)
        case str():
            value.string_value = cell
        case _:
            raise ValueError(f"{cell!r} is a {type(cell).__name__}, which cannot be a cell")
    return value
