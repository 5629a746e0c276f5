"""Probabilities as whole numbers of sum 2**24, as the sampler needs them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

ONE = 1 << 24
"""The sum of the whole weights of a distribution."""


def whole(probabilities: NDArray[Any]) -> NDArray[np.uint32]:
    """Return rows of probabilities as whole numbers of sum `ONE`; every positive one gets at least 1.

    Args:
        probabilities: Non-negative along the last axis, fewer than `ONE`, with a positive sum; any leading axes.
    """
    running = np.cumsum(np.asarray(probabilities, np.float64), axis=-1)
    positive = np.asarray(probabilities) > 0
    # One for each positive probability, the rest by the running share, whose last is exactly 1.
    shared = ONE - np.count_nonzero(positive, axis=-1, keepdims=True)
    bounds = np.floor(running / running[..., -1:] * shared)
    return (np.diff(bounds, axis=-1, prepend=0.0) + positive).astype(np.uint32)


def whole_by_group(values: NDArray[np.float64], starts: NDArray[np.integer]) -> NDArray[np.uint32]:
    """Return values as whole numbers that sum to `ONE` in each of some runs; every positive one gets at least 1.

    Args:
        values: Non-negative, with a positive sum in each run; shape (n,).
        starts: Where each run begins, ascending from 0, none empty; shape (runs,).
    """
    lengths = np.diff(np.append(starts, len(values)))
    run = np.repeat(np.arange(len(starts)), lengths)
    # Sums that begin again in each run: no error is carried from one to the next.
    share = values / np.add.reduceat(values, starts)[run]
    running = np.cumsum(share)
    running -= (running[starts] - share[starts])[run]
    last = np.append(starts[1:], len(values)) - 1
    running = np.clip(running, 0.0, 1.0)
    running[last] = 1.0
    positive = values > 0
    shared = ONE - np.add.reduceat(positive.astype(np.int64), starts)
    bounds = np.floor(running * shared[run])
    before = np.concatenate([[0.0], bounds[:-1]])
    before[starts] = 0.0
    weights: NDArray[np.uint32] = (np.maximum(bounds - before, 0.0) + positive).astype(np.uint32)
    return weights
