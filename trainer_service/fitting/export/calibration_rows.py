"""Rows of a float network, as codes: what probes and temperatures are judged by. The sampler's are exact integers."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainer_service.fitting.encoding.encoded_table import EncodedRows, EncodedTable
from trainer_service.fitting.export.calibration import Calibration
from trainer_service.fitting.export.float_layer import FloatLayer
from trainer_service.fitting.export.marginals import shifts
from trainer_service.fitting.monitoring.progress import Between, uninterrupted


def draw_rows(
    hidden: Sequence[FloatLayer],
    output: FloatLayer,
    table: EncodedTable,
    calibration: Calibration,
    random: np.random.Generator,
    *,
    concatenate: bool,
    noise_scale: NDArray[np.float32] | None = None,
    between: Between = uninterrupted,
) -> EncodedRows:
    """Draw a row for each input, the marginals set as at export.

    Args:
        hidden: The hidden layers, each followed by ReLU.
        output: The output layer, in schema order.
        table: The training rows.
        calibration: The inputs, n of them.
        random: Draws choices and noise.
        concatenate: Whether a layer's result stands before its input in the next one's, or replaces it.
        noise_scale: Standard deviation of the noise on each scalar, shape (s,), or None.
        between: See `Fitter.export`.

    Returns:
        n rows.
    """
    x = calibration.real
    for layer in hidden:
        between("")
        made = np.maximum(layer.forward(x), 0)
        x = np.concatenate([made, x], axis=1) if concatenate else made
    outputs = output.forward(x)
    blocks, scalars = table.positions()
    targets = [count / count.sum() for count in table.counts]
    moved = shifts(outputs, blocks, targets, calibration.conditioned, between)
    choices = np.empty((len(x), len(blocks)), np.int64)
    for column, (block, count) in enumerate(zip(blocks, table.counts, strict=True)):
        between("")
        logits = outputs[:, block] + moved[block].astype(np.float32)
        logits[:, count == 0] = -np.inf
        running = np.cumsum(np.exp(logits - logits.max(axis=1, keepdims=True)), axis=1)
        choices[:, column] = np.count_nonzero(running <= (random.random(len(x)) * running[:, -1])[:, None], axis=1)
        own = calibration.conditioned == column
        choices[own, column] = calibration.choice[own]
    alpha = np.tanh(outputs[:, scalars])
    if noise_scale is not None:
        alpha += noise_scale * random.standard_normal(alpha.shape, np.float32)
    return EncodedRows(choices, alpha.astype(np.float32))
