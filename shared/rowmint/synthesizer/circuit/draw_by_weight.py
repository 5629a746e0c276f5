"""A draw by weight for each row, each row with weights of its own."""

import numpy as np
from numpy.typing import NDArray


def drawn(weights: NDArray[np.float64], words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return an outcome for each row, by weight; one of weight 0 is never drawn.

    Args:
        weights: Not all 0, shape (n, outcomes).
        words: 64-bit words, shape (n,).
    """
    running = np.cumsum(weights, axis=1)
    target = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53 * running[:, -1]
    found: NDArray[np.int64] = (running <= target[:, None]).sum(axis=1)
    return found
