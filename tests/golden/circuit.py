"""The parameters of the golden circuit: hand-made, with fixed words, a tree of every kind of column."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowmint.synthesizer.circuit.tree import ONE

STATES, COMPONENTS, BINS = 5, 2, 6
# Positions among the modelled columns of `SCHEMA`: city is the root, grade follows from it; age has four children.
PARENTS = (-1, -2, 0, 0, 3, 3, 3, 3, 7, 8, 0, 10, 11)

Noise = Callable[..., NDArray[np.float64]]
"""Returns numbers in [-1, 1), a pure function of purpose and shape."""


def circuit_arrays(choices: Sequence[int], noise: Noise) -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
    """Return the manifest's entry and the arrays.

    Args:
        choices: Choices of each modelled column; as many of these as there are.
        noise: Where all numbers come from.
    """
    of = [np.minimum(np.arange(count), (np.arange(count) * 7 + 3) % BINS).astype(np.uint16) for count in choices]
    of = [np.unique(bins, return_inverse=True)[1].astype(np.uint16) for bins in of]
    counts = [int(bins.max()) + 1 for bins in of]
    parents = PARENTS[: len(choices)]
    arrays: dict[str, NDArray[np.generic]] = {"root": _rows(noise("root", 1, STATES))[0]}
    order = [0]
    for position in order:
        order += [child for child, parent in enumerate(parents) if parent == position]
    for position in order:
        parent, bins = parents[position], counts[position]
        weights = np.zeros(choices[position], np.uint32)
        for each in range(bins):
            own = np.flatnonzero(of[position] == each)
            weights[own] = _rows(noise(f"within.{position}.{each}", 1, len(own)))[0]
        arrays[f"bins.{position}.of"], arrays[f"bins.{position}.weights"] = of[position], weights
        arrays[f"emission.{position}"] = _rows(noise(f"emission.{position}", STATES, bins))
        if parent >= 0:
            arrays |= _edge(position, counts[parent], bins, noise)
    derived = {"1": 0} if len(choices) > 1 else {}
    if derived:
        determined = noise("derived", choices[0])
        arrays["derived.1"] = ((determined + 1) / 2 * choices[1]).astype(np.uint16)
    network = {
        "states": STATES,
        "components": COMPONENTS,
        "parents": list(parents),
        "order": order,
        "derived": derived,
    }
    return network, arrays


def _edge(position: int, parent_bins: int, bins: int, noise: Noise) -> dict[str, NDArray[np.generic]]:
    seen = noise(f"seen.{position}", parent_bins, bins) < 0.2
    starts = np.concatenate([[0], np.cumsum(seen.sum(axis=1))]).astype(np.uint32)
    weights = np.zeros((COMPONENTS, int(starts[-1])), np.uint32)
    rest = np.zeros((COMPONENTS, parent_bins), np.uint32)
    for each in range(parent_bins):
        first, last = int(starts[each]), int(starts[each + 1])
        rows = _rows(noise(f"pairs.{position}.{each}", COMPONENTS, last - first + 1))
        weights[:, first:last], rest[:, each] = rows[:, :-1], rows[:, -1]
    return {
        f"transition.{position}": _rows(noise(f"transition.{position}", STATES, STATES)),
        f"mixture.{position}": _rows(noise(f"mixture.{position}", STATES, COMPONENTS + 1)),
        f"pairs.{position}.starts": starts,
        f"pairs.{position}.bins": np.nonzero(seen)[1].astype(np.uint16),
        f"pairs.{position}.weights": weights,
        f"pairs.{position}.rest": rest,
        f"backoff.{position}.group": (np.arange(parent_bins) % 2).astype(np.uint16),
        f"backoff.{position}.weights": _rows(noise(f"backoff.{position}", 2, bins)),
    }


def _rows(noise: NDArray[np.float64]) -> NDArray[np.uint32]:
    """Return each row as whole numbers of sum `ONE`; what rounding leaves over goes to the first."""
    shares = (noise + 1.001) * (noise + 1.001) * (noise + 1.001)
    weights = np.floor(shares / shares.sum(axis=1, keepdims=True) * (ONE - len(noise[0]))).astype(np.int64)
    weights[:, 0] += ONE - weights.sum(axis=1)
    return weights.astype(np.uint32)
