"""Validation of declared columns, before upload and against the data."""

import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rowmint.errors import ColumnNotFoundError, InvalidFieldError
from rowmint.schema import (
    INT64_MAX,
    INT64_MIN,
    MAX_COLUMN_NAME,
    Cell,
    ColumnKind,
    ColumnSpec,
    DataType,
    Domain,
    near_names,
    shown_cell,
)
from rowmint.schema.forms.id_pattern import parse_id_pattern
from rowmint.schema.forms.moments import form_of_strptime, has_day, is_time_of_day, parse_pattern
from trainer_service.datasets.conversion import mask
from trainer_service.datasets.decimals import holds_decimals
from trainer_service.datasets.target import Target

Mask = npt.NDArray[np.bool_]


def validate_before_data(overrides: tuple[ColumnSpec, ...], primary_key: str) -> None:
    """Validate patterns, formats and the kind of the primary key, which needs no data.

    Args:
        overrides: Declared columns that pass `validate_declared`.
        primary_key: Declared primary key, or empty.

    Raises:
        InvalidFieldError: One is invalid; the error names the field.
    """
    # The registry stores it as text of bounded length, which cannot contain NUL.
    if len(primary_key) > MAX_COLUMN_NAME or "\0" in primary_key:
        raise InvalidFieldError("dataset.primary_key", f"must have at most {MAX_COLUMN_NAME} characters, without NUL")
    for index, column in enumerate(overrides):
        path = f"dataset.column_overrides[{index}]"
        if column.id_pattern:
            parse_id_pattern(column.id_pattern, f"{path}.id_pattern")
        if column.datetime_format:
            declared_pattern(column.datetime_format, f"{path}.datetime_format")
        if column.name == primary_key and column.kind not in (None, ColumnKind.ID):
            raise InvalidFieldError(
                "dataset.primary_key",
                f"column {primary_key!r} is declared {column.kind}, but a key must be an ID",
            )


def declared_pattern(datetime_format: str, field: str) -> str:
    """Return the pattern of a written form that reads a declared strptime format.

    Raises:
        InvalidFieldError: It is invalid, or contains neither a whole day nor an hour alone; the error names `field`.
    """
    pattern = form_of_strptime(datetime_format).pattern
    parse_pattern(pattern, field)
    if not has_day(pattern) and not is_time_of_day(pattern):
        raise InvalidFieldError(field, f"{datetime_format!r} must contain year, month and day, or an hour alone")
    return pattern


def require_columns(overrides: tuple[ColumnSpec, ...], primary_key: str, names: list[str]) -> None:
    """Check that declared columns and the primary key exist in the table.

    Raises:
        ColumnNotFoundError: One does not; the error suggests similar names.
    """
    for name in [*(column.name for column in overrides), *([primary_key] if primary_key else [])]:
        if name not in names:
            raise ColumnNotFoundError(name, near_names(name, names))


def converted_domain(column: ColumnSpec, target: Target) -> Domain:
    """Return a declared domain with its cells converted to the column's type.

    Raises:
        InvalidFieldError: A cell is not of the column's type; the message names the column.
    """
    domain = column.domain
    if domain.decimals is not None and target.data_type not in (DataType.INT64, DataType.DOUBLE, DataType.DECIMAL):
        raise _invalid(column.name, f"decimals are declared for a column of type {target.data_type}, which has none")
    if (domain.minimum is not None or domain.maximum is not None) and target.data_type in (
        DataType.BOOL,
        DataType.STRING,
    ):
        raise _invalid(column.name, f"bounds are declared for a column of type {target.data_type}, which has no order")
    return replace(
        domain,
        categories=tuple(None if cell is None else _converted(cell, column.name, target) for cell in domain.categories),
        minimum=None if domain.minimum is None else _converted(domain.minimum, column.name, target),
        maximum=None if domain.maximum is None else _converted(domain.maximum, column.name, target),
    )


def _invalid(name: str, what: str) -> InvalidFieldError:
    return InvalidFieldError("dataset.column_overrides", f"column {name!r}: {what}")


def _converted(cell: Cell, name: str, target: Target) -> Cell:
    found = _convert(cell, target)
    if found is None:
        raise _invalid(name, f"{shown_cell(cell)} is declared in the domain of a column of type {target.data_type}")
    return found


def _convert(cell: Cell, target: Target) -> Cell:  # noqa: PLR0911 - one return a type.
    number = isinstance(cell, int | float | Decimal) and not isinstance(cell, bool)
    match target.data_type:
        case DataType.BOOL:
            return cell if isinstance(cell, bool) else None
        case DataType.STRING:
            return cell if isinstance(cell, str) else None
        case DataType.INT64 if number and cell == cell // 1:  # type: ignore[operator]
            return int(cell) if INT64_MIN <= cell <= INT64_MAX else None  # type: ignore[arg-type, operator]
        case DataType.DOUBLE if number:
            return float(cell) if math.isfinite(float(cell)) else None  # type: ignore[arg-type]
        case DataType.DECIMAL if number:
            try:
                return pa.scalar(Decimal(str(cell)), target.arrow_type).as_py()  # type: ignore[no-any-return]
            except (pa.ArrowInvalid, InvalidOperation):
                return None
        case DataType.DATE if isinstance(cell, date) and not isinstance(cell, datetime):
            return cell
        case DataType.TIMESTAMP if isinstance(cell, datetime):
            if (cell.tzinfo is not None) != target.utc:
                return None
            return cell.astimezone(UTC) if target.utc else cell
        case DataType.TIMESTAMP if isinstance(cell, date):
            return datetime(cell.year, cell.month, cell.day, tzinfo=UTC if target.utc else None)
        case _:
            return None


def violations(column: pa.Array, domain: Domain, target: Target) -> Iterator[tuple[str, Mask]]:
    """Yield each violated part of the declared domain: the message, and the mask of violating rows, shape (n,).

    Args:
        column: Values of ``target.arrow_type``, shape (n,).
        domain: The declared domain, from `converted_domain`.
        target: The column's type.
    """
    if domain.nullable is False and column.null_count:
        yield "is missing, but the column is declared not nullable", mask(pc.is_null(column))
    if domain.categories:
        allowed = pa.array([cell for cell in domain.categories if cell is not None], target.arrow_type)
        outside = pc.invert(pc.is_in(column, value_set=allowed))
        yield "is not among the declared categories", mask(pc.and_(outside, column.is_valid()))
    for bound, compare, word in (
        (domain.minimum, pc.less, "below the declared minimum"),
        (domain.maximum, pc.greater, "above the declared maximum"),
    ):
        if bound is not None:
            yield f"is {word}", mask(compare(column, pa.scalar(bound, target.arrow_type)).fill_null(False))
    if domain.decimals is not None and target.data_type is DataType.DOUBLE:
        numbers = column.fill_null(0.0).to_numpy()
        yield f"has more than the declared {domain.decimals} decimals", ~holds_decimals(numbers, domain.decimals)
