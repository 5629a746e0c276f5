"""Excel workbooks, which are uploaded as JSON lines; needs the extra ``excel``."""

import datetime as dt
import io
import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import PurePath
from typing import IO, Any

from rowmint.errors import InvalidFieldError

SUFFIXES = (".xlsx", ".xlsm")
_UNREADABLE = (".xls", ".xlsb", ".ods")
_MEMORY_BYTES = 16 * 1024 * 1024
_CLOCK = frozenset("hHsS")


def is_spreadsheet(name: str) -> bool:
    """Return whether a file's name is that of a workbook that can be read.

    Raises:
        InvalidFieldError: It is that of another workbook.
    """
    suffix = PurePath(name).suffix.lower()
    if suffix in _UNREADABLE:
        raise InvalidFieldError("source", f"is a workbook of the format {suffix}; save it as .xlsx or as CSV")
    return suffix in SUFFIXES


def json_lines(workbook: IO[bytes], sheet: str | None = None) -> IO[bytes]:
    """Return the rows of a sheet as JSON lines, in a temporary file at its start.

    The first row that is not empty names the columns. Later empty rows and columns without a name and values are left
    out. Days and instants become ISO 8601; numbers are as they are stored, whatever format they are shown in.

    Args:
        workbook: The file, seekable.
        sheet: Name of the sheet; None for the only one.

    Raises:
        InvalidFieldError: openpyxl is not installed, the workbook has no such sheet or several, or a cell cannot be
            read.
    """
    try:
        import openpyxl  # noqa: PLC0415  # an extra
    except ImportError as error:
        message = "is an Excel workbook: pip install 'rowmint[excel]' to read it, or save it as CSV"
        raise InvalidFieldError("source", message) from error
    try:
        values = openpyxl.load_workbook(workbook, read_only=True, data_only=True)
        formulas = openpyxl.load_workbook(workbook, read_only=True)
    except (OSError, ValueError, KeyError, io.UnsupportedOperation) as error:
        raise InvalidFieldError("source", f"is not an Excel workbook: {error}") from error
    except Exception as error:  # a damaged archive raises errors of several libraries
        raise InvalidFieldError("source", f"cannot be read as an Excel workbook: {error}") from error
    with ExitStack() as opened:
        opened.callback(values.close)
        opened.callback(formulas.close)
        name = _sheet(values.sheetnames, sheet)
        file = tempfile.SpooledTemporaryFile(_MEMORY_BYTES)  # noqa: SIM115  # its reader closes it
        failed = opened.enter_context(ExitStack())
        failed.callback(file.close)
        for row in _rows(values[name], formulas[name]):
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        file.seek(0)
        failed.pop_all()
    return file


def _sheet(names: list[str], sheet: str | None) -> str:
    shown = ", ".join(map(repr, names))
    if sheet is None and len(names) == 1:
        return names[0]
    if sheet is None:
        raise InvalidFieldError("sheet", f"is required: the workbook has {shown}")
    if sheet not in names:
        raise InvalidFieldError("sheet", f"{sheet!r} is not in the workbook, which has {shown}")
    return sheet


def _rows(values: Any, formulas: Any) -> Iterator[dict[str, Any]]:
    """Yield the rows below the header as objects."""
    names: list[str] | None = None
    for row, formula_row in zip_longest(values.iter_rows(), formulas.iter_rows(), fillvalue=()):
        cells = [_cell(cell, formula) for cell, formula in zip_longest(row, formula_row)]
        if all(cell is None for cell in cells):
            continue
        if names is None:
            names = ["" if cell is None else str(cell) for cell in cells]
            _check_names(names)
            continue
        for index, cell in enumerate(cells):
            if cell is not None and (index >= len(names) or not names[index]):
                where = row[index].coordinate
                raise InvalidFieldError("source", f"cell {where} has a value, but its column has no name in the header")
        yield {name: cell for name, cell in zip_longest(names, cells[: len(names)]) if name}


def _check_names(names: list[str]) -> None:
    repeated = next((name for name in names if name and names.count(name) > 1), None)
    if repeated is not None:
        raise InvalidFieldError("source", f"has two columns named {repeated!r}; rename one")


def _cell(cell: Any, formula: Any) -> str | int | float | bool | None:
    """Return the value of a cell as JSON.

    Raises:
        InvalidFieldError: It is a formula whose value was not stored, or an error.
    """
    value = None if cell is None else cell.value
    if formula is not None and formula.data_type == "f" and value is None:
        message = f"cell {formula.coordinate} has a formula without a stored value; open and save the file in Excel"
        raise InvalidFieldError("source", message)
    if value is None or isinstance(value, str | bool | int | float):
        if cell is not None and cell.data_type == "e":
            raise InvalidFieldError("source", f"cell {cell.coordinate} has the error {value}; clear or correct it")
        return value
    if isinstance(value, dt.datetime):
        whole = value.time() == dt.time() and not _CLOCK & set(cell.number_format)
        return value.date().isoformat() if whole else value.isoformat()
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    raise InvalidFieldError(
        "source", f"cell {cell.coordinate} is of type {type(value).__name__}, which is not read; format it as a number"
    )
