"""Conversion of datasets and their requests between messages and domain objects."""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeVar, cast

from rowmint.errors import InvalidFieldError
from rowmint.registry import DatasetRecord, DatasetState
from rowmint.rpc.converters import column_from_proto, column_to_proto, schema_to_proto, timestamp
from rowmint.schema import ColumnSpec
from rowmint.v1 import dataset_pb2
from trainer_service.datasets.formats import CsvFormat, CsvHeader, JsonOrient, QuotedEmpty
from trainer_service.datasets.table_options import InfinitePolicy, TableOptions

E = TypeVar("E", bound=StrEnum)

DATASET_STATES = {state: dataset_pb2.DatasetState.Value(f"DATASET_STATE_{state}") for state in DatasetState}
HEADERS = {
    CsvHeader.EXPECTED: dataset_pb2.CSV_HEADER_UNSPECIFIED,
    CsvHeader.PRESENT: dataset_pb2.CSV_HEADER_PRESENT,
    CsvHeader.ABSENT: dataset_pb2.CSV_HEADER_ABSENT,
}
QUOTED_EMPTIES = {
    QuotedEmpty.SEEN: dataset_pb2.QUOTED_EMPTY_UNSPECIFIED,
    QuotedEmpty.MISSING: dataset_pb2.QUOTED_EMPTY_MISSING,
    QuotedEmpty.TEXT: dataset_pb2.QUOTED_EMPTY_TEXT,
}
JSON_ORIENTS = {
    orient: dataset_pb2.JsonOrient.Value(f"JSON_ORIENT_{orient.name}")
    for orient in JsonOrient
    if orient is not JsonOrient.SEEN
} | {JsonOrient.SEEN: dataset_pb2.JSON_ORIENT_UNSPECIFIED}
INFINITE_POLICIES = {
    InfinitePolicy.REFUSE: dataset_pb2.INFINITE_POLICY_UNSPECIFIED,
    InfinitePolicy.MISSING: dataset_pb2.INFINITE_POLICY_MISSING,
    InfinitePolicy.CLIP: dataset_pb2.INFINITE_POLICY_CLIP,
}


def stored_format(dataset: dataset_pb2.Dataset) -> dict[str, Any]:
    """Return the format of a dataset to create as JSON values, with the options of its table under "table".

    Raises:
        InvalidFieldError: The format is missing, or an option is invalid; the error names its path.
    """
    body = format_from_proto(dataset.format)
    options = _table_options(dataset).to_json()
    return {**body, "table": options} if options else body


def format_from_proto(data_format: dataset_pb2.DataFormat) -> dict[str, Any]:
    """Return a format as JSON values. What is unset is left out: it is seen from the file.

    Raises:
        InvalidFieldError: The format is missing, or an option is invalid; the error names its path.
    """
    kind = data_format.WhichOneof("format")
    match kind:
        case "csv":
            return {"type": kind, **_csv(data_format.csv).to_json()}
        case "json":
            orient = _enum(JSON_ORIENTS, data_format.json.orient, "dataset.format.json.orient")
            return {"type": kind} if orient is JsonOrient.SEEN else {"type": kind, "orient": str(orient)}
        case "parquet" | "arrow_stream" | "arrow_file":
            return {"type": kind}
        case _:
            raise InvalidFieldError("dataset.format", "is required: csv, json, parquet, arrow_stream or arrow_file")


def _csv(csv: dataset_pb2.CsvFormat) -> CsvFormat:
    # An empty text is not the same as none: optional fields are listed only where they are set.
    body: dict[str, Any] = {field.name: value for field, value in csv.ListFields()}
    for name in ("comment", "decimal"):
        if body.get(name) == "":
            raise InvalidFieldError(f"dataset.format.csv.{name}", "is empty")
    return CsvFormat.from_json(
        {
            **body,
            "null_values": list(csv.null_values),
            "column_names": list(csv.column_names),
            "header": _enum(HEADERS, csv.header, "dataset.format.csv.header"),
            "quoted_empty": _enum(QUOTED_EMPTIES, csv.quoted_empty, "dataset.format.csv.quoted_empty"),
        }
    )


def _enum(known: Mapping[E, int], number: int, path: str) -> E:
    for value, its_number in known.items():
        if its_number == number:
            return value
    raise InvalidFieldError(path, f"{number} is not known to this version")


def _table_options(dataset: dataset_pb2.Dataset) -> TableOptions:
    if dataset.no_primary_key and dataset.primary_key:
        raise InvalidFieldError("dataset.no_primary_key", f"is set, but so is the primary key {dataset.primary_key!r}")
    infinite = _enum(INFINITE_POLICIES, dataset.infinite, "dataset.infinite")
    return TableOptions(no_primary_key=dataset.no_primary_key, infinite=infinite)


def format_to_proto(body: Mapping[str, Any]) -> dataset_pb2.DataFormat:
    """Return the message of a format's JSON values."""
    message = dataset_pb2.DataFormat()
    match body["type"]:
        case "csv":
            message.csv.CopyFrom(csv_to_proto(CsvFormat.from_json(body)))
        case "json":
            message.json.SetInParent()
            message.json.orient = cast("Any", JSON_ORIENTS[JsonOrient(body.get("orient", JsonOrient.SEEN))])
        case kind:
            getattr(message, kind).SetInParent()
    return message


def csv_to_proto(dialect: CsvFormat) -> dataset_pb2.CsvFormat:
    """Return the message of a CSV dialect."""
    return dataset_pb2.CsvFormat(
        delimiter=dialect.delimiter,
        quote=dialect.quote,
        null_values=dialect.null_values if dialect.null_values != CsvFormat().null_values else (),
        encoding=dialect.encoding,
        comment=dialect.comment or None,
        skip_rows=dialect.skip_rows or None,
        header=cast("Any", HEADERS[dialect.header]),
        column_names=dialect.column_names,
        decimal=dialect.decimal or None,
        group_separator=dialect.group_separator,
        quoted_empty=cast("Any", QUOTED_EMPTIES[dialect.quoted_empty]),
    )


def overrides_from_proto(dataset: dataset_pb2.Dataset) -> tuple[ColumnSpec, ...]:
    """Return the declared columns of a dataset to create."""
    return tuple(
        column_from_proto(column, f"dataset.column_overrides[{index}]")
        for index, column in enumerate(dataset.column_overrides)
    )


def dataset_to_proto(record: DatasetRecord) -> dataset_pb2.Dataset:
    """Return the message of a dataset."""
    options = TableOptions.from_json(record.format.get("table", {}))
    profile = record.profile or {}
    dialect = profile.get("dialect")
    return dataset_pb2.Dataset(
        name=str(record.name),
        format=format_to_proto(record.format),
        column_overrides=[column_to_proto(column) for column in record.overrides],
        primary_key=record.schema.primary_key if record.schema is not None else record.primary_key,
        state=DATASET_STATES[record.state],
        committed_size=record.committed_size,
        row_count=record.row_count or 0,
        schema=None if record.schema is None else schema_to_proto(record.schema),
        sha256=record.sha256 or b"",
        errors=[
            dataset_pb2.DataError(line=problem.line, row=problem.row, column=problem.column, message=problem.message)
            for problem in record.errors
        ],
        sdv_metadata_json="" if record.sdv_metadata is None else _json(record.sdv_metadata),
        create_time=timestamp(record.create_time),
        update_time=timestamp(record.update_time),
        notices=[dataset_pb2.Notice(**notice) for notice in profile.get("notices", ())],
        no_primary_key=options.no_primary_key,
        infinite=cast("Any", INFINITE_POLICIES[options.infinite]),
        dialect=None if dialect is None else csv_to_proto(CsvFormat.from_json(dialect)),
        findings=[dataset_pb2.ColumnFinding(**finding) for finding in profile.get("findings", ())],
    )


def _json(body: Any) -> str:
    return json.dumps(body, separators=(",", ":"), sort_keys=True)
