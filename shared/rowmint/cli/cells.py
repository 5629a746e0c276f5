"""Completed rows as text: each cell as `rowmint sample` writes it, in CSV and in JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rowmint.schema import Cell, ColumnSpec
from rowmint.schema.forms.cells import json_bare, written


def csv_field(text: str) -> str:
    """Return a text as a field of CSV, in quotes where it must be; the empty text always is."""
    if text and not any(character in text for character in ',"\r\n'):
        return text
    return '"' + text.replace('"', '""') + '"'


def csv_line(row: Mapping[str, Cell], columns: Sequence[ColumnSpec]) -> str:
    """Return a row as a line of CSV: a missing cell is empty, ``""`` where it is the only one of its line."""
    missing = '""' if len(columns) == 1 else ""
    fields = [missing if (cell := row[column.name]) is None else csv_field(written(cell, column)) for column in columns]
    return ",".join(fields) + "\n"


def json_object(row: Mapping[str, Cell], columns: Sequence[ColumnSpec]) -> str:
    """Return a row as a JSON object.

    Numbers and truth values are bare where their form is that of JSON; a missing cell is null.
    """
    members = (f"{_string(column.name)}: {_json_value(row[column.name], column)}" for column in columns)
    return "{" + ", ".join(members) + "}"


def _json_value(cell: Cell, column: ColumnSpec) -> str:
    if cell is None:
        return "null"
    bare = json_bare(column)
    # A strptime format is that of CSV, and padding that of texts.
    form = replace(column.written_form, pad_width=0) if bare else column.written_form
    text = written(cell, replace(column, datetime_format="", written_form=form))
    return text if bare else _string(text)


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
