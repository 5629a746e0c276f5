"""The numbers of a network in exact integers.

A layer takes activations x in 0..127 and gives, for int32 sums s = x @ weight + bias,

    hidden:  clip(rint(float32(s) * scale), 0, 127)                as uint8
    output:  clip(rint(float32(s) * scale), -32768, 32767)         as int16

int32 to float32, the product and `rint` are correctly rounded on every processor, and each is a separate operation, so
that no compiler fuses them: the result is the same everywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rowmint.errors import DataLossError

ACTIVATION_MAX = 127
"""Activations keep to 7 bits: x86 kernels without VNNI add pairs of products in int16, which saturates at 8."""

_MAX_SUM = 2**31 - 1
_MAX_SCALE = 2.0**96  # times a sum it is finite


@dataclass(frozen=True)
class Layer:
    """One layer's numbers.

    Attributes:
        weight: int8, shape (k, m), values -127..127.
        bias: int32, shape (m,).
        scale: float32, shape (m,), what a sum is multiplied by.
    """

    weight: NDArray[np.int8]
    bias: NDArray[np.int32]
    scale: NDArray[np.float32]

    @property
    def size_bytes(self) -> int:
        """Bytes of the arrays."""
        return self.weight.nbytes + self.bias.nbytes + self.scale.nbytes

    def select(self, outputs: NDArray[np.intp]) -> "Layer":
        """Return the layer that makes these outputs, in this order."""
        return Layer(np.ascontiguousarray(self.weight[:, outputs]), self.bias[outputs], self.scale[outputs])

    def to_arrays(self, name: str) -> dict[str, NDArray[np.generic]]:
        """Return the arrays under ``{name}.weight`` and so on."""
        return {f"{name}.weight": self.weight, f"{name}.bias": self.bias, f"{name}.scale": self.scale}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]], name: str) -> Self:
        """Return the layer that `to_arrays` wrote.

        Raises:
            DataLossError: An array is missing or has another type or shape than it must.
        """
        try:
            weight, bias, scale = (arrays[f"{name}.{part}"] for part in ("weight", "bias", "scale"))
        except KeyError as error:
            raise DataLossError(f"the model's weights lack {error.args[0]!r}") from error
        width = weight.shape[-1] if weight.ndim == 2 else -1
        fits = (
            [weight.dtype, bias.dtype, scale.dtype] == [np.dtype(np.int8), np.dtype(np.int32), np.dtype(np.float32)]
            and bias.shape == (width,)
            and scale.shape == (width,)
            and bool(np.isfinite(scale).all())
        )
        if not fits:
            raise DataLossError(f"layer {name!r} of the model's weights has wrong types or shapes")
        layer = cls(weight.astype(np.int8), bias.astype(np.int32), scale.astype(np.float32))
        # Beyond these, kernels would wrap or saturate, each in its own way.
        reach = ACTIVATION_MAX * np.abs(weight, dtype=np.int16).sum(axis=0, dtype=np.int64)
        if (reach + np.abs(layer.bias, dtype=np.int64) > _MAX_SUM).any():
            raise DataLossError(f"a sum of layer {name!r} of the model's weights may pass 2**31")
        if not ((layer.scale >= 0) & (layer.scale <= _MAX_SCALE)).all():
            raise DataLossError(f"a scale of layer {name!r} of the model's weights is out of range")
        return layer
