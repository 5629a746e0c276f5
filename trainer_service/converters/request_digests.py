"""Digests by which a create with a `request_id` is recognised as repeated.

The registry keeps the digest that was computed when a row was made, and the row may be older than this release. Each
function therefore returns all digests that the request may have been kept under: today's first, then the one that
releases before `rowmint.rpc.request_digest` computed.
"""

import hashlib

from rowmint.rpc.converters import column_from_proto
from rowmint.rpc.request_digest import request_digest
from rowmint.schema import ColumnSpec
from rowmint.v1 import dataset_pb2, dataset_service_pb2, schema_pb2, training_job_pb2, training_service_pb2

_OUTPUT_OF_DATASETS = (
    "name",
    "state",
    "committed_size",
    "row_count",
    "schema",
    "sha256",
    "errors",
    "sdv_metadata_json",
    "create_time",
    "update_time",
    "notices",
    "dialect",
    "findings",
)
_OUTPUT_OF_JOBS = (
    "name",
    "state",
    "phase",
    "attempt",
    "model_version",
    "error",
    "progress",
    "create_time",
    "start_time",
    "end_time",
)
IGNORED_OF_DATASETS = frozenset({"request_id", *(f"dataset.{name}" for name in _OUTPUT_OF_DATASETS)})
"""Fields of CreateDatasetRequest that do not make it another request."""
IGNORED_OF_JOBS = frozenset({"request_id", *(f"training_job.{name}" for name in _OUTPUT_OF_JOBS)})
"""Fields of CreateTrainingJobRequest that do not make it another request."""


def dataset_digests(request: dataset_service_pb2.CreateDatasetRequest) -> tuple[bytes, ...]:
    """Return the digests, 32 bytes each, under which the registry may know the request.

    Raises:
        InvalidFieldError: A declared column is malformed.
    """
    digest = request_digest(request, IGNORED_OF_DATASETS)
    dataset = request.dataset
    former = dataset_service_pb2.CreateDatasetRequest(
        parent=request.parent,
        dataset_id=request.dataset_id,
        dataset=dataset_pb2.Dataset(
            format=_former_format(dataset.format),
            column_overrides=[_former_column(column) for column in dataset.column_overrides],
            primary_key=dataset.primary_key,
        ),
    )
    if request_digest(former) != digest:
        return (digest,)  # It says something that no earlier release could read.
    return digest, hashlib.sha256(_dataset_text(former).encode()).digest()


def job_digests(request: training_service_pb2.CreateTrainingJobRequest) -> tuple[bytes, ...]:
    """Return the digests, 32 bytes each, under which the registry may know the request."""
    digest = request_digest(request, IGNORED_OF_JOBS)
    job = request.training_job
    former = training_service_pb2.CreateTrainingJobRequest(
        parent=request.parent,
        training_job_id=request.training_job_id,
        training_job=training_job_pb2.TrainingJob(
            dataset=job.dataset, model=job.model, config=job.config, staged=job.staged
        ),
    )
    if request_digest(former) != digest:
        return (digest,)
    return digest, hashlib.sha256(former.SerializeToString(deterministic=True)).digest()


def _former_format(data_format: dataset_pb2.DataFormat) -> dataset_pb2.DataFormat:
    """Return a format with only the fields that earlier releases had."""
    former = dataset_pb2.DataFormat()
    match data_format.WhichOneof("format"):
        case "csv":
            csv = data_format.csv
            given = {name: getattr(csv, name) for name in ("delimiter", "quote", "encoding") if csv.HasField(name)}
            former.csv.CopyFrom(dataset_pb2.CsvFormat(**given, null_values=csv.null_values))
        case "json":
            former.json.SetInParent()
        case "parquet":
            former.parquet.SetInParent()
        case "arrow_stream":
            former.arrow_stream.SetInParent()
    return former


def _former_column(column: schema_pb2.ColumnSpec) -> schema_pb2.ColumnSpec:
    """Return a column with only the fields that earlier releases had."""
    return schema_pb2.ColumnSpec(
        name=column.name,
        kind=column.kind,
        data_type=column.data_type,
        domain=column.domain if column.HasField("domain") else None,
        datetime_format=column.datetime_format,
        time_zone=column.time_zone,
        id_pattern=column.id_pattern,
    )


def _dataset_text(request: dataset_service_pb2.CreateDatasetRequest) -> str:
    """Return what earlier releases hashed: the `repr` of their values, which name no field they did not have."""
    columns = [
        _column_text(column_from_proto(column, f"dataset.column_overrides[{index}]"))
        for index, column in enumerate(request.dataset.column_overrides)
    ]
    overrides = f"({columns[0]},)" if len(columns) == 1 else f"({', '.join(columns)})"
    said = (repr(request.parent), repr(request.dataset_id), _format_text(request.dataset.format), overrides)
    return f"({', '.join(said)}, {request.dataset.primary_key!r})"


def _format_text(data_format: dataset_pb2.DataFormat) -> str:
    kind = data_format.WhichOneof("format")
    if kind != "csv":
        return repr({"type": kind})
    csv = data_format.csv
    return repr(
        {
            "type": "csv",
            "delimiter": csv.delimiter if csv.HasField("delimiter") else ",",
            "quote": csv.quote if csv.HasField("quote") else '"',
            "encoding": csv.encoding if csv.HasField("encoding") else "utf-8",
            "null_values": list(csv.null_values),
        }
    )


def _column_text(column: ColumnSpec) -> str:
    domain = column.domain
    return (
        f"ColumnSpec(name={column.name!r}, kind={column.kind!r}, data_type={column.data_type!r},"
        f" domain=Domain(categories={domain.categories!r}, minimum={domain.minimum!r}, maximum={domain.maximum!r},"
        f" decimals={domain.decimals!r}, nullable={domain.nullable!r}),"
        f" datetime_format={column.datetime_format!r}, time_zone={column.time_zone!r},"
        f" id_pattern={column.id_pattern!r})"
    )
