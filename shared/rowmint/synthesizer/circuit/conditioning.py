"""Conditions and weights compiled: from what is drawn without them to what draws rows that satisfy them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rowmint.codecs.shares import ChoiceShares, weighted_shares
from rowmint.conditions import ColumnCondition, ColumnWeights
from rowmint.errors import InvalidConditionError
from rowmint.steps import Steps
from rowmint.synthesizer.circuit.conditioned import ConditionedChoices, ConditionedColumn, ConditionedRoot
from rowmint.synthesizer.circuit.evidence import Evidence, evidence
from rowmint.synthesizer.circuit.messages import Beliefs, belief_steps, is_accurate, log_probability
from rowmint.synthesizer.circuit.outside import BinProbabilities, bin_probability_steps
from rowmint.synthesizer.circuit.proposal import Drawing

_MOST_CELLS = 1 << 24
"""Weights that the tables of all conditioned columns keep: 64 MiB."""
_LEAST_CELLS = 1 << 17
"""Weights that each of these tables may keep, however many there are."""

Shares = Mapping[int, ChoiceShares]
"""What is left of columns that have a condition, by position."""


def conditioned_steps(
    drawing: Drawing, tests: Sequence[ColumnCondition], weights: ColumnWeights | None
) -> Steps[tuple[Drawing, float]]:
    """Work out what draws rows that satisfy conditions, and log P(conditions); a step is a column.

    Args:
        drawing: Draws rows without conditions.
        tests: Canonical conditions, none on a column that has weights.
        weights: Canonical weights of a column's values.

    Raises:
        InvalidConditionError: No row satisfies the conditions, or none an entry of the weights.
    """
    positions = {head.column.name: position for position, head in enumerate(drawing.heads)}
    shares = {positions[test.column]: drawing.heads[positions[test.column]].shares(test) for test in tests}
    observed = _evidence(drawing, shares)
    found = yield from belief_steps(drawing.circuit, observed.bins)
    if found is None:
        raise (yield from _impossible_steps(drawing, tests, shares))
    if weights is None:
        return _conditioned(drawing, shares, observed, found), found.log_probability
    position = positions[weights.column]
    entries, exponent = yield from _entry_steps(drawing, shares, found, weights, position)
    factors = weights.factors((entries / entries.max()).tolist()).tolist()
    codec = drawing.heads[position].codec
    shares[position] = weighted_shares(codec, [entry.condition for entry in weights.entries], factors)
    observed = _evidence(drawing, shares)
    found = yield from belief_steps(drawing.circuit, observed.bins)
    if found is None:
        raise InvalidConditionError(
            f"no row of the model has a weight in column {weights.column!r}", metadata={"column": weights.column}
        )
    return _conditioned(drawing, shares, observed, found), log_probability(float(entries.sum()), exponent)


def _entry_steps(
    drawing: Drawing, shares: Shares, found: Beliefs, weights: ColumnWeights, position: int
) -> Steps[tuple[NDArray[np.float64], int]]:
    """Work out P(conditions and entry) of each entry of the weights over a power of two, and its exponent.

    Args:
        drawing: Draws rows without conditions.
        shares: The conditions by position.
        found: What they say.
        weights: Canonical weights.
        position: Position of their column.

    Raises:
        InvalidConditionError: No row that satisfies the conditions has an entry.
    """
    circuit, head = drawing.circuit, drawing.heads[position]
    column = circuit.determining(position)
    beside = {each: own for each, own in shares.items() if circuit.determining(each) == column}
    held = np.zeros((len(weights.entries), circuit.columns[column].bins.count))
    for row, entry in enumerate(weights.entries):
        held[row] = _evidence(drawing, {**beside, position: head.shares(entry.condition)}).bins[column]
        yield
    observed = _evidence(drawing, shares).bins
    while True:
        within: BinProbabilities = yield from bin_probability_steps(circuit, observed, found, column)
        products = held * within.values
        entries = np.ascontiguousarray(products.T).sum(axis=0)  # one bin after another: the same bytes everywhere
        if is_accurate(float(entries.min()), within.error) or found.is_finest:
            break
        again = yield from belief_steps(circuit, observed, found.cuts)
        if again is None:
            break
        found = again
    return entries, within.exponent


def _evidence(drawing: Drawing, shares: Shares) -> Evidence:
    return evidence(drawing.circuit, {position: own.of_choice for position, own in shares.items()})


def _impossible_steps(
    drawing: Drawing, tests: Sequence[ColumnCondition], shares: Shares
) -> Steps[InvalidConditionError]:
    """Work out the error for conditions that no row satisfies: it names the first whose addition makes it so."""
    first, last = 0, len(tests) - 1
    in_order = list(shares.items())
    while first < last:
        middle = (first + last) // 2
        observed = _evidence(drawing, dict(in_order[: middle + 1]))
        possible = (yield from belief_steps(drawing.circuit, observed.bins)) is not None
        first, last = (middle + 1, last) if possible else (first, middle)
    column = tests[first].column
    others = ", ".join(repr(test.column) for test in tests[:first])
    beside = f" and those on {others}" if others else ""
    return InvalidConditionError(
        f"no row of the model satisfies the condition on column {column!r}{beside}", metadata={"column": column}
    )


def _conditioned(drawing: Drawing, shares: Shares, observed: Evidence, found: Beliefs) -> Drawing:
    circuit, indices = drawing.circuit, drawing.indices
    most_cells = max(_MOST_CELLS // (2 * max(len(found.at), 1)), _LEAST_CELLS)
    columns: dict[int, ConditionedRoot | ConditionedColumn] = {}
    for position, belief in found.at.items():
        column, index = circuit.columns[position], indices[position]
        if column.edge is None or belief.parts is None:
            columns[position] = ConditionedRoot(circuit, column, index, belief)
        else:
            columns[position] = ConditionedColumn(
                column, column.edge, index, belief, belief.parts, cuts=found.cuts, most_cells=most_cells
            )
    choices = {
        position: ConditionedChoices(circuit.columns[position].bins, own, indices[position])
        for position, own in observed.choices.items()
    }
    size = sum(own.size_bytes for own in (*columns.values(), *choices.values(), *shares.values()))
    return replace(
        drawing,
        columns={**drawing.columns, **columns},
        choices={**drawing.choices, **choices},
        shares=shares,
        size_bytes=size,
    )
