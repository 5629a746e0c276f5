"""Circuits read from manifest and weights: what does not make one is refused, with what is wrong."""

import contextlib
import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowmint.errors import DataLossError
from rowmint.synthesizer.circuit.arrays import MAX_BINS, read_circuit
from rowmint.synthesizer.circuit.tree import ONE
from tests.circuits import CHAIN, JOINT, MIXED, STAR, CircuitMaker, MadeCircuit

MADE = CircuitMaker(1).make()
ROOT, INNER, LEAF, DERIVED = 1, 2, 0, 4
JOINED = CircuitMaker(1, JOINT, joint=7).make()


def refused(made: MadeCircuit, what: str) -> None:
    with pytest.raises(DataLossError, match=what):
        read_circuit(made.network, made.arrays, made.choices)


@pytest.mark.parametrize(
    ("parents", "joint"),
    [(CHAIN, 0), (STAR, 0), (MIXED, 0), ((-1,), 0), ((-1, -2), 0), (JOINT, 9), ((-2, -2, -1), 4)],
)
def test_a_circuit_is_read(parents: tuple[int, ...], joint: int) -> None:
    made = CircuitMaker(2, parents, joint=joint).make()
    circuit = made.circuit
    assert list(circuit.columns) == made.network["order"]
    assert {i: column.edge.parent for i, column in circuit.columns.items() if column.edge} == {
        i: parent for i, parent in enumerate(parents) if parent >= 0
    }
    assert circuit.size_bytes == sum(array.nbytes for array in made.arrays.values())
    for column in circuit.columns.values():
        assert column.children == tuple(i for i in made.network["order"] if parents[i] == column.position)


def test_a_model_without_columns_is_read() -> None:
    network = {"states": 2, "components": 1, "parents": [], "order": [], "derived": {}}
    root = np.array([ONE, 0], np.uint32)
    circuit = read_circuit(network, {"root": root}, [])
    assert (dict(circuit.columns), dict(circuit.derived)) == ({}, {})


def test_paths_lead_to_the_root() -> None:
    circuit = MADE.circuit
    assert list(circuit.path(3)) == [3, 2, 1]
    assert [circuit.determining(i) for i in range(6)] == [0, 1, 2, 3, 1, 5]


@pytest.mark.parametrize(
    ("network", "what"),
    [
        ({"states": 0}, "0 states; 1 to"),
        ({"states": 4}, "array 'root' has type uint32 and shape"),
        ({"states": True}, "states is not an integer"),
        ({"components": 33}, "33 components"),
        ({"parents": [1, -1, 1, 2, -2]}, "5 parents for 6 columns"),
        ({"parents": "no"}, "parents is not a list of integers"),
        ({"parents": [1, -1, 1, 2, -2, 4]}, "column 5 does not follow its parent, 4"),
        ({"parents": [1, -1, -1, 2, -2, 2]}, "column 2 does not follow its parent, -1"),
        ({"order": [1, 0, 2, 3, 5, 5]}, "order is not that of the tree's columns"),
        ({"order": [1, 0, 3, 2, 5]}, "column 3 does not follow its parent"),
        ({"order": [0, 1, 2, 3, 5]}, "column 0 does not follow its parent"),
        ({"order": [1, 0, 2, 3, 4, 5]}, "order is not that of the tree's columns"),
        ({"derived": {}}, "lacks '4'"),
        ({"derived": {"4": 4}}, "column 4 is derived from 4, which is not in the tree"),
        ({"derived": {"4": 9}}, "which is not in the tree"),
        ({"derived": {"4": 1, "5": 1}}, "not those without a place in the tree"),
        ({"derived": {"4": "1"}}, "4 is not an integer"),
        ({"derived": None}, "malformed"),
    ],
)
def test_what_is_not_a_tree_is_refused(network: dict[str, Any], what: str) -> None:
    refused(MADE.changed(network), what)


@pytest.mark.parametrize(
    ("network", "what"),
    [
        ({"joint": []}, "6 parents for 5 columns"),
        ({"joint": [7, 7]}, "6 parents for 7 columns"),
        ({"joint": [1] * 6}, "6 joint columns of 5 columns"),
        ({"joint": [0]}, "0 choices of column 5; 1 to 65,536"),
        ({"joint": [65_537]}, "65537 choices of column 5"),
        ({"joint": [6]}, r"array 'bins.5.of' has type uint16 and shape \(7,\)"),
        ({"joint": 7}, "joint is not a list of integers"),
        ({"joint": None}, "joint is not a list of integers"),
        ({"joint": ["7"]}, "joint is not a list of integers"),
        (
            {"parents": [-1, -2, -2, 0, -2, -2], "order": [0, 3], "derived": {"1": 0, "2": 0, "4": 0, "5": 0}},
            "no column is derived from the joint column 5",
        ),
        ({"derived": {"1": 0, "2": 0, "4": 3}}, "no column is derived from the joint column 5"),
        ({"derived": {"1": 5, "2": 5, "4": 6}}, "column 4 is derived from 6, which is not in the tree"),
    ],
)
def test_what_is_no_joint_column_is_refused(network: dict[str, Any], what: str) -> None:
    refused(JOINED.changed(network), what)


def off_by_one(name: str) -> MadeCircuit:
    array = MADE.arrays[name].copy()
    place = np.unravel_index(array.argmax(), array.shape)
    array[place] = int(array[place]) + (1 if array[place] < ONE else -1)
    return MadeCircuit(MADE.schema, MADE.codecs, MADE.network, {**MADE.arrays, name: array})


@pytest.mark.parametrize(
    "name",
    [
        "root",
        f"bins.{LEAF}.weights",
        f"emission.{ROOT}",
        f"transition.{INNER}",
        f"mixture.{INNER}",
        f"pairs.{INNER}.weights",
        f"pairs.{INNER}.rest",
        f"backoff.{INNER}.weights",
    ],
)
def test_rows_sum_to_one(name: str) -> None:
    refused(off_by_one(name), "sum to one")
    above = np.full(MADE.arrays[name].shape, 2**32 - 1, np.uint32)
    refused(MadeCircuit(MADE.schema, MADE.codecs, MADE.network, {**MADE.arrays, name: above}), "is above one")


@pytest.mark.parametrize("name", sorted(MADE.arrays))
def test_every_array_is_there_of_its_type_and_shape(name: str) -> None:
    array = MADE.arrays[name]
    others = {key: value for key, value in MADE.arrays.items() if key != name}
    refused(MadeCircuit(MADE.schema, MADE.codecs, MADE.network, others), f"lacks '{name}'")
    for wrong in (array.astype(np.int64), array.astype(np.float64), array[None], array[..., :-1]):
        refused(MadeCircuit(MADE.schema, MADE.codecs, MADE.network, {**others, name: wrong}), "circuit is malformed")


def test_pairs_are_ascending_bins_of_the_column() -> None:
    starts = MADE.arrays[f"pairs.{INNER}.starts"]
    bins = MADE.arrays[f"pairs.{INNER}.bins"]
    row = int(np.flatnonzero(np.diff(starts) > 1)[0])
    swapped = bins.copy()
    swapped[[starts[row], starts[row] + 1]] = swapped[[starts[row] + 1, starts[row]]]
    refused(MADE.changed(pairs_2_bins=swapped), "not ascending")
    refused(MADE.changed(pairs_2_bins=bins + np.uint16(100)), "a bin that column 2 does not have")
    backwards = starts.copy()
    backwards[1] = starts[-1] + 1
    refused(MADE.changed(pairs_2_starts=backwards), "does not divide the pairs")


def test_groups_and_derived_choices_exist() -> None:
    group = MADE.arrays[f"backoff.{INNER}.group"] + np.uint16(50)
    refused(MADE.changed(backoff_2_group=group), "has no row in 'backoff.2.weights'")
    derived = MADE.arrays[f"derived.{DERIVED}"] + np.uint16(50)
    refused(MADE.changed(derived_4=derived), "a choice that the column does not have")


def test_bins_are_few_and_none_is_empty() -> None:
    of = MADE.arrays[f"bins.{ROOT}.of"].copy()
    of[of == 0] = 1
    refused(MADE.changed(bins_1_of=of), "do not sum to one")
    of[0] = MAX_BINS
    refused(MADE.changed(bins_1_of=of), "513 bins of column 1; 1 to 512")


@pytest.mark.parametrize("made", [MADE, JOINED], ids=["mixed", "joint"])
@settings(max_examples=150)
@given(st.data())
def test_whatever_is_broken_it_is_a_circuit_or_data_loss(made: MadeCircuit, data: st.DataObject) -> None:
    network, arrays = copy.deepcopy(made.network), dict(made.arrays)
    for _ in range(data.draw(st.integers(1, 3))):
        if data.draw(st.booleans()):
            values = st.one_of(st.none(), st.booleans(), st.integers(-3, 7), st.text(max_size=2), st.floats())
            broken = st.one_of(
                values, st.lists(values, max_size=7), st.dictionaries(st.sampled_from("01245"), values, max_size=2)
            )
            network[data.draw(st.sampled_from(sorted(network)))] = data.draw(broken)
            continue
        name = data.draw(st.sampled_from(sorted(arrays)))
        array = arrays[name].copy()
        match data.draw(st.sampled_from(["cell", "type", "shape", "swap"])):
            case "cell" if array.size:
                most = int(np.iinfo(array.dtype).max) if array.dtype.kind == "u" else 1
                array.flat[data.draw(st.integers(0, array.size - 1))] = data.draw(st.integers(0, most))
            case "type":
                dtypes = [np.uint8, np.int32, np.uint64, np.float32, np.bool_, np.uint16, np.uint32]
                array = array.astype(data.draw(st.sampled_from(dtypes)))
            case "shape":
                array = data.draw(st.sampled_from([array.T, array[:0], array[1:], array.ravel(), array.reshape(-1, 1)]))
            case _:
                array = arrays[data.draw(st.sampled_from(sorted(arrays)))]
        arrays[name] = array
    with contextlib.suppress(DataLossError):
        assert read_circuit(network, arrays, made.choices).size_bytes > 0
