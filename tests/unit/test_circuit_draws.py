"""Circuits without conditions: what the tables draw, word by word and in all."""

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest

from rowmint.errors import DataLossError
from rowmint.rng import StreamKey
from rowmint.schema import TableSchema
from rowmint.schema.arrays import ColumnArray
from rowmint.synthesizer import ConditionSupport, propose
from rowmint.synthesizer.circuit.alias import FULL
from rowmint.synthesizer.circuit.draws import (
    ColumnTables,
    RootTables,
    SingleChoices,
    WeightedChoices,
    choice_draw,
    column_tables,
)
from rowmint.synthesizer.circuit.proposal import CircuitProposal, Drawing
from rowmint.synthesizer.circuit.synthesizer import CircuitSynthesizer
from rowmint.synthesizer.circuit.tree import ONE
from rowmint.synthesizer.parts import ModelParts
from tests.circuits import CHAIN, MIXED, STAR, CircuitMaker, MadeCircuit
from tests.seeds import seeded
from tests.unit.circuit_oracle import bin_probability, chi_square_deviations, joint, row_of

STREAM = StreamKey(bytes(32), bytes(32), 7)
TILE = 4096
MADE = CircuitMaker(11).make()


def model(made: MadeCircuit) -> CircuitSynthesizer:
    return CircuitSynthesizer.load(made.parts())


def rows(made: MadeCircuit, columns: list[str], size: int = TILE, tile: int = 0) -> dict[str, ColumnArray]:
    key = STREAM.tile(0, tile)
    proposal = propose(model(made), (), columns)
    return proposal.finish(proposal.candidates(key, size), key).columns


def drawn_bins(tables: ColumnTables, state: int, parent_bin: int) -> dict[int, Fraction]:
    """Return the probability of each bin given a state and a bin of the parent, as the tables draw them."""
    total: dict[int, Fraction] = {}
    for component, chance in row_of(tables.component, state).items():
        row = int(tables.first_rows[component]) + (parent_bin if component else state)
        for outcome, own in row_of(tables.bin, row).items():
            if outcome == tables.rest:
                backoff = row_of(tables.backoff, int(tables.group[parent_bin]))
                for bin_, rest in backoff.items():
                    total[bin_] = total.get(bin_, Fraction(0)) + chance * own * rest
            else:
                total[outcome] = total.get(outcome, Fraction(0)) + chance * own
    return total


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("parents", [CHAIN, STAR, MIXED])
def test_the_tables_draw_the_model(seed: int, parents: tuple[int, ...]) -> None:
    circuit = CircuitMaker(seed, parents).make().circuit
    for position, column in circuit.columns.items():
        tables = column_tables(circuit, column, position)
        if column.edge is None:
            assert isinstance(tables, RootTables)
            assert row_of(tables.state, 0) == {z: Fraction(int(w), ONE) for z, w in enumerate(circuit.root) if w}
            for state, weights in enumerate(column.emission):
                expected = {x: Fraction(int(weight), ONE) for x, weight in enumerate(weights) if weight}
                assert row_of(tables.bin, state) == expected
            continue
        assert isinstance(tables, ColumnTables)
        if tables.state is not None:
            for state, weights in enumerate(column.edge.transition):
                expected = {z: Fraction(int(weight), ONE) for z, weight in enumerate(weights) if weight}
                assert row_of(tables.state, state) == expected
        assert (tables.state is None) == (not column.children)
        for state in range(circuit.states):
            for parent_bin in range(len(column.edge.group)):
                probabilities = [
                    [bin_probability(column, column.edge, own, parent_bin, each) for each in range(column.bins.count)]
                    for own in range(circuit.states)
                ]
                drawn = drawn_bins(tables, state, parent_bin)
                for each in range(column.bins.count):
                    if column.children:  # exactly
                        assert drawn.get(each, 0) == probabilities[state][each]
                    else:  # its state is summed over: within a word's width
                        merged = sum(
                            Fraction(int(weight), ONE) * probabilities[own][each]
                            for own, weight in enumerate(column.edge.transition[state])
                        )
                        assert abs(drawn.get(each, 0) - merged) <= Fraction(circuit.components + 2, FULL)
                        assert merged or each not in drawn


def test_choices_are_drawn_by_their_weights() -> None:
    circuit = MADE.circuit
    for position, column in circuit.columns.items():
        draw = choice_draw(column.bins, position)
        assert isinstance(draw, WeightedChoices)
        for each in range(column.bins.count):
            own = np.flatnonzero(column.bins.of_choice == each)
            expected = {int(c): Fraction(int(column.bins.weights[c]), ONE) for c in own if column.bins.weights[c]}
            assert row_of(draw.table, each) == expected


def test_a_column_of_one_choice_a_bin_needs_no_words() -> None:
    made = CircuitMaker(1, (-1,), bins=9, kinds=("category",)).make()
    of = np.array([3, 1, 0, 2, 4], np.uint16)
    arrays = {**made.arrays, "bins.0.of": of, "bins.0.weights": np.full(5, ONE, np.uint32)}
    arrays["emission.0"] = np.eye(3, 5, dtype=np.uint32) * np.uint32(ONE)
    circuit = MadeCircuit(made.schema, made.codecs, made.network, arrays).circuit
    draw = choice_draw(circuit.columns[0].bins, 0)
    assert isinstance(draw, SingleChoices)
    assert draw.choices(STREAM.tile(0, 0), np.arange(5)).tolist() == [2, 1, 3, 0, 4]


@pytest.mark.parametrize("seed", seeded(1, 2, 3))
@pytest.mark.parametrize("parents", [CHAIN, STAR])
def test_rows_follow_the_model(seed: int, parents: tuple[int, ...]) -> None:
    """Chi-square of all columns' categories at once; within a bin they are drawn by fixed weights."""
    made = CircuitMaker(seed + 20, parents, states=2, bins=3, kinds=("category",)).make()
    circuit = made.circuit
    names = list(made.schema.names)
    cells = np.concatenate([codes(rows(made, names, tile=tile)) for tile in range(12)])
    bins = np.stack([circuit.columns[p].bins.of_choice[cells[:, p]] for p in circuit.columns], axis=1)
    every = joint(circuit)
    found = dict.fromkeys(every, 0)
    for row, count in zip(*np.unique(bins, axis=0, return_counts=True), strict=True):
        found[tuple(row.tolist())] += int(count)  # a KeyError is a row that can never be
    expected = np.array([float(chance) for chance in every.values()]) * len(cells)
    observed = np.array(list(found.values()))
    assert deviations(observed, expected) < 5
    for position, column in circuit.columns.items():
        for each in range(column.bins.count):
            own = np.flatnonzero(column.bins.of_choice == each)
            counts = np.array([(cells[:, position] == choice).sum() for choice in own])
            assert deviations(counts, column.bins.weights[own] / ONE * counts.sum()) < 5


def codes(columns: dict[str, ColumnArray]) -> np.ndarray:
    return np.stack([array.values for array in columns.values()], axis=1)


def deviations(observed: np.ndarray, expected: np.ndarray) -> float:
    """Return the chi-square of counts, rare ones taken together, as a normal deviate."""
    rare = expected < 5
    observed = np.append(observed[~rare], observed[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    kept = expected > 0
    assert not observed[~kept].any()
    observed, expected = observed[kept], expected[kept]
    if len(expected) < 2:
        return 0.0
    square = float(((observed - expected) ** 2 / expected).sum())
    return chi_square_deviations(square, len(expected) - 1)


def equal(one: ColumnArray, other: ColumnArray) -> bool:
    same = one.values.tobytes() == other.values.tobytes() and one.values.dtype == other.values.dtype
    return same and one.missing().tobytes() == other.missing().tobytes()


def test_a_column_does_not_depend_on_which_others_are_requested() -> None:
    names = list(MADE.schema.names)
    whole = rows(MADE, names)
    assert list(whole) == names
    for some in (names[:1], names[3:4], names[4:5], names[::-1]):
        found = rows(MADE, some)
        assert list(found) == some
        assert all(equal(found[name], whole[name]) for name in some)
    assert rows(MADE, []) == {}


def test_a_row_does_not_depend_on_how_many_are_requested() -> None:
    names = list(MADE.schema.names)
    whole, some = rows(MADE, names), rows(MADE, names, size=37)
    assert all(equal(some[name], whole[name].take(slice(0, 37))) for name in names)
    assert {name: len(array) for name, array in rows(MADE, names, size=0).items()} == dict.fromkeys(names, 0)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_tiles_drawn_at_once_are_those_drawn_one_by_one(threads: int) -> None:
    names = list(MADE.schema.names)
    expected = [rows(MADE, names, tile=tile) for tile in range(6)]
    proposal = propose(model(MADE), (), names)

    def draw(tile: int) -> dict[str, ColumnArray]:
        key = STREAM.tile(0, tile)
        return proposal.finish(proposal.candidates(key, TILE), key).columns

    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(draw, range(6)))
    assert all(equal(one[name], other[name]) for one, other in zip(found, expected, strict=True) for name in names)


def test_a_derived_column_is_a_function_of_another() -> None:
    """Of its choice: the determining column has one cell a choice, but for the rare ones, and so has the derived."""
    made = CircuitMaker(5, (-1, -2), kinds=("nullable", "category")).make()
    found = rows(made, ["c1", "c0"])
    expected = made.arrays["derived.1"][found["c0"].values % made.codecs[0].choices]  # -1 is the last choice
    assert found["c1"].values.tolist() == expected.tolist()


def test_what_the_family_declares() -> None:
    family = model(MADE)
    assert (family.capabilities.conditions, family.capabilities.likelihood) == (ConditionSupport.EXACT, True)
    assert family.memory_bytes > MADE.circuit.size_bytes
    proposal = propose(family, (), ["c1"])
    assert (proposal.acceptance, proposal.probability, proposal.plan_inputs) == (1.0, 1.0, {})
    assert family.conditioned_column(()) == ""


@pytest.mark.parametrize(("columns", "tile"), [(1, 16384), (16, 16384), (17, 8192), (64, 4096), (500, 1024)])
def test_a_tile_has_about_as_many_cells_whatever_the_columns(columns: int, tile: int) -> None:
    positions = {f"c{position}": position for position in range(columns)}
    drawing = Drawing(MADE.circuit, (), {}, {}, {}, {})
    assert CircuitProposal(drawing, positions, (), (), 0.0).tile_size == tile


def test_a_model_without_columns_has_rows() -> None:
    network = {"states": 1, "components": 1, "parents": [], "order": [], "derived": {}}
    arrays = {"root": np.array([ONE], np.uint32)}
    parts = MADE.parts()
    empty = CircuitSynthesizer.load(ModelParts(TableSchema(()), {}, network, arrays, parts.kernel))
    key = STREAM.tile(0, 0)
    proposal = propose(empty, (), [])
    assert proposal.finish(proposal.candidates(key, 3), key).columns == {}


def test_what_is_not_a_circuit_is_not_loaded() -> None:
    with pytest.raises(DataLossError, match="circuit lacks 'root'"):
        model(MadeCircuit(MADE.schema, MADE.codecs, MADE.network, {}))
