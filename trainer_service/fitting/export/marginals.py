"""The output biases that give every column its training marginal.

NOTE[DIFF]: the paper leaves the marginals to what the network has learned, and conditions drawn by log-frequencies pull
them away from the data's. At export each block of logits is shifted by a constant, the same for every row, so that its
mean softmax over rows as the sampler draws them is the training frequency: of all changes that do so, the one of least
relative entropy. Measured on Adult after 10 epochs of CTGAN: mean distance of the 15 marginals .049 without, .012 with.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainer_service.fitting.monitoring.progress import Between, uninterrupted

_STEPS = 50
_CLOSE = 1e-4
_LIMIT = 20.0


def shift(logits: NDArray[np.float32], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what to add to a block's logits, nats, shape (choices,).

    Args:
        logits: Natural logarithms up to a constant a row, shape (n, choices), n >= 1.
        target: Wanted mean of the softmax, sum 1, all positive, shape (choices,).
    """
    moved = np.zeros(len(target))
    if len(target) == 1:
        return moved
    masses = np.exp(logits - logits.max(axis=1, keepdims=True))
    for _ in range(_STEPS):
        # Iterative scaling: a choice that comes too often by a factor is made less likely by it.
        factor = np.exp(moved).astype(np.float32)
        mean = (factor * ((1 / (masses @ factor)) @ masses)).astype(np.float64) / len(masses)
        if np.abs(mean - target).max() < _CLOSE:
            break
        moved += np.log(target / np.maximum(mean, 1e-12))
        moved = np.clip(moved - target @ moved, -_LIMIT, _LIMIT)
    return moved


def shifts(
    logits: NDArray[np.float32],
    blocks: Sequence[slice],
    targets: Sequence[NDArray[np.float64]],
    conditioned: NDArray[np.int64],
    between: Between = uninterrupted,
) -> NDArray[np.float64]:
    """Return what to add to every output, nats, shape (w,); 0 outside blocks and for choices that no training row has.

    Args:
        logits: Outputs of rows as the sampler draws them, nats, shape (n, w).
        blocks: Where each column's choices stand; c of them.
        targets: Training frequencies of each column's choices, sum 1, shape (choices,) each.
        conditioned: Column that the row's condition vector sets, so that its logits do not count there, or -1; shape
            (n,).
        between: See `Fitter.export`.
    """
    moved = np.zeros(logits.shape[1])
    for column, (block, target) in enumerate(zip(blocks, targets, strict=True)):
        between("")
        seen = np.flatnonzero(target)
        free = conditioned != column
        if free.any():
            # The block first: rows of all outputs, copied for each column, would take the square of the table's width.
            moved[block.start + seen] = shift(logits[:, block][free][:, seen], target[seen])
    return moved
