"""Columns: what one means, how it is stored, and which values it may take."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Self

from rowmint.errors import InvalidFieldError
from rowmint.schema.cell import Cell, DataType, cell_json, parse_cell, shown_cell
from rowmint.schema.forms import CANONICAL, WrittenForm
from rowmint.schema.forms.validation import validate_form

MAX_COLUMN_NAME = 256
"""Characters of a column's name."""


class ColumnKind(StrEnum):
    """What a column means, and so how it is modelled."""

    NUMERICAL = "numerical"
    CATEGORICAL = "categorical"
    DATETIME = "datetime"
    BOOLEAN = "boolean"
    ID = "id"
    IGNORED = "ignored"


KINDS_OF_TYPE: Mapping[DataType, tuple[ColumnKind, ...]] = {
    DataType.BOOL: (ColumnKind.BOOLEAN, ColumnKind.CATEGORICAL, ColumnKind.IGNORED),
    DataType.INT64: (ColumnKind.NUMERICAL, ColumnKind.CATEGORICAL, ColumnKind.ID, ColumnKind.IGNORED),
    DataType.DOUBLE: (ColumnKind.NUMERICAL, ColumnKind.CATEGORICAL, ColumnKind.IGNORED),
    DataType.DECIMAL: (ColumnKind.NUMERICAL, ColumnKind.CATEGORICAL, ColumnKind.IGNORED),
    DataType.STRING: (ColumnKind.CATEGORICAL, ColumnKind.ID, ColumnKind.IGNORED),
    DataType.DATE: (ColumnKind.DATETIME, ColumnKind.CATEGORICAL, ColumnKind.IGNORED),
    DataType.TIMESTAMP: (ColumnKind.DATETIME, ColumnKind.CATEGORICAL, ColumnKind.IGNORED),
}
"""Kinds a column of each type may have; the first is what it gets when nothing is declared."""


@dataclass(frozen=True)
class Domain:
    """The set of values a column may take; what is None or empty is as found in the data.

    Attributes:
        categories: All values of a categorical column, in order.
        minimum: Smallest value of an ordered column.
        maximum: Largest value of an ordered column.
        decimals: Digits after the decimal point, 0 to 15; None where a DOUBLE column has no fixed number.
        nullable: Whether cells may be missing.
    """

    categories: tuple[Cell, ...] = ()
    minimum: Cell = None
    maximum: Cell = None
    decimals: int | None = None
    nullable: bool | None = None


@dataclass(frozen=True)
class ColumnSpec:
    """One column.

    Attributes:
        name: Unique in its table.
        kind: What it means; None where it is to be found from the data.
        data_type: How it is stored; None where it is to be found from the data.
        domain: The values it may take.
        datetime_format: strptime format of a text datetime; empty for ISO 8601. CSV output uses it too.
        time_zone: IANA zone of a datetime whose values carry offsets, else empty.
        id_pattern: Pattern of the values of an ID column, else empty.
        written_form: How cells are written.
        null_values: Field values that represent a missing cell of this column, beside those of the format.
    """

    name: str
    kind: ColumnKind | None = None
    data_type: DataType | None = None
    domain: Domain = field(default_factory=Domain)
    datetime_format: str = ""
    time_zone: str = ""
    id_pattern: str = ""
    written_form: WrittenForm = CANONICAL
    null_values: tuple[str, ...] = ()

    @property
    def nullable(self) -> bool:
        """Whether cells may be missing, as far as is known."""
        return bool(self.domain.nullable)

    def to_json(self) -> dict[str, Any]:
        """Return the column as JSON values; empty fields are left out."""
        domain = self.domain
        body: dict[str, Any] = {
            "name": self.name,
            "kind": self.kind,
            "type": self.data_type,
            "categories": [cell_json(cell, self.data_type) for cell in domain.categories],
            "minimum": cell_json(domain.minimum, self.data_type),
            "maximum": cell_json(domain.maximum, self.data_type),
            "decimals": domain.decimals,
            "nullable": domain.nullable,
            "datetime_format": self.datetime_format,
            "time_zone": self.time_zone,
            "id_pattern": self.id_pattern,
            "written_form": self.written_form.to_json(),
            "null_values": list(self.null_values),
        }
        return {
            key: str(value) if isinstance(value, StrEnum) else value
            for key, value in body.items()
            if value is not None and value not in ("", [], {})
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """Return the column that `to_json` wrote.

        Raises:
            ValueError: A value is not of the column's or its field's type.
            KeyError: The name is missing.
        """
        _validate_fields(body)
        data_type = DataType(body["type"]) if "type" in body else None

        def cell(text: Any) -> Cell:
            if text is None:
                return None
            if isinstance(text, Mapping):
                return parse_cell(text["text"], DataType(text["type"]))
            if data_type is None:
                raise ValueError(f"{text!r} is of no type")
            return parse_cell(text, data_type)

        return cls(
            name=body["name"],
            kind=ColumnKind(body["kind"]) if "kind" in body else None,
            data_type=data_type,
            domain=Domain(
                categories=tuple(cell(text) for text in body.get("categories", ())),
                minimum=cell(body.get("minimum")),
                maximum=cell(body.get("maximum")),
                decimals=body.get("decimals"),
                nullable=body.get("nullable"),
            ),
            datetime_format=body.get("datetime_format", ""),
            time_zone=body.get("time_zone", ""),
            id_pattern=body.get("id_pattern", ""),
            written_form=WrittenForm.from_json(body.get("written_form", {})),
            null_values=tuple(body.get("null_values", ())),
        )


def _validate_fields(body: Mapping[str, Any]) -> None:
    """Check the types of a stored column's fields; `ValueError` names the one that is wrong."""
    if not isinstance(body, Mapping):
        raise ValueError("a column is not an object")
    for field_name in ("name", "datetime_format", "time_zone", "id_pattern"):
        if not isinstance(body.get(field_name, ""), str):
            raise ValueError(f"a column's {field_name} is not text")
    decimals = body.get("decimals")
    if decimals is not None and (not isinstance(decimals, int) or isinstance(decimals, bool)):
        raise ValueError("a column's number of decimals is not an integer")
    if not isinstance(body.get("nullable"), bool | None):
        raise ValueError("whether a column is nullable is not a boolean")
    if not isinstance(body.get("categories", []), list | tuple):
        raise ValueError("a column's categories are not a list")
    nulls = body.get("null_values", [])
    if not isinstance(nulls, list | tuple) or not all(isinstance(text, str) for text in nulls):
        raise ValueError("a column's null_values are not a list of texts")


def validate_declared(columns: tuple[ColumnSpec, ...], prefix: str = "dataset.column_overrides") -> None:
    """Check declared columns by themselves, before any data is seen.

    Raises:
        InvalidFieldError: A declaration contradicts itself; the error names the field.
    """
    seen: set[str] = set()
    for index, column in enumerate(columns):
        path = f"{prefix}[{index}]"
        domain = column.domain
        if not 1 <= len(column.name) <= MAX_COLUMN_NAME:
            raise InvalidFieldError(f"{path}.name", f"must have 1 to {MAX_COLUMN_NAME} characters")
        if column.name in seen:
            raise InvalidFieldError(f"{path}.name", f"column {column.name!r} is declared more than once")
        seen.add(column.name)
        if column.kind and column.data_type and column.kind not in KINDS_OF_TYPE[column.data_type]:
            raise InvalidFieldError(f"{path}.kind", f"a {column.data_type} column cannot be {column.kind}")
        if domain.decimals is not None and not 0 <= domain.decimals <= 15:
            raise InvalidFieldError(f"{path}.domain.decimals", f"is {domain.decimals}; must be 0 to 15")
        _validate_bounds(domain, f"{path}.domain")
        if None in domain.categories:
            raise InvalidFieldError(f"{path}.domain.categories", "null is not a category; set nullable instead")
        if len(set(domain.categories)) != len(domain.categories):
            raise InvalidFieldError(f"{path}.domain.categories", "a value is listed twice")
        if domain.categories and column.kind not in (None, ColumnKind.CATEGORICAL, ColumnKind.BOOLEAN):
            raise InvalidFieldError(f"{path}.domain.categories", f"a {column.kind} column has no categories")
        if column.id_pattern and column.kind is not ColumnKind.ID:
            raise InvalidFieldError(f"{path}.id_pattern", "only a column of kind ID has a pattern")
        if column.datetime_format and column.kind not in (None, ColumnKind.DATETIME):
            raise InvalidFieldError(f"{path}.datetime_format", "only a column of kind DATETIME has a format")
        validate_form(column.written_form, column.data_type, f"{path}.written_form")


def _validate_bounds(domain: Domain, path: str) -> None:
    for bound in (domain.minimum, domain.maximum):
        if isinstance(bound, float) and not math.isfinite(bound):
            raise InvalidFieldError(path, "a bound must be a finite number")
        if isinstance(bound, bool | str):
            raise InvalidFieldError(path, f"{shown_cell(bound)} is not a bound; give a number, date or timestamp")
    if domain.minimum is None or domain.maximum is None:
        return
    try:
        reversed_bounds = domain.minimum > domain.maximum  # type: ignore[operator]
    except TypeError as error:
        raise InvalidFieldError(path, "minimum and maximum are of different types") from error
    if reversed_bounds:
        raise InvalidFieldError(f"{path}.minimum", "is above the maximum")


def with_nullable(column: ColumnSpec, nullable: bool) -> ColumnSpec:
    """Return `column` with its nullability set."""
    return replace(column, domain=replace(column.domain, nullable=nullable))
