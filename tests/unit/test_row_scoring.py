"""Scoring rows: counting, refusals and resumption, over a model whose scores are plain to see."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from rowmint.artifact import FittedModel, read_model, write_model
from rowmint.errors import (
    ColumnNotFoundError,
    InvalidConditionError,
    InvalidFieldError,
    LimitError,
    RowRangeError,
    StreamMismatchError,
    UnavailableError,
    ValueNotFoundError,
    WrongStateError,
)
from rowmint.names import ModelVersionName
from rowmint.sampling.completion import RowCompletion
from rowmint.sampling.scoring import RowScoring, ScoredRow
from rowmint.sampling.spec import ScoringSpec
from rowmint.steps import finish
from rowmint.synthesizer import Capabilities, RowScores, choose_kernel
from rowmint.synthesizer.circuit.synthesizer import CircuitSynthesizer
from rowmint.synthesizer.independent.synthesizer import IndependentSynthesizer
from rowmint.synthesizer.interface import MOST_ROWS, check_stopped
from rowmint.v1 import sampling_pb2, value_pb2
from sampler_service.admission import Allowance
from tests.circuits import CircuitMaker
from tests.golden.streams import golden_catalog, golden_model, sampler_of
from tests.unit.test_sampling_in_process import Served

_MANY_STEPS = 10_000_000
VERSION = "projects/golden/models/independent/versions/1"
Request = sampling_pb2.ScoreRowsRequest
Complete = sampling_pb2.CompleteRowsRequest


class CountingSynthesizer(IndependentSynthesizer):
    """Gives every known cell a probability of 1 / e, and none to a missing city."""

    def scorer(self, stopped):
        return CountingScorer(stopped)

    def scoring_bytes(self, known):
        return 1000 * len(known)


class CountingScorer:
    def __init__(self, stopped):
        self._stopped = stopped

    def score(self, rows):
        check_stopped(self._stopped)
        yield
        never = np.array(["city" in known and known["city"] is None for known in rows], np.bool_)
        return RowScores(np.where(never, 0.0, [-float(len(known)) for known in rows]), never)


@pytest.fixture(scope="module")
def model():
    golden = golden_model("independent")
    made = golden.synthesizer
    synthesizer = CountingSynthesizer(made.schema, made.heads, made.weights)
    return replace(golden, synthesizer=synthesizer, capabilities=Capabilities(likelihood=True))


class Scorable(CountingSynthesizer):
    """Scores rows by a function."""

    def __init__(self, score):
        made = golden_model("independent").synthesizer
        super().__init__(made.schema, made.heads, made.weights)
        self.score = score

    def scorer(self, stopped):
        return self


class ScoringSampler:
    """Opens scorings and completions of one model, whatever version is named."""

    def __init__(self, model):
        self._model = model

    async def complete(self, request, stopped):
        request.validate()
        return ModelVersionName.parse(VERSION), RowCompletion(self._model, request.seeded(lambda: 5), stopped)

    async def score(self, request, stopped):
        request.validate()
        return ModelVersionName.parse(VERSION), RowScoring(self._model, request, stopped)


@pytest.fixture
def served(model):
    with ThreadPoolExecutor(2) as workers:
        yield Served(ScoringSampler(model), workers)


def config(**fields):
    return Request(config=sampling_pb2.ScoreRowsConfig(model=VERSION, **fields))


def rows(*known):
    return Request(rows=sampling_pb2.PartialRows(rows=[sampling_pb2.PartialRow(known=one) for one in known]))


OSLO = {"city": value_pb2.Value(string_value="Oslo")}
AGED = {**OSLO, "age": value_pb2.Value(int64_value=31)}
NOWHERE = {"city": value_pb2.Value(null_value=True)}


def test_known_cells_are_scored_and_ids_are_ignored(model):
    scoring = RowScoring(model, ScoringSpec(start_row=7))
    known = [{}, {"city": "Oslo"}, {"city": None}, {"city": "Oslo", "age": 3, "id": 5, "badge": "mine"}]
    expected = [
        ScoredRow(7, 0.0, False),
        ScoredRow(8, -1.0, False),
        ScoredRow(9, 0.0, True),
        ScoredRow(10, -2.0, False),
    ]
    assert finish(scoring.score(known[:1])) + finish(scoring.score([])) + finish(scoring.score(known[1:])) == expected
    summary = scoring.summary(complete=True)
    assert (summary.next_row, summary.rows_delivered, summary.complete, summary.candidates) == (11, 4, True, 0)
    header = scoring.header("name")
    assert (header.start_row, header.model_digest, header.plan_digest, header.seed) == (7, model.digest, b"", 0)


def test_the_memory_of_a_scoring_is_that_of_the_columns_known_so_far(model):
    scoring = RowScoring(model, ScoringSpec())
    assert [scoring.memory_bytes([known]) for known in ({}, {"age": 1}, {"city": "Oslo"}, {})] == [0, 1000, 2000, 2000]


def test_a_scoring_that_is_stopped_gives_no_part_of_a_batch(model):
    for calls in range(2):
        answers = iter(range(calls))
        scoring = RowScoring(model, ScoringSpec(), lambda answers=answers: next(answers, None) is None)
        assert finish(scoring.score([{}] * 3)) == []
        assert scoring.next_row == 0


@pytest.mark.parametrize(
    ("known", "error"),
    [
        ({"missing": 1}, ColumnNotFoundError),
        ({"city": "Pariss"}, ValueNotFoundError),
        ({"age": "x"}, InvalidConditionError),
    ],
)
def test_a_wrong_cell_is_named(model, known, error):
    scoring = RowScoring(model, ScoringSpec(start_row=100))
    with pytest.raises(error) as raised:
        finish(scoring.score([{}, known]))
    assert raised.value.message.startswith("row 101")
    assert raised.value.metadata["row"] == "101"
    assert scoring.next_row == 100


def test_another_model_does_not_resume_a_scoring(model):
    assert RowScoring(model, ScoringSpec(expected_model_digest=model.digest)).next_row == 0
    with pytest.raises(StreamMismatchError, match="the model digest is"):
        RowScoring(model, ScoringSpec(expected_model_digest=b"m" * 32))


@pytest.mark.parametrize("start_row", [-1, 10**15 + 1])
def test_a_row_beyond_every_stream_is_refused(start_row):
    with pytest.raises(RowRangeError):
        ScoringSpec(start_row=start_row).validate()


def test_scores_come_in_order_between_header_and_summary(served):
    sent = [rows(*[OSLO] * 1_300), rows(), rows(AGED, NOWHERE)]
    header, *made, last = served.score([config(start_row=5), *sent])
    assert header.header.start_row == 5
    scores = [one for response in made for one in response.rows.scores]
    assert [one.row for one in scores] == list(range(5, 1_307))
    assert [one.log_probability for one in scores] == [-1.0] * 1_300 + [-2.0, 0.0]
    assert [one.impossible for one in scores] == [False] * 1_301 + [True]
    # So many rows are answered at once.
    assert [len(response.rows.scores) for response in made] == [MOST_ROWS, 1_300 - MOST_ROWS, 2]
    assert (last.summary.complete, last.summary.next_row, last.summary.rows_delivered) == (True, 1_307, 1_302)


def test_others_take_turns_while_a_batch_is_scored(model):
    """One thread: it scores until something else has been done on it, and would not end well without."""
    with ThreadPoolExecutor(1) as workers:
        done = []

        def scored(known):
            workers.submit(done.append, None)
            for _ in range(_MANY_STEPS):
                if done:
                    break
                yield
            return RowScores(np.zeros(len(known)), np.full(len(known), not done))

        sampler = ScoringSampler(replace(model, synthesizer=Scorable(scored)))
        _, response, last = Served(sampler, workers).score([config(), rows(*[OSLO] * 3)])
    assert [one.impossible for one in response.rows.scores] == [False] * 3
    assert last.summary.complete


def test_a_scoring_is_admitted_and_holds_its_rows_and_memory(model):
    held = []
    with ThreadPoolExecutor(2) as workers:
        served = Served(ScoringSampler(model), workers)
        served.score([config(), rows(AGED)], lambda _: held.append((served.admission.rows, served.admission.bytes)))
        assert held == [(MOST_ROWS, 0), (MOST_ROWS, 2000), (MOST_ROWS, 2000)]
        assert (served.admission.streams, served.admission.rows, served.admission.bytes) == (0, 0, 0)
        narrow = Served(ScoringSampler(model), workers, process=Allowance(8, 0, 1000))
        assert len(narrow.score([config(), rows(OSLO)])) == 3
        with pytest.raises(LimitError, match=r"takes 2000 bytes.*ROWMINT_MAX_WORK_BYTES"):
            narrow.score([config(), rows(AGED)])


def test_a_draining_sampler_ends_a_scoring_and_refuses_the_next(served):
    def drain_at_rows(response):
        if response.HasField("rows"):
            served.drain.begin()

    messages = [config(), rows(*[OSLO] * 2_000)]
    _, *made, last = served.score(messages, drain_at_rows)
    assert sum(len(response.rows.scores) for response in made) == last.summary.next_row == MOST_ROWS
    assert not last.summary.complete
    with pytest.raises(UnavailableError, match="is draining"):
        served.score(messages)


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([rows(OSLO)], "config"),
        ([config(), config()], "rows"),
        ([Request()], "config"),
        ([config(), Request()], "rows"),
    ],
)
def test_messages_out_of_order_are_refused(served, messages, field):
    with pytest.raises(InvalidFieldError, match=f"^{field}: is required"):
        served.score(messages)


def circuit_model():
    made = CircuitMaker(3).make()
    fitted = FittedModel("circuit", made.schema, made.codecs, made.network, made.arrays)
    artifact = write_model(fitted, {"capabilities": CircuitSynthesizer.capabilities.to_json()})
    return read_model(artifact.manifest, artifact.weights, choose_kernel("numpy"))


def test_scores_of_a_circuit_are_those_that_are_served():
    model = circuit_model()
    text, whole = value_pb2.Value(string_value="v1"), value_pb2.Value(int64_value=35)
    sent = [{"c0": text}, {"c1": whole}, {"c0": text, "c1": value_pb2.Value(null_value=True)}, {}]
    known = [{"c0": "v1"}, {"c1": 35}, {"c0": "v1", "c1": None}, {}]
    expected = finish(RowScoring(model, ScoringSpec()).score(known))
    assert [one.impossible for one in expected] == [False, True, False, False]  # c1 is 10, 13, 16, ...
    assert expected[3].log_probability == 0.0 > expected[0].log_probability > expected[2].log_probability
    with ThreadPoolExecutor(2) as workers:
        _, response, _ = Served(ScoringSampler(model), workers).score([config(), rows(*sent)])
    assert [ScoredRow(one.row, one.log_probability, one.impossible) for one in response.rows.scores] == expected


def test_an_exact_completion_holds_no_candidates():
    """However many are requested, rows are completed by the group, and none shares a candidate with another."""
    model, held = circuit_model(), []
    requested = sampling_pb2.CompleteRowsConfig(model=VERSION, seed=3, candidates=65_536)
    known = [sampling_pb2.PartialRow(known={"c0": value_pb2.Value(string_value="v1")})] * 1_300
    sent = [Complete(config=requested), Complete(rows=sampling_pb2.PartialRows(rows=known))]
    with ThreadPoolExecutor(2) as workers:
        served = Served(ScoringSampler(model), workers)
        header, *made, last = served.complete(sent, lambda _: held.append(served.admission.rows))
    assert held == [MOST_ROWS] * 4
    assert [len(response.rows.rows) for response in made] == [MOST_ROWS, 1_300 - MOST_ROWS]
    rows = [row for response in made for row in response.rows.rows]
    assert {row.support for row in rows} == {sampling_pb2.COMPLETION_SUPPORT_MATCHED}
    assert {(row.effective_sample_size, row.tolerance) for row in rows} == {(65_536.0, 0.0)}
    assert header.header.rows_per_candidate == last.summary.rows_per_candidate == 1
    assert (last.summary.candidates, last.summary.distinct_candidates) == (0, 1_300)


@pytest.mark.parametrize("family", ["ctgan", "tvae", "independent"])
def test_a_model_without_exact_likelihoods_is_refused(family):
    with sampler_of(golden_catalog(), choose_kernel("numpy")) as sampler, ThreadPoolExecutor(2) as workers:
        served = Served(sampler, workers)
        request = Request(config=sampling_pb2.ScoreRowsConfig(model=f"projects/golden/models/{family}/versions/1"))
        with pytest.raises(WrongStateError, match="no exact likelihood"):
            served.score([request, rows(OSLO)])
        assert served.admission.streams == 0
