"""Conversion of datasets and their requests between messages and domain objects."""

import json
from typing import Any

from rowmint.errors import InvalidFieldError
from rowmint.registry import DatasetRecord, DatasetState
from rowmint.rpc.converters import column_from_proto, column_to_proto, schema_to_proto, timestamp
from rowmint.schema import ColumnSpec
from rowmint.v1 import dataset_pb2
from trainer_service.datasets.formats import CsvFormat

DATASET_STATES = {state: dataset_pb2.DatasetState.Value(f"DATASET_STATE_{state}") for state in DatasetState}


def format_from_proto(data_format: dataset_pb2.DataFormat) -> dict[str, Any]:
    """Return a format as JSON values, every default filled in.

    Raises:
        InvalidFieldError: The format is missing, or an option is invalid; the error names its path.
    """
    match data_format.WhichOneof("format"):
        case "csv":
            return {"type": "csv", **_csv(data_format.csv)}
        case "json":
            return {"type": "json"}
        case "parquet":
            return {"type": "parquet"}
        case "arrow_stream":
            return {"type": "arrow_stream"}
        case _:
            raise InvalidFieldError("dataset.format", "is required: csv, json, parquet or arrow_stream")


def _csv(csv: dataset_pb2.CsvFormat) -> dict[str, Any]:
    given = {name: getattr(csv, name) for name in ("delimiter", "quote", "encoding") if csv.HasField(name)}
    dialect = CsvFormat(**given, null_values=tuple(csv.null_values))
    return {
        "delimiter": dialect.delimiter,
        "quote": dialect.quote,
        "encoding": dialect.encoding,
        "null_values": list(csv.null_values),
    }


def format_to_proto(body: Any) -> dataset_pb2.DataFormat:
    """Return the message of a format's JSON values."""
    message = dataset_pb2.DataFormat()
    if body["type"] == "csv":
        message.csv.CopyFrom(
            dataset_pb2.CsvFormat(
                delimiter=body["delimiter"],
                quote=body["quote"],
                encoding=body["encoding"],
                null_values=body["null_values"],
            )
        )
    else:
        getattr(message, body["type"]).SetInParent()
    return message


def overrides_from_proto(dataset: dataset_pb2.Dataset) -> tuple[ColumnSpec, ...]:
    """Return the declared columns of a dataset to create."""
    return tuple(
        column_from_proto(column, f"dataset.column_overrides[{index}]")
        for index, column in enumerate(dataset.column_overrides)
    )


def dataset_to_proto(record: DatasetRecord) -> dataset_pb2.Dataset:
    """Return the message of a dataset."""
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
    )


def _json(body: Any) -> str:
    return json.dumps(body, separators=(",", ":"), sort_keys=True)
