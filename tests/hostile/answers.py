"""What is wrong with the answer to a request, whatever the request was: a right answer or a typed refusal."""

import hashlib
import json
import math
import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import pyarrow as pa
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpc_status import rpc_status

from rowmint.errors import Reason
from rowmint.rpc.status import CODES, DOMAIN
from rowmint.v1 import (
    condition_pb2,
    dataset_pb2,
    dataset_service_pb2,
    model_admin_service_pb2,
    model_service_pb2,
    sampling_pb2,
    training_job_pb2,
)
from tests.acceptance.refusals import refused
from tests.golden.make import SCHEMA
from tests.hostile.messages import Case
from tests.hostile.proper_requests import (
    CONFIG,
    LIVE,
    METHODS,
    OPEN,
    ROWS,
    SCORE_CONFIG,
    SCORED_ROWS,
    Complete,
    Sample,
    Score,
    Value,
    crc,
)
from tests.hostile.world import World

READ = 3
"""Responses of a stream that are read before it is cancelled."""
TRAILERS = 8 * 1024
"""Bytes that a client takes of trailers; an entry has 32 beside its name and value (RFC 9113, section 6.5.2)."""
NEVER = {Reason.INTERNAL, Reason.UNAVAILABLE, Reason.DATA_LOSS, Reason.FENCED}
"""Reasons of refusals that no request is to blame for: nothing is lost and no other process writes."""


_ROWS_SENT = {
    "SamplingService.CompleteRows": (CONFIG, ROWS),
    "SamplingService.ScoreRows": (SCORE_CONFIG, SCORED_ROWS),
}


def tried(world: World, place: str, name: str, case: Case) -> list[str]:
    """Make a call and return what is wrong with its outcome."""
    method = METHODS[name]
    request = _parsed(method.request, case.body)
    if name == "DatasetService.WriteDataset" and world.dataset(OPEN).committed_size:
        world.create_dataset(OPEN)
    bodies = [case.body]
    if name in _ROWS_SENT and request is not None:
        config, rows = _ROWS_SENT[name]
        bodies = [case.body, rows.SerializeToString()]
        if request.WhichOneof("message") == "rows":
            bodies = [config.SerializeToString(), case.body]
    most = READ
    if request is not None and method.request.DESCRIPTOR.name == "WatchTrainingJobRequest" and request.name == LIVE:
        most = max(0, min(READ, 2 - request.after_sequence))  # it was created and taken up, and no more comes
    responses: list[Any] = []
    try:
        call = method.call(world.channels[place], bodies)
        responses.extend(islice(call, most if method.streams[1] else 1))
        if method.streams[1]:
            call.cancel()
    except grpc.RpcError as error:
        wrong = wrong_refusal(world, method.request.DESCRIPTOR, error, readable=request is not None)
    else:
        wrong = wrong_answer(world, name, request, responses)
    return [f"{case.label}: {wrong}"] if wrong else []


def _parsed(kind: type[Message], body: bytes) -> Any:
    try:
        return kind.FromString(body)
    except DecodeError:
        return None


def wrong_refusal(world: World, request: Descriptor, error: grpc.RpcError, *, readable: bool) -> str:
    """Return what is wrong with a refusal, of a request that is `readable` or not; empty where nothing is."""
    said = f"{error.code()}: {error.details()}"[:500]
    status = rpc_status.from_call(error)
    if status is None:
        return f"says no more than {said}"
    info, violations = ErrorInfo(), []
    for detail in status.details:
        bad = BadRequest()
        if detail.Unpack(bad):
            violations += bad.field_violations
        detail.Unpack(info)
    if info.domain != DOMAIN or info.reason not in set(Reason) - NEVER:
        return f"has reason {info.domain}/{info.reason}: {said}"
    if error.code() is not CODES[Reason(info.reason)]:
        return f"has another code than {info.reason} has: {said}"
    if info.reason == Reason.INVALID_FIELD and bool(violations) is not readable:
        return f"names fields {violations}: {said}"
    strange = [violation.field for violation in violations if not names_a_field(request, violation.field)]
    if strange:
        return f"names fields that {request.name} does not have: {strange}"
    if not status.message or "\n" in status.message or not all(violation.description for violation in violations):
        return f"does not say one line: {status.message!r}"
    if re.search(rf"Traceback|site-packages|File \"|{world.home}|{Path(__file__).parents[2]}", str(status)):
        return f"shows internals: {said}"
    entries = [("grpc-message", quote(status.message)), *error.trailing_metadata()]
    size = sum(32 + len(key) + len(value) * (4 / 3 if isinstance(value, bytes) else 1) for key, value in entries)
    return "" if size < TRAILERS else f"has trailers of {size:.0f} bytes"


def names_a_field(message: Descriptor, path: str) -> bool:
    """Say whether a path is that of a field of a message, such as `where.predicates[1].equals`."""
    match = re.match(r"([a-z0-9_]+)(\[\d+\]|\[(['\"]).*?(?<!\\)\3\])?(?:\.|$)", path)
    if match is None:
        return path.endswith("...")  # a caller's long word in it is cut
    name, index, rest = match[1], match[2], path[match.end() :]
    if name in message.oneofs_by_name:
        return not rest and not index
    found = message.fields_by_name.get(name)
    if found is None:
        return False
    if index and not found.is_repeated:
        # A row is counted from the stream's beginning, over all messages.
        if found.message_type is not sampling_pb2.PartialRows.DESCRIPTOR:
            return False
        found = sampling_pb2.PartialRows.DESCRIPTOR.fields_by_name["rows"]
    return not rest or (found.message_type is not None and names_a_field(found.message_type, rest))


def wrong_answer(world: World, name: str, request: Any, responses: list[Any]) -> str:
    """Return in what an answer is not what was requested; and undo what it did."""
    try:
        ANSWERS[name](world, request, responses)
    except AssertionError as error:
        return f"{error} in answer to {str(request)[:500]!r}: {str(responses)[:500]!r}"
    return ""


def _same_name(_: World, request: Any, responses: list[Any]) -> None:
    assert [response.name for response in responses] == [request.name]


def _page(_: World, request: Any, responses: list[Any]) -> None:
    (response,) = responses
    (items,) = (
        (value for found, value in response.ListFields() if found.is_repeated) if response.ListFields() else ([],)
    )
    assert len(items) <= (request.page_size if request.HasField("page_size") else 50)
    assert all(item.name.startswith(f"{request.parent}/") for item in items)


def _created_dataset(world: World, request: Any, responses: list[Any]) -> None:
    (made,) = responses
    requested = request.dataset
    world.send("DatasetService.DeleteDataset", dataset_service_pb2.DeleteDatasetRequest(name=made.name))
    assert made.name.startswith(f"{request.parent}/datasets/{request.dataset_id}")
    assert made.state == dataset_pb2.DATASET_STATE_UPLOADING
    assert made.format.WhichOneof("format") == requested.format.WhichOneof("format")
    for said, value in requested.format.csv.ListFields():
        assert getattr(made.format.csv, said.name) == value
    assert [column.name for column in made.column_overrides] == [column.name for column in requested.column_overrides]
    assert (made.primary_key, made.committed_size, made.row_count) == (requested.primary_key, 0, 0)


def _written(world: World, request: Any, responses: list[Any]) -> None:
    (response,) = responses
    assert response.dataset.name == request.name
    if request.name == OPEN:
        assert response.dataset.committed_size == len(request.data)


def _deleted_dataset(world: World, request: Any, responses: list[Any]) -> None:
    refusal = refused(lambda: world.dataset(request.name))
    world.create_dataset(request.name)
    assert refusal.reason == Reason.RESOURCE_NOT_FOUND


def _created_job(world: World, request: Any, responses: list[Any]) -> None:
    ((made, estimate),) = ((response.training_job, response.estimate) for response in responses)
    requested = request.training_job
    if request.validate_only:
        assert made.name == ""
        assert estimate.peak_memory_bytes > 0
    else:
        cancelled = world.cancel(made.name)
        assert made.name.startswith(f"{request.parent}/trainingJobs/{request.training_job_id}")
        assert cancelled == training_job_pb2.JOB_STATE_CANCELLED
    assert (made.dataset, made.model) == (requested.dataset, requested.model)
    family = requested.config.WhichOneof("family")
    assert made.config.WhichOneof("family") == family
    for ours, theirs in (
        (made.config, requested.config),
        (getattr(made.config, family), getattr(requested.config, family)),
    ):
        for said, value in theirs.ListFields():
            if said.message_type is None and said.name != "device":
                assert getattr(ours, said.name) == value
    assert len(made.config.column_overrides) == len(requested.config.column_overrides)


def _watched(world: World, request: Any, responses: list[Any]) -> None:
    numbers = [event.sequence for event in responses]
    first = request.after_sequence + 1
    assert numbers == list(range(first, first + len(numbers)))


def _set_alias(world: World, request: Any, responses: list[Any]) -> None:
    (made,) = responses
    if request.HasField("version"):
        unset = model_admin_service_pb2.SetModelAliasRequest(model=request.model, alias=request.alias)
        world.send("ModelAdminService.SetModelAlias", unset)
    assert made.name == request.model
    assert made.aliases.get(request.alias, 0) == request.version


def _deleted_version(world: World, request: Any, responses: list[Any]) -> None:
    undelete = model_admin_service_pb2.UndeleteModelVersionRequest(name=request.name)
    read = model_service_pb2.GetModelVersionRequest(name=request.name)
    refusal = refused(lambda: world.send("ModelService.GetModelVersion", read))
    found = world.send("ModelAdminService.UndeleteModelVersion", undelete)
    assert refusal.reason == Reason.RESOURCE_NOT_FOUND
    assert found.name == request.name


def _read_version(_: World, request: Any, responses: list[Any]) -> None:
    (found,) = responses
    assert found.name.partition("/versions")[0] == re.split("@|/versions", request.name)[0]
    assert hashlib.sha256(found.manifest_json.encode()).digest() == found.manifest_digest


def _header(request: Sample, header: Any) -> None:
    stop = request.end_row if request.HasField("end_row") else request.rows
    assert (header.rows, header.start_row, header.end_row) == (request.rows, request.start_row, stop)
    assert header.seed == request.seed or not request.HasField("seed")
    assert header.model_version.partition("/versions")[0] == re.split("@|/versions", request.model)[0]
    assert [column.name for column in header.schema.columns] == list(request.columns or SCHEMA.names)


def _sampled(_: World, request: Sample, responses: list[Any]) -> None:
    first, *rest = responses
    _header(request, first.header)
    row, data, made = first.header.start_row, b"", 0
    ended = bool(rest) and rest[-1].WhichOneof("message") == "summary"
    for part in (response.data for response in (rest[:-1] if ended else rest)):
        assert (part.first_row, part.crc32c) == (row, crc(part.data))
        row += part.row_count
        made += part.row_count - sum(gap.end_row - gap.start_row for gap in part.missing)
        assert request.allow_partial or not part.missing
        assert all(len(batch.columns) == len(first.header.schema.columns) for batch in part.batches)
        data += part.data
    if ended:
        summary = rest[-1].summary
        assert (summary.complete, summary.rows_delivered) == (True, made)
        assert summary.distinct_candidates <= made <= summary.distinct_candidates * summary.rows_per_candidate
        assert summary.rows_per_candidate <= first.header.rows_per_candidate <= max(request.max_reuse, 1)
        assert summary.distinct_candidates <= first.header.distinct_candidates
        assert row == first.header.end_row or request.allow_partial
    if request.format == sampling_pb2.ROW_FORMAT_NDJSON:
        rows = [json.loads(line) for line in data.splitlines()]
        assert len(rows) == made
        assert all(_holds(predicate, found) for predicate in request.where.predicates for found in rows)
    if request.format <= sampling_pb2.ROW_FORMAT_ARROW_STREAM and request.framing <= sampling_pb2.FRAMING_FILE:
        assert not data or pa.ipc.open_stream(data).read_all().num_rows == made


def _holds(predicate: condition_pb2.Predicate, row: dict[str, Any]) -> bool:
    """Say whether a row is as it was requested, where that is plain: of texts, whole numbers and truth values."""
    if predicate.column not in row or predicate.column not in ("city", "grade", "flag", "age"):
        return True
    cell, test = row[predicate.column], predicate.WhichOneof("test")
    if test == "is_null":
        return (cell is None) is predicate.is_null
    if test == "range":
        low, high = (_cell(getattr(predicate.range, name), end) for name, end in (("minimum", -1e9), ("maximum", 1e9)))
        return low <= cell <= high
    values = [predicate.equals] if test == "equals" else predicate.any_of.values
    return any(_same(cell, value) for value in values)


def _cell(value: Value, default: float) -> float:
    kind = value.WhichOneof("kind")
    return default if kind is None else float(getattr(value, kind))


def _same(cell: Any, value: Value) -> bool:
    kind = value.WhichOneof("kind")
    if kind == "null_value":
        return cell is None
    sent = getattr(value, kind)
    return float(sent) == cell if kind == "decimal_value" else sent == cell


def _planned(_: World, request: Any, responses: list[Any]) -> None:
    (plan,) = responses
    _header(request.sample, plan.header)
    edges = [plan.header.start_row, *(part.end_row for part in plan.ranges)]
    assert [part.start_row for part in plan.ranges] == edges[:-1]
    assert edges[-1] == plan.header.end_row
    assert 1 <= len(plan.ranges) <= (request.parts if request.HasField("parts") else 1)
    whole = [] if request.ranges_only else [(part.start_row, part.end_row) for part in plan.ranges]
    assert [(part.start_row, part.end_row) for part in plan.parts] == whole
    assert all(part.expected_plan_digest == plan.header.plan_digest for part in plan.parts)
    assert 0 <= plan.acceptance <= 1


def _counted(_: World, request: Any, responses: list[Any]) -> None:
    (response,) = responses
    model = request.name.partition("@")[0].partition("/versions/")[0]
    for one in response.model_versions:
        assert one.model_version.startswith(f"{model}/versions/")
        ended = one.streams_ended
        done = ended.complete + ended.drained + ended.max_duration + ended.cancelled + ended.refused + ended.failed
        assert 0 <= done <= one.streams_begun
        assert 0 <= one.accepted <= one.candidates
        assert one.loaded == (one.loaded_bytes > 0)
    assert response.HasField("start_time")


def _completed(_: World, request: Complete, responses: list[Any]) -> None:
    first, *rest = responses
    config = request if request.WhichOneof("message") == "config" else CONFIG
    sent = request if request.WhichOneof("message") == "rows" else ROWS
    names = [column.name for column in first.header.schema.columns]
    assert names == list(SCHEMA.names)
    assert first.header.start_row == config.config.start_row
    done = [row for response in rest for row in response.rows.rows]
    assert [row.row for row in done] == [first.header.start_row + index for index in range(len(done))]
    for row, known in zip(done, sent.rows.rows, strict=False):
        assert len(row.values) == len(names)
        assert all(row.values[names.index(name)] == value for name, value in known.known.items())
        assert row.support in sampling_pb2.CompletionSupport.values()[1:]
        unsupported = row.support == sampling_pb2.COMPLETION_SUPPORT_UNSUPPORTED
        assert (row.effective_sample_size == 0) == unsupported
    if rest and rest[-1].WhichOneof("message") == "summary":
        assert rest[-1].summary.complete
        assert len(done) == len(sent.rows.rows)
        assert (len(done) > 0) == (rest[-1].summary.distinct_candidates > 0)


def _scored(_: World, request: Score, responses: list[Any]) -> None:
    first, *rest = responses
    config = request if request.WhichOneof("message") == "config" else SCORE_CONFIG
    sent = request if request.WhichOneof("message") == "rows" else SCORED_ROWS
    assert first.header.start_row == config.config.start_row
    scores = [score for response in rest for score in response.rows.scores]
    assert [score.row for score in scores] == [first.header.start_row + index for index in range(len(scores))]
    assert all(math.isfinite(score.log_probability) for score in scores)
    assert not any(score.log_probability for score in scores if score.impossible)
    if rest and rest[-1].WhichOneof("message") == "summary":
        assert rest[-1].summary.complete
        assert len(scores) == len(sent.rows.rows)


ANSWERS: dict[str, Callable[[World, Any, list[Any]], None]] = {
    "DatasetService.CreateDataset": _created_dataset,
    "DatasetService.WriteDataset": _written,
    "DatasetService.GetDataset": _same_name,
    "DatasetService.ListDatasets": _page,
    "DatasetService.DeleteDataset": _deleted_dataset,
    "TrainingService.CreateTrainingJob": _created_job,
    "TrainingService.GetTrainingJob": _same_name,
    "TrainingService.ListTrainingJobs": _page,
    "TrainingService.CancelTrainingJob": _same_name,
    "TrainingService.WatchTrainingJob": _watched,
    "ModelAdminService.PromoteModelVersion": _same_name,
    "ModelAdminService.RejectModelVersion": _same_name,
    "ModelAdminService.SetModelAlias": _set_alias,
    "ModelAdminService.DeleteModelVersion": _deleted_version,
    "ModelAdminService.UndeleteModelVersion": _same_name,
    "ModelAdminService.SignModelVersion": _same_name,
    "ModelService.GetModel": _same_name,
    "ModelService.ListModels": _page,
    "ModelService.GetModelVersion": _read_version,
    "ModelService.ListModelVersions": _page,
    "SamplingService.Sample": _sampled,
    "SamplingService.CompleteRows": _completed,
    "SamplingService.ScoreRows": _scored,
    "SamplingService.PlanSample": _planned,
    "SamplingService.GetModelStatistics": _counted,
}
