"""The slow way: every configuration of a small circuit's states and bins, with its probability as a fraction."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from rowmint.synthesizer.circuit.alias import FULL, AliasTable
from rowmint.synthesizer.circuit.tree import ONE, Circuit, Edge, TreeColumn

Configuration = tuple[int, ...]
"""A bin of each column of the tree, in the tree's order."""


def bin_probability(column: TreeColumn, edge: Edge, state: int, parent_bin: int, own_bin: int) -> Fraction:
    """Return P(bin | state, parent's bin) as the formula says."""
    total = Fraction(int(edge.mixture[state, 0]) * int(column.emission[state, own_bin]), ONE**2)
    first, last = int(edge.starts[parent_bin]), int(edge.starts[parent_bin + 1])
    listed = edge.pair_bins[first:last].tolist()
    for component in range(len(edge.rest)):
        drawn = Fraction(
            int(edge.rest[component, parent_bin]) * int(edge.backoff[edge.group[parent_bin], own_bin]), ONE**2
        )
        if own_bin in listed:
            drawn += Fraction(int(edge.pair_weights[component, first + listed.index(own_bin)]), ONE)
        total += Fraction(int(edge.mixture[state, component + 1]), ONE) * drawn
    return total


def joint(circuit: Circuit) -> dict[Configuration, Fraction]:
    """Return the probability of every configuration of bins."""
    place = {position: number for number, position in enumerate(circuit.columns)}

    def first(column: TreeColumn) -> Iterator[tuple[int, int, Fraction]]:
        for state, own in itertools.product(range(circuit.states), range(column.bins.count)):
            yield state, own, Fraction(int(circuit.root[state]) * int(column.emission[state, own]), ONE**2)

    def tables(column: TreeColumn, edge: Edge) -> Callable[[int, int], list[tuple[int, int, Fraction]]]:
        bins, states = range(column.bins.count), range(circuit.states)
        drawn = {
            (state, parent, own): bin_probability(column, edge, state, parent, own)
            for state in states
            for parent in range(circuit.columns[edge.parent].bins.count)
            for own in bins
        }

        def following(parent_state: int, parent_bin: int) -> list[tuple[int, int, Fraction]]:
            return [
                (state, own, Fraction(int(edge.transition[parent_state, state]), ONE) * drawn[state, parent_bin, own])
                for state in states
                for own in bins
            ]

        return following

    found: dict[tuple[tuple[int, ...], Configuration], Fraction] = {}
    for column in circuit.columns.values():
        if column.edge is None:
            found = {((state,), (own,)): chance for state, own, chance in first(column) if chance}
            continue
        following, parent = tables(column, column.edge), place[column.edge.parent]
        found = {
            ((*states, state), (*bins, own)): before * chance
            for (states, bins), before in found.items()
            for state, own, chance in following(states[parent], bins[parent])
            if chance
        }
    total: dict[Configuration, Fraction] = defaultdict(Fraction)
    for (_, bins), chance in found.items():
        total[bins] += chance
    return dict(total)


def given(
    circuit: Circuit, every: Mapping[Configuration, Fraction], shares: Mapping[int, NDArray[np.float64]]
) -> tuple[Fraction, dict[Configuration, Fraction]]:
    """Return P(conditions), and the probability of every configuration given them, by Bayes."""
    weighted = {}
    for bins, chance in every.items():
        held = chance
        for position, own in zip(circuit.columns, bins, strict=True):
            held *= Fraction(float(shares[position][own])) if position in shares else 1
        if held:
            weighted[bins] = held
    total = sum(weighted.values(), Fraction(0))
    return total, {bins: chance / total for bins, chance in weighted.items()}


def row_of(table: AliasTable, row: int) -> dict[int, Fraction]:
    """Return the probability of each outcome of a row of an alias table, by its thresholds."""
    if isinstance(table.lengths, int):
        length, start = table.lengths, row * table.lengths
    else:
        assert table.starts is not None
        length, start = int(table.lengths[row]), int(table.starts[row])
    chances: dict[int, Fraction] = defaultdict(Fraction)
    for cell in table.cells[start : start + length].tolist():
        own, alias = cell >> 16 & 0xFFFF, cell & 0xFFFF
        kept = (cell >> 32) + 1
        chances[own] += Fraction(kept, FULL * length)
        chances[alias] += Fraction(FULL - kept, FULL * length)
    return {outcome: chance for outcome, chance in chances.items() if chance}


def normalised(weights: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Return weights over their sum; all 0 where they are."""
    total = float(np.sum(weights))
    return np.asarray(weights) / total if total else np.zeros(len(weights))


def chi_square_deviations(square: float, freedom: int) -> float:
    """Return chi-square as a deviate of the standard normal distribution (Wilson and Hilferty, PNAS 1931)."""
    return float(((square / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / np.sqrt(2 / (9 * freedom)))
