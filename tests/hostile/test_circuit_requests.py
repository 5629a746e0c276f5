"""Hostile requests for rows of circuits, whose answers are computed from what is sent: a right answer or a refusal.

After each test the sampler answers as ever, has not grown, and has logged no fault.
"""

import json
import math
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message

from rowmint.artifact import Artifact, FittedModel, write_model
from rowmint.codecs import IdentityCodec
from rowmint.schema import ColumnKind, ColumnSpec, DataType, Domain, TableSchema
from rowmint.v1 import condition_pb2, sampling_pb2
from tests.acceptance.processes import ServiceProcess, Services
from tests.acceptance.refusals import Refusal, refused
from tests.circuits import CircuitMaker
from tests.faults.golden_home import golden_version, publish_files
from tests.faults.process_figures import anonymous_bytes
from tests.hostile.proper_requests import DEADLINE, METHODS, Complete, Sample, Score, Value, equals
from tests.large_circuits import large_circuit

pytestmark = pytest.mark.system

GROWTH = 100 << 20
STREAMS = 8
LONGEST = 65_536
"""Characters that a text may have."""
MOST_ENTRIES = 1000
MIXED, LARGE = golden_version("mixed"), golden_version("large")
UNSUPPORTED = sampling_pb2.COMPLETION_SUPPORT_UNSUPPORTED
NAN, INFINITE = float("nan"), float("inf")

Cells = dict[str, Value]


def mixed() -> Artifact:
    """Return the files of a circuit: a number and a text that are ids, and a column of every kind, one derived."""
    made = CircuitMaker(7).make()
    ids = (
        ColumnSpec("key", ColumnKind.ID, DataType.INT64, Domain(nullable=False)),
        ColumnSpec("badge", ColumnKind.ID, DataType.STRING, Domain(nullable=False), id_pattern="[a-z]{8}"),
    )
    codecs = (IdentityCodec(True, 1, 1 << 40, ""), IdentityCodec(False, 0, 26**8, "[a-z]{8}"))
    schema = TableSchema((*ids, *made.schema.columns), "key")
    return write_model(FittedModel("circuit", schema, (*codecs, *made.codecs), made.network, made.arrays), {})


def large() -> Artifact:
    """Return the files of a chain of columns of 1,024 categories."""
    return large_circuit((-1, *range(5)), states=16, components=2, bins=64, in_bin=16)


@dataclass
class Sampler:
    """The sampler that all of it is sent to.

    Attributes:
        process: It.
        channel: A channel to it.
        size: Bytes that were its own when it had answered everything once.
        scores: What it first said of some rows.
        read: Characters of its log that are known already.
    """

    process: ServiceProcess
    channel: grpc.Channel
    size: int = 0
    scores: Sequence[float] = ()
    read: int = 0

    def responses(self, name: str, *requests: Message) -> list[Any]:
        """Read the answers to the end."""
        bodies = [request.SerializeToString() for request in requests]
        return list(METHODS[f"SamplingService.{name}"].call(self.channel, bodies))

    def scored(self, model: str, rows: Sequence[Cells]) -> list[float]:
        """Return the log-probability of each row, minus infinity where it is impossible."""
        config = Score(config=sampling_pb2.ScoreRowsConfig(model=model))
        found = self.responses("ScoreRows", config, Score(rows=partial(rows)))
        scores = [score for response in found for score in response.rows.scores]
        assert [score.row for score in scores] == list(range(len(rows)))
        return [-math.inf if score.impossible else score.log_probability for score in scores]

    def completed(self, model: str, rows: Sequence[Cells]) -> list[Any]:
        config = Complete(config=sampling_pb2.CompleteRowsConfig(model=model, seed=3))
        found = self.responses("CompleteRows", config, Complete(rows=partial(rows)))
        return [row for response in found for row in response.rows.rows]

    def sampled(self, request: Sample) -> list[dict[str, Any]]:
        """Return the rows of a stream as JSON values."""
        data = b"".join(response.data.data for response in self.responses("Sample", request))
        return [json.loads(line) for line in data.splitlines()]


def partial(rows: Sequence[Cells]) -> sampling_pb2.PartialRows:
    return sampling_pb2.PartialRows(rows=[sampling_pb2.PartialRow(known=known) for known in rows])


def text(value: str) -> Value:
    return Value(string_value=value)


def few(sampler: Sampler) -> list[float]:
    """Return the scores of a few proper rows of both models."""
    known = [{"c0": text("v3")}, {"c0": text("v1"), "c1": Value(int64_value=10)}, {}]
    inner = [{"c0": text("v0"), "c5": text("v1023")}]
    return [*sampler.scored(MIXED, known), *sampler.scored(LARGE, inner)]


@pytest.fixture(scope="module")
def sampler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sampler]:
    home = tmp_path_factory.mktemp("circuits")
    files = {name: (made.manifest, made.weights) for name, made in (("mixed", mixed()), ("large", large()))}
    publish_files(home, files)
    services = Services(home)
    try:
        process = services.sampler(ROWMINT_MAX_STREAMS=str(STREAMS))
        with grpc.insecure_channel(process.address) as channel:
            found = Sampler(process, channel)
            found.scores = few(found)
            found.completed(MIXED, [{}])
            found.sampled(sample(MIXED))
            found.size = anonymous_bytes(process.pid)
            yield found
    finally:
        services.close()


@pytest.fixture(autouse=True)
def undisturbed(sampler: Sampler) -> Iterator[None]:
    """After each test the sampler gives the answers that it first gave, has not grown, and has logged no fault."""
    yield
    assert few(sampler) == sampler.scores
    log = sampler.process.log.read_text()[sampler.read :]
    sampler.read += len(log)
    assert not re.search("Traceback|call failed", log), log[-4000:]
    assert anonymous_bytes(sampler.process.pid) - sampler.size < GROWTH


def sample(model: str, rows: int = 100, **more: Any) -> Sample:
    return Sample(model=model, rows=rows, seed=5, format=sampling_pb2.ROW_FORMAT_NDJSON, **more)


def where(*predicates: condition_pb2.Predicate) -> condition_pb2.Where:
    return condition_pb2.Where(predicates=predicates)


def weights(column: str, *entries: condition_pb2.WeightedValues) -> condition_pb2.Where:
    return condition_pb2.Where(weights=[condition_pb2.ColumnWeights(column=column, entries=entries)])


def entry(*values: Value, share: float = 1.0) -> condition_pb2.WeightedValues:
    return condition_pb2.WeightedValues(any_of=condition_pb2.ValueSet(values=values), share=share)


def plan_refused(sampler: Sampler, conditions: condition_pb2.Where, model: str = MIXED) -> Refusal:
    """Return how a plan is refused; the stream is refused in the same way, before any row."""
    request = sample(model, where=conditions)
    found = refused(sampler.responses, "PlanSample", sampling_pb2.PlanSampleRequest(sample=request))
    stream = refused(sampler.responses, "Sample", request)
    assert (stream.kind, stream.message) == (found.kind, found.message.removeprefix("sample."))
    return found


def rows_refused(sampler: Sampler, known: Cells) -> Refusal:
    """Return how a row is refused, to be scored and to be completed."""
    found = refused(sampler.scored, MIXED, [{}, known])
    completion = refused(sampler.completed, MIXED, [{}, known])
    assert (completion.kind, completion.message) == (found.kind, found.message)
    return found


def test_the_longest_ids_are_sent_back_and_not_kept(sampler: Sampler) -> None:
    ids = [text(str(row).rjust(LONGEST, "x")) for row in range(20)]
    rows = sampler.completed(MIXED, [{"badge": value, "key": Value(int64_value=-(2**63))} for value in ids])
    assert [row.values[1] for row in rows] == ids
    assert {row.values[0].int64_value for row in rows} == {-(2**63)}


def test_a_call_remembers_none_of_thousands_of_the_longest_ids(sampler: Sampler) -> None:
    rows, in_message, measured = 2400, 60, threading.Event()

    def bodies() -> Iterator[bytes]:
        yield Score(config=sampling_pb2.ScoreRowsConfig(model=MIXED)).SerializeToString()
        for first in range(0, rows, in_message):
            known = [{"badge": text(str(first + row).rjust(LONGEST, "x"))} for row in range(in_message)]
            yield Score(rows=partial(known)).SerializeToString()
        measured.wait(DEADLINE)

    method = METHODS["SamplingService.ScoreRows"]
    call = sampler.channel.stream_stream(method.path, lambda body: body, method.response.FromString)(
        bodies(), timeout=DEADLINE
    )
    try:
        scores: list[float] = []
        while len(scores) < rows:
            scores += [score.log_probability for score in next(call).rows.scores]
        grown = anonymous_bytes(sampler.process.pid) - sampler.size
    finally:
        measured.set()
    assert next(call).summary.complete
    assert scores == [0.0] * rows  # an id is known of every row, and ids are not scored
    assert grown < GROWTH < rows * LONGEST


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        ({"badge": text("x" * (LONGEST + 1))}, "INVALID_FIELD"),
        ({"key": Value(decimal_value="9" * 101)}, "INVALID_FIELD"),
        ({"key": Value(double_value=1.0)}, "INVALID_CONDITION"),
        ({"badge": Value(null_value=True)}, "INVALID_CONDITION"),
        ({"c1": Value(double_value=NAN)}, "INVALID_FIELD"),
        ({"c4": Value(double_value=-INFINITE)}, "INVALID_FIELD"),
        ({"c4": Value(decimal_value="1e999")}, "INVALID_FIELD"),
        ({"c4": Value(decimal_value="9" * 101)}, "INVALID_FIELD"),
        ({"c1": Value(decimal_value="0." + "0" * 90 + "1")}, "INVALID_CONDITION"),
        ({"c1": Value(decimal_value=str(2**63))}, "INVALID_CONDITION"),
        ({"c0": text("v9")}, "VALUE_NOT_FOUND"),
        ({"c0": Value(int64_value=0)}, "VALUE_NOT_FOUND"),
        ({"c0": Value()}, "INVALID_FIELD"),
        ({"c9": Value(int64_value=0)}, "COLUMN_NOT_FOUND"),
        ({"": Value(int64_value=0)}, "COLUMN_NOT_FOUND"),
        ({"no\0pe\n" * 5000: Value(int64_value=0)}, "COLUMN_NOT_FOUND"),
    ],
    ids=str,
)
def test_a_row_is_refused_whose_cells_are_none_of_the_model(sampler: Sampler, known: Cells, reason: str) -> None:
    assert rows_refused(sampler, known).reason == reason


def test_rows_of_thousands_of_unknown_columns_are_refused(sampler: Sampler) -> None:
    many = {f"x{index}": Value(int64_value=1) for index in range(16_384)}
    assert rows_refused(sampler, many).reason == "COLUMN_NOT_FOUND"
    more = rows_refused(sampler, {**many, "y": Value(int64_value=1)})
    assert (more.reason, more.fields) == ("INVALID_FIELD", ["rows.rows[1].known"])


@pytest.mark.parametrize(
    ("whole", "real"),
    [
        (Value(int64_value=2**63 - 1), Value(double_value=1.7976931348623157e308)),
        (Value(int64_value=-(2**63)), Value(double_value=-5e-324)),
        (Value(double_value=1e18), Value(decimal_value="9" * 100)),
    ],
)
def test_numbers_that_never_occur_are_impossible_and_kept(sampler: Sampler, whole: Value, real: Value) -> None:
    known = {"c1": whole, "c3": whole, "c4": real}
    assert sampler.scored(MIXED, [known]) == [-math.inf]
    (row,) = sampler.completed(MIXED, [known])
    assert [row.values[index] for index in (3, 5, 6)] == [whole, whole, real]


def test_rows_of_cells_that_contradict_each_other_are_impossible_and_completed(sampler: Sampler) -> None:
    made = sampler.completed(MIXED, [{}] * 16)
    # The number decides the other one, which is derived from it; those of two rows seldom go together.
    rows = [{"c1": one.values[3], "c4": other.values[6]} for one, other in product(made, made)]
    scores = sampler.scored(MIXED, rows)
    completed = sampler.completed(MIXED, rows)
    assert [(row.values[3], row.values[6]) for row in completed] == [(row["c1"], row["c4"]) for row in rows]
    assert [row.support == UNSUPPORTED for row in completed] == [score == -math.inf for score in scores]
    assert -math.inf in scores
    assert all(math.isfinite(score) for score in scores[:: len(made) + 1])  # those of one row


def test_rows_that_know_little_are_given_up_with_their_caller(sampler: Sampler) -> None:
    """Each is a sum over all inner columns; the caller leaves while the first of many are computed."""
    config = Score(config=sampling_pb2.ScoreRowsConfig(model=LARGE))
    ends = [{"c0": text(f"v{row}"), "c5": text(f"v{1023 - row}")} for row in range(1000)]
    bodies = [config.SerializeToString(), *[Score(rows=partial(ends)).SerializeToString()] * 10]
    for read in [0, 1] * STREAMS:  # as many as there are streams, twice
        call = METHODS["SamplingService.ScoreRows"].call(sampler.channel, bodies)
        assert [response.WhichOneof("message") for response in islice(call, read)] == ["header"] * read
        call.cancel()


def test_as_many_entries_as_may_have_weights_are_planned_and_drawn(sampler: Sampler) -> None:
    values = [text(f"v{index}") for index in range(MOST_ENTRIES)]
    shares = [float(1 + index % 7) for index in range(MOST_ENTRIES)]
    conditions = weights("c5", *(entry(value, share=share) for value, share in zip(values, shares, strict=True)))
    conditions.predicates.add().CopyFrom(equals("c0", string_value="v1"))
    request = sample(LARGE, rows=20_000, where=conditions)
    (plan,) = sampler.responses("PlanSample", sampling_pb2.PlanSampleRequest(sample=request))
    assert (plan.acceptance, plan.parts[0].expected_plan_digest) == (1.0, plan.header.plan_digest)
    assert 0 < plan.condition_probability < 0.1
    rows = sampler.sampled(request)
    assert {row["c0"] for row in rows} == {"v1"}
    found = np.bincount([shares.index(shares[int(row["c5"][1:])]) for row in rows], minlength=7)
    expected = np.bincount(np.arange(MOST_ENTRIES) % 7, weights=shares)
    expected *= len(rows) / expected.sum()
    assert np.abs((found - expected) / np.sqrt(expected)).max() < 6
    more = weights("c5", *(entry(text(f"v{index}")) for index in range(MOST_ENTRIES + 1)))
    assert plan_refused(sampler, more, LARGE).kind == ("INVALID_ARGUMENT", "INVALID_FIELD")


@pytest.mark.parametrize("share", [NAN, INFINITE, -INFINITE, -1.0, 0.0, 5e-324, 1e-300])
def test_shares_that_are_none_are_refused(sampler: Sampler, share: float) -> None:
    refusal = plan_refused(sampler, weights("c0", entry(text("v0")), entry(text("v1"), share=share)))
    assert refusal.reason in {"INVALID_FIELD", "INVALID_CONDITION"}


def test_shares_whose_sum_is_beyond_numbers_are_relative_all_the_same(sampler: Sampler) -> None:
    values = [text("v0"), text("v1")]
    huge, one = (weights("c0", *(entry(value, share=share) for value in values)) for share in (1e308, 1.0))
    assert sampler.sampled(sample(MIXED, where=huge)) == sampler.sampled(sample(MIXED, where=one))


@pytest.mark.parametrize(
    ("conditions", "reason"),
    [
        (weights("c9", entry(text("v0"))), "COLUMN_NOT_FOUND"),
        (weights("key", entry(Value(int64_value=1))), "INVALID_CONDITION"),
        (weights("c0"), "INVALID_FIELD"),
        (weights("c0", entry()), "INVALID_FIELD"),
        (weights("c0", entry(text("v0")), entry(text("v0"))), "INVALID_CONDITION"),
        (weights("c0", entry(text("v9"))), "VALUE_NOT_FOUND"),
        (weights("c1", entry(Value(int64_value=2**62))), "INVALID_CONDITION"),
        (weights("c1", entry(Value(double_value=NAN))), "INVALID_FIELD"),
        (condition_pb2.Where(weights=[*weights("c0", entry(text("v0"))).weights] * 64), "INVALID_FIELD"),
        (where(equals("c4", double_value=INFINITE)), "INVALID_FIELD"),
        (where(equals("c1", int64_value=2**63 - 1)), "INVALID_CONDITION"),
        (where(equals("c9", int64_value=1)), "COLUMN_NOT_FOUND"),
        (where(*(equals("c0", string_value=f"v{index % 5}") for index in range(64))), "INVALID_CONDITION"),
        (where(*[equals("c0", string_value="v0")] * 65), "INVALID_FIELD"),
    ],
)
def test_conditions_and_weights_of_nothing_that_there_is_are_refused(
    sampler: Sampler, conditions: condition_pb2.Where, reason: str
) -> None:
    assert plan_refused(sampler, conditions).reason == reason


def test_ten_thousand_values_are_one_condition(sampler: Sampler) -> None:
    values = [Value(int64_value=number) for number in range(-5_000, 5_000)]
    some = condition_pb2.Predicate(column="c1", any_of=condition_pb2.ValueSet(values=values))
    none = condition_pb2.Predicate(column="c1", none_of=condition_pb2.ValueSet(values=values))
    present = sample(MIXED, where=where(some))
    (plan,) = sampler.responses("PlanSample", sampling_pb2.PlanSampleRequest(sample=present))
    assert 0 < plan.condition_probability <= 1
    assert all(row["c1"] is not None for row in sampler.sampled(present))
    assert plan_refused(sampler, where(none)).reason == "INVALID_CONDITION"
