"""Conditions on any columns as shares of the bins of the tree's columns."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rowmint.synthesizer.circuit.tree import ONE, Bins, Circuit


@dataclass(frozen=True)
class Evidence:
    """What conditions leave of the tree's columns that have one, or that a column with one is derived from.

    Attributes:
        choices: Share of each choice that satisfies the conditions, 0 to 1, float64, shape (choices,), by position.
        bins: Share of each bin, float64, shape (bins,), by position.
    """

    choices: Mapping[int, NDArray[np.float64]]
    bins: Mapping[int, NDArray[np.float64]]


def evidence(circuit: Circuit, shares: Mapping[int, NDArray[np.float64]]) -> Evidence:
    """Return what conditions on modelled columns leave of the tree's.

    Args:
        circuit: The model.
        shares: Share of each choice of a modelled column that satisfies the condition on it, by position.
    """
    choices: dict[int, NDArray[np.float64]] = {}
    for position, own in shares.items():
        derived = circuit.derived.get(position)
        at = circuit.determining(position)
        satisfied = own if derived is None else own[derived.choices]
        choices[at] = choices[at] * satisfied if at in choices else satisfied
    return Evidence(choices, {at: bin_shares(circuit.columns[at].bins, own) for at, own in choices.items()})


def bin_shares(bins: Bins, shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of each bin, shape (bins,), given that of each choice: one choice after another."""
    return np.bincount(bins.of_choice, bins.weights * shares, bins.count) / float(ONE)
