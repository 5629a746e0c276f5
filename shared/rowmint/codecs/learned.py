"""A column as a model has learned it: kind and type are known, and every cell of its domain is one of its own.

What is checked here once, when a model is loaded, encoders and conditions rely on.
"""

import math
import re
from datetime import date, datetime

from rowmint.schema import INT64_MAX, INT64_MIN, KINDS_OF_TYPE, MAX_COLUMN_NAME, Cell, ColumnKind, ColumnSpec, DataType
from rowmint.schema.arrays import fraction_digits, is_coded, native_number, nearest_double
from rowmint.schema.forms import StorageType
from rowmint.schema.forms.storage import storage_bounds
from rowmint.schema.forms.validation import validate_form

_MAX_DECIMALS = 38  # digits of a decimal128
_MAX_MOMENT = 1024  # characters of a date or time format, and of what it writes
_ZONE = re.compile(r"[A-Za-z0-9_+\-/:]{0,64}")
_ORDERED = (DataType.INT64, DataType.DOUBLE, DataType.DECIMAL, DataType.DATE, DataType.TIMESTAMP)


def validate_learned(column: ColumnSpec) -> None:
    """Check a column of a model.

    Raises:
        ValueError: A field contradicts another, or a cell of its domain is not one of the column's.
    """
    domain = column.domain
    if not 1 <= len(column.name) <= MAX_COLUMN_NAME:
        raise ValueError(f"its name has {len(column.name)} characters; 1 to {MAX_COLUMN_NAME} are possible")
    if column.kind is None or column.data_type is None or column.kind is ColumnKind.IGNORED:
        raise ValueError("its kind or type is not known")
    if column.kind not in KINDS_OF_TYPE[column.data_type]:
        raise ValueError(f"a {column.data_type} column cannot be {column.kind}")
    if domain.decimals is not None and not 0 <= domain.decimals <= _MAX_DECIMALS:
        raise ValueError(f"it has {domain.decimals} decimals; 0 to {_MAX_DECIMALS} are possible")
    if _ZONE.fullmatch(column.time_zone) is None:
        raise ValueError("its time zone is not the name of one")
    # A format is the one thing in a model whose effect is the system's: what it makes is looked at.
    if "\0" in column.datetime_format or len(column.datetime_format) > _MAX_MOMENT:
        raise ValueError("its datetime format is too long or holds U+0000")
    if len(datetime(2000, 12, 30, 23, 59, 59, 999_999).strftime(column.datetime_format)) > _MAX_MOMENT:  # noqa: DTZ001
        raise ValueError(f"its datetime format writes more than {_MAX_MOMENT} characters")
    validate_form(column.written_form, column.data_type, "written_form")
    for bound in (domain.minimum, domain.maximum):
        if bound is not None:
            _validate_native(bound, column, 0)
    if domain.categories and not is_coded(column):
        raise ValueError(f"a {column.kind} column has no categories")
    digits = _undeclared_digits(column)
    for category in domain.categories:
        _validate_category(category, column, digits)


def _validate_category(category: Cell, column: ColumnSpec, digits: int) -> None:
    storage = column.written_form.storage
    match column.data_type:
        case DataType.BOOL:
            fits = isinstance(category, bool)
        case DataType.STRING:
            fits = isinstance(category, str) and (storage is not StorageType.UINT64 or _is_uint64(category))
        case _:
            fits = category is not None and not isinstance(category, bool)
            if fits:
                _validate_native(category, column, digits)
    if not fits:
        raise ValueError(f"a category is not of type {column.data_type}")


def _validate_native(cell: Cell, column: ColumnSpec, digits: int) -> None:
    """Check that a cell has a native value, in units of `digits` more decimals than the column declares."""
    if column.data_type not in _ORDERED:
        raise ValueError(f"a {column.data_type} column has no bounds")
    if column.data_type is DataType.DATE and not (isinstance(cell, date) and not isinstance(cell, datetime)):
        raise ValueError("a cell of its domain is not a date")
    number = native_number(cell, column)
    storage = column.written_form.storage
    if storage is not None:
        least, greatest = storage_bounds(storage)
        if not least <= number <= greatest:
            raise ValueError(f"a cell of its domain is not of type {storage}")
    if column.data_type is DataType.DOUBLE:
        if not math.isfinite(nearest_double(number)):
            raise ValueError("a number of its domain is beyond binary64")
        return
    number *= 10**digits
    if number.denominator != 1 or not INT64_MIN <= number <= INT64_MAX:
        raise ValueError("a cell of its domain is too fine or too large")


def _is_uint64(text: str) -> bool:
    return re.fullmatch("0|[1-9][0-9]{0,19}", text) is not None and int(text) < 1 << 64


def _undeclared_digits(column: ColumnSpec) -> int:
    """Return the digits after the point of a decimal column's categories, where none are declared for it."""
    if column.data_type is not DataType.DECIMAL or column.domain.decimals is not None:
        return 0
    digits = fraction_digits(column)
    if digits > _MAX_DECIMALS:
        raise ValueError(f"a category has {digits} decimals; at most {_MAX_DECIMALS} are possible")
    return digits
