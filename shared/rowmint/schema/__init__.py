"""The shape of a table: frozen values that know nothing of files, networks or the wire.

A cell is a plain Python value: None (missing), bool, int, float, str, Decimal, date or datetime. A datetime is aware
exactly when its column has a time zone. `cell_text` and `parse_cell` are the canonical text of a cell, used wherever
one is stored: manifests, registries, digests.
"""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, Self

from rowmint.errors import ColumnNotFoundError, InvalidFieldError

Cell = bool | int | float | str | Decimal | date | datetime | None

INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1
MAX_COLUMN_NAME = 256
"""Characters of a column's name."""


class DataType(StrEnum):
    """How a column is stored and delivered."""

    BOOL = "bool"
    INT64 = "int64"
    DOUBLE = "double"
    DECIMAL = "decimal"
    STRING = "string"
    DATE = "date"
    TIMESTAMP = "timestamp"


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


def _cell_json(cell: Cell, declared: DataType | None) -> str | dict[str, str] | None:
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
    """

    name: str
    kind: ColumnKind | None = None
    data_type: DataType | None = None
    domain: Domain = field(default_factory=Domain)
    datetime_format: str = ""
    time_zone: str = ""
    id_pattern: str = ""

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
            "categories": [_cell_json(cell, self.data_type) for cell in domain.categories],
            "minimum": _cell_json(domain.minimum, self.data_type),
            "maximum": _cell_json(domain.maximum, self.data_type),
            "decimals": domain.decimals,
            "nullable": domain.nullable,
            "datetime_format": self.datetime_format,
            "time_zone": self.time_zone,
            "id_pattern": self.id_pattern,
        }
        return {
            key: str(value) if isinstance(value, StrEnum) else value
            for key, value in body.items()
            if value is not None and value not in ("", [])
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
        )


def _validate_fields(body: Mapping[str, Any]) -> None:
    """Check the types of a stored column's fields; `ValueError` names the one that is wrong."""
    if not isinstance(body, Mapping):
        raise ValueError("a column is no object")
    for field_name in ("name", "datetime_format", "time_zone", "id_pattern"):
        if not isinstance(body.get(field_name, ""), str):
            raise ValueError(f"a column's {field_name} is no text")
    decimals = body.get("decimals")
    if decimals is not None and (not isinstance(decimals, int) or isinstance(decimals, bool)):
        raise ValueError("a column's number of decimals is no whole number")
    if not isinstance(body.get("nullable"), bool | None):
        raise ValueError("whether a column is nullable is no truth value")
    if not isinstance(body.get("categories", []), list | tuple):
        raise ValueError("a column's categories are no list")


def near_names(name: str, known: list[str], count: int = 3) -> list[str]:
    """Return up to `count` of `known` that resemble `name`, best first; case does not matter."""
    folded = {candidate.casefold(): candidate for candidate in known[:10_000]}  # a tenth of a second
    return [folded[key] for key in difflib.get_close_matches(name.casefold(), list(folded), n=count, cutoff=0.5)]


@dataclass(frozen=True)
class TableSchema:
    """The shape of one table.

    Attributes:
        columns: The columns in order, names unique.
        primary_key: Name of the column that identifies a row, or empty.
    """

    columns: tuple[ColumnSpec, ...]
    primary_key: str = ""

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InvalidFieldError("schema.columns", f"column {twice!r} is given more than once")
        if self.primary_key and self.primary_key not in names:
            raise ColumnNotFoundError(self.primary_key, near_names(self.primary_key, names))

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(column.name for column in self.columns)

    def column(self, name: str) -> ColumnSpec:
        """Return the column called `name`.

        Raises:
            ColumnNotFoundError: There is none; near names are given.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise ColumnNotFoundError(name, near_names(name, list(self.names)))

    def project(self, names: tuple[str, ...]) -> "TableSchema":
        """Return the schema of the columns `names`, in that order; empty means all.

        Raises:
            ColumnNotFoundError: One does not exist.
            InvalidFieldError: One is named twice.
        """
        if not names:
            return self
        chosen = tuple(self.column(name) for name in names)
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InvalidFieldError("columns", f"column {twice!r} is named more than once")
        return TableSchema(chosen, self.primary_key if self.primary_key in names else "")

    def modelled(self) -> "TableSchema":
        """Return the schema without the ignored columns."""
        kept = tuple(column for column in self.columns if column.kind is not ColumnKind.IGNORED)
        names = [column.name for column in kept]
        return TableSchema(kept, self.primary_key if self.primary_key in names else "")

    def to_json(self) -> dict[str, Any]:
        """Return the schema as JSON values."""
        return {"columns": [column.to_json() for column in self.columns], "primary_key": self.primary_key}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """Return the schema that `to_json` wrote.

        Raises:
            ValueError: A value is not of its field's type.
            KeyError: A field is missing.
            TypeError: A part is no object or list at all.
            InvalidFieldError: Two columns have one name.
            ColumnNotFoundError: The primary key is no column.
        """
        if not isinstance(body, Mapping):
            raise ValueError("it is no object")
        columns = tuple(ColumnSpec.from_json(column) for column in body["columns"])
        primary_key = body.get("primary_key", "")
        if not isinstance(primary_key, str):
            raise ValueError("the primary key is no text")
        return cls(columns, primary_key)

    def to_sdv(self, table: str = "table") -> dict[str, Any]:
        """Return the schema as SDV's multi-table metadata (``METADATA_SPEC_VERSION`` V1), JSON values."""
        columns: dict[str, Any] = {}
        for column in self.columns:
            if column.kind is ColumnKind.DATETIME:
                default = "%Y-%m-%d" if column.data_type is DataType.DATE else "%Y-%m-%dT%H:%M:%S"
                columns[column.name] = {
                    "sdtype": "datetime",
                    "datetime_format": column.datetime_format or default,
                }
            elif column.kind is ColumnKind.IGNORED or column.kind is None:
                columns[column.name] = {"sdtype": "unknown", "pii": False}
            else:
                columns[column.name] = {"sdtype": str(column.kind)}
        body: dict[str, Any] = {"columns": columns}
        if self.primary_key:
            body["primary_key"] = self.primary_key
        return {"METADATA_SPEC_VERSION": "V1", "tables": {table: body}, "relationships": []}

    @classmethod
    def from_sdv(cls, metadata: Mapping[str, Any]) -> Self:
        """Return the declarations in SDV metadata of one table; data types stay open, and kinds that are not ours.

        Raises:
            InvalidFieldError: There is not exactly one table, or it is malformed.
        """
        tables = metadata.get("tables") or {"table": metadata}
        if len(tables) != 1:
            raise InvalidFieldError("metadata", f"describes {len(tables)} tables; one is supported")
        ((_, table),) = tables.items()
        kinds = {
            "numerical": ColumnKind.NUMERICAL,
            "categorical": ColumnKind.CATEGORICAL,
            "ordinal": ColumnKind.CATEGORICAL,
            "datetime": ColumnKind.DATETIME,
            "boolean": ColumnKind.BOOLEAN,
            "id": ColumnKind.ID,
        }
        try:
            columns = tuple(
                ColumnSpec(name, kinds.get(body["sdtype"]), datetime_format=body.get("datetime_format") or "")
                for name, body in table["columns"].items()
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidFieldError("metadata", f"is not SDV metadata: {error!r}") from error
        return cls(columns, table.get("primary_key") or "")


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
            raise InvalidFieldError(f"{path}.domain.categories", "null is no category; set nullable instead")
        if len(set(domain.categories)) != len(domain.categories):
            raise InvalidFieldError(f"{path}.domain.categories", "a value is listed twice")
        if domain.categories and column.kind not in (None, ColumnKind.CATEGORICAL, ColumnKind.BOOLEAN):
            raise InvalidFieldError(f"{path}.domain.categories", f"a {column.kind} column has no categories")
        if column.id_pattern and column.kind is not ColumnKind.ID:
            raise InvalidFieldError(f"{path}.id_pattern", "only a column of kind ID has a pattern")
        if column.datetime_format and column.kind not in (None, ColumnKind.DATETIME):
            raise InvalidFieldError(f"{path}.datetime_format", "only a column of kind DATETIME has a format")


def _validate_bounds(domain: Domain, path: str) -> None:
    for bound in (domain.minimum, domain.maximum):
        if isinstance(bound, float) and not math.isfinite(bound):
            raise InvalidFieldError(path, "a bound must be a finite number")
        if isinstance(bound, bool | str):
            raise InvalidFieldError(path, f"{shown_cell(bound)} is no bound; give a number, date or timestamp")
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
