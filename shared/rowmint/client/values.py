"""What people write for a cell, as a value of its column: plain Python values and texts."""

import math
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from numbers import Integral, Real

from rowmint.errors import InvalidConditionError
from rowmint.rpc.values import cell_to_value, data_type_from_proto
from rowmint.schema import INT64_MAX, INT64_MIN, Cell, DataType
from rowmint.v1 import schema_pb2, value_pb2

_MEANING = {
    DataType.BOOL: "true or false",
    DataType.INT64: "integers",
    DataType.DOUBLE: "numbers",
    DataType.DECIMAL: "decimal numbers",
    DataType.STRING: "text",
    DataType.DATE: "days (YYYY-MM-DD)",
    DataType.TIMESTAMP: "times (YYYY-MM-DDTHH:MM:SS)",
}


def column_type(column: schema_pb2.ColumnSpec) -> DataType | None:
    """Return how a column is stored, or None where it is not known."""
    return data_type_from_proto(column.data_type, f"schema.{column.name}.data_type")


def _refuse(given: object, column: schema_pb2.ColumnSpec, data_type: DataType, hint: str = "") -> InvalidConditionError:
    return InvalidConditionError(
        f"column {column.name!r} holds {_MEANING[data_type]}; {given!r} is not one{hint}",
        metadata={"column": column.name},
    )


def _integer(cell: object) -> int | None:
    if isinstance(cell, Integral) or (isinstance(cell, (float, Decimal)) and math.isfinite(cell) and cell == int(cell)):
        integer = int(cell)
    else:
        return None
    return integer if INT64_MIN <= integer <= INT64_MAX else None


def _double(cell: object) -> float | None:
    if not isinstance(cell, (Real, Decimal)):
        return None
    number = float(cell)
    return number if math.isfinite(number) else None


def _decimal(cell: object) -> Decimal | None:
    if isinstance(cell, Integral):
        return Decimal(int(cell))
    if isinstance(cell, Decimal):
        return cell if cell.is_finite() else None
    if isinstance(cell, Real) and math.isfinite(float(cell)):
        # The shortest text that reads back as the same float is what the caller wrote: 0.1, not its 55 digits.
        return Decimal(repr(float(cell)))
    return None


def _day(cell: object) -> date | None:
    return cell if isinstance(cell, date) and not isinstance(cell, datetime) else None


def _moment(cell: object, column: schema_pb2.ColumnSpec) -> datetime | None:
    if isinstance(cell, date) and not isinstance(cell, datetime):
        cell = datetime(cell.year, cell.month, cell.day, tzinfo=UTC if column.time_zone else None)
    if not isinstance(cell, datetime):
        return None
    if (cell.tzinfo is not None) != bool(column.time_zone):
        hint = "it needs an offset from UTC" if column.time_zone else "it must have no offset from UTC"
        raise _refuse(cell.isoformat(), column, DataType.TIMESTAMP, f": {hint}")
    return cell


def typed_value(cell: object, column: schema_pb2.ColumnSpec) -> value_pb2.Value:
    """Return a Python value as a cell of a column.

    A text is read as the column's type; a float without a fraction stands for an integer, an integer for a float, a day
    for its midnight. No other type is converted.

    Raises:
        InvalidConditionError: It cannot be a cell of that column; the message says what can.
    """
    data_type = column_type(column)
    if cell is None or data_type is None:
        try:
            return cell_to_value(cell)  # type: ignore[arg-type]  # it raises where it is not a cell
        except ValueError as error:
            raise InvalidConditionError(str(error), metadata={"column": column.name}) from error
    if isinstance(cell, str):
        return parse_value(cell, column)
    if data_type is DataType.STRING:
        raise _refuse(cell, column, data_type, f"; write {str(cell)!r}")
    converters: dict[DataType, Callable[[object], Cell]] = {
        DataType.INT64: _integer,
        DataType.DOUBLE: _double,
        DataType.DECIMAL: _decimal,
        DataType.DATE: _day,
        DataType.TIMESTAMP: lambda one: _moment(one, column),
    }
    typed: Cell = None
    if isinstance(cell, bool) == (data_type is DataType.BOOL):
        typed = cell if isinstance(cell, bool) else converters[data_type](cell)
    if typed is None:
        raise _refuse(cell, column, data_type)
    return cell_to_value(typed)


def _read_bool(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _read_moment(text: str, column: schema_pb2.ColumnSpec) -> date:
    """Return a day, or an instant; the column says in which time zone a day's midnight is."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return _read_time(text, column)


def _read_time(text: str, column: schema_pb2.ColumnSpec) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        if not column.datetime_format:
            raise
        return datetime.strptime(text, column.datetime_format)  # noqa: DTZ007  # the format says whether it has a zone


def _read_date(text: str, column: schema_pb2.ColumnSpec) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        if not column.datetime_format:
            raise
        return _read_time(text, column).date()


def _read_double(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _read_number(text: str) -> Decimal:
    number = Decimal(text)
    if not number.is_finite():
        raise ValueError(text)
    return number


def parse_value(text: str, column: schema_pb2.ColumnSpec) -> value_pb2.Value:
    """Return a text as a cell of a column; a text column takes it as it is.

    Raises:
        InvalidConditionError: It is not the text of such a cell; the message says what is.
    """
    data_type = column_type(column)
    if data_type is None or data_type is DataType.STRING:
        return value_pb2.Value(string_value=text)
    readers: dict[DataType, Callable[[str], object]] = {
        DataType.BOOL: _read_bool,
        DataType.INT64: _read_number,
        DataType.DOUBLE: _read_double,
        DataType.DECIMAL: _read_number,
        DataType.DATE: lambda one: _read_date(one, column),
        DataType.TIMESTAMP: lambda one: _read_moment(one, column),
    }
    try:
        cell = readers[data_type](text.strip())
    except (ValueError, KeyError, ArithmeticError) as error:
        hint = "; write null for a missing cell" if text.strip().lower() in ("", "none", "nan", "na") else ""
        raise _refuse(text, column, data_type, hint) from error
    return typed_value(cell, column)
