"""Inferred types as JSON: a later attempt of an ingest reuses them instead of repeating the first pass."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rowmint.schema import ColumnSpec, DataType
from trainer_service.datasets.column_types import Target
from trainer_service.datasets.datetimes import RECOGNISED, DatetimeForm

_FORMAT = 1


def types_to_json(columns: Iterable[tuple[str, Target]]) -> dict[str, Any]:
    """Return the names and target types of columns as JSON values."""
    return {
        "format": _FORMAT,
        "columns": [
            {
                "name": name,
                "data_type": str(target.data_type),
                "form": None if target.form is None else {"format": target.form.format, "pattern": target.form.pattern},
                "utc": target.utc,
                "decimals": target.decimals,
                "trim": target.trim,
                "typed": target.typed,
            }
            for name, target in columns
        ],
    }


def types_from_json(body: Mapping[str, Any], overrides: Sequence[ColumnSpec]) -> list[tuple[str, Target]]:
    """Return the names and target types from the result of `types_to_json`.

    Raises:
        ValueError: It is invalid or of another version; the first pass must be repeated.
    """
    declared = {column.name: column for column in overrides}
    try:
        if body["format"] != _FORMAT:
            raise ValueError(f"format {body['format']} is unknown")
        return [
            (
                entry["name"],
                Target(
                    DataType(entry["data_type"]),
                    _form(entry["form"], declared.get(entry["name"])),
                    entry["utc"],
                    entry["decimals"],
                    trim=entry["trim"],
                    typed=entry["typed"],
                ),
            )
            for entry in body["columns"]
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"the inferred types are malformed: {error!r}") from error


def _form(body: Mapping[str, str] | None, declared: ColumnSpec | None) -> DatetimeForm | None:
    if body is None:
        return None
    forms = list(RECOGNISED)
    if declared is not None and declared.datetime_format:
        forms.append(DatetimeForm.of_format(declared.datetime_format, declared.name))
    for form in forms:
        if (form.format, form.pattern) == (body["format"], body["pattern"]):
            return form
    raise ValueError(f"the datetime format {body['format']!r} is unknown")
