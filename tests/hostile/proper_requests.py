"""Proper requests, one or more for each method, and words that fit in their fields."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import google_crc32c
import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from rowmint.v1 import (
    condition_pb2,
    dataset_pb2,
    dataset_service_pb2,
    model_admin_service_pb2,
    model_service_pb2,
    sampling_pb2,
    sampling_service_pb2,
    schema_pb2,
    statistics_pb2,
    training_job_pb2,
    training_service_pb2,
    value_pb2,
)
from tests.faults.golden_home import golden_version
from tests.golden.streams import PROJECT

DEADLINE = 60.0
"""Seconds after which a call hangs."""
PARENT = f"projects/{PROJECT}"
MODEL = f"{PARENT}/models/independent"
VERSION = golden_version("independent")
STAGED = golden_version("independent", 2)
TABLE, OPEN, VICTIM = (f"{PARENT}/datasets/{name}" for name in ("table", "open", "victim"))
LIVE, ENDED = (f"{PARENT}/trainingJobs/{name}" for name in ("live", "ended"))
UPLOAD = b"a,b\n1,2\n3,4\n"

Value = value_pb2.Value
Sample = sampling_pb2.SampleRequest
Complete = sampling_pb2.CompleteRowsRequest
Score = sampling_pb2.ScoreRowsRequest
Write = dataset_service_pb2.WriteDatasetRequest


@dataclass(frozen=True)
class Method:
    """A method: its path, its messages, and which of its sides stream."""

    path: str
    request: type[Message]
    response: type[Message]
    streams: tuple[bool, bool]

    def call(self, channel: grpc.Channel, bodies: Sequence[bytes]) -> Any:
        """Begin a call with requests that are bytes already, and return its responses."""
        arity = "_".join("stream" if many else "unary" for many in self.streams)
        make = getattr(channel, arity)(self.path, lambda body: body, self.response.FromString)
        request = iter(bodies) if self.streams[0] else bodies[0]
        found = make(request, timeout=DEADLINE)
        return found if self.streams[1] else iter([found])


def _methods() -> dict[str, Method]:
    files = (
        dataset_service_pb2, training_service_pb2, model_admin_service_pb2, model_service_pb2, sampling_service_pb2,
    )  # fmt: skip
    return {
        f"{service.name}.{method.name}": Method(
            f"/{service.full_name}/{method.name}",
            GetMessageClass(method.input_type),
            GetMessageClass(method.output_type),
            (method.client_streaming, method.server_streaming),
        )
        for file in files
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


METHODS = _methods()
AT = [
    (place, name)
    for name in METHODS
    for place in {"ModelService": ("trainer", "sampler"), "SamplingService": ("sampler",)}.get(
        name.partition(".")[0], ("trainer",)
    )
]


def equals(column: str, **value: Any) -> condition_pb2.Predicate:
    return condition_pb2.Predicate(column=column, equals=Value(**value))


def crc(data: bytes) -> int:
    return google_crc32c.value(data)


WHERE = condition_pb2.Where(
    predicates=[
        condition_pb2.Predicate(
            column="age",
            range=condition_pb2.ValueRange(
                minimum=Value(int64_value=1), maximum=Value(int64_value=98), minimum_exclusive=True
            ),
        ),
        equals("city", string_value="Oslo"),
        condition_pb2.Predicate(
            column="grade", any_of=condition_pb2.ValueSet(values=[Value(int64_value=1), Value(int64_value=2)])
        ),
        condition_pb2.Predicate(column="flag", is_null=False),
    ]
)
SAMPLE = Sample(
    model=VERSION, rows=20, start_row=0, end_row=20, where=WHERE, columns=["id", "city", "age", "grade", "flag"],
    seed=7, format=sampling_pb2.ROW_FORMAT_NDJSON, framing=sampling_pb2.FRAMING_FILE, message_bytes=16384,
)  # fmt: skip
REST = Sample()
"""What is left of a stream that was cut within its header."""
REST.MergeFrom(SAMPLE)
REST.framing = sampling_pb2.FRAMING_RESUME
REST.format = sampling_pb2.ROW_FORMAT_CSV
REST.start_row, REST.received_bytes = 3, 5
CONFIG = Complete(
    config=sampling_pb2.CompleteRowsConfig(model=VERSION, seed=1, start_row=5, tolerance=0.1, candidates=256)
)
ROWS = Complete(
    rows=sampling_pb2.PartialRows(
        rows=[sampling_pb2.PartialRow(known={"city": Value(string_value="Oslo")}), sampling_pb2.PartialRow()]
    )
)
SCORE_CONFIG = Score(config=sampling_pb2.ScoreRowsConfig(model=VERSION, start_row=5))
SCORED_ROWS = Score(rows=ROWS.rows)
DATASET = dataset_pb2.Dataset(
    format=dataset_pb2.DataFormat(csv=dataset_pb2.CsvFormat(delimiter=",", quote='"', null_values=["NA"])),
    column_overrides=[
        schema_pb2.ColumnSpec(
            name="age",
            kind=schema_pb2.COLUMN_KIND_NUMERICAL,
            data_type=schema_pb2.DATA_TYPE_INT64,
            domain=schema_pb2.ColumnDomain(minimum=Value(int64_value=0), maximum=Value(int64_value=120), nullable=True),
        )
    ],
    primary_key="customer",
)
JOB = training_job_pb2.TrainingJob(
    dataset=TABLE,
    model=f"{PARENT}/models/made",
    config=training_job_pb2.TrainingConfig(
        ctgan=training_job_pb2.CtganConfig(
            epochs=2, batch_size=20, generator_dim=[8], discriminator_dim=[8], embedding_dim=4, pac=2
        ),
        seed=1,
        threads=1,
        column_overrides=[
            training_job_pb2.ColumnOverride(
                column="city", kind=schema_pb2.COLUMN_KIND_CATEGORICAL, max_categories=5, min_category_count=1
            )
        ],
    ),
)
BASES: dict[str, list[Message]] = {
    "DatasetService.CreateDataset": [
        dataset_service_pb2.CreateDatasetRequest(parent=PARENT, dataset_id="new", dataset=DATASET)
    ],
    "DatasetService.WriteDataset": [
        Write(name=OPEN, write_offset=0, data=UPLOAD, crc32c=crc(UPLOAD)),
        Write(
            name=OPEN,
            data=UPLOAD,
            crc32c=crc(UPLOAD),
            finish_write=dataset_service_pb2.FinishWrite(total_size=len(UPLOAD), sha256=b"?" * 32),
        ),
    ],
    "DatasetService.GetDataset": [dataset_service_pb2.GetDatasetRequest(name=TABLE)],
    "DatasetService.ListDatasets": [dataset_service_pb2.ListDatasetsRequest(parent=PARENT, page_size=2)],
    "DatasetService.DeleteDataset": [dataset_service_pb2.DeleteDatasetRequest(name=VICTIM)],
    "TrainingService.CreateTrainingJob": [
        training_service_pb2.CreateTrainingJobRequest(parent=PARENT, training_job=JOB),
        # Refused at last, as the dataset is not READY: an estimate would begin a process.
        training_service_pb2.CreateTrainingJobRequest(
            parent=PARENT,
            training_job=training_job_pb2.TrainingJob(
                dataset=OPEN,
                model=JOB.model,
                config=training_job_pb2.TrainingConfig(independent=training_job_pb2.IndependentConfig()),
            ),
            validate_only=True,
        ),
    ],
    "TrainingService.GetTrainingJob": [training_service_pb2.GetTrainingJobRequest(name=LIVE)],
    "TrainingService.ListTrainingJobs": [training_service_pb2.ListTrainingJobsRequest(parent=PARENT, page_size=2)],
    "TrainingService.CancelTrainingJob": [training_service_pb2.CancelTrainingJobRequest(name=ENDED)],
    "TrainingService.WatchTrainingJob": [
        training_service_pb2.WatchTrainingJobRequest(name=ENDED, after_sequence=0),
        training_service_pb2.WatchTrainingJobRequest(name=ENDED),
    ],
    "ModelAdminService.PromoteModelVersion": [model_admin_service_pb2.PromoteModelVersionRequest(name=VERSION)],
    "ModelAdminService.RejectModelVersion": [
        model_admin_service_pb2.RejectModelVersionRequest(name=STAGED, reason="too far from the data")
    ],
    "ModelAdminService.SetModelAlias": [
        model_admin_service_pb2.SetModelAliasRequest(model=MODEL, alias="best", version=1)
    ],
    "ModelAdminService.DeleteModelVersion": [
        model_admin_service_pb2.DeleteModelVersionRequest(name=golden_version("tvae"))
    ],
    "ModelAdminService.UndeleteModelVersion": [model_admin_service_pb2.UndeleteModelVersionRequest(name=VERSION)],
    "ModelAdminService.SignModelVersion": [model_admin_service_pb2.SignModelVersionRequest(name=VERSION)],
    "ModelService.GetModel": [model_service_pb2.GetModelRequest(name=MODEL)],
    "ModelService.ListModels": [model_service_pb2.ListModelsRequest(parent=PARENT, page_size=2)],
    "ModelService.GetModelVersion": [model_service_pb2.GetModelVersionRequest(name=VERSION)],
    "ModelService.ListModelVersions": [model_service_pb2.ListModelVersionsRequest(parent=MODEL, page_size=2)],
    "SamplingService.Sample": [SAMPLE, REST],
    "SamplingService.CompleteRows": [CONFIG, ROWS],
    "SamplingService.ScoreRows": [SCORE_CONFIG, SCORED_ROWS],
    "SamplingService.PlanSample": [sampling_pb2.PlanSampleRequest(sample=SAMPLE, parts=3)],
    "SamplingService.GetModelStatistics": [
        statistics_pb2.GetModelStatisticsRequest(name=VERSION),
        statistics_pb2.GetModelStatisticsRequest(name=MODEL),
    ],
}
"""Proper requests of every method."""
WORDS: dict[str, Sequence[Any]] = {
    "parent": [PARENT, PARENT, MODEL, "projects/none"],
    "dataset_id": ["new", "", "table"],
    "dataset": [TABLE, OPEN, f"{PARENT}/datasets/none"],
    "training_job_id": ["", "live", "another"],
    "request_id": ["", "123e4567-e89b-42d3-a456-426614174000"],
    "page_size": [1, 2, 1000],
    "page_token": [""],
    "model": [VERSION, MODEL, f"{MODEL}@latest", golden_version("ctgan")],
    "version": [1, 2],
    "alias": ["best", "latest"],
    "primary_key": ["", "customer", "id"],
    "column": ["city", "age", "grade", "flag", "price", "day", "seen", "instant", "tier", "id", "badge", "void"],
    "columns": ["city", "age", "id", "instant", "price", "badge"],
    "known": ["city", "age", "grade", "flag", "price", "day", "seen", "instant", "tier", "id", "badge", "void"],
    "string_value": ["Oslo", "Zürich", "", "N0000000000000,a"],
    "int64_value": [1, 2, 3, 50],
    "double_value": [1.0, 2.5, 50.0],
    "decimal_value": ["0.5", "12.50", "-1.0"],
    "date_value": ["2024-02-29", "2000-01-01"],
    "timestamp_value": ["2013-01-01T05:00:00", "2013-01-01T05:00:00Z"],
    "rows": [10, 100, 5000, 10**15],
    "start_row": [0, 1, 2048],
    "end_row": [10, 100, 2048, 4096],
    "message_bytes": [16384, 1 << 20],
    "received_bytes": [0, 1, 5, 10**6],
    "expected_model_digest": [b""],
    "expected_plan_digest": [b""],
    "parts": [1, 2, 1024],
    "candidates": [256],
    "tolerance": [0.1, 10.0],
    "write_offset": [0],
    "name": [OPEN],
    "delimiter": [",", ";"],
    "quote": ['"', "'"],
    "encoding": ["utf-8", "latin-1", "utf-16"],
    "batch_size": [20],
    "threads": [1],
    "epochs": [1, 2],
    "seed": [0, 1, 2**64 - 1],
    "device": [0, 1, 2],
    "holdout_fraction": [0.0, 0.1],
    "validate_only": [False],
}
NAMES: dict[str, Sequence[str]] = {
    "DatasetService.GetDataset": [TABLE, OPEN, f"{PARENT}/datasets/none"],
    "DatasetService.DeleteDataset": [VICTIM, f"{PARENT}/datasets/none"],
    "TrainingService": [LIVE, ENDED, f"{PARENT}/trainingJobs/none"],
    "TrainingService.CancelTrainingJob": [ENDED],
    "ModelAdminService": [golden_version("tvae"), f"{MODEL}/versions/2"],
    "ModelService": [MODEL, VERSION, f"{MODEL}@latest", f"{MODEL}@none", f"{PARENT}/models/none"],
}
"""Words for `name`, by method or service."""
SLOW = {
    "SamplingService.CompleteRows": {"rows.rows"},
    "SamplingService.ScoreRows": {"rows.rows"},
    "TrainingService.CreateTrainingJob": {"validate_only"},
}
"""Fields that are changed in the last base only: an estimate begins a process, thousands of rows are completed."""
