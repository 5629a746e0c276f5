"""Converters: unset means the default, an explicit 0 is a value, everything malformed names its field."""

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowmint.errors import InvalidFieldError
from rowmint.names import ModelName, ModelVersionRef
from rowmint.sampling.completion import CompletedRow
from rowmint.sampling.formats import RowFormat, TypedBatch
from rowmint.sampling.formats.columns import TypedColumn, ValueKind
from rowmint.sampling.messages import RowsMessage, StreamSummary
from rowmint.synthesizer import CompletionSupport
from rowmint.v1 import condition_pb2, sampling_pb2, value_pb2
from sampler_service import converters
from sampler_service.converters.completed_rows import CompletedRows
from sampler_service.converters.sent_cells import SentCells
from sampler_service.requests import CompletionRequest, SampleRequest
from sampler_service.row_sessions import AnsweredRows

MODEL = "projects/p/models/m"
REF = ModelVersionRef(ModelName("p", "m"), alias="latest")


def test_unset_is_the_default():
    request = sampling_pb2.SampleRequest(model=MODEL, rows=5)
    assert converters.sample_request(request) == SampleRequest(5, model=REF)


def test_an_explicit_zero_is_a_value():
    request = sampling_pb2.SampleRequest(
        model=MODEL, rows=0, start_row=0, end_row=0, seed=0, message_bytes=0, allow_partial=False, max_reuse=0
    )
    found = converters.sample_request(request)
    assert (found.rows, found.end_row, found.seed, found.message_bytes, found.max_reuse) == (0, 0, 0, 0, 0)


@given(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 2**64 - 1),
    st.sampled_from(list(RowFormat)),
    st.booleans(),
)
def test_every_field_arrives(rows, start, seed, row_format, flag):
    request = sampling_pb2.SampleRequest(
        model=f"{MODEL}/versions/3",
        rows=rows,
        start_row=start,
        end_row=start,
        columns=["b", "a"],
        seed=seed,
        format=getattr(sampling_pb2, f"ROW_FORMAT_{row_format.upper()}"),
        framing=sampling_pb2.FRAMING_CONTINUE if flag else sampling_pb2.FRAMING_FILE,
        allow_partial=flag,
        message_bytes=20_000,
        expected_model_digest=b"m",
        expected_plan_digest=b"p",
        csv_escape_formulas=flag,
        max_reuse=16,
    )
    assert converters.sample_request(request) == SampleRequest(
        rows,
        start,
        start_row=start,
        model=ModelVersionRef(ModelName("p", "m"), version=3),
        columns=("b", "a"),
        seed=seed,
        row_format=row_format,
        continued=flag,
        allow_partial=flag,
        message_bytes=20_000,
        expected_model_digest=b"m",
        expected_plan_digest=b"p",
        escape_formulas=flag,
        max_reuse=16,
    )


@given(st.integers(-(2**63), 2**63 - 1))
def test_bytes_received_arrive(count):
    request = sampling_pb2.SampleRequest(model=MODEL, rows=5, framing=sampling_pb2.FRAMING_RESUME, received_bytes=count)
    assert converters.sample_request(request) == SampleRequest(5, model=REF, received_bytes=count)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model": ""}, "model"),
        ({"model": "m"}, "model"),
        ({"format": 99}, "format"),
        ({"framing": 99}, "framing"),
        ({"framing": sampling_pb2.FRAMING_RESUME}, "received_bytes"),
        ({"framing": sampling_pb2.FRAMING_CONTINUE, "start_row": 64, "received_bytes": 5}, "received_bytes"),
        ({"received_bytes": 0}, "received_bytes"),
        ({"where": condition_pb2.Where(predicates=[condition_pb2.Predicate(column="a")])}, "where.predicates[0]"),
    ],
)
def test_a_malformed_field_is_named(change, field):
    request = sampling_pb2.SampleRequest(**{"model": MODEL, "rows": 5, **change})
    for prefix in ("", "sample."):
        with pytest.raises(InvalidFieldError) as error:
            converters.sample_request(request, prefix)
        assert error.value.violations[0].field.startswith(prefix + field)


def test_rows_carry_their_checksum():
    message = RowsMessage(5, 7, b"abc", (), ((6, 8), (9, 12)))
    data = converters.rows_to_proto(message)
    assert (data.first_row, data.row_count, data.data) == (5, 7, b"abc")
    assert data.crc32c == google_crc32c.value(b"abc")
    assert [(span.start_row, span.end_row) for span in data.missing] == [(6, 8), (9, 12)]


def test_typed_columns_become_typed_lists():
    columns = (
        TypedColumn(ValueKind.INT64S, [-(2**63), 2**63 - 1], b""),
        TypedColumn(ValueKind.DOUBLES, [0.1, -0.0], b""),
        TypedColumn(ValueKind.BOOLS, [True, False], b"\1"),
        TypedColumn(ValueKind.STRINGS, ["ä", ""], b""),
        TypedColumn(ValueKind.INDICES, [0, 2**31], b"\2"),
    )
    message = RowsMessage(0, 2, b"", (TypedBatch(0, 2, columns),))
    (batch,) = converters.rows_to_proto(message).batches
    assert (batch.first_row, batch.row_count) == (0, 2)
    for column, sent in zip(columns, batch.columns, strict=True):
        assert sent.WhichOneof("values") == column.kind
        assert list(getattr(sent, column.kind).values) == column.values
        assert sent.validity == column.validity


def test_a_summary_says_that_the_stream_is_complete():
    found = converters.summary_to_proto(
        StreamSummary(10, 5, 4, complete=True, next_row=9, distinct_candidates=3, rows_per_candidate=2)
    )
    assert found == sampling_pb2.SampleSummary(
        candidates=10,
        accepted=5,
        rows_delivered=4,
        complete=True,
        next_row=9,
        distinct_candidates=3,
        rows_per_candidate=2,
    )


def completed(row, text):
    return CompletedRow(row, {"text": text}, 3.0, 0.1, CompletionSupport.MATCHED)


def unknown(count):
    """Return rows of which nothing was known."""
    return SentCells().read([sampling_pb2.PartialRow()] * count, 0)


def test_completed_rows_come_in_messages_of_a_mebibyte():
    sizes = [1, 600_000, 500_000, 400_000, 2_000_000, 1]
    rows = [completed(index, "x" * size) for index, size in enumerate(sizes)]
    messages = list(CompletedRows().responses(AnsweredRows(rows, unknown(len(rows)))))
    assert [[row.row for row in message.rows.rows] for message in messages] == [[0, 1], [2, 3], [4], [5]]
    joined = [row for message in messages for row in message.rows.rows]
    assert [(row.values[0].string_value, row.effective_sample_size, row.tolerance) for row in joined] == [
        ("x" * size, 3.0, 0.1) for size in sizes
    ]
    assert list(CompletedRows().responses(AnsweredRows([], unknown(0)))) == []


@pytest.mark.parametrize("support", CompletionSupport)
def test_the_support_of_a_row_is_reported(support):
    row = CompletedRow(3, {"text": "x"}, 0.0, 25.6, support)
    (response,) = CompletedRows().responses(AnsweredRows([row], unknown(1)))
    (made,) = response.rows.rows
    assert sampling_pb2.CompletionSupport.Name(made.support) == f"COMPLETION_SUPPORT_{support.upper()}"


def test_the_first_message_of_a_completion_is_its_config():
    config = sampling_pb2.CompleteRowsConfig(model=MODEL)
    request = sampling_pb2.CompleteRowsRequest(config=config)
    assert converters.completion_request(request) == CompletionRequest(model=REF)
    request.config.tolerance = 0.0
    request.config.candidates = 0
    request.config.start_row = 0
    request.config.seed = 0
    assert converters.completion_request(request) == CompletionRequest(
        model=REF, seed=0, start_row=0, tolerance=0.0, candidates=0
    )
    request.config.expected_model_digest, request.config.expected_plan_digest = b"m", b"p"
    found = converters.completion_request(request)
    assert (found.expected_model_digest, found.expected_plan_digest) == (b"m", b"p")
    with pytest.raises(InvalidFieldError, match="rows"):
        converters.partial_rows(request)
    rows = sampling_pb2.CompleteRowsRequest(rows=sampling_pb2.PartialRows())
    with pytest.raises(InvalidFieldError, match="config"):
        converters.completion_request(rows)
    assert list(converters.partial_rows(rows)) == []


def test_too_many_partial_rows():
    rows = sampling_pb2.PartialRows(rows=[sampling_pb2.PartialRow()] * 10_001)
    with pytest.raises(InvalidFieldError, match="10001"):
        converters.partial_rows(sampling_pb2.CompleteRowsRequest(rows=rows))


def test_a_malformed_known_value_names_row_and_column():
    row = sampling_pb2.PartialRow(known={"day": value_pb2.Value(date_value="2020-13-01")})
    with pytest.raises(InvalidFieldError, match=r"rows\[7\].known\['day'\]"):
        SentCells().read([row], 7)
