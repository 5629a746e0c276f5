"""Tables: columns in order, and the primary key."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from rowmint.errors import ColumnNotFoundError, InvalidFieldError
from rowmint.schema.cell import near_names
from rowmint.schema.column import ColumnKind, ColumnSpec


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
            TypeError: A part is neither an object nor a list.
            InvalidFieldError: Two columns have one name.
            ColumnNotFoundError: The primary key is not a column.
        """
        if not isinstance(body, Mapping):
            raise ValueError("it is not an object")
        columns = tuple(ColumnSpec.from_json(column) for column in body["columns"])
        primary_key = body.get("primary_key", "")
        if not isinstance(primary_key, str):
            raise ValueError("the primary key is not text")
        return cls(columns, primary_key)
