"""How a circuit is fitted: expected counts beside a slow oracle, bins, derived columns, the tree, whole numbers."""

import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rowmint.codecs import CategoryCodec, NumericCodec
from rowmint.schema import Cell, ColumnKind, DataType, TableSchema
from rowmint.synthesizer.circuit.arrays import read_circuit
from tests.tables_to_fit import TableToFit, column, encode_rows, fit_table, load, sample
from trainer_service.config import TrainingConfig
from trainer_service.fitting.context import FitContext
from trainer_service.fitting.encoding.encoded_table import EncodedTable
from trainer_service.fitting.families.circuit.backoff import gain, pair_table
from trainer_service.fitting.families.circuit.bins import MAX_BINS, ColumnBins, column_bins
from trainer_service.fitting.families.circuit.config import CircuitConfig
from trainer_service.fitting.families.circuit.derived import derived_columns
from trainer_service.fitting.families.circuit.fitter import CircuitFitter
from trainer_service.fitting.families.circuit.model import CircuitModel, Smoothing
from trainer_service.fitting.families.circuit.tree import Tree, maximum_tree, spanning_tree
from trainer_service.fitting.families.circuit.whole import ONE, whole, whole_by_group
from trainer_service.fitting.options import ColumnOverride, ExportOptions

STATES, COMPONENTS = 3, 2
SIZES = {0: 3, 1: 2, 2: 4, 3: 2}
TREE = Tree((1, 0, 2, 3), {0: 1, 2: 1, 3: 2}, {1: (0, 2), 0: (), 2: (3,), 3: ()})
ROWS = 60


def even_bins(codes: NDArray[np.int64], size: int) -> ColumnBins:
    counts = np.bincount(codes, minlength=size).astype(np.float64)
    every = np.arange(size)
    return ColumnBins(every.astype(np.uint16), counts, np.full(size, ONE, np.uint32), every)


@pytest.fixture
def codes() -> dict[int, NDArray[np.int64]]:
    draws = np.random.default_rng(4)
    return {place: draws.integers(0, size, ROWS) for place, size in SIZES.items()}


@pytest.fixture
def model(codes: dict[int, NDArray[np.int64]]) -> CircuitModel:
    bins = {place: even_bins(codes[place], size) for place, size in SIZES.items()}
    joint = {
        place: np.bincount(codes[parent] * SIZES[place] + codes[place], minlength=SIZES[parent] * SIZES[place]).reshape(
            SIZES[parent], SIZES[place]
        )
        for place, parent in TREE.parents.items()
    }
    pairs = {place: pair_table(joint[place], bins[parent], bins[place]) for place, parent in TREE.parents.items()}
    return CircuitModel(
        TREE,
        bins,
        pairs,
        seeds={place: codes[place][:STATES] for place in SIZES},
        rows=ROWS,
        components=COMPONENTS,
        smoothing=Smoothing(states=0.1, emission=0.5, pairs=1.5),
        draws=np.random.default_rng(1),
    )


def probabilities(model: CircuitModel) -> Callable[[dict[int, int], dict[int, int], dict[int, int]], float]:
    """Return P(row, states, components) of one row, by the definition."""

    def joint(row: dict[int, int], states: dict[int, int], components: dict[int, int]) -> float:
        likely = 1.0
        for place in TREE.order:
            found = model.columns[place]
            state, own = states[place], components[place]
            if place == TREE.root:
                likely *= float(found.states[0, state]) * float(found.emission[row[place], state])
                continue
            parent = TREE.parents[place]
            likely *= float(found.states[states[parent], state]) * float(found.mixture[state, own])
            if own == 0:
                likely *= float(found.emission[row[place], state])
            else:
                pairs = found.pairs
                assert pairs is not None
                at = pairs.place[row[parent] * SIZES[place] + row[place]]
                strength = model.smoothing.pairs
                behind = float(pairs.rest[row[parent]] * pairs.backoff[pairs.group[row[parent]], row[place]])
                counted = float(found.pair_counts[at, own - 1] + strength * pairs.shares[at]) if at >= 0 else 0.0
                total = float(found.pair_totals[row[parent], own - 1]) + strength
                likely *= (counted + strength * behind) / total
        return likely

    return joint


def hidden() -> list[tuple[dict[int, int], dict[int, int]]]:
    """Return every assignment of states and components."""
    places = TREE.order
    components = [(0,) if place == TREE.root else tuple(range(COMPONENTS + 1)) for place in places]
    return [
        (dict(zip(places, states, strict=True)), dict(zip(places, own, strict=True)))
        for states in itertools.product(range(STATES), repeat=len(places))
        for own in itertools.product(*components)
    ]


def test_likelihoods_are_sums_over_all_that_is_hidden(
    model: CircuitModel, codes: Mapping[int, NDArray[np.int64]]
) -> None:
    joint, every = probabilities(model), hidden()
    rows = {place: codes[place][:4] for place in SIZES}
    expected = [
        np.log(sum(joint({place: int(rows[place][row]) for place in SIZES}, *one) for one in every)) for row in range(4)
    ]
    assert model.log_likelihood(rows) == pytest.approx(expected, rel=1e-5)


def test_all_rows_together_are_certain(model: CircuitModel) -> None:
    every = np.array(list(itertools.product(*(range(SIZES[place]) for place in sorted(SIZES)))))
    logs = model.log_likelihood({place: every[:, place] for place in SIZES})
    assert np.exp(logs).sum() == pytest.approx(1, rel=1e-5)


def test_a_step_counts_what_is_expected(model: CircuitModel, codes: Mapping[int, NDArray[np.int64]]) -> None:
    joint, every = probabilities(model), hidden()
    batch = {place: codes[place][:5] for place in SIZES}
    expected: dict[str, NDArray[np.float64]] = {name: np.zeros(array.shape) for name, array in model.state().items()}
    for row in range(5):
        cells = {place: int(batch[place][row]) for place in SIZES}
        likely = np.array([joint(cells, *one) for one in every])
        for (states, own), share in zip(every, likely / likely.sum(), strict=True):
            for place in TREE.order:
                found, parent = model.columns[place], TREE.parents.get(place)
                expected[f"state.{place}"][0 if parent is None else states[parent], states[place]] += share
                if own[place] == 0:
                    expected[f"emission.{place}"][cells[place], states[place]] += share
                if parent is not None and found.pairs is not None:
                    expected[f"mixture.{place}"][states[place], own[place]] += share
                    if own[place]:
                        at = found.pairs.place[cells[parent] * SIZES[place] + cells[place]]
                        expected[f"pair.{place}"][at, own[place] - 1] += share
                        expected[f"totals.{place}"][cells[parent], own[place] - 1] += share
    model.step(batch, 1.0)
    for name, counts in model.state().items():
        if name != f"mixture.{TREE.root}":  # the root mixes nothing
            assert counts == pytest.approx(expected[name] * ROWS / 5, rel=1e-3, abs=1e-4), name


def test_whole_batches_never_make_the_rows_less_likely(
    model: CircuitModel, codes: Mapping[int, NDArray[np.int64]]
) -> None:
    model.smoothing = Smoothing(states=1e-4, emission=1e-4, pairs=1e-4)
    likely = [model.step(codes, 1.0) for _ in range(12)][2:]
    assert np.diff(likely).min() > -1e-3
    assert likely[-1] > likely[0]


@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=9), min_size=1, max_size=6))
def test_whole_numbers_sum_to_one_and_leave_none_out(rows: list[list[float]]) -> None:
    rows = [[*row, 0.5] for row in rows]
    starts = np.cumsum([0, *map(len, rows)])[:-1]
    flat = np.concatenate([np.array(row) for row in rows])
    made = whole_by_group(flat, starts)
    assert np.add.reduceat(made.astype(np.int64), starts).tolist() == [ONE] * len(rows)
    assert ((made > 0) == (flat > 0)).all()
    for row, start in zip(rows, starts.tolist(), strict=True):
        one = whole(np.array(row))
        assert int(one.sum()) == ONE
        assert np.abs(one / ONE - np.array(row) / sum(row)).max() < 2 * len(row) / ONE
        assert np.abs(one.astype(int) - made[start : start + len(row)].astype(int)).max() <= 2


def category(counts: list[int]) -> tuple[CategoryCodec, NDArray[np.int64]]:
    return CategoryCodec(len(counts), len(counts), False, np.zeros(0, np.uint64)), np.array(counts)


def numeric(points: list[float], *, nullable: bool = False) -> NumericCodec:
    empty = np.zeros(0)
    return NumericCodec(True, 0, 1, 0, True, nullable, points[0], points[-1], empty, empty, np.array(points))


@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.integers(2, 12), st.integers(1, 12))
def test_bins_rest_on_enough_rows(counts: list[int], most: int, least: int) -> None:
    codec = numeric([float(place) for place in range(len(counts))])
    found = column_bins(codec, np.array(counts), None, most=most, least=least, most_groups=4)
    assert found.counts.sum() == sum(counts)
    assert found.size == 1 or found.counts.min() >= least
    assert found.size <= max(2 * most, 1) + 1
    # Neighbours in a bin, bins in order, groups in order.
    used = np.flatnonzero(counts)
    assert (np.diff(found.of[used].astype(int)) >= 0).all()
    assert (np.diff(found.groups) >= 0).all()
    assert found.groups.max() < max(4, 1) or found.size <= 4
    sums = np.bincount(found.of, found.weights.astype(np.float64), found.size)
    assert sums.tolist() == [ONE] * found.size


@pytest.mark.parametrize(
    ("counts", "most"),
    [([6] * 4000, 128), ([30] * 100 + [9] * 3000, 64), ([5000, 11] * 400, 512)],
    ids=["all rare", "some rare", "rare and frequent by turns"],
)
def test_bins_are_no_more_than_the_sampler_reads(counts: list[int], most: int) -> None:
    codec, rows = category(counts)
    for one in (codec, numeric([float(place) for place in range(len(counts))])):
        found = column_bins(one, rows, None, most=most, least=10, most_groups=32)
        assert found.size <= MAX_BINS
        assert found.counts.min() >= 10


def test_heavy_choices_have_a_bin_each_and_missing_comes_last() -> None:
    codec = numeric([1.0, 2.0, 3.0, 4.0], nullable=True)
    found = column_bins(codec, np.array([50, 4, 4, 50, 20]), None, most=8, least=10, most_groups=8)
    assert (found.of.tolist(), found.counts.tolist()) == ([0, 0, 0, 1, 2], [58, 50, 20])
    codec2, counts = category([30, 30, 3, 3, 3, 3])
    alike = np.array([0.0, 0.0, 5.0, 1.0, 6.0, 2.0])
    found = column_bins(codec2, counts, alike, most=12, least=6, most_groups=8)
    # The rare ones go together by how alike they are.
    assert len({found.of[0], found.of[1], found.of[3], found.of[2]}) == 4
    assert (found.of[3], found.of[2]) == (found.of[5], found.of[4])


def test_an_override_says_how_few_rows_a_bin_rests_on(tmp_path: Path) -> None:
    draws = np.random.default_rng(2)
    table = table_of(
        {
            "few": [f"v{one}" for one in (*range(8), *draws.integers(0, 3, 192))],
            "side": draws.integers(0, 3, 200).tolist(),
        }
    )
    sizes = []
    for least in (None, 1):
        override = ColumnOverride("few", min_category_count=least)
        config = TrainingConfig(CircuitConfig(), seed=2, column_overrides=(override,))
        fitter = CircuitFitter(encode_rows(table, config, tmp_path), CircuitConfig(), FitContext(tmp_path, seed=1))
        arrays = fitter.export(ExportOptions()).arrays
        sizes.append(int(arrays["bins.0.of"].max()) + 1)
    assert sizes == [3, 8]


def table_of(cells: Mapping[str, list[Cell]]) -> TableToFit:
    columns = []
    for name, values in cells.items():
        text = isinstance(values[0], str)
        kind = ColumnKind.CATEGORICAL if text else ColumnKind.NUMERICAL
        columns.append(column(name, kind, DataType.STRING if text else DataType.INT64))
    return TableToFit(dict(cells), TableSchema(tuple(columns)))


def encoded(table: TableToFit, folder: Path, **options: int) -> EncodedTable:
    return encode_rows(table, TrainingConfig(CircuitConfig(**options), seed=2), folder)


@pytest.fixture(scope="module")
def routes() -> TableToFit:
    """Towns with their country and distance, functions of the town; a number beside that is none of it."""
    draws = np.random.default_rng(3)
    town = draws.integers(0, 30, 1500)
    country = draws.permutation(30) % 5
    distance = draws.permutation(1000)[:30]
    return table_of(
        {
            "country": [f"c{country[one]}" for one in town],
            "town": [f"t{one:02}" for one in town],
            "distance": [int(distance[one]) for one in town],
            "other": draws.integers(0, 4, 1500).tolist(),
        }
    )


def test_functions_are_found_and_only_those(routes: TableToFit, tmp_path: Path) -> None:
    table = encoded(routes, tmp_path)
    found = derived_columns(table, np.random.default_rng(0).permutation(table.rows), lambda: None)
    # Town and distance tell each other: the first stays.
    assert {place: one.of for place, one in found.items()} == {0: 1, 2: 1}
    for place, one in found.items():
        assert (one.choices[table.choices[:, one.of]] == table.choices[:, place]).all()


def test_rows_that_agree_by_chance_make_no_function(tmp_path: Path) -> None:
    draws = np.random.default_rng(5)
    few = table_of({"many": list(range(40)), "flag": ["a"] * 39 + ["b"], "some": draws.integers(0, 12, 40).tolist()})
    table = encoded(few, tmp_path)
    assert derived_columns(table, np.arange(table.rows), lambda: None) == {}


def test_one_exception_is_enough_to_be_no_function(routes: TableToFit, tmp_path: Path) -> None:
    cells = {name: list(values) for name, values in routes.cells.items()}
    cells["country"][-1] = "c4" if cells["country"][-1] != "c4" else "c3"
    table = encoded(TableToFit(cells, routes.schema), tmp_path)
    assert set(derived_columns(table, np.arange(table.rows), lambda: None)) == {2}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_rows_keep_what_columns_are_of_each_other(routes: TableToFit, seed: int, tmp_path: Path) -> None:
    cells = {name: list(values) for name, values in routes.cells.items()}
    cells["country"][0] = "c4" if cells["country"][0] != "c4" else "c3"  # learned, not looked up
    table = TableToFit(cells, routes.schema)
    made = sample(load(fit_table(table, TrainingConfig(CircuitConfig(), seed=seed), tmp_path)), 20_000, seed)
    for one, other, most in (("town", "distance", 0.0), ("town", "country", 0.001)):
        seen = set(zip(cells[one], cells[other], strict=True))
        unseen = sum(pair not in seen for pair in zip(made[one], made[other], strict=True))
        assert unseen / 20_000 <= most, (one, other)


@given(st.integers(2, 5), st.randoms(use_true_random=False))
def test_the_tree_is_of_the_greatest_sum(columns: int, random: object) -> None:
    draws = np.random.default_rng(random.getrandbits(32))  # type: ignore[attr-defined]
    worth = draws.normal(0, 1, (columns, columns))
    worth += worth.T
    np.fill_diagonal(worth, 0)
    tree = spanning_tree(worth, list(range(columns)))
    best = max(
        sum(worth[edge] for edge in edges)
        for edges in itertools.combinations(itertools.combinations(range(columns), 2), columns - 1)
        if _spans(edges, columns)
    )
    assert sum(worth[edge] for edge in tree.parents.items()) == pytest.approx(best)
    assert tree.root == int(np.maximum(worth, 0).sum(1).argmax())
    first = spanning_tree(worth, list(range(columns)), [*[0.0] * (columns - 1), 1e6])
    assert (first.root, {frozenset(edge) for edge in first.parents.items()}) == (
        columns - 1,
        {frozenset(edge) for edge in tree.parents.items()},
    )
    assert all(tree.order.index(parent) < tree.order.index(child) for child, parent in tree.parents.items())


def _spans(edges: tuple[tuple[int, int], ...], columns: int) -> bool:
    reached = {0}
    for _ in edges:
        reached |= {end for edge in edges if reached & set(edge) for end in edge}
    return len(reached) == columns


def test_a_pair_is_worth_what_rows_left_out_gain() -> None:
    draws = np.random.default_rng(6)
    one = draws.integers(0, 3, 40)
    two = np.where(draws.random(40) < 0.6, one, draws.integers(0, 3, 40))
    codes = {0: one, 1: two}
    bins = [even_bins(codes[place], 3) for place in codes]

    def joint(rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(one[rows] * 3 + two[rows], minlength=9).reshape(3, 3)

    def likely(strength: float) -> float:
        """Return what all rows but one say of that one, given its first column, by turns."""
        total = 0.0
        for row in range(40):
            others = joint(np.delete(np.arange(40), row))
            alone = (others.sum(0) / 39)[two[row]]
            given = others[one[row]]
            total += np.log((given[two[row]] + strength * alone) / (given.sum() + strength))
        return total / 40

    everything = joint(np.arange(40))
    alone = np.log((everything.sum(0)[two] - 0.5) / 40.5).mean()
    # Groups are single bins here: their step learns the same again, and is worth no more than a little.
    assert gain(everything, *bins) == pytest.approx(max(map(likely, (0.5, 1, 2, 5, 10))) - alone, abs=0.02)


def test_columns_of_many_bins_are_worth_nothing_by_chance() -> None:
    draws = np.random.default_rng(7)
    codes = [draws.integers(0, 60, 2000), draws.integers(0, 60, 2000)]
    codes.append((codes[0] + draws.integers(0, 3, 2000)) % 60)
    bins = [even_bins(one, 60) for one in codes]

    def worth(one: int, two: int) -> float:
        return gain(np.bincount(codes[one] * 60 + codes[two], minlength=3600).reshape(60, 60), bins[one], bins[two])

    assert -0.1 < worth(0, 1) < 0.01
    # Of log 60 nats all but log 3 are known, and the pairs are seen often enough to be learned.
    assert worth(0, 2) == pytest.approx(np.log(20), abs=0.1)
    assert worth(2, 0) == pytest.approx(np.log(20), abs=0.1)


def test_of_many_columns_those_that_share_most_are_neighbours() -> None:
    draws = np.random.default_rng(8)
    codes = [draws.integers(0, 4, 600) for _ in range(30)]
    for place in range(30):
        codes.append((codes[place] + (draws.random(600) < 0.2)) % 4)
    looks = 0

    def between() -> None:
        nonlocal looks
        looks += 1

    tree = maximum_tree(codes, list(range(60)), [even_bins(one, 4) for one in codes], between)
    edges = {frozenset(edge) for edge in tree.parents.items()}
    assert edges >= {frozenset({place, place + 30}) for place in range(30)}
    assert looks > 60
    assert sorted(tree.order) == list(range(60))


def test_the_sampler_reads_the_probabilities_that_were_fitted(tmp_path: Path) -> None:
    draws = np.random.default_rng(8)
    group = draws.integers(0, 3, 800)
    table = encoded(
        table_of(
            {
                "a": [f"a{one}" for one in (group + draws.integers(0, 2, 800)) % 4],
                "b": (group * 10 + draws.integers(0, 5, 800)).tolist(),
                "c": [f"c{one}" for one in (group * draws.integers(1, 3, 800)) % 3],
            }
        ),
        tmp_path,
    )
    fitter = CircuitFitter(table, CircuitConfig(epochs=3, states=4, components=3), FitContext(tmp_path, seed=1))
    for number in range(fitter.epochs * fitter.steps_per_epoch):
        fitter.step(number)
    network = fitter.export(ExportOptions())
    circuit = read_circuit(
        json.loads(json.dumps(network.body)), network.arrays, [codec.choices for codec in table.codecs]
    )
    chosen = table.choices[:300]
    codes = {
        place: circuit.columns[place].bins.of_choice[chosen[:, place]].astype(np.int64) for place in circuit.columns
    }
    expected = fitter.log_likelihood(chosen)
    assert _log_likelihood(circuit, codes) == pytest.approx(expected, abs=1e-4)


def _log_likelihood(circuit: object, codes: Mapping[int, NDArray[np.int64]]) -> NDArray[np.float64]:
    """Return log P of rows by the definition, from what the sampler has read; floats in any order."""
    columns = circuit.columns  # type: ignore[attr-defined]
    up: dict[int, NDArray[np.float64]] = {}
    for place in reversed(list(columns)):
        found = columns[place]
        value = (found.emission / ONE)[:, codes[place]].T
        if found.edge is not None:
            edge, parents = found.edge, codes[found.edge.parent]
            tables = np.zeros((len(parents), len(edge.rest)))
            for row, (bin_, parent) in enumerate(zip(codes[place], parents, strict=True)):
                pairs = slice(int(edge.starts[parent]), int(edge.starts[parent + 1]))
                at = np.flatnonzero(edge.pair_bins[pairs] == bin_)
                seen = edge.pair_weights[:, pairs][:, at].sum(axis=1) / ONE
                tables[row] = seen + edge.rest[:, parent] / ONE * edge.backoff[edge.group[parent], bin_] / ONE
            mixture = edge.mixture / ONE
            value = value * mixture[:, 0] + tables @ mixture[:, 1:].T
        for child in found.children:
            value = value * up[child]
        if found.edge is None:
            return np.asarray(np.log(value @ (circuit.root / ONE)))  # type: ignore[attr-defined]
        up[place] = value @ (found.edge.transition / ONE).T
    raise AssertionError("there is no root")


def test_no_training_row_can_be_read_from_the_states(tmp_path: Path) -> None:
    draws = np.random.default_rng(9)
    cells = {f"x{place}": [f"v{one:02}" for one in draws.integers(0, 12, 1200)] for place in range(6)}
    table = encoded(table_of(cells), tmp_path, states=16)
    fitter = CircuitFitter(table, CircuitConfig(epochs=1, states=16), FitContext(tmp_path, seed=1))
    for number in range(fitter.steps_per_epoch):
        fitter.step(number)
    arrays = fitter.export(ExportOptions()).arrays
    tops = np.stack([arrays[f"emission.{place}"].argmax(axis=1) for place in range(6)], axis=1)
    bins = np.stack([arrays[f"bins.{place}.of"][table.choices[:, place]] for place in range(6)], axis=1)
    assert max((bins == top).sum(axis=1).max() for top in tops) < 6


def test_a_fit_resumed_in_its_last_epoch_ends_the_same(routes: TableToFit, tmp_path: Path) -> None:
    table = encoded(routes, tmp_path)
    config = CircuitConfig(epochs=3, batch_size=200, states=4)

    def fitter() -> CircuitFitter:
        return CircuitFitter(table, config, FitContext(tmp_path, seed=3))

    whole_fit, first, second = fitter(), fitter(), fitter()
    steps = whole_fit.epochs * whole_fit.steps_per_epoch
    for number in range(steps):
        whole_fit.step(number)
        if (number + 1) % whole_fit.steps_per_epoch == 0:
            whole_fit.end_epoch()
    for number in range(steps):
        if number == steps - 3:
            second.load_state(first.state())
        one = first if number < steps - 3 else second
        one.step(number)
        if (number + 1) % one.steps_per_epoch == 0:
            one.end_epoch()
    made = [one.export(ExportOptions()).arrays for one in (whole_fit, second)]
    assert {name: array.tobytes() for name, array in made[0].items()} == {
        name: array.tobytes() for name, array in made[1].items()
    }
