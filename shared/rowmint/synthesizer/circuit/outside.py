"""P(conditions, bin) of every bin of one column: messages from the root down to it.

With M, what the conditions say from below, the joint of a column's state and bin and all conditions at other columns is

    root: J(z, x) = root[z] * emission[z, x] * v(x) * prod_c M_c(z, x)
    else: D(z, x_p) = sum_z_p transition[z_p, z] * J_p(z_p, x_p)
          J(z, x) = v(x) * prod_c M_c(z, x) * sum_x_p P(x | z, x_p) * D(z, x_p)

where c are the children that are not on the way, and v is left out at the column itself. All sums are of one product
after another: the same bytes everywhere, and nothing is cut off.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rowmint.steps import Steps
from rowmint.synthesizer.circuit.messages import Beliefs, Float64, scaled, shifted
from rowmint.synthesizer.circuit.tree import ONE, Circuit, Edge, TreeColumn


@dataclass(frozen=True)
class BinProbabilities:
    """P(conditions, bin) of a column's bins.

    Attributes:
        values: Over 2**`exponent`, float64, shape (bins,).
        exponent: See `values`.
        error: What may be wrong with a value, at most.
    """

    values: Float64
    exponent: int
    error: float


def bin_probability_steps(
    circuit: Circuit, shares: Mapping[int, Float64], found: Beliefs | None, position: int
) -> Steps[BinProbabilities]:
    """Work out P(conditions, bin) of a column's bins, its own condition left out; a step is a column.

    Args:
        circuit: The model.
        shares: Share of each bin that satisfies the condition on a column of the tree, by position.
        found: What the conditions say; None where there are none.
        position: The column, one of the tree.
    """
    messages = {} if found is None else found.messages
    path = list(circuit.path(position))
    aside = [sender for sender in messages if sender not in path]
    exponent, error = sum(messages[sender].exponent for sender in aside), 0.0
    joint = np.zeros((circuit.states, 0))
    for at in reversed(path):
        column = circuit.columns[at]
        if column.edge is None:
            joint = circuit.root[:, None] / float(ONE) * (column.emission / float(ONE))
        else:
            joint = _carried(column, column.edge, joint)
        if at != position and at in shares:
            joint = joint * shares[at]
        for child in column.children:
            if child in messages and child not in path:
                joint = joint * messages[child].weights
                error += messages[child].error
        joint, down = scaled(joint)
        exponent += down
        error = shifted(error, -down)
        yield
    return BinProbabilities(joint.sum(axis=0), exponent, error)


def _carried(column: TreeColumn, edge: Edge, joint: Float64) -> Float64:
    """Return sum_x_p P(x | z, x_p) * sum_z_p transition[z_p, z] * J(z_p, x_p), shape (states, bins).

    Args:
        column: The column.
        edge: Its edge.
        joint: J of its parent, shape (states, parent's bins).
    """
    transition, mixture = edge.transition / float(ONE), edge.mixture / float(ONE)
    before = np.zeros((len(transition), joint.shape[1]))
    for state in np.flatnonzero(joint.any(axis=1)).tolist():
        before += transition[state][:, None] * joint[state]
    components = np.zeros((len(edge.rest), *column.emission.shape))
    rest = np.zeros((len(edge.rest), len(edge.backoff), len(before)))
    own = np.zeros(len(before))
    pair_weights, rest_weights = edge.pair_weights / float(ONE), edge.rest / float(ONE)
    for parent_bin in np.flatnonzero(before.any(axis=0)).tolist():
        drawn = before[:, parent_bin]
        own += drawn
        pairs = slice(int(edge.starts[parent_bin]), int(edge.starts[parent_bin + 1]))
        components[:, :, edge.pair_bins[pairs]] += drawn[:, None] * pair_weights[:, None, pairs]
        rest[:, edge.group[parent_bin]] += drawn * rest_weights[:, parent_bin, None]
    for group, backoff in enumerate(edge.backoff / float(ONE)):
        components += rest[:, group, :, None] * backoff
    found: Float64 = (mixture[:, 0] * own)[:, None] * (column.emission / float(ONE))
    for component, drawn in enumerate(components, 1):
        found += mixture[:, component, None] * drawn
    return found
