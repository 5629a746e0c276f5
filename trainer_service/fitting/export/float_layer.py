"""An affine layer of a float network, as it is exported."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class FloatLayer:
    """An affine layer, batch normalisation folded in.

    Attributes:
        weight: Shape (k, m), one row an input: the results of the layers before, then the noise, then the
            condition vector.
        bias: Shape (m,).
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]

    @classmethod
    def of(cls, weight: "Tensor", bias: "Tensor") -> Self:
        """Return a layer from torch's weight, shape (m, k), and bias."""
        return cls(weight.cpu().numpy().astype(np.float64).T, bias.cpu().numpy().astype(np.float64))

    def forward(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the layer's results, shape (n, m), of inputs of shape (n, k)."""
        result: NDArray[np.float32] = x @ self.weight.astype(np.float32)
        result += self.bias.astype(np.float32)
        return result

    def select(self, outputs: NDArray[np.int64]) -> Self:
        """Return the layer that makes these outputs, in this order."""
        return type(self)(self.weight[:, outputs], self.bias[outputs])
