"""The file of `--types`: what was decided about the columns of a table, to be read, changed and declared again.

JSON: ``{"format": 1, "csv": {...}, "primary_key": "...", "columns": [{"name": ..., "kind": ..., "type": ..., ...}]}``.
It holds no value of the data: categories, bounds and counts are left to the table that it is applied to.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from rowmint.client.row_files import whole_file
from rowmint.errors import DataProblem, InvalidDataError
from rowmint.rpc.converters import column_from_proto, column_to_proto
from rowmint.schema import ColumnSpec, Domain
from rowmint.v1 import dataset_pb2, schema_pb2

_FORMAT = 1
_COLUMN_KEYS = frozenset(
    {"name", "kind", "type", "decimals", "datetime_format", "id_pattern", "written_form", "null_values"}
    | {"minimum", "maximum", "categories", "nullable"}
)
_KEYS = ("format", "csv", "primary_key", "no_primary_key", "columns")


@dataclass(frozen=True)
class TypesFile:
    """Decisions about a table.

    Attributes:
        csv: The dialect, of a CSV file.
        primary_key: Its primary key, or empty.
        no_primary_key: Whether it has none.
        columns: Its columns.
    """

    csv: dataset_pb2.CsvFormat = field(default_factory=dataset_pb2.CsvFormat)
    primary_key: str = ""
    no_primary_key: bool = False
    columns: tuple[schema_pb2.ColumnSpec, ...] = ()

    @classmethod
    def of(cls, dataset: dataset_pb2.Dataset) -> Self:
        """Return what was decided about a dataset that is READY."""
        key = dataset.schema.primary_key
        return cls(dataset.dialect, key, not key, tuple(map(_decided, dataset.schema.columns)))

    @classmethod
    def read(cls, path: str) -> Self:
        """Read such a file.

        Raises:
            InvalidDataError: It is malformed; the error says where.
            OSError: It cannot be read.
        """
        try:
            body = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise _malformed(path, f"is not JSON: {error}") from error
        if not isinstance(body, dict) or body.get("format") != _FORMAT:
            raise _malformed(path, f'is not a types file: an object with "format": {_FORMAT}')
        unknown = sorted(set(body) - set(_KEYS))
        if unknown:
            raise _malformed(path, f"has the unknown key {unknown[0]!r}; known are {', '.join(_KEYS)}")
        columns = []
        for number, column in enumerate(body.get("columns", [])):
            try:
                columns.append(_column(column))
            except (KeyError, ValueError, TypeError, AttributeError) as error:
                raise _malformed(path, f"columns[{number}]: {_reason(error)}") from error
        try:
            csv = ParseDict(body.get("csv", {}), dataset_pb2.CsvFormat())
        except ParseError as error:
            raise _malformed(path, f"csv: {error}") from error
        key = body.get("primary_key", "")
        if not isinstance(key, str):
            raise _malformed(path, f"primary_key: {key!r} is not text")
        return cls(csv, key, body.get("no_primary_key", False) is True, tuple(columns))

    def write(self, path: str) -> None:
        """Write the file.

        Raises:
            OSError: It cannot be written.
        """
        body: dict[str, Any] = {"format": _FORMAT}
        csv = MessageToDict(self.csv, preserving_proto_field_name=True)
        if csv:
            body["csv"] = csv
        if self.primary_key:
            body["primary_key"] = self.primary_key
        if self.no_primary_key:
            body["no_primary_key"] = True
        # The paths of a message's fields are of no interest here: these messages come from a service.
        body["columns"] = [column_from_proto(column, "columns").to_json() for column in self.columns]
        with whole_file(Path(path)) as file:
            file.write((json.dumps(body, ensure_ascii=False, indent=2) + "\n").encode())


def _column(body: Mapping[str, Any]) -> schema_pb2.ColumnSpec:
    strange = sorted(set(body) - _COLUMN_KEYS)
    if strange:
        raise ValueError(f"the key {strange[0]!r} is unknown")
    return column_to_proto(ColumnSpec.from_json(body))


def _decided(column: schema_pb2.ColumnSpec) -> schema_pb2.ColumnSpec:
    """Return a column without what is only true of the data at hand."""
    spec = column_from_proto(column, "columns")
    kept = Domain(decimals=spec.domain.decimals)
    return column_to_proto(replace(spec, domain=kept, time_zone=""))


def _malformed(path: str, problem: str) -> InvalidDataError:
    return InvalidDataError([DataProblem(f"{path} {problem}")])


def _reason(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)
