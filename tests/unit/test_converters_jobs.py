"""Jobs, their events, datasets and errors as messages; and what the servicers make of a worker's answer."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowmint.errors import (
    ColumnNotFoundError,
    DataProblem,
    FieldViolation,
    InvalidFieldError,
    Reason,
    RowmintError,
    UnavailableError,
)
from rowmint.names import DatasetName, TrainingJobName
from rowmint.registry import DatasetRecord, DatasetState, EventRecord, JobKind, JobRecord, JobState
from rowmint.registry.job_records import JobError
from rowmint.schema import ColumnKind, ColumnSpec, DataType, Domain, TableSchema
from rowmint.v1 import dataset_pb2, training_job_pb2, training_service_pb2
from tests.unit.inline_threads import inline_threads
from trainer_service.config import TrainingConfig, to_json
from trainer_service.converters.datasets import (
    DATASET_STATES,
    dataset_to_proto,
    format_from_proto,
    format_to_proto,
    stored_format,
)
from trainer_service.converters.errors import error_from_json, error_to_json
from trainer_service.converters.jobs import JOB_PHASES, JOB_STATES, event_to_proto, job_to_proto
from trainer_service.datasets.formats import CsvFormat
from trainer_service.datasets.notices import Finding, Notice, NoticeCode
from trainer_service.fitting.families.independent.config import IndependentConfig
from trainer_service.fitting.monitoring.progress import FitEvent, Phase
from trainer_service.jobs.notifier import JobNotifier, WatchLimits
from trainer_service.jobs.runners import PHASES
from trainer_service.jobs.runners.train import _payload
from trainer_service.servicers.datasets import _SerializedWriter
from trainer_service.servicers.training import TrainingServicer

NOW = datetime(2024, 5, 1, 12, 30, tzinfo=UTC)
PROGRESS = {
    "epoch": 2,
    "epochs": 3,
    "losses": {"generator": -0.5, "critic": 0.25},
    "rows_per_second": 1e4,
    "eta_seconds": 1.5,
}
JOB = JobRecord(
    uid="u",
    name=TrainingJobName("p", "j"),
    kind=JobKind.TRAIN,
    state=JobState.RUNNING,
    phase="fitting",
    config=to_json(TrainingConfig(IndependentConfig(), seed=2**64 - 1)),
    inputs={"dataset": "projects/p/datasets/d", "model": "projects/p/models/m"},
    outputs={},
    dataset_uid="d",
    epoch=1,
    attempt=2,
    max_attempts=3,
    holder="me",
    lease_until=NOW,
    cancel_requested=False,
    error=None,
    event_count=4,
    create_time=NOW,
    start_time=None,
    end_time=None,
)
DATASET = DatasetRecord(
    uid="d",
    name=DatasetName("p", "d"),
    state=DatasetState.READY,
    format={"type": "csv", "delimiter": ";", "quote": "'", "encoding": "latin-1", "null_values": ["", "NA"]},
    overrides=(ColumnSpec("city", ColumnKind.CATEGORICAL),),
    primary_key="",
    writer_epoch=1,
    segment_count=0,
    committed_size=10,
    total_size=10,
    sha256=b"s" * 32,
    row_count=3,
    schema=TableSchema((ColumnSpec("id", ColumnKind.ID, DataType.INT64, Domain(nullable=False)),), "id"),
    sdv_metadata={"tables": {}},
    canonical_key="k",
    canonical_size=1,
    canonical_sha256=b"c" * 32,
    profile={"columns": {"id": {"distinct": 3}}},
    errors=(),
    create_time=NOW,
    update_time=NOW,
)


def test_every_state_and_phase_has_a_number():
    assert sorted(JOB_STATES.values()) == training_job_pb2.JobState.values()[1:]
    assert sorted(JOB_PHASES.values()) == sorted(training_job_pb2.JobPhase.values())
    assert [phase for phase in JOB_PHASES if phase] == list(PHASES[JobKind.TRAIN])
    assert sorted(DATASET_STATES.values()) == dataset_pb2.DatasetState.values()[1:]


def test_a_phase_of_a_later_release_has_no_number():
    assert job_to_proto(replace(JOB, phase="evaluating")).phase == training_job_pb2.JOB_PHASE_UNSPECIFIED
    event = EventRecord("u", 4, NOW, 2, JobState.RUNNING, "evaluating", {})
    assert event_to_proto(event, JOB.model).phase == training_job_pb2.JOB_PHASE_UNSPECIFIED


def test_a_job_message_has_every_known_field():
    running = job_to_proto(JOB, PROGRESS)
    assert (running.name, running.state, running.phase, running.attempt) == (
        "projects/p/trainingJobs/j",
        training_job_pb2.JOB_STATE_RUNNING,
        training_job_pb2.JOB_PHASE_FITTING,
        2,
    )
    assert running.config.seed == 2**64 - 1
    assert running.config.WhichOneof("family") == "independent"
    assert (running.progress.epoch, dict(running.progress.losses)) == (2, PROGRESS["losses"])
    assert running.progress.eta.ToMilliseconds() == 1500
    assert running.create_time.ToDatetime(UTC) == NOW
    unset = ("start_time", "end_time", "error")
    assert not any(running.HasField(field) for field in unset)
    assert not job_to_proto(JOB).HasField("progress")
    failed = job_to_proto(replace(JOB, state=JobState.FAILED, error=JobError("INTERNAL", "why"), end_time=NOW))
    assert (failed.error.reason, failed.error.message) == ("INTERNAL", "why")
    ended = job_to_proto(replace(JOB, state=JobState.SUCCEEDED, outputs={"model_version": 7}))
    assert ended.model_version == "projects/p/models/m/versions/7"
    assert not ended.staged
    assert job_to_proto(replace(JOB, inputs={**JOB.inputs, "staged": True})).staged


@pytest.mark.parametrize(
    ("payload", "field", "value"),
    [
        ({"message": "fitting"}, "message", "fitting"),
        ({"model_version": 3}, "model_version", "projects/p/models/m/versions/3"),
        (
            {"error": {"reason": "LIMIT", "message": "m"}},
            "error",
            training_job_pb2.JobError(reason="LIMIT", message="m"),
        ),
    ],
)
def test_an_event_message_has_the_fields_of_its_kind_only(payload: dict[str, Any], field: str, value: object):
    event = EventRecord("u", 4, NOW, 2, JobState.RUNNING, "fitting", payload)
    message = event_to_proto(event, JOB.model)
    assert getattr(message, field) == value
    plain = {"sequence", "time", "attempt", "state", "phase"}
    assert {descriptor.name for descriptor, _ in message.ListFields()} == plain | {field}
    whole = event_to_proto(replace(event, payload={"progress": PROGRESS}), JOB.model)
    assert whole.progress.epochs == 3


def test_a_probe_is_reported_with_its_epoch():
    event = EventRecord("u", 4, NOW, 2, JobState.RUNNING, "fitting", {})

    def reported(progress: dict[str, Any]) -> dict[str, float]:
        message = event_to_proto(replace(event, payload={"progress": progress}), JOB.model)
        parsed = training_job_pb2.TrainingEvent.FromString(message.SerializeToString())
        return dict(parsed.progress.probe)

    scores = {"quality": 0.75, "shapes": 1.0, "pairs": 0.5, "distinct": 0.0}
    assert reported({**PROGRESS, "probe": scores}) == scores
    assert reported(PROGRESS) == {}  # an epoch without one, and every event of before there were probes
    assert dict(job_to_proto(JOB, {**PROGRESS, "probe": scores}).progress.probe) == scores


def test_what_a_fit_reports_becomes_an_event():
    scores = {"quality": 0.75, "shapes": 1.0, "pairs": 0.5, "distinct": 0.0}
    losses = {"loss": 1.5}
    reported = FitEvent(Phase.FITTING, 2, 3, losses=losses, rows_per_second=1e4, eta_seconds=1.5, probe=scores)
    expected = {"epoch": 2, "epochs": 3, "losses": losses, "rows_per_second": 1e4, "eta_seconds": 1.5}
    assert _payload(reported)["progress"] == {**expected, "probe": scores}
    assert _payload(replace(reported, probe={}))["progress"] == expected


def test_a_dataset_message_has_every_known_field():
    message = dataset_to_proto(DATASET)
    assert (message.state, message.row_count, message.primary_key) == (dataset_pb2.DATASET_STATE_READY, 3, "id")
    assert message.format.csv.delimiter == ";"
    assert list(message.format.csv.null_values) == ["", "NA"]
    assert message.sdv_metadata_json == '{"tables":{}}'
    problem = DataProblem("is ragged", 3, 2, "city")
    fresh = replace(DATASET, schema=None, sdv_metadata=None, sha256=None, row_count=None, primary_key="key")
    failed = dataset_to_proto(replace(fresh, state=DatasetState.FAILED, errors=(problem,)))
    assert list(failed.errors) == [dataset_pb2.DataError(line=3, row=2, column="city", message="is ragged")]
    assert (failed.primary_key, failed.sdv_metadata_json, failed.sha256) == ("key", "", b"")
    assert not failed.HasField("schema")


@pytest.mark.parametrize("name", ["csv", "json", "parquet", "arrow_stream", "arrow_file"])
def test_a_format_is_restored(name: str):
    message = dataset_pb2.DataFormat()
    getattr(message, name).SetInParent()
    body = format_from_proto(message)
    assert body["type"] == name
    assert format_from_proto(format_to_proto(body)) == body


CSV = dataset_pb2.CsvFormat(
    delimiter=";",
    quote="'",
    null_values=["NA"],
    encoding="cp1252",
    comment="%",
    skip_rows=3,
    header=dataset_pb2.CSV_HEADER_ABSENT,
    column_names=["a", "b"],
    decimal=",",
    group_separator="",
    quoted_empty=dataset_pb2.QUOTED_EMPTY_TEXT,
)


def test_every_option_of_a_format_is_stored_and_restored():
    assert len(CSV.ListFields()) == len(CSV.DESCRIPTOR.fields)
    for declared in (
        dataset_pb2.DataFormat(csv=CSV),
        dataset_pb2.DataFormat(json=dataset_pb2.JsonFormat(orient=dataset_pb2.JSON_ORIENT_SPLIT)),
    ):
        assert format_to_proto(format_from_proto(declared)) == declared
    assert format_from_proto(dataset_pb2.DataFormat(csv=dataset_pb2.CsvFormat())) == {"type": "csv"}
    named = dataset_pb2.DataFormat(csv=dataset_pb2.CsvFormat(delimiter="tab"))
    assert format_from_proto(named) == {"type": "csv", "delimiter": "\t"}


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (dataset_pb2.DataFormat(), "dataset.format"),
        (dataset_pb2.DataFormat(csv=dataset_pb2.CsvFormat(comment="")), "dataset.format.csv.comment"),
        (dataset_pb2.DataFormat(csv=dataset_pb2.CsvFormat(decimal="")), "dataset.format.csv.decimal"),
        (dataset_pb2.DataFormat(csv=dataset_pb2.CsvFormat(skip_rows=-1)), "dataset.format.csv.skip_rows"),
        (dataset_pb2.DataFormat(csv=dataset_pb2.CsvFormat(header=99)), "dataset.format.csv.header"),
        (dataset_pb2.DataFormat(json=dataset_pb2.JsonFormat(orient=99)), "dataset.format.json.orient"),
    ],
)
def test_a_wrong_option_of_a_format_is_named(wrong: dataset_pb2.DataFormat, field: str):
    with pytest.raises(InvalidFieldError) as caught:
        format_from_proto(wrong)
    assert [violation.field for violation in caught.value.violations] == [field]


def test_options_of_a_table_are_stored_beside_its_format():
    created = dataset_pb2.Dataset(
        format=dataset_pb2.DataFormat(parquet=dataset_pb2.ParquetFormat()),
        no_primary_key=True,
        infinite=dataset_pb2.INFINITE_POLICY_CLIP,
    )
    body = stored_format(created)
    assert body == {"type": "parquet", "table": {"no_primary_key": True, "infinite": "clip"}}
    message = dataset_to_proto(replace(DATASET, format=body))
    assert (message.no_primary_key, message.infinite) == (True, dataset_pb2.INFINITE_POLICY_CLIP)
    assert message.format == created.format
    assert stored_format(dataset_pb2.Dataset(format=created.format)) == {"type": "parquet"}
    created.primary_key = "id"
    with pytest.raises(InvalidFieldError, match="so is the primary key 'id'"):
        stored_format(created)


def test_what_was_decided_of_a_dataset_is_in_its_message():
    notice = Notice(NoticeCode.DIALECT, "", "fields are separated by semicolons", "--delimiter", 7)
    finding = Finding("id", "no value repeats", "--column id=numerical", 2, 3, distinct_exact=True)
    dialect = CsvFormat.from_json(format_from_proto(dataset_pb2.DataFormat(csv=CSV)))
    profile = {"notices": [notice.to_json()], "findings": [finding.to_json()], "dialect": dialect.to_json()}
    message = dataset_to_proto(replace(DATASET, profile=profile))
    assert message.dialect == CSV
    assert list(message.notices) == [
        dataset_pb2.Notice(code="DIALECT", message=notice.message, flag="--delimiter", rows=7)
    ]
    assert list(message.findings) == [
        dataset_pb2.ColumnFinding(
            column="id", why=finding.why, flag=finding.flag, missing=2, distinct=3, distinct_exact=True
        )
    ]
    older = dataset_to_proto(DATASET)
    assert (list(older.notices), list(older.findings), older.HasField("dialect")) == ([], [], False)


@given(
    st.builds(
        lambda text, metadata, violations, after: RowmintError(
            text, metadata=metadata, violations=[FieldViolation(*each) for each in violations], retry_after=after
        ),
        st.text(),
        st.dictionaries(st.text(), st.text(), max_size=3),
        st.lists(st.tuples(st.text(), st.text()), max_size=3),
        st.one_of(st.none(), st.floats(0, 100)),
    ),
    st.sampled_from(Reason),
)
def test_an_error_crosses_to_the_parent(error: RowmintError, reason: Reason):
    error.reason = reason
    found = error_from_json(error_to_json(error))
    assert vars(found) == vars(error)


class Jobs:
    """A ledger of one job that has not ended."""

    def __init__(self) -> None:
        self.events = [EventRecord("u", number, NOW, 1, JobState.RUNNING, "fitting", {}) for number in (1, 2)]

    def get(self, _: object) -> JobRecord:
        return JOB

    def get_by_uid(self, _: object) -> JobRecord:
        return JOB

    def events_after(self, _: object, sequence: int, limit: int = 1000) -> list[EventRecord]:
        return self.events[sequence:]


async def looks_at_job(uids: Sequence[str]) -> dict[str, tuple[int, bool]]:
    return dict.fromkeys(uids, (JOB.event_count, False))


def servicer(answer: dict[str, Any] | None = None, *, cuda: bool = False) -> TrainingServicer:
    async def estimate(body: dict[str, Any]) -> dict[str, Any]:
        assert body["dataset_uid"] == "d"
        return answer or {}

    registry: Any = SimpleNamespace(jobs=Jobs(), datasets=SimpleNamespace(get=lambda _: DATASET))
    estimator = SimpleNamespace(estimate=estimate)
    return TrainingServicer(
        registry,
        estimator,
        lambda: None,
        threads=inline_threads(),
        job_threads=1,
        cuda=lambda: cuda,
        max_page_bytes=3 << 20,
        notifier=JobNotifier(looks_at_job, WatchLimits(), lambda _: None, partial(asyncio.sleep, 0)),
    )


@pytest.mark.parametrize(
    ("error", "fields", "metadata"),
    [
        (InvalidFieldError("training_job.config.device", "no CUDA device"), ["training_job.config.device"], {}),
        (ColumnNotFoundError("citty", ["city"]), [], {"column": "citty", "near": "city"}),
        (UnavailableError("away", retry_after=2.0), [], {}),
    ],
)
def test_an_estimate_that_fails_keeps_all_of_its_error(
    error: RowmintError, fields: list[str], metadata: dict[str, str]
):
    request = training_service_pb2.CreateTrainingJobRequest(parent="projects/p", validate_only=True)
    request.training_job.dataset, request.training_job.model = "projects/p/datasets/d", "projects/p/models/m"
    request.training_job.config.independent.SetInParent()
    schema = TableSchema((ColumnSpec("a", ColumnKind.NUMERICAL, DataType.DOUBLE),))
    one = servicer({"error": error_to_json(error)})
    one._registry.datasets.get = lambda _: replace(DATASET, schema=schema)  # type: ignore[method-assign]
    with pytest.raises(RowmintError) as raised:
        asyncio.run(one.CreateTrainingJob(request, None))
    assert raised.value.reason is error.reason
    assert [violation.field for violation in raised.value.violations] == fields
    assert (raised.value.metadata, raised.value.retry_after) == (metadata, error.retry_after)


@pytest.mark.parametrize("validate_only", [False, True])
def test_a_job_for_cuda_is_refused_where_there_is_none(validate_only: bool):
    request = training_service_pb2.CreateTrainingJobRequest(parent="projects/p", validate_only=validate_only)
    request.training_job.dataset, request.training_job.model = "projects/p/datasets/d", "projects/p/models/m"
    request.training_job.config.independent.SetInParent()
    request.training_job.config.device = training_job_pb2.DEVICE_CUDA
    schema = TableSchema((ColumnSpec("a", ColumnKind.NUMERICAL, DataType.DOUBLE),))

    def create(cuda: bool) -> training_job_pb2.TrainingJob:
        one = servicer({}, cuda=cuda)
        one._registry.datasets.get = lambda _: replace(DATASET, schema=schema)  # type: ignore[method-assign]
        jobs: Any = one._registry.jobs
        jobs.create, jobs.repeated = lambda *_, **named: replace(JOB, config=named["config"]), lambda *_: None
        return asyncio.run(one.CreateTrainingJob(request, None)).training_job

    assert create(cuda=True).config.device == training_job_pb2.DEVICE_CUDA
    with pytest.raises(InvalidFieldError) as raised:
        create(cuda=False)
    message = "training_job.config.device: is DEVICE_CUDA; this trainer has no CUDA device: use DEVICE_CPU"
    assert str(raised.value) == message


def test_watching_ends_with_the_trainer():
    async def test() -> None:
        one = servicer()
        request = training_service_pb2.WatchTrainingJobRequest(name="projects/p/trainingJobs/j")
        events = one.WatchTrainingJob(request, None)
        assert [(await anext(events)).sequence for _ in range(2)] == [1, 2]
        third = asyncio.create_task(anext(events))
        await asyncio.sleep(0)
        one.close()
        async with asyncio.timeout(20):
            with pytest.raises(UnavailableError) as raised:
                await third
        assert raised.value.retry_after == 1.0

    asyncio.run(test())


def test_a_writer_is_closed_only_after_what_it_was_doing():
    done: list[str] = []
    started, go = threading.Event(), threading.Event()

    def tick() -> None:
        started.set()
        assert go.wait(20)
        done.append("tick")

    async def test() -> None:
        writer: Any = SimpleNamespace(tick=tick, close=lambda: done.append("close"))
        serialized = _SerializedWriter(writer, asyncio.to_thread)
        ticking = asyncio.create_task(serialized.tick())
        await asyncio.to_thread(started.wait, 20)
        ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)
        closing = asyncio.create_task(serialized.close())
        await asyncio.sleep(0)
        go.set()
        await closing

    asyncio.run(test())
    assert done == ["tick", "close"]


def test_a_job_is_staged_where_its_request_says_so():
    made: list[dict[str, Any]] = []

    def create(kind: JobKind, project: str, job_id: str, **named: Any) -> JobRecord:
        assert (kind, project, job_id) == (JobKind.TRAIN, "p", "j")
        made.append(named)
        return replace(JOB, inputs=named["inputs"])

    one = servicer()
    schema = TableSchema((ColumnSpec("a", ColumnKind.NUMERICAL, DataType.DOUBLE),))
    one._registry.datasets.get = lambda _: replace(DATASET, schema=schema)  # type: ignore[method-assign]
    jobs: Any = one._registry.jobs
    jobs.create, jobs.repeated = create, lambda *_: None
    request = training_service_pb2.CreateTrainingJobRequest(parent="projects/p", training_job_id="j")
    request.training_job.dataset, request.training_job.model = "projects/p/datasets/d", "projects/p/models/m"
    request.training_job.config.independent.SetInParent()
    request.training_job.config.holdout_fraction = 0
    for staged in (False, True):
        request.training_job.staged = staged
        assert asyncio.run(one.CreateTrainingJob(request, None)).training_job.staged is staged
        named = {"dataset": "projects/p/datasets/d", "model": "projects/p/models/m"}
        assert (made[-1]["inputs"], made[-1]["dataset_uid"]) == ({**named, "staged": staged}, "d")
    # Not the same request: it is not to be taken for a repeated one.
    assert made[0]["request_digest"] != made[1]["request_digest"]
