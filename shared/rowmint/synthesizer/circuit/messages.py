"""What conditions on some columns say about the others: messages from the leaves of the tree to its root.

v_i(x) is the share of bin x that satisfies the condition on column i, 1 where there is none. Over the columns that have
a condition, or an ancestor's place above one, from the leaves upward (M_c are the messages of i's children):

    A_i(z, x) = v_i(x) * prod_c M_c(z, x)
    S_i(z, x_p) = sum_x P(x | z, x_p) * A_i(z, x)             root: S(z) = sum_x emission[z, x] * A(z, x)
    M_i(z_p, x_p) = sum_z transition[z_p, z] * S_i(z, x_p)    P(conditions) = sum_z root[z] * S(z)

Downward, z ~ transition[z_p, z] * S_i(z, x_p) and then x ~ P(x | z, x_p) * A_i(z, x) are rows given the conditions.

Only ratios within a message matter, so each is scaled by a power of two that P(conditions) is multiplied by again.
What sliced sums cut off is counted, as an absolute error of the scaled values, the greatest of which is 0.5 to 1.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rowmint.steps import Steps
from rowmint.synthesizer.circuit.sliced import BITS, Sliced
from rowmint.synthesizer.circuit.tree import ONE, Circuit, Edge, TreeColumn

Float64 = NDArray[np.float64]
_CUTS = (3, 9, 48)  # the last cuts off nothing that float64 holds
_MOST_ERROR = 2.0**-33


@dataclass(frozen=True)
class Parts:
    """What S is made of. Columns are states, or there is one where A is the same for all states.

    Attributes:
        own: sum_x emission[z, x] * A(z, x), float64, shape (states, 1).
        components: sum_x B_r[x_p, x] * A(z, x), float64, shape (components, parent's bins, columns); 0 where the
            parent's bin is not possible.
        backoff: sum_x backoff[group, x] * A(z, x), float64, shape (groups, columns).
    """

    own: Float64
    components: Float64
    backoff: Float64


@dataclass(frozen=True)
class Belief:
    """What the conditions at a column and below it say there.

    Attributes:
        bins: Bins that are possible, ascending, int64, shape (possible,).
        weights: A, float64, shape (states, possible), or (1, possible) where it is the same for all states.
        by_state: S, float64, shape (states, parent's bins); for the root (states, 1).
        parts: What S is made of; None for the root.
    """

    bins: NDArray[np.int64]
    weights: Float64
    by_state: Float64
    parts: Parts | None


@dataclass(frozen=True)
class Message:
    """What the conditions at a column and below it say to its parent.

    Attributes:
        weights: M over 2**`exponent`, float64, shape (parent's states, parent's bins); the greatest is 0.5 to 1.
        exponent: See `weights`; messages from below have their own.
        error: What may be wrong with a weight, at most.
    """

    weights: Float64
    exponent: int
    error: float


@dataclass(frozen=True)
class Beliefs:
    """What conditions say at every column that has one at or below it.

    Attributes:
        at: By position.
        messages: By position of the sender.
        probability: P(conditions) over 2**`exponent`, above 0.
        exponent: See `probability`.
        cuts: Slices that values were cut into.
        error: What may be wrong with the probability, at most.
    """

    at: Mapping[int, Belief]
    messages: Mapping[int, Message]
    probability: float
    exponent: int
    cuts: int
    error: float

    @property
    def log_probability(self) -> float:
        """Log P(conditions), at most 0."""
        return log_probability(self.probability, self.exponent)

    @property
    def is_finest(self) -> bool:
        """Whether values cannot be cut into more slices."""
        return self.cuts == _CUTS[-1]


def log_probability(value: float, exponent: int) -> float:
    """Return log(value * 2**exponent), at most 0: a figure that is reported, and that no row depends on."""
    return min(math.log(value) + exponent * math.log(2), 0.0)


def belief_steps(circuit: Circuit, shares: Mapping[int, Float64], above: int = 0) -> Steps[Beliefs | None]:
    """Work out what conditions say; a step is a column. None where their probability is 0.

    Where what is cut off of the values may matter, it is done again with values cut into more slices.

    Args:
        circuit: The model.
        shares: Share of each bin that satisfies the condition on a column of the tree, 0 to 1, shape (bins,), by
            position.
        above: Values are cut into more slices than this; into as many as possible, where there are no more.
    """
    found = None
    for cuts in [cuts for cuts in _CUTS if cuts > above] or _CUTS[-1:]:
        found = yield from _upward_steps(circuit, shares, cuts)
        if found is not None and is_accurate(found.probability, found.error):
            break
    return found


def is_accurate(probability: float, error: float) -> bool:
    """Say whether an error may be passed over."""
    return error <= _MOST_ERROR * probability


def _upward_steps(circuit: Circuit, shares: Mapping[int, Float64], cuts: int) -> Steps[Beliefs | None]:
    """Work out what conditions say, column after column, children first."""
    lost = 2.0 ** (2 - BITS * cuts)  # of a sum of products of values up to 1
    messages: dict[int, Message] = {}
    at: dict[int, Belief] = {}
    probability, exponent, error = 1.0, 0, 0.0
    for position in reversed(tuple(circuit.columns)):
        column = circuit.columns[position]
        received = [messages[child] for child in column.children if child in messages]
        own = shares.get(position)
        if own is None and not received:
            continue
        bins = np.arange(column.bins.count) if own is None else np.flatnonzero(own)
        weights, exponent, error = _weights(bins, own, received)
        if not weights.any():
            return None
        edge = column.edge
        if edge is None:
            parts, by_state = None, _own(column, bins, Sliced.of(weights.T, cuts))
            error += 2 * lost
            probability = float(Sliced.of(by_state, cuts).products(circuit.root[None].astype(np.float64))[0, 0])
        else:
            possible = _possible(circuit, shares, edge.parent)
            parts = _parts(column, edge, bins, Sliced.of(weights.T, cuts), possible)
            by_state = _by_state(edge, parts, possible)
            sent, down = scaled(Sliced.of(by_state, cuts).products(edge.transition.astype(np.float64)))
            error = shifted(error + 2 * lost, -down)
            messages[position] = Message(sent, exponent + down, error)
        at[position] = Belief(bins, weights, by_state, parts)
        yield
    if not probability:
        return None
    exponent += sum(message.exponent for message in messages.values())
    return Beliefs(at, messages, probability, exponent, cuts, error)


def shifted(value: float, exponent: int) -> float:
    """Return value * 2**exponent, infinite where that is beyond float64."""
    try:
        return math.ldexp(value, exponent)
    except OverflowError:
        return math.inf


def _weights(bins: NDArray[np.int64], own: Float64 | None, received: Sequence[Message]) -> tuple[Float64, int, float]:
    """Return A over a power of two, its exponent, and its error; all 0 where nothing is possible."""
    weights, exponent = scaled(np.ones((1, len(bins))) if own is None else own[None, bins])
    error = 0.0
    for message in received:
        said = message.weights[:, bins]
        weights, down = scaled(weights * said)
        exponent += down
        error = shifted(error * float(said.max(initial=0.0)) + message.error, -down)
    return weights, exponent, error


def _possible(circuit: Circuit, shares: Mapping[int, Float64], position: int) -> NDArray[np.int64]:
    """Return the bins of a column that its own condition allows."""
    own = shares.get(position)
    return np.arange(circuit.columns[position].bins.count) if own is None else np.flatnonzero(own)


def scaled(values: Float64) -> tuple[Float64, int]:
    """Return values divided by a power of two, so that the greatest is 0.5 to 1, and its exponent."""
    exponent = int(np.frexp(values.max(initial=0.0))[1])
    return np.ldexp(values, -exponent), exponent


def _own(column: TreeColumn, bins: NDArray[np.int64], sliced: Sliced) -> Float64:
    """Return sum_x emission[z, x] * A(z, x), shape (states, 1)."""
    emission = column.emission[:, bins].astype(np.float64)
    if len(sliced.exponents) == 1:
        return sliced.products(emission)
    return sliced.sums(emission.T)[:, None]


def _parts(
    column: TreeColumn, edge: Edge, bins: NDArray[np.int64], sliced: Sliced, possible: NDArray[np.int64]
) -> Parts:
    """Return what S is made of where the parent's bin is one of the `possible` ones."""
    backoff = sliced.products(edge.backoff[:, bins].astype(np.float64))
    # The pairs of possible bins, and where the bins stand among these.
    place = np.full(column.bins.count, -1)
    place[bins] = np.arange(len(bins))
    kept = np.flatnonzero(place[edge.pair_bins] >= 0)
    places, listed = place[edge.pair_bins[kept]], edge.pair_weights[:, kept].astype(np.float64)
    starts = np.searchsorted(kept, edge.starts)
    components = np.zeros((len(edge.rest), len(edge.group), len(sliced.exponents)))
    components[:, possible] = sliced.products_of(listed, places, [(starts[x], starts[x + 1]) for x in possible])
    components[:, possible] += edge.rest[:, possible, None] / float(ONE) * backoff[edge.group[possible]]
    return Parts(_own(column, bins, sliced), components, backoff)


def _by_state(edge: Edge, parts: Parts, possible: NDArray[np.int64]) -> Float64:
    """Return S, 0 where the parent's bin is not possible: one component after another, the same bytes everywhere."""
    mixture = edge.mixture / float(ONE)
    some = np.repeat(mixture[:, :1] * parts.own, len(possible), axis=1)
    for component, drawn in enumerate(parts.components, 1):
        some += mixture[:, component, None] * drawn[possible].T
    found = np.zeros((len(some), len(edge.group)))
    found[:, possible] = some
    return found
