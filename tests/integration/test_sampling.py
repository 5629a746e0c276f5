"""The sampler over real gRPC: two replicas, one registry and one store, a stub-only client."""

import itertools
import struct
import threading
from contextlib import ExitStack

import google_crc32c
import grpc
import pyarrow as pa
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from rowmint.v1 import condition_pb2, model_service_pb2, model_service_pb2_grpc, sampling_pb2, value_pb2
from rowmint.v1.sampling_service_pb2_grpc import SamplingServiceStub
from tests.faults.golden_home import publish_golden
from tests.golden.make import FAMILIES, SCHEMA
from tests.golden.streams import PROJECT
from tests.integration.served_replica import replica
from tests.waiting import wait_until

GRID = 2048
ROWS = 9000


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    publish_golden(folder)
    return folder


@pytest.fixture(scope="module")
def stubs(home):
    """Two replicas, one on each kernel."""
    with ExitStack() as stack:
        made = []
        for kernel in ("numpy", "onnxruntime"):
            address, _ = stack.enter_context(replica(home, kernel))
            made.append(SamplingServiceStub(stack.enter_context(grpc.insecure_channel(address))))
        yield made


def request(**more) -> sampling_pb2.SampleRequest:
    return sampling_pb2.SampleRequest(**{"model": f"projects/{PROJECT}/models/ctgan", "rows": ROWS, "seed": 7, **more})


def sampled(stub, requested):
    """Return header, data messages and summary, checking their order and sums."""
    responses = list(stub.Sample(requested, timeout=60))
    kinds = [response.WhichOneof("message") for response in responses]
    assert kinds == ["header", *["data"] * (len(kinds) - 2), "summary"]
    header, data, summary = responses[0].header, [response.data for response in responses[1:-1]], responses[-1].summary
    following = header.start_row
    for message in data:
        assert message.crc32c == google_crc32c.value(message.data)
        assert message.first_row == following
        following += message.row_count
    assert following == header.end_row == summary.next_row
    assert summary.complete
    return header, data, summary


def joined(*streams) -> bytes:
    return b"".join(
        message.data + b"".join(batch.SerializeToString(deterministic=True) for batch in message.batches)
        for data in streams
        for message in data
    )


WHERE = condition_pb2.Where(
    predicates=[
        condition_pb2.Predicate(column="city", equals=value_pb2.Value(string_value="Zürich")),
        condition_pb2.Predicate(
            column="age",
            range=condition_pb2.ValueRange(minimum=value_pb2.Value(int64_value=20), minimum_exclusive=True),
        ),
    ]
)
FORMATS = [
    sampling_pb2.ROW_FORMAT_ARROW_STREAM,
    sampling_pb2.ROW_FORMAT_CSV,
    sampling_pb2.ROW_FORMAT_NDJSON,
    sampling_pb2.ROW_FORMAT_COLUMNS,
]


@pytest.mark.parametrize("row_format", FORMATS)
def test_two_replicas_share_a_stream(stubs, row_format):
    one, other = stubs
    requested = request(where=WHERE, format=row_format)
    header, whole, _ = sampled(one, requested)
    assert joined(sampled(other, requested)[1]) == joined(whole)
    # Ended after 4,096 rows, resumed at the other replica.
    first = request(where=WHERE, format=row_format, end_row=2 * GRID)
    rest = request(
        where=WHERE,
        format=row_format,
        start_row=2 * GRID,
        framing=sampling_pb2.FRAMING_CONTINUE,
        expected_model_digest=header.model_digest,
        expected_plan_digest=header.plan_digest,
    )
    assert joined(sampled(one, first)[1], sampled(other, rest)[1]) == joined(whole)
    planned = one.PlanSample(sampling_pb2.PlanSampleRequest(sample=requested, parts=3))
    assert planned.header == header
    assert planned.conditioned_column == "city"
    assert 0 < planned.acceptance < 1
    assert not planned.HasField("condition_probability")
    assert [part.model for part in planned.parts] == [header.model_version] * 3
    parts = [sampled(stub, part)[1] for stub, part in zip([other, one, other], planned.parts, strict=True)]
    assert joined(*parts) == joined(whole)


def test_the_rows_satisfy_the_request(stubs):
    header, data, summary = sampled(stubs[0], request(where=WHERE, columns=["age", "city", "id"]))
    table = pa.ipc.open_stream(joined(data)).read_all()
    assert table.schema.names == ["age", "city", "id"] == [column.name for column in header.schema.columns]
    assert table.num_rows == ROWS == summary.rows_delivered
    assert set(table["city"].to_pylist()) == {"Zürich"}
    assert min(table["age"].to_pylist()) > 20
    assert len(set(table["id"].to_pylist())) == ROWS
    assert summary.candidates > summary.accepted >= ROWS
    assert header.schema.primary_key == "id"


def test_typed_columns_carry_their_categories(stubs):
    header, data, _ = sampled(stubs[0], request(format=sampling_pb2.ROW_FORMAT_COLUMNS, rows=100))
    lists = {
        column.name: list(texts.values) for column, texts in zip(header.schema.columns, header.categories, strict=True)
    }
    assert {name for name, texts in lists.items() if texts} == {"city"}
    (batch,) = data[0].batches
    city = SCHEMA.names.index("city")
    assert max(batch.columns[city].indices.values) < len(lists["city"])
    assert data[0].data == b""


@pytest.mark.parametrize("name", ["ctgan", "ctgan@latest", "ctgan/versions/1"])
def test_a_version_is_found_by_any_name(stubs, name):
    header, _, _ = sampled(stubs[0], request(model=f"projects/{PROJECT}/models/{name}", rows=10))
    assert header.model_version == f"projects/{PROJECT}/models/ctgan/versions/1"
    digest = f"projects/{PROJECT}/models/ctgan@sha256:{header.model_digest.hex()}"
    assert sampled(stubs[1], request(model=digest, rows=10))[0] == header


def test_a_seed_is_drawn_and_reported(stubs):
    requested = request(rows=10)
    requested.ClearField("seed")
    assert sampled(stubs[0], requested)[0].seed == 99


def failure(call) -> tuple[grpc.StatusCode, ErrorInfo, list[str]]:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    status = rpc_status.from_call(raised.value)
    info, fields = ErrorInfo(), []
    for detail in status.details:
        bad = BadRequest()
        if detail.Unpack(bad):
            fields += [violation.field for violation in bad.field_violations]
        detail.Unpack(info)
    assert info.domain == "rowmint"
    return raised.value.code(), info, fields


def equals(column, **value):
    return condition_pb2.Predicate(column=column, equals=value_pb2.Value(**value))


@pytest.mark.parametrize(
    ("change", "code", "reason", "fields"),
    [
        ({"rows": 0}, "INVALID_ARGUMENT", "INVALID_FIELD", ["rows"]),
        ({"model": "x"}, "INVALID_ARGUMENT", "INVALID_FIELD", ["model"]),
        ({"model": f"projects/{PROJECT}/models/missing"}, "NOT_FOUND", "RESOURCE_NOT_FOUND", []),
        ({"model": f"projects/{PROJECT}/models/ctgan@best"}, "NOT_FOUND", "RESOURCE_NOT_FOUND", []),
        ({"start_row": -1}, "OUT_OF_RANGE", "ROW_RANGE", ["start_row"]),
        ({"end_row": ROWS + 1}, "OUT_OF_RANGE", "ROW_RANGE", ["end_row"]),
        ({"start_row": 5, "framing": "FRAMING_CONTINUE"}, "OUT_OF_RANGE", "ROW_RANGE", ["start_row"]),
        ({"framing": "FRAMING_CONTINUE"}, "OUT_OF_RANGE", "ROW_RANGE", ["start_row"]),
        ({"framing": "FRAMING_RESUME"}, "INVALID_ARGUMENT", "INVALID_FIELD", ["received_bytes"]),
        (
            {"framing": "FRAMING_RESUME", "received_bytes": -1},
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
            ["received_bytes"],
        ),
        ({"received_bytes": 0}, "INVALID_ARGUMENT", "INVALID_FIELD", ["received_bytes"]),
        (
            {"framing": "FRAMING_RESUME", "received_bytes": 2**63 - 1, "start_row": 5},
            "OUT_OF_RANGE",
            "ROW_RANGE",
            ["start_row"],
        ),
        ({"columns": ["agee"]}, "INVALID_ARGUMENT", "COLUMN_NOT_FOUND", []),
        ({"where": [equals("city", string_value="Pariss")]}, "INVALID_ARGUMENT", "VALUE_NOT_FOUND", []),
        ({"where": [equals("id", int64_value=1)]}, "INVALID_ARGUMENT", "INVALID_CONDITION", []),
        (
            {"where": [equals("grade", int64_value=1), equals("grade", int64_value=2)]},
            "INVALID_ARGUMENT",
            "INVALID_CONDITION",
            [],
        ),
        ({"weights": ["city"]}, "INVALID_ARGUMENT", "INVALID_CONDITION", []),
        ({"weights": ["city", "grade"]}, "INVALID_ARGUMENT", "INVALID_FIELD", ["where.weights"]),
        ({"weights": [""]}, "INVALID_ARGUMENT", "INVALID_FIELD", ["where.weights[0].column"]),
        ({"expected_model_digest": bytes(32)}, "FAILED_PRECONDITION", "STREAM_MISMATCH", []),
    ],
)
def test_bad_input_has_a_typed_error(stubs, change, code, reason, fields):
    if "where" in change:
        change = {**change, "where": condition_pb2.Where(predicates=change["where"])}
    if "weights" in change:
        weights = [
            condition_pb2.ColumnWeights(column=name, entries=[condition_pb2.WeightedValues(is_null=False, share=1)])
            for name in change["weights"]
        ]
        change = {"where": condition_pb2.Where(weights=weights)}
    requested = request(**change)
    for call in (
        lambda: list(stubs[0].Sample(requested)),
        lambda: stubs[0].PlanSample(sampling_pb2.PlanSampleRequest(sample=requested)),
    ):
        found_code, info, found_fields = failure(call)
        assert (found_code.name, info.reason) == (code, reason)
        assert [field.removeprefix("sample.") for field in found_fields] == fields
    if reason == "VALUE_NOT_FOUND":
        assert "Paris" in info.metadata["near"]


def test_damaged_weights_are_data_loss(home, tmp_path):
    publish_golden(tmp_path)
    path = tmp_path / "models" / "tvae" / "weights"
    data = bytearray(path.read_bytes())
    data[2000] ^= 4
    path.chmod(0o644)
    path.write_bytes(bytes(data))
    with replica(tmp_path) as (address, _), grpc.insecure_channel(address) as channel:
        requested = request(model=f"projects/{PROJECT}/models/tvae")
        code, info, _ = failure(lambda: list(SamplingServiceStub(channel).Sample(requested)))
        assert (code, info.reason) == (grpc.StatusCode.DATA_LOSS, "DATA_LOSS")


def test_a_registry_that_is_not_there_yet(tmp_path):
    with replica(tmp_path) as (address, _), grpc.insecure_channel(address) as channel:
        code, info, _ = failure(lambda: list(SamplingServiceStub(channel).Sample(request())))
        assert (code, info.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")


def refused(call):
    """Return code, reason, setting and pushback of a call that is refused with a retry delay."""
    with pytest.raises(grpc.RpcError) as raised:
        call()
    details = rpc_status.from_call(raised.value).details
    info, retry = ErrorInfo(), RetryInfo()
    assert any(detail.Unpack(info) for detail in details)
    assert any(detail.Unpack(retry) for detail in details)
    pushback = dict(raised.value.trailing_metadata())["grpc-retry-pushback-ms"]
    assert int(pushback) == retry.retry_delay.ToMilliseconds()
    return raised.value.code().name, info.reason, info.metadata["setting"], int(pushback)


def test_streams_are_counted_and_given_back(home):
    with replica(home, streams=2) as (address, served), grpc.insecure_channel(address) as channel:
        stub = SamplingServiceStub(channel)
        calls = [stub.Sample(request(rows=10**12)) for _ in range(2)]
        for call in calls:
            assert next(call).WhichOneof("message") == "header"
        overloaded = ("UNAVAILABLE", "UNAVAILABLE", "ROWMINT_MAX_STREAMS", 100)
        assert refused(lambda: list(stub.Sample(request(rows=10)))) == overloaded
        assert refused(lambda: list(stub.CompleteRows(iter([config()])))) == overloaded
        planned = sampling_pb2.PlanSampleRequest(sample=request(rows=10))
        assert refused(lambda: stub.PlanSample(planned)) == overloaded
        # Health checks are not admitted.
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
        for call in calls:
            call.cancel()
        wait_until(lambda: served.admission.streams == 0, "the end of the call")
        # A plan holds no rows, and its call is over when the answer comes.
        assert len(stub.PlanSample(planned).parts) == 1
        assert len(list(stub.Sample(request(rows=10)))) == 3
        wait_until(lambda: (served.admission.streams, served.admission.rows) == (0, 0), "the end of the call")


def test_a_project_has_its_own_share(home):
    with replica(home, streams=8, project=1) as (address, served), grpc.insecure_channel(address) as channel:
        stub = SamplingServiceStub(channel)
        call = stub.Sample(request(rows=10**12))
        next(call)
        over = ("RESOURCE_EXHAUSTED", "LIMIT", "ROWMINT_MAX_PROJECT_STREAMS", 1000)
        assert refused(lambda: list(stub.Sample(request(rows=10)))) == over
        # Another project is admitted: all that is wrong is that it has no such model.
        code, info, _ = failure(lambda: list(stub.Sample(request(model="projects/other/models/none"))))
        assert (code, info.reason) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
        call.cancel()
        wait_until(lambda: served.admission.streams == 0, "the end of the call")
        assert len(list(stub.Sample(request(rows=10)))) == 3


def test_every_answer_names_the_replica(home):
    with replica(home) as (address, _), grpc.insecure_channel(address) as channel:
        stub = SamplingServiceStub(channel)
        _, planned = stub.PlanSample.with_call(sampling_pb2.PlanSampleRequest(sample=request(rows=10)))
        for call in (stub.Sample(request(rows=10)), stub.CompleteRows(iter([config()])), planned):
            assert dict(call.initial_metadata())["rowmint-replica"] == "one"


def test_the_load_is_reported_again_and_again(home):
    with replica(home) as (address, _), grpc.insecure_channel(address) as channel:
        listen = channel.unary_stream(
            "/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics", request_serializer=None, response_deserializer=None
        )
        # Fields 6 and 9 of an OrcaLoadReport, doubles: the rate and the utilization.
        report = struct.pack("<BdBd", 6 << 3 | 1, 20.0, 9 << 3 | 1, 0.5)
        # Field 1 of the request: a Duration, whose field 2 is 100,000,000 ns.
        calls = listen(b"\x0a\x05\x10\x80\xc2\xd7\x2f"), listen(b"")
        assert [next(calls[0]), next(calls[0]), next(calls[1])] == [report] * 3
        for call in calls:
            call.cancel()


def test_a_stream_that_lasts_too_long_ends_on_the_grid(home):
    with replica(home, max_seconds=0.01) as (address, _), grpc.insecure_channel(address) as channel:
        stub = SamplingServiceStub(channel)
        *_, last = stub.Sample(request(rows=10**12, format=sampling_pb2.ROW_FORMAT_CSV))
        assert not last.summary.complete
        assert last.summary.next_row % GRID == 0
        assert last.summary.next_row > 0


def test_a_completion_that_lasts_too_long_ends_with_what_is_done(home):
    with replica(home, max_seconds=2.0) as (address, _), grpc.insecure_channel(address) as channel:
        stub = SamplingServiceStub(channel)
        completing = stub.CompleteRows(itertools.chain([config()], itertools.repeat(partial({}))), timeout=60)
        *_, last = completing
        assert not last.summary.complete
        assert last.summary.next_row == last.summary.rows_delivered > 0


@pytest.mark.parametrize("ended", ["max_duration", "drained"])
def test_a_completion_without_anything_to_do_ends_when_it_must(home, ended):
    max_seconds = 0.3 if ended == "max_duration" else 0.0
    idle = threading.Event()

    def messages():
        yield config()
        yield partial({})
        idle.wait(60)

    with replica(home, max_seconds=max_seconds) as (address, served), grpc.insecure_channel(address) as channel:
        call = SamplingServiceStub(channel).CompleteRows(messages(), timeout=60)
        kinds = []
        for message in call:
            kinds.append(message.WhichOneof("message"))
            if ended == "drained" and kinds[-1] == "rows":
                served.loop.call_soon_threadsafe(served.drain.begin)
        # A busy machine may have had no time for the row.
        assert kinds in (["header", "rows", "summary"], ["header", "summary"])
        assert (message.summary.complete, message.summary.next_row) == (False, kinds.count("rows"))
        idle.set()


def test_a_client_that_does_not_read_is_disconnected(home):
    with replica(home, write_timeout=0.5) as (address, served), grpc.insecure_channel(address) as channel:
        call = SamplingServiceStub(channel).Sample(request(rows=10**12, model=f"projects/{PROJECT}/models/independent"))
        next(call)
        wait_until(lambda: served.admission.streams == 0, "the end of the call")
        # What it was sent is still there to be read, then the reason.
        received = []

        def read_on():
            received.extend(response.data.first_row for response in call)

        code, info, _ = failure(read_on)
        assert (code.name, info.reason) == ("RESOURCE_EXHAUSTED", "LIMIT")
        assert info.metadata["setting"] == "ROWMINT_WRITE_TIMEOUT"
        assert received == sorted(set(received))
        wait_until(lambda: not served.pacing.aborting, "the end of the call")


def test_a_client_that_stopped_reading_and_went_away(home):
    with replica(home, write_timeout=0.5) as (address, served), grpc.insecure_channel(address) as channel:
        call = SamplingServiceStub(channel).Sample(request(rows=10**12, model=f"projects/{PROJECT}/models/independent"))
        next(call)
        wait_until(lambda: served.admission.streams == 0, "the end of the call")
        call.cancel()
        wait_until(lambda: not served.pacing.aborting, "the end of the call")


def config(**more) -> sampling_pb2.CompleteRowsRequest:
    made = sampling_pb2.CompleteRowsConfig(
        **{"model": f"projects/{PROJECT}/models/ctgan", "seed": 7, "candidates": 512, **more}
    )
    return sampling_pb2.CompleteRowsRequest(config=made)


def partial(*known) -> sampling_pb2.CompleteRowsRequest:
    rows = [
        sampling_pb2.PartialRow(known={name: value_pb2.Value(**value) for name, value in row.items()}) for row in known
    ]
    return sampling_pb2.CompleteRowsRequest(rows=sampling_pb2.PartialRows(rows=rows))


def completed(stub, messages):
    responses = list(stub.CompleteRows(iter(messages), timeout=60))
    kinds = [response.WhichOneof("message") for response in responses]
    assert kinds == ["header", *["rows"] * (len(kinds) - 2), "summary"]
    rows = [row for response in responses[1:-1] for row in response.rows.rows]
    return responses[0].header, rows, responses[-1].summary


def test_rows_are_completed_in_order_on_any_replica(stubs):
    known = [{"city": {"string_value": "Oslo"}, "age": {"int64_value": 33}}, {"price": {"null_value": True}}, {}] * 100
    header, rows, summary = completed(stubs[0], [config(), partial(*known[:7]), partial(), partial(*known[7:])])
    assert [row.row for row in rows] == list(range(300))
    assert (summary.rows_delivered, summary.next_row, summary.complete) == (300, 300, True)
    names = [column.name for column in header.schema.columns]
    for row, sent in zip(rows, known, strict=True):
        values = dict(zip(names, row.values, strict=True))
        for name, value in sent.items():
            assert values[name] == value_pb2.Value(**value)
    rest = completed(stubs[1], [config(start_row=250), partial(*known[250:])])[1]
    assert rest == rows[250:]


def test_a_completion_that_cannot_be(stubs):
    def reason(*messages):
        code, info, fields = failure(lambda: list(stubs[0].CompleteRows(iter(messages), timeout=60)))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        return info.reason, fields

    assert reason() == ("EMPTY_STREAM", [])
    assert reason(partial({})) == ("INVALID_FIELD", ["config"])
    assert reason(config(), config()) == ("INVALID_FIELD", ["rows"])
    assert reason(config(candidates=5)) == ("INVALID_FIELD", ["config.candidates"])
    assert reason(config(), partial({"agee": {"int64_value": 1}})) == ("COLUMN_NOT_FOUND", [])
    assert reason(config(), partial({"city": {"string_value": "?"}})) == ("VALUE_NOT_FOUND", [])
    assert reason(config(), partial({}, {"age": {}})) == ("INVALID_FIELD", ["rows[1].known['age']"])
    assert reason(config(), partial({"age": {"string_value": "x"}})) == ("INVALID_CONDITION", [])


def test_models_can_be_read_from_a_sampler(home):
    with replica(home, streams=2) as (address, _), grpc.insecure_channel(address) as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        listed = stub.ListModels(model_service_pb2.ListModelsRequest(parent=f"projects/{PROJECT}"))
        assert [model.name.rsplit("/", 1)[1] for model in listed.models] == sorted(FAMILIES)
