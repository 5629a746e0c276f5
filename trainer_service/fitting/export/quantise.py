"""From a float network to the exact integers of `rowmint.synthesizer.exact.network`.

Weights become int8 with a scale for each output channel, activations 7 bits with a scale for each channel, found on a
calibration batch drawn as the sampler draws. What the scales of the inputs would need is folded into the weights first,
and batch normalisation before that. Biases stay at full precision, the zero point of the input codes included; the
one-hot condition vector is an input as any other, 127 where it is 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rowmint.synthesizer.exact import tables
from rowmint.synthesizer.exact.layers import ACTIVATION_MAX, Layer
from trainer_service.fitting.encoding.encoded_table import EncodedTable
from trainer_service.fitting.export.calibration import Calibration
from trainer_service.fitting.export.float_layer import FloatLayer
from trainer_service.fitting.export.marginals import shifts
from trainer_service.fitting.monitoring.progress import Between, uninterrupted

PERCENTILE = 99.995
_WEIGHT_MAX = 127
_UNREACHABLE = -(1 << 20)
_BIAS_LIMIT = float(1 << 29)


def quantise(
    hidden: Sequence[FloatLayer],
    output: FloatLayer,
    table: EncodedTable,
    calibration: Calibration,
    *,
    concatenate: bool,
    between: Between = uninterrupted,
) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of the network in exact integers.

    Args:
        hidden: The hidden layers, each followed by ReLU.
        output: The output layer, in schema order.
        table: The training rows: their columns are the outputs, their frequencies those of the model.
        calibration: A batch of inputs.
        concatenate: Whether a layer's result stands before its input in the next one's, or replaces it.
        between: See `Fitter.export`.
    """
    arrays: dict[str, NDArray[np.generic]] = {}
    x, real = calibration.codes, calibration.real
    noise, conditions = calibration.noise, x.shape[1] - calibration.noise
    scales = np.repeat([1 / tables.CODES_PER_SIGMA, 1 / ACTIVATION_MAX], [noise, conditions])
    zeros = np.repeat([tables.CODE_ZERO, 0], [noise, conditions])
    for index, layer in enumerate(hidden):
        between(f"quantising layer {index + 1} of {len(hidden) + 1}")
        exact = _Folded.of(layer, scales, zeros)
        outcome = np.maximum(layer.forward(real), 0)
        # A channel that never fires in the batch keeps a scale of its largest reach, however small.
        reach = np.maximum(np.percentile(outcome, PERCENTILE, axis=0), outcome.max(axis=0) * 0.5)
        reach = np.where(reach > 0, reach, 1.0)
        made = exact.layer(ACTIVATION_MAX / reach)
        arrays.update(made.to_arrays(f"layer.{index}"))
        codes = _run(made, x).clip(0, ACTIVATION_MAX).astype(np.uint8)
        x = np.concatenate([codes, x], axis=1) if concatenate else codes
        real = np.concatenate([outcome, real], axis=1) if concatenate else outcome
        scales = np.concatenate([reach / ACTIVATION_MAX, scales]) if concatenate else reach / ACTIVATION_MAX
        zeros = np.concatenate([np.zeros(len(reach)), zeros]) if concatenate else np.zeros(len(reach))
    between(f"quantising layer {len(hidden) + 1} of {len(hidden) + 1}")
    arrays.update(_output(_Folded.of(output, scales, zeros), x, table, calibration, between).to_arrays("output"))
    return arrays


def _output(
    folded: "_Folded", x: NDArray[np.uint8], table: EncodedTable, calibration: Calibration, between: Between
) -> Layer:
    """Return the output layer, its marginals those of `table`; a choice that no training row has is never drawn."""
    blocks, scalars = table.positions()
    units = np.full(table.width, tables.LOGIT_UNIT, np.float64)
    units[scalars] = tables.ALPHA_UNIT
    unseen = [
        block.start + choice
        for block, counts in zip(blocks, table.counts, strict=True)
        for choice in np.flatnonzero(counts == 0)
    ]
    layer = folded.layer(units)
    logits = _run(layer, x) / np.float32(tables.LOGIT_UNIT)
    targets = [counts / counts.sum() for counts in table.counts]
    moved = shifts(logits, blocks, targets, calibration.conditioned, between)
    layer.bias[:] += np.rint(moved / folded.unit).clip(-_BIAS_LIMIT, _BIAS_LIMIT).astype(np.int32)
    layer.weight[:, unseen] = 0
    layer.bias[unseen] = _UNREACHABLE
    layer.scale[unseen] = 1
    return layer


def _run(layer: Layer, x: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the layer's rounded results; as calibration needs them, not exact to the last bit."""
    total = x.astype(np.float32) @ layer.weight.astype(np.float32) + layer.bias.astype(np.float32)
    real: NDArray[np.float32] = np.rint(total * layer.scale)
    return real


@dataclass(frozen=True)
class _Folded:
    """A layer's integers, before what its results are to be scaled by is known.

    Attributes:
        weight: int8, shape (k, m).
        bias: int32, shape (m,).
        unit: What a sum of 1 stands for, shape (m,).
    """

    weight: NDArray[np.int8]
    bias: NDArray[np.int32]
    unit: NDArray[np.float64]

    @classmethod
    def of(cls, layer: FloatLayer, scales: NDArray[np.float64], zeros: NDArray[np.float64]) -> "_Folded":
        """Quantise `layer`, whose inputs are (code - zero) * scale."""
        folded = layer.weight * scales[:, None]
        unit = np.abs(folded).max(axis=0) / _WEIGHT_MAX
        # Where the weights are next to nothing beside the bias, the bias decides the unit: it must fit in 32 bits.
        unit = np.maximum(np.maximum(unit, np.abs(layer.bias) / _BIAS_LIMIT), 1e-7)
        weight = np.clip(np.rint(folded / unit), -_WEIGHT_MAX, _WEIGHT_MAX)
        bias = np.rint(layer.bias / unit - zeros @ weight)
        return cls(weight.astype(np.int8), bias.astype(np.int32), unit)

    def layer(self, units: NDArray[np.float64]) -> Layer:
        """Return the layer whose results have `units` units a real 1, shape (m,)."""
        return Layer(self.weight, self.bias, (self.unit * units).astype(np.float32))
