"""What every family of synthesizer must do, on models fitted to one small table."""

import json
import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pytest
import rfc8785

from rowmint.artifact import Artifact, Model, read_model
from rowmint.conditions import (
    AnyOf,
    IsNull,
    Predicate,
    Range,
    WeightedTest,
    Weights,
    canonical,
    canonical_weights,
)
from rowmint.errors import CancelledError, DataLossError, InvalidConditionError
from rowmint.rng import StreamKey
from rowmint.sampling.plan import compile_plan
from rowmint.sampling.rows import RowSource
from rowmint.schema.arrays import ColumnArray, column_cells, is_coded
from rowmint.steps import finish
from rowmint.synthesizer import (
    Candidates,
    Capabilities,
    CompletionOptions,
    CompletionSupport,
    ConditionSupport,
    LikelihoodSynthesizer,
    RowKeys,
    Unit,
    choose_kernel,
    propose,
    synthesizer_family,
)
from tests.tables_to_fit import FAMILIES, fit_table, full_table, load
from trainer_service.config import TrainingConfig
from trainer_service.fitting.families import family_named

SIZE = 512


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def artifact(family: str, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    config = TrainingConfig(FAMILIES[family], seed=2, threads=1)
    return fit_table(full_table(), config, tmp_path_factory.mktemp(family))


@pytest.fixture(scope="module")
def model(artifact: Artifact) -> Model:
    return load(artifact)


def modelled(model: Model) -> list[str]:
    return [name for name in model.schema.names if name not in model.identities]


@dataclass(frozen=True)
class Drawn:
    """The candidates of a tile that were accepted, and their columns."""

    candidates: Candidates
    columns: dict[str, ColumnArray]


def draw(model: Model, columns: list[str], where: tuple[Predicate, ...] = (), tile: int = 0, seed: int = 1) -> Drawn:
    proposal = propose(model.synthesizer, canonical(where, model.schema), columns)
    key = StreamKey(model.digest, bytes(32), seed).tile(0, tile)
    found = proposal.candidates(key, SIZE)
    return Drawn(found, proposal.finish(found, key).columns)


def raw(column: ColumnArray) -> tuple[bytes, bytes]:
    return column.values.tobytes(), column.missing().tobytes()


def same(one: Any, two: Any) -> bool:
    return {name: raw(column) for name, column in one.columns.items()} == {
        name: raw(column) for name, column in two.columns.items()
    }


def test_a_tile_holds_the_requested_columns_in_order(model: Model) -> None:
    tile = draw(model, modelled(model))
    assert list(tile.columns) == modelled(model)
    assert model.schema.names == model.synthesizer.schema.names
    assert tile.candidates.size == SIZE
    assert {len(column) for column in tile.columns.values()} == {SIZE}


def test_columns_are_in_their_native_scale(model: Model) -> None:
    kinds = {name: column.values.dtype for name, column in draw(model, modelled(model)).columns.items()}
    coded = ("city", "state", "grade", "paid", "word", "nothing")
    assert {name for name, kind in kinds.items() if kind == np.int32} == set(coded)
    assert {name for name, kind in kinds.items() if kind == np.float64} == {"price", "noise", "void"}
    assert {name for name, kind in kinds.items() if kind == np.int64} == set(kinds) - {*coded, "price", "noise", "void"}


def test_a_tile_is_a_pure_function_of_its_key(model: Model) -> None:
    names = modelled(model)
    first = draw(model, names)
    draw(model, names, tile=1)
    assert same(first, draw(model, names))
    assert not same(first, draw(model, names, tile=1))
    assert not same(first, draw(model, names, seed=2))


WHERE: list[tuple[Predicate, ...]] = [
    (),
    (Predicate("city", AnyOf(("Oslo", "Rome"))),),
    (Predicate("age", Range(minimum=25, maximum=50)),),
    (Predicate("state", IsNull()),),
    (Predicate("gain", IsNull(null=False)), Predicate("paid", AnyOf((True, None)))),
    (Predicate("seen", Range(minimum=datetime(2013, 3, 1))),),  # noqa: DTZ001
    (Predicate("city", AnyOf(("Paris",))), Predicate("price", Range(maximum=20.0)), Predicate("same", AnyOf((7,)))),
]


@pytest.mark.parametrize("where", WHERE)
def test_accepted_rows_satisfy_the_conditions(model: Model, where: tuple[Predicate, ...]) -> None:
    tile = draw(model, modelled(model), where)
    assert tile.candidates.size > 0
    for condition in canonical(where, model.schema):
        assert condition.satisfied(tile.columns[condition.column]).all()
        assert len(tile.columns[condition.column]) == tile.candidates.size


@pytest.mark.parametrize("where", WHERE)
def test_projection_changes_no_value(model: Model, where: tuple[Predicate, ...]) -> None:
    whole = draw(model, modelled(model), where)
    for names in (["price"], ["void", "city"], ["paid", "age", "noise"]):
        part = draw(model, names, where)
        assert list(part.columns) == names
        assert {name: raw(column) for name, column in part.columns.items()} == {
            name: raw(whole.columns[name]) for name in names
        }


@pytest.mark.parametrize("where", WHERE)
def test_every_kernel_gives_the_same_bytes(artifact: Artifact, model: Model, where: tuple[Predicate, ...]) -> None:
    other = load(artifact, "onnxruntime")
    assert same(draw(model, modelled(model), where), draw(other, modelled(model), where))


def test_conditions_change_only_which_candidates_are_kept(model: Model) -> None:
    where = (Predicate("city", AnyOf(("Oslo",))),)
    (condition,) = canonical(where, model.schema)
    whole, part = draw(model, modelled(model)), draw(model, modelled(model), where)
    if not whole.candidates.latents:
        return  # nothing ties the columns of a row together: each may be drawn from its own restricted distribution
    kept = np.flatnonzero(condition.satisfied(whole.columns["city"]))
    assert raw(part.columns["city"]) == raw(whole.columns["city"].take(kept))
    assert {name: array.tolist() for name, array in part.candidates.latents.items()} == {
        name: array[kept].tolist() for name, array in whole.candidates.latents.items()
    }


@pytest.mark.parametrize("where", WHERE)
def test_rows_of_a_candidate_are_drawn_again_with_another_key(model: Model, where: tuple[Predicate, ...]) -> None:
    names = modelled(model)
    proposal = propose(model.synthesizer, canonical(where, model.schema), names)
    stream = StreamKey(model.digest, bytes(32), 1)
    found = proposal.candidates(stream.tile(0, 0), SIZE)
    one, other = (proposal.finish(found, stream.tile(block, 0)).columns for block in (1, 2))
    # Where conditions are met by construction, nothing is tested: the candidates hold no cell.
    exact = model.capabilities.conditions is ConditionSupport.EXACT
    tested = set() if exact else {condition.column for condition in canonical(where, model.schema)}
    assert {name for name in names if raw(one[name]) == raw(other[name])} >= tested
    assert {name for name in names if raw(one[name]) != raw(other[name])} >= {"noise", "instant"} - tested
    # A row depends on its own candidate and place alone.
    few = proposal.finish(found.first(5), stream.tile(1, 0)).columns
    assert {name: raw(few[name]) for name in names} == {
        name: raw(one[name].take(slice(0, few_rows(few)))) for name in names
    }


def few_rows(columns: dict[str, ColumnArray]) -> int:
    return len(next(iter(columns.values())))


@pytest.mark.parametrize("where", WHERE)
def test_the_conditioned_column_is_one_of_those_tested(model: Model, where: tuple[Predicate, ...]) -> None:
    tests = canonical(where, model.schema)
    assert model.synthesizer.conditioned_column(tests) in ("", *(test.column for test in tests))


@pytest.mark.parametrize("where", WHERE)
def test_acceptance_is_what_the_capabilities_say(model: Model, where: tuple[Predicate, ...]) -> None:
    proposal = propose(model.synthesizer, canonical(where, model.schema), ["age"])
    exact = not where or model.capabilities.conditions is ConditionSupport.EXACT
    assert proposal.acceptance == (1.0 if exact else None)
    if exact:
        key = StreamKey(model.digest, bytes(32), 1)
        assert [proposal.candidates(key.tile(0, tile), SIZE).size for tile in range(3)] == [SIZE] * 3


@pytest.mark.parametrize("where", WHERE)
def test_the_first_candidates_of_a_tile_are_the_same_however_many_are_drawn(
    model: Model, where: tuple[Predicate, ...]
) -> None:
    proposal = propose(model.synthesizer, canonical(where, model.schema), modelled(model))
    key = StreamKey(model.digest, bytes(32), 1).tile(0, 0)
    few, many = (proposal.candidates(key, size) for size in (SIZE // 4 + 1, SIZE))
    first, made = proposal.finish(few, key).columns, proposal.finish(many.first(few.size), key).columns
    assert few.size or where
    for name in modelled(model):
        assert raw(first[name]) == raw(made[name]), name


@pytest.mark.parametrize("where", WHERE)
def test_the_same_question_has_the_same_plan(model: Model, where: tuple[Predicate, ...]) -> None:
    tests = canonical(where, model.schema)
    one, other = (propose(model.synthesizer, tests, columns).plan_inputs for columns in ((), ["age", "city"]))
    assert one == other
    assert compile_plan(model.digest, model.synthesizer, tests) == compile_plan(model.digest, model.synthesizer, tests)


WEIGHTS = Weights("city", (WeightedTest(AnyOf(("Oslo",)), 3), WeightedTest(AnyOf(("Rome", "Paris")), 1)))


def test_weights_give_their_shares_or_are_refused(model: Model) -> None:
    where, weights = canonical_weights(WEIGHTS, canonical(WHERE[2], model.schema), model.schema)
    if model.capabilities.conditions is ConditionSupport.REJECTION:
        with pytest.raises(InvalidConditionError, match="column 'city' cannot have weights"):
            propose(model.synthesizer, where, ["city"], weights)
        return
    proposal = propose(model.synthesizer, where, ["age", "city"], weights)
    assert proposal.acceptance == 1
    assert proposal.probability is not None
    assert 0 < proposal.probability < 1
    key = StreamKey(model.digest, bytes(32), 3).tile(0, 0)
    columns = proposal.finish(proposal.candidates(key, 4096), key).columns
    assert all(test.satisfied(columns[test.column]).all() for test in where)
    held = [int(entry.condition.satisfied(columns["city"]).sum()) for entry in weights.entries]
    assert sum(held) == 4096
    for count, entry in zip(held, weights.entries, strict=True):
        assert count / 4096 == pytest.approx(entry.share, abs=5 * math.sqrt(0.75 * 0.25 / 4096))


@pytest.mark.parametrize("where", WHERE)
def test_the_probability_of_conditions_is_known_or_unknown(model: Model, where: tuple[Predicate, ...]) -> None:
    found = propose(model.synthesizer, canonical(where, model.schema), ()).probability
    if not where:
        assert found == 1
    elif model.capabilities.likelihood:
        assert found is not None
        assert 0 < found < 1
    else:
        assert found is None


def test_a_row_is_a_unit_where_the_family_says_so(model: Model) -> None:
    proposal = propose(model.synthesizer, (), ["age"])
    key = StreamKey(model.digest, bytes(32), 1).tile(0, 0)
    made = proposal.finish(proposal.candidates(key, 7), key)
    assert (made.offsets is None) == (model.capabilities.unit is Unit.ROW)


def test_the_manifest_holds_the_capabilities(artifact: Artifact, model: Model, family: str) -> None:
    body = json.loads(artifact.manifest)
    declared = family_named(family).capabilities
    assert model.capabilities == declared == Capabilities.from_json(body["capabilities"])
    assert "capabilities" not in body["generator"]  # no row depends on them: model digests of before are what they were
    # Models of before they were stored have those of their family.
    del body["capabilities"]
    older = read_model(rfc8785.dumps(body), artifact.weights, choose_kernel("numpy"))
    assert older.capabilities == synthesizer_family(body["generator"]["family"]).capabilities
    body["capabilities"] = {**declared.to_json(), "conditions": "magic"}
    with pytest.raises(DataLossError, match="magic"):
        read_model(rfc8785.dumps(body), artifact.weights, choose_kernel("numpy"))


def test_rows_and_ids_come_by_block(model: Model) -> None:
    plan = compile_plan(model.digest, model.synthesizer, canonical(WHERE[1], model.schema))
    source = RowSource(model, plan, 9, model.schema.names)
    long, short = source.block(0, min(200, plan.block_size)), source.block(0, 10)
    for name, column in short.columns.items():
        assert raw(column) == raw(long.columns[name].take(slice(0, 10))), name
    keys = long.columns["key"].values.tolist()
    assert len(set(keys)) == len(keys)


def test_a_completed_row_keeps_what_is_known(model: Model) -> None:
    key = StreamKey(model.digest, bytes(32), 4)
    completer = model.synthesizer.completer(key.tile(0, 0), CompletionOptions(256, 0.5))
    known = {"city": "Paris", "age": 31, "state": None, "seen": datetime(2013, 5, 6)}  # noqa: DTZ001
    (done,) = finish(completer.complete([known], RowKeys(key, 0, 1, 1)))
    assert {name: done.cells[name] for name in known} == known
    assert set(done.cells) == set(modelled(model))
    assert finish(completer.complete([{}, known], RowKeys(key, 0, 0, 0)))[1] == done
    supported = done.support is not CompletionSupport.UNSUPPORTED
    assert (0 < done.effective_sample_size <= 256) if supported else done.effective_sample_size == 0


def test_cells_that_the_model_makes_have_support(model: Model) -> None:
    columns = modelled(model)
    made = draw(model, columns).columns
    key = StreamKey(model.digest, bytes(32), 5)
    completer = model.synthesizer.completer(key.tile(0, 0), CompletionOptions(512, 0.5))
    (nothing,) = finish(completer.complete([{}], RowKeys(key, 0, 1, 1)))
    tolerance = 0.0 if model.capabilities.likelihood else 0.5  # an exact draw needs no kernel
    assert (nothing.support, nothing.tolerance) == (CompletionSupport.MATCHED, tolerance)
    for name in columns:
        (cell,) = column_cells(made[name].take(slice(0, 1)), model.schema.column(name))
        (done,) = finish(completer.complete([{name: cell}], RowKeys(key, 0, 2, 2)))
        assert done.support is not CompletionSupport.UNSUPPORTED, name
        assert done.chosen is None or 0 <= done.chosen < 512


def test_rows_are_scored_where_the_family_says_so(model: Model) -> None:
    assert isinstance(model.synthesizer, LikelihoodSynthesizer) >= model.capabilities.likelihood
    if not isinstance(model.synthesizer, LikelihoodSynthesizer):
        return
    columns = modelled(model)
    made = draw(model, columns).columns
    cells = {name: column_cells(made[name].take(slice(0, 20)), model.schema.column(name)) for name in columns}
    rows = [{name: cells[name][row] for name in columns[: row % (len(columns) + 1)]} for row in range(20)]
    scorer = model.synthesizer.scorer(lambda: False)
    scores = finish(scorer.score(rows))
    assert not scores.impossible.any()
    assert np.isfinite(scores.log_probability).all()
    assert scores.log_probability[0] == 0.0
    # A row's score is its own, and a cell more never makes a row of probabilities likelier.
    assert [finish(scorer.score([row])).log_probability[0] for row in rows] == scores.log_probability.tolist()
    coded = [name for name in columns if is_coded(model.schema.column(name))]
    whole = {name: cells[name][1] for name in coded}
    logs = finish(scorer.score([dict(list(whole.items())[:count]) for count in range(len(whole) + 1)])).log_probability
    assert (np.diff(logs) <= 0).all()
    with pytest.raises(CancelledError):
        finish(model.synthesizer.scorer(lambda: True).score(rows))


def test_cells_are_of_the_columns_types(model: Model) -> None:
    table = full_table()
    tile = draw(model, modelled(model))
    for name, column in tile.columns.items():
        real = {type(cell) for cell in table.cells[name] if cell is not None}
        made = {type(cell) for cell in column_cells(column, model.schema.column(name)) if cell is not None}
        assert made <= real, name
