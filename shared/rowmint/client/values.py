"""What people write for a cell, as a value of its column: plain Python values and texts."""

import math
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from numbers import Integral, Real

from rowmint.errors import InvalidConditionError
from rowmint.rpc.values import cell_to_value, data_type_from_proto
from rowmint.rpc.written_forms import form_from_proto
from rowmint.schema import INT64_MAX, INT64_MIN, Cell, ColumnSpec, DataType, Domain
from rowmint.schema.forms.cells import example, read
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


def _integer(cell: object, _: schema_pb2.ColumnSpec) -> int | None:
    if isinstance(cell, Integral) or (isinstance(cell, (float, Decimal)) and math.isfinite(cell) and cell == int(cell)):
        integer = int(cell)
    else:
        return None
    return integer if INT64_MIN <= integer <= INT64_MAX else None


def _double(cell: object, _: schema_pb2.ColumnSpec) -> float | None:
    if not isinstance(cell, (Real, Decimal)):
        return None
    number = float(cell)
    return number if math.isfinite(number) else None


def _decimal(cell: object, _: schema_pb2.ColumnSpec) -> Decimal | None:
    if isinstance(cell, Integral):
        return Decimal(int(cell))
    if isinstance(cell, Decimal):
        return cell if cell.is_finite() else None
    if isinstance(cell, Real) and math.isfinite(float(cell)):
        # The shortest text that reads back as the same float is what the caller wrote: 0.1, not its 55 digits.
        return Decimal(repr(float(cell)))
    return None


def _day(cell: object, _: schema_pb2.ColumnSpec) -> date | None:
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


_CONVERTERS: dict[DataType, Callable[[object, schema_pb2.ColumnSpec], Cell]] = {
    DataType.INT64: _integer,
    DataType.DOUBLE: _double,
    DataType.DECIMAL: _decimal,
    DataType.DATE: _day,
    DataType.TIMESTAMP: _moment,
}


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
    typed: Cell = None
    if isinstance(cell, bool) == (data_type is DataType.BOOL):
        typed = cell if isinstance(cell, bool) else _CONVERTERS[data_type](cell, column)
    if typed is None:
        raise _refuse(cell, column, data_type)
    return cell_to_value(typed)


def text_column(column: schema_pb2.ColumnSpec) -> ColumnSpec:
    """Return what of a column decides how its cells are written as text, and read."""
    return ColumnSpec(
        name=column.name,
        data_type=column_type(column),
        domain=Domain(decimals=column.domain.decimals if column.domain.HasField("decimals") else None),
        datetime_format=column.datetime_format,
        time_zone=column.time_zone,
        written_form=form_from_proto(column.written_form, f"schema.{column.name}.written_form"),
    )


def parse_value(text: str, column: schema_pb2.ColumnSpec) -> value_pb2.Value:
    """Return a text as a cell of a column: in the column's own form, else canonical; a text column takes it as it is.

    Raises:
        InvalidConditionError: It is not the text of such a cell; the message says what is.
    """
    own = text_column(column)
    if own.data_type is None:
        return value_pb2.Value(string_value=text)
    try:
        cell = read(text, own)
    except ValueError as error:
        hint = "; write null for a missing cell" if text.strip().lower() in ("", "none", "nan", "na") else ""
        if own.written_form.form is not None:
            hint += f"; write it as {example(own, 0)!r} is written"
        raise _refuse(text, column, own.data_type, hint) from error
    return cell_to_value(cell) if isinstance(cell, str) else typed_value(cell, column)
