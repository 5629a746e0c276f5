"""Storage of declared columns in the registry.

A declared column may have cells but no data type, so the type of each cell is stored with it.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rowmint.schema import Cell, ColumnSpec, DataType, Domain, cell_text, parse_cell


def declared_to_json(column: ColumnSpec) -> dict[str, Any]:
    """Return a declared column as JSON values."""
    domain = column.domain
    cells = {
        "categories": [_cell_to_json(cell) for cell in domain.categories],
        "minimum": _cell_to_json(domain.minimum),
        "maximum": _cell_to_json(domain.maximum),
    }
    return {"column": column.to_json(), "cells": cells}


def declared_from_json(body: Mapping[str, Any]) -> ColumnSpec:
    """Return the declared column from the result of `declared_to_json`."""
    bare = {key: value for key, value in body["column"].items() if key not in ("categories", "minimum", "maximum")}
    column = ColumnSpec.from_json(bare)
    cells = body["cells"]
    domain = Domain(
        categories=tuple(_cell_from_json(cell) for cell in cells["categories"]),
        minimum=_cell_from_json(cells["minimum"]),
        maximum=_cell_from_json(cells["maximum"]),
        decimals=column.domain.decimals,
        nullable=column.domain.nullable,
    )
    return replace(column, domain=domain)


_CELL_TYPES = {
    "bool": DataType.BOOL,
    "int": DataType.INT64,
    "float": DataType.DOUBLE,
    "str": DataType.STRING,
    "Decimal": DataType.DECIMAL,
    "date": DataType.DATE,
    "datetime": DataType.TIMESTAMP,
}


def _cell_to_json(cell: Cell) -> list[str] | None:
    return None if cell is None else [_CELL_TYPES[type(cell).__name__], cell_text(cell)]


def _cell_from_json(body: list[str] | None) -> Cell:
    return None if body is None else parse_cell(body[1], DataType(body[0]))
