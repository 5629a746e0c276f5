"""Circuits given conditions: probabilities and tables against every configuration, rows against rejection."""

import itertools
import math
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rowmint.artifact import Model
from rowmint.conditions import (
    AnyOf,
    ColumnCondition,
    IsNull,
    NoneOf,
    Predicate,
    Range,
    WeightedTest,
    Weights,
    canonical,
    canonical_weights,
)
from rowmint.errors import InvalidConditionError
from rowmint.rng import StreamKey
from rowmint.sampling.plan import compile_plan
from rowmint.sampling.rows import RowSource
from rowmint.schema.arrays import ColumnArray
from rowmint.steps import finish
from rowmint.synthesizer import propose
from rowmint.synthesizer.circuit import conditioning, search
from rowmint.synthesizer.circuit.conditioned import (
    ConditionedChoices,
    ConditionedColumn,
    ConditionedRoot,
)
from rowmint.synthesizer.circuit.conditioned_bins import DirectBins
from rowmint.synthesizer.circuit.evidence import bin_shares
from rowmint.synthesizer.circuit.messages import Beliefs, belief_steps, log_probability
from rowmint.synthesizer.circuit.outside import bin_probability_steps
from rowmint.synthesizer.circuit.proposal import CircuitProposal
from rowmint.synthesizer.circuit.sliced import Sliced
from rowmint.synthesizer.circuit.synthesizer import CircuitSynthesizer
from rowmint.synthesizer.circuit.tree import ONE, Circuit
from tests.circuits import CHAIN, JOINT, MIXED, STAR, CircuitMaker, MadeCircuit
from tests.seeds import seeded
from tests.unit.circuit_oracle import bin_probability, chi_square_deviations, given, joint, normalised

STREAM = StreamKey(bytes(32), bytes(32), 7)
TILE = 4096
DEEP = (-1, 0, 1, 2, 3, 4)
SHAPES = {"chain": CHAIN, "star": STAR, "mixed": MIXED, "deep": DEEP, "single": (-1,), "joint": JOINT}


def small(seed: int, shape: str) -> Circuit:
    bins = 2 if shape == "deep" else 3
    return (
        CircuitMaker(seed, SHAPES[shape], states=2, bins=bins, zeros=0.25, joint=4 * (shape == "joint")).make().circuit
    )


def random_shares(circuit: Circuit, rng: np.random.Generator) -> dict[int, NDArray[np.float64]]:
    """Return conditions on some columns, some of the bins wholly out, some cut."""
    tree = list(circuit.columns)
    chosen = rng.choice(tree, size=rng.integers(1, len(tree) + 1), replace=False)
    found = {}
    for position in chosen.tolist():
        shares = rng.choice([0.0, 1.0, rng.random(), 2.0**-20], size=circuit.columns[position].bins.count)
        shares[rng.integers(len(shares))] = 1.0
        found[position] = shares
    return found


def compiled(circuit: Circuit, said: Beliefs, most_cells: int) -> dict[tuple[int, ...], float]:
    """Return the probability of every configuration of bins, as the compiled tables draw it."""
    columns: dict[int, Any] = {}
    for position, belief in said.at.items():
        column = circuit.columns[position]
        if column.edge is None:
            columns[position] = ConditionedRoot(circuit, column, 0, belief)
        else:
            assert belief.parts is not None
            columns[position] = ConditionedColumn(
                column, column.edge, 0, belief, belief.parts, cuts=said.cuts, most_cells=most_cells
            )

    # From a state and a bin of the parent: (state, or the parent's where it has none of its own; bin; chance)
    def following(position: int, parent_state: int, parent_bin: int) -> list[tuple[int, int, float]]:
        column, edge = circuit.columns[position], circuit.columns[position].edge
        drawn = columns.get(position)
        states = range(circuit.states)
        no_bins = np.zeros(column.bins.count if drawn is None else len(said.at[position].bins))
        if edge is None:
            if drawn is None:
                return [
                    (z, x, float(circuit.root[z]) / ONE * float(column.emission[z, x]) / ONE)
                    for z in states
                    for x in range(column.bins.count)
                ]
            of_state = normalised(drawn.weights.state_weights(np.array([0]))[0])
            of_bin = [normalised(own) for own in drawn.weights.bin_weights(np.arange(circuit.states))]
        elif drawn is None:
            of_state = edge.transition[parent_state] / ONE
            of_bin = [
                np.array([float(bin_probability(column, edge, z, parent_bin, x)) for x in range(column.bins.count)])
                for z in states
            ]
        else:
            row = np.array([parent_state * len(edge.group) + parent_bin])
            if not column.children:
                bins = said.at[position].bins.tolist()
                chances = drawn_bins(drawn, parent_state, parent_bin)
                return [(0, x, chance) for x, chance in zip(bins, chances.tolist(), strict=True)]
            of_state = normalised(drawn.states(row)[0])
            of_bin = [drawn_bins(drawn, z, parent_bin) if of_state[z] else no_bins for z in states]
        bins = range(column.bins.count) if drawn is None else said.at[position].bins.tolist()
        return [
            (z, x, float(of_state[z]) * float(chance))
            for z in states
            for x, chance in zip(bins, of_bin[z], strict=True)
        ]

    place = {position: number for number, position in enumerate(circuit.columns)}
    found: dict[tuple[tuple[int, ...], tuple[int, ...]], float] = {((), ()): 1.0}
    for position, column in circuit.columns.items():
        parent = None if column.edge is None else place[column.edge.parent]
        following_of = {}
        longer: dict[tuple[tuple[int, ...], tuple[int, ...]], float] = defaultdict(float)
        for (states, bins), before in found.items():
            at = (0, 0) if parent is None else (states[parent], bins[parent])
            if at not in following_of:
                following_of[at] = following(position, *at)
            for state, own, chance in following_of[at]:
                if chance:
                    longer[(*states, state), (*bins, own)] += before * chance
        found = longer
    total: dict[tuple[int, ...], float] = defaultdict(float)
    for (_, bins), chance in found.items():
        total[bins] += chance
    return total


def drawn_bins(drawn: ConditionedColumn, state: int, parent_bin: int) -> NDArray[np.float64]:
    """Return the probability of each possible bin given a state and a bin of the parent."""
    if isinstance(drawn.bins, DirectBins):
        row = np.array([state * drawn.bins.weights.emission.parent_bins + parent_bin])
        return normalised(drawn.bins.weights(row)[0])
    weights = drawn.bins.weights
    emission = weights.emission
    (components,) = weights.component_weights(np.array([state * emission.parent_bins + parent_bin]))
    total = np.zeros(len(weights.belief.bins))
    lengths = weights.bin_lengths()
    first, last = emission.starts[parent_bin : parent_bin + 2]
    for component, chance in enumerate(normalised(components)):
        if not chance:
            continue
        row = weights.bin_rows(np.array([component]), np.array([state]), np.array([parent_bin]))
        outcomes = normalised(weights.bin_weights(row)[0])
        assert len(outcomes) == lengths[row[0]]
        if component == 0:
            total += chance * outcomes
            continue
        total[emission.pair_bins[first:last]] += chance * outcomes[:-1]
        if outcomes[-1]:
            column = state if weights.columns > 1 else 0
            group = int(emission.group[parent_bin])
            (backoff,) = weights.backoff_weights(np.array([group * weights.columns + column]))
            total += chance * outcomes[-1] * normalised(backoff)
    return total


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_probabilities_and_tables_are_those_of_bayes(shape: str, seed: int) -> None:
    circuit = small(seed, shape)
    every = joint(circuit)
    assert float(sum(every.values())) == 1.0
    rng = np.random.default_rng(seed)
    for _ in range(5):
        shares = random_shares(circuit, rng)
        total, expected = given(circuit, every, shares)
        said = finish(belief_steps(circuit, shares))
        if not total:
            assert said is None
            continue
        assert said is not None
        assert math.exp(said.log_probability) == pytest.approx(float(total), rel=1e-12, abs=0)
        for most_cells in (1 << 16, 1):  # bins drawn directly, and by component
            found = compiled(circuit, said, most_cells)
            assert set(found) == set(expected)
            for bins, chance in expected.items():
                assert found[bins] == pytest.approx(float(chance), rel=1e-10, abs=1e-13)


def test_what_only_another_condition_makes_the_greatest_is_exact() -> None:
    """The child's bin 1 has a small share, and the parent's only possible bin leads to no other."""
    made = CircuitMaker(1, (-1, 0), states=1, components=1, bins=2, kinds=("category",)).make()
    arrays = dict(made.arrays)
    arrays["emission.0"] = np.array([[ONE // 2, ONE // 2]], np.uint32)
    arrays["mixture.1"] = np.array([[0, ONE]], np.uint32)
    arrays["pairs.1.starts"], arrays["pairs.1.bins"] = np.array([0, 1, 2], np.uint32), np.array([0, 1], np.uint16)
    arrays["pairs.1.weights"], arrays["pairs.1.rest"] = np.full((1, 2), ONE, np.uint32), np.zeros((1, 2), np.uint32)
    circuit = MadeCircuit(made.schema, made.codecs, made.network, arrays).circuit
    share = 2.0**-20 / 3
    said = finish(belief_steps(circuit, {0: np.array([0.0, 1.0]), 1: np.array([1.0, share])}))
    assert said is not None
    assert math.exp(said.log_probability) == pytest.approx(share / 2, rel=1e-13, abs=0)


def two_column_circuit(pairs: NDArray[np.uint32], children: int = 1) -> MadeCircuit:
    """Return one of a root of two bins, one even, and equal children of two bins given the root's by `pairs`."""
    made = CircuitMaker(1, (-1, *[0] * children), states=1, components=1, bins=2, kinds=("category",), zeros=0.0).make()
    arrays = dict(made.arrays)
    arrays["emission.0"] = np.array([[ONE // 2, ONE // 2]], np.uint32)
    for child in range(1, children + 1):
        arrays[f"mixture.{child}"] = np.array([[0, ONE]], np.uint32)
        arrays[f"pairs.{child}.starts"] = np.array([0, 2, 4], np.uint32)
        arrays[f"pairs.{child}.bins"] = np.array([0, 1, 0, 1], np.uint16)
        arrays[f"pairs.{child}.weights"] = pairs.reshape(1, 4)
        arrays[f"pairs.{child}.rest"] = np.zeros((1, 2), np.uint32)
    return MadeCircuit(made.schema, made.codecs, made.network, arrays)


@pytest.mark.parametrize("children", [2, 4, 5, 9])
def test_shares_are_exact_where_an_entry_is_rare(children: int) -> None:
    """Each child that has a condition makes the root's bin 1 rarer by 2**-16, up to 2**-144."""
    made = two_column_circuit(np.array([[ONE - 256, 256], [256, ONE - 256]], np.uint32), children)
    bins = made.circuit.columns[0].bins
    entries = [WeightedTest(AnyOf(tuple(f"v{c}" for c in np.flatnonzero(bins.of_choice == b))), 1.0) for b in (0, 1)]
    where = [
        Predicate(f"c{child}", AnyOf(tuple(f"v{c}" for c in np.flatnonzero(own.of_choice == 0))))
        for child in range(1, children + 1)
        for own in [made.circuit.columns[child].bins]
    ]
    tests, weights = canonical_weights(Weights("c0", tuple(entries)), canonical(where, made.schema), made.schema)
    (columns,) = drawn(propose(model(made), tests, ["c0"], weights), 1)
    share = float(weights.entries[0].condition.satisfied(columns["c0"]).mean())
    assert abs(share - 0.5) < 4.5 * 0.5 / math.sqrt(TILE)


def test_a_probability_is_exact_however_rare_the_conditions() -> None:
    """The root's only possible bin is 2**-100 times as probable as the other, given its children."""
    made = two_column_circuit(np.array([[ONE - 16, 16], [16, ONE - 16]], np.uint32), 5)
    first = np.array([1.0, 0.0])
    shares = {**dict.fromkeys(range(1, 6), first), 0: np.array([0.0, 1.0])}
    said = finish(belief_steps(made.circuit, shares))
    assert said is not None
    assert said.log_probability == pytest.approx(-(1 + 5 * 20) * math.log(2), rel=1e-12)
    # Without the condition on the root, bin 0 hides bin 1 where a message is cut.
    del shares[0]
    said = finish(belief_steps(made.circuit, shares))
    assert said is not None
    found = finish(bin_probability_steps(made.circuit, shares, said, 0))
    assert log_probability(found.values[1], found.exponent) == pytest.approx(-(1 + 5 * 20) * math.log(2), rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_probabilities_of_a_column_are_those_of_bayes_bin_by_bin(shape: str) -> None:
    circuit = small(4, shape)
    every = joint(circuit)
    rng = np.random.default_rng(4)
    for position, column in circuit.columns.items():
        shares = random_shares(circuit, rng)
        said = finish(belief_steps(circuit, {**shares, position: np.ones(column.bins.count)}))
        assert said is not None
        # What is said of the column itself is left out.
        found = finish(bin_probability_steps(circuit, shares, said, position))
        for bin_, value in enumerate(found.values.tolist()):
            total, _ = given(circuit, every, {**shares, position: np.eye(column.bins.count)[bin_]})
            assert math.ldexp(value, found.exponent) == pytest.approx(float(total), rel=1e-12, abs=0)


def test_without_conditions_the_probability_is_one() -> None:
    circuit = small(1, "mixed")
    for columns in ([], [0], [1, 2, 5]):
        said = finish(belief_steps(circuit, {p: np.ones(circuit.columns[p].bins.count) for p in columns}))
        assert said is not None
        assert said.log_probability == pytest.approx(0, abs=1e-15)


def test_a_rare_combination_does_not_vanish() -> None:
    """Sixty children make the parent's only possible bin 2**-1200 times as probable as another."""
    made = CircuitMaker(1, (-1, *[0] * 60), states=1, components=1, bins=2, kinds=("category",)).make()
    arrays = dict(made.arrays)
    arrays["emission.0"] = np.array([[1, ONE - 1]], np.uint32)
    for child in range(1, 61):
        arrays[f"mixture.{child}"] = np.array([[0, ONE]], np.uint32)
        arrays[f"pairs.{child}.starts"] = np.array([0, 2, 4], np.uint32)
        arrays[f"pairs.{child}.bins"] = np.array([0, 1, 0, 1], np.uint16)
        arrays[f"pairs.{child}.weights"] = np.array([[16, ONE - 16, ONE - 16, 16]], np.uint32)
        arrays[f"pairs.{child}.rest"] = np.zeros((1, 2), np.uint32)
    circuit = MadeCircuit(made.schema, made.codecs, made.network, arrays).circuit
    first = np.array([1.0, 0.0])
    said = finish(belief_steps(circuit, dict.fromkeys(range(61), first)))
    assert said is not None
    assert said.log_probability == pytest.approx(-(24 + 60 * 20) * math.log(2), rel=1e-12)
    proposal = CircuitProposal(CircuitSynthesizer.load(made.parts())._drawing, {}, (), (), said.log_probability)
    assert proposal.probability > 0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_sums_are_the_same_bytes_in_any_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = np.floor(rng.dirichlet(np.full(100, 0.1), 20) * ONE)
    values = rng.random((100, 7)) * 2.0 ** rng.integers(-60, 60, (100, 7))
    values[:, 3] = 0
    expected = Sliced.of(values, 2).products(weights)
    least = 2.0**-50 * values.max(axis=0)  # what is cut off
    assert (np.abs(expected - weights @ values / ONE) <= least).all()
    columns = np.floor(rng.dirichlet(np.full(100, 0.1), 7) * ONE).T
    sums = Sliced.of(values, 2).sums(columns)
    assert (np.abs(sums - (columns * values).sum(axis=0) / ONE) <= least).all()
    runs = [(0, 30), (30, 30), (30, 100)]
    in_runs = Sliced.of(values, 2).products_of(weights, np.arange(100), runs)
    for run, (first, last) in enumerate(runs):
        some = np.where((np.arange(100) >= first) & (np.arange(100) < last), weights, 0)
        assert in_runs[:, run].tobytes() == Sliced.of(values, 2).products(some).tobytes()
    for _ in range(20):
        order = rng.permutation(100)
        cut = Sliced.of(values[order], 2)
        assert cut.products(weights[:, order]).tobytes() == expected.tobytes()
        assert cut.sums(columns[order]).tobytes() == sums.tobytes()


WHOLE = CircuitMaker(11, states=5, components=3, bins=6).make()
"""c0 and its kind: category, c1 pieces (root), c2 rare, c3 points, c4 double (derived from c1), c5 nullable."""
WHERE: dict[str, list[Predicate]] = {
    "root": [Predicate("c1", Range(22, 41))],
    "a piece that is cut": [Predicate("c1", Range(31, 31))],
    "inner, a rare category": [Predicate("c2", AnyOf(("v0", "v4")))],
    "leaf": [Predicate("c0", AnyOf(("v2", "v3")))],
    "null": [Predicate("c1", IsNull())],
    "not null, two leaves": [Predicate("c5", IsNull(null=False)), Predicate("c3", Range(None, 40))],
    "derived, off the grid": [Predicate("c4", Range(0.3, 2.1))],
    "derived and determining": [Predicate("c4", Range(None, 3.0)), Predicate("c1", NoneOf((37,)))],
    "all": [
        Predicate("c0", NoneOf(("v0",))),
        Predicate("c1", Range(13, 60)),
        Predicate("c2", NoneOf(("v1",))),
        Predicate("c3", Range(10, 60)),
        Predicate("c4", Range(-0.5, 6.0)),
        Predicate("c5", AnyOf(("v0", "v1", None))),
    ],
}


def conditions_of(name: str) -> tuple[ColumnCondition, ...]:
    found = canonical(WHERE[name], WHOLE.schema)
    assert len(found) == len(WHERE[name])
    return found


def model(made: MadeCircuit = WHOLE) -> CircuitSynthesizer:
    return CircuitSynthesizer.load(made.parts())


def drawn(proposal: Any, tiles: int = 1, first: int = 0) -> list[dict[str, ColumnArray]]:
    found = []
    for tile in range(first, first + tiles):
        key = STREAM.tile(0, tile)
        found.append(proposal.finish(proposal.candidates(key, TILE), key).columns)
    return found


def labels(columns: dict[str, ColumnArray]) -> NDArray[np.int64]:
    """Return a coarse class of each cell, shape (rows, columns)."""
    classes = []
    for array in columns.values():
        values = array.values
        if values.dtype == np.int32:
            classes.append(values.astype(np.int64))
        else:
            bounds = [0.0, 1.0, 2.0, 2.5, 4.0] if values.dtype == np.float64 else [13, 25, 31, 37, 38, 50, 58]
            classes.append(np.where(array.missing(), -1, np.searchsorted(bounds, values)))
    return np.stack(classes, axis=1)


@pytest.fixture(params=["direct", "by component"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw bins directly, or where there is room for nearly no weights by component."""
    if request.param == "by component":
        monkeypatch.setattr(conditioning, "_MOST_CELLS", 40)
        monkeypatch.setattr(conditioning, "_LEAST_CELLS", 40)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("where", WHERE)
def test_every_row_satisfies_the_conditions(where: str) -> None:
    tests, names = conditions_of(where), list(WHOLE.schema.names)
    proposal = propose(model(), tests, names)
    assert proposal.acceptance == 1.0
    (columns,) = drawn(proposal)
    assert {name: len(array) for name, array in columns.items()} == dict.fromkeys(names, TILE)
    for test in tests:
        assert test.satisfied(columns[test.column]).all()


@lru_cache(maxsize=1)
def unconditional(seed: int) -> list[dict[str, ColumnArray]]:
    return drawn(propose(model(), (), WHOLE.schema.names), 30, first=1000 * seed)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("seed", seeded(1, 2, 3))
@pytest.mark.parametrize("where", WHERE)
def test_rows_are_distributed_as_those_that_rejection_keeps(where: str, seed: int) -> None:
    tests = conditions_of(where)
    kept = []
    for columns in unconditional(seed):
        passed = np.logical_and.reduce([test.satisfied(columns[test.column]) for test in tests])
        kept.append(labels({name: array.take(np.flatnonzero(passed)) for name, array in columns.items()}))
    expected = np.concatenate(kept)
    proposal = propose(model(), tests, WHOLE.schema.names)
    chance, count = proposal.probability, len(kept) * TILE
    assert chance is not None
    assert abs(len(expected) / count - chance) < 4.5 * math.sqrt(chance * (1 - chance) / count)
    found = np.concatenate([labels(columns) for columns in drawn(proposal, 8, first=1000 * seed)])
    check_samples(found, expected)


def check_samples(one: NDArray[np.int64], other: NDArray[np.int64]) -> None:
    """Check that two samples are of one distribution, by the chi-square of every two columns."""
    for pair in itertools.combinations(range(one.shape[1]), 2):
        parts = [(sample[:, pair[0]] + 1) * 16 + sample[:, pair[1]] + 1 for sample in (one, other)]
        assert two_sample_deviations(*parts) < 5


def two_sample_deviations(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Return the chi-square of two samples, rare classes together, as a normal deviate."""
    counts = np.stack([np.bincount(one, minlength=256), np.bincount(other, minlength=256)]).astype(np.float64)
    total = counts.sum(axis=1, keepdims=True)
    rare = (counts.sum(axis=0) * total / total.sum()).min(axis=0) < 5
    counts = np.concatenate([counts[:, ~rare], counts[:, rare].sum(axis=1, keepdims=True)], axis=1)
    expected = counts.sum(axis=0) * total / total.sum()
    enough = expected.min(axis=0) >= 5
    if enough.sum() < 2:
        return 0.0
    square = float(((counts - expected) ** 2 / np.maximum(expected, 1e-9))[:, enough].sum())
    return chi_square_deviations(square, int(enough.sum()) - 1)


JOINED = CircuitMaker(13, JOINT, states=4, bins=4, joint=8, zeros=0.0).make()
"""c0 and its kind: category (root), c1 pieces, c2 rare, c4 double (of the joint column), c3 points (hangs on that)."""
OF_JOINED: dict[str, list[Predicate]] = {
    "first": [Predicate("c1", Range(22, 50))],
    "second": [Predicate("c2", AnyOf(("v0", "v1")))],
    "third": [Predicate("c4", Range(None, 2.5))],
    "first and third": [Predicate("c1", Range(None, 40)), Predicate("c4", Range(1.0, None))],
    "all": [
        Predicate("c0", NoneOf(("v0",))),
        Predicate("c1", Range(None, 62)),
        Predicate("c2", NoneOf(("v3",))),
        Predicate("c3", Range(13, None)),
        Predicate("c4", Range(None, 5.5)),
    ],
}


@lru_cache(maxsize=1)
def unconditional_joined() -> list[dict[str, ColumnArray]]:
    return drawn(propose(model(JOINED), (), JOINED.schema.names), 30, first=1000)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("where", OF_JOINED)
def test_rows_of_a_joint_column_are_distributed_as_those_that_rejection_keeps(where: str) -> None:
    tests = canonical(OF_JOINED[where], JOINED.schema)
    kept = []
    for columns in unconditional_joined():
        passed = np.logical_and.reduce([test.satisfied(columns[test.column]) for test in tests])
        kept.append(labels({name: array.take(np.flatnonzero(passed)) for name, array in columns.items()}))
    expected, count = np.concatenate(kept), len(kept) * TILE
    proposal = propose(model(JOINED), tests, JOINED.schema.names)
    chance = proposal.probability
    assert chance is not None
    assert len(expected) > 0.01 * count
    assert abs(len(expected) / count - chance) < 4.5 * math.sqrt(chance * (1 - chance) / count)
    tiles = drawn(proposal, 8)
    for test in tests:
        assert all(test.satisfied(columns[test.column]).all() for columns in tiles)
    check_samples(np.concatenate([labels(columns) for columns in tiles]), expected)


def digest(columns: dict[str, ColumnArray]) -> list[bytes]:
    return [part.tobytes() for array in columns.values() for part in (array.values, array.missing())]


def added_up(weights: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return weights @ values, every sum added up one by one, in an order of its own."""
    found = np.zeros((len(weights), values.shape[1]))
    for term in np.random.default_rng(5).permutation(weights.shape[1]):
        found += weights[:, term, None] * values[term]
    return found


def products(self: Sliced, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return self._joined(added_up(weights, self.slices))


def products_of(
    self: Sliced, weights: NDArray[np.float64], places: NDArray[np.int64], runs: list[tuple[int, int]]
) -> NDArray[np.float64]:
    parts = [added_up(weights[:, first:last], self.slices[places[first:last]]) for first, last in runs]
    return self._joined(np.stack(parts, axis=1))


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("where", ["all", "derived and determining"])
def test_rows_do_not_depend_on_the_order_of_summation(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tests, names = conditions_of(where), list(WHOLE.schema.names)
    expected = propose(model(), tests, names)
    rows = digest(drawn(expected)[0])
    monkeypatch.setattr(Sliced, "products", products)
    monkeypatch.setattr(Sliced, "products_of", products_of)
    found = propose(model(), tests, names)
    assert digest(drawn(found)[0]) == rows
    assert found.probability == expected.probability


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_rows_do_not_depend_on_threads_or_on_what_is_kept(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tests, names = conditions_of("all"), list(WHOLE.schema.names)
    expected = [digest(columns) for columns in drawn(propose(model(), tests, names), 6)]
    backwards = propose(model(), tests, names)
    assert [digest(drawn(backwards, 1, tile)[0]) for tile in reversed(range(6))] == expected[::-1]
    create = search.SearchRows.__init__

    def forgetful(self: search.SearchRows, lengths: NDArray[np.int64], weights: Any, _: int) -> None:
        create(self, lengths, weights, 8)

    monkeypatch.setattr(search.SearchRows, "__init__", forgetful)
    for proposal in (backwards, propose(model(), tests, names)):
        with ThreadPoolExecutor(threads) as pool:
            assert list(pool.map(lambda tile, own=proposal: digest(drawn(own, 1, tile)[0]), range(6))) == expected


def test_a_column_does_not_depend_on_which_others_are_requested() -> None:
    tests, names = conditions_of("all"), list(WHOLE.schema.names)
    (whole,) = drawn(propose(model(), tests, names))
    for name in names:
        (alone,) = drawn(propose(model(), tests, [name]))
        assert digest(alone) == digest({name: whole[name]})


def test_a_plan_is_for_independent_rows_and_knows_the_probability() -> None:
    tests = conditions_of("all")
    plan = compile_plan(bytes(32), model(), tests)
    assert (plan.acceptance, plan.tile_budget, plan.most_reuse) == (1.0, 1, 1)
    assert plan.probability == propose(model(), tests, ()).probability
    assert model().conditioned_column(tests) == "c0"


def test_a_candidate_keeps_what_its_tested_cells_decide() -> None:
    """A derived column's test decides the choice of the column that determines it, and the other way about."""
    for column, other in (("c4", "c1"), ("c1", "c4")):
        tests = canonical([one for one in WHERE["all"] if one.column == column], WHOLE.schema)
        proposal = propose(model(), tests, [column, other, "c0"])
        found = proposal.candidates(STREAM.tile(0, 0), TILE)
        assert digest(dict(found.cells)) == digest({column: drawn(proposal)[0][column]})
        one, again = (proposal.finish(found, STREAM.tile(block, 0)).columns for block in (1, 2))
        assert digest({column: one[column]}) == digest({column: again[column]}) == digest(dict(found.cells))
        assert digest({"": one["c0"]}) != digest({"": again["c0"]})
        # Nothing is drawn of c1 and c4 that does not go with the other.
        pairs = set(map(tuple, labels({name: one[name] for name in ("c1", "c4")}).tolist()))
        possible = unconditional(1)
        every = np.concatenate([labels({name: tile[name] for name in ("c1", "c4")}) for tile in possible])
        assert pairs <= set(map(tuple, every.tolist()))


def test_blocks_of_rows_are_the_same_however_they_are_cut() -> None:
    tests, names = conditions_of("all"), list(WHOLE.schema.names)
    family = model()
    stored = Model(bytes(32), WHOLE.schema, 2048, family, {}, family.memory_bytes)
    plan = compile_plan(stored.digest, family, tests)
    whole = RowSource(stored, plan, 3, names).block(1, plan.block_size)
    assert (whole.first_row, whole.rows, whole.accepted, whole.candidates) == (16384, 16384, 16384, 16384)
    some = RowSource(stored, plan, 3, names[::-1]).block(1, 100)
    assert (some.rows, some.accepted, some.candidates) == (100, 100, 100)  # none is drawn that is not needed
    for name in names:
        assert digest({name: some.columns[name]}) == digest({name: whole.columns[name].take(slice(0, 100))})
    assert digest(RowSource(stored, plan, 4, names).block(1, 100).columns) != digest(some.columns)


def test_impossible_conditions_name_the_column_at_fault() -> None:
    """c1 determines c4: a condition on each that no choice of c1 satisfies both of."""
    made = CircuitMaker(5, (-1, -2, 0), kinds=("category",), zeros=0.0).make()
    choice = int(made.arrays["derived.1"][0])
    other = next(value for value in range(5) if value != choice)
    where = [
        Predicate("c0", AnyOf(("v0",))),
        Predicate("c1", AnyOf((f"v{other}",))),
        Predicate("c2", AnyOf(("v1",))),
    ]
    tests = canonical(where, made.schema)
    with pytest.raises(InvalidConditionError, match="the condition on column 'c1' and those on 'c0'") as raised:
        propose(model(made), tests, ())
    assert raised.value.metadata == {"column": "c1"}
    assert propose(model(made), tests[:1], ()).probability > 0
    assert propose(model(made), (tests[0], tests[2]), ()).probability > 0


def test_conditions_that_no_combination_satisfies_name_the_column_at_fault() -> None:
    """c0 and c1 are of one joint column: a choice of each that it does not have together."""
    made = CircuitMaker(5, (-2, -2, 3, -1), kinds=("category",), zeros=0.0, joint=5).make()
    combinations = set(zip(made.arrays["derived.0"].tolist(), made.arrays["derived.1"].tolist(), strict=True))
    one, other = next(
        (one, other)
        for (one, _), (_, other) in itertools.product(combinations, repeat=2)
        if (one, other) not in combinations
    )
    where = [Predicate("c0", AnyOf((f"v{one}",))), Predicate("c1", AnyOf((f"v{other}",)))]
    tests = canonical([*where, Predicate("c2", AnyOf(("v1",)))], made.schema)
    with pytest.raises(InvalidConditionError, match="the condition on column 'c1' and those on 'c0'") as raised:
        propose(model(made), tests, ())
    assert raised.value.metadata == {"column": "c1"}
    for possible in (tests[:1], tests[1:], (tests[0], tests[2])):
        assert propose(model(made), possible, ()).probability > 0


def test_words_of_a_joint_column_are_no_other_columns() -> None:
    indices = model(JOINED)._drawing.indices
    assert indices == {0: 0, 3: 3, 5: len(JOINED.schema.columns)}


def test_a_value_that_is_never_drawn_is_impossible() -> None:
    made = CircuitMaker(5, (-1,), bins=4, kinds=("category",)).make()
    arrays = dict(made.arrays)
    arrays["bins.0.of"], arrays["bins.0.weights"] = np.zeros(5, np.uint16), np.zeros(5, np.uint32)
    arrays["bins.0.weights"][2] = ONE
    arrays["emission.0"] = np.full((3, 1), ONE, np.uint32)
    circuit = MadeCircuit(made.schema, made.codecs, made.network, arrays)
    with pytest.raises(InvalidConditionError, match="no row of the model satisfies the condition on column 'c0'"):
        propose(model(circuit), canonical([Predicate("c0", AnyOf(("v1",)))], made.schema), ())


@pytest.mark.parametrize("column", ["c0", "c2", "c4"])
def test_weights_are_the_shares_of_the_rows(column: str) -> None:
    entries: dict[str, Any] = {
        "c0": (WeightedTest(AnyOf(("v1",)), 1.0), WeightedTest(AnyOf(("v2", "v4")), 3.0)),
        "c2": (WeightedTest(AnyOf(("v0", "v3")), 1.0), WeightedTest(AnyOf(("v4", None)), 1.0)),
        "c4": (WeightedTest(Range(0.0, 1.5), 1.0), WeightedTest(Range(2.0, None), 1.0)),
    }
    where = [one for one in WHERE["all"] if one.column in ("c1", "c5")]
    tests, weights = canonical_weights(Weights(column, entries[column]), canonical(where, WHOLE.schema), WHOLE.schema)
    family, names = model(), list(WHOLE.schema.names)
    proposal = propose(family, tests, names, weights)
    apart = [
        propose(family, sorted((*tests, entry.condition), key=lambda test: test.column), names)
        for entry in weights.entries
    ]
    assert proposal.probability == pytest.approx(sum(each.probability or 0 for each in apart), rel=1e-12)
    tiles = drawn(proposal, 6)
    for entry, each in zip(weights.entries, apart, strict=True):
        held = [entry.condition.satisfied(columns[column]) for columns in tiles]
        count = 6 * TILE
        assert abs(np.concatenate(held).mean() - entry.share) < 4.5 * math.sqrt(entry.share * (1 - entry.share) / count)
        # Within an entry, rows are as they are in the model.
        found = np.concatenate(
            [
                labels({name: array.take(np.flatnonzero(own)) for name, array in columns.items()})
                for columns, own in zip(tiles, held, strict=True)
            ]
        )
        expected = np.concatenate([labels(columns) for columns in drawn(each, 6, first=50)])
        check_samples(found, expected)


def test_weights_of_a_column_that_others_decide_are_the_shares_of_the_rows() -> None:
    entries = (WeightedTest(AnyOf(("v0",)), 1.0), WeightedTest(AnyOf(("v1", "v2")), 3.0))
    where = canonical(OF_JOINED["first"], JOINED.schema)
    tests, weights = canonical_weights(Weights("c2", entries), where, JOINED.schema)
    tiles = drawn(propose(model(JOINED), tests, JOINED.schema.names, weights), 6)
    for entry in weights.entries:
        share = np.concatenate([entry.condition.satisfied(columns["c2"]) for columns in tiles]).mean()
        assert abs(share - entry.share) < 4.5 * math.sqrt(entry.share * (1 - entry.share) / (6 * TILE))
    assert all(tests[0].satisfied(columns["c1"]).all() for columns in tiles)


def test_an_entry_that_no_row_holds_has_no_share() -> None:
    made = CircuitMaker(5, (-1, -2), kinds=("category",)).make()
    absent = next(value for value in range(5) if value not in made.arrays["derived.1"])
    present = int(made.arrays["derived.1"][0])
    entries = (WeightedTest(AnyOf((f"v{absent}",)), 1.0), WeightedTest(AnyOf((f"v{present}",)), 1.0))
    tests, weights = canonical_weights(Weights("c1", entries), (), made.schema)
    with pytest.raises(InvalidConditionError, match="cannot have a share of the rows"):
        propose(model(made), tests, (), weights)


def test_choices_are_drawn_by_weight_and_share() -> None:
    circuit = WHOLE.circuit
    bins = circuit.columns[1].bins
    shares = np.random.default_rng(1).random(len(bins.weights))
    shares[[0, 3]] = 0
    choices = ConditionedChoices(bins, shares, 1)
    assert choices.size_bytes > 0
    possible = np.flatnonzero(bin_shares(bins, shares))
    count = 100_000
    for bin_ in possible.tolist():
        found = np.bincount(choices.choices(STREAM.tile(0, 0), np.full(count, bin_)), minlength=len(shares))
        expected = normalised(np.where(bins.of_choice == bin_, bins.weights * shares, 0)) * count
        assert not found[expected == 0].any()
        deviations = (found - expected) / np.sqrt(np.maximum(expected, 1))
        assert np.abs(deviations).max() < 5


def test_rows_of_weights_are_searched() -> None:
    weights = np.array([[0.0, 1.0, 0.0, 3.0, 0.0], [5.0, 0, 0, 0, 0], [0, 0, 1e-300, 0, 0]])
    requested: list[list[int]] = []

    def some(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        requested.append(rows.tolist())
        return weights[rows]

    rows = search.SearchRows(np.array([5, 1, 3]), some, 6)
    words = np.array([0, 2**30 - 1, 2**30, 2**32 - 1], np.uint32)
    for row, expected in ((0, [1, 1, 3, 3]), (1, [0] * 4), (2, [2] * 4), (0, [1, 1, 3, 3])):
        assert rows.draw(np.full(4, row), words).tolist() == expected
    assert rows.draw(np.array([2, 1, 0, 0]), words).tolist() == [2, 0, 3, 3]
    assert rows.draw(np.zeros(0, np.int64), words[:0]).tolist() == []
    # What does not fit is forgotten; rows of about a length are computed together.
    assert requested == [[0], [1], [2], [0], [1], [2, 0]]
    assert rows.size_bytes == 2 * 3 * 4 + 6 * 4


def test_rows_of_one_outcome_need_no_weights() -> None:
    def none(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        raise AssertionError(rows)

    assert search.SearchRows(np.ones(3, np.int64), none, 1).draw(np.array([2]), np.zeros(1, np.uint32)).tolist() == [0]
