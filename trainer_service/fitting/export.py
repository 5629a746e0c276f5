"""From a float network to the exact integers of `rowmint.synthesizer.network`.

Weights become int8 with a scale for each output channel, activations 7 bits with a scale for each channel, found on a
calibration batch drawn as the sampler draws. What the scales of the inputs would need is folded into the weights first,
and batch normalisation before that. Biases stay at full precision, one row for each condition, the zero point of the
input codes included.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rowmint.synthesizer import tables
from rowmint.synthesizer.network import Layer
from trainer_service.fitting.encode import EncodedTable
from trainer_service.fitting.keys import key, philox
from trainer_service.fitting.marginals import shifts

CALIBRATION_ROWS = 8192
PERCENTILE = 99.995
_WEIGHT_MAX = 127
_CODE_MAX = 127
_UNREACHABLE = -(1 << 20)
_BIAS_LIMIT = float(1 << 29)


@dataclass(frozen=True)
class FloatLayer:
    """An affine layer, batch normalisation folded in.

    Attributes:
        weight: Shape (k, m), one row an input; the inputs of the layers before, then the noise.
        condition: Weights of the condition's one-hot input, shape (c, m), c = 0 without conditions.
        bias: Shape (m,).
    """

    weight: NDArray[np.float64]
    condition: NDArray[np.float64]
    bias: NDArray[np.float64]

    @property
    def biases(self) -> NDArray[np.float64]:
        """The bias under each condition, shape (max(1, c), m)."""
        return self.bias + self.condition if len(self.condition) else self.bias[None]


@dataclass(frozen=True)
class Calibration:
    """Inputs drawn as the sampler draws them.

    Attributes:
        codes: Input codes, uint8, shape (n, z).
        condition: Condition of each row, shape (n,); zeros where there are none.
        asked: Place, among the modelled columns, of the column that the condition sets, or -1; shape (n,).
    """

    codes: NDArray[np.uint8]
    condition: NDArray[np.int64]
    asked: NDArray[np.int64]

    @property
    def noise(self) -> NDArray[np.float32]:
        """The normal deviates that the codes stand for, shape (n, z)."""
        return ((self.codes - np.float32(tables.CODE_ZERO)) / np.float32(tables.CODES_PER_SIGMA)).astype(np.float32)


def draw_codes(seed: int, width: int) -> NDArray[np.uint8]:
    """Draw the input codes of a calibration batch, shape (`CALIBRATION_ROWS`, width)."""
    words = philox(key(seed, "calibration")).random_raw(CALIBRATION_ROWS * width // 4 + 1)
    picked = words.astype("<u8").view("<u2")[: CALIBRATION_ROWS * width]
    codes: NDArray[np.uint8] = tables.input_codes()[picked].reshape(CALIBRATION_ROWS, width)
    return codes


def quantise(
    hidden: Sequence[FloatLayer],
    output: FloatLayer,
    table: EncodedTable,
    calibration: Calibration,
    *,
    concatenate: bool,
) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of the network in exact integers.

    Args:
        hidden: The hidden layers, each followed by ReLU.
        output: The output layer, in schema order.
        table: The training rows: their columns are the outputs, their frequencies those of the model.
        calibration: A batch of inputs.
        concatenate: Whether a layer's result stands before its input in the next one's, or replaces it.
    """
    arrays: dict[str, NDArray[np.generic]] = {}
    x = calibration.codes
    scales = np.full(x.shape[1], 1 / tables.CODES_PER_SIGMA)
    zeros = np.full(x.shape[1], tables.CODE_ZERO)
    real = calibration.noise
    for index, layer in enumerate(hidden):
        exact = _Folded.of(layer, scales, zeros)
        outcome = np.maximum(_affine(layer, real, calibration.condition), 0)
        # A channel that never fires in the batch keeps a scale of its largest reach, however small.
        reach = np.maximum(np.percentile(outcome, PERCENTILE, axis=0), outcome.max(axis=0) * 0.5)
        reach = np.where(reach > 0, reach, 1.0)
        made = exact.layer(_CODE_MAX / reach)
        arrays.update(made.to_arrays(f"layer.{index}"))
        codes = _run(made, x, calibration.condition).clip(0, _CODE_MAX).astype(np.uint8)
        x = np.concatenate([codes, x], axis=1) if concatenate else codes
        real = np.concatenate([outcome, real], axis=1) if concatenate else outcome
        scales = np.concatenate([reach / _CODE_MAX, scales]) if concatenate else reach / _CODE_MAX
        zeros = np.concatenate([np.zeros(len(reach)), zeros]) if concatenate else np.zeros(len(reach))
    arrays.update(_output(_Folded.of(output, scales, zeros), x, table, calibration).to_arrays("output"))
    return arrays


def _output(folded: "_Folded", x: NDArray[np.uint8], table: EncodedTable, calibration: Calibration) -> Layer:
    """Return the output layer, its marginals those of `table`; a slot that no training row has is never drawn."""
    units: list[float] = []
    blocks: list[slice] = []
    unseen: list[int] = []
    for codec, counts in zip(table.codecs, table.counts, strict=True):
        start = len(units) + codec.scalar
        blocks.append(slice(start, start + codec.slots))
        unseen += (start + np.flatnonzero(counts == 0)).tolist()
        units += [tables.ALPHA_UNIT] * codec.scalar + [tables.LOGIT_UNIT] * codec.slots
    layer = folded.layer(np.array(units, np.float64))
    logits = _run(layer, x, calibration.condition) / np.float32(tables.LOGIT_UNIT)
    targets = [counts / counts.sum() for counts in table.counts]
    moved = shifts(logits, blocks, targets, calibration.asked)
    layer.bias[:] += np.rint(moved / folded.unit).clip(-_BIAS_LIMIT, _BIAS_LIMIT).astype(np.int32)
    layer.weight[:, unseen] = 0
    layer.bias[:, unseen] = _UNREACHABLE
    layer.scale[unseen] = 1
    return layer


def _affine(layer: FloatLayer, x: NDArray[np.float32], condition: NDArray[np.int64]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = x @ layer.weight.astype(np.float32)
    result += layer.biases.astype(np.float32)[condition]
    return result


def _run(layer: Layer, x: NDArray[np.uint8], condition: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the layer's rounded results; as calibration needs them, not exact to the last bit."""
    total = x.astype(np.float32) @ layer.weight.astype(np.float32) + layer.bias[condition]
    real: NDArray[np.float32] = np.rint(total.astype(np.float32) * layer.scale)
    return real


@dataclass(frozen=True)
class _Folded:
    """A layer's integers, before what its results are to be scaled by is known.

    Attributes:
        weight: int8, shape (k, m).
        bias: int32, shape (max(1, c), m).
        unit: What a sum of 1 stands for, shape (m,).
    """

    weight: NDArray[np.int8]
    bias: NDArray[np.int32]
    unit: NDArray[np.float64]

    @classmethod
    def of(cls, layer: FloatLayer, scales: NDArray[np.float64], zeros: NDArray[np.float64]) -> "_Folded":
        """Quantise `layer`, whose inputs are (code - zero) * scale."""
        folded = layer.weight * scales[:, None]
        biases = layer.biases
        unit = np.abs(folded).max(axis=0) / _WEIGHT_MAX
        # Where the weights are next to nothing beside the bias, the bias decides the unit: it must fit in 32 bits.
        unit = np.maximum(np.maximum(unit, np.abs(biases).max(axis=0) / _BIAS_LIMIT), 1e-7)
        weight = np.clip(np.rint(folded / unit), -_WEIGHT_MAX, _WEIGHT_MAX)
        bias = np.rint(biases / unit - zeros @ weight)
        return cls(weight.astype(np.int8), bias.astype(np.int32), unit)

    def layer(self, units: NDArray[np.float64]) -> Layer:
        """Return the layer whose results have `units` units a real 1, shape (m,)."""
        return Layer(self.weight, self.bias, (self.unit * units).astype(np.float32))
