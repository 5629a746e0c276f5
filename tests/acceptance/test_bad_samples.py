"""Bad requests for rows: each is refused by a typed error, on every replica the same, and the next call is served."""

import grpc
import pytest

from rowmint.v1 import condition_pb2, sampling_pb2, value_pb2
from rowmint.v1.sampling_service_pb2_grpc import SamplingServiceStub
from tests.acceptance.conftest import Fitted
from tests.acceptance.processes import Services
from tests.acceptance.refusals import Refusal, refused

INVALID = ("INVALID_ARGUMENT", "INVALID_FIELD")
CONDITION = ("INVALID_ARGUMENT", "INVALID_CONDITION")
NOT_FOUND = ("NOT_FOUND", "RESOURCE_NOT_FOUND")
RANGE = ("OUT_OF_RANGE", "ROW_RANGE")
ROWS = 10_000

Predicate = condition_pb2.Predicate
Value = value_pb2.Value


@pytest.fixture(scope="module")
def stubs(shared_services: Services):
    channels = [grpc.insecure_channel(sampler.address) for sampler in shared_services.started[1:3]]
    yield [SamplingServiceStub(channel) for channel in channels]
    for channel in channels:
        channel.close()


def request(fitted, **wrong) -> sampling_pb2.SampleRequest:
    return sampling_pb2.SampleRequest(**{"model": fitted.version, "rows": ROWS, "seed": 1, **wrong})


def refused_sample(stubs, fitted, requested) -> Refusal:
    """Ask both replicas for rows and one for a plan; all must refuse alike, and serve a proper request after."""
    one, two = (refused(lambda stub=stub: list(stub.Sample(requested))) for stub in stubs)
    planned = refused(stubs[0].PlanSample, sampling_pb2.PlanSampleRequest(sample=requested))
    assert one == two
    assert planned.kind == one.kind
    assert planned.metadata == one.metadata
    assert [field.removeprefix("sample.") for field in planned.fields] == one.fields
    *_, last = stubs[0].Sample(request(fitted, rows=10))
    assert last.summary.complete
    return one


@pytest.mark.parametrize(
    ("wrong", "kind", "field", "words"),
    [
        ({"model": ""}, INVALID, "model", "is required"),
        ({"model": "customers"}, INVALID, "model", "is not of the form projects/{project}/models/{model}"),
        ({"model": "projects/bad-input/models/customers/versions/0"}, INVALID, "model", "is not of the form"),
        ({"model": "projects/bad-input/models/customers@sha256:12"}, INVALID, "model", "64 hex digits"),
        ({"model": "projects/bad-input/models/none"}, NOT_FOUND, None, "there is no projects/bad-input/models/none"),
        ({"model": "projects/bad-input/models/customers/versions/9"}, NOT_FOUND, None, "there is no projects/"),
        ({"model": "projects/bad-input/models/customers@best"}, NOT_FOUND, None, "has no alias 'best'; its aliases"),
        ({"rows": 0}, INVALID, "rows", "is 0; must be 1 to"),
        ({"rows": -5}, INVALID, "rows", "is -5; must be 1 to"),
        ({"rows": 10**15 + 1}, INVALID, "rows", "must be 1 to 1000000000000000"),
        ({"start_row": -1}, RANGE, "start_row", "is -1; must be 0 to rows (10000)"),
        ({"start_row": ROWS + 1}, RANGE, "start_row", "is 10001; must be 0 to rows (10000)"),
        ({"end_row": -1}, RANGE, "end_row", "is -1; must be start_row (0) to rows (10000)"),
        ({"end_row": ROWS + 1}, RANGE, "end_row", "is 10001; must be"),
        ({"start_row": 9, "end_row": 8}, RANGE, "end_row", "is 8; must be start_row (9) to"),
        ({"start_row": 5, "framing": "FRAMING_CONTINUE"}, RANGE, "start_row", "is 5, not on the grid"),
        ({"framing": "FRAMING_CONTINUE"}, RANGE, "start_row", "is 0, before which there is no other part"),
        ({"framing": "FRAMING_RESUME"}, INVALID, "received_bytes", "is required with FRAMING_RESUME"),
        ({"framing": "FRAMING_RESUME", "received_bytes": -1}, INVALID, "received_bytes", "is -1; must be 0 or more"),
        ({"received_bytes": 9}, INVALID, "received_bytes", "is required with FRAMING_RESUME, and with that only"),
        ({"message_bytes": 0}, INVALID, "message_bytes", "is 0; must be 16384 to 1048576"),
        ({"max_reuse": 0}, INVALID, "max_reuse", "is 0; must be a power of two, 1 to 64"),
        ({"max_reuse": 65}, INVALID, "max_reuse", "is 65; must be a power of two, 1 to 64"),
        ({"format": 9}, INVALID, "format", "9 is not a RowFormat"),
        ({"framing": 9}, INVALID, "framing", "9 is not a Framing"),
        ({"columns": ["city", "age", "city"]}, INVALID, "columns", "column 'city' is named more than once"),
        ({"columns": ["ctiy"]}, ("INVALID_ARGUMENT", "COLUMN_NOT_FOUND"), None, "did you mean 'city'"),
        ({"expected_model_digest": bytes(32)}, ("FAILED_PRECONDITION", "STREAM_MISMATCH"), None, "the model digest is"),
        ({"expected_plan_digest": b"x"}, ("FAILED_PRECONDITION", "STREAM_MISMATCH"), None, "the plan digest is"),
    ],
)
def test_a_stream_that_cannot_be(stubs, fitted: Fitted, wrong, kind, *, field, words):
    refusal = refused_sample(stubs, fitted, request(fitted, **wrong))
    assert refusal.kind == kind
    assert words in refusal.message
    if field is None:
        assert refusal.metadata
        assert not refusal.fields
    else:
        assert refusal.fields == [field]
        assert refusal.message.startswith(f"{field}: ")


def equals(column, **value) -> Predicate:
    return Predicate(column=column, equals=Value(**value))


def between(column, minimum=None, maximum=None, **more) -> Predicate:
    return Predicate(column=column, range=condition_pb2.ValueRange(minimum=minimum, maximum=maximum, **more))


def whole(number) -> Value:
    return Value(int64_value=number)


@pytest.mark.parametrize(
    ("predicates", "column", "words"),
    [
        # The conditions exclude each other.
        ([equals("city", string_value="Oslo"), equals("city", string_value="Lima")], "city", "exclude each other"),
        ([between("age", whole(50)), between("age", None, whole(40))], "age", "exclude each other"),
        ([Predicate(column="bonus", is_null=value) for value in (True, False)], "bonus", "exclude each other"),
        # One alone holds for no row.
        ([between("age", whole(50), whole(40))], "age", "which is empty"),
        ([between("age", whole(50), whole(51), minimum_exclusive=True, maximum_exclusive=True)], "age", "is empty"),
        ([between("age", whole(200))], "age", "in training; the condition allows only values outside"),
        ([equals("age", double_value=30.5)], "age", "holds integers of 64 bits; 30.5 can never occur"),
        ([equals("age", decimal_value="30.5")], "age", "holds integers of 64 bits; 30.5 can never occur"),
        ([Predicate(column="city", is_null=True)], "city", "was never missing"),
        ([equals("age", null_value=True)], "age", "was never missing"),
        # It is not a condition that the column can have.
        ([equals("customer", int64_value=100_001)], "customer", "identifies rows and is generated"),
        ([between("city", Value(string_value="A"))], "city", "has no order; give values instead of a range"),
        ([equals("age", string_value="thirty")], "age", "is int64: 'thirty' is not a decimal number"),
        ([equals("age", date_value="2020-01-01")], "age", "is int64: 2020-01-01 is not a number"),
        ([between("joined", Value(timestamp_value="2020-01-01T00:00:00Z"))], "joined", "must have no offset"),
    ],
)
def test_conditions_that_contradict_or_are_impossible(stubs, fitted, predicates, column, words):
    where = condition_pb2.Where(predicates=[equals("plan", string_value="pro"), *predicates])
    refusal = refused_sample(stubs, fitted, request(fitted, where=where))
    assert refusal.kind == CONDITION
    assert refusal.metadata == {"column": column}
    assert f"column {column!r}" in refusal.message
    assert words in refusal.message


@pytest.mark.parametrize(
    ("predicate", "path", "words"),
    [
        (Predicate(equals=whole(1)), ".column", "is required"),
        (Predicate(column="age"), "", "has no test of column 'age'; set one"),
        (equals("age"), ".equals", "has no value"),
        (equals("income", double_value=float("nan")), ".equals", "nan is not a finite number"),
        (equals("income", decimal_value="1,5"), ".equals", "plain digits"),
        (equals("joined", date_value="2020-02-30"), ".equals", "day is out of range"),
        (equals("joined", date_value="20200228"), ".equals", "must be of the form YYYY-MM-DD"),
        (equals("joined", timestamp_value="2020-01-01 8:00"), ".equals", "must be of the form YYYY-MM-DDThh:mm:ss"),
        (equals("city", string_value="x" * 65_537), ".equals", "has 65537 characters; at most 65536"),
        (between("age"), ".range", "has neither minimum nor maximum"),
        (between("age", Value()), ".range.minimum", "has no value"),
        (between("age", None, Value(null_value=True)), ".range.maximum", "is null, which is not a bound"),
        (between("income", Value(double_value=float("-inf"))), ".range.minimum", "-inf is not a finite number"),
        (Predicate(column="city", any_of=condition_pb2.ValueSet()), ".any_of", "has 0 values; 1 to 10000"),
        (
            Predicate(column="age", any_of=condition_pb2.ValueSet(values=[whole(30), Value()])),
            ".any_of.values[1]",
            "has no value",
        ),
    ],
)
def test_a_malformed_condition_names_its_path(stubs, fitted, predicate, path, words):
    where = condition_pb2.Where(predicates=[equals("plan", string_value="pro"), predicate])
    refusal = refused_sample(stubs, fitted, request(fitted, where=where))
    assert (refusal.kind, refusal.fields) == (INVALID, [f"where.predicates[1]{path}"])
    assert words in refusal.message


def test_too_many_conditions(stubs, fitted):
    where = condition_pb2.Where(predicates=[equals("plan", string_value="pro")] * 65)
    refusal = refused_sample(stubs, fitted, request(fitted, where=where))
    assert (refusal.kind, refusal.fields) == (INVALID, ["where.predicates"])
    assert "has 65 entries; at most 64" in refusal.message


def test_an_unseen_value_is_refused_with_similar_ones(stubs, fitted):
    refusal = refused_sample(
        stubs, fitted, request(fitted, where=condition_pb2.Where(predicates=[equals("city", string_value="Osol")]))
    )
    assert refusal.kind == ("INVALID_ARGUMENT", "VALUE_NOT_FOUND")
    assert refusal.metadata == {"column": "city", "value": "Osol", "near": "Oslo"}
    assert (
        refusal.message
        == "the value 'Osol' does not occur in column 'city' of the training data; similar values are 'Oslo'"
    )


def test_an_unknown_column_is_refused_with_similar_names(stubs, fitted):
    refusal = refused_sample(
        stubs, fitted, request(fitted, where=condition_pb2.Where(predicates=[equals("incom", int64_value=1)]))
    )
    assert refusal.kind == ("INVALID_ARGUMENT", "COLUMN_NOT_FOUND")
    assert refusal.metadata == {"column": "incom", "near": "income"}


def test_a_condition_the_model_never_meets_ends_the_stream_and_says_which(stubs, fitted):
    # Bonuses are multiples of 50 and the model knows it.
    where = condition_pb2.Where(predicates=[equals("bonus", int64_value=7)])
    refusal = refused(lambda: list(stubs[0].Sample(request(fitted, where=where, rows=5))))
    assert refusal.kind == ("FAILED_PRECONDITION", "ACCEPTANCE_TOO_LOW")
    assert refusal.metadata["found"] == "0"
    assert refusal.metadata["next_row"] == "0"
    assert int(refusal.metadata["candidates"]) > 0
    assert "the rarest condition is the one on 'bonus'" in refusal.message
    *_, last = stubs[1].Sample(request(fitted, where=where, rows=5, allow_partial=True))
    assert (last.summary.complete, last.summary.rows_delivered) == (True, 0)


def test_parts_that_cannot_be(stubs, fitted):
    for parts in (0, -1, 1025):
        requested = sampling_pb2.PlanSampleRequest(sample=request(fitted), parts=parts)
        refusal = refused(stubs[0].PlanSample, requested)
        assert (refusal.kind, refusal.fields) == (INVALID, ["parts"])
    refusal = refused(stubs[0].PlanSample, sampling_pb2.PlanSampleRequest())
    assert (refusal.kind, refusal.fields) == (INVALID, ["sample.model"])


Message = sampling_pb2.CompleteRowsRequest


def config(fitted, **wrong) -> Message:
    own = {"model": fitted.version, "seed": 1, "candidates": 256}
    return Message(config=sampling_pb2.CompleteRowsConfig(**{**own, **wrong}))


def rows(*known) -> Message:
    cells = [{column: Value(**value) for column, value in row.items()} for row in known]
    return Message(rows=sampling_pb2.PartialRows(rows=[sampling_pb2.PartialRow(known=row) for row in cells]))


def complete(stub, messages) -> list[sampling_pb2.CompleteRowsResponse]:
    return list(stub.CompleteRows(iter(messages)))


@pytest.mark.parametrize(
    ("wrong", "kind", "field"),
    [
        ({"model": "customers"}, INVALID, "config.model"),
        ({"model": "projects/bad-input/models/customers@best"}, NOT_FOUND, None),
        ({"candidates": 100}, INVALID, "config.candidates"),
        ({"candidates": 0}, INVALID, "config.candidates"),
        ({"tolerance": 0.0}, INVALID, "config.tolerance"),
        ({"tolerance": float("nan")}, INVALID, "config.tolerance"),
        ({"start_row": -1}, RANGE, "config.start_row"),
    ],
)
def test_a_completion_that_cannot_be(stubs, fitted, wrong, kind, field):
    refusal = refused(complete, stubs[0], [config(fitted, **wrong), rows({})])
    assert refusal.kind == kind
    assert refusal.fields == ([] if field is None else [field])


def test_a_completion_is_a_config_and_rows(stubs, fitted):
    empty = refused(complete, stubs[0], [])
    assert empty.kind == ("INVALID_ARGUMENT", "EMPTY_STREAM")
    assert "the first is the config" in empty.message
    for messages, field in (
        ([rows({})], "config"),
        ([Message()], "config"),
        ([config(fitted), config(fitted)], "rows"),
        ([config(fitted), Message()], "rows"),
        ([config(fitted), rows(*[{}] * 10_001)], "rows.rows"),
    ):
        refusal = refused(complete, stubs[0], messages)
        assert (refusal.kind, refusal.fields) == (INVALID, [field])


@pytest.mark.parametrize(
    ("known", "reason", "column", "words"),
    [
        ({"ctiy": {"string_value": "Oslo"}}, "COLUMN_NOT_FOUND", "ctiy", "did you mean 'city'"),
        ({"city": {"string_value": "Osol"}}, "VALUE_NOT_FOUND", "city", "similar values are 'Oslo'"),
        ({"age": {"string_value": "thirty"}}, "INVALID_CONDITION", "age", "'thirty' is not a number"),
        ({"age": {"double_value": 30.5}}, "INVALID_CONDITION", "age", "30.5 is not one of its values"),
        ({"age": {"null_value": True}}, "INVALID_CONDITION", "age", "a missing cell never occurred"),
        ({"customer": {"string_value": "me"}}, "INVALID_CONDITION", "customer", "'me' is not an id"),
        ({"age": {}}, "INVALID_FIELD", "age", "has no value"),
        ({"income": {"double_value": float("nan")}}, "INVALID_FIELD", "income", "nan is not a finite number"),
        ({"joined": {"date_value": "someday"}}, "INVALID_FIELD", "joined", "'someday' must be of the form YYYY-MM-DD"),
    ],
)
def test_a_known_cell_that_cannot_be_names_its_row_and_column(stubs, fitted, *, known, reason, column, words):
    fine = rows({"city": {"string_value": "Oslo"}}, {})
    refusal = refused(complete, stubs[0], [config(fitted), fine, rows({}, known)])
    assert refusal.kind == ("INVALID_ARGUMENT", reason)
    assert words in refusal.message
    if reason == "INVALID_FIELD":
        assert refusal.fields == [f"rows[3].known[{column!r}]"]
    else:
        assert (refusal.metadata["row"], refusal.metadata["column"]) == ("3", column)
        assert "row 3" in refusal.message
    *_, last = complete(stubs[0], [config(fitted), fine, rows({})])
    assert (last.summary.complete, last.summary.rows_delivered) == (True, 3)
