"""Joint columns: which columns are found to decide others together, and what a fitted circuit makes of them."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rowmint.codecs import NumericCodec
from rowmint.schema import Cell, ColumnKind, DataType, TableSchema
from rowmint.steps import finish
from rowmint.synthesizer.circuit.arrays import read_circuit
from rowmint.synthesizer.circuit.synthesizer import CircuitSynthesizer
from rowmint.synthesizer.heads import column_heads
from tests.tables_to_fit import TableToFit, column, encode_rows, fit_table, load, sample
from trainer_service.config import TrainingConfig
from trainer_service.fitting.context import FitContext
from trainer_service.fitting.encoding.encoded_table import EncodedRows, EncodedTable
from trainer_service.fitting.families.circuit.bins import column_bins
from trainer_service.fitting.families.circuit.config import CircuitConfig
from trainer_service.fitting.families.circuit.fitter import CircuitFitter
from trainer_service.fitting.families.circuit.joint import Joint, beside, joint_columns
from trainer_service.fitting.families.circuit.structure import Structure, find_structure
from trainer_service.fitting.families.circuit.whole import ONE
from trainer_service.fitting.options import ColumnOverride, ExportOptions

ROWS = 4_000
MOST = 256
Columns = Mapping[str, NDArray[np.int64]]


def coded(columns: Columns) -> EncodedTable:
    """Return a table of codes that no codec belongs to."""
    choices = np.stack(list(columns.values()), axis=1).astype(np.uint16)
    counts = tuple(np.bincount(own) for own in choices.T)
    alpha = np.zeros((len(choices), 0), np.float32)
    return EncodedTable((), len(choices), choices, alpha, counts, EncodedRows(choices[:0], alpha[:0]))


def found(columns: Columns, most: int = MOST) -> list[set[str]]:
    """Return the names of the columns of each joint column."""
    table, names = coded(columns), list(columns)
    order = np.random.default_rng(0).permutation(table.rows)
    joints = joint_columns(table, range(len(names)), order, most, lambda: None)
    for joint in joints:
        distinct, counts = np.unique(table.choices[:, joint.columns], axis=0, return_counts=True)
        assert (joint.parts.tolist(), joint.counts.tolist()) == (distinct.tolist(), counts.tolist())
    return [{names[place] for place in joint.columns} for joint in joints]


def flown(rows: int = ROWS, towns: int = 20, seed: int = 1) -> dict[str, NDArray[np.int64]]:
    """Return routes from three towns, their distance, and two columns that have nothing to do with it."""
    draws = np.random.default_rng(seed)
    start, end = draws.integers(0, 3, rows), draws.integers(0, towns, rows)
    distance = draws.integers(0, 15, (3, towns))
    other = draws.integers(0, 6, (2, rows))
    return {"start": start, "this": other[0], "end": end, "distance": distance[start, end], "that": other[1]}


ROUTE = {"start", "end", "distance"}


def test_what_two_columns_decide_together_is_found() -> None:
    assert found(flown()) == [ROUTE]


def test_a_route_of_two_distances_is_an_exception() -> None:
    columns = flown()
    twice = np.flatnonzero((columns["start"] == 1) & (columns["end"] == 4))[::2]
    columns["distance"][twice] += 1
    assert found(columns) == [ROUTE]


def test_all_that_the_two_decide_is_of_one_joint_column() -> None:
    columns = flown()
    zone = np.random.default_rng(2).integers(0, 3, (3, 20))
    columns["zone"] = zone[columns["start"], columns["end"]]
    assert found(columns) == [{*ROUTE, "zone"}]


def test_a_column_is_of_one_joint_column_at_most() -> None:
    columns = flown()
    draws = np.random.default_rng(3)
    by = draws.integers(0, 30, (20, 8))
    columns["that"] = draws.integers(0, 8, ROWS)
    columns["fee"] = by[columns["end"], columns["that"]]  # 160 pairs; the routes are 60
    assert found(columns) == [ROUTE]
    apart = {f"second {name}": values for name, values in flown(seed=4).items()}
    assert found({**columns, **apart}) == [ROUTE, {f"second {name}" for name in ROUTE}]


def changed(**columns: NDArray[np.int64]) -> Columns:
    return {**flown(), **columns}


def decided_alone(exceptions: int) -> NDArray[np.int64]:
    """Return distances that the end decides, but for some rows of the first routes."""
    columns = flown()
    distance = columns["end"] * 3
    for route in range(exceptions):
        distance[(columns["end"] == route) & (columns["start"] == 0)] += 1
    return distance


@pytest.mark.parametrize(
    "columns",
    [
        changed(distance=np.random.default_rng(5).integers(0, 60, ROWS)),
        changed(distance=decided_alone(0)),
        changed(distance=decided_alone(3)),
        changed(distance=(np.arange(ROWS) == 7).astype(np.int64)),
        changed(distance=np.where(np.arange(ROWS) % 40 == 0, 99, flown()["distance"])),
        flown(rows=90),
        flown(towns=400),
        {**flown(), **{f"more {place}": np.arange(ROWS) % 2 for place in range(60)}},
    ],
    ids=[
        "by chance",
        "one column decides",
        "one column decides but for few",
        "nearly always the same",
        "many exceptions",
        "few rows",
        "combinations of single rows",
        "many columns",
    ],
)
def test_other_columns_are_not_joined(columns: Columns) -> None:
    assert found(columns, most=4096) == []


def test_there_are_no_more_combinations_than_bins() -> None:
    assert found(flown(), most=60) == [ROUTE]
    assert found(flown(), most=59) == []


def test_a_search_ends_where_it_is_stopped() -> None:
    calls = iter(range(5))

    def between() -> None:
        if next(calls, None) is None:
            raise InterruptedError

    table = coded(flown())
    with pytest.raises(InterruptedError):
        joint_columns(table, range(5), np.arange(ROWS), MOST, between)


def test_rows_are_looked_up_and_a_new_combination_is_one_near_by() -> None:
    rows = np.array([[0, 9, 3], [0, 9, 5], [1, 9, 4], [1, 9, 6], [1, 9, 6], [1, 9, 9]])
    joint = Joint.of((2, 0), rows, 9)
    assert joint is not None
    assert (joint.columns, joint.counts.tolist()) == ((0, 2), [1, 1, 1, 2, 1])
    codes, seen = joint.choices(np.concatenate([rows, [[0, 9, 4], [1, 9, 3], [0, 9, 8], [7, 9, 9], [1, 9, 10]]]))
    assert codes.tolist() == [0, 1, 2, 3, 3, 4, 1, 2, 1, 4, 4]
    assert seen.tolist() == [True] * 6 + [False] * 5
    assert beside(rows, [joint])[:, 3].tolist() == codes[:6].tolist()
    assert Joint.of((2, 0), rows, 4) is None


@pytest.fixture(scope="module")
def routes() -> TableToFit:
    """Routes as rows of a table, with the country that the end is in."""
    columns = flown()
    values: dict[str, list[Cell]] = {
        "start": [f"s{one}" for one in columns["start"]],
        "end": [f"e{one:02}" for one in columns["end"]],
        "country": [f"c{one % 4}" for one in columns["end"]],
        "distance": (columns["distance"] * 10).tolist(),
        "speed": (columns["distance"] // 2 + columns["this"]).tolist(),
    }
    kinds = {name: isinstance(cells[0], str) for name, cells in values.items()}
    specs = [
        column(
            name,
            ColumnKind.CATEGORICAL if text else ColumnKind.NUMERICAL,
            DataType.STRING if text else DataType.INT64,
        )
        for name, text in kinds.items()
    ]
    return TableToFit(values, TableSchema(tuple(specs)))


@pytest.fixture(scope="module")
def table(routes: TableToFit, tmp_path_factory: pytest.TempPathFactory) -> EncodedTable:
    return encode_rows(routes, TrainingConfig(CircuitConfig(), seed=2), tmp_path_factory.mktemp("routes"))


def structure_of(table: EncodedTable) -> Structure:
    return find_structure(table, np.arange(table.rows), CircuitConfig(), seed=1, least=10, between=lambda: None)


def test_functions_of_a_joined_column_are_looked_up_from_the_joint(table: EncodedTable) -> None:
    structure = structure_of(table)
    (joint,) = structure.joints
    assert joint.columns == (0, 1, 3)
    assert {place: one.of for place, one in structure.derived.items()} == {0: 5, 1: 5, 2: 5, 3: 5}
    every = beside(table.choices, structure.joints)
    for place, one in structure.derived.items():
        assert (one.choices[every[:, 5]] == table.choices[:, place]).all()
    assert structure.tree.order == (5, 4)


def test_the_joint_column_has_the_order_of_its_numbers_and_is_the_root(table: EncodedTable) -> None:
    structure = structure_of(table)
    (joint,) = structure.joints
    distance = joint.part(3)
    bins = structure.bins[5].of
    order = np.argsort(bins, kind="stable")
    assert (np.diff(distance[order]) >= 0).all()
    assert structure.bins[5].groups.max() == 31
    assert structure.tree.root == 5


def test_combinations_have_the_order_of_a_number_and_those_without_it_come_last() -> None:
    empty = np.zeros(0)
    codec = NumericCodec(True, 0, 1, 0, True, True, 1.0, 3.0, empty, empty, np.array([1.0, 2.0, 3.0]))
    counts, number = np.array([20, 20, 4, 20, 6, 20]), np.array([3, 2, 0, 0, 1, 3])  # 3 is missing
    found = column_bins(codec, counts, None, of_choice=number, most=8, least=10, most_groups=8)
    assert found.of.tolist() == [2, 1, 0, 0, 1, 3]
    assert found.counts.tolist() == [24, 26, 20, 20]


def test_a_bin_of_combinations_rests_on_the_rows_that_the_strictest_column_requires(
    routes: TableToFit, tmp_path: Path
) -> None:
    override = ColumnOverride("end", min_category_count=100)
    table = encode_rows(routes, TrainingConfig(CircuitConfig(), seed=2, column_overrides=(override,)), tmp_path)
    structure = structure_of(table)
    assert (structure.joints[0].counts < 100).any()
    assert structure.bins[5].counts.min() >= 100


def test_rows_of_a_new_combination_count_as_one_near_by_of_the_least_weight(table: EncodedTable) -> None:
    structure = structure_of(table)
    rows = np.asarray(table.choices[:50]).copy()
    before = structure.within_bins(rows)
    near = rows.copy()
    near[0, 3] = (near[0, 3] + 1) % 15  # a distance that this route does not have
    codes = beside(near, structure.joints)[:, 5]
    own = structure.bins[5].weights[codes[0]] / structure.bins[5].weights[beside(rows, structure.joints)[0, 5]]
    after = structure.within_bins(near)
    assert after[1:].tolist() == before[1:].tolist()
    assert after[0] - before[0] == pytest.approx(np.log(own) - np.log(ONE))


def test_published_rows_have_training_rows_combinations(routes: TableToFit, tmp_path: Path) -> None:
    model = load(fit_table(routes, TrainingConfig(CircuitConfig(epochs=3), seed=1), tmp_path))
    names = ("start", "end", "country", "distance")
    made = sample(model, 20_000, 1)
    seen = set(zip(*(routes.cells[name] for name in names), strict=True))
    assert set(zip(*(made[name] for name in names), strict=True)) == seen


def test_rows_made_while_fitting_have_training_rows_combinations(table: EncodedTable, tmp_path: Path) -> None:
    fitter = CircuitFitter(table, CircuitConfig(epochs=1, states=4), FitContext(tmp_path, seed=1))
    made = fitter.sample(2_000)
    assert (made.choices.dtype, made.choices.shape) == (table.choices.dtype, (2_000, 5))
    seen = set(map(tuple, table.choices[:, :4].tolist()))
    assert set(map(tuple, made.choices[:, :4].tolist())) <= seen


def test_a_score_is_the_likelihood_that_was_fitted(routes: TableToFit, table: EncodedTable, tmp_path: Path) -> None:
    fitter = CircuitFitter(table, CircuitConfig(epochs=2, states=4), FitContext(tmp_path, seed=1))
    for number in range(fitter.steps_per_epoch):
        fitter.step(number)
    network = fitter.export(ExportOptions())
    assert network.body["joint"] == [60]
    rows = np.asarray(table.choices[:200])
    expected = fitter.log_likelihood(rows) + fitter._structure.within_bins(rows)
    schema = TableSchema(tuple(one.spec for one in table.fitted))
    circuit = read_circuit(json.loads(json.dumps(network.body)), network.arrays, [one.choices for one in table.codecs])
    synthesizer = CircuitSynthesizer(schema, column_heads(schema.columns, table.codecs), circuit)
    cells = [dict(zip(routes.cells, row, strict=True)) for row in zip(*routes.cells.values(), strict=True)][:200]
    scores = finish(synthesizer.scorer(lambda: False).score(cells))
    assert not scores.impossible.any()
    assert scores.log_probability == pytest.approx(expected, abs=1e-4)
    cells[0]["distance"] = next(other["distance"] for other in cells if other["distance"] != cells[0]["distance"])
    assert finish(synthesizer.scorer(lambda: False).score(cells[:2])).impossible.tolist() == [True, False]


def test_a_resumed_fit_ends_the_same(table: EncodedTable, tmp_path: Path) -> None:
    config = CircuitConfig(epochs=2, states=4)

    def fitter() -> CircuitFitter:
        return CircuitFitter(table, config, FitContext(tmp_path, seed=3))

    whole_fit, first, second = fitter(), fitter(), fitter()
    for number in range(whole_fit.epochs * whole_fit.steps_per_epoch):
        whole_fit.step(number)
        if number == first.steps_per_epoch + 2:
            second.load_state(first.state())
        (first if number < first.steps_per_epoch + 2 else second).step(number)
    networks = [one.export(ExportOptions()) for one in (whole_fit, second)]
    assert networks[0].body == networks[1].body
    assert {name: array.tobytes() for name, array in networks[0].arrays.items()} == {
        name: array.tobytes() for name, array in networks[1].arrays.items()
    }
