"""Cells: plain Python values, their data types, and their canonical text.

A cell is None (missing), bool, int, float, str, Decimal, date or datetime. A datetime is aware exactly when its column
has a time zone. `cell_text` and `parse_cell` are the canonical text of a cell, used wherever one is stored: manifests,
registries, digests.
"""

import difflib
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum

Cell = bool | int | float | str | Decimal | date | datetime | None

INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1
EPOCH_DATE = date(1970, 1, 1)
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - local times have no zone
EPOCH_UTC = datetime(1970, 1, 1, tzinfo=UTC)


class DataType(StrEnum):
    """How a column is stored and delivered."""

    BOOL = "bool"
    INT64 = "int64"
    DOUBLE = "double"
    DECIMAL = "decimal"
    STRING = "string"
    DATE = "date"
    TIMESTAMP = "timestamp"


def cell_text(cell: Cell) -> str:
    """Return the canonical text of a present cell.

    bool ``true``/``false``; int and Decimal in plain digits; float as its shortest round-trip form; date and datetime
    as ISO 8601, an aware datetime in UTC with ``Z`` (with its own offset where UTC would leave the years 1 to 9999).

    Raises:
        ValueError: The cell is None.
    """
    if cell is None:
        raise ValueError("a missing cell has no text")
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return repr(cell)
    if isinstance(cell, Decimal):
        return format(cell, "f")
    if isinstance(cell, datetime):
        if cell.tzinfo is None:
            return cell.isoformat()
        try:
            return cell.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
        except OverflowError:  # UTC would leave the years 1 to 9999
            return cell.isoformat()
    if isinstance(cell, date):
        return cell.isoformat()
    return str(cell)


def shown_cell(cell: Cell) -> str:
    """Return a cell as messages show it: text in quotes, all else in its canonical text, a missing cell as null."""
    if cell is None:
        return "null"
    return repr(cell) if isinstance(cell, str) else cell_text(cell)


def parse_cell(text: str, data_type: DataType) -> Cell:
    """Return the cell that `cell_text` wrote as `text`.

    Raises:
        ValueError: `text` is not the text of a cell of this type.
    """
    if not isinstance(text, str):
        raise ValueError(f"a cell of type {data_type} is not given as text")
    match data_type:
        case DataType.BOOL:
            if text not in ("true", "false"):
                raise ValueError(f"{text!r} is neither true nor false")
            return text == "true"
        case DataType.INT64:
            return int(text)
        case DataType.DOUBLE:
            return float(text)
        case DataType.DECIMAL:
            try:
                return Decimal(text)
            except InvalidOperation as error:
                raise ValueError(f"{text!r} is not a decimal number") from error
        case DataType.DATE:
            return date.fromisoformat(text)
        case DataType.TIMESTAMP:
            return datetime.fromisoformat(text)
        case DataType.STRING:
            return text


def cell_json(cell: Cell, declared: DataType | None) -> str | dict[str, str] | None:
    """Return a cell's text; with its type beside, where that is not the column's `declared` one."""
    match cell:
        case None:
            return None
        case bool():
            own = DataType.BOOL
        case int():
            own = DataType.INT64
        case float():
            own = DataType.DOUBLE
        case Decimal():
            own = DataType.DECIMAL
        case datetime():
            own = DataType.TIMESTAMP
        case date():
            own = DataType.DATE
        case str():
            own = DataType.STRING
    return cell_text(cell) if own is declared else {"type": str(own), "text": cell_text(cell)}


def near_names(name: str, known: list[str], count: int = 3) -> list[str]:
    """Return up to `count` of `known` that resemble `name`, best first; case does not matter."""
    folded = {candidate.casefold(): candidate for candidate in known[:10_000]}  # a tenth of a second
    return [folded[key] for key in difflib.get_close_matches(name.casefold(), list(folded), n=count, cutoff=0.5)]
