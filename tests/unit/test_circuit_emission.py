"""Probabilities by the parent's state are exact, whatever the order in which they are summed."""

import numpy as np
import pytest
from numpy.typing import NDArray

from rowmint.synthesizer.circuit.arrays import MAX_STATES
from rowmint.synthesizer.circuit.emission import merged_rows
from rowmint.synthesizer.circuit.tree import ONE, Edge
from tests.circuits import whole_rows

BINS = 6
PARENT_STATES = 8


def edge_of(transition: NDArray[np.uint32], mixture: NDArray[np.uint32]) -> Edge:
    """Return an edge without pairs, from a parent of one bin."""
    components = mixture.shape[1] - 1
    return Edge(
        0,
        transition,
        mixture,
        np.zeros(2, np.uint32),
        np.zeros(0, np.uint16),
        np.zeros((components, 0), np.uint32),
        np.full((components, 1), ONE, np.uint32),
        np.zeros(1, np.uint16),
        whole_rows(np.ones((1, BINS))),
    )


def own_emission(transition: NDArray[np.uint32], own: NDArray[np.uint32], emission: NDArray[np.uint32]) -> list[float]:
    """Return sum_z transition[u, z] * own[z] * emission[z, x] in whole numbers, rounded once."""
    exact = (transition.astype(object) * own.astype(object)) @ emission.astype(object)
    return [total / ONE**3 for total in exact.ravel().tolist()]


@pytest.mark.parametrize("states", [2, 64, MAX_STATES])
@pytest.mark.parametrize("own", ["nearly none", "nearly all", "mixed"])
def test_sums_of_extreme_weights_are_rounded_once_in_any_order_of_the_states(states: int, own: str) -> None:
    rng = np.random.default_rng(states)
    shares = {"nearly none": states - 1, "nearly all": ONE - 1, "mixed": rng.integers(1, ONE, states)}[own]
    mixture = np.zeros((states, 3), np.uint32)
    mixture[:, 0] = shares
    mixture[:, 1] = ONE - mixture[:, 0]
    transition = whole_rows(rng.uniform(0.9, 1, (PARENT_STATES, states)))
    # One bin has nearly everything in every state: its products sum to the most there is.
    emission = whole_rows(np.concatenate([np.full((states, 1), 1e4), rng.uniform(0, 1, (states, BINS - 1))], axis=1))
    expected = own_emission(transition, mixture[:, 0], emission)
    for _ in range(8):
        order = rng.permutation(states)
        found = merged_rows(emission[order], edge_of(transition[:, order], mixture[order]))
        assert found.own.ravel().tolist() == expected
        assert found.mixture[:, 0].tolist() == [
            total / ONE**2 for total in (transition.astype(object) @ mixture[:, 0].astype(object)).tolist()
        ]
