"""Converters between `rowmint.v1` and the sampler's own values. Pure."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import google_crc32c
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from rowmint.errors import FieldViolation, InvalidFieldError, LimitError, RowmintError
from rowmint.names import ModelVersionRef
from rowmint.rpc.converters import schema_to_proto
from rowmint.rpc.predicates import predicates_from_proto, weights_from_proto
from rowmint.sampling.formats import RowFormat, TypedBatch
from rowmint.sampling.formats.columns import TypedColumn, ValueKind
from rowmint.sampling.messages import RowsMessage, StreamHeader, StreamSummary
from rowmint.sampling.parts import PlannedPart, PlannedSample
from rowmint.sampling.scoring import ScoredRow
from rowmint.v1 import sampling_pb2, statistics_pb2
from sampler_service.converters.sent_cells import SentRows
from sampler_service.requests import CompletionRequest, Received, SampleRequest, ScoringRequest
from sampler_service.row_sessions import AnsweredRows, RowEvent
from sampler_service.sessions import SampleEvent
from sampler_service.statistics import VersionStatistics

MAX_PARTIAL_ROWS = 10_000
"""Rows of one message that a caller sends rows in."""

_FORMATS = {
    sampling_pb2.ROW_FORMAT_UNSPECIFIED: RowFormat.ARROW_STREAM,
    sampling_pb2.ROW_FORMAT_ARROW_STREAM: RowFormat.ARROW_STREAM,
    sampling_pb2.ROW_FORMAT_CSV: RowFormat.CSV,
    sampling_pb2.ROW_FORMAT_NDJSON: RowFormat.NDJSON,
    sampling_pb2.ROW_FORMAT_COLUMNS: RowFormat.COLUMNS,
}
_CONTINUED = {
    sampling_pb2.FRAMING_UNSPECIFIED: False,
    sampling_pb2.FRAMING_FILE: False,
    sampling_pb2.FRAMING_CONTINUE: True,
    sampling_pb2.FRAMING_RESUME: False,
}


def _given(message: Message, **fields: str) -> dict[str, object]:
    """Return the `optional` fields that are set, under the names they have here; unset ones keep their defaults."""
    return {ours: getattr(message, theirs) for ours, theirs in fields.items() if message.HasField(theirs)}


@contextmanager
def within_sample() -> Iterator[None]:
    """Let errors name fields of a `SampleRequest` as fields of the message that holds it in its field `sample`."""
    try:
        yield
    except RowmintError as error:
        own = sampling_pb2.SampleRequest.DESCRIPTOR.fields_by_name
        if any(re.split(r"[.\[]", violation.field)[0] in own for violation in error.violations):
            error.message = f"sample.{error.message}"
            error.violations = tuple(
                FieldViolation(f"sample.{violation.field}", violation.description) for violation in error.violations
            )
        raise


def sample_request(request: sampling_pb2.SampleRequest, field: str = "") -> SampleRequest:
    """Return the request for a stream.

    Raises:
        InvalidFieldError: A field is malformed; the error names a path under `field`, which is empty or ends in a dot.
    """
    if request.format not in _FORMATS:
        raise InvalidFieldError(f"{field}format", f"{request.format} is not a RowFormat")
    if request.framing not in _CONTINUED:
        raise InvalidFieldError(f"{field}framing", f"{request.framing} is not a Framing")
    if (request.framing == sampling_pb2.FRAMING_RESUME) != request.HasField("received_bytes"):
        raise InvalidFieldError(f"{field}received_bytes", "is required with FRAMING_RESUME, and with that only")
    given = _given(
        request,
        received_bytes="received_bytes",
        start_row="start_row",
        end_row="end_row",
        seed="seed",
        allow_partial="allow_partial",
        message_bytes="message_bytes",
        escape_formulas="csv_escape_formulas",
        max_reuse="max_reuse",
    )
    return SampleRequest(
        model=ModelVersionRef.parse(request.model, f"{field}model"),
        rows=request.rows,
        where=tuple(predicates_from_proto(request.where, f"{field}where")),
        weights=weights_from_proto(request.where, f"{field}where"),
        columns=tuple(request.columns),
        row_format=_FORMATS[request.format],
        continued=_CONTINUED[request.framing],
        expected_model_digest=request.expected_model_digest,
        expected_plan_digest=request.expected_plan_digest,
        **given,  # type: ignore[arg-type] # each has the type of its field
    )


def received_sample(request: sampling_pb2.SampleRequest) -> Received[SampleRequest]:
    """Return the request for a stream, its model read already.

    Raises:
        InvalidFieldError: The model's name is malformed.
    """
    model = ModelVersionRef.parse(request.model, "model")
    return Received(model, request.ByteSize(), lambda: sample_request(request))


def received_plan(request: sampling_pb2.PlanSampleRequest) -> Received[tuple[SampleRequest, int]]:
    """Return the stream that is to be planned, its model read already, and the number of its parts.

    Raises:
        InvalidFieldError: The model's name is malformed.
    """
    parts = request.parts if request.HasField("parts") else 1
    model = ModelVersionRef.parse(request.sample.model, "sample.model")
    return Received(model, request.ByteSize(), lambda: (sample_request(request.sample, "sample."), parts))


def sample_response(event: SampleEvent) -> sampling_pb2.SampleResponse:
    """Return the message of what a stream of sampled rows consists of."""
    match event:
        case StreamHeader():
            return sampling_pb2.SampleResponse(header=header_to_proto(event))
        case RowsMessage():
            return sampling_pb2.SampleResponse(data=rows_to_proto(event))
        case StreamSummary():
            return sampling_pb2.SampleResponse(summary=summary_to_proto(event))


def header_to_proto(header: StreamHeader) -> sampling_pb2.SampleHeader:
    """Return the message of a header."""
    return sampling_pb2.SampleHeader(
        model_version=header.model_version,
        model_digest=header.model_digest,
        plan_digest=header.plan_digest,
        seed=header.seed,
        grid=header.grid,
        rows=header.rows,
        start_row=header.start_row,
        end_row=header.end_row,
        schema=schema_to_proto(header.schema),
        categories=[sampling_pb2.CategoryList(values=texts) for texts in header.categories or ()],
        rows_per_candidate=header.rows_per_candidate,
        distinct_candidates=header.distinct_candidates,
    )


def rows_to_proto(message: RowsMessage) -> sampling_pb2.SampleData:
    """Return the message of some rows."""
    return sampling_pb2.SampleData(
        first_row=message.first_row,
        row_count=message.row_count,
        data=message.data,
        crc32c=google_crc32c.value(message.data),
        batches=[_batch(batch) for batch in message.batches],
        missing=[sampling_pb2.RowRange(start_row=start, end_row=stop) for start, stop in message.missing],
    )


def _batch(batch: TypedBatch) -> sampling_pb2.ColumnBatch:
    return sampling_pb2.ColumnBatch(
        first_row=batch.first_row, row_count=batch.rows, columns=[_values(column) for column in batch.columns]
    )


def _values(column: TypedColumn) -> sampling_pb2.ColumnValues:
    validity, values = column.validity, column.values
    match column.kind:
        case ValueKind.INT64S:
            return sampling_pb2.ColumnValues(validity=validity, int64s=sampling_pb2.Int64Array(values=values))
        case ValueKind.DOUBLES:
            return sampling_pb2.ColumnValues(validity=validity, doubles=sampling_pb2.DoubleArray(values=values))
        case ValueKind.BOOLS:
            return sampling_pb2.ColumnValues(validity=validity, bools=sampling_pb2.BoolArray(values=values))
        case ValueKind.STRINGS:
            return sampling_pb2.ColumnValues(validity=validity, strings=sampling_pb2.StringArray(values=values))
        case ValueKind.INDICES:
            return sampling_pb2.ColumnValues(validity=validity, indices=sampling_pb2.IndexArray(values=values))


def summary_to_proto(summary: StreamSummary) -> sampling_pb2.SampleSummary:
    """Return the message of a stream's summary."""
    return sampling_pb2.SampleSummary(
        candidates=summary.candidates,
        accepted=summary.accepted,
        rows_delivered=summary.rows_delivered,
        complete=summary.complete,
        next_row=summary.next_row,
        distinct_candidates=summary.distinct_candidates,
        rows_per_candidate=summary.rows_per_candidate,
    )


def plan_response(
    planned: PlannedSample, request: sampling_pb2.PlanSampleRequest, max_bytes: int
) -> sampling_pb2.PlanSampleResponse:
    """Return the message of a planned stream.

    Its parts are the request's stream, pinned and cut; each is as large as that, so they are bounded together.

    Args:
        planned: The plan.
        request: What was requested.
        max_bytes: Bytes that the requests of the parts may have together.

    Raises:
        LimitError: They have more, and were requested.
    """
    plan, header = planned.plan, planned.header
    parts: list[sampling_pb2.SampleRequest] = []
    if not request.ranges_only:
        first = _part(planned.parts[0], header, request.sample)
        if first.ByteSize() * len(planned.parts) > max_bytes:
            raise LimitError(
                f"parts: {len(planned.parts)} requests of {first.ByteSize()} bytes are more than this sampler answers"
                f" with ({max_bytes} bytes); set ranges_only, request fewer parts, or raise ROWMINT_MAX_PLAN_BYTES",
                metadata={"limit": str(max_bytes), "setting": "ROWMINT_MAX_PLAN_BYTES"},
            )
        parts = [first, *(_part(part, header, request.sample) for part in planned.parts[1:])]
    return sampling_pb2.PlanSampleResponse(
        condition_probability=plan.probability,
        header=header_to_proto(header),
        parts=parts,
        ranges=[sampling_pb2.RowRange(start_row=part.start_row, end_row=part.end_row) for part in planned.parts],
        acceptance=plan.acceptance,
        conditioned_column=planned.conditioned_column,
        tile_size=plan.tile_size,
        block_size=plan.block_size,
        tile_budget=plan.tile_budget,
    )


def _part(part: PlannedPart, header: StreamHeader, request: sampling_pb2.SampleRequest) -> sampling_pb2.SampleRequest:
    pinned = sampling_pb2.SampleRequest()
    pinned.CopyFrom(request)
    pinned.model = header.model_version
    pinned.seed = header.seed
    pinned.start_row = part.start_row
    pinned.end_row = part.end_row
    if part.continued:
        pinned.framing = sampling_pb2.FRAMING_CONTINUE
        pinned.ClearField("received_bytes")
    elif pinned.framing == sampling_pb2.FRAMING_UNSPECIFIED:
        pinned.framing = sampling_pb2.FRAMING_FILE
    pinned.expected_model_digest = header.model_digest
    pinned.expected_plan_digest = header.plan_digest
    return pinned


def statistics_response(
    replica: str, started_at: float, found: Iterable[VersionStatistics]
) -> statistics_pb2.GetModelStatisticsResponse:
    """Return the message of what a replica has done since it started, seconds since 1970, by version."""
    return statistics_pb2.GetModelStatisticsResponse(
        replica=replica,
        start_time=instant(started_at),
        model_versions=[statistics_to_proto(one) for one in found],
    )


def statistics_to_proto(found: VersionStatistics) -> statistics_pb2.ModelVersionStatistics:
    """Return the message of what was done for a version."""
    return statistics_pb2.ModelVersionStatistics(
        model_version=str(found.name),
        streams_begun=found.begun,
        streams_ended=statistics_pb2.StreamOutcomes(**found.ended),
        rows=found.rows,
        candidates=found.candidates,
        accepted=found.accepted,
        blocks=found.blocks,
        block_seconds=found.block_seconds,
        first_row_seconds=statistics_pb2.SecondsSummary(
            count=found.first_rows, sum=found.first_row_seconds, max=found.slowest_first_row
        ),
        last_served_time=None if found.served_at is None else instant(found.served_at),
        loaded=found.loaded_bytes > 0,
        loaded_bytes=found.loaded_bytes,
    )


def instant(seconds: float) -> Timestamp:
    """Return the message of an instant, seconds since 1970."""
    return Timestamp(seconds=int(seconds // 1), nanos=int(seconds % 1 * 1_000_000) * 1_000)


def completion_request(request: sampling_pb2.CompleteRowsRequest) -> CompletionRequest:
    """Return the completion that the first message of a stream requests.

    Raises:
        InvalidFieldError: It is not a config, or a field of it is malformed.
    """
    if request.WhichOneof("message") != "config":
        raise InvalidFieldError("config", "is required in the first message")
    config = request.config
    given = _given(config, seed="seed", start_row="start_row", tolerance="tolerance", candidates="candidates")
    model = ModelVersionRef.parse(config.model, "config.model")
    return CompletionRequest(
        model=model,
        expected_model_digest=config.expected_model_digest,
        expected_plan_digest=config.expected_plan_digest,
        **given,  # type: ignore[arg-type] # each has the type of its field
    )


def scoring_request(request: sampling_pb2.ScoreRowsRequest) -> ScoringRequest:
    """Return the scoring that the first message of a stream requests.

    Raises:
        InvalidFieldError: It is not a config, or the model's name is malformed.
    """
    if request.WhichOneof("message") != "config":
        raise InvalidFieldError("config", "is required in the first message")
    config = request.config
    return ScoringRequest(
        model=ModelVersionRef.parse(config.model, "config.model"),
        expected_model_digest=config.expected_model_digest,
        start_row=config.start_row,
    )


def partial_rows(
    request: sampling_pb2.CompleteRowsRequest | sampling_pb2.ScoreRowsRequest,
) -> Sequence[sampling_pb2.PartialRow]:
    """Return the rows of a message after the first.

    Raises:
        InvalidFieldError: It holds none, or too many.
    """
    if request.WhichOneof("message") != "rows":
        raise InvalidFieldError("rows", "is required in every message but the first")
    rows = request.rows.rows
    if len(rows) > MAX_PARTIAL_ROWS:
        raise InvalidFieldError("rows.rows", f"has {len(rows)} entries; at most {MAX_PARTIAL_ROWS}")
    return rows


def scoring_responses(
    event: RowEvent[ScoredRow, SentRows],
) -> Iterator[sampling_pb2.ScoreRowsResponse]:
    """Yield the message of what a stream of scores consists of."""
    match event:
        case StreamHeader():
            yield sampling_pb2.ScoreRowsResponse(header=header_to_proto(event))
        case AnsweredRows():
            scores = [
                sampling_pb2.RowScore(row=one.row, log_probability=one.log_probability, impossible=one.impossible)
                for one in event.rows
            ]
            yield sampling_pb2.ScoreRowsResponse(rows=sampling_pb2.ScoredRows(scores=scores))
        case StreamSummary():
            yield sampling_pb2.ScoreRowsResponse(summary=summary_to_proto(event))
